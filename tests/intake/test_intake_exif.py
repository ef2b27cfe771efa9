"""Facts and damage of images, read from their structure."""

import io
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from intake_kit import dms, facts, jpeg, plain_tiff, tiff
from PIL import Image

from pix4d_watcher.intake.freeze import freeze_image


def gps_jpeg(gps, **tags):
    """Make a JPEG whose GPS directory holds just these fields."""
    exif = Image.Exif()
    exif.get_ifd(34853).update(gps)
    for tag, value in tags.items():
        exif[int(tag[1:])] = value
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def raw_jpeg(kind, count, latitude):
    """Make a JPEG with the latitude as raw bytes of a field type, which no writer would produce itself."""
    longitude = struct.pack("<IIIIII", 6, 1, 30, 1, 0, 1)
    ifd0 = struct.pack("<HHHIII", 1, 34853, 4, 1, 26, 0)
    data = 26 + 2 + 2 * 12 + 4
    gps = struct.pack("<HHHIIHHIII", 2, 2, kind, count, data, 4, 5, 3, data + len(latitude), 0)
    content = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + ifd0 + gps + latitude + longitude
    plain = jpeg(None)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + plain[2:]


def rational_jpeg(*pairs):
    """Make a JPEG with the latitude given as numerators and denominators."""
    return raw_jpeg(5, len(pairs), b"".join(struct.pack("<II", *pair) for pair in pairs))


@pytest.mark.parametrize("latitude", [46.842607, -33.5])
@pytest.mark.parametrize("longitude", [6.123456, -91.994559])
def test_facts_of_a_sound_jpeg(latitude, longitude):
    """Size, position in all four quarters of the globe, time and camera of a sound image."""
    known = facts(jpeg(latitude, longitude, size=(640, 480)))
    assert (known.format, known.width, known.height, known.problem) == ("jpeg", 640, 480, "")
    assert known.latitude == pytest.approx(latitude, abs=1e-6)
    assert known.longitude == pytest.approx(longitude, abs=1e-6)
    assert (known.camera, known.taken_at) == ("DJI FC6310R", "2026-05-04T10:30:00")
    assert known.megapixels == pytest.approx(0.3072)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"restart_marker_blocks": 2}])
def test_kinds_of_jpeg_are_sound(options):
    """Baseline, progressive and restart-marked images are accepted."""
    assert facts(jpeg(colour=None, **options)).problem == ""


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"big_tiff": True}])
def test_kinds_of_tiff_are_sound(options):
    """Plain, compressed and BigTIFF images are accepted, with their position."""
    known = facts(tiff(**options), b"a.TIF")
    assert (known.format, known.width, known.height, known.problem, known.detail) == ("tiff", 40, 30, "", "")
    if "compression" not in options:
        assert known.latitude == pytest.approx(46.5)
        assert (known.camera, known.taken_at) == ("DJI FC6310R", "2026-05-04T10:30:00")


def test_many_pages():
    """All pages count, and the size is that of the largest one."""
    out = io.BytesIO()
    pages = [Image.new("L", (300, 200)), Image.new("L", (30, 20))]
    pages[1].save(out, "TIFF", save_all=True, append_images=pages[:1])
    known = facts(out.getvalue(), b"a.tif")
    assert (known.width, known.height, known.problem) == (300, 200, "")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("before", [False, True])
def test_tiff_cut_anywhere_is_truncated(order, big, before):
    """A TIFF of either byte order, classic or big, is sound whole and damaged cut at any byte."""
    data = plain_tiff(order, big=big, before=before)
    assert (facts(data, b"a.tif").width, facts(data, b"a.tif").problem) == (8, "")
    for length in range(1, len(data)):
        assert facts(data[:length], b"a.tif").problem == "truncated", length


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_written_tiff_cut_is_truncated(options):
    """The same for what a real writer makes, with EXIF and GPS directories of their own."""
    data = tiff(**options)
    for length in range(1, len(data), 7):
        assert facts(data[:length], b"a.tif").problem == "truncated", length


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_cut_anywhere_is_truncated(progressive):
    """A JPEG cut at any byte is damaged, although a thumbnail with an end marker of its own lies in its header."""
    plain = jpeg(colour=None, progressive=progressive)
    thumbnail = jpeg(None, size=(16, 16))
    data = plain[:2] + b"\xff\xe4" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + plain[2:]
    assert facts(data).problem == ""
    for length in range(1, len(data)):
        assert facts(data[:length]).problem == "truncated", length


def test_what_follows_the_image_does_not_matter():
    """Zero padding and a second JPEG behind the image are tolerated, whole or cut; the image itself still counts."""
    main, preview = jpeg(colour=None), jpeg(size=(16, 16))
    for tail in (b"\0" * 5000, b"\0" * 600_000, preview, preview[:300], b"\0" * 9 + preview + b"\0" * 9, b"DJI debug"):
        assert facts(main + tail).problem == ""
        assert facts(main[:-2] + b"\0" * 300_000).problem == "truncated"
    # An end marker that lies across two of the pieces in which the file is searched.
    for length in range((256 << 10) - 3, (256 << 10) + 3):
        assert facts(main + b"\1" * length).problem == ""


