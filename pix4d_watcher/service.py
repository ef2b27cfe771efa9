"""The service: wires the parts, starts them, watches over them and stops them. The only place that wires.

A stop is a polite crash: there is one way back, through the journal, whether the process was asked or killed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher import __version__
from pix4d_watcher.cloud.rest import Rest
from pix4d_watcher.config import root_text, root_trouble
from pix4d_watcher.core.errors import ConfigError, HostError, JournalDiskFails, JournalDiskFull, JournalError
from pix4d_watcher.engine import opening, reconcile, steps
from pix4d_watcher.engine.afterwards import Afterwards
from pix4d_watcher.engine.beats import Beats, Crew
from pix4d_watcher.engine.context import Buckets, Context
from pix4d_watcher.engine.hooks import Hooks
from pix4d_watcher.engine.loop import FETCH_WORKERS, STEP_WORKERS, Dispatcher
from pix4d_watcher.engine.media import TICK, silent
from pix4d_watcher.engine.transfer import Transfer
from pix4d_watcher.engine.watch import Scanner
from pix4d_watcher.engine.world import World
from pix4d_watcher.host import logs, memory, mounts, notify
from pix4d_watcher.host.room import Room
from pix4d_watcher.intake.hints import Hints
from pix4d_watcher.intake.leases import ignore_sigio
from pix4d_watcher.journal import database, folders, listing, orphans, service, views

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import FrameType

    from pix4d_watcher.config import ClientCredentials, Settings
    from pix4d_watcher.engine.world import Pause
    from pix4d_watcher.journal.database import Journal

log = structlog.get_logger()

OK, UNEXPECTED, TRY_LATER, AUTH_REFUSED = 0, 1, 75, 77

FIRST_SCAN = 10.0
"""Seconds that READY waits for the first scans: a drop directory that hangs must not keep systemd waiting."""

STOP_WITHIN = 6.0
"""Seconds for all threads to end (a call without an answer cannot be cut short); the next start continues the rest."""

VITALS_EVERY, VITALS_WHILE_SENDING = 10.0, 2.0
"""Seconds between two notes of the service's vitals: few when nothing moves, since each is a flush of the disk."""

MEASURED_EVERY = 60.0
"""Seconds between two notes of how fast the link is while it is busy."""

BACKUP_EVERY, BACKUP_AGAIN = 24 * 3600.0, 3600.0
"""Seconds between two online backups of the journal, and until the next try where one failed."""


OTHERS_WRITE = 0o002
"""Added to the umask that we were started with: it says who may read the results, and nobody else ever writes them."""


def run(settings: Settings, client: ClientCredentials, *, until_idle: bool) -> int:
    """Run until a signal, or until nothing is left to do; return the exit code.

    Raises ConfigError, JournalError, HostError (also AlreadyRunning) when it cannot start.
    """
    logs.hide(client.client_secret)
    ignore_sigio()
    os.umask(os.umask(0o077) | OTHERS_WRITE)
    memory.keep_heap_small()
    _refuse_network(settings.journal)
    with ExitStack() as at_end:
        room = Room(settings.journal)
        journal, unclean = opening.open_patiently(settings.journal, room, at_end)
        _refuse_nothing_to_watch(settings, journal)
        return Service(settings, client, journal, room).run(until_idle=until_idle, unclean=unclean)


def _refuse_network(journal: Path) -> None:
    place = next(place for place in (journal.parent, *journal.parent.parents) if place.is_dir())
    if mounts.is_network(os.fsencode(place)):
        raise JournalError(
            f"{journal}: the journal lies on a network filesystem ({mounts.filesystem_type(os.fsencode(place))}), "
            f"where its locks and flushes cannot be trusted. Set `journal:` to a local disk"
        )


def _refuse_nothing_to_watch(settings: Settings, journal: Journal) -> None:
    if views.all_roots(journal):
        return  # what was there before is a medium that comes back
    texts, troubles = [], []
    for index, root in enumerate(settings.watch):
        trouble = root_trouble(root.path)
        if trouble is None or isinstance(trouble, TimeoutError):
            return
        texts.append(settings.at("watch", index, "path") + root_text(root.name, root.path, trouble))
        troubles.append(trouble)
    if all(isinstance(trouble, PermissionError) for trouble in troubles):
        raise HostError("\n".join(texts)) from troubles[0]
    raise ConfigError(texts)


