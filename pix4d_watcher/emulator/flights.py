"""Synthetic flights: geotagged JPEGs as a DJI drone writes them, made on the spot.

Owns sample images for the demo, the load of the emulator and the tests; the same seed makes the same bytes (with the
same Pillow). Must not import anything of the rest of the program; Pillow is imported on first use.
"""

from __future__ import annotations

import datetime as dt
import functools
import io
import math
import random
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

CARD_SUBFOLDERS = ("DCIM/100MEDIA", "DCIM/101MEDIA")  # how a camera splits a flight over directories of its card
MAKE = "DJI"
MODEL = "FC6310"  # the camera of a Phantom 4 Pro
TAKE_OFF = dt.datetime(2024, 5, 17, 10, 0, 0)  # noqa: DTZ001  EXIF knows the camera's clock, without a zone
HOME = (46.5191, 6.5668)  # degrees WGS84; any place on land does
SECONDS_BETWEEN_IMAGES = 2

_LINE = 10  # images per flight line of the lawn-mower pattern
_STEP_DEGREES = 0.0002  # about 20 m northwards
_TINY_LINE = 200  # tiny images per flight line: 50,000 of them cover about 5 by 3 km
_PATCH = 64  # pixels; the square of noise of its own that each image carries
_DEN = 10_000  # denominator of GPS seconds: 0.0001" is 3 mm

# EXIF tag numbers (EXIF 2.3, tables 4 and 15).
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_MAKE, _MODEL, _DATE_TIME, _ORIGINAL = 0x010F, 0x0110, 0x0132, 0x9003


def flight_position(index: int) -> tuple[float, float]:
    """Place image number `index` (from 0) on a lawn-mower pattern: latitude and longitude in degrees."""
    line, step = divmod(index, _LINE)
    along = step if line % 2 == 0 else _LINE - 1 - step
    return HOME[0] + along * _STEP_DEGREES, HOME[1] + line * _STEP_DEGREES


def make_image(
    index: int,
    *,
    size: tuple[int, int] = (1000, 750),
    geotag: bool = True,
    position: tuple[float, float] | None = None,
    when: dt.datetime | None = None,
    model: str = MODEL,
    seed: int = 0,
) -> bytes:
    """Make one JPEG of `size` (width, height) pixels with EXIF; unlike every other index and seed.

    `position` (latitude, longitude in degrees) is the flight pattern's where it is not given, `when` two seconds after
    the image before.
    """
    from PIL import Image, ImageChops  # noqa: PLC0415  imported on first use

    width, height = size
    image = ImageChops.offset(_terrain(width, height, seed), index * 37 % width, index * 23 % height)
    side = min(_PATCH, width, height)
    own = random.Random(f"{seed}/{index}/image")
    image.paste(Image.frombytes("RGB", (side, side), own.randbytes(3 * side * side)), (0, 0))
    where = (position or flight_position(index)) if geotag else None
    exif = _exif(where, when or TAKE_OFF + dt.timedelta(seconds=SECONDS_BETWEEN_IMAGES * index), model)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80, exif=exif, comment=f"synthetic flight, seed {seed}, image {index}".encode())
    return out.getvalue()