def test_preallocated_file_is_not_sound():
    """A copy that got its full size and only a part of its content, or none, is damaged."""
    data = jpeg(size=(400, 300), colour=None)
    for kept in (3, 100, 500, len(data) // 2, len(data) - 2):
        assert facts(data[:kept] + bytes(len(data) - kept)).problem == "truncated"
    empty = facts(bytes(len(data)))
    assert empty.problem == "wrong_format"
    assert "never finished" in empty.detail


def test_empty_file():
    """An empty file is its own kind of damage."""
    assert facts(b"").problem == "zero_bytes"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        (b"a.jpg", b"Dear pilot,\r\nno image here", "text"),
        (b"a.jpg", b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG"),
        (b"a.JPEG", plain_tiff(), "TIFF"),
        (b"a.tif", jpeg(), "JPEG"),
        (b"a.TIFF", b"GIF89a" + bytes(99), "GIF"),
        (b"a.jpg", b"\0\0\0\x18ftypheic" + bytes(99), "HEIC"),
        (b"a.jpg", b"\x01\x02\x03\x04\x05" * 20, "neither"),
    ],
)
def test_content_that_is_not_what_the_suffix_says(name, content, what):
    """A wrong format is named, so that a person knows what was dropped."""
    known = facts(content, name)
    assert known.problem == "wrong_format"
    assert what in known.detail


def test_image_without_position():
    """An image without a geotag is sound, and has no position."""
    known = facts(jpeg(None))
    assert (known.latitude, known.longitude, known.problem) == (None, None, "")


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: dms(46.5)},
        {1: "N", 2: dms(91.0), 3: "E", 4: dms(6.5)},
        {1: "N", 2: dms(46.5), 3: "E", 4: dms(180.5)},
    ],
)
def test_unusable_positions_are_none(gps):
    """Half a position and one outside the globe are no position."""
    known = facts(gps_jpeg(gps))
    assert (known.latitude, known.longitude, known.problem) == (None, None, "")


def test_positions_that_are_no_numbers():
    """NaN, infinity and text are no position."""
    for value in (float("nan"), float("inf"), 1e308):
        assert facts(raw_jpeg(12, 3, struct.pack("<ddd", value, 0, 0))).latitude is None
    assert facts(raw_jpeg(12, 3, struct.pack("<ddd", 46.5, 0, 0))).latitude == pytest.approx(46.5)
    assert facts(raw_jpeg(2, 8, b"46.5000\0")).latitude is None


def test_positions_in_unusual_forms():
    """Plain floats, degrees alone, missing references and lower-case ones are understood."""
    assert facts(gps_jpeg({2: (46.5, 0.0, 0.0), 4: (6.25, 0.0, 0.0)})).latitude == pytest.approx(46.5)
    assert facts(gps_jpeg({1: "s", 2: dms(46.5), 3: "w", 4: dms(6.5)})).longitude == pytest.approx(-6.5)


def test_zero_denominators_are_harmless():
    """0/0 minutes and seconds are cameras that do not use them; 0/0 degrees is a camera without a fix."""
    assert facts(rational_jpeg((46, 1), (30, 1), (0, 0))).latitude == pytest.approx(46.5)
    assert facts(rational_jpeg((465, 10), (0, 0), (0, 0))).latitude == pytest.approx(46.5)
    assert facts(rational_jpeg((0, 0), (0, 0), (0, 0))).latitude is None
    assert facts(rational_jpeg((46, 0), (0, 1), (0, 1))).latitude is None


def test_zero_position_is_a_fact():
    """(0, 0) is read as it stands; the checks judge it."""
    assert (facts(jpeg(0.0, 0.0)).latitude, facts(jpeg(0.0, 0.0)).longitude) == (0.0, 0.0)


@pytest.mark.parametrize("time", ["0000:00:00 00:00:00", "yesterday", "2026:13:40 10:00:00", ""])
def test_broken_time_is_no_time(time):
    """A camera with an unset clock has no time, and nothing is raised."""
    out = io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(34665)[36867] = time
    Image.new("RGB", (16, 16)).save(out, "JPEG", exif=exif)
    assert facts(out.getvalue()).taken_at == ""


def test_model_that_repeats_the_make():
    """Cameras that write their make into the model are not named twice."""
    assert facts(gps_jpeg({}, t271="Hasselblad\0\0", t272="Hasselblad L1D-20c")).camera == "Hasselblad L1D-20c"
    assert facts(gps_jpeg({}, t272="FC7303")).camera == "FC7303"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=12), st.booleans())
def test_broken_exif_is_never_an_error(at, noise, in_tiff):
    """Whatever bytes are overwritten in the headers, reading the facts ends without an exception."""
    data = _TIFF if in_tiff else _JPEG
    at %= min(len(data), 700)
    facts(data[:at] + noise + data[at + len(noise) :], b"a.tif" if in_tiff else b"a.jpg")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b""]))
def test_random_bytes_are_never_an_error(noise, start):
    """Any bytes under any name give facts or a problem."""
    for name in (b"a.jpg", b"a.tif"):
        facts(start + noise, name)


def test_hostile_counts_cost_nothing():
    """A directory that loops, and fields that claim gigabytes, are refused at once."""
    loop = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 330, 4, 1, 8) + struct.pack("<I", 8)
    assert facts(loop, b"a.tif").problem == "truncated"
    greedy = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 273, 4, 0xFFFFFFFF, 8) + struct.pack("<I", 0)
    assert facts(greedy, b"a.tif").problem == "truncated"
    endless = b"\xff\xd8" + b"\xff\xe0\0\x02" * 100_000
    assert facts(endless).problem == "truncated"


def test_real_flight_is_sound(pytestconfig):
    """The images of a real DJI flight are all sound and geotagged."""
    place = pytestconfig.machine.get("PIX4D_SAMPLE_IMAGES")  # the tests' own environment is cleaned
    if not place or not Path(place).is_dir():
        pytest.skip("PIX4D_SAMPLE_IMAGES names no directory with real images")
    images = [
        freeze_image(os.fsencode(place), os.fsencode(path.name), blocks_above=1 << 60)
        for path in sorted(Path(place).iterdir())
    ]
    assert images
    assert all(image.facts.problem == "" and image.facts.latitude and image.facts.taken_at for image in images)


_JPEG, _TIFF = jpeg(), tiff()