class Service:
    """All parts of one running service."""

    def __init__(self, settings: Settings, client: ClientCredentials, journal: Journal, room: Room) -> None:
        self._settings = settings
        self._journal = journal
        self._room = room
        self._stop = threading.Event()
        self._crew = Crew(self._stop)
        ca_file, beats = settings.cloud.ca_file, Beats()
        rest = Rest(
            url=settings.cloud.url,
            client_id=client.client_id,
            client_secret=client.client_secret,
            timeout=settings.advanced.request_timeout,
            ca_file=None if ca_file is None else str(ca_file),
            alive=beats.again,
        )
        self._context = Context(
            settings,
            journal,
            rest,
            Buckets(rest, settings),
            World(rest.ready),
            self._wake_scanner,
            stop=self._stop,
            beats=beats,
        )
        self._hints = Hints(self._wake_scanner)
        self._scanners = {root.name: Scanner(self._context, root, self._hints) for root in settings.watch}
        self._transfer = Transfer(self._context)
        self._dispatcher = Dispatcher(self._context, self._wake_scanners)
        self._hooks = Hooks(self._context)
        self._afterwards = Afterwards(self._context)
        # From before the first thread starts: until then an uploader could not know.
        self._context.restored = reconcile.is_due(self._context)
        self._context.paused = self._context.restored or bool(service.get(journal, service.PAUSED_ALL, default=False))
        self._started = time.time()
        self._next_measured = 0.0
        self._signal: int | None = None
        self._repeats = logs.Repeats(log)

    def run(self, *, until_idle: bool, unclean: bool) -> int:
        """Start everything, watch over it, stop it; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)
        try:
            if unclean:
                log.warning("unclean end", text="the last run did not end by itself; the journal is checked first")
                database.check(self._journal)
                database.begin_wal_anew(self._journal)
            log.info("starting", version=__version__, journal=self._settings.journal, roots=", ".join(self._scanners))
            self._look_at_room()
            self._note_unwatched()
            self._start()
            self._wait_for_first_scan()
            notify.ready()
            code = self._supervise(until_idle=until_idle)
        except JournalDiskFails as error:
            code = self._failed(error)
        self._end(clean=code not in (UNEXPECTED, TRY_LATER))
        return code

    def _asked_to_stop(self, number: int, _frame: FrameType | None) -> None:
        # Nothing is written here: the main thread may be in the middle of writing.
        self._signal = number
        self._stop.set()

    def _note_unwatched(self) -> None:
        """Note of drop directories that were taken out of the configuration that nobody looks into them."""
        for root in views.all_roots(self._journal):
            if root.name not in self._scanners:
                text = f"the drop directory {root.name!r} is not in the configuration any more"
                folders.root_absent(self._journal, root.name, text)

    def _start(self) -> None:
        crew = self._crew
        for name, scanner in self._scanners.items():
            crew.start(f"scanner {name}", scanner.run)
        crew.start("dispatcher", self._dispatcher.run)
        for lane, count, kind in (
            (self._dispatcher.steps, STEP_WORKERS, "step"),
            (self._dispatcher.fetches, FETCH_WORKERS, "fetch"),
        ):
            for number in range(count):
                crew.start(f"{kind} worker {number + 1}", lambda lane=lane: self._dispatcher.work(lane))  # type: ignore[misc]
        for number in range(self._settings.upload.connections):
            crew.start(f"uploader {number + 1}", self._transfer.run)
        crew.start("hooks", self._hooks.run)
        crew.start("afterwards", self._afterwards.run)
        crew.start("keeper", self._keep_journal)

    def _keep_journal(self) -> None:
        """Check the journal in the background and keep a copy beside it."""
        while not self._stop.is_set():
            database.check(self._journal)
            self._stop.wait(BACKUP_EVERY if self._backup() else BACKUP_AGAIN)

    def _backup(self) -> bool:
        """Keep a copy of the journal; the one before stays until the new one is whole. False where there is no room."""
        path = self._journal.path
        try:
            if not self._room.fits(path.stat().st_size):
                raise JournalDiskFull(f"{path.parent}: no room for a copy of the journal; make room on that disk")
            database.backup(self._journal, database.backup_path(path))
        except (JournalError, OSError) as error:
            log.warning("no backup", reason=str(error))
            return False
        return True

    def _wait_for_first_scan(self) -> None:
        end = time.monotonic() + FIRST_SCAN
        while time.monotonic() < end and not self._stop.is_set():
            scanned = all(scanner.scanned or scanner.absent for scanner in self._scanners.values())
            if scanned or self._context.world.is_disk_full:
                return
            self._stop.wait(0.05)

    def _supervise(self, *, until_idle: bool) -> int:
        interval = notify.watchdog_interval()
        next_fed = next_vitals = 0.0
        told: Pause | None = None
        while not self._stop.is_set():
            now = time.monotonic()
            self._look_after_media()
            late = self._context.beats.late(but=self._context.media.busy())
            if late:
                log.critical("hung", loops=", ".join(late), text="ending, so that the service is started again")
                return UNEXPECTED
            if interval is not None and now >= next_fed:
                notify.watchdog()
                next_fed = now + interval / 2
            self._look_at_room()
            if now >= next_vitals or told is not self._context.world.pause:
                told = self._context.world.pause
                next_vitals = now + self._tell_vitals()
            if self._context.world.refused_at_start:
                assert self._context.world.pause is not None
                log.error("refused", reason=self._context.world.pause.text)
                return AUTH_REFUSED
            if until_idle and self._is_idle():
                log.info("idle", text="nothing is left to do")
                return OK
            self._stop.wait(TICK)
        return OK if self._crew.failure is None else self._failed(self._crew.failure)

    def _failed(self, error: BaseException) -> int:
        """Tell of an error that ends the process, and return the exit code.

        A change that the disk did not take is lost, and a thread that wanted it knows no other way on: the next start
        finds in the journal what is true, as after a kill. A second way back would be one more to be wrong.
        """
        if not isinstance(error, JournalDiskFails):
            log.critical("unexpected error", exc_info=error)
            return UNEXPECTED
        if isinstance(error, JournalDiskFull):
            self._room.release()
        log.critical("journal not usable", reason=str(error), text="ending, so that the service is started again")
        notify.status(str(error))
        return TRY_LATER

    def _look_at_room(self) -> None:
        """Pause the service before the journal has no room, and go on when there is some."""
        if self._context.world.room(self._room.shortage()):
            self._wake_all()

    def _wake_all(self) -> None:
        self._wake_scanners()
        self._context.wake_steps.call()
        for _uploader in range(self._settings.upload.connections):
            self._context.wake_uploads.call()
        self._hooks.wake.call()

    def _end(self, *, clean: bool) -> None:
        if self._signal is not None:
            log.info("stopping", signal=signal.Signals(self._signal).name)
        notify.stopping()
        self._stop.set()
        self._wake_all()
        # Among the others, since watches on a drop directory that hangs may hang, too.
        self._crew.start("hints", self._hints.stop)
        still = self._crew.join(STOP_WITHIN, but=self._context.media.given_up)
        # Whoever is at files is in the middle of those, and not of the journal.
        left = [thread.name for thread in still if thread not in self._context.media.busy()]
        if left:
            log.warning("ended in the middle", threads=", ".join(left), text="it is continued at the next start")
        elif clean and self._crew.failure is None:
            try:
                service.put(self._journal, service.RUNNING, value=False)
            except JournalDiskFails as error:
                log.warning("end not noted", reason=str(error), text="the journal is checked at the next start")
        self._context.rest.close()
        log.info("stopped")

    def _is_idle(self) -> bool:
        world, scanners = self._context.world, list(self._scanners.values())
        if world.pause is not None or not self._dispatcher.greeted or self._dispatcher.busy:
            return False
        if not all(scanner.absent or (scanner.scanned and not scanner.settling) for scanner in scanners):
            return False
        if self._hooks.due or self._context.restored:
            return False
        nothing_left = views.busy(self._journal) is None and not orphans.any_left(self._journal)
        return self._context.paused or (nothing_left and not self._afterwards.due)

    def _look_after_media(self) -> None:
        """Have others do the work of threads that stand still at files, and say which medium does not answer."""
        for touch in self._context.media.look():
            text, scanner = silent(touch.place), self._scanners.get(touch.place)
            if scanner is not None:
                scanner.away(text)
            elif touch.first:
                log.warning("no answer", place=touch.place, reason=text)
            if touch.project_id is not None:
                steps.wait_for_medium(self._context, touch.project_id, text, root=touch.place)
            if not touch.stays:
                self._crew.replace(touch.thread)

    def _tell_vitals(self) -> float:
        """Write the vitals for `status`, and one line for systemd; return the seconds until the next time."""
        pause, throughput = self._context.world.pause, self._transfer.meter.throughput()
        notify.status(self._status_line(throughput))
        self._note(
            service.VITALS,
            {
                "pid": os.getpid(),
                "at": time.time(),
                "started_at": self._started,
                "version": __version__,
                "pause": None if pause is None else {"kind": pause.kind, "text": pause.text, "since": pause.since},
                "throughput": throughput,
                "in_flight": {str(number): count for number, count in self._transfer.meter.under_way().items()},
                **self._context.buckets.vitals(),
            },
        )
        self._tell_measured()
        return VITALS_WHILE_SENDING if throughput else VITALS_EVERY

    def _tell_measured(self) -> None:
        """Keep the throughput of a busy link, for estimates; each note is a flush of the disk, so rarely."""
        steady = self._transfer.meter.steady()
        if steady is not None and time.monotonic() >= self._next_measured:
            self._next_measured = time.monotonic() + MEASURED_EVERY
            fact = {"bytes_per_second": steady, "at": time.time()}
            self._note(service.MEASURED_THROUGHPUT, fact)

    def _note(self, name: str, fact: Mapping[str, object]) -> None:
        """Write down what is only told: where there is no room it is left out, once, and the reserve given up."""
        try:
            service.put(self._journal, name, fact)
        except JournalDiskFull:
            if not self._room.release():
                raise

    def _status_line(self, throughput: float) -> str:
        pause = self._context.world.pause
        if pause is not None:
            return f"paused: {pause.text}"
        if self._context.restored:
            return "comparing the restored journal with the cloud"
        if self._context.paused:
            return "paused by a person"
        return listing.headline(self._journal) + (f", {throughput / 1e6:.1f} MB/s" if throughput else "")

    def _wake_scanner(self, name: str) -> None:
        scanner = self._scanners.get(name)
        if scanner is not None:
            scanner.wake.call()

    def _wake_scanners(self) -> None:
        for scanner in self._scanners.values():
            scanner.wake.call()
