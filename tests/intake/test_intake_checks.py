"""The checks of a folder's images and their report."""

import json

import pytest
from intake_kit import flight, frozen

from pix4d_watcher.core.model import HoldCode, Level
from pix4d_watcher.intake.checks import CHECKS, MAX_IMAGES, check_images, render_report, report_as_json


def check(images, *, levels=None, accepted=(), not_images=()):
    return check_images(images, not_images=not_images, levels=levels or {}, accepted=accepted)


def findings(report):
    return {finding.check: finding.level for finding in report.findings}


def holds(report):
    return [finding.hold for finding in report.holding]


def test_sound_flight_has_no_findings():
    """A good folder passes, with its sums over all images."""
    report = check(flight(10), not_images=(b"notes.txt",))
    assert report.findings == ()
    assert (report.images, report.sendable, report.total_bytes) == (10, 10, 10_000)
    assert (report.megapixels, report.credits) == (10.0, 0.1)
    assert report.not_images == (b"notes.txt",)


@pytest.mark.parametrize(
    ("count", "code"),
    [(0, "too_few_images"), (5, "too_few_images"), (6, None), (4000, None), (4001, "too_many_images")],
)
def test_count_has_published_limits(count, code):
    """6 to 4000 images; other counts hold with their own code."""
    assert holds(check(flight(count))) == ([HoldCode(code)] if code else [])


@pytest.mark.parametrize("problem", ["zero_bytes", "wrong_format", "truncated"])
def test_damaged_images(problem):
    """Damage holds as bad_images; accepted or at warn it is skipped with its reason; off sends it as it is."""
    images = [*flight(9), frozen(b"bad.JPG", problem=problem)]
    report = check(images)
    assert holds(report) == [HoldCode.BAD_IMAGES]
    assert (report.sendable, report.skipped) == (9, ())
    assert "1 image is" in report.findings[0].text
    assert "bad.JPG" in report.findings[0].text
    for options in ({"accepted": [problem]}, {"accepted": ["bad_images"]}, {"levels": {problem: Level.WARN}}):
        report = check(images, **options)
        assert findings(report) == {problem: Level.WARN}
        assert [path for path, _ in report.skipped] == [b"bad.JPG"]
        assert "why" in report.skipped[0][1]
    report = check(images, levels={problem: Level.OFF})
    assert (report.sendable, report.skipped) == (10, ())
    assert problem not in findings(report)


def test_several_kinds_of_damage_ask_once():
    """A folder with empty and cut off images names each kind, and what to do only once."""
    images = [*flight(9), frozen(b"empty.JPG", problem="zero_bytes"), frozen(b"bad.JPG", problem="truncated")]
    text = " ".join(finding.text for finding in check(images).holding)
    assert "empty.JPG" in text
    assert "bad.JPG" in text
    assert text.count("Copy anew") == 1


def test_count_is_over_what_would_be_sent():
    """Six images of which one is damaged are too few, said together with the damage."""
    images = [*flight(5), frozen(b"bad.JPG", problem="truncated")]
    assert holds(check(images)) == [HoldCode.BAD_IMAGES, HoldCode.TOO_FEW_IMAGES]
    assert holds(check(images, accepted=["bad_images"])) == [HoldCode.TOO_FEW_IMAGES]
    assert holds(check(images, accepted=["bad_images", "too_few_images"])) == []


@pytest.mark.parametrize(
    ("tagged", "untagged", "level"),
    [(20, 0, None), (20, 1, Level.WARN), (18, 2, Level.WARN), (17, 3, Level.HOLD), (0, 20, Level.HOLD)],
)
def test_missing_geotags(tagged, untagged, level):
    """None at all, or more than one in ten without a position, holds; fewer is a warning."""
    images = [*flight(tagged), *(frozen(b"x%d.JPG" % n) for n in range(untagged))]
    assert findings(check(images)).get("not_geotagged") is level


def test_zero_position_is_no_geotag():
    """(0, 0) is what cameras write without a fix; the equator and the meridian alone are places."""
    zero = [frozen(b"%d.JPG" % n, latitude=0.0, longitude=0.0) for n in range(6)]
    assert findings(check(zero)) == {"not_geotagged": Level.HOLD}
    line = [frozen(b"%d.JPG" % n, latitude=0.0, longitude=n * 1e-3) for n in range(1, 9)]
    assert findings(check(line)) == {}


