"""Reads JPEG structure: the walk from marker to marker up to the scan: size, EXIF, XMP, thermal data, end marker.

Decodes no pixel; `broken_scan` looks for what no encoder writes into the compressed data. What follows the end of the
main image (MPF previews, thermal data, zero padding) is nobody's concern here: DJI appends all of these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pix4d_watcher.intake.tiff import Read

START = b"\xff\xd8"
END = b"\xff\xd9"

_TABLES_ONLY = frozenset({0xC4, 0xC8, 0xCC})  # DHT, JPG and DAC share the numbers of the frame headers
_FRAMES = frozenset(range(0xC0, 0xD0)) - _TABLES_ONLY
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RSTn, SOI: markers without a length
_SCAN, _FINISH, _HUFFMAN, _APP1, _APP3 = 0xDA, 0xD9, 0xC4, 0xE1, 0xE3
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_TABLES = frozenset({0xC4, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE})  # what may stand between two scans

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_FLIR = b"FLIR\0"
_NOT_RAW = (b"_JPSJPS_", b"Meta", b"META", b"Stim")  # the other known uses of APP3 (ExifTool's list)

# A thermal R-JPEG carries about twenty segments of 64 KiB before its scan; a file with more than this is hostile.
_MAX_SEGMENTS = 20_000
_CHUNK = 256 << 10

# A progressive image of a camera has about ten scans; thousands are made to keep a decoder busy.
_MAX_SCANS = 100

# Lost blocks of a disk or card are zero bytes, 4 KiB and more mostly. An encoder writes as many in a row only for flat
# areas, and only with tables in which nothing but zero bits means "no detail here"; see `_is_busy`.
_HOLE = bytes(1024)

# Anything but stuffed zeros, fill bytes and restart markers.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


@dataclass(frozen=True, slots=True)
class Jpeg:
    """What the walk found: size in pixels, EXIF block (TIFF structure, may be empty), XMP, and what is missing, if any.

    `flir` and `raw` tell of segments with thermal data: FLIR's own, and the unnamed APP3 in which DJI keeps it.
    `busy` says that zero bits in the compressed data always mean detail, so that no flat area is a row of zero bytes.
    `scan` is where the compressed data begins, 0 where there is none.
    """

    width: int = 0
    height: int = 0
    exif: bytes = b""
    xmp: bytes = b""
    flir: bool = False
    raw: bool = False
    progressive: bool = False
    busy: bool = False
    scan: int = 0
    missing: str = ""


def walk(read: Read, size: int) -> Jpeg:
    """Walk a JPEG of `size` bytes from its start marker to the end of its main image."""
    at, found = 2, Jpeg()
    for _ in range(_MAX_SEGMENTS):
        marker, at = _next_marker(read, at)
        if marker in _BARE:
            continue
        head = read(at, 2 + len(_XMP))
        if marker in {-1, _FINISH} or len(head) < 2 or (length := int.from_bytes(head[:2], "big")) < 2:
            break
        if at + length > size:
            return replace(found, missing=f"it ends within its headers, at byte {size}")
        found = _with_segment(found, marker, head[:length], partial(_rest, read, at, length))
        at += length
        if marker == _SCAN:
            missing = "" if _has_end(read, size, at) else f"it has no end marker, the data stops at byte {size}"
            return replace(found, scan=at, missing=missing)
    return replace(found, missing=f"its structure breaks at byte {at}")


def _rest(read: Read, at: int, length: int, skip: int) -> bytes:
    return read(at + skip, length - skip)


def _with_segment(found: Jpeg, marker: int, head: bytes, rest: Callable[[int], bytes]) -> Jpeg:
    """Add what one segment tells; `rest` reads the segment, without so many of its first bytes."""
    if marker in _FRAMES and len(head) >= 7:
        height, width = int.from_bytes(head[3:5], "big"), int.from_bytes(head[5:7], "big")
        return replace(found, width=width, height=height, progressive=marker in _PROGRESSIVE)
    if marker == _HUFFMAN:
        return replace(found, busy=found.busy or _is_busy(rest(2)))
    if marker == _APP1:
        return _with_app1(found, head[2:], rest)
    if marker == _APP3 and len(head) > 2 and not head[2:].startswith(_NOT_RAW):
        return replace(found, raw=True)
    return found


def _with_app1(found: Jpeg, name: bytes, rest: Callable[[int], bytes]) -> Jpeg:
    """Add what an APP1 segment holds: EXIF, XMP (of each the first), or FLIR's data."""
    if name.startswith(b"Exif") and not found.exif:
        return replace(found, exif=rest(8))
    if name == _XMP and not found.xmp:
        return replace(found, xmp=rest(2 + len(_XMP)))
    return replace(found, flir=True) if name.startswith(_FLIR) else found


def _is_busy(tables: bytes) -> bool:
    """Say whether one of the Huffman tables for detail (AC) gives its all-zero code to another symbol than "no more".

    The first symbol that a table lists has the code of nothing but zeros.
    """
    while len(tables) > 17:
        if tables[0] >> 4 == 1 and tables[17] != 0:
            return True
        tables = tables[17 + sum(tables[1:17]) :]
    return False


def broken_scan(read: Read, size: int, found: Jpeg) -> str:
    """Say what in the compressed data of a JPEG no encoder writes, empty if nothing is found.

    A decoder invents something for lost blocks and says nothing; stray markers and holes of zero bytes give them away.
    """
    at, scans = found.scan, 1
    while at < size and scans <= _MAX_SCANS:
        data = read(at, _CHUNK)
        hit = _MARKER.search(data)
        hole = data.find(_HOLE, 0, hit.start() if hit else len(data)) if found.busy and not found.progressive else -1
        if hole >= 0:
            return f"a part of it is filled with zero bytes, from byte {at + hole}"
        if hit is None:
            # What may continue in the next chunk is looked at again.
            at += max(1, len(data) - len(_HOLE))
            continue
        marker, behind = hit[1][0], at + hit.end()
        if marker == _FINISH:
            return ""
        if marker not in _TABLES and marker != _SCAN:
            return f"its data breaks at byte {behind - 2}"
        scans += marker == _SCAN
        at = behind + max(2, int.from_bytes(read(behind, 2), "big"))
    return f"it has more than {_MAX_SCANS} scans, which no camera writes" if scans > _MAX_SCANS else ""


def _next_marker(read: Read, at: int) -> tuple[int, int]:
    """Return the marker at `at` (-1: there is none) and where its content begins; fill bytes are stepped over."""
    code = read(at, 2)
    while code == b"\xff\xff":
        at += 1
        code = read(at, 2)
    if len(code) < 2 or code[0] != 0xFF or code[1] == 0:
        return -1, at
    return code[1], at + 2


def _has_end(read: Read, size: int, scan: int) -> bool:
    """Whether an end marker stands behind `scan`, where the compressed data begins.

    Compressed data never holds FF D9 (each FF is followed by 00 or a restart marker), so any one behind the scan's
    start proves that the main image came through. Searched from the end: mostly the last two bytes.
    """
    if read(max(size - 2, scan), 2) == END:
        return True
    end = size
    while end - scan >= 2:
        start = max(scan, end - _CHUNK)
        if END in read(start, end - start):
            return True
        end = start + 1 if start > scan else scan  # a marker may lie across two chunks
    return False
