"""Checks of what does not belong together: gaps, cameras, resolutions, missions, thermal images, single bands."""

import dataclasses
import datetime as dt
import io
import json
import time

import pytest
from intake_kit import facts, flight, frozen, jpeg
from PIL import Image

from pix4d_watcher.config import CHECK_NAMES
from pix4d_watcher.core.model import HoldCode, Level
from pix4d_watcher.emulator import flights
from pix4d_watcher.intake.checks import CHECKS, check_images, render_report, report_as_json
from pix4d_watcher.intake.kinds import kind_of
from pix4d_watcher.intake.mixture import leave_out
from pix4d_watcher.intake.names import matches

TAKE_OFF = dt.datetime(2024, 5, 17, 10, 0, 0)  # noqa: DTZ001  the camera's own clock
MIXTURES = {
    "sequence_gaps": lambda: named(["DJI_0001.JPG", "DJI_0003.JPG", *(f"DJI_{n:04d}.JPG" for n in range(4, 10))]),
    "mixed_cameras": lambda: [*photos(7, camera="DJI FC6310"), *photos(2, camera="SONY ILCE", first=8)],
    "mixed_resolutions": lambda: [*photos(7, width=4000, height=3000), *photos(2, width=640, height=480, first=8)],
    "several_missions": lambda: [*photos(6, minute=0), *photos(6, minute=90, first=7)],
    "thermal": lambda: [*photos(7), *photos(3, kind="thermal", names="DJI_{n:04d}_T.JPG", first=8)],
    "multispectral": lambda: [*photos(7), *photos(3, kind="multispectral", names="DJI_{n:04d}_MS_G.TIF", first=8)],
}


def named(names, **known):
    """Make records of sound images of these names, each in a place of its own."""
    images = [frozen(name.encode(), latitude=46 + n * 1e-4, longitude=6 + n * 1e-4) for n, name in enumerate(names)]
    return [dataclasses.replace(image, facts=dataclasses.replace(image.facts, **known)) for image in images]


def photos(count, *, first=1, names="DJI_{n:04d}.JPG", minute=None, **known):
    images = named([names.format(n=n) for n in range(first, first + count)], **known)
    if minute is None:
        return images
    start = TAKE_OFF + dt.timedelta(minutes=minute)
    times = [(start + dt.timedelta(seconds=2 * n)).isoformat() for n in range(count)]
    pairs = zip(images, times, strict=True)
    return [
        dataclasses.replace(image, facts=dataclasses.replace(image.facts, taken_at=moment)) for image, moment in pairs
    ]


def found(images, check, **levels):
    report = check_images(images, not_images=(), levels=levels)
    return next((finding for finding in report.findings if finding.check == check), None)


def gaps(*names):
    finding = found(named(names), "sequence_gaps")
    return finding and (finding.count, finding.text.partition(": ")[2].partition(". If")[0])


def test_settings_and_checks_name_the_same():
    """Every check that can be configured exists, and the other way round."""
    assert set(CHECK_NAMES) == set(CHECKS)
    assert all(CHECKS[name] is Level.WARN for name in (*MIXTURES, "sent_before"))


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture_has_three_levels(name):
    """It warns unless configured, holds as mixed_images with a way on, is silent when off; approval makes it warn."""
    images = MIXTURES[name]()
    finding = found(images, name)
    assert (finding.level, finding.hold) == (Level.WARN, None)
    held = found(images, name, **{name: Level.HOLD})
    assert (held.level, held.hold) == (Level.HOLD, HoldCode.MIXED_IMAGES)
    assert "approve FOLDER" in held.text
    assert found(images, name, **{name: Level.OFF}) is None
    accepted = check_images(images, not_images=(), levels={name: Level.HOLD}, accepted=["mixed_images"])
    assert accepted.holding == ()
    assert found(flight(9), name) is None


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture_has_its_line_in_the_report(name):
    """The level and the sentence stand in the text for people and in the JSON for programs."""
    report = check_images(MIXTURES[name](), not_images=(), levels={})
    assert f"\n[warn] {name}: " in render_report(report)
    (entry,) = [entry for entry in json.loads(json.dumps(report_as_json(report)))["findings"] if entry["check"] == name]
    assert (entry["level"], entry["hold"]) == ("warn", None)
    assert entry["count"] > 0


