"""Directories: drop directories, results and archives; do they answer, may they be used, is there room."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from pix4d_watcher.core.model import printable
from pix4d_watcher.doctor.findings import Cause, Finding, fail, ok, warn
from pix4d_watcher.engine.download import RESERVE
from pix4d_watcher.host import mounts
from pix4d_watcher.intake.names import is_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pix4d_watcher.config import RootSettings
    from pix4d_watcher.journal.records import Root

SCARCE = 2 << 30
"""Free bytes below which a warning comes: results of one flight are hundreds of megabytes to some gigabytes."""


def root(settings: RootSettings, seen: Root | None, *, running: bool) -> Iterator[Finding]:
    """Look at a drop directory: is it there, may it be read, which filesystem, images that lie in no folder.

    `seen` is what the service knows of it: one that was there before is a medium that comes and goes, and what a
    `running` service looks through it may read, perhaps by rights that this user has not.
    """
    name, path = f"drop directory {settings.name}", settings.path
    if not path.is_dir():
        text = f"{_shown(path)} is not there; its folders wait, and nothing is lost"
        if seen is None:
            yield fail(name, text, f"plug the medium in, mount the share, or: sudo mkdir -p {_quoted(path)}")
        else:
            yield warn(name, text, "plug the medium in or mount the share, when its folders are to go on")
        return
    need = os.R_OK | os.X_OK | (os.W_OK if settings.after != "keep" else 0)
    readable = os.access(path, os.R_OK | os.X_OK, effective_ids=True)
    if not readable and running and seen is not None and seen.present:
        yield ok(name, f"{_shown(path)} is looked through by the running service; this user may not")
        return
    if not os.access(path, need, effective_ids=True):
        yield _forbidden(name, path, write=readable)
        return
    with os.scandir(path) as entries:
        loose = sum(1 for entry in entries if is_image(entry.name) and entry.is_file(follow_symlinks=False))
    polled = mounts.is_network(bytes(path))
    kind = mounts.filesystem_type(bytes(path)) or "unknown filesystem"
    how = "looked through regularly, since other machines' changes are not announced" if polled else "changes announced"
    yield ok(name, f"{_shown(path)} on {kind}, {how}")
    if loose:
        lie = "images lie" if loose > 1 else "image lies"
        text = f"{loose} {lie} directly in {_shown(path)}: what is in no folder is left alone"
        yield warn(name, text, "move into a folder there what is to be sent")


def target(name: str, path: Path, *, reserve: int = RESERVE) -> Iterator[Finding]:
    """Look at a directory that is written to, or at where it will be made: permission, and more room than `reserve`."""
    place = next(place for place in (path, *path.parents) if place.exists())
    if not place.is_dir():
        yield fail(name, f"{_shown(place)} is a file; {_shown(path)} cannot be made", "move the file away")
        return
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        yield _forbidden(name, place, write=True)
        return
    yield room(name, place, f"{_shown(path)}{'' if place == path else ', made when first needed'}", reserve)


def room(name: str, place: Path, what: str, reserve: int) -> Finding:
    """Say how much room there is, against the bytes without which the service waits."""
    free = mounts.free_bytes(bytes(place))
    text = f"{what}: {free / 1e9:.1f} GB free" if free >= 1e9 else f"{what}: {free / 1e6:.0f} MB free"
    look = f"make room: df -h {_quoted(place)}"
    if free < reserve:
        return fail(name, f"{text}; the service needs {reserve / 1e6:.0f} MB and waits for them", look)
    return warn(name, f"{text}, which is little", look) if free < SCARCE else ok(name, text)


def _forbidden(name: str, path: Path, *, write: bool) -> Finding:
    if write and os.statvfs(path).f_flag & os.ST_RDONLY:
        text, remedy = f"{_shown(path)} is mounted read-only", f"sudo mount -o remount,rw {_quoted(path)}"
        return fail(name, text, f"look for disk errors (sudo dmesg), then: {remedy}", Cause.PERMISSION)
    need = "written" if write else "read"
    owner = f"sudo chown {_me()} {_quoted(path)}" if write else f"sudo setfacl -m u:{_me()}:rx {_quoted(path)}"
    return fail(name, f"{_shown(path)} may not be {need} by this user", owner, Cause.PERMISSION)


def _me() -> str:
    import pwd  # noqa: PLC0415  (only for a remedy)

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _shown(path: Path) -> str:
    return printable(bytes(path))


def _quoted(path: Path) -> str:
    return shlex.quote(_shown(path))
