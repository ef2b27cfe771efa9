"""What does not belong together in one folder: gaps, several cameras, resolutions or missions, thermal images, bands.

Pure: says what is found; `checks` decides how strictly it is taken.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from pix4d_watcher.core.model import printable
from pix4d_watcher.intake.kinds import MULTISPECTRAL, THERMAL
from pix4d_watcher.intake.names import matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pix4d_watcher.core.model import FrozenImage

MISSION_GAP = timedelta(minutes=30)
"""Time without an image that parts two missions. Changing batteries takes minutes; longer than this is another job, or
a pause after which the light is another one. An assumption."""

MISSION_LEAST = 3
"""Images that make a mission: fewer are test shots."""

# DJI_0001.JPG, DJI_0001_T.JPG, DJI_20230517100000_0001_MS_NIR.TIF: the number, and which of several files of the shot.
_DJI = re.compile(r"dji_(?:\d{14}_)?(\d{3,6})((?:_ms)?_[a-z]{1,3})?(?:_.*)?\.[a-z]+", re.IGNORECASE | re.DOTALL)

# What tells the files of a shot apart: everything behind the number.
_TAIL = re.compile(r"\d((?:_[A-Za-z]+)+\.[A-Za-z]+)")

Found = tuple[str, int, str]
"""A check, how many images or numbers it concerns, and its text."""


def look(card: Sequence[FrozenImage], sendable: Sequence[FrozenImage]) -> Iterator[Found]:
    """Yield what is found; `card` are all images of the folder, damaged and double ones too."""
    photos = [image for image in sendable if not image.facts.kind]
    yield from _gaps(card)
    yield from _cameras(photos)
    yield from _resolutions(photos)
    yield from _missions(sendable)
    yield from _kind(sendable, THERMAL, "thermal", "PIX4Dcloud alone does not process them")
    yield from _kind(sendable, MULTISPECTRAL, "single multispectral bands", "they disturb a project of photos")


def _gaps(images: Sequence[FrozenImage]) -> Iterator[Found]:
    """Find the numbers that are missing in each directory, among DJI's names."""
    shots: dict[tuple[str, int], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for image in images:
        directory, _, name = os.fsdecode(image.path).rpartition("/")
        if hit := _DJI.fullmatch(name):
            shots[directory, len(hit[1])][(hit[2] or "").upper()].add(int(hit[1]))
    missing, places = 0, []
    for (directory, digits), variants in sorted(shots.items()):
        holes = _holes(list(variants.values()), 10**digits)
        if holes:
            numbers = ", ".join(_range(first, last, digits) for first, last, _ in holes[:3])
            more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
            place = printable(os.fsencode(directory))
            places.append(f"{numbers}{more}{f' in {place}' if place else ''}")
            missing += sum(count for _, _, count in holes)
    if missing:
        more = f" and in {len(places) - 3} more directories" if len(places) > 3 else ""
        numbers = "1 number is" if missing == 1 else f"{missing} numbers are"
        text = f"{numbers} missing in the sequence of names: {'; '.join(places[:3])}{more}."
        remedy = "If nobody deleted these images, the copy is not complete: compare it with the card."
        yield "sequence_gaps", missing, f"{text} {remedy}"


def _holes(variants: Sequence[set[int]], modulus: int) -> list[tuple[int, int, int]]:
    """Return the first number, the last number and the length of each hole.

    Counting goes on at 1 behind the highest number, so the numbers lie on a circle, and its largest empty part is what
    lies outside of the flight. A variant that most shots lack (a zoomed photo now and then) has no sequence.
    """
    seen = sorted(set.union(*variants))
    regular = [numbers for numbers in variants if 2 * len(numbers) > len(seen)]
    complete = set.intersection(*regular) if regular else set(seen)
    lowest = 0 if seen[0] == 0 else 1
    size = modulus - lowest
    behind = max(range(len(seen)), key=lambda at: (seen[at] - seen[at - 1] - 1) % size)
    first = seen[behind]
    length = (seen[behind - 1] - first) % size + 1

    def number(place: int) -> int:
        return (first + place - lowest) % size + lowest

    present = sorted((number - first) % size for number in complete)
    return [
        (number(before + 1), number(after - 1), after - before - 1)
        for before, after in pairwise([-1, *present, length])
        if after > before + 1
    ]


def _range(first: int, last: int, digits: int) -> str:
    return f"{first:0{digits}}" if first == last else f"{first:0{digits}} to {last:0{digits}}"


def _cameras(photos: Sequence[FrozenImage]) -> Iterator[Found]:
    yield from _mixed("mixed_cameras", "cameras", [(image.facts.camera, image) for image in photos])


def _resolutions(photos: Sequence[FrozenImage]) -> Iterator[Found]:
    """Find several sizes; one that is only turned is the same."""
    sizes = [sorted((image.facts.width, image.facts.height), reverse=True) for image in photos]
    named = [(f"{size[0]} x {size[1]}" if all(size) else "", image) for size, image in zip(sizes, photos, strict=True)]
    yield from _mixed("mixed_resolutions", "resolutions", named)


def _mixed(check: str, what: str, named: Sequence[tuple[str, FrozenImage]]) -> Iterator[Found]:
    """Compare what images are named by; those without a name are another check's concern, or nobody's."""
    counts = Counter(name for name, _ in named if name)
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    others = [image.path for name, image in named if name and name != usual]
    shown = ", ".join(f"{name} ({count})" for name, count in counts.most_common(4))
    more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
    other = f"{len(others)} not {usual}, such as {printable(others[0])}"
    yield check, len(others), f"The photos have {len(counts)} {what}: {shown}{more}; {other}."


def _missions(images: Sequence[FrozenImage]) -> Iterator[Found]:
    """Find long pauses on the camera's clock between groups of images."""
    moments = sorted(datetime.fromisoformat(image.facts.taken_at) for image in images if image.facts.taken_at)
    groups: list[list[datetime]] = []
    for moment in moments:
        if not groups or moment - groups[-1][-1] > MISSION_GAP:
            groups.append([])
        groups[-1].append(moment)
    missions = [group for group in groups if len(group) >= MISSION_LEAST]
    if len(missions) < 2:
        return
    spans = [f"{group[0]:%Y-%m-%d %H:%M} to {group[-1]:%H:%M} ({len(group)} images)" for group in missions]
    more = f" and {len(spans) - 3} more" if len(spans) > 3 else ""
    minutes = int(MISSION_GAP.total_seconds() / 60)
    text = f"{len(missions)} missions by the camera's clock, more than {minutes} minutes apart: {', '.join(spans[:3])}"
    remedy = "If they are not one area, drop each as a folder of its own."
    yield "several_missions", sum(map(len, missions)) - max(map(len, missions)), f"{text}{more}. {remedy}"


def _kind(images: Sequence[FrozenImage], kind: str, words: str, why: str) -> Iterator[Found]:
    chosen = [os.fsdecode(image.path) for image in images if image.facts.kind == kind]
    if not chosen:
        return
    globs = leave_out(chosen, [os.fsdecode(image.path) for image in images if image.facts.kind != kind])
    remedy = (
        f"To leave them out: exclude: [{', '.join(repr(glob) for glob in globs)}]"
        if globs
        else "No pattern of names tells them from the others: put them into a directory of their own and exclude that"
    )
    example = printable(os.fsencode(chosen[0]))
    count = "1 image is" if len(chosen) == 1 else f"{len(chosen)} images are"
    yield kind, len(chosen), f"{count} {words} ({example}); {why}. {remedy}."


def leave_out(chosen: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return globs for `exclude` that match every path of `chosen` and none of `others`; empty where there are none."""
    tails = sorted({f"*{hit[1]}" for path in chosen if (hit := _TAIL.search(path.rpartition("/")[2]))})
    suffixes = sorted({f"*.{path.rpartition('.')[2]}" for path in chosen})
    tops = sorted({f"{_literal(path.partition('/')[0])}/*" for path in chosen if "/" in path})
    for globs in (["*_T.JPG"], ["*_MS_*.TIF"], tails, suffixes, tops):
        some = tuple(globs)
        if len(some) <= 8 and all(matches(path, some) for path in chosen) and not any(matches(p, some) for p in others):
            return list(some)
    return []


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", printable(os.fsencode(name)))
