"""Durations and sizes as people write them, and back into text.

Owns the grammar of both and nothing else. Durations are seconds (float), sizes are bytes (int).
"""

from __future__ import annotations

import re

# Longer waits are typing errors; `threading.Event().wait` also refuses what does not fit the kernel's clock.
LONGEST_S = 3650 * 86400.0

_DURATION_UNITS: tuple[tuple[float, tuple[str, ...]], ...] = (
    (86400.0, ("d", "day", "days")),
    (3600.0, ("h", "hour", "hours")),
    (60.0, ("m", "min", "minute", "minutes")),
    (1.0, ("s", "sec", "second", "seconds")),
    (0.001, ("ms",)),
)
_SECONDS = {word: seconds for seconds, words in _DURATION_UNITS for word in words}
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "kib": 2**10,
    "m": 10**6,
    "mb": 10**6,
    "mib": 2**20,
    "g": 10**9,
    "gb": 10**9,
    "gib": 2**30,
    "t": 10**12,
    "tb": 10**12,
    "tib": 2**40,
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PART = re.compile(rf"\s*({_NUMBER})\s*({'|'.join(sorted(_SECONDS, key=len, reverse=True))})\s*")

# For the JSON Schema: the shape only; order of the units, zero and the upper bound are checked when the file is loaded.
DURATION_PATTERN = rf"^(\s*{_NUMBER}\s*({'|'.join(sorted(_SECONDS, key=len, reverse=True))})\s*)+$"
SIZE_PATTERN = rf"^{_NUMBER}\s*([KkMmGgTt]([Ii]?[Bb])?|[Bb])?$"

_DURATION_HELP = "write a number and a unit: 500ms, 60s, 5m, 2h, 1d or 1h30m"
_SIZE_HELP = "write 32MiB, 8MB, 500k or a number of bytes"


def parse_duration(value: object) -> float:
    """Turn `1h30m` into 5400.0 seconds; raise ValueError with a hint for anything else, zero and bare numbers too."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"is no duration; {_DURATION_HELP}")  # noqa: TRY004  pydantic collects ValueError only
    text = str(value).strip()
    if re.fullmatch(rf"-?{_NUMBER}", text):
        raise ValueError(f"{text} what? write {text.lstrip('-')}s for seconds; units are ms, s, m, h, d")
    seconds = _sum_of_parts(text)
    if seconds < 0.001:
        raise ValueError("must be longer than zero (at least 1ms)")
    if seconds > LONGEST_S:
        raise ValueError("is longer than ten years; is the unit right?")
    return seconds


def _sum_of_parts(text: str) -> float:
    total, position, last = 0.0, 0, float("inf")
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise ValueError(f"{text!r} is no duration; {_DURATION_HELP}")
        unit = _SECONDS[part[2]]
        if unit >= last:
            raise ValueError(f"{text!r} is no duration: larger units come first, each once, as in 1h30m")
        total += float(part[1]) * unit
        position, last = part.end(), unit
    if position == 0:
        raise ValueError(f"is empty; {_DURATION_HELP}")
    return total


def parse_size(value: object) -> int:
    """Turn `32MiB` into 33554432 bytes (`k`, `kB` are 1000, `KiB` is 1024); raise ValueError with a hint otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"is no size; {_SIZE_HELP}")  # noqa: TRY004  pydantic collects ValueError only
    match = re.fullmatch(rf"({_NUMBER})\s*([A-Za-z]*)", str(value).strip())
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{str(value)!r} is no size; {_SIZE_HELP}")
    size = float(match[1]) * unit if "." in match[1] else int(match[1]) * unit
    if size > 2**63 - 1:
        raise ValueError(f"{str(value)!r} is larger than any file")
    return int(size)


def show_duration(seconds: float) -> str:
    """Write seconds as `parse_duration` reads them, exact to the millisecond: 5400.0 is `1h30m`."""
    rest = round(seconds * 1000)
    out = ""
    for unit, words in _DURATION_UNITS:
        count, rest = divmod(rest, round(unit * 1000))
        out += f"{count}{words[0]}" if count else ""
    return out or "0s"


def show_size(size: int) -> str:
    """Write bytes as `parse_size` reads them, in the largest unit that divides them: 33554432 is `32MiB`."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("GB", 10**9), ("MB", 10**6), ("KiB", 2**10), ("kB", 10**3)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
