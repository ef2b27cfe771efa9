"""Gives every image the key under which it lies in the bucket, relative to the project's prefix.

Pure: the same paths and the same taken keys give the same keys. A key is given once; the journal keeps it.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

# S3 allows 1024 bytes with the prefix; the rest is left to the prefix.
MAX_KEY = 900

# The results may be written to a disk under the same base name: no filesystem takes more than 255 bytes.
MAX_NAME = 255

_FOREIGN = re.compile(r"[^A-Za-z0-9._-]")
_LEADING_DOTS = re.compile(r"^\.+")


def give_keys(paths: Sequence[bytes], *, taken: Collection[str] = ()) -> dict[bytes, str]:
    """Return a relative key for each path (bytes, relative to the folder); `taken` are the keys given earlier.

    Base names are unique in the project ignoring case: the second `DJI_0001.JPG` is prefixed with its directory's
    name, and what still collides is numbered.
    """
    used = {key.rpartition("/")[2].lower() for key in taken}
    numbered: dict[str, int] = {}
    keys = {}
    for path in sorted(set(paths)):
        name = next(name for name in _candidates(path, numbered) if name.lower() not in used)
        used.add(name.lower())
        keys[path] = _join(path.rpartition(b"/")[0], name)
    return keys


def _candidates(path: bytes, numbered: dict[str, int]) -> Iterator[str]:
    """Offer base names from the plainest on; `numbered` keeps the number that each name has come to."""
    directory, _, base = path.rpartition(b"/")
    name = _plain(base)
    yield _fit(name)
    if directory:
        name = f"{_plain(directory.rpartition(b'/')[2])}_{name}"
        yield _fit(name)
    lower = name.lower()
    while True:
        numbered[lower] = numbered.get(lower, 1) + 1
        yield _fit(name, f"_{numbered[lower]}")


def _plain(part: bytes) -> str:
    """Reduce one part of a path to letters, digits, dot, dash and underscore; it never begins with a dot."""
    text = _FOREIGN.sub("_", part.decode("utf-8", errors="surrogateescape"))
    return _LEADING_DOTS.sub(lambda dots: "_" * len(dots[0]), text)


def _fit(name: str, number: str = "") -> str:
    """Put a number before the suffix, and shorten the stem (a hash keeps it apart from others) where it is too long."""
    stem, dot, suffix = name.rpartition(".")
    stem, suffix = (stem, dot + suffix) if stem else (name, "")
    if len(stem) + len(number) + len(suffix) > MAX_NAME:
        digest = hashlib.sha256(stem.encode("ascii")).hexdigest()[:16]
        suffix = suffix[:32]
        stem = f"{stem[: MAX_NAME - len(suffix) - len(number) - 17]}-{digest}"
    return f"{stem}{number}{suffix}"


def _join(directory: bytes, name: str) -> str:
    if not directory:
        return name
    plain = "/".join(_plain(part) for part in directory.split(b"/"))
    if len(plain) + 1 + len(name) > MAX_KEY:
        plain = hashlib.sha256(directory).hexdigest()[:32]
    return f"{plain}/{name}"
