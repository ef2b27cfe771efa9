"""Reads TIFF structure (classic and BigTIFF, both byte orders): directories, values, and whether the data is all there.

An EXIF block is the same structure, so this is its reader too. Decodes no pixel. Every length that a file states is
compared with the file before it is believed: a hostile file costs neither memory nor time.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

# Returns up to n bytes at an offset, fewer at the end of the file.
Read = Callable[[int, int], bytes]

NEW_SUBFILE, WIDTH, HEIGHT, SUB_DIRECTORIES, XMP = 254, 256, 257, 330, 700
STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS, JPEG_OFFSET, JPEG_COUNT = 273, 279, 324, 325, 513, 514
EXIF_DIRECTORY, GPS_DIRECTORY = 34665, 34853

# Far above any camera's files: what is beyond is not looked at.
_MAX_DIRECTORIES = 200
_MAX_VALUE_BYTES = 4 << 20

# Field types of TIFF 6.0 and BigTIFF by number: size in bytes and code of `struct` (rationals are read as two).
_KINDS = {
    1: (1, "B"), 2: (1, "s"), 3: (2, "H"), 4: (4, "I"), 5: (8, "II"), 6: (1, "b"), 7: (1, "s"), 8: (2, "h"),
    9: (4, "i"), 10: (8, "ii"), 11: (4, "f"), 12: (8, "d"), 13: (4, "I"), 16: (8, "Q"), 17: (8, "q"), 18: (8, "Q"),
}  # fmt: skip


class Broken(ValueError):
    """The structure ends early or contradicts itself; the text says where."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One field of a directory: its type, how many values, and where (offset) they lie."""

    kind: int
    count: int
    offset: int

    @property
    def size(self) -> int:
        """Length of the values in bytes; 0 for types that nobody knows."""
        return _KINDS[self.kind][0] * self.count if self.kind in _KINDS else 0


@dataclass(frozen=True, slots=True)
class Reader:
    """A TIFF structure that can be read: bytes, byte order (`<` or `>`), whether it is BigTIFF, its first directory."""

    read: Read
    order: str
    big: bool
    first: int

    def exactly(self, offset: int, count: int) -> bytes:
        """Return `count` bytes at `offset`; raises Broken where the file ends before."""
        data = self.read(offset, count) if offset >= 0 else b""
        if len(data) < count:
            raise Broken(f"bytes {offset} to {offset + count} lie beyond the end")
        return data

    def directory(self, offset: int) -> tuple[dict[int, Entry], int | None]:
        """Return the fields of the directory at `offset` by tag, and the offset of the next one.

        0 says that it is the last; None that the data ends before that is said, as some cameras' EXIF blocks do.
        """
        count_code, entry_size, inline = ("Q", 20, 8) if self.big else ("H", 12, 4)
        head = struct.calcsize(f"={count_code}")
        (count,) = struct.unpack(self.order + count_code, self.exactly(offset, head))
        if count > 65535:
            raise Broken(f"the directory at byte {offset} states {count} fields")
        body = self.exactly(offset + head, count * entry_size)
        code = f"{self.order}HH{'Q' if self.big else 'I'}"
        entries: dict[int, Entry] = {}
        for at in range(0, count * entry_size, entry_size):
            tag, kind, values = struct.unpack_from(code, body, at)
            place = offset + head + at + entry_size - inline
            entry = Entry(kind, values, place)
            if entry.size > inline:
                entry = Entry(kind, values, self._pointer(body, at + entry_size - inline))
            entries.setdefault(tag, entry)
        following = self.read(offset + head + count * entry_size, inline)
        return entries, self._pointer(following, 0) if len(following) == inline else None

    def numbers(self, entry: Entry | None) -> tuple[float, ...]:
        """Return the values of a field as numbers, none if there is no such field; a rational over zero is NaN."""
        if entry is None or entry.kind not in _KINDS or _KINDS[entry.kind][1] == "s" or not entry.count:
            return ()
        if entry.size > _MAX_VALUE_BYTES:
            raise Broken(f"a field states {entry.count} values")
        code = _KINDS[entry.kind][1]
        data = self.exactly(entry.offset, entry.size)
        flat = struct.unpack(f"{self.order}{entry.count * len(code)}{code[0]}", data)
        if len(code) == 1:
            return flat
        return tuple(above / below if below else math.nan for above, below in zip(flat[::2], flat[1::2], strict=True))

    def text(self, entry: Entry | None) -> str:
        """Return the value of a text field without padding and unprintable characters; at most 200 bytes are read."""
        if entry is None or entry.kind not in {2, 7}:
            return ""
        data = self.exactly(entry.offset, min(entry.count, 200)).partition(b"\0")[0]
        return "".join(char for char in data.decode("utf-8", errors="replace") if char.isprintable()).strip()

    def _pointer(self, data: bytes, at: int) -> int:
        (offset,) = struct.unpack_from(self.order + ("Q" if self.big else "I"), data, at)
        return int(offset)


