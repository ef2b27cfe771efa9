"""Large images: a multipart upload whose parts are journalled, so that a restart continues inside the file.

A part is one 8 MiB block and goes with its own frozen hash. ListParts is the authority on what has arrived where the
service allows it, else the journalled ETags are. Only upload ids of our own journal are ever continued or aborted: the
journal keeps those that nobody needs any more until they are aborted (`journal/orphans.py`).

A Complete may still be applied after its caller was killed or gave up waiting; meanwhile neither the parts nor the
object can be seen. It is then left alone for `doubt_wait` before the image is sent again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import (
    AuthRefused,
    ClockSkewed,
    Corrupted,
    CredentialsExpired,
    NotThere,
    Refused,
    RemoteError,
    SourceChanged,
    Throttled,
)
from pix4d_watcher.core.model import printable
from pix4d_watcher.engine import sources
from pix4d_watcher.engine.waits import backoff
from pix4d_watcher.intake.freeze import BLOCK
from pix4d_watcher.journal import orphans, uploads, views

if TYPE_CHECKING:
    from collections.abc import Callable

    from pix4d_watcher.cloud.wire import Line
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.orphans import Orphan
    from pix4d_watcher.journal.records import Image, Project

log = structlog.get_logger()

MOST_PARTS = 10_000
"""S3's bound on the number of parts of one object."""

ABORTS = 20
"""Failed tries of an abort, over two hours or so, before the upload is left to the rules of the bucket."""

COMPLETE = "complete"
"""What is waited for after a Complete: see `waits`."""

DIGEST = 32
"""Bytes of a SHA-256."""


@dataclass
class Upload:
    """A multipart upload under way: which parts have arrived (number → ETag), which are left.

    `etag` is set when the whole object was found complete, `wait` (seconds) when it may become so by itself: then it is
    to be looked at again. `under_way` counts the threads that send a part just now; only the pool touches it.
    """

    image: Image
    upload_id: str
    arrived: dict[int, str] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)
    etag: str = ""
    wait: float = 0.0
    failed: bool = False
    under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def finished(self, number: int) -> bool:
        """Note that a part is through; True for the one thread that saw the last part."""
        with self._lock:
            self.left.discard(number)
            return not self.left


@dataclass(frozen=True)
class Part:
    """One part to be sent; numbers count from 1."""

    image: Image
    upload: Upload
    number: int


