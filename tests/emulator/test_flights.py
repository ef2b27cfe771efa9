"""Synthetic flights: distinct, geotagged, sound and the same again."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest
from PIL import Image

from pix4d_watcher.emulator import flights

SMALL = (320, 240)


def gps_of(path) -> tuple[float, float] | None:
    """Read a position as any other program would: degrees, or None."""
    with Image.open(path) as image:
        gps = image.getexif().get_ifd(0x8825)
    if 2 not in gps:
        return None
    degrees = [float(d) + float(m) / 60 + float(s) / 3600 for d, m, s in (gps[2], gps[4])]
    return (-degrees[0] if gps[1] == "S" else degrees[0], -degrees[1] if gps[3] == "W" else degrees[1])


def digests(paths) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_every_image_of_a_flight_is_sound_distinct_and_geotagged(tmp_path):
    """Each image decodes fully, differs from all others, and has a place, time and camera of its own."""
    paths = flights.make_flight(tmp_path, 25, size=SMALL)
    assert [path.name for path in paths[:2]] == ["DJI_0001.JPG", "DJI_0002.JPG"]
    assert len(set(digests(paths))) == 25
    pixels, positions, moments = set(), set(), []
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", SMALL)
            pixels.add(hashlib.sha256(image.tobytes()).hexdigest())
            exif = image.getexif()
            assert (exif[0x010F], exif[0x0110]) == ("DJI", flights.MODEL)
            moments.append(exif.get_ifd(0x8769)[0x9003])
        positions.add(gps_of(path))
    assert len(pixels) == len(positions) == len(set(moments)) == 25
    assert moments == sorted(moments)
    assert moments[1] == "2024:05:17 10:00:02"


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others():
    """Bytes depend on index and seed alone."""
    assert flights.make_image(3, size=SMALL, seed=1) == flights.make_image(3, size=SMALL, seed=1)
    assert flights.make_image(3, size=SMALL, seed=1) != flights.make_image(3, size=SMALL, seed=2)


def test_default_images_have_the_size_of_real_previews():
    """A 1000 x 750 image has between 100 and 300 kB, so that load tests move real amounts."""
    assert 100_000 <= len(flights.make_image(0)) <= 300_000


def test_position_time_and_model_are_written_as_given(tmp_path):
    """A position south-west of zero comes back with its signs, within a millionth of a degree."""
    path = tmp_path / "one.jpg"
    when = dt.datetime(2025, 12, 31, 23, 59, 59)  # noqa: DTZ001  the camera's clock has no zone
    path.write_bytes(flights.make_image(0, size=SMALL, position=(-33.856784, -70.5), when=when, model="M3E"))
    assert gps_of(path) == pytest.approx((-33.856784, -70.5), abs=1e-6)
    with Image.open(path) as image:
        assert image.getexif()[0x0110] == "M3E"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2025:12:31 23:59:59"


def test_a_flight_over_subfolders_repeats_names_but_not_images(tmp_path):
    """A card's 100MEDIA and 101MEDIA hold equal names with different images."""
    paths = flights.make_flight(tmp_path, 5, subfolders=flights.CARD_SUBFOLDERS, size=SMALL)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "DCIM/100MEDIA/DJI_0001.JPG",
        "DCIM/100MEDIA/DJI_0002.JPG",
        "DCIM/100MEDIA/DJI_0003.JPG",
        "DCIM/101MEDIA/DJI_0001.JPG",
        "DCIM/101MEDIA/DJI_0002.JPG",
    ]
    assert len(set(digests(paths))) == 5


def test_tiny_images_are_sound_distinct_and_geotagged(tmp_path):
    """Patched copies of one image still decode, and differ in content and position."""
    paths = flights.make_tiny_images(tmp_path, 450)
    assert len(set(digests(paths))) == 450
    assert len({gps_of(path) for path in paths}) == 450
    assert gps_of(paths[0]) == pytest.approx(flights.HOME, abs=1e-6)
    with Image.open(paths[-1]) as image:
        image.load()
        assert image.getexif()[0x010F] == "DJI"
    again = flights.make_tiny_images(tmp_path / "again", 3)
    assert digests(again) == digests(paths[:3])
    other = flights.make_tiny_images(tmp_path / "other", 3, seed=7)
    assert not set(digests(other)) & set(digests(paths))


def test_spoilt_images_are_spoilt_as_named(tmp_path):
    """Truncated does not decode, empty is empty, text is no image, without a geotag is sound but has no place."""
    cut, empty, text, blind = (tmp_path / f"{name}.jpg" for name in ("cut", "empty", "text", "blind"))
    cut.write_bytes(flights.make_image(0, size=SMALL))
    flights.truncate_image(cut)
    with Image.open(cut) as image, pytest.raises(OSError, match="truncated"):
        image.load()
    flights.make_empty_image(empty)
    assert empty.stat().st_size == 0
    flights.make_text_image(text)
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(text)
    flights.make_image_without_geotag(blind, size=SMALL)
    assert gps_of(blind) is None
    with Image.open(blind) as image:
        image.load()
        assert image.getexif()[0x010F] == "DJI"
