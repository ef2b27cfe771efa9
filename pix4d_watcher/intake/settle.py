"""Whether a folder is complete, and if not, why not and when to look again.

Owns the quiet time of one folder on a monotonic clock that the caller passes in; reads no clock and no disk itself
(`is_complete` asks the kernel once, at the very end). Remembers nothing across a restart: the same rule holds then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pix4d_watcher.core.model import printable
from pix4d_watcher.intake import leases

if TYPE_CHECKING:
    from pix4d_watcher.intake.scan import SeenFile, Tree

# An image that has been quiet this long (s) may be hashed ahead; what changes afterwards is simply read again.
QUIET_ENOUGH_TO_HASH = 3.0

# A writer's end is a wake-up on local filesystems; this (s) is the net below it.
ASK_AGAIN = 5.0

_Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a folder is complete; `why` is a sentence for people.

    `again_in` is when (s) looking again may help by itself, None where something has to happen first. `ready` tells
    that the ready marker is there.
    """

    complete: bool
    why: str
    again_in: float | None
    ready: bool = False


class Settling:
    """The quiet time of one folder: `settle` seconds without any change of names, sizes, mtimes (local: inodes)."""

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._since: dict[bytes, tuple[_Version, float]] | None = None
        self._last = ("", 0.0)

    def observe(self, tree: Tree, now: float, *, local: bool) -> Verdict:
        """Take note of a scan at `now` (s, monotonic) and judge; inodes count only where `local`."""
        self._compare(tree, now, local=local)
        count = _images(len(tree.images))
        waits = waits_for(tree)
        if waits:
            why = f"{count}; {waits}" if tree.images else waits
            return Verdict(complete=False, why=why, again_in=None, ready=tree.ready)
        if tree.ready:
            return Verdict(complete=True, why=f"{count}; the ready marker is there", again_in=0.0, ready=True)
        what, since = self._last
        quiet = now - since
        # Without the seconds that have passed: nobody looks again before all of them have, and the text would stand.
        why = f"{count}; {what}complete after {self._settle:g} s of quiet"
        left = self._settle - quiet
        if left > 0:
            return Verdict(complete=False, why=why, again_in=left)
        return Verdict(complete=True, why=f"{count}; quiet for {quiet:.0f} s", again_in=0.0)

    def quiet(self, now: float) -> float:
        """Return for how many seconds nothing has changed in the tree observed last."""
        return now - self._last[1]

    def quiet_files(self, tree: Tree, now: float) -> tuple[SeenFile, ...]:
        """Return the images of the tree observed last that have been quiet long enough to be hashed ahead."""
        enough = min(self._settle, QUIET_ENOUGH_TO_HASH)
        since = self._since or {}
        return tuple(image for image in tree.images if image.path in since and now - since[image.path][1] >= enough)

    def _compare(self, tree: Tree, now: float, *, local: bool) -> None:
        before = self._since
        after: dict[bytes, tuple[_Version, float]] = {}
        changed = b""
        for seen in tree.files:
            version = _version(seen, local=local)
            known = before.get(seen.path) if before is not None else None
            if known is not None and known[0] == version:
                after[seen.path] = known
            else:
                after[seen.path] = (version, now)
                changed = seen.path
        self._since = after
        if before is None:
            self._last = ("", now)
        elif changed:
            self._last = (f"{printable(changed)} {'changed' if changed in before else 'appeared'} last; ", now)
        elif len(after) < len(before):
            gone = min(before.keys() - after.keys())
            self._last = (f"{printable(gone)} went away last; ", now)


def is_complete(settling: Settling, folder: bytes, tree: Tree, now: float, *, local: bool) -> Verdict:
    """Judge a scan of `folder` (absolute) at `now`; where all else says complete, ask the kernel for writers once."""
    verdict = settling.observe(tree, now, local=local)
    if not verdict.complete:
        return verdict
    busy = leases.writers(folder, tree, local=local)
    if not busy:
        return verdict
    why = f"{_images(len(tree.images))}; being written by another program: {_named(busy)}"
    return replace(verdict, complete=False, why=why, again_in=ASK_AGAIN)


def _version(seen: SeenFile, *, local: bool) -> _Version:
    version = seen.file_id
    return version.size, version.mtime_ns, version.inode if local else 0


def waits_for(tree: Tree) -> str:
    """Name what must happen before any quiet time counts; empty if nothing."""
    if tree.hold_marker:
        return "the marker .hold is there: remove it when the folder is complete"
    if tree.unreadable:
        path, reason = tree.unreadable[0]
        more = f" and {len(tree.unreadable) - 1} more" if len(tree.unreadable) > 1 else ""
        return f"{printable(path)}{more} cannot be read ({reason}): let the service's user read it, or exclude it"
    if tree.temporary:
        return (
            f"still being copied, by its temporary name: {_named(tree.temporary)}; "
            "rename it or remove it if nothing copies any more, or exclude it"
        )
    if not tree.images:
        return "waiting for images"
    return ""


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _named(paths: tuple[bytes, ...]) -> str:
    shown = ", ".join(printable(path) for path in paths[:3])
    return f"{shown} and {len(paths) - 3} more" if len(paths) > 3 else shown
