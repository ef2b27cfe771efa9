"""`estimate`: what a folder would send and cost, from the disk alone."""

import json
import shutil
import time

import pytest

from pix4d_watcher.emulator import flights
from pix4d_watcher.engine import meter
from pix4d_watcher.intake.freeze import freeze_image
from pix4d_watcher.journal import service

SMALL = (320, 240)


@pytest.fixture
def flight(tmp_path):
    """A folder of eight images and a log, somewhere on a disk."""
    place = tmp_path / "card" / "monday"
    flights.make_flight(place, 8, size=SMALL)
    (place / "flight.log").write_text("no image")
    return place


def measured(site, megabit):
    """Have a service have measured the link."""
    fact = {"bytes_per_second": megabit * 1e6 / 8, "at": time.time() - 7200}
    service.put(site.journal, service.MEASURED_THROUGHPUT, fact)


def test_a_folder_is_estimated_without_any_configuration(run_cli, flight):
    """Images, what is no image, size, megapixels, credits and the hours at two speeds; nothing is configured."""
    done = run_cli("estimate", flight)
    assert (done.returncode, done.stderr) == (0, "")
    size = sum(path.stat().st_size for path in flight.glob("*.JPG"))
    head, *rest = done.stdout.splitlines()
    assert head == f"monday: 8 images, 8 to be sent: {size / 1e6:.1f} MB, 0.6 megapixels, about 0.01 credits"
    assert "1 file is no image: flight.log" in rest
    assert rest[-1].startswith("upload: 0.00 h (")
    assert rest[-1].endswith(" at 50 Mbit/s; this link was not measured yet")
    assert "together" not in done.stdout


def test_programs_read_json(run_cli, flight):
    """The same as JSON, alone on standard output, with exact sums."""
    done = run_cli("estimate", flight, "--json")
    answer = json.loads(done.stdout)
    size = sum(path.stat().st_size for path in flight.glob("*.JPG"))
    assert (answer["version"], answer["path"]) == (1, str(flight))
    assert (answer["images"], answer["sendable"], answer["total_bytes"]) == (8, 8, size)
    assert (answer["megapixels"], answer["credits"]) == (0.614, 0.006)
    (folder,) = answer["folders"]
    assert (folder["folder"], folder["not_images"], folder["findings"]) == ("monday", ["flight.log"], [])
    upload = answer["upload"]
    assert (upload["bytes_per_second"], upload["hours"], upload["measured_at"]) == (None, None, None)
    assert upload["hours_at_mbit"]["5"] == pytest.approx(size * 8 / 5e6 / 3600, abs=0.001)


def test_findings_are_shown_and_are_no_failure(run_cli, flight):
    """Every check has its line with its level, duplicates of content too; the exit code is 0."""
    (flight / "DJI_0004.JPG").unlink()
    (flight / "copy.JPG").write_bytes((flight / "DJI_0001.JPG").read_bytes())
    flights.truncate_image(flight / "DJI_0008.JPG")
    flights.make_image_without_geotag(flight / "DJI_0007.JPG", size=SMALL, seed=5)
    done = run_cli("estimate", flight)
    assert done.returncode == 0
    for line in ("[hold] truncated: ", "[warn] duplicates: ", "[warn] sequence_gaps: ", "[hold] not_geotagged: "):
        assert f"\n{line}" in done.stdout


def test_every_folder_of_a_drop_directory_is_estimated(run_cli, flight):
    """Sub-directories that are no card's are folders each, and a sum stands below them; a card's are one folder."""
    flights.make_flight(flight.parent / "tuesday", 7, size=SMALL, seed=2)
    done = run_cli("estimate", flight.parent)
    heads = [line for line in done.stdout.splitlines() if "to be sent" in line]
    assert [head.partition(",")[0] for head in heads] == [
        "monday: 8 images",
        "tuesday: 7 images",
        "together: 2 folders",
    ]
    assert json.loads(run_cli("estimate", flight.parent, "--json").stdout)["images"] == 15
    flights.make_flight(flight.parent / "sd", 8, size=SMALL, subfolders=flights.CARD_SUBFOLDERS)
    done = run_cli("estimate", flight.parent / "sd" / "DCIM")
    assert done.stdout.startswith("DCIM: 8 images, 8 to be sent")


def test_the_configuration_of_a_drop_directory_counts(run_cli, site, flight):
    """Globs and levels are those of the drop directory; the directory itself is estimated folder by folder."""
    site.config.write_text(
        site.config.read_text().replace(
            "    settle: 60s", "    exclude: ['*_000[1-6].JPG']\n    checks: {too_few_images: off}"
        )
    )
    place = site.directory / "drop" / "monday"
    flight.rename(place)
    plain = run_cli("estimate", place, "--config", site.config)
    assert plain.stdout.startswith("monday: 2 images, 2 to be sent")
    assert "too_few_images" not in plain.stdout
    both = json.loads(run_cli("estimate", site.directory / "drop", "--config", site.config, "--json").stdout)
    assert [(folder["folder"], folder["images"]) for folder in both["folders"]] == [("monday", 2)]
    other = run_cli("estimate", site.directory / "other", "--config", site.config)
    assert "there is no folder in it" in other.stdout
    assert other.returncode == 0


