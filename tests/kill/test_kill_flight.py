"""A flight whose service is killed again and again, at moments that nobody chose."""

import random
import time

import pytest
from harness import pad
from station import CONNECTIONS

from pix4d_watcher.emulator import flights
from pix4d_watcher.engine.download import RANGE

SEED = 20260517
KILLS = 20
IMAGES = 200
GONE = 30.0
"""Seconds after which a service that sends nothing more is killed all the same."""

pytestmark = pytest.mark.timeout(300)


def doubtful(station):
    """Say which images may have been under way, and which are recorded as sent."""
    images = station.images() if station.look() else []
    begun = {image.path for image in images if image.begun and image.status == "pending"}
    recorded = {image.path for image in images if image.status in ("uploaded", "registered")}
    return begun, recorded


def test_twenty_kills_of_an_upload(station):
    """Killed at 20 random moments a flight arrives once, and only what was under way at a kill is sent again."""
    chance = random.Random(SEED)
    station.drop(
        lambda folder: flights.make_flight(folder, IMAGES, size=(640, 480), subfolders=flights.CARD_SUBFOLDERS)
    )
    # Each answer comes late, so that some images are on their way at any moment.
    station.cloud.faults.add({"op": "put", "do": "delay", "seconds": 0.1, "times": None})
    moments = [(chance.randint(1, 16), chance.uniform(0, 0.2)) for _kill in range(KILLS)]
    print(f"seed {SEED}; killed after so many images and seconds: {[(n, round(s, 2)) for n, s in moments]}")
    begun_at, recorded = [], set()
    for images, seconds in moments:
        station.start()
        seen, end = station.requests("put"), time.monotonic() + GONE
        while station.requests("put") < seen + images and time.monotonic() < end and not all_sent(recorded):
            time.sleep(0.005)
        time.sleep(seconds)
        station.kill()
        begun, after = doubtful(station)
        assert recorded <= after, "what was recorded once stays recorded"
        assert len(begun) <= CONNECTIONS
        begun_at.append(begun)
        recorded = after
    station.finish()
    puts = station.assert_delivered_once()
    again = {path: count - 1 for path, count in puts.items() if count > 1}
    bound = sum(len(begun) for begun in begun_at)
    print(f"{sum(again.values())} images were sent again; {bound} were under way at the {KILLS} kills")
    assert all(count <= sum(path in begun for begun in begun_at) for path, count in again.items())
    assert sum(again.values()) <= bound <= CONNECTIONS * KILLS
    station.assert_results_complete()


def all_sent(recorded):
    return len(recorded) == IMAGES


def make_large(folder):
    """Fill a folder with images of which two are sent in parts: hashing and sending them takes a while."""
    for number, path in enumerate(flights.make_tiny_images(folder, 8)):
        if number in (3, 5):
            pad(path, 50_000_000)


def test_kills_while_it_settles_and_hashes(station):
    """Killed while a folder settles, and while its images are hashed, nothing of it is forgotten or half written."""
    chance = random.Random(SEED)
    station.drop(make_large)
    for kill in range(6):
        station.start()
        station.until(station.look, "the folder is found")
        moment = 0.2 * kill + chance.uniform(0, 0.3)  # it is quiet, hashed and frozen after a second or so
        time.sleep(moment)
        station.kill()
        print(f"killed {moment:.2f} s after it was found, in state {station.look()['state']}")
        assert len(station.images()) in (0, 8)
    station.finish()
    station.assert_delivered_once()


def test_kills_inside_large_images(station):
    """Killed in the middle of a file that is sent in parts, the next start goes on inside the file."""
    station.drop(make_large)
    late = {"op": "part", "do": "delay", "seconds": 0.2, "times": None}
    recorded = {}
    for kill in range(3):
        station.cloud.faults.clear()
        station.cloud.faults.add({"op": "part", "do": "stall", "seconds": 300, "skip": 3, "times": None}, late)
        station.start()
        seen = station.requests("part")
        station.until(lambda seen=seen: station.requests("part") >= seen + 3, "some parts are sent")
        station.kill()
        for image in station.images():
            if image.upload_id is not None:
                recorded.setdefault((image.upload_id, image.path), []).append(station.parts(image))
        assert recorded or kill == 0
    station.cloud.faults.clear()
    station.finish()
    puts = station.assert_delivered_once()
    # One whose Complete was under way at a kill is waited for, not sent once more.
    assert {puts[path] for _upload_id, path in recorded} == {1}
    uploads = {upload["upload_id"]: upload for upload in station.cloud.ledger()["uploads"]}
    sent_again = 0
    for (upload_id, _path), looks in recorded.items():
        upload = uploads[upload_id]
        assert upload["state"] == "completed"
        for number, part in upload["parts"].items():
            # Sent again at most once for each kill that came before it was recorded.
            assert part["puts"] <= 1 + sum(int(number) not in look for look in looks)
            sent_again += part["puts"] - 1
    print(f"{sent_again} parts were sent again")
    assert sent_again <= 3 * CONNECTIONS
    # One that a kill kept from being journalled is begun anew, and stays behind without a part.
    completed = [upload for upload in uploads.values() if upload["state"] == "completed"]
    assert {upload["key"] for upload in completed} == {upload["key"] for upload in uploads.values()}
    assert not [upload for upload in uploads.values() if upload not in completed and upload["parts"]]


def test_kills_while_it_processes_and_downloads(station):
    """Killed during processing and in the middle of a download, the next start polls on and continues the file."""
    station.cloud.change(processing_seconds=2.0, ortho_bytes=3 * RANGE - 1000)
    station.cloud.faults.add({"op": "get", "do": "delay", "seconds": 1.5, "times": None})
    station.drop(lambda folder: flights.make_tiny_images(folder, 8))
    for _kill in range(2):
        station.start()
        station.until(lambda: station.look().get("state") == "started", "it processes")
        station.kill()
    for ranges in (1, 2):
        station.start()
        station.until(lambda ranges=ranges: len_of_part(station) >= ranges * RANGE, f"{ranges} ranges are here")
        station.kill()
    asked = station.requests("get")
    results = len(station.cloud.ledger()["outputs"])
    station.cloud.faults.clear()
    station.finish()
    station.assert_delivered_once()
    station.assert_results_complete()
    print(f"{asked} ranges were asked for before the last kill, {station.requests('get')} in all")
    # Each result once, and three more ranges of the large one. What was under way at two kills is asked for again, and
    # the range before it: nobody knows whether it was flushed.
    assert station.requests("get") <= results + 3 + 4


def len_of_part(station):
    """Give the bytes of the largest result that is being downloaded."""
    folder = station.results / "survey" / "flight"
    parts = list(folder.glob(".*.part")) if folder.is_dir() else []
    return max((path.stat().st_size for path in parts if path.exists()), default=0)
