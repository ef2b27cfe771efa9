"""Media that tests put in, pull out and break: cards in readers (ext4 on loop devices) and shares (bindfs over FUSE).

What is mounted, attached or started here is undone by `Media`, whatever became of the test. Needs root.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time

from harness import until

CARD = 16 << 20
"""Bytes of a card."""

PATIENT = {"request_timeout": "30s", "doubt_wait": "31s"}
"""Settings for stories that count requests: none is repeated only because a busy machine answers late."""


class Media:
    """All media of one test, from entering to leaving it; `directory` is on a local disk."""

    def __init__(self, directory):
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._made = 0

    def __enter__(self):
        """Undo at the end whatever is made in between."""
        self._directory.mkdir()
        return self

    def __exit__(self, *_):
        """Unmount, detach and end everything."""
        self._stack.close()

    def card(self, folders, uuid="random", journal="^has_journal"):
        """Make a card that holds what lies in the directory `folders`, by full seconds; gives its image file."""
        image = self._place("card")
        with image.open("wb") as file:
            file.truncate(CARD)
        # Without a journal nothing is written to it but what tests write.
        _run("mkfs.ext4", "-q", "-F", "-O", journal, "-U", uuid, "-d", folders, image)
        return image

    def reader(self, place):
        """Attach a card reader, whose cards are mounted at `place` (which exists)."""
        made = Reader(self._place("reader"), place)
        self._stack.callback(made.close)
        made.attach()
        return made

    def share(self, source, place, *options):
        """Mount `source` at `place` as a share: FUSE reports nothing of what is written to `source` itself."""
        made = Share(source, place, options)
        self._stack.callback(made.close)
        made.mount()
        return made

    def _place(self, name):
        self._made += 1
        return self._directory / f"{name}-{self._made}"


class Reader:
    """A card reader: one loop device, so that every card in it has the same device number, as in life."""

    def __init__(self, backing, place):
        self._backing = backing
        self._place = place
        self._device = None
        self._card = None

    def attach(self):
        """Attach the device; others take free ones at the same time, so it is tried again."""
        with self._backing.open("wb") as file:
            file.truncate(CARD)

        def attached():
            done = subprocess.run(["losetup", "--find", "--show", self._backing], capture_output=True, check=False)
            return done.stdout.decode().strip()

        self._device = until(attached, "a loop device is free")

    def insert(self, card, *options):
        """Put a card in: it is mounted."""
        until(self._is_free, "nothing uses the device any more")
        shutil.copyfile(card, self._backing)
        _run("losetup", "--set-capacity", self._device)
        _run("blockdev", "--flushbufs", self._device)
        _run("mount", *options, self._device, self._place)
        self._card = card

    def pull(self):
        """Take the card out as a desktop does: the mount vanishes, the empty mount point stays."""
        _run("umount", "-l", self._place)

    def tear(self, *, lists=False):
        """Take the card out without a word: the mount stays, and every read that is not cached fails with EIO.

        `lists`: so do the lists of its directories. Otherwise they are cached, for as long as the kernel likes.
        """
        os.truncate(self._backing, 0)
        _run("losetup", "--set-capacity", self._device)
        if lists:
            until(self._forgets_lists, "no list is cached any more")

    def close(self):
        """Undo everything."""
        subprocess.run(["umount", "-l", self._place], capture_output=True, check=False)
        if self._device:
            subprocess.run(["losetup", "--detach", self._device], capture_output=True, check=False)

    def _forgets_lists(self):
        """Whether the list is gone from the cache, where a block that somebody reads just then stays."""
        _run("blockdev", "--flushbufs", self._device)
        try:
            any(self._place.iterdir())
        except OSError:
            return True
        return False

    def _is_free(self):
        """Whether the kernel has let go of the card before, which it does with the last open file on it."""
        try:
            os.close(os.open(self._device, os.O_RDWR | os.O_EXCL))
        except OSError:
            return False
        return True


class Share:
    """A directory as it is seen over a network: bindfs, which can hang, break and come back."""

    def __init__(self, source, place, options):
        self._command = ["bindfs", "-f", *options, str(source), str(place)]
        self._place = place
        self._process = None

    def mount(self):
        """Mount it."""
        before = self._place.stat().st_dev
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self._place.stat().st_dev != before, "the share is mounted")

    def hang(self):
        """Have it answer no more."""
        self._process.send_signal(signal.SIGSTOP)

    def answer(self):
        """Have it answer again."""
        self._process.send_signal(signal.SIGCONT)

    def tear(self):
        """Have the connection break: the mount stays, and everything fails with ENOTCONN."""
        self._process.kill()
        self._process.wait()

    def unmount(self):
        """Take the mount away; what stays is the empty mount point."""
        _run("umount", "-l", self._place)
        self.tear()

    def close(self):
        """Undo everything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        while subprocess.run(["umount", "-l", self._place], capture_output=True, check=False).returncode == 0:
            pass


def forget_cached(folder):
    """Have the kernel read the files of a folder from their medium the next time."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def set_changed(card, paths):
    """Give files on a card the same time of their last change, which is otherwise that of their sources."""
    commands = "".join(f"set_inode_field {path} ctime 20231114221320\n" for path in paths)
    subprocess.run(["debugfs", "-w", "-f", "-", card], input=commands.encode(), capture_output=True, check=True)


def steady(check, what, seconds=2.0):
    """See that something stays as it is for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert check(), f"did not stay so: {what}"
        time.sleep(0.05)


def held_or_done(site):
    """Give the folder's hold, or True when it is delivered."""
    row = site.look()
    return row["hold"] or row["state"] == "delivered"


def retry_until_done(site):
    """Answer every hold as a person does who accepts what lies there, until the folder is done."""
    while site.until(lambda: held_or_done(site), "held or done") is not True:
        site.ask("retry")


def _run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"
