"""What an image is, from its structure: format, size, position, camera, time, kind, and whether it is damaged.

Decodes nothing and never raises for what a file contains: broken EXIF means fewer facts, broken structure is the
fact `problem`. The caller passes in how bytes are read.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from pix4d_watcher.core.model import ImageFacts
from pix4d_watcher.intake import jpeg, kinds, tiff

if TYPE_CHECKING:
    from pix4d_watcher.intake.tiff import Read

ZERO_BYTES, WRONG_FORMAT, TRUNCATED = "zero_bytes", "wrong_format", "truncated"

_MAKE, _MODEL, _TAKEN_AT = 271, 272, 36867
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHERS = (
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"RIFF", "a WebP image or an AVI film"),
)


def read_facts(name: bytes, size: int, read: Read) -> ImageFacts:
    """Return the facts of an image of `size` bytes; its suffix (in `name`) says which format it claims."""
    if size == 0:
        return ImageFacts(problem=ZERO_BYTES, detail="the file is empty")
    head = read(0, 64)
    claims_tiff = name.lower().endswith((b".tif", b".tiff"))
    if head.startswith(jpeg.START):
        return _wrong("a JPEG image") if claims_tiff else _jpeg_facts(name, read, size)
    if head.startswith(_TIFF_STARTS):
        return _tiff_facts(name, read, size) if claims_tiff else _wrong("a TIFF image")
    if size < 4 and any(start.startswith(head) for start in (jpeg.START, *_TIFF_STARTS)):
        return ImageFacts(problem=TRUNCATED, detail=f"it ends at byte {size}")
    return _wrong(_name_content(head))


def _wrong(what: str) -> ImageFacts:
    return ImageFacts(problem=WRONG_FORMAT, detail=f"it is {what}")


def _name_content(head: bytes) -> str:
    for start, what in _OTHERS:
        if head.startswith(start):
            return what
    if head[4:8] == b"ftyp":
        return "a HEIC image or an MP4 film"
    if not head.strip(b"\0"):
        return "filled with zero bytes, most likely by a copy that was never finished"
    if all(byte in b"\t\r\n" or byte >= 32 for byte in head):
        return "text"
    return "neither JPEG nor TIFF"


def _jpeg_facts(name: bytes, read: Read, size: int) -> ImageFacts:
    found = jpeg.walk(read, size)
    block = found.exif
    reader = tiff.open_tiff(lambda offset, count: block[offset : offset + count])
    facts = _facts("jpeg", (found.width, found.height), reader, found.missing)
    thermal = found.flir or (found.raw and facts.camera.startswith("DJI"))
    return replace(facts, kind=kinds.kind_of(name, found.xmp, thermal_data=thermal))


def _tiff_facts(name: bytes, read: Read, size: int) -> ImageFacts:
    reader = tiff.open_tiff(read)
    dimensions, missing, xmp = (0, 0), "", b""
    if reader is None:
        missing = f"it ends within its header, at byte {size}"
    else:
        try:
            dimensions = tiff.check_complete(reader, size)
        except tiff.Broken as broken:
            missing = f"{broken} (the file has {size} bytes)"
        xmp = _xmp(reader)
    return replace(_facts("tiff", dimensions, reader, missing), kind=kinds.kind_of(name, xmp))


def _facts(form: str, dimensions: tuple[int, int], reader: tiff.Reader | None, missing: str) -> ImageFacts:
    camera = taken_at = ""
    latitude = longitude = None
    if reader is not None:
        main = _directory(reader, reader.first)
        camera = _camera(reader, main)
        taken_at = _taken_at(reader, _below(reader, main, tiff.EXIF_DIRECTORY))
        latitude, longitude = _position(reader, _below(reader, main, tiff.GPS_DIRECTORY))
    return ImageFacts(
        format=form,
        width=dimensions[0],
        height=dimensions[1],
        latitude=latitude,
        longitude=longitude,
        taken_at=taken_at,
        camera=camera,
        problem=TRUNCATED if missing else "",
        detail=missing,
    )


def _xmp(reader: tiff.Reader) -> bytes:
    entry = _directory(reader, reader.first).get(tiff.XMP)
    try:
        return b"" if entry is None else reader.exactly(entry.offset, min(entry.size, kinds.MOST_XMP))
    except tiff.Broken:
        return b""


def _directory(reader: tiff.Reader, offset: int) -> dict[int, tiff.Entry]:
    try:
        return reader.directory(offset)[0]
    except tiff.Broken:
        return {}


def _below(reader: tiff.Reader, main: dict[int, tiff.Entry], tag: int) -> dict[int, tiff.Entry]:
    offsets = _numbers(reader, main.get(tag))
    return _directory(reader, int(offsets[0])) if offsets and math.isfinite(offsets[0]) else {}


def _numbers(reader: tiff.Reader, entry: tiff.Entry | None) -> tuple[float, ...]:
    try:
        return reader.numbers(entry)
    except tiff.Broken:
        return ()


def _text(reader: tiff.Reader, entry: tiff.Entry | None) -> str:
    try:
        return reader.text(entry)
    except tiff.Broken:
        return ""


def _camera(reader: tiff.Reader, main: dict[int, tiff.Entry]) -> str:
    make, model = _text(reader, main.get(_MAKE)), _text(reader, main.get(_MODEL))
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()


def _taken_at(reader: tiff.Reader, exif: dict[int, tiff.Entry]) -> str:
    text = _text(reader, exif.get(_TAKEN_AT))
    try:
        # The camera's own clock: EXIF keeps no zone here, and none is invented.
        return datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S").isoformat()  # noqa: DTZ007
    except ValueError:
        return ""


def _position(reader: tiff.Reader, gps: dict[int, tiff.Entry]) -> tuple[float | None, float | None]:
    """Return latitude and longitude in degrees, both None unless both are usable. Without a reference: north, east."""
    latitude = _degrees(_numbers(reader, gps.get(_LATITUDE)), 90.0)
    longitude = _degrees(_numbers(reader, gps.get(_LONGITUDE)), 180.0)
    if latitude is None or longitude is None:
        return None, None
    south = _text(reader, gps.get(_LATITUDE_REF)).upper().startswith("S")
    west = _text(reader, gps.get(_LONGITUDE_REF)).upper().startswith("W")
    return (-latitude if south else latitude), (-longitude if west else longitude)


def _degrees(values: tuple[float, ...], limit: float) -> float | None:
    """Join degrees, minutes and seconds; some cameras write 0/0 for minutes or seconds that they do not use."""
    if not values or not math.isfinite(values[0]):
        return None
    minutes, seconds = ([value if math.isfinite(value) else 0.0 for value in values[1:3]] + [0.0, 0.0])[:2]
    degrees = values[0] + minutes / 60 + seconds / 3600
    return degrees if abs(degrees) <= limit else None
