"""Wake-ups: events, lost watches, limits, the mount table."""

import os
import subprocess
import sys
import threading

import pytest
from intake_kit import as_nobody, eventually, open_place, put, scan

from pix4d_watcher.intake import hints as module
from pix4d_watcher.intake.freeze import freeze_image
from pix4d_watcher.intake.hints import MAX_FOLDER_WATCHES, Hints


class Woken:
    """Counts the wake-ups of each drop directory, without those by mounts: others mount and unmount when they like."""

    def __init__(self):
        self.names = []

    def __call__(self, name):
        """Take note of a wake-up."""
        if threading.current_thread().name != "mount table":
            self.names.append(name)

    def by(self, name):
        """Forget all wake-ups; return a question whether one for `name` came since."""
        self.names.clear()
        return lambda: name in self.names


@pytest.fixture
def woken():
    return Woken()


@pytest.fixture
def hints(woken):
    hints = Hints(woken)
    yield hints
    hints.stop()


def test_any_event_wakes_its_root(hints, woken, tmp_path):
    """Files written, folders made, renamed and removed in a root wake that root."""
    assert hints.watch("survey", os.fsencode(tmp_path)) == "inotify"
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    for act in (
        (tmp_path / "new").mkdir,
        lambda: (tmp_path / "new").rename(tmp_path / "named"),
        lambda: put(tmp_path, "loose.jpg"),
        lambda: put(outside, "a.jpg") and outside.rename(tmp_path / "moved in"),
        (tmp_path / "named").rmdir,
    ):
        seen = woken.by("survey")
        act()
        assert eventually(seen)


def test_own_reading_wakes_nobody(hints, woken, tmp_path):
    """Scanning and freezing cause no wake-up, so that the service does not keep itself busy."""
    put(tmp_path, "quiet/a.jpg")
    (tmp_path / "loud").mkdir()
    hints.watch("quiet", os.fsencode(tmp_path / "quiet"))
    hints.watch("loud", os.fsencode(tmp_path / "loud"))
    loud = woken.by("loud")
    scan(tmp_path / "quiet")
    freeze_image(os.fsencode(tmp_path / "quiet"), b"a.jpg", blocks_above=0)
    put(tmp_path, "loud/b.jpg")
    assert eventually(loud)
    assert "quiet" not in woken.names


def test_settling_folder_is_watched_in_depth(hints, woken, tmp_path):
    """Directories of a settling folder wake the root, new ones after the next call, and none after `unwatch`."""
    put(tmp_path, b"M\xe9/DCIM/a.jpg")
    hints.watch("survey", os.fsencode(tmp_path))
    folder = os.fsencode(tmp_path) + b"/M\xe9"
    hints.watch_folder(folder)
    seen = woken.by("survey")
    put(tmp_path, b"M\xe9/DCIM/b.jpg")
    assert eventually(seen)
    put(tmp_path, b"M\xe9/DCIM/new/c.jpg")
    hints.watch_folder(folder)
    assert hints.verify("survey")
    seen = woken.by("survey")
    put(tmp_path, b"M\xe9/DCIM/new/d.jpg")
    assert eventually(seen)
    assert len(module._inodes_watched()) == 4
    hints.unwatch(folder)
    assert eventually(lambda: len(module._inodes_watched()) == 1)
    assert hints.how("survey") == "inotify"


def test_folders_have_a_bounded_number_of_watches(hints, tmp_path):
    """A folder of many directories takes only its share; that is no trouble, the scans find it quiet."""
    for number in range(MAX_FOLDER_WATCHES + 20):
        put(tmp_path, f"big/d{number:03}/a.jpg")
    hints.watch("survey", os.fsencode(tmp_path))
    hints.watch_folder(os.fsencode(tmp_path / "big"))
    assert len(module._inodes_watched()) == MAX_FOLDER_WATCHES + 1
    assert hints.how("survey") == "inotify"


def test_folder_outside_every_root_is_not_watched(hints, tmp_path):
    """Only what lies in a drop directory is watched."""
    (tmp_path / "root").mkdir()
    (tmp_path / "rootless").mkdir()
    hints.watch("survey", os.fsencode(tmp_path / "root"))
    hints.watch_folder(os.fsencode(tmp_path / "rootless"))
    assert len(module._inodes_watched()) == 1