def test_gaps_are_named_by_number_and_directory():
    """Each directory counts for itself; single numbers and ranges are named."""
    assert gaps(*(f"DJI_{n:04d}.JPG" for n in range(1, 10))) is None
    assert gaps("DJI_0001.JPG", "DJI_0002.JPG", "DJI_0004.JPG", "DJI_0009.JPG") == (5, "0003, 0005 to 0008")
    two = [f"100MEDIA/DJI_{n:04d}.JPG" for n in (1, 2, 3)] + [f"101MEDIA/DJI_{n:04d}.JPG" for n in (1, 3)]
    assert gaps(*two) == (1, "0002 in 101MEDIA")
    assert gaps("IMG_0001.JPG", "IMG_0009.JPG", "DJI_77.JPG", "DJI_0001.JPG") is None


def test_counting_goes_on_at_one_behind_9999():
    """9999 is followed by 0001 without a gap, and a gap across it is counted."""
    assert gaps("DJI_9998.JPG", "DJI_9999.JPG", "DJI_0001.JPG", "DJI_0002.JPG") is None
    assert gaps("DJI_9997.JPG", "DJI_9998.JPG", "DJI_0002.JPG") == (2, "9999 to 0001")
    assert gaps("DJI_0000.JPG", "DJI_0001.JPG", "DJI_9999.JPG") is None


def test_gaps_of_drones_with_several_lenses():
    """Where a shot has several files, one that lacks any of them is missing; a zoomed photo now and then is none."""
    shots = [f"DJI_20240517100000_{n:04d}" for n in range(1, 8)]
    both = [f"{shot}_{variant}.JPG" for shot in shots for variant in "VT"]
    assert gaps(*both) is None
    assert gaps(*(name for name in both if name != f"{shots[3]}_V.JPG")) == (1, "0004")
    assert gaps(*(name for name in both if not name.startswith(shots[3]))) == (1, "0004")
    assert gaps(*(f"{shot}_W.JPG" for shot in shots), f"{shots[1]}_Z.JPG", f"{shots[5]}_Z.JPG") is None
    bands = [f"{shot}_{part}" for shot in shots for part in ("D.JPG", "MS_G.TIF", "MS_NIR.TIF")]
    assert gaps(*bands) is None
    assert gaps(*(name for name in bands if name != f"{shots[2]}_MS_NIR.TIF")) == (1, "0003")


def test_damaged_and_double_images_leave_no_gap():
    """What is on the card is no gap, even if it is not sent."""
    images = named([f"DJI_{n:04d}.JPG" for n in range(1, 10)])
    images[4] = frozen(images[4].path, problem="truncated")
    images[6] = dataclasses.replace(images[6], sha256=images[0].sha256)
    assert found(images, "sequence_gaps") is None


def test_a_hostile_sequence_costs_nothing():
    """Numbers far apart are counted, not listed."""
    start = time.thread_time()
    assert gaps(*(f"DJI_{n:06d}.JPG" for n in range(1, 10**6, 4999)))[0] > 900_000
    assert time.thread_time() - start < 5


def test_thermal_images_are_no_other_camera_or_resolution():
    """Only photos are compared: the second lens of a thermal drone has its own size by nature."""
    images = photos(6, camera="DJI M3T", width=4000, height=3000)
    thermal = {"kind": "thermal", "camera": "DJI M3T thermal", "width": 640, "height": 512}
    images += photos(6, names="DJI_{n:04d}_T.JPG", **thermal)
    report = check_images(images, not_images=(), levels={})
    assert [finding.check for finding in report.findings] == ["thermal"]


def test_turned_images_and_unknown_sizes_are_no_mixture():
    """Portrait and landscape are one resolution; an image without a size or camera is nobody's opposite."""
    images = [
        *photos(6, width=4000, height=3000, camera="A"),
        *photos(2, first=7, width=3000, height=4000, camera="A"),
        *photos(1, first=9, width=0, height=0, camera=""),
    ]
    assert found(images, "mixed_resolutions") is None
    assert found(images, "mixed_cameras") is None


@pytest.mark.parametrize(
    ("minutes", "second", "count"),
    [(90, 6, 2), (31, 6, 2), (29, 6, None), (90, 2, None), (90, 0, None)],
    ids=["two missions", "just", "a battery", "test shots", "one"],
)
def test_missions_are_parted_by_time(minutes, second, count):
    """More than half an hour without an image parts two missions; a short pause and a few test shots do not."""
    finding = found([*photos(6, minute=0), *photos(second, minute=minutes, first=7)], "several_missions")
    assert (finding is not None) == (count is not None)
    if finding:
        assert finding.text.startswith("2 missions by the camera's clock")
        assert finding.count == 6


