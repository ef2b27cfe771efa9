"""What a folder is checked for before it is created: decoding in slices, mixed images, and what they cost."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Site, until

from pix4d_watcher.config import load
from pix4d_watcher.core.model import HoldCode, State
from pix4d_watcher.emulator import flights
from pix4d_watcher.engine import decoding
from pix4d_watcher.engine.context import Context
from pix4d_watcher.host import mounts
from pix4d_watcher.intake.freeze import freeze_image
from pix4d_watcher.journal import facts, folders, projects, service, views
from pix4d_watcher.journal.change import Stale

pytestmark = pytest.mark.check  # minutes in all: run by make check

SMALL = (320, 240)


def fly(site, name="flight", count=12, *, damage=()):
    """Drop a flight of real photos; those of the numbers in `damage` have a hole in the middle of their data."""
    place = site.directory / "prepared" / name
    for number, path in enumerate(flights.make_flight(place, count, size=SMALL, seed=len(name)), 1):
        if number in damage:
            spoil(path)
    return place.rename(site.drops / name)


def spoil(path):
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(2048) + content[middle + 2048 :])


def report_of(site, name="flight"):
    return views.project(site.journal(), site.id_of(name)).report


def test_damage_in_the_middle_is_found_before_anything_is_created(site):
    """With `decode: all` the damaged image holds the folder; approved, all others are sent and each was decoded."""
    site.configure(decode="all")
    fly(site, damage=[7])
    site.start()
    text = site.held("bad_images")
    assert "DJI_0007.JPG" in text
    assert "zero bytes" in text
    assert site.requests("create") == 0
    assert [finding["check"] for finding in report_of(site)["findings"]] == ["truncated"]
    known = {image.path: image.facts for image in site.images()}
    assert known[b"DJI_0007.JPG"]["problem"] == "truncated"
    assert sum(facts["decoded"] for facts in known.values()) == 11
    assert ("damaged", "DJI_0007.JPG: " + known[b"DJI_0007.JPG"]["detail"]) in site.events()
    site.ask("approve")
    site.delivered()
    site.once(images=11, held=True)


def test_a_sample_decodes_few_and_off_decodes_none(site):
    """The default decodes every n-th image of a folder, off decodes none; neither says anything of sound ones."""
    other = site.directory / "other"
    other.mkdir()
    site.configure(more=[{"name": "blind", "path": str(other), "settle": "500ms", "poll": "200ms", "decode": "off"}])
    fly(site, count=24)
    fly(site, "blind flight", count=6, damage=[6]).rename(other / "blind flight")
    assert site.run() == 0
    assert 5 <= sum(image.facts["decoded"] for image in site.images()) <= 9
    assert not any(image.facts["decoded"] for image in site.images("blind flight"))
    assert report_of(site)["findings"] == report_of(site, "blind flight")["findings"] == []
    site.once(images=24)
    site.once("blind flight", images=6)


def test_a_mixed_folder_is_reported_and_held_where_that_is_wanted(site):
    """Thermal images beside photos warn with the pattern that leaves them out; at level hold a person decides."""
    other = site.directory / "other"
    other.mkdir()
    strict = {"checks": {"thermal": "hold"}, "name": "strict", "path": str(other), "settle": "500ms", "poll": "200ms"}
    site.configure(more=[strict])
    for name, drops in (("flight", site.drops), ("mixed", other)):
        place = site.directory / "prepared" / name
        flights.make_flight(place, 6, names="DJI_{n:04d}_V.JPG", size=SMALL, model="M3T", seed=len(name))
        for number in range(1, 7):
            (place / f"DJI_{number:04d}_T.JPG").write_bytes(flights.make_thermal_image(number, seed=len(name)))
        place.rename(drops / name)
    site.start()
    site.delivered()
    assert [finding["check"] for finding in report_of(site)["findings"]] == ["thermal"]
    assert "exclude: ['*_T.JPG']" in site.held("mixed_images", "mixed")
    site.ask("approve", "mixed")
    site.delivered("mixed")
    site.once("mixed", images=12, held=True)


def test_what_excludes_the_thermal_images_silences_the_report(site):
    """The pattern that the report names works: only photos are left, and nothing is found."""
    site.configure(exclude=["*_T.JPG"])
    place = site.directory / "prepared" / "flight"
    flights.make_flight(place, 6, names="DJI_{n:04d}_V.JPG", size=SMALL, model="M3T")
    (place / "DJI_0001_T.JPG").write_bytes(flights.make_thermal_image(1))
    place.rename(site.drops / "flight")
    assert site.run() == 0
    assert report_of(site)["findings"] == []
    site.once(images=6)


def test_a_bomb_holds_the_folder_and_harms_nothing(site):
    """An image that states four billion pixels is a finding, and costs the service neither memory nor its life."""
    place = fly(site, count=8)
    bomb = place / "DJI_0008.JPG"
    content = bytearray(bomb.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xfd\xe8\xfd\xe8"
    bomb.write_bytes(content)
    site.start()
    assert "65000 x 65000 pixels" in site.held("bad_images")
    status = Path(f"/proc/{site.process.pid}/status").read_text(encoding="ascii")
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 300 << 10


# One slice after the other, on a journal without a service.


@pytest.fixture
def settled(site, monkeypatch):
    """A folder of twelve images that is frozen, and a context to take steps in; a slice is one image."""
    monkeypatch.setattr(decoding, "SLICE", 0.0)
    site.configure(decode="all")
    place = fly(site, damage=[3])
    settings = load(site.config)
    settings.journal.parent.mkdir()
    journal = site.journal(change=True)
    own, seen, medium = place.stat(), site.drops.stat(), mounts.medium(bytes(place))
    folders.root_seen(
        journal, "survey", os.fsencode(site.drops), device=medium, inode=seen.st_ino, loose=0, watching="polling"
    )
    new = folders.NewFolder(b"flight", medium, own.st_ino, 12)
    (number,) = folders.folders_found(journal, "survey", [new])
    names = sorted(os.fsencode(path.name) for path in place.iterdir())
    images = [freeze_image(os.fsencode(place), name, blocks_above=1 << 30) for name in names]
    folders.frozen(journal, number, images, fingerprint=b"1")
    return settings, journal, number, place


def take_step(settled):
    """Decode a slice as a process does that has just been started."""
    settings, journal, number, _place = settled
    context = Context(settings, journal, rest=None, buckets=None, world=None, wake_scanner=lambda _root: None)
    return decoding.finished(context, views.project(journal, number))


def test_decoding_goes_on_where_a_crash_stopped_it(settled):
    """Each slice is in the journal, so that a new process decodes what is left and no image twice."""
    _settings, journal, number, _place = settled
    for taken in range(1, 12):
        assert not take_step(settled)
        images = views.frozen_of(journal, number)
        assert sum(bool(image.facts.decoded or image.facts.problem) for image in images) == taken
        project = views.project(journal, number)
        assert (project.state, project.due_at is not None) == (State.SETTLED, True)
        assert f"{12 - taken} of 12 are left" in project.waiting_for
    assert take_step(settled)
    assert take_step(settled)
    assert [image.path for image in views.frozen_of(journal, number) if image.facts.problem] == [b"DJI_0003.JPG"]


def test_an_image_that_is_gone_or_changed_waits_for_the_scan(settled):
    """A file that was removed or rewritten since is no damage: nothing is held, and the scan looks first."""
    _settings, journal, number, place = settled
    last = place / "DJI_0001.JPG"
    content = last.read_bytes()
    last.unlink()
    assert not take_step(settled)
    assert views.project(journal, number).hold_code is None
    assert "it is gone" in views.project(journal, number).waiting_for
    last.write_bytes(content + b"more")
    assert not take_step(settled)
    assert "changed" in views.project(journal, number).waiting_for


def test_a_medium_that_is_away_holds_and_lifts_by_itself(settled):
    """With the drop directory away the folder is held media_absent, and goes on once it can be read."""
    _settings, journal, number, place = settled
    away = place.parent.rename(place.parent.parent / "away")
    assert not take_step(settled)
    assert views.project(journal, number).hold_code is HoldCode.MEDIA_ABSENT
    away.rename(place.parent)
    assert not take_step(settled)
    assert views.project(journal, number).hold_code is None


def test_images_that_need_not_be_read_any_more_hold_nothing(site, settled):
    """A folder whose images cannot be decoded is not held for it any longer once `decode` is off."""
    _settings, journal, number, place = settled
    projects.hold(journal, number, HoldCode.SOURCE_UNREADABLE, "DJI_0003.JPG: Input/output error")
    site.configure(decode="off")
    assert not take_step((load(site.config), journal, number, place))
    assert views.project(journal, number).hold_code is None
    assert take_step((load(site.config), journal, number, place))


def test_what_was_decoded_of_an_older_version_is_not_written(settled):
    """When the folder was frozen anew while an image was decoded, the outcome is forgotten with the old content."""
    _settings, journal, number, _place = settled
    older, *others = views.frozen_of(journal, number)
    newer = replace(older, sha256=bytes(32))
    folders.frozen(journal, number, [newer, *others], fingerprint=b"2")
    found = replace(older, facts=replace(older.facts, decoded=True))
    with pytest.raises(Stale):
        facts.decoded(journal, number, [others[0], found], waiting="", due_at=0.0)
    assert views.project(journal, number).waiting_for is None
    assert not any(image.facts.decoded for image in views.frozen_of(journal, number))


def test_an_idle_service_carries_no_pillow(tmp_path):
    """Pillow is not loaded while nothing was dropped; a folder makes it be loaded."""
    script = (
        "import sys; from pix4d_watcher.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, sorted(name for name in sys.modules if name.split('.')[0] == 'PIL'))"
    )
    with Site(tmp_path / "site") as site:
        (site.directory / "state").mkdir()
        command = [sys.executable, "-c", script, "run", "--until-idle", "--config", site.config]
        idle = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert idle.stdout.strip() == "0 []"
        fly(site, count=6)
        busy = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert busy.stdout.startswith("0 ['PIL'")


def test_a_busy_link_is_measured_for_estimates(site):
    """What a steady upload did is kept as a lasting fact of the service."""
    # One image after the other, for as long as it may take until it is looked at in the middle of a steady spell.
    site.configure(decode="off", upload={"connections": 1})
    site.fault("put", "delay", seconds=0.5, times=None)
    site.drop(count=150)
    site.start()
    fact = until(
        lambda: service.get(site.journal(), service.MEASURED_THROUGHPUT) if site.journal() else None, "measured"
    )
    assert fact["bytes_per_second"] > 0
    assert fact["at"] > 0