@pytest.mark.parametrize("how", ["made anew", "replaced"])
def test_root_that_is_another_directory_now(hints, woken, tmp_path, how):
    """A root deleted and made anew, or renamed and replaced, is noticed by `verify` and watched again."""
    root = tmp_path / "root"
    root.mkdir()
    hints.watch("survey", os.fsencode(root))
    assert hints.verify("survey")
    if how == "made anew":
        root.rmdir()
    else:
        root.rename(tmp_path / "old")
    root.mkdir()
    assert not hints.verify("survey")
    assert hints.verify("survey")
    assert hints.how("survey") == "inotify"
    seen = woken.by("survey")
    put(root, "a.jpg")
    assert eventually(seen)


def test_root_behind_a_symlink(hints, woken, tmp_path):
    """A root that is a symlink is watched where it leads to, and a new target is noticed."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    root = tmp_path / "root"
    root.symlink_to("one")
    assert hints.watch("survey", os.fsencode(root)) == "inotify"
    seen = woken.by("survey")
    put(tmp_path, "one/a.jpg")
    assert eventually(seen)
    root.unlink()
    root.symlink_to("two")
    assert not hints.verify("survey")
    seen = woken.by("survey")
    put(tmp_path, "two/a.jpg")
    assert eventually(seen)


def test_root_that_hangs_holds_up_nobody(hints, woken, tmp_path):
    """While one root is stuck in the system, the others are watched, verified and let go as ever."""
    for name in ("one", "two"):
        put(tmp_path, f"{name}/folder/a.jpg")
        hints.watch(name, os.fsencode(tmp_path / name))

    def use_the_other():
        hints.watch_folder(os.fsencode(tmp_path / "two/folder"))
        hints.verify("two")
        hints.unwatch(os.fsencode(tmp_path / "two/folder"))
        hints._wake_all()

    thread = threading.Thread(target=use_the_other)
    with hints._roots["one"].lock:
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    assert {"one", "two"} <= set(woken.names)


def test_root_that_is_away_comes_back(hints, woken, tmp_path):
    """A missing root is polled, with the reason, until it is there; then it is watched."""
    root = tmp_path / "root"
    assert hints.watch("survey", os.fsencode(root)).startswith("polling: it cannot be watched (No such file")
    assert not hints.verify("survey")
    root.mkdir()
    assert not hints.verify("survey")
    assert hints.how("survey") == "inotify"
    seen = woken.by("survey")
    put(root, "a.jpg")
    assert eventually(seen)


def test_lost_watch_is_found_out(hints, tmp_path):
    """A watch that the kernel does not have any more is set again, although all threads are alive."""
    root = os.fsencode(tmp_path)
    hints.watch("survey", root)
    emitter = next(iter(hints._observer.emitters))
    emitter._inotify.deactivate()
    assert eventually(lambda: not module._inodes_watched())
    assert not hints.verify("survey")
    assert hints.verify("survey")


def test_dead_observer_is_replaced(hints, woken, tmp_path):
    """When watchdog's thread has ended, a new one is started for every root."""
    roots = {name: tmp_path / name for name in ("one", "two")}
    for name, path in roots.items():
        path.mkdir()
        hints.watch(name, os.fsencode(path))
    hints._observer.stop()
    hints._observer.join(10)
    assert not hints.verify("one")
    assert not hints.verify("two")
    for name, path in roots.items():
        seen = woken.by(name)
        put(path, "a.jpg")
        assert eventually(seen)


def test_closed_root_is_polled():
    """Where watchdog keeps silent about a directory that it may not watch, we do not."""
    with open_place() as place:
        (place / "closed").mkdir(mode=0o711)
        hints = Hints(lambda name: None)
        try:
            with as_nobody():
                assert hints.watch("survey", os.fsencode(place / "closed")).startswith("polling: the kernel granted")
            (place / "closed").chmod(0o755)
            assert not hints.verify("survey")
            assert hints.how("survey") == "inotify"
        finally:
            hints.stop()


def test_network_filesystem_is_polled(woken, tmp_path):
    """Where other machines write unseen, it says so; events that do come are still used."""
    hints = Hints(woken, is_network=lambda path: True)
    try:
        assert hints.watch("survey", os.fsencode(tmp_path)).startswith("polling: this filesystem does not report")
        assert hints.verify("survey")
        seen = woken.by("survey")
        put(tmp_path, "a.jpg")
        assert eventually(seen)
    finally:
        hints.stop()


