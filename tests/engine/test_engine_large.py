"""Large images go in parts, and continue inside the file."""

import random
import re
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import pytest
from harness import until

from pix4d_watcher.cloud.bucket import Bucket, Line
from pix4d_watcher.cloud.credentials import Credentials
from pix4d_watcher.cloud.rest import Rest
from pix4d_watcher.config import load, load_client
from pix4d_watcher.engine import beats
from pix4d_watcher.host.room import Room
from pix4d_watcher.service import Service

pytestmark = pytest.mark.check  # minutes in all: run by make check

MIB = 1 << 20


@pytest.fixture
def flight(site):
    """A dropped folder with one image of 25 MiB, which are four parts, and five small ones."""
    site.configure(upload={"connections": 1, "multipart_threshold": "8MiB"})
    folder = site.prepare()
    image = folder / "DJI_0001.JPG"
    small = image.read_bytes()
    noise = random.Random(1).randbytes(25 * MIB - len(small))
    # Comments behind the start of a JPEG, as long as they may be.
    pieces = [noise[at : at + 65533] for at in range(0, len(noise), 65533)]
    comments = b"".join(b"\xff\xfe" + (len(piece) + 2).to_bytes(2, "big") + piece for piece in pieces)
    image.write_bytes(small[:2] + comments + small[2:])
    return folder.rename(site.drops / "flight") / "DJI_0001.JPG"


def parts(site):
    """Give how often each part of each multipart upload was stored."""
    return [[part["puts"] for part in upload["parts"].values()] for upload in site.cloud.ledger()["uploads"]]


def uploads(site):
    """Give what became of each multipart upload."""
    return [upload["state"] for upload in site.cloud.ledger()["uploads"]]


def wait_for_parts(site, count):
    """Wait until so many parts are journalled."""
    site.until(lambda: sum(map(len, parts(site))) >= count and site.requests("part") > count, f"{count} parts arrived")


@pytest.mark.parametrize("list_parts", ["on", "off"])
def test_killed_inside_the_file(site, flight, list_parts):
    """After a kill no part that was answered is sent again, whether parts may be listed or not."""
    site.cloud.change(list_parts=list_parts)
    site.fault("part", "stall", seconds=60, skip=2)
    site.start()
    wait_for_parts(site, 2)
    site.kill()
    assert site.run() == 0
    site.once()
    assert parts(site) == [[1, 1, 1, 1]]


def test_killed_again_and_again_inside_the_file(site, flight):
    """Every life goes on where the one before ended."""
    for life in (1, 2, 3):
        site.cloud.faults.clear()
        site.fault("part", "stall", seconds=60, skip=1)
        site.start()
        wait_for_parts(site, life)
        site.kill()
    site.cloud.faults.clear()
    assert site.run() == 0
    site.once()
    assert parts(site) == [[1, 1, 1, 1]]


@pytest.mark.parametrize("head", ["on", "off"])
@pytest.mark.parametrize("killed", [False, True])
def test_complete_without_answer(site, flight, head, killed):
    """A completion whose answer was lost is looked up; where that is not allowed, the image is sent again."""
    site.cloud.change(head=head)
    if killed:
        site.fault("complete", "delay", seconds=60)
        site.start()
        site.until(lambda: uploads(site) == ["completed"], "the completion is done, and its answer on the wire")
        site.kill()
    else:
        site.fault("complete", "drop_after")
    assert site.run() == 0
    site.once()
    assert parts(site) == [[1, 1, 1, 1]] * (1 if head == "on" else 2)


def test_complete_answers_200_with_an_error(site, flight):
    """A completion that answers 200 and an error inside is tried again, and nothing is sent twice."""
    body = "<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We failed.</Message></Error>"
    site.fault("complete", "status", code=200, body=body, content_type="application/xml")
    assert site.run() == 0
    site.once()
    assert parts(site) == [[1, 1, 1, 1]]


def test_part_without_answer(site, flight):
    """A part whose answer was lost is not sent again where the parts can be listed."""
    site.fault("part", "drop_after", skip=1)
    assert site.run() == 0
    site.once()
    assert parts(site) == [[1, 1, 1, 1]]


def test_upload_with_breaks(site, flight):
    """The breaks of a large upload that moves on are no failed tries that add up."""
    # Every second part is cut off: a fault counts what passes it while those before it are used up.
    for number in (1, 2, 3):
        site.fault("part", "cut_body", bytes=MIB, skip=number)
    assert site.run() == 0
    site.once()
    assert parts(site) == [[1, 1, 1, 1]]
    assert [fault["hits"] for fault in site.cloud.faults.listing()] == [1, 1, 1]
    # Told by the log: each part that arrives ends what was counted, within a moment.
    assert re.findall(r'event="image failed" .*tries=(\d+)', site.log.read_text()) == ["1", "1", "1"]


def test_upload_aborted_behind_our_back(site, flight):
    """An upload that the cloud forgot begins again from its first part."""
    site.fault("part", "delay", seconds=10, skip=2)
    site.start("--until-idle")
    wait_for_parts(site, 2)
    (upload,) = site.cloud.ledger()["uploads"]
    number = site.projects()[0]["id"]
    with (
        closing(Rest(url=site.cloud.url, client_id="demo-client", client_secret="demo-secret", timeout=30)) as rest,
        closing(Line()) as line,
    ):
        credentials = Credentials(lambda: rest.s3_grant(number))
        bucket = Bucket(credentials, s3_endpoint=site.cloud.url, ca_file=None, timeout=30)
        bucket.abort(line, upload["key"], upload["upload_id"])
    assert site.ended(60) == 0
    site.once()
    assert parts(site)[-1] == [1, 1, 1, 1]
    assert uploads(site) == ["aborted", "completed"]


def test_rewritten_between_two_parts(site, flight):
    """An object is never a mixture of two contents: parts of the new content are not added to the old."""
    site.fault("part", "delay", seconds=8, skip=1)
    site.start()
    wait_for_parts(site, 1)
    with flight.open("r+b") as file:
        file.seek(20 * MIB)
        file.write(b"another picture")
    assert "DJI_0001.JPG" in site.held("source_changed")
    assert site.requests("complete") == 0
    site.ask("retry")
    site.delivered()
    site.once(held=True)
    (key,) = [key for key, facts in site.cloud.ledger()["objects"].items() if facts["multipart"]]
    assert key.endswith("/DJI_0001_2.JPG")


def test_an_answer_that_takes_as_long_as_it_may(site, flight, monkeypatch):
    """Whoever waits for S3 no longer than `request_timeout` allows does not count as hung."""
    site.fault("part", "stall", seconds=60, skip=1)
    site.start()
    wait_for_parts(site, 1)
    site.kill()
    site.configure(upload={"connections": 1, "multipart_threshold": "8MiB"}, advanced={"request_timeout": "10m"})
    site.cloud.faults.clear()
    site.fault("complete", "delay", seconds=5)
    settings = load(site.config)
    service = Service(settings, load_client(settings.cloud, {}), site.journal(change=True), Room(settings.journal))
    sending = threading.Thread(target=service._transfer.run, daemon=True)
    sending.start()
    until(lambda: site.requests("complete"), "the last call is under way")
    monkeypatch.setattr(beats, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 500))
    late = service._context.beats.late()
    service._context.stop.set()
    sending.join(60)
    service._context.rest.close()
    assert not late
    assert not sending.is_alive()