def test_names_and_contents_tell_thermal_images():
    """DJI's name, FLIR's segment, DJI's raw data and the XMP's source tell an R-JPEG, each on its own."""
    plain = flights.make_image(0, size=(64, 48))
    assert facts(plain, b"DJI_0001_V.JPG").kind == ""
    assert facts(plain, b"100MEDIA/DJI_0001_T.JPG").kind == "thermal"
    assert facts(plain, b"DJI_20240517100000_0001_T.jpeg").kind == "thermal"
    assert facts(plain, b"GREAT_T.JPG").kind == ""
    assert facts(flights.make_thermal_image(0), b"a.jpg").kind == "thermal"
    assert facts(with_segment(plain, 0xE1, b"FLIR\0\1\0\0"), b"a.jpg").kind == "thermal"
    assert facts(with_segment(jpeg(), 0xE3, b"_JPSJPS_xxxx"), b"a.jpg").kind == ""
    for source in (b'drone-dji:ImageSource="InfraredCamera"', b"<d:ImageSource>InfraredCamera</d:ImageSource>"):
        assert facts(with_xmp(plain, source), b"a.jpg").kind == "thermal"
    assert facts(with_xmp(plain, b'drone-dji:ImageSource="WideCamera"'), b"a.jpg").kind == ""


def test_names_and_contents_tell_bands():
    """DJI's names and a single band name tell a multispectral image; the three bands of a photo do not."""
    assert facts(flights.make_band(0, "NIR"), b"DJI_0011.TIF").kind == "multispectral"
    for band in ("G", "R", "RE", "NIR"):
        assert kind_of(b"x/DJI_20240517100000_0001_MS_%s.TIF" % band.encode(), b"") == "multispectral"
    assert kind_of(b"a.tif", b'<x drone-dji:BandName="Red edge"/>') == "multispectral"
    assert kind_of(b"a.tif", b"<Camera:BandName>LWIR</Camera:BandName>") == "thermal"
    three = b"<c:BandName><rdf:Seq>" + b"".join(b"<rdf:li>%s</rdf:li>" % c for c in (b"R", b"G", b"B"))
    assert kind_of(b"a.jpg", three + b"</rdf:Seq></c:BandName>") == ""


def test_hostile_xmp_is_no_trouble():
    """Thousands of open tags are read in no time and mean nothing."""
    start = time.thread_time()
    assert kind_of(b"a.jpg", b"<a:BandName>" * 8000) == ""
    assert kind_of(b"a.jpg", b"\0\xff:ImageSource=" * 5000) == ""
    assert time.thread_time() - start < 10


@pytest.mark.parametrize(
    ("chosen", "others", "globs"),
    [
        (["DJI_0001_T.JPG", "DJI_0002_T.JPG"], ["DJI_0001_V.JPG"], ["*_T.JPG"]),
        (["DJI_1_MS_G.TIF", "DJI_1_MS_NIR.TIF"], ["DJI_1_D.JPG"], ["*_MS_*.TIF"]),
        (["a/DJI_0002_R.JPG"], ["a/DJI_0001.JPG"], ["*_R.JPG"]),
        (["DJI_0011.TIF", "DJI_0012.TIF"], ["DJI_0010.JPG"], ["*.TIF"]),
        (["thermal [1]/1.JPG"], ["rgb/1.JPG"], ["thermal [[]1]/*"]),
        (["1.JPG"], ["2.JPG"], []),
        (["DJI_0001_T.JPG"], ["DJI_0002_T.JPG"], []),
    ],
)
def test_the_glob_leaves_out_those_and_no_others(chosen, others, globs):
    """The pattern that the report offers works as `exclude`; none is offered where none would."""
    assert leave_out(chosen, others) == globs
    if globs:
        assert all(matches(path, tuple(globs)) for path in chosen)
        assert not any(matches(path, tuple(globs)) for path in others)


def test_the_report_says_how_to_leave_them_out():
    """The lines of thermal images and bands name the setting and the pattern."""
    assert "exclude: ['*_T.JPG']" in found(MIXTURES["thermal"](), "thermal").text
    assert "exclude: ['*_MS_*.TIF']" in found(MIXTURES["multispectral"](), "multispectral").text


def with_segment(content, marker, data):
    """Put a segment behind the start of a JPEG."""
    return content[:2] + bytes((0xFF, marker)) + (2 + len(data)).to_bytes(2, "big") + data + content[2:]


def with_xmp(content, text):
    packet = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description " + text + b"/></x:xmpmeta>"
    return with_segment(content, 0xE1, packet)


def test_spliced_images_are_still_images():
    """The images of these tests are what other programs read, too."""
    for content in (with_xmp(flights.make_image(0, size=(64, 48)), b'a:b="c"'), flights.make_thermal_image(1)):
        with Image.open(io.BytesIO(content)) as image:
            image.load()