def test_what_makes_the_project_another_one_is_said(run_cli, site, flight):
    """A pix4d.yaml that cannot be used is a finding; `split` and `join` are named where they would take part."""
    site.config.write_text(
        site.config.read_text().replace("    settle: 60s", "    split: 7\n    join: '{mission}_{part}'")
    )
    (flight / "pix4d.yaml").write_text("nmae: x\n")
    for name in ("monday", "monday_1"):
        shutil.copytree(flight, site.directory / "drop" / name)
    both = run_cli("estimate", site.directory / "drop", "--config", site.config).stdout
    assert both.count("`split` makes several projects of it: it has more than 7 images") == 2
    assert both.count("`join` may make one project of it and others") == 1
    assert both.count("[hold] pix4d.yaml: pix4d.yaml:1: nmae: unknown key; did you mean 'name'?") == 2
    plain = run_cli("estimate", flight).stdout
    assert "pix4d.yaml" not in plain


def test_what_was_sent_before_is_said(run_cli, site, flight):
    """Images that the journal knows as sent are found out by their content, all of them or some."""
    files = sorted(flight.glob("*.JPG"))
    frozen = [freeze_image(bytes(flight), bytes(file.name, "ascii"), blocks_above=1 << 40) for file in files]
    site.created("harbour", frozen=frozen)
    site.close()
    done = run_cli("estimate", flight, "--config", site.config).stdout
    assert "[hold] sent_before: All 8 images were sent before as survey/harbour (project 883349, " in done
    files[0].write_bytes(files[1].read_bytes() + b"x")
    done = run_cli("estimate", flight, "--config", site.config).stdout
    assert "[warn] sent_before: 7 of 8 images were sent before as survey/harbour" in done


def test_hours_are_those_of_the_measured_link(run_cli, site, flight):
    """What a service measured last counts, with its age; the two speeds of strangers are left out."""
    measured(site, 0.001)
    site.close()
    done = run_cli("estimate", flight, "--config", site.config)
    size = sum(path.stat().st_size for path in flight.glob("*.JPG"))
    hours = size * 8 / 1000 / 3600
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"upload: {hours:.2f} h (")
    assert last.endswith(" on this link, at 0.0 Mbit/s as measured 2 h ago")
    upload = json.loads(run_cli("estimate", flight, "--config", site.config, "--json").stdout)["upload"]
    assert upload["hours"] == pytest.approx(hours, abs=0.001)
    assert upload["measured_at"].endswith("Z")


def test_nothing_is_made_or_asked(run_cli, site, flight):
    """No journal, no file and no connection comes of it; a missing secret or cloud is nobody's concern."""
    site.close()
    (site.directory / "secret").unlink()
    before = sorted(path for path in site.directory.rglob("*"))
    done = run_cli("estimate", flight, "--config", site.config, HTTPS_PROXY="http://127.0.0.1:1")
    assert done.returncode == 0
    assert sorted(path for path in site.directory.rglob("*")) == before


@pytest.mark.parametrize("what", ["nothing", "file"])
def test_a_path_that_is_no_directory_is_misused(run_cli, tmp_path, what):
    """A path that is missing, or a file, ends with 2 and says so."""
    (tmp_path / "file").write_text("")
    done = run_cli("estimate", tmp_path / what)
    assert done.returncode == 2
    assert "is no directory" in done.stderr
    assert done.stdout == ""


def test_a_bad_configuration_is_not_passed_over(run_cli, site, flight):
    """Where a configuration is named, its mistakes are told instead of being left out of the estimate."""
    site.config.write_text("watch: 7\n")
    assert run_cli("estimate", flight, "--config", site.config).returncode == 78


def test_names_that_are_no_text(run_cli, tmp_path):
    """A folder whose name is not UTF-8 is estimated and shown with escapes."""
    place = tmp_path / "M\udce9moire"
    flights.make_tiny_images(place, 6)
    assert run_cli("estimate", place).stdout.startswith(r"M\xe9moire: 6 images")


def test_only_a_steady_upload_counts_as_measured():
    """Some seconds without a pause are a measurement; a burst, a pause within, and the past are none."""
    now = int(time.monotonic())
    gauge = meter.Meter()
    assert gauge.steady() is None
    # It ends a little ahead of now, so that a process that was stopped here does not find it in the past.
    gauge._seconds.extend((now + 30 - 8 + n, 1000) for n in range(9))
    assert gauge.steady() == 1000
    burst = meter.Meter()
    burst._seconds.extend((now - n, 1000) for n in (2, 1))
    assert burst.steady() is None
    broken = meter.Meter()
    broken._seconds.extend((now - n, 1000) for n in (14, 13, 12, 11, 10, 9, 8, 3, 2, 1))
    assert broken.steady() is None
    past = meter.Meter()
    past._seconds.extend((now - 14 + n, 1000) for n in range(9))
    assert past.steady() is None
