"""One very large flight: its whole life, and what it leaves in memory."""

import contextlib
import datetime as dt
import itertools
import json
import time

import pytest
from measure import memory, processor, timed

from pix4d_watcher.core.model import State
from pix4d_watcher.emulator import flights
from pix4d_watcher.intake.scan import Rules, scan_folder
from pix4d_watcher.journal import views

pytestmark = pytest.mark.check  # minutes in all: run by make check

MOST = 90.0
"""MiB that an idle service may hold; the aim for one that delivered usual flights is 75."""

REST = 6.0
"""Seconds after the delivery until the service counts as idle, on a machine that has time for it."""

STATES = (State.FOUND, State.SETTLED, State.CREATED, State.UPLOADED, State.REGISTERED, State.STARTED)


@pytest.mark.timeout(1200)
def test_flight_leaves_little_behind(station, run_cli):
    """A flight of 10,000 images arrives once, and the service is small again when it is idle."""
    images = 10_000
    station.configure(checks={"too_many_images": "off"})
    folder = station.drop(lambda place: flights.make_tiny_images(place, images))
    with timed(f"scan of {images} files"):
        scan_folder(bytes(folder), Rules())
    station.start(real=True)
    pid = station.process.pid
    station.until(lambda: station.look().get("state") == State.DELIVERED, "it is delivered", seconds=900, every=0.5)
    time.sleep(REST)
    with contextlib.suppress(AssertionError):  # what it holds is told below, and judged at the end
        station.until(lambda: memory(pid)[0] <= MOST, "it is small", every=0.5)
    resident, peak = memory(pid)
    print(f"idle {resident:.1f} MiB, at most {peak:.1f} MiB, {processor(pid):.1f} s of processor time")
    tell_steps(station)
    for options in ([], ["--json"]):
        with timed(f"status {' '.join(options)}"):
            shown = run_cli("status", *options, "--config", station.config)
        assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["projects"][0]["images"]["registered"] == images
    station.ask_to_stop()
    assert station.ended() == 0
    assert set(station.assert_delivered_once().values()) == {1}
    assert resident <= MOST


def tell_steps(station):
    """Print how long each state took, and how large the journal is."""
    with station.journal() as journal:
        project = views.project(journal, station.look()["id"])
    moments = [getattr(project, f"{state}_at") for state in STATES]
    for (state, began), (_after, ended) in itertools.pairwise(zip(STATES, moments, strict=True)):
        print(f"{state}: {dt.timedelta(seconds=ended - began).total_seconds():.2f} s")
    files = (station.directory / "state").glob("journal.db*")
    with contextlib.suppress(FileNotFoundError):  # SQLite takes -wal and -shm away when it is closed
        print("journal:", ", ".join(f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in sorted(files)))
