"""Which folders of a drop directory are one mission, and what they are when they are seen as one.

By the pattern of their names (`harbour_1`, `harbour_2`), or because the pix4d.yaml of one of them lists the others.
Owns grouping and the union of trees; reads nothing, remembers nothing, and decides nothing about projects.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pix4d_watcher.core.model import printable
from pix4d_watcher.intake.scan import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pix4d_watcher.intake.scan import SeenFile
    from pix4d_watcher.intake.settle import Verdict


@dataclass(frozen=True, slots=True)
class Mission:
    """Folders that become one project called `name`.

    `members` are those that can join now, `missing` are listed and not there yet, `taken` are listed and were complete
    before: projects of their own. All three stand in their order.
    """

    name: bytes
    members: tuple[bytes, ...]
    listed: bool = False
    missing: tuple[bytes, ...] = ()
    taken: tuple[bytes, ...] = ()


def missions(
    free: Sequence[bytes],
    *,
    pattern: str | None,
    lists: Mapping[bytes, Sequence[bytes]],
    taken: Collection[bytes] = (),
) -> list[Mission]:
    """Group the folders that are `free` to join; those that belong to nothing are left out.

    `lists` maps a folder to what its pix4d.yaml lists; `taken` are folders that are there and not free. A list wins
    over the pattern. Without itself in its own list a folder comes first, and the first of a list names the mission.
    """
    found = [_listed(wanted, free, taken) for wanted in _merged(lists)]
    used = {member for mission in found for member in mission.members}
    by_name: dict[bytes, list[tuple[int, bytes]]] = {}
    for name in free:
        match = _compiled(pattern).fullmatch(name) if pattern and name not in used else None
        if match:
            by_name.setdefault(match["mission"], []).append((int(match["part"]), name))
    return found + [
        Mission(mission, tuple(name for _part, name in sorted(parts))) for mission, parts in sorted(by_name.items())
    ]


def union(trees: Mapping[bytes, Tree]) -> Tree:
    """See several folders as one, as if they lay in one folder under their own names.

    It is ready when all are, and held back by a marker in any of them.
    """
    return Tree(
        files=_files(trees, lambda tree: tree.files),
        images=_files(trees, lambda tree: tree.images),
        temporary=_paths(trees, lambda tree: tree.temporary),
        hold_marker=any(tree.hold_marker for tree in trees.values()),
        ready=bool(trees) and all(tree.ready for tree in trees.values()),
        unreadable=tuple(
            sorted((_under(name, path), why) for name, tree in trees.items() for path, why in tree.unreadable)
        ),
        links=_paths(trees, lambda tree: tree.links),
        directories=_paths(trees, lambda tree: tree.directories),
        folder_files=_paths(trees, lambda tree: tree.folder_files),
    )


def await_parts(mission: Mission, verdict: Verdict, tree: Tree, quiet: float, join_wait: float) -> Verdict:
    """Judge whether a mission waits for further folders, `quiet` seconds after all that are there were complete.

    A folder without images in `tree` is waited for: its copy is about to begin, or a person removes it.

    A ready marker in every folder ends the wait for further numbers, once there are two: a marker says that one copy is
    finished, and the second card may not be in yet.
    """
    there = _named(mission.members)
    images = verdict.why.partition(";")[0]
    if mission.missing or mission.taken:
        return replace(verdict, complete=False, why=_lacking(mission, f"{images} in {there}"), again_in=None)
    filled = {seen.path.partition(b"/")[0] for seen in tree.images}
    if empty := [name for name in mission.members if name not in filled]:
        why = f"{images} in {there}; waits for images in {_named(empty)}: copy them, or remove what is empty"
        return replace(verdict, complete=False, why=why, again_in=None)
    left = join_wait - quiet
    if mission.listed or (verdict.ready and len(mission.members) > 1) or left <= 0:
        return verdict
    why = f"{images} in {there}; complete, waits {join_wait:g} s for further parts of {printable(mission.name)}"
    return replace(verdict, complete=False, why=why, again_in=left)


def _lacking(mission: Mission, seen: str) -> str:
    if mission.missing:
        return (
            f"{seen}; waits for {_named(mission.missing)}, which pix4d.yaml lists under `join`: "
            "drop that too, or take it out of the list"
        )
    return (
        f"{seen}; pix4d.yaml lists {_named(mission.taken)} under `join`, which was complete before and is sent by "
        "itself: take it out of the list to send the rest"
    )


def _merged(lists: Mapping[bytes, Sequence[bytes]]) -> list[list[bytes]]:
    """Bring lists that share a folder together, as when each of two folders lists the other."""
    merged: list[list[bytes]] = []
    for folder, listed in sorted(lists.items()):
        wanted = list(dict.fromkeys(listed if folder in listed else [folder, *listed]))
        shared = [known for known in merged if not set(known).isdisjoint(wanted)]
        merged = [known for known in merged if known not in shared]
        merged.append(list(dict.fromkeys(name for names in (*shared, wanted) for name in names)))
    return [wanted for wanted in merged if len(wanted) > 1]


def _listed(wanted: Sequence[bytes], free: Sequence[bytes], taken: Collection[bytes]) -> Mission:
    return Mission(
        wanted[0],
        tuple(name for name in wanted if name in free),
        listed=True,
        missing=tuple(name for name in wanted if name not in free and name not in taken),
        taken=tuple(name for name in wanted if name in taken),
    )


@functools.lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[bytes]:
    text = re.escape(pattern.encode())
    for field, meaning in ((b"{mission}", b"(?P<mission>.+)"), (b"{part}", b"(?P<part>[0-9]+)")):
        text = text.replace(re.escape(field), meaning)
    return re.compile(text, re.DOTALL)


def _files(trees: Mapping[bytes, Tree], pick: Callable[[Tree], tuple[SeenFile, ...]]) -> tuple[SeenFile, ...]:
    found = [replace(seen, path=_under(name, seen.path)) for name, tree in trees.items() for seen in pick(tree)]
    return tuple(sorted(found, key=lambda seen: seen.path))


def _paths(trees: Mapping[bytes, Tree], pick: Callable[[Tree], tuple[bytes, ...]]) -> tuple[bytes, ...]:
    return tuple(sorted(_under(name, path) for name, tree in trees.items() for path in pick(tree)))


def _under(name: bytes, path: bytes) -> bytes:
    return name + b"/" + path if path else name


def _named(names: Sequence[bytes]) -> str:
    shown = [printable(name) for name in names]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