def test_one_position_holds_as_not_geotagged():
    """A GPS that stood still holds; a metre of difference is a flight."""
    still = [frozen(b"%d.JPG" % n, latitude=46 + n * 1e-8, longitude=6.0) for n in range(8)]
    report = check(still)
    assert (findings(report), holds(report)) == ({"one_position": Level.HOLD}, [HoldCode.NOT_GEOTAGGED])
    moved = [*still, frozen(b"m.JPG", latitude=46.00001, longitude=6.0)]
    assert findings(check(moved)) == {}
    assert findings(check(still, accepted=["not_geotagged"])) == {"one_position": Level.WARN}


def test_duplicates_are_sent_once():
    """Of equal contents the first path is sent, the others are skipped and say which one it is."""
    images = [*flight(8), frozen(b"Z/copy.JPG", latitude=46, longitude=6, sha=flight(1)[0].sha256)]
    report = check(images)
    assert findings(report) == {"duplicates": Level.WARN}
    assert report.skipped == ((b"Z/copy.JPG", "same content as DJI_0000.JPG"),)
    assert report.sendable == 8
    assert check(images, levels={"duplicates": Level.OFF}).sendable == 9
    held = check(images, levels={"duplicates": Level.HOLD})
    assert holds(held) == [HoldCode.BAD_IMAGES]


@pytest.mark.parametrize("name", list(CHECKS)[:8])
def test_every_check_has_three_levels(name):
    """Hold gives a hold with a code, warn a warning without one, off nothing at all."""
    images = {
        "too_few_images": flight(2),
        "too_many_images": flight(MAX_IMAGES + 1),
        "zero_bytes": [*flight(8), frozen(b"z", problem="zero_bytes", size=0)],
        "wrong_format": [*flight(8), frozen(b"z", problem="wrong_format")],
        "truncated": [*flight(8), frozen(b"z", problem="truncated")],
        "not_geotagged": [frozen(b"%d" % n) for n in range(8)],
        "one_position": [frozen(b"%d" % n, latitude=1, longitude=1) for n in range(8)],
        "duplicates": [*flight(8), frozen(b"z", latitude=1, longitude=1, sha=flight(1)[0].sha256)],
    }[name]
    for level in Level:
        found = [one for one in check(images, levels={name: level}).findings if one.check == name]
        assert [(one.level, one.hold is not None) for one in found] == (
            [] if level is Level.OFF else [(level, level is Level.HOLD)]
        )


def test_unknown_size_is_mentioned():
    """Images without a known size count nothing towards the credits, and the report says so."""
    report = check([*flight(9), frozen(b"odd.JPG", latitude=1, longitude=1, pixels=(0, 0))])
    assert report.megapixels == 9.0
    assert findings(report) == {"unknown_size": Level.WARN}


def test_text_names_three_images_and_a_remedy():
    """A finding counts, names the first three images, and says what to do."""
    text = check([*flight(9), *(frozen(b"b\xe9%d" % n, problem="truncated") for n in range(5))]).findings[0].text
    assert text.startswith(r"5 images are cut off or damaged inside: b\xe90, b\xe91, b\xe92 and 2 more")
    assert "approve FOLDER" in text


def test_report_for_people_and_programs():
    """Both forms hold the findings, what is skipped and what is no image, also with names that are no UTF-8."""
    images = [*flight(9), frozen(b"M\xe9.JPG", problem="zero_bytes")]
    report = check(images, accepted=["zero_bytes"], not_images=(b"n\xe9.txt",))
    text = render_report(report)
    assert text.startswith("10 images, 9 to be sent: 0.0 MB, 9.0 megapixels, about 0.09 credits\n")
    assert r"skipped M\xe9.JPG: empty (zero bytes): why" in text
    assert r"1 file is no image: n\xe9.txt" in text
    plain = json.loads(json.dumps(report_as_json(report)))
    assert plain["skipped"] == [{"path": r"M\xe9.JPG", "reason": "empty (zero bytes): why"}]
    assert plain["findings"][0]["check"] == "zero_bytes"
    assert plain["findings"][0]["hold"] is None
    assert (plain["images"], plain["sendable"], plain["not_images"]) == (10, 9, [r"n\xe9.txt"])
