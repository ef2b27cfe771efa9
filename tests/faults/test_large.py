"""Large images in trouble: killed at each phase, offline for long, parts lost, uploads that nobody needs any more."""

import hashlib
import os
import time
from types import SimpleNamespace

import pytest
from harness import pad

from pix4d_watcher.cloud.bucket import Bucket, Line
from pix4d_watcher.cloud.credentials import Credentials
from pix4d_watcher.cloud.rest import Rest
from pix4d_watcher.core.errors import SourceChanged
from pix4d_watcher.engine import large
from pix4d_watcher.intake.freeze import BLOCK
from pix4d_watcher.journal import skips, uploads

NAME = "DJI_0001.JPG"
FAR = 3 * 60.0
"""Seconds that no story takes: a request that hangs for so long ends with the story."""

PATIENT = {"request_timeout": "60s"}
"""No part and no completion is sent once more because a busy machine, or the story itself, took its time."""


def configure(site, **advanced):
    """Configure large images from 8 MiB on, sent one part after the other."""
    upload = {"connections": 1, "multipart_threshold": "8MiB"}
    site.configure(upload=upload, advanced={**PATIENT, **advanced})


@pytest.fixture
def flight(site):
    """A dropped folder with one image of three parts and five small ones."""
    configure(site)
    folder = site.prepare()
    pad(folder / NAME, 2 * BLOCK + 100_000)
    return folder.rename(site.drops / "flight") / NAME


def sent(site):
    """Give how often each part of each multipart upload was stored, uploads in their order."""
    found = site.cloud.ledger()["uploads"]
    return [[part["puts"] for _number, part in sorted(upload["parts"].items())] for upload in found]


def states(site):
    return [upload["state"] for upload in site.cloud.ledger()["uploads"]]


def journalled(site):
    """Give the numbers of the parts that the journal has of the large image."""
    known = site.images() if site.look() else []
    image = next((image for image in known if image.path == NAME.encode()), None)
    return set(uploads.parts_of(site.journal(), image, image.upload_id)) if image and image.upload_id else set()


def in_mid_file(site, parts=1, seconds=FAR):
    """Start the service and wait until so many parts are journalled and the next one hangs."""
    site.fault("part", "stall", seconds=seconds, skip=parts, times=None)
    site.start()
    site.until(lambda: len(journalled(site)) == parts and site.requests("part") > parts, "it is in mid-file")


def killed_before_complete(site):
    """Kill the service when all parts are journalled and a Complete, which is never applied, is on the wire."""
    site.fault("complete", "stall", seconds=FAR)
    site.start()
    site.until(lambda: site.requests("complete"), "the completion is on the wire")
    site.kill()
    assert len(journalled(site)) == 3


def finish(site):
    """Let everything work, run until nothing is left to do, check the promise."""
    site.cloud.faults.clear()
    run(site)


def run(site):
    """Run until nothing is left to do, check the promise."""
    assert site.run() == 0
    site.once()


class Stranger:
    """Somebody else in the same bucket: the same project's credentials, uploads that our journal does not know."""

    def __init__(self, site):
        rest = Rest(url=site.cloud.url, client_id="demo-client", client_secret="demo-secret", timeout=60)
        number = site.projects()[0]["id"]
        bucket = Bucket(
            Credentials(lambda: rest.s3_grant(number)), s3_endpoint=site.cloud.url, ca_file=None, timeout=60
        )
        line = Line()
        self.site = site
        self.key = site.cloud.ledger()["uploads"][0]["key"]
        self.uploads = [bucket.initiate(line, key) for key in (self.key, f"{self.key}.other")]
        line.close()
        rest.close()

    def is_left_alone(self):
        """Say whether their uploads are as they were."""
        found = {upload["upload_id"]: upload["state"] for upload in self.site.cloud.ledger()["uploads"]}
        return [found[upload_id] for upload_id in self.uploads] == ["open", "open"]


# Killed at each phase.


def test_begun_without_answer(site, flight):
    """An upload whose id never arrived is begun anew; the empty one is not ours to abort, since no journal knows it."""
    site.fault("initiate", "drop_after")
    run(site)
    assert sent(site) == [[], [1, 1, 1]]
    assert states(site) == ["open", "completed"]
    assert site.requests("abort") == 0


def test_killed_before_complete(site, flight):
    """Killed when all parts had arrived, only the completion is asked again."""
    killed_before_complete(site)
    finish(site)
    assert sent(site) == [[1, 1, 1]]
    assert site.requests("complete") == 2


