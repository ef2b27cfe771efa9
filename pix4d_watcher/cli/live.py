"""Looks at a folder as it is now and says why it is not taken yet; works without the service and its memory.

Reads the drop directory only. The service counts quiet time by its own scans on a monotonic clock; without them the
kernel's change times are the best that can be said, and it is said as that.
"""

from __future__ import annotations

import functools
import os
import stat
import time
from typing import TYPE_CHECKING

from pix4d_watcher.cli import words
from pix4d_watcher.config import within
from pix4d_watcher.core.errors import SourceError
from pix4d_watcher.core.model import printable
from pix4d_watcher.host import mounts
from pix4d_watcher.intake import leases, names, scan
from pix4d_watcher.intake.settle import Settling, is_complete

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pix4d_watcher.config import RootSettings
    from pix4d_watcher.intake.scan import Tree


PATIENCE = 20.0
"""Seconds for a look at a folder; a share of thousands of images far away may take some."""


def seen(root: RootSettings, name: bytes, *, known: bool, joined: bool = False, said: str | None = None) -> list[str]:
    """Say what `folder` (of a folder that the journal knows) or `unknown_name` says, without waiting where it hangs.

    `joined`: it is one of several that are taken together, and what they wait for is not said. `said` is what it waits
    for in the service's words, where a look cannot tell.
    """
    # Asking for leases makes a writer who comes meanwhile raise SIGIO in us, whose default action is death.
    leases.ignore_sigio()
    look = functools.partial(folder, joined=joined, said=said) if known else unknown_name
    try:
        return within(PATIENCE, lambda: list(look(root, name)))
    except TimeoutError:
        return [f"{root.path} does not answer: its disk or network share hangs."]


def folder(root: RootSettings, name: bytes, *, joined: bool = False, said: str | None = None) -> Iterator[str]:
    """Say what lies in a folder now, and what it still waits for."""
    path = os.fsencode(root.path) + b"/" + name
    rules = scan.Rules(root.include, root.exclude, root.ready_file)
    try:
        scan.list_root(os.fsencode(root.path))
        tree = scan.scan_folder(path, rules)
        local = mounts.is_local(path)
    except SourceError as error:
        yield str(error)
        return
    verdict = is_complete(Settling(0.0), path, tree, 0.0, local=local)
    if not verdict.complete:
        yield f"Seen just now: {verdict.why}."
    elif verdict.ready:
        yield f"Seen just now: {words.number(len(tree.images), 'image')}, and the marker {root.ready_file} is there."
    else:
        yield _quiet(tree, root.settle, joined=joined, said=said)
    yield from _besides(tree, root)


def unknown_name(root: RootSettings, name: bytes) -> Iterator[str]:
    """Say why something that lies in a drop directory is no folder of the journal."""
    path = os.fsencode(root.path) + b"/" + name
    shown = f"{root.name}/{printable(name)}"
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        yield f"{shown}: cannot be looked at ({error.strerror})."
        return
    if names.is_ignored(os.fsdecode(name)):
        yield f"{shown} is never looked at: hidden names and the names that file servers use are ignored."
    elif stat.S_ISLNK(mode):
        yield f"{shown} is a link; links are never followed. Copy the folder itself into the drop directory."
    elif not stat.S_ISDIR(mode):
        yield (
            f"{shown} is a file directly in the drop directory. It belongs to no folder and is left alone; "
            "put it into a folder to have it sent."
        )
    else:
        yield f"{shown} is there, and the service has not seen it yet."
        yield from folder(root, name)


def _quiet(tree: Tree, settle: float, *, joined: bool, said: str | None) -> str:
    images = words.number(len(tree.images), "image")
    newest = max((seen.file_id.ctime_ns for seen in tree.files), default=0) / 1e9
    now = time.time()
    changed = f"Seen just now: {images}, nothing is being written, last change {words.ago(newest, now)}."
    rule = f"A folder is complete when nothing in it changed for {words.span(settle)}"
    left = settle - (now - newest)
    if left >= 1:
        return f"{changed} {rule}: in {words.span(left)} at the earliest."
    if said:
        return f"{changed} It waits: {said}."
    return changed if joined else f"{changed} {rule} while the service watched: it is taken soon."


def _besides(tree: Tree, root: RootSettings) -> Iterator[str]:
    """Name what lies in the folder and will not be sent."""
    others = [path for path in tree.not_images if path not in tree.temporary]
    if others:
        globs = " or left out by `include`" if root.include else ""
        yield f"Not sent, being no images{globs}: {words.number(len(others), 'file')}, {_some(others)}."
    if tree.links:
        yield f"Not sent, as links are not followed: {words.number(len(tree.links), 'link')}, {_some(tree.links)}."


def _some(paths: Sequence[bytes]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(printable(path) for path in paths[:3]) + more
