"""This machine: versions, user, clock, descriptors, inotify. Reads /proc and asks the kernel; changes nothing."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import pwd
import re
import resource
import sqlite3
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pix4d_watcher import __version__
from pix4d_watcher.doctor.findings import Finding, Level, ok, warn
from pix4d_watcher.intake.hints import MAX_FOLDER_WATCHES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pix4d_watcher.config import Settings

BORN = 1767225600
"""1 January 2026, in seconds since 1970: earlier than this program, as on boards without a battery."""

FEW_DESCRIPTORS = 512
"""Descriptors that leave room for 64 uploads, 64 watches and the journal's readers at the same time."""

_UNSYNCHRONISED = 0x0040
"""STA_UNSYNC of adjtimex(2)."""

_SYNCHRONISE = (
    "have it set by the network: sudo timedatectl set-ntp true (Debian: sudo apt-get install systemd-timesyncd)"
)


def program() -> Iterator[Finding]:
    """Say which versions run, for reports."""
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {ssl.OPENSSL_VERSION}"
    yield ok("program", f"pix4d-watcher {__version__}, {versions}, Linux {platform.release()}")


def user(journal: Path) -> Iterator[Finding]:
    """Say for whom permissions were looked at: those of another user than the service's mean nothing."""
    me = os.geteuid()
    try:
        owner = journal.stat().st_uid
    except OSError:
        owner = me
    if owner == me:
        yield ok("user", f"{_name(me)}, whose permissions are checked here")
    else:
        again = f"sudo -u {_name(owner)} pix4d-watcher doctor"
        text = f"{_name(me)}, but the journal belongs to {_name(owner)}: what is said of permissions here is not theirs"
        yield warn("user", text, f"run it as that user: {again}")


def clock() -> Iterator[Finding]:
    """Say what this machine's clock shows and whether somebody sets it."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < BORN:
        text = f"it shows {shown}, before this program was made: certificates are refused, and so are S3 signatures"
        yield Finding("clock", Level.FAIL, text, _SYNCHRONISE)
        return
    synchronised = _synchronised()
    if synchronised is False:
        yield warn("clock", f"it shows {shown}, and the kernel says that nobody sets it", _SYNCHRONISE)
    else:
        yield ok("clock", f"it shows {shown}" + (", kept by the network" if synchronised else ""))


def _synchronised() -> bool | None:
    """Ask adjtimex(2), which every user may; None where it is not allowed, as in some containers."""
    fields = [("modes", ctypes.c_uint), *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror"))]
    kind = type(
        "timex", (ctypes.Structure,), {"_fields_": [*fields, ("status", ctypes.c_int), ("_", ctypes.c_long * 64)]}
    )
    facts = kind()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(facts))
    return None if state < 0 else not facts.status & _UNSYNCHRONISED


def descriptors(service: int | None) -> Iterator[Finding]:
    """Compare open descriptors with their limit: of the running service where this user may look, else of this one."""
    limit, of_whom, used = resource.getrlimit(resource.RLIMIT_NOFILE)[0], "of this user", 0
    if service is not None:
        with contextlib.suppress(OSError, AttributeError):
            text = Path(f"/proc/{service}/limits").read_text(encoding="ascii")
            found = re.search(r"^Max open files\s+(\d+)", text, re.MULTILINE)
            used = len(list(Path(f"/proc/{service}/fd").iterdir()))
            limit, of_whom = int(found[1]) if found else limit, f"of the service, {used} in use"
    text = f"at most {limit} open files {of_whom}"
    if limit < FEW_DESCRIPTORS or used > limit * 0.8:
        remedy = "raise it: LimitNOFILE=4096 by systemctl edit pix4d-watcher, or ulimit -n 4096"
        yield warn("descriptors", f"{text}; connections, watches and the journal may run out of them", remedy)
    else:
        yield ok("descriptors", text)


def inotify(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Compare the kernel's limits of watches with what is needed, and try whether it still grants some.

    Not counted is what other processes use: a look at one of them may hang with the disk that it hangs on.
    """
    watches, instances = _limit("watches"), _limit("instances")
    need = len(settings.watch) + MAX_FOLDER_WATCHES
    trouble = _try_watches([bytes(root.path) for root in settings.watch])
    text = f"at most {watches} watches and {instances} instances a user, up to {need} watches are needed"
    means = "new folders are found later, by polling"
    if trouble == errno.EMFILE:
        yield warn(
            "inotify", f"{text}; all instances are taken: {means}", _sysctl("instances", max(1024, 2 * instances))
        )
    elif trouble == errno.ENOSPC or (watches < need and not running):
        taken = "all watches are taken" if trouble else "that is too few"
        yield warn("inotify", f"{text}; {taken}: {means}", _sysctl("watches", max(1048576, 2 * watches)))
    else:
        yield ok("inotify", text)


def _sysctl(what: str, number: int) -> str:
    line = f"fs.inotify.max_user_{what}={number}"
    return f"raise it: echo {line} | sudo tee /etc/sysctl.d/60-pix4d-watcher.conf && sudo sysctl --system"


def _limit(what: str) -> int:
    """Read the smaller of the machine's limit and that of this user namespace."""
    values = []
    for place in (f"/proc/sys/fs/inotify/max_user_{what}", f"/proc/sys/user/max_inotify_{what}"):
        with contextlib.suppress(OSError, ValueError):
            values.append(int(Path(place).read_text(encoding="ascii")))
    return min(values, default=0)


def _try_watches(places: list[bytes]) -> int:
    """Watch all places for a moment; return the errno of a limit that is used up, else 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    in_close_write, in_cloexec = 0x00000008, os.O_CLOEXEC
    handle = libc.inotify_init1(in_cloexec)
    if handle < 0:
        return ctypes.get_errno()
    try:
        errors = {ctypes.get_errno() for place in places if libc.inotify_add_watch(handle, place, in_close_write) < 0}
    finally:
        os.close(handle)
    return errno.ENOSPC if errno.ENOSPC in errors else 0


def _name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"'#{number}'"