@pytest.mark.parametrize("story", ["plain", "no list", "answer lost", "no look at what is not there"])
def test_killed_while_the_parts_are_put_together(site, flight, story):
    """A Complete that is still being applied, when neither parts nor object can be seen, is waited for."""
    if story == "no list":
        site.cloud.change(list_parts="off")
    elif story == "answer lost":
        site.fault("part", "delay", seconds=FAR, skip=2)  # longer than anybody waits for an answer
    elif story == "no look at what is not there":
        site.cloud.change(head="present")
    configure(site, doubt_wait="10s", request_timeout="2s" if story == "answer lost" else "60s")
    site.cloud.change(complete_seconds=4.0)  # doubt_wait is much longer, also on a busy machine
    site.start()
    uploads_there = site.cloud.state.uploads
    site.until(lambda: [one for one in uploads_there.values() if one.state == "completing"], "it puts parts together")
    site.kill()
    finish(site)
    assert sent(site) == [[1, 1, 1]]
    assert {facts["puts"] for facts in site.cloud.ledger()["objects"].values()} == {1}


def test_says_that_it_waits_for_the_parts(site, flight):
    """While the object may still come the image says so, and no try is used up."""
    configure(site, doubt_wait="1h")
    killed_before_complete(site)
    (upload,) = site.cloud.state.uploads.values()
    upload.state = "aborted"
    site.start()
    waiting = site.until(lambda: next((image for image in site.images() if image.error), None), "it says why")
    assert "putting them together" in waiting.error
    assert waiting.tries == 0
    assert sent(site) == [[1, 1, 1]]


@pytest.mark.parametrize("list_parts", ["on", "off"])
def test_a_complete_that_never_comes(site, flight, list_parts):
    """An upload that is gone without an object is given up after the wait, and the image is sent once more."""
    site.cloud.change(list_parts=list_parts)
    killed_before_complete(site)
    (upload,) = site.cloud.state.uploads.values()
    upload.state = "aborted"  # by somebody else, or by a rule of the bucket
    finish(site)
    assert sent(site) == [[1, 1, 1], [1, 1, 1]]
    assert states(site) == ["aborted", "completed"]
    assert site.requests("abort") == 0


def test_nothing_may_be_looked_at(site, flight):
    """Where neither parts nor objects may be looked at, a lost completion costs one more sending, and no more."""
    site.cloud.change(list_parts="off", head="off")
    site.fault("complete", "drop_after")
    run(site)
    assert sent(site) == [[1, 1, 1], [1, 1, 1]]


# Offline.


def test_a_night_offline(site, flight):
    """Killed without a link, started without a link, with keys that ended: it goes on inside the file."""
    configure(site, request_timeout="20s")
    site.fault("part", "delay", seconds=10, skip=1, times=None)
    site.start()
    site.until(lambda: journalled(site), "a part has arrived")
    site.unplug()
    site.until(lambda: site.vitals().get("pause"), "it notices")
    before = journalled(site)
    site.restart()
    time.sleep(3)  # some looks at the dead link
    site.cloud.state.expire("credentials")
    site.cloud.state.expire("token")
    assert journalled(site) == before
    site.cloud.faults.clear()
    site.plug()
    site.delivered()
    site.once()
    assert len(sent(site)) == 1
    # Only what was on its way when the link died may have been stored without an answer.
    assert sum(sent(site)[0]) <= 4
    assert not [image.tries for image in site.images() if image.tries]


def test_credentials_end_in_mid_file(site, flight):
    """Keys that S3 refuses between two parts are renewed; nothing is sent twice, nobody hears of it."""
    site.fault("part", "expire_credentials", skip=1)
    run(site)
    assert sent(site) == [[1, 1, 1]]
    assert site.cloud.ledger()["refused"]["part"] == 1
    assert not [text for kind, text in site.events() if kind in ("image", "trouble")]


# Parts that the service lost.


@pytest.mark.parametrize("list_parts", ["on", "off"])
def test_a_part_is_lost_by_the_service(site, flight, list_parts):
    """What ListParts does not show is sent again, alone; where parts may not be listed the whole image is."""
    site.cloud.change(list_parts=list_parts)
    in_mid_file(site, parts=2)
    site.kill()
    (upload,) = site.cloud.state.uploads.values()
    del upload.parts[1]
    finish(site)
    if list_parts == "on":
        assert sent(site) == [[1, 1, 1]]
        assert states(site) == ["completed"]
        assert site.requests("part") == 5  # two, one that hung, and the two that are missing
    else:
        assert sent(site)[1] == [1, 1, 1]
        assert states(site) == ["aborted", "completed"]


def test_the_completion_is_denied(site, flight):
    """A completion that is not allowed holds the project, and once it is, no part is sent again."""
    site.fault("complete", "status", code=403, body="<Error><Code>AccessDenied</Code></Error>")
    site.start()
    assert "AccessDenied" in site.held("cloud_refused")
    site.ask("retry")
    site.delivered()
    site.once(held=True)
    assert sent(site) == [[1, 1, 1]]


# Uploads that nobody needs any more.


def skip(site, _flight):
    skips.skip(site.journal(change=True), site.id_of(), [NAME])


