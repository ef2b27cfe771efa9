"""Disks of their own for tests: an ext4 image whose power can be cut, small memory disks, and the keeper of a service.

Every mount lies below a test's own directory, and is undone when the block ends, however the test ended.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
import threading
from pathlib import Path

from harness import all_traced, until

GOING_DOWN, NO_LOG_FLUSH = 0x8004587D, 2  # linux/ext4.h: EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH

TRY_LATER = 75


def run(*command):
    """Run a command that must succeed."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60, text=True)


class Loop:
    """An ext4 image on a loop device, mounted at `place`."""

    def __init__(self, image, place, size, options=()):
        self.place, self._image = place, image
        run("truncate", "-s", str(size), image)
        run("mkfs.ext4", "-q", "-F", *options, image)
        place.mkdir(parents=True, exist_ok=True)

    def mount(self, options="loop"):
        """Mount it; after a cut this is where the filesystem's journal is played back."""
        run("mount", "-o", options, self._image, self.place)

    def remount(self, options):
        """Change how it is mounted."""
        run("mount", "-o", f"remount,{options}", self.place)

    def cut(self):
        """Cut the power: nothing that was not flushed reaches the image, and nothing works from now on."""
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, GOING_DOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def revive(self, meanwhile=lambda: None):
        """Bring the machine up again: all that was only in memory is gone. `meanwhile` runs while nothing is mounted.

        What stands on the image is mounted as a copy: a namespace that another test made meanwhile may hold the old
        mount, and the kernel would give us back the filesystem that was shut down.
        """
        until(
            lambda: subprocess.run(["umount", self.place], check=False, capture_output=True).returncode == 0, "umount"
        )
        before, self._image = self._image, self._image.with_name(f"{self._image.name}+")
        run("cp", before, self._image)
        before.unlink()
        meanwhile()
        self.mount()


@contextlib.contextmanager
def loop(directory, place, *, size=128 << 20, options=()):
    """Have a `Loop` mounted while the block runs."""
    made = Loop(directory / f"{place.name}.img", place, size, options)
    made.mount()
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)


@contextlib.contextmanager
def memory(place, options):
    """Have a tmpfs at `place` while the block runs, `options` such as size=40m."""
    place.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)


def free(place):
    """Count the bytes that are free."""
    facts = os.statvfs(place)
    return facts.f_bavail * facts.f_frsize


def fill(place, *, leave=0, name="ballast"):
    """Write a file until only `leave` bytes are free; to the last block where nothing is left."""
    handle = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        if leave:
            os.posix_fallocate(handle, os.fstat(handle).st_size, free(place) - leave)
            return place / name
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while os.write(handle, bytes(size)):
                    pass
    finally:
        os.close(handle)
    return place / name


class Kept:
    """Starts a site's service again whenever it ended with 75, as systemd does, a little later; counts the starts."""

    def __init__(self, site):
        self.site, self.ends = site, []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def _keep(self):
        while not self._over.wait(0.2):
            process = self.site.process
            code = None if process is None else process.poll()
            if code is None:
                continue
            self.ends.append(code)
            if code != TRY_LATER:
                return
            self._over.wait(1.0)
            self.site.process = None
            if not self._over.is_set():
                self.site.start()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(10)


def processor_seconds(pid):
    """Count the processor time that a process used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lines(site):
    """List the lines of the service's log."""
    return site.log.read_text("utf-8", "replace").splitlines() if site.log.exists() else []


@contextlib.contextmanager
def strace(pid, log, *options):
    """Have strace on a running process and all its threads while the block runs; it lets go at the end."""
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", str(log), "-p", str(pid), *options])
    try:
        until(lambda: all_traced(pid), "strace is there")
        yield
    finally:
        tracer.terminate()
        tracer.wait(30)
