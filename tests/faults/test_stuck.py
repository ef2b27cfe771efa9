"""What hangs holds up nothing else: a drop directory, the results, the journal's disk, a thread."""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness import pad, until

from pix4d_watcher.journal import service

HELD = "media_absent"
DUMB = "does not answer"
SAID = 'event="drop directory is away" root=survey'


class Share:
    """A directory that can stop to answer: bindfs shows `source` at `point`, and every access hangs while it stands."""

    def __init__(self, source, point, *options):
        source.mkdir(parents=True, exist_ok=True)
        point.mkdir(parents=True, exist_ok=True)
        self.source, self.point = source, point
        self.process = subprocess.Popen(["bindfs", "-f", *options, source, point], start_new_session=True)

    def mounted(self):
        """Wait for the mount."""
        end = time.monotonic() + 20
        while not os.path.ismount(self.point):
            assert self.process.poll() is None, "bindfs ended"
            assert time.monotonic() < end, "bindfs did not mount"
            time.sleep(0.02)
        return self

    def hang(self):
        """Let no access be answered any more."""
        self.process.send_signal(signal.SIGSTOP)

    def answer(self):
        """Answer again, also what was asked meanwhile."""
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        """End it for good: what still waits gets an error, so that whoever waits can end."""
        self.process.kill()
        self.process.wait(10)
        subprocess.run(["umount", "--lazy", self.point], check=False, capture_output=True, timeout=10)


@pytest.fixture
def shares(need, site):
    """Make shares; they end before the site does, whose service may hang in them."""
    need("bindfs", "umount", root=True)
    made = []

    def make(source, point, *options):
        made.append(Share(source, point, *options))
        return made[-1].mounted()

    try:
        yield make
    finally:
        for share in made:
            share.end()


@pytest.fixture
def share(site, shares):
    """Lay the drop directory `survey` on a share, whose reads are slow enough to be met in their middle."""
    return shares(site.directory / "medium", site.drops, "--read-rate=40000")


def configure(site, **settings):
    """Configure the drop directory that may hang, and another one beside it."""
    other = {"name": "other", "path": str(site.directory / "other"), "settle": "500ms", "poll": "200ms"}
    (site.directory / "other").mkdir(exist_ok=True)
    # A cloud that is slow on a busy machine is not to be taken for a link that is down.
    site.configure(more=[other], advanced={"request_timeout": "20s"}, **settings)


def drop_beside(site, name="beside"):
    """Drop a folder into the other drop directory."""
    site.prepare(name).rename(site.directory / "other" / name)


def log_of(site):
    """Give the service's log so far."""
    return site.log.read_text(errors="replace")


def away(site):
    """Wait until the drop directory counts as away, with a reason that a person understands."""
    site.until(lambda: (root := site.root()) and not root.present and DUMB in root.problem, "it is away")


def others_go_on(site):
    """Hold that a flight in the other drop directory is delivered meanwhile, in the same process."""
    drop_beside(site)
    site.delivered("beside")
    site.once("beside")


def all_well(site, name="flight", images=6):
    """Hold that all went on by itself, in the same process, and that nothing but the medium was blamed."""
    site.delivered(name)
    site.once(name, images, held=True)
    assert {text.split(":")[0] for kind, text in site.events(name) if kind == "held"} <= {HELD}
    log = log_of(site)
    assert "event=paused" not in log
    assert "level=critical" not in log
    assert log.count(SAID) == 1
    assert site.process.poll() is None


def test_a_drop_directory_that_hangs_from_the_start(site, share):
    """A share that hangs before the service starts is away, nothing waits for it, and later it goes on by itself."""
    site.fill(share.source / "flight")
    configure(site)
    share.hang()
    site.start()
    others_go_on(site)
    site.until(lambda: SAID in log_of(site), "it is said")
    share.answer()
    all_well(site)


def test_a_drop_directory_that_hangs_while_a_folder_settles(site, share):
    """A folder in its settle window on a share that hangs shows media_absent, and is sent once it answers again."""
    site.fill(share.source / "flight")
    configure(site, settle="5s")
    site.start()
    site.reach("found")
    share.hang()
    away(site)
    assert DUMB in site.held(HELD)
    others_go_on(site)
    share.answer()
    all_well(site)


def test_a_drop_directory_that_hangs_while_images_are_decoded(site, share):
    """A step that hangs at an image holds up no other step, and no image is taken for damaged."""
    site.fill(share.source / "flight", 60)
    configure(site, decode="all")
    site.start()
    site.until(lambda: "decoded" in (site.look().get("waiting_for") or ""), "images are decoded")
    share.hang()
    assert DUMB in site.held(HELD)
    others_go_on(site)
    share.answer()
    all_well(site, images=60)