def test_overflow_wakes_every_root(hints, woken, tmp_path):
    """When the kernel's queue overflows, all roots are looked at; watchdog itself only logs it."""
    inotify = pytest.importorskip("watchdog.observers.inotify_c", reason="watchdog without inotify")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        hints.watch(name, os.fsencode(tmp_path / name))
    queue = getattr(hints._observer, "_inotify_fd", None)
    if queue is None:
        pytest.skip("this watchdog drops the overflow notice without a word")
    woken.names.clear()
    queue.handle_event(inotify.InotifyEvent(-1, inotify.InotifyConstants.IN_Q_OVERFLOW, 0, b""))
    assert set(woken.names) == {"one", "two"}


def test_stop_ends_everything(woken, tmp_path):
    """No thread, watch or descriptor is left behind."""
    before = set(threading.enumerate())
    hints = Hints(woken)
    put(tmp_path, "folder/a.jpg")
    hints.watch("survey", os.fsencode(tmp_path))
    hints.watch_folder(os.fsencode(tmp_path / "folder"))
    hints.stop()
    assert eventually(lambda: set(threading.enumerate()) <= before)
    assert module._inodes_watched() == set()


def test_unwatched_root_is_silent(hints, woken, tmp_path):
    """A root taken out of the configuration has no watch left, its folders neither."""
    put(tmp_path, "one/folder/a.jpg")
    hints.watch("one", os.fsencode(tmp_path / "one"))
    hints.watch_folder(os.fsencode(tmp_path / "one/folder"))
    hints.unwatch(os.fsencode(tmp_path / "one"))
    assert eventually(lambda: module._inodes_watched() == set())


def in_namespace(script, *arguments):
    """Run Python as root of its own user and mount namespace; skip where the machine forbids these."""
    probe = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"no user namespaces here: {probe.stderr.decode().strip()}")
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-W", "error", "-c", script]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, timeout=60, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


_LIMIT = """
import os, pathlib, sys
from pix4d_watcher.intake.hints import Hints
limit = pathlib.Path("/proc/sys/user", sys.argv[2])
enough = limit.read_text()
limit.write_text(sys.argv[3])
woken = []
hints = Hints(woken.append)
root = os.fsencode(sys.argv[1])
print(hints.watch("survey", root))
hints.watch_folder(root + b"/folder")
print(hints.how("survey"))
limit.write_text(enough)
print(hints.verify("survey"))
print(hints.how("survey"))
hints.stop()
"""


@pytest.mark.parametrize(
    ("limit", "value", "sysctl"),
    [
        ("max_inotify_watches", 1, "fs.inotify.max_user_watches"),
        ("max_inotify_watches", 0, "fs.inotify.max_user_watches"),
        ("max_inotify_instances", 0, "fs.inotify.max_user_instances"),
    ],
)
def test_limits_of_inotify_are_named(tmp_path, limit, value, sysctl):
    """At a limit it polls, names the setting to raise, and watches again when it was raised."""
    put(tmp_path, "folder/a.jpg")
    first, how, verified, later = in_namespace(_LIMIT, tmp_path, limit, value)
    assert (first == "inotify") is (value == 1)
    assert how.startswith("polling: the limit of inotify")
    assert f"sysctl {sysctl}=" in how
    assert later == "inotify"
    assert verified == str(value == 1)


# The thread begins late, as it may on a busy machine: no mount may be missed for that.
_MOUNT = """
import os, subprocess, sys, threading, time
from pix4d_watcher.intake.hints import Hints
run = threading.Thread.run
def late(thread):
    time.sleep(thread.name == "mount table")
    run(thread)
threading.Thread.run = late
woken = threading.Event()
hints = Hints(lambda name: woken.set())
root = os.fsencode(sys.argv[1])
hints.watch("survey", root)
def act(*command):
    woken.clear()
    subprocess.run(command, check=True)
    print(woken.wait(20), hints.verify("survey"), hints.verify("survey"), hints.how("survey"))
act("mount", "-t", "tmpfs", "none", root)
act("umount", root)
act("mount", "-t", "tmpfs", "none", root + b"/folder")
hints.stop()
"""


def test_mounts_wake_every_root(tmp_path):
    """A medium mounted on a root, or taken away, wakes it and is watched anew; one mounted in a folder wakes it too."""
    put(tmp_path, "folder/a.jpg")
    assert in_namespace(_MOUNT, tmp_path) == [
        "True False True inotify",
        "True False True inotify",
        "True True True inotify",
    ]
