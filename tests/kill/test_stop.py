"""A service that is asked to end in the middle of something: it ends soon and well, and loses nothing."""

import re
import time
from pathlib import Path

import pytest
from harness import pad

from pix4d_watcher.emulator import flights
from pix4d_watcher.service import STOP_WITHIN

SOON = 30.0
"""Seconds within which a service must have ended, on a machine that is busy with other tests, too."""

PATIENT = {"request_timeout": "4m"}
"""No call that hangs comes to its end by itself, so that a service which waited for it would not end soon."""

HANGS = {"do": "stall", "seconds": 300.0, "times": None}

pytestmark = pytest.mark.timeout(200)


def tiny(folder):
    """Fill a folder with a small flight."""
    flights.make_tiny_images(folder, 8)


def large(folder):
    """Fill a folder with a flight of which two images are sent in parts, and two are large in one piece."""
    for number, path in enumerate(flights.make_tiny_images(folder, 8)):
        if number < 4:
            pad(path, 40_000_000 if number % 2 else 20_000_000)


def stop(station):
    """Ask the service to end; it does so soon and by itself."""
    began = time.monotonic()
    station.ask_to_stop()
    assert station.ended(SOON) == 0
    print(f"ended {time.monotonic() - began:.1f} s after SIGTERM")


def go_on(station):
    """Mend the cloud, start again, look at the end, and give how often each image was sent."""
    station.cloud.faults.clear()
    station.finish()
    puts = station.assert_delivered_once()
    station.assert_results_complete()
    return puts


def test_systemd_waits_for_longer():
    """The unit gives a stop twice the time that the service leaves its threads for it."""
    unit = Path(__file__).parent.parent.parent / "deploy" / "pix4d-watcher.service"
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
    assert int(seconds) >= 2 * STOP_WITHIN


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(HANGS, id="stalls"),
        pytest.param({"do": "delay", "seconds": 300.0, "times": None}, id="delays", marks=pytest.mark.check),
    ],
)
def test_stopped_while_large_bodies_are_sent(station, fault):
    """Stopped while a slow service takes large bodies, the rest is sent by the next start."""
    station.configure(advanced=PATIENT)
    station.drop(large)
    station.cloud.faults.add({"op": "put", **fault}, {"op": "part", **fault})
    station.start(real=True)
    station.until(lambda: station.requests("put") and station.requests("part"), "bodies are under way")
    stop(station)
    go_on(station)


def test_stopped_while_a_result_is_fetched(station):
    """Stopped while a result does not come, the next start fetches it."""
    station.configure(advanced=PATIENT)
    station.drop(tiny)
    station.cloud.faults.add({"op": "get", "skip": 2, **HANGS})
    station.start(real=True)
    station.until(lambda: station.requests("get") > 2, "a result is asked for")
    stop(station)
    go_on(station)


def test_stopped_while_paused(station):
    """Stopped while everything is paused, it stays paused until a person resumes it."""
    station.drop(tiny)
    station.cloud.faults.add({"op": "put", "do": "delay", "seconds": 0.5, "times": None})
    station.start(real=True)
    station.until(lambda: station.requests("put"), "images are under way")
    station.pause_all(paused=True)
    stop(station)
    station.finish()  # paused counts as idle
    assert station.look()["state"] == "created"
    station.pause_all(paused=False)
    go_on(station)


@pytest.mark.parametrize(
    "call",
    [
        "create",
        "start",
        *(pytest.param(call, marks=pytest.mark.check) for call in ("token", "credentials", "register")),
    ],
)
def test_stopped_while_the_cloud_does_not_answer(station, call):
    """Stopped while a call hangs, what became of it is found out by the next start, and it happens once."""
    station.configure(advanced=PATIENT)
    station.drop(tiny)
    station.cloud.faults.add({"op": call, **HANGS})
    station.start(real=True)
    station.until(lambda: station.requests(call), f"{call} is asked")
    stop(station)
    assert set(go_on(station).values()) == {1}
