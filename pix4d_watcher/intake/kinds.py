"""Which images are no ordinary photos: thermal R-JPEGs and single multispectral bands, by name and by content.

Pure. Names and tags are those of DJI (Mavic 3T, 3M, Phantom 4 Multispectral, Zenmuse H20T, XT2), FLIR, MicaSense and
Parrot, as ExifTool documents them.
"""

from __future__ import annotations

import re

THERMAL, MULTISPECTRAL = "thermal", "multispectral"

MOST_XMP = 64 << 10
"""Bytes of an XMP packet that are looked at: a JPEG segment holds no more."""

_THERMAL_NAME = re.compile(rb"(?:dji_.*|.*\d)_t\.jpe?g", re.IGNORECASE | re.DOTALL)
_BAND_NAME = re.compile(rb".*_ms_(?:b|g|r|re|nir)\.tiff?", re.IGNORECASE | re.DOTALL)

_ITEM = re.compile(rb"<rdf:li[^>]{0,100}>([^<]{0,100})</rdf:li>")
# Searched in the packet as it is: a parser of hostile XML would have to be kept from expanding entities.
_VALUE = rb""":%b(?:\s{0,9}=\s{0,9}["']([^"']{0,100})["']|[^<>]{0,200}>(.{0,2000}?)</[\w-]{1,50}:%b>)"""
_SOURCE = re.compile(_VALUE % (b"ImageSource", b"ImageSource"), re.DOTALL)
_BAND = re.compile(_VALUE % (b"BandName", b"BandName"), re.DOTALL)


def kind_of(name: bytes, xmp: bytes, *, thermal_data: bool = False) -> str:
    """Return `thermal`, `multispectral`, or empty for an ordinary photo.

    `name` may hold directories; `xmp` is the image's packet, `thermal_data` says that it carries measured temperatures.
    """
    base = name.rpartition(b"/")[2]
    sources, bands = _values(_SOURCE, xmp), _values(_BAND, xmp)
    infrared = any(b"infrared" in source or b"thermal" in source for source in sources)
    if thermal_data or infrared or bands == [b"lwir"] or _THERMAL_NAME.fullmatch(base):
        return THERMAL
    # Photos in colour may name their three bands; a band on its own is one of several files of a shot.
    return MULTISPECTRAL if len(bands) == 1 or _BAND_NAME.fullmatch(base) else ""


def _values(pattern: re.Pattern[bytes], xmp: bytes) -> list[bytes]:
    """Return the value of a field in lower case, or the values of its list; empty where it is not there."""
    found = pattern.search(xmp[:MOST_XMP])
    if found is None:
        return []
    text = found[1] if found[1] is not None else found[2]
    return [value.strip().lower() for value in _ITEM.findall(text) or [text] if value.strip()]