def open_tiff(read: Read) -> Reader | None:
    """Return a reader if the bytes begin like a TIFF, else None."""
    head = read(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return None
    (version,) = struct.unpack_from(f"{order}H", head, 2)
    if version == 42:
        return Reader(read, order, big=False, first=struct.unpack_from(f"{order}I", head, 4)[0])
    if version == 43 and len(head) == 16:
        return Reader(read, order, big=True, first=struct.unpack_from(f"{order}Q", head, 8)[0])
    return None


def check_complete(tiff: Reader, size: int) -> tuple[int, int]:
    """Walk every directory and return width and height of the largest image; raises Broken where data is missing.

    `size` is the file's length in bytes.
    """
    pending, seen, largest, pictures = [tiff.first], set[int](), (0, 0), 0
    while pending and len(seen) < _MAX_DIRECTORIES:
        offset = pending.pop()
        if offset == 0 or offset in seen:
            continue
        seen.add(offset)
        entries, following = tiff.directory(offset)
        if following is None:
            raise Broken(f"the directory at byte {offset} has no end")
        pending.append(following)
        for tag in (SUB_DIRECTORIES, EXIF_DIRECTORY, GPS_DIRECTORY):
            pending += [int(where) for where in tiff.numbers(entries.get(tag)) if math.isfinite(where)]
        _check_values(entries, size)
        pictures += _check_data(tiff, entries, size)
        dimensions = (_first(tiff, entries, WIDTH), _first(tiff, entries, HEIGHT))
        largest = max(largest, dimensions, key=lambda pair: pair[0] * pair[1])
    if not pictures:
        raise Broken("no image data is in it")
    return largest


def _check_values(entries: dict[int, Entry], size: int) -> None:
    for tag, entry in entries.items():
        if entry.offset + entry.size > size:
            raise Broken(f"the values of field {tag} lie beyond the end")


def _check_data(tiff: Reader, entries: dict[int, Entry], size: int) -> int:
    """Check that the pixels of one directory lie within the file; return how many pieces there are."""
    pieces = 0
    for offsets_tag, counts_tag in (
        (STRIP_OFFSETS, STRIP_COUNTS),
        (TILE_OFFSETS, TILE_COUNTS),
        (JPEG_OFFSET, JPEG_COUNT),
    ):
        offsets = tiff.numbers(entries.get(offsets_tag))
        counts = tiff.numbers(entries.get(counts_tag)) or (1.0,) * len(offsets)
        pieces += len(offsets)
        if any(offset + count > size for offset, count in zip(offsets, counts, strict=False)):
            raise Broken("its pixels lie beyond the end")
    return pieces


def _first(tiff: Reader, entries: dict[int, Entry], tag: int) -> int:
    values = tiff.numbers(entries.get(tag))
    return int(values[0]) if values and math.isfinite(values[0]) else 0