def drop(site, _flight):
    site.ask("drop")


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("verb", [skip, drop])
def test_given_up_in_mid_file(site, flight, verb, running):
    """The upload of an image that is skipped or given up is aborted, in whatever life; nobody else's is touched."""
    in_mid_file(site, seconds=3 if running else FAR)
    stranger = Stranger(site)
    if not running:
        site.kill()
    verb(site, flight)
    site.cloud.faults.clear()
    if not running:
        site.start()
    site.until(lambda: states(site)[0] == "aborted", "it is aborted")
    if verb is skip:
        site.delivered()
        site.once(images=5)
    assert stranger.is_left_alone()
    assert site.requests("abort") == 1
    assert site.requests("list_uploads") == 0


def test_rewritten_in_mid_file(site, flight):
    """The upload of a content that was rewritten is aborted once the new content is accepted."""
    in_mid_file(site)
    site.kill()
    stranger = Stranger(site)
    with flight.open("r+b") as file:
        file.seek(BLOCK + 1000)
        file.write(b"another picture")
    site.cloud.faults.clear()
    site.start()
    site.held("source_changed")
    assert states(site)[0] == "open"
    site.ask("retry")
    site.delivered()
    site.until(lambda: states(site)[0] == "aborted", "it is aborted")
    site.once(held=True)
    assert sent(site)[-1] == [1, 1, 1]
    assert stranger.is_left_alone()


@pytest.mark.parametrize(
    ("trouble", "aborts"),
    [
        ({"do": "drop_before"}, 2),
        ({"do": "drop_after"}, 2),  # the second one finds that it is gone
        ({"do": "status", "code": 503, "body": "<Error><Code>SlowDown</Code></Error>"}, 2),
        ({"do": "status", "code": 403, "body": "<Error><Code>AccessDenied</Code></Error>"}, 1),
    ],
    ids=["lost", "answer lost", "throttled", "refused"],
)
def test_trouble_with_the_abort(site, flight, trouble, aborts):
    """An abort without answer is repeated until it is known; one that is refused is left to the rules of the bucket."""
    in_mid_file(site)
    site.kill()
    site.ask("drop")
    site.cloud.faults.clear()
    site.fault("abort", **trouble)
    assert site.run() == 0
    assert site.requests("abort") == aborts
    assert states(site) == ["open" if aborts == 1 else "aborted"]
    assert site.run() == 0
    assert site.requests("abort") == aborts


def test_taken_up_again_in_mid_file(site, flight):
    """A folder that is taken up again after its parts were aborted sends the image from its first part."""
    in_mid_file(site)
    site.kill()
    site.ask("drop")
    site.cloud.faults.clear()
    assert site.run() == 0
    site.ask("retry")
    finish(site)
    assert sent(site)[1:] == [[1, 1, 1]]
    assert states(site) == ["aborted", "completed"]


# Pauses.


def test_an_image_is_tried_again_when_its_pause_is_over(site):
    """A single image that fails a dozen times is not late by five seconds each time."""
    site.fault("put", "status", code=500, key="*/DJI_0003.JPG", times=12)
    site.drop()
    site.start()
    # Twelve pauses of at most two seconds; each rounded up to the pool's own look they would be a minute.
    site.delivered()
    site.once()
    assert site.cloud.faults.listing()[0]["hits"] == 12


# More parts than S3 allows.


def large_image(size):
    blocks = -(-size // BLOCK)
    return SimpleNamespace(size=size, blocks=bytes(large.DIGEST * blocks), path=b"ortho.tif")


@pytest.mark.parametrize(
    ("blocks", "length"), [(2, 1), (10_000, 1), (10_001, 2), (20_000, 2), (20_001, 3), (600_000, 60)]
)
def test_never_more_than_10_000_parts(blocks, length):
    """Beyond 10,000 blocks a part is several of them, as few as will do."""
    image = large_image(blocks * BLOCK)
    assert large.part_length(image) == length * BLOCK
    assert len(large._numbers(image)) <= large.MOST_PARTS


def test_a_part_of_several_blocks(tmp_path):
    """Its hash is that of its bytes, and each of its blocks is compared with what was frozen."""
    data = os.urandom(2 * BLOCK + 5)
    file = tmp_path / "ortho.tif"
    file.write_bytes(data)
    blocks = b"".join(hashlib.sha256(data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK))
    image = SimpleNamespace(size=len(data), blocks=blocks, path=b"ortho.tif")
    with file.open("r+b", buffering=0) as opened:
        assert large._digest(image, opened.fileno(), 0, len(data)) == hashlib.sha256(data).digest()
        opened.seek(BLOCK + 7)
        opened.write(b"another picture")
        with pytest.raises(SourceChanged, match=f"from byte {BLOCK} on"):
            large._digest(image, opened.fileno(), 0, len(data))


def test_etags_that_are_no_md5():
    """Where parts have other ETags than MD5 the whole object's cannot be told beforehand; its size counts then."""
    image = large_image(2 * BLOCK)
    md5 = hashlib.md5(b"x").hexdigest()
    assert large._expected_etag(image, {1: md5, 2: md5}).endswith("-2")
    assert large._expected_etag(image, {1: md5, 2: "etag-of-another-kind"}) == ""
    assert large._expected_etag(image, {1: md5}) == ""