def test_a_drop_directory_that_hangs_while_images_are_sent(site, share):
    """Uploads that hang in reading are put down to the medium, not to the network, and no thread is missing."""
    site.fill(share.source / "flight", 60)
    configure(site, upload={"connections": 2})
    site.start()
    site.until(lambda: site.look().get("images", {}).get("uploaded"), "images are sent")
    share.hang()
    assert DUMB in site.held(HELD)
    others_go_on(site)
    share.answer()
    all_well(site, images=60)


def test_a_drop_directory_that_hangs_inside_a_large_image(site, shares):
    """A part that hangs in reading goes out again later; parts that arrived are not sent again."""
    share = shares(site.directory / "medium", site.drops, "--read-rate=4000000")
    folder = share.source / "flight"
    site.fill(folder)
    pad(folder / "DJI_0001.JPG", 25 << 20)
    configure(site, upload={"connections": 1, "multipart_threshold": "8MiB"})
    site.start()
    site.until(lambda: site.requests("part") > 1, "parts are sent")
    share.hang()
    assert DUMB in site.held(HELD)
    others_go_on(site)
    share.answer()
    all_well(site)
    (upload,) = site.cloud.ledger()["uploads"]
    assert sum(part["puts"] for part in upload["parts"].values()) <= len(upload["parts"]) + 1


def test_a_drop_directory_that_hangs_after_the_delivery(site, share):
    """Deleting that hangs holds up nothing, nothing else is deleted, and it is done when the medium answers."""
    folder = share.source / "flight"
    site.fill(folder)
    configure(site, after="delete", retention="4s")
    site.start()
    site.delivered()
    share.hang()
    site.until(lambda: DUMB in (site.look().get("waiting_for") or ""), "it is said")
    others_go_on(site)
    assert len(list(folder.iterdir())) == 6
    share.answer()
    site.until(lambda: not folder.exists(), "the folder is deleted")
    all_well(site)


def test_the_results_hang(site, shares):
    """Results on a share that hangs keep nobody from uploading; what waits for them says so and is done later."""
    results = shares(site.directory / "elsewhere", site.results)
    configure(site, results=True)
    site.drop()
    site.start()
    site.delivered()
    results.hang()
    site.drop("second")
    site.until(lambda: DUMB in (site.look("second").get("waiting_for") or ""), "it is said")
    results.answer()
    site.delivered("second")
    for name in ("flight", "second"):
        site.once(name)
    assert site.process.poll() is None


def test_stopped_while_a_drop_directory_hangs(site, share):
    """SIGTERM ends the service also with threads that stand still, and the journal knows that it ended well."""
    site.fill(share.source / "flight")
    configure(site)
    site.start()
    site.delivered()
    share.hang()
    away(site)
    site.process.send_signal(signal.SIGTERM)
    assert site.ended() == 0
    assert service.get(site.journal(), service.RUNNING) is False
    others = site.directory / "other" / "beside"
    site.prepare("beside").rename(others)
    site.start()
    site.delivered("beside")
    share.answer()
    site.fill(share.source / "second")
    site.delivered("second")
    assert "unclean end" not in log_of(site)


def test_commands_while_a_drop_directory_hangs(site, share, run_cli):
    """No command waits for a drop directory that hangs; each says what it knows, and what does not answer."""
    site.fill(share.source / "flight")
    configure(site, settle="1h")
    site.start()
    site.reach("found")
    share.hang()
    away(site)
    asked = {"status": [], "explain": ["flight"], "check-config": [], "estimate": [share.point]}
    started = {name: run_cli.start(name, *more, "--config", site.config) for name, more in asked.items()}
    ends = {"status": 0, "explain": 0, "check-config": 78, "estimate": 2}
    assert {name: running.wait() for name, running in started.items()} == ends
    assert [name for name, running in started.items() if DUMB not in " ".join(running.text().split())] == []


class Manager:
    """What systemd would hear: when each kind of message of the service came last."""

    def __init__(self, place):
        self.heard = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(place))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        with contextlib.suppress(OSError):
            while True:
                for line in self._socket.recv(4096).decode().splitlines():
                    self.heard[line.partition("=")[0]] = time.monotonic()

    def silent(self, seconds):
        """Say whether the watchdog was not fed for so long."""
        return time.monotonic() - self.heard["WATCHDOG"] > seconds

    def close(self):
        """Hear no more."""
        self._socket.close()


FED_EVERY = 0.5
"""Seconds between two messages to the watchdog in these tests."""


@pytest.fixture
def manager(site, monkeypatch):
    """Stand in for systemd, which watches over the service."""
    place = site.directory / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(place))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(4 * FED_EVERY * 1e6)))
    it = Manager(place)
    yield it
    it.close()


