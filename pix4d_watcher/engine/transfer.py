"""The shared upload pool: every thread takes the next image, or the next part of a large one, and sends it.

What is to be sent stands in the journal; memory only knows who is at what. A thread that ends in the middle loses
nothing, since the image is still pending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import (
    ClockSkewed,
    Conflict,
    Corrupted,
    CredentialsExpired,
    HostError,
    MediaAbsent,
    NotThere,
    Refused,
    RemoteError,
    SourceError,
    SourceMissing,
    SourceUnreadable,
    Throttled,
)
from pix4d_watcher.core.model import Condition, HoldCode, printable
from pix4d_watcher.engine import large, sources
from pix4d_watcher.engine.effects import hold_gone, hold_refused
from pix4d_watcher.engine.meter import Meter
from pix4d_watcher.engine.waits import backoff
from pix4d_watcher.intake.freeze import BLOCK
from pix4d_watcher.journal import orphans, projects, skips, uploads, views
from pix4d_watcher.journal.change import Stale
from pix4d_watcher.journal.orphans import Orphan
from pix4d_watcher.journal.records import Image

if TYPE_CHECKING:
    from pix4d_watcher.cloud.wire import Line
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.engine.large import Part
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()

MAX_TRIES = 20
"""Tries of one image before a person is asked; see `steps.MAX_TRIES`."""

MISSING_FOR = 10.0
"""Seconds for which an image is missing before a person is asked: the scan finds a folder again that is renamed."""

MISSING_AGAIN = 5.0
"""Seconds between these looks."""


class Transfer:
    """The pool's shared memory: who sends what, which parts wait, and how fast it goes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._claimed: set[int] = set()
        self._parts: deque[Part] = deque()
        self._throttled = 0
        self._not_before = 0.0
        self.meter = Meter()

    def run(self) -> None:
        """Send one thing after the other until the service stops; the work of one thread."""
        context = self._context
        line = None
        while not context.stop.is_set():
            job = None if context.world.pause or context.paused or self._patience() else self._take()
            if job is None:
                context.beats.rest()
                if line is not None:
                    line.close()
                    line = None  # with its buffer, so that an idle service holds none
                context.wake_uploads.wait(self._rest())
                continue
            line = line or context.line()
            context.beats.beat(context.hung)
            if isinstance(job, Orphan):
                try:
                    large.abort(context, line, job)
                except Throttled as error:
                    self._slow_down(error)
                self._release(job.image_id)
            else:
                self._do(line, job)
        if line is not None:
            line.close()

    def _rest(self) -> float:
        """Return the seconds until the next image has waited long enough, or until the next look."""
        if patience := self._patience():
            return min(IDLE, patience)
        now = time.time()
        due = uploads.next_due(self._context.journal, now)
        return IDLE if due is None else min(IDLE, due - now)

    def _patience(self) -> float:
        """Return the seconds for which nothing is sent, since S3 asked for patience."""
        with self._lock:
            return max(0.0, self._not_before - time.monotonic())

    def _slow_down(self, error: Throttled) -> None:
        """Have all threads wait: as long as S3 says, else longer for each time in a row that it asks for it."""
        most = self._context.settings.advanced.retry_max
        with self._lock:
            now = time.monotonic()
            if now >= self._not_before:  # what was on its way by then was not sent in haste
                self._throttled += 1
            pause = error.retry_after or backoff(self._throttled, SLOWER, most)
            self._not_before = max(self._not_before, now + min(pause, most))

    def _works(self) -> None:
        self._context.world.works()
        with self._lock:
            self._throttled = 0

    def _take(self) -> Image | Part | Orphan | None:
        """Pick a part, else an image, else an upload that nobody needs any more."""
        with self._lock:
            if self._parts:
                self._parts[0].upload.under_way += 1
                return self._parts.popleft()
            journal, now, horizon = self._context.journal, time.time(), self._context.horizon
            found = views.to_upload(journal, now, horizon, but=self._claimed, most=1)
            if found:
                self._claimed.add(found[0].id)
                return found[0]
            # Never while a part of its image is on its way: it could land after the abort, and stay.
            orphan = orphans.to_abort(journal, now, horizon, but=self._claimed)
            if orphan is not None:
                self._claimed.add(orphan.image_id)
            return orphan

    def _landed(self, upload: large.Upload, *, failed: bool) -> bool:
        """Note that a thread is through with a part; True for the last one of an upload that failed."""
        with self._lock:
            upload.under_way -= 1
            upload.failed = upload.failed or failed
            if upload.failed:
                self._parts = deque(part for part in self._parts if part.upload is not upload)
            return upload.failed and upload.under_way == 0

    def _release(self, image_id: int) -> None:
        with self._lock:
            self._claimed.discard(image_id)
        self.meter.end(image_id)
        # Others may sleep because this was the only image to be had.
        self._context.wake_uploads.call()

    def _do(self, line: Line, job: Image | Part) -> None:
        image = job if isinstance(job, Image) else job.image
        project = views.project(self._context.journal, image.project_id)
        done, failed = not isinstance(job, large.Part), True
        try:
            if isinstance(job, large.Part):
                # A large image has many parts in the queue: none of them goes out for a project that was stopped.
                if project.condition is Condition.ACTIVE and not project.paused:
                    done, failed = self._send_part(line, project, job), False
            elif image.blocks and image.size > BLOCK:
                done = self._begin_large(line, project, image)
            else:
                self._send(line, project, image)
        except (RemoteError, SourceError, HostError) as error:
            line.close()
            self._trouble(line, project, views.image(self._context.journal, image.id), error)
        except Stale as changed:
            log.debug("looked again", project=project.title, reason=str(changed))
        finally:
            if isinstance(job, large.Part):
                done = self._landed(job.upload, failed=failed) or done
            if done:
                self._release(image.id)

    def _send(self, line: Line, project: Project, frozen: Image) -> None:
        context = self._context
        assert project.remote_id is not None
        with sources.opened(context, project, frozen) as (handle, image):
            if not image.begun:
                uploads.begun(context.journal, image)
            etag = context.buckets.of(project.remote_id).put(
                line,
                f"{project.prefix}/{image.key}",
                sources.body(context, project, handle, 0, image.size),
                image.sha256,
                content_type=sources.content_type(image.path),
                on_progress=lambda count: self.meter.sent(image, count),
                stop=self._stops,
            )
            sources.still_same(context, project, handle, image)
        self._arrived(project, image, etag)

    def _arrived(self, project: Project, image: Image, etag: str) -> None:
        self._works()
        self._context.waits.end(large.COMPLETE, image.id)
        if uploads.uploaded(self._context.journal, image, etag):
            self._context.wake_steps.call()
        log.debug("image uploaded", project=project.title, image=printable(image.path), size=image.size)

    def _begin_large(self, line: Line, project: Project, frozen: Image) -> bool:
        """Line up the parts of a large image that are still to be sent; True when nothing is left to do."""
        context = self._context
        with sources.opened(context, project, frozen) as (_handle, image):
            upload = large.begin(context, line, project, image)
        if upload.wait:
            text = "all its parts were sent, and S3 may still be putting them together"
            uploads.failed(context.journal, image, text, due_at=context.after(upload.wait), counts=False)
            return True
        if upload.etag:
            self._arrived(project, image, upload.etag)
            return True
        if not upload.left:
            self._arrived(project, image, large.complete(context, line, project, upload))
            return True
        with self._lock:
            self._parts.extend(large.Part(image, upload, number) for number in sorted(upload.left))
        context.wake_uploads.call()
        return False

    def _send_part(self, line: Line, project: Project, part: Part) -> bool:
        """Send one part; the thread that sends the last one completes the object. True when the image is finished."""
        context, upload = self._context, part.upload
        if upload.failed:
            return False
        with sources.opened(context, project, part.image) as (handle, image):
            large.send(
                context,
                line,
                project,
                part,
                handle,
                on_progress=lambda count: self.meter.sent(image, count),
                stop=self._stops,
            )
            sources.still_same(context, project, handle, image)
        self._works()
        if not upload.finished(part.number):
            return False
        self._arrived(project, part.image, large.complete(context, line, project, upload))
        return True

    def _stops(self) -> bool:
        self._context.beats.beat(self._context.hung)
        return self._context.stop.is_set()

    def _trouble(
        self, line: Line, project: Project, image: Image, error: RemoteError | SourceError | HostError
    ) -> None:
        """Decide whom an error concerns: this image, its project, its medium or the world."""
        if self._context.stop.is_set():
            return
        if isinstance(error, SourceError):
            self._source_trouble(project, image, error)
        elif isinstance(error, HostError):
            self._again(project, image, str(error))
        elif isinstance(error, Corrupted):
            self._arrived_differently(project, image, error)
        elif isinstance(error, Throttled):
            self._slow_down(error)
            pause = error.retry_after or backoff(3, 1.0, self._context.settings.advanced.retry_max)
            uploads.failed(self._context.journal, image, str(error), due_at=self._context.after(pause), counts=False)
        elif self._context.world.is_to_blame_for_object(
            _name(image), error, only=lambda failing: self._only_these_fail(line, project, image, failing)
        ):
            due = self._context.after(self._stand_back())
            uploads.failed(self._context.journal, image, str(error), due_at=due, counts=False)
        elif isinstance(error, NotThere) and self._is_gone(project):
            uploads.failed(self._context.journal, image, str(error), due_at=self._context.after(0))
            hold_gone(self._context, project, error)
        elif isinstance(error, Refused) and not isinstance(error, ANOTHER_TRY_HELPS):
            uploads.failed(self._context.journal, image, str(error), due_at=self._context.after(0))
            hold_refused(self._context, project, error)
        else:
            self._again(project, image, str(error))

    def _arrived_differently(self, project: Project, image: Image, error: Corrupted) -> None:
        """Find out whether the file is another one than was frozen, which more tries would not help."""
        try:
            sources.read_again(self._context, project, image)
        except SourceError as changed:
            self._source_trouble(project, image, changed)
        except HostError as trouble:
            self._again(project, image, str(trouble))
        else:
            self._again(project, image, str(error))

    def _stand_back(self) -> float:
        """Return for how many seconds others go first after a pause for the storage: if they pass, it was not it."""
        world = self._context.world
        storage = world.pause is not None and world.pause.kind == "storage"
        return world.until_look() + OTHERS_FIRST if storage else 0.0

    def _only_these_fail(self, line: Line, project: Project, image: Image, failing: set[str]) -> bool:
        """Say whether it is these images: nothing else is left to be sent, and the storage answers a question."""
        assert project.remote_id is not None
        due = views.to_upload(self._context.journal, time.time(), self._context.horizon, but=(), most=len(failing) + 1)
        if any(_name(other) not in failing for other in due):
            return False
        try:
            return self._context.buckets.of(project.remote_id).answers(line, f"{project.prefix}/{image.key}")
        finally:
            line.close()

    def _is_gone(self, project: Project) -> bool:
        """Ask whether it is the whole project that is not there, and not just an upload of an image."""
        assert project.remote_id is not None
        try:
            self._context.rest.project(project.remote_id)
        except NotThere as error:
            return not self._context.world.is_to_blame(error)
        except RemoteError:
            return False
        return False

    def _source_trouble(self, project: Project, image: Image, error: SourceError) -> None:
        context = self._context
        due = context.after(MISSING_AGAIN)
        if isinstance(error, MediaAbsent) or sources.is_media_absent(context, project):
            uploads.failed(context.journal, image, str(error), due_at=due, counts=False)
            text = f"{sources.what_is_away(context, project)}; {printable(image.path)} could not be read"
            text = str(error) if isinstance(error, MediaAbsent) else text
            projects.hold(context.journal, project.id, HoldCode.MEDIA_ABSENT, text, due_at=due)
            return
        uploads.failed(context.journal, image, str(error), due_at=due)
        if isinstance(error, SourceMissing) and context.waits.age(sources.MISSING, image.id) < MISSING_FOR:
            context.wake_scanner(project.root)
            return
        context.waits.end(sources.MISSING, image.id)
        code = HoldCode.SOURCE_CHANGED
        if isinstance(error, SourceMissing):
            code = HoldCode.SOURCE_MISSING
        elif isinstance(error, SourceUnreadable):
            code = HoldCode.SOURCE_UNREADABLE
        text = str(error) if code is HoldCode.SOURCE_UNREADABLE else self._of_all(project, image, code)
        projects.hold(context.journal, project.id, code, text, due_at=context.after(sources.LOOK_AGAIN))
        log.warning("held", project=project.title, code=str(code), reason=text)

    def _of_all(self, project: Project, image: Image, code: HoldCode) -> str:
        """Look at all other images, too, so that a person is asked about them once; gives the text for all of them."""
        journal = self._context.journal
        others: dict[int, str] = {}
        with suppress(MediaAbsent):
            others = sources.troubles(self._context, project)
            uploads.all_failing(journal, {number: why for number, why in others.items() if number != image.id})
        failing = [one for one in views.images_of(journal, project.id) if one.id == image.id or one.id in others]
        return skips.held_text(code, failing)

    def _again(self, project: Project, image: Image, text: str) -> None:
        advanced = self._context.settings.advanced
        pause = backoff(image.tries, advanced.retry_base, advanced.retry_max)
        tries = uploads.failed(self._context.journal, image, text, due_at=self._context.after(pause))
        log.warning("image failed", project=project.title, image=printable(image.path), tries=tries, reason=text)
        if tries >= MAX_TRIES:
            text = f"{printable(image.path)}: {tries} tries failed: {text}"
            projects.hold(self._context.journal, project.id, HoldCode.TRIES_EXHAUSTED, text)


def _name(image: Image) -> str:
    return f"{image.project_id}/{image.key}"


SLOWER = 0.5
"""Seconds from which the pauses double for which nothing is sent, where S3 asks for patience and does not say how much:
now and then it does so on any busy day."""

OTHERS_FIRST = 3.0
"""Seconds for which an image stands back that failed by the fault of the storage."""

IDLE = 5.0
"""Seconds between two looks for work; a wake-up is quicker."""

ANOTHER_TRY_HELPS = (CredentialsExpired, ClockSkewed, Conflict, NotThere)
"""Refusals of one object that count as a failed try and not as the service's last word about the project."""