def part_length(image: Image) -> int:
    """Return the bytes of each part but the last: one block, several only beyond 10,000 blocks."""
    blocks = len(image.blocks) // DIGEST
    return BLOCK * -(-blocks // MOST_PARTS)


def begin(context: Context, line: Line, project: Project, image: Image) -> Upload:
    """Continue the multipart upload of an image, or begin one, and find out which parts are left."""
    upload = _continue(context, line, project, image) if image.upload_id else None
    if upload is None:
        assert project.remote_id is not None
        if not image.begun:
            uploads.begun(context.journal, image)
        upload_id = context.buckets.of(project.remote_id).initiate(
            line, _key(project, image), content_type=sources.content_type(image.path)
        )
        uploads.multipart_begun(context.journal, image, upload_id)
        upload = Upload(views.image(context.journal, image.id), upload_id)
    upload.left = _numbers(image) - set(upload.arrived)
    return upload


def send(
    context: Context,
    line: Line,
    project: Project,
    part: Part,
    handle: int,
    *,
    on_progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> None:
    """Send one part from the open file, and journal its ETag."""
    image, upload = part.image, part.upload
    length = part_length(image)
    offset = (part.number - 1) * length
    size = min(length, image.size - offset)
    with context.media.at(project.root, project.id):
        digest = _digest(image, handle, offset, size)
    assert project.remote_id is not None
    try:
        etag = context.buckets.of(project.remote_id).part(
            line,
            _key(project, image),
            upload.upload_id,
            part.number,
            sources.body(context, project, handle, offset, size),
            digest,
            on_progress=on_progress,
            stop=stop,
        )
    except NotThere:
        # The service forgot the whole upload; the image begins again from its first part.
        uploads.multipart_lost(context.journal, image)
        raise
    upload.arrived[part.number] = etag
    uploads.part_done(context.journal, image, upload.upload_id, part.number, etag=etag, size=size)


def complete(context: Context, line: Line, project: Project, upload: Upload) -> str:
    """Put the parts together and return the object's ETag."""
    assert project.remote_id is not None
    image, parts = upload.image, sorted(upload.arrived.items())
    try:
        return context.buckets.of(project.remote_id).complete(line, _key(project, image), upload.upload_id, parts)
    except Refused as error:
        log.warning("not complete", project=project.title, image=printable(image.path), reason=str(error))
        etag = _found_complete(context, line, project, image, upload.arrived)
        if etag:
            return etag
        if isinstance(error, Corrupted) or (type(error) is Refused and error.status == 400):
            # Nothing will come of this upload: the service does not hold its parts, or holds others.
            uploads.multipart_given_up(context.journal, image)
        elif isinstance(error, NotThere) and not _may_come(context, image, upload.arrived, etag):
            uploads.multipart_lost(context.journal, image)
        raise
    except RemoteError:
        # It may have been applied, or may be yet.
        context.waits.begin(COMPLETE, image.id)
        raise


def abort(context: Context, line: Line, orphan: Orphan) -> None:
    """Abort an upload of ours that nobody needs any more; where that is refused there is nothing more to be done.

    Raises Throttled, and then it is tried again like after other errors.
    """
    try:
        context.buckets.of(orphan.remote_id).abort(line, orphan.key, orphan.upload_id)
    except NotThere:
        pass  # it is gone, or its whole project is
    except RemoteError as error:
        line.close()
        refused = isinstance(error, Refused) and not isinstance(error, (AuthRefused, CredentialsExpired, ClockSkewed))
        blameless = context.world.is_to_blame(error)
        again = blameless or not (refused or orphan.tries >= ABORTS)
        log.warning("not aborted", key=orphan.key, reason=str(error), again=again)
        if again:
            advanced = context.settings.advanced
            pause = backoff(orphan.tries, advanced.retry_base, advanced.retry_max)
            orphans.later(context.journal, orphan, due_at=context.after(pause), counts=not blameless)
            if isinstance(error, Throttled):
                raise
            return
    else:
        log.info("aborted", key=orphan.key, text="an upload that nobody needs any more")
    orphans.gone(context.journal, orphan)


def _continue(context: Context, line: Line, project: Project, image: Image) -> Upload | None:
    """Find out what the service holds of a journalled upload; None when it must begin again."""
    assert project.remote_id is not None
    assert image.upload_id is not None
    journalled = uploads.parts_of(context.journal, image, image.upload_id)
    etags = {number: etag for number, (etag, _size) in journalled.items()}
    try:
        listed = context.buckets.of(project.remote_id).list_parts(line, _key(project, image), image.upload_id)
    except NotThere:
        etag = _found_complete(context, line, project, image, etags)
        if etag:
            return Upload(image, image.upload_id, arrived=etags, etag=etag)
        left = _may_come(context, image, etags, etag)
        if left:
            return Upload(image, image.upload_id, arrived=etags, wait=left)
        uploads.multipart_lost(context.journal, image)
        return None
    except Refused as error:
        log.info("journalled parts are trusted", image=printable(image.path), reason=str(error))
        return Upload(image, image.upload_id, arrived=etags)
    arrived = {number: etag for number, (etag, size) in listed.items() if size == _size_of(image, number)}
    for number in set(journalled) - set(arrived):
        uploads.part_lost(context.journal, image, number)
    for number in set(arrived) - set(journalled):
        # Its answer was lost. Whether a Complete may be under way is judged by what is journalled.
        etag, size = listed[number]
        uploads.part_done(context.journal, image, image.upload_id, number, etag=etag, size=size)
    return Upload(image, image.upload_id, arrived=arrived)


def _found_complete(context: Context, line: Line, project: Project, image: Image, etags: dict[int, str]) -> str | None:
    """Look whether a lost Complete was applied: the object is there, in its size and with the parts' own ETag.

    None: there is no object, or not yet, or it cannot be seen: S3 refuses to look at what is not there where listing is
    not allowed. Empty: there is another one.
    """
    assert project.remote_id is not None
    try:
        found = context.buckets.of(project.remote_id).head(line, _key(project, image))
    except Refused:
        return None
    if found is None:
        return None
    if found[0] != image.size:
        return ""
    expected = _expected_etag(image, etags)
    return found[1] if expected in ("", found[1]) and etags else ""


def _may_come(context: Context, image: Image, etags: dict[int, str], etag: str | None) -> float:
    """Return for how many seconds (0: no more) an object that is not there may still come by an earlier Complete.

    Only once all parts had arrived can it have been asked for. An earlier life may have done so at its very end.
    """
    if etag is not None or not _numbers(image) <= etags.keys():
        return 0.0
    return context.waits.left(COMPLETE, image.id, context.settings.advanced.doubt_wait)


def _expected_etag(image: Image, etags: dict[int, str]) -> str:
    """Return the ETag that S3 gives to the parts put together; empty where theirs are no MD5."""
    numbers = sorted(_numbers(image))
    try:
        joined = b"".join(bytes.fromhex(etags[number]) for number in numbers)
    except (KeyError, ValueError):
        return ""
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(numbers)}"


def _numbers(image: Image) -> set[int]:
    return set(range(1, -(-image.size // part_length(image)) + 1))


def _size_of(image: Image, number: int) -> int:
    length = part_length(image)
    return min(length, image.size - (number - 1) * length)


def _digest(image: Image, handle: int, offset: int, size: int) -> bytes:
    """Return the frozen hash of a part; a part of several blocks is read and compared block by block."""
    first = offset // BLOCK
    if size <= BLOCK:
        return image.blocks[first * DIGEST : (first + 1) * DIGEST]
    whole = hashlib.sha256()
    for at in range(offset, offset + size, BLOCK):
        block = os.pread(handle, min(BLOCK, offset + size - at), at)
        frozen = image.blocks[at // BLOCK * DIGEST : (at // BLOCK + 1) * DIGEST]
        if hashlib.sha256(block).digest() != frozen:
            raise SourceChanged(f"{printable(image.path)} is not what was checked, from byte {at} on")
        whole.update(block)
    return whole.digest()


def _key(project: Project, image: Image) -> str:
    return f"{project.prefix}/{image.key}"