@functools.lru_cache(maxsize=4)
def _terrain(width: int, height: int, seed: int) -> Image.Image:
    """Make the picture that all images of a flight vary: smooth noise, which compresses about as well as fields do."""
    from PIL import Image  # noqa: PLC0415  imported on first use

    small = (max(1, width // 4), max(1, height // 4))
    noise = random.Random(f"{seed}/terrain").randbytes(3 * small[0] * small[1])
    return Image.frombytes("RGB", small, noise).resize((width, height), Image.Resampling.BICUBIC)


def _exif(position: tuple[float, float] | None, when: dt.datetime, model: str) -> Image.Exif:
    from PIL import Image  # noqa: PLC0415  imported on first use

    moment = when.strftime("%Y:%m:%d %H:%M:%S")
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL], exif[_DATE_TIME] = MAKE, model, moment
    exif.get_ifd(_EXIF_IFD)[_ORIGINAL] = moment
    if position is not None:
        exif.get_ifd(_GPS_IFD).update(_gps(*position))
    return exif


def _gps(latitude: float, longitude: float) -> dict[int, object]:
    """Build the GPS block: references, rationals of degrees, minutes and seconds, a height of 100 m above the sea."""
    from PIL.TiffImagePlugin import IFDRational  # noqa: PLC0415  imported on first use

    return {
        0: b"\x02\x03\x00\x00",  # GPSVersionID
        1: "N" if latitude >= 0 else "S",
        2: tuple(IFDRational(*part) for part in _sexagesimal(latitude)),
        3: "E" if longitude >= 0 else "W",
        4: tuple(IFDRational(*part) for part in _sexagesimal(longitude)),
        5: b"\x00",  # above the sea
        6: IFDRational(100, 1),
    }


def _sexagesimal(degrees: float) -> tuple[tuple[int, int], ...]:
    """Split degrees into the three EXIF rationals of degrees, minutes and seconds, without their sign."""
    whole, rest = divmod(round(abs(degrees) * 3600 * _DEN), 3600 * _DEN)
    minutes, seconds = divmod(rest, 60 * _DEN)
    return ((whole, 1), (minutes, 1), (seconds, _DEN))


def make_flight(
    folder: Path,
    count: int,
    *,
    names: str = "DJI_{n:04d}.JPG",
    subfolders: tuple[str, ...] = (),
    size: tuple[int, int] = (1000, 750),
    geotag: bool = True,
    start: dt.datetime = TAKE_OFF,
    model: str = MODEL,
    seed: int = 0,
) -> list[Path]:
    """Write `count` images into a folder, which is made, and return their paths in the order of the flight.

    `{n}` in `names` counts from 1. With `subfolders` (see `CARD_SUBFOLDERS`) the flight is split evenly over them, and
    each counts from 1 again: equal names, different images.
    """
    paths: list[Path] = []
    places = [folder / subfolder for subfolder in subfolders] or [folder]
    share = max(1, math.ceil(count / len(places)))
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        place, n = places[index // share], index % share + 1
        when = start + dt.timedelta(seconds=SECONDS_BETWEEN_IMAGES * index)
        path = place / names.format(n=n)
        path.write_bytes(make_image(index, size=size, geotag=geotag, when=when, model=model, seed=seed))
        paths.append(path)
    return paths


def make_tiny_images(folder: Path, count: int, *, names: str = "DJI_{n:06d}.JPG", seed: int = 0) -> list[Path]:
    """Write `count` JPEGs of 16 x 12 pixels and about 1 kB, each with content and position of its own.

    For tens of thousands: one image is encoded, and its GPS rationals and its comment are patched in copies.
    """
    template, order, rationals, comment = _tiny_template()
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for index in range(count):
        line, step = divmod(index, _TINY_LINE)
        content = bytearray(template)
        struct.pack_into(">QQ", content, comment, index, seed & (2**64 - 1))
        parts = (
            *_sexagesimal(HOME[0] + line * _STEP_DEGREES),
            *_sexagesimal(HOME[1] + step * _STEP_DEGREES),
        )
        for place, part in zip(rationals, parts, strict=True):
            struct.pack_into(order, content, place, *part)
        path = folder / names.format(n=index + 1)
        path.write_bytes(content)
        paths.append(path)
    return paths


@functools.lru_cache(maxsize=1)
def _tiny_template() -> tuple[bytes, str, tuple[int, ...], int]:
    """Encode the image that tiny ones are copies of: bytes, format and places of its GPS rationals, its comment."""
    from PIL import Image  # noqa: PLC0415  imported on first use
    from PIL.TiffImagePlugin import IFDRational  # noqa: PLC0415  imported on first use

    # Whole numbers that occur nowhere else in the file: Pillow writes each as itself over 1.
    flags = [0x5A17C0D1 + 0x01010101 * number for number in range(6)]
    exif = _exif(HOME, TAKE_OFF, MODEL)
    gps = exif.get_ifd(_GPS_IFD)
    gps[2] = tuple(IFDRational(flag, 1) for flag in flags[:3])
    gps[4] = tuple(IFDRational(flag, 1) for flag in flags[3:])
    comment = b"\xa5\x5a" * 8
    out = io.BytesIO()
    Image.new("RGB", (16, 12), (96, 128, 64)).save(out, "JPEG", exif=exif, comment=comment)
    content = out.getvalue()
    order = "<II" if b"Exif\0\0II" in content else ">II"  # differs between versions of Pillow
    rationals = tuple(content.index(struct.pack(order, flag, 1)) for flag in flags)
    return content, order, rationals, content.index(comment)


def truncate_image(path: Path, keep: float = 0.6) -> None:
    """Cut an image off, as a pulled card does: the first part (`keep`, 0 to 1) of its bytes remains."""
    with path.open("r+b") as stream:
        stream.truncate(int(path.stat().st_size * keep))


def make_empty_image(path: Path) -> None:
    """Write a file of zero bytes, as a full card leaves it."""
    path.write_bytes(b"")


def make_text_image(path: Path) -> None:
    """Write text under the name of an image."""
    path.write_text("This is no image, whatever its name says.\n" * 20, encoding="utf-8")


def make_image_without_geotag(
    path: Path, index: int = 0, *, size: tuple[int, int] = (1000, 750), seed: int = 0
) -> None:
    """Write an image whose camera had no fix: sound, with time and camera, without a position."""
    path.write_bytes(make_image(index, size=size, geotag=False, seed=seed))


def make_thermal_image(index: int, *, model: str = "M3T", seed: int = 0) -> bytes:
    """Make a thermal image as DJI writes it (R-JPEG): a JPEG that carries its temperatures in segments APP3."""
    plain = make_image(index, size=(640, 512), model=model, seed=seed)
    raw = random.Random(f"{seed}/{index}/thermal").randbytes(60_000)
    segments = b"".join(b"\xff\xe3" + (2 + len(part)).to_bytes(2, "big") + part for part in (raw, raw[::-1]))
    return plain[:2] + segments + plain[2:]


def make_band(index: int, band: str, *, model: str = "M3M", size: tuple[int, int] = (160, 120), seed: int = 0) -> bytes:
    """Make one multispectral band as DJI writes it: a TIFF of 16 bits that names its `band` (Green, NIR) in its XMP."""
    from PIL import Image  # noqa: PLC0415  imported on first use

    width, height = size
    noise = random.Random(f"{seed}/{index}/{band}").randbytes(2 * width * height)
    exif = _exif(flight_position(index), TAKE_OFF + dt.timedelta(seconds=SECONDS_BETWEEN_IMAGES * index), model)
    exif[700] = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:Camera="http://pix4d.com/camera/1.0"><Camera:BandName><rdf:Seq><rdf:li>'
        + band.encode()
        + b"</rdf:li></rdf:Seq></Camera:BandName></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    out = io.BytesIO()
    Image.frombytes("I;16", size, noise).save(out, "TIFF", exif=exif.tobytes())
    return out.getvalue()