@pytest.fixture
def frozen_disk(need, site):
    """Put the journal on a filesystem of its own, and give what freezes and thaws it."""
    need("mkfs.ext4", "mount", "umount", "fsfreeze", root=True)
    image, place = site.directory / "disk", site.directory / "state"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, timeout=60)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True, timeout=60)

    def turn(option, *, check=True):
        subprocess.run(["fsfreeze", option, place], check=check, timeout=20, capture_output=True)

    try:
        yield turn
    finally:
        turn("--unfreeze", check=False)
        site.__exit__()
        subprocess.run(["umount", "--lazy", place], check=False, timeout=20)


def test_the_disk_of_the_journal_freezes(site, manager, frozen_disk):
    """A journal that cannot be written stops the feeding of the watchdog; killed and started again it finishes."""
    site.configure(settle="3s")
    site.start()
    until(lambda: "WATCHDOG" in manager.heard, "the watchdog is fed")
    site.drop()
    site.reach("found")
    frozen_disk("--freeze")
    until(lambda: manager.silent(20 * FED_EVERY), "the watchdog is not fed any more")
    site.process.send_signal(signal.SIGKILL)  # as the watchdog does; a process that waits for a disk ends with it
    frozen_disk("--unfreeze")
    assert site.ended() == -signal.SIGKILL
    site.start()
    site.delivered()
    site.once()


SEIZE, INTERRUPT, DETACH, ANY_THREAD = 0x4206, 0x4207, 17, 0x40000000
"""Of ptrace(2), and __WALL of waitpid(2)."""


LOOKS_WITHIN = 10.0
"""Seconds within which the main thread looks at the room for the journal again; no loop counts as hung by then."""


class Halted:
    """All threads of a process but its main one, each halted where it was; it may hold a lock there, as in life."""

    def __init__(self, site):
        pid = site.process.pid
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._ptrace = libc.ptrace
        self._reserve = site.reserve
        self._threads = []
        for thread in [int(name.name) for name in Path(f"/proc/{pid}/task").iterdir() if int(name.name) != pid]:
            if libc.ptrace(SEIZE, thread, None, None) or libc.ptrace(INTERRUPT, thread, None, None):
                if ctypes.get_errno() == errno.ESRCH:  # one that ended by itself
                    continue
                raise OSError(ctypes.get_errno(), "ptrace")
            self._threads.append(thread)
            os.waitpid(thread, ANY_THREAD)

    def is_alone(self):
        """Say whether the main thread goes on: none was halted that keeps the interpreter's lock.

        It makes the journal's reserve anew where that is gone. That the kernel runs it says nothing: so it does for
        each look of a thread at the interpreter's lock.
        """
        self._reserve.unlink(missing_ok=True)
        end = time.monotonic() + LOOKS_WITHIN
        while not self._reserve.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return self._reserve.exists()

    def release(self):
        """Let all go on."""
        for thread in self._threads:
            self._ptrace(DETACH, thread, None, None)

    def buried(self):
        """Take note of those that ended, as the process that halted them has to; true for all."""
        for thread in list(self._threads):
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(thread, ANY_THREAD | os.WNOHANG)
                if not pid or not (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
                    continue
            self._threads.remove(thread)
        return not self._threads


def halt(site):
    """Halt the loops of a service, and not what watches over them."""
    for _try in range(5):
        halted = Halted(site)
        if halted.is_alone():
            return halted
        halted.release()
    return pytest.fail("each time a thread was halted that held the interpreter's lock")


@pytest.mark.parametrize("watched", [True, False], ids=["systemd", "alone"])
def test_loops_hang(need, site, watched, request):
    """Loops that hang end the process, with systemd and without; started again it finishes what was begun."""
    need(root=True)
    manager = request.getfixturevalue("manager") if watched else None
    site.configure(advanced={"request_timeout": "1s"})
    site.pause_all(paused=True)
    site.start()
    site.drop()
    site.reach("settled")
    halted = halt(site)
    site.until(lambda: "event=hung" in log_of(site), "it is noticed", 60)
    until(halted.buried, "all threads ended")
    assert site.ended() == 1
    assert manager is None or manager.heard["STOPPING"] > manager.heard["WATCHDOG"]
    site.pause_all(paused=False)
    site.start()
    site.delivered()
    site.once()


def test_a_loop_dies(site):
    """An unexpected error in one loop ends the whole process with 1 and a traceback; started again it finishes."""
    site.configure(settle="2s")
    site.start()
    site.drop()
    site.reach("found")
    journal = site.journal(change=True)
    with journal.write() as connection:
        connection.exec_driver_sql("ALTER TABLE images RENAME TO elsewhere")
    assert site.ended() == 1
    assert 'event="unexpected error"' in log_of(site)
    with journal.write() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO images")
    site.start()
    site.delivered()
    site.once()
