"""The service of the cloud and what stands before it: bursts, expiries, nonsense, changed bytes; whole flights."""

import hashlib
import json
import random
import re
import time
from email.utils import formatdate

import pytest
from middle import DOWN, UP, Middle

REST = ("token", "create", "project", "credentials", "register", "start", "outputs")
S3 = ("put", "initiate", "part", "complete", "get")
MIB = 1 << 20
MARK = b"the bytes that are looked for"
MARKS = (MARK + b" in parts", MARK + b" in one")


def told(site, *words):
    """List the lines of the log in which all the words are."""
    return [line for line in site.log.read_text().splitlines() if all(word in line for word in words)]


def insert(image, data):
    """Put data into a JPEG as comments, which every reader skips."""
    content = image.read_bytes()
    pieces = [data[at : at + 65533] for at in range(0, len(data), 65533)]
    comments = b"".join(b"\xff\xfe" + (len(piece) + 2).to_bytes(2, "big") + piece for piece in pieces)
    image.write_bytes(content[:2] + comments + content[2:])


@pytest.fixture
def flight(site):
    """A dropped folder of six images, the first of which goes in two parts; its results are fetched."""
    site.cloud.change(project_list="on")
    configure(site)
    folder = site.prepare()
    insert(folder / "DJI_0001.JPG", random.Random(1).randbytes(10 * MIB) + MARKS[0])
    insert(folder / "DJI_0002.JPG", MARKS[1])
    return folder.rename(site.drops / "flight")


def configure(site, *, connections=2, retry_max="1s", **more):
    """Configure large images from 8 MiB on, results, and short pauses, so that a burst is over within a test."""
    upload = {"connections": connections, "multipart_threshold": "8MiB"}
    advanced = {"retry_max": retry_max, "doubt_wait": "2s", "request_timeout": "20s"}
    site.configure(results=True, outputs=["ortho", "dsm"], upload=upload, advanced=advanced, **more)


def whole(site, *, held=False):
    """Check the promise, and the results byte for byte."""
    site.once(held=held)
    held = {key.rpartition("/")[2]: facts["sha256"] for key, facts in site.cloud.ledger()["outputs"].items()}
    place = site.results / "survey" / "flight"
    for name in ("ortho.tif", "dsm.tif"):
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == held[name]
    assert (place / ".complete").exists()


BURSTS = {
    "500": {"do": "status", "code": 500},
    "502 of a proxy": {"do": "status", "code": 502, "body": "<html>Bad Gateway</html>", "content_type": "text/html"},
    "503": {"do": "status", "code": 503},
    "503 after applying": {"do": "status_after", "code": 503},
    "SlowDown": {"do": "status", "code": 503, "body": "<Error><Code>SlowDown</Code><Message>Less.</Message></Error>"},
    "429": {"do": "status", "code": 429},
    "429 with Retry-After": {"do": "status", "code": 429, "headers": {"Retry-After": "1"}},
    "no JSON": {"do": "not_json"},
    "cut": {"do": "cut", "bytes": 10},
    "reset": {"do": "drop_before"},
}


@pytest.mark.parametrize("burst", BURSTS)
def test_burst_on_every_call(site, flight, burst):
    """Whatever every single call meets twice in a row, the flight is delivered, once, and nobody is asked."""
    site.cloud.faults.add(*({"op": op, "times": 2, **BURSTS[burst]} for op in (*REST, *S3)))
    assert site.run() == 0
    whole(site)
    # An effect that was applied is found out, and not asked for again.
    applied = BURSTS[burst]["do"] in ("status_after", "not_json", "cut")
    calls = {fault["op"]: fault["hits"] for fault in site.cloud.faults.listing()}
    assert all(hits == 2 or (applied and hits == 1) for hits in calls.values())


def test_token_expires_at_every_call(site, flight):
    """A token that ends with any call is renewed, and nobody hears of it."""
    site.cloud.faults.add(*({"op": op, "do": "expire_token"} for op in REST[1:]))
    assert site.run() == 0
    whole(site)
    assert [fault["hits"] for fault in site.cloud.faults.listing()] == [1] * len(REST[1:])
    assert not told(site, "level=warning")
    assert {image.tries for image in site.images()} == {0}


def test_credentials_expire_at_every_call(site, flight):
    """S3 credentials that end with any call, inside a file too, are renewed, and nobody hears of it."""
    configure(site, connections=1)  # with two, the replay of one call would meet the end that another one brings
    site.cloud.faults.add(*({"op": op, "do": "expire_credentials"} for op in S3))
    assert site.run() == 0
    whole(site)
    assert [fault["hits"] for fault in site.cloud.faults.listing()] == [1] * len(S3)
    assert not told(site, "level=warning")
    assert {image.tries for image in site.images()} == {0}


def test_wrong_etag_of_every_call(site, flight):
    """An ETag that is not that of what arrived costs another try at most, of an upload and of a download alike."""
    site.cloud.faults.add(*({"op": op, "do": "wrong_etag"} for op in ("put", "part", "complete", "get")))
    assert site.run() == 0
    whole(site)


def asked_once(site, call, name):
    """Drop a folder whose `call` is answered once with 429, and wait until that has come."""
    before = len(site.cloud.faults.listing())
    site.cloud.faults.add({"op": call, "do": "status", "code": 429, "headers": {"Retry-After": WAITS[name]}})
    site.drop(name)
    site.until(lambda: site.cloud.faults.listing()[before]["hits"] == 1, f"{call} is answered with 429")


WAITS = {
    "year": str(365 * 86400),
    "date": formatdate(time.time() + 365 * 86400, usegmt=True),
    "image": "100000",
}


def test_patience_without_measure(site):
    """A Retry-After of a year is no reason to ask at once, nor for a day of silence; other folders go on."""
    site.start()
    asked_once(site, "create", "year")
    asked_once(site, "start", "date")
    asked_once(site, "put", "image")
    site.until(lambda: site.look("image")["images"]["uploaded"] == 5, "the other images go on")
    before = [site.requests(call) for call in ("create", "put", "start")]
    time.sleep(3)
    assert [site.requests(call) for call in ("create", "put", "start")] == before
    site.drop()
    site.delivered()
    site.once()
    for name in ("year", "date"):
        assert "429" in site.look(name)["waiting_for"]
    ahead = [row["due_at"] for row in site.status() if row["folder"] in ("year", "date")]
    assert all(due < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 700)) for due in ahead)


def test_no_token_for_long(site):
    """A service that gives out no tokens is asked in its own time, told of once, and costs nobody a try."""
    site.fault("token", "status", code=429, headers={"Retry-After": "3"}, times=2)
    site.drop("first")
    site.start()
    site.delivered("first")
    assert site.requests("token") == 3
    assert len(told(site, "Access token")) <= 2
    site.cloud.expire("token")
    site.fault("token", "status", code=500, times=None)
    site.drop()
    site.until(lambda: site.vitals().get("pause"), "the service says that it is paused")
    assert "Access token" in site.vitals()["pause"]["text"]
    time.sleep(4)
    assert {row["tries"] for row in site.status()} == {0}
    assert len(told(site, "event=paused")) == 1
    site.cloud.faults.clear()
    site.delivered()
    site.once()


LOGIN = "<!doctype html><title>Log in to this network</title>"
PORTALS = {
    "200": {"code": 200, "body": LOGIN, "content_type": "text/html"},
    "302": {"code": 302, "body": LOGIN, "content_type": "text/html", "headers": {"Location": "http://login.test/?c=1"}},
    "302 without a body": {"code": 302, "headers": {"Location": "http://login.test/"}},
    "403": {"code": 403, "body": "<html><title>Blocked</title></html>", "content_type": "text/html"},
    "407": {"code": 407, "body": LOGIN, "content_type": "text/html"},
    "511": {"code": 511, "body": LOGIN, "content_type": "text/html"},
}


@pytest.mark.parametrize("group", ["*", "s3"], ids=["everything", "storage"])
def test_login_page_in_mid_upload(site, group):
    """Whatever a captive portal or a proxy answers in the service's place, it is the world's: no hold, no person."""
    site.configure(upload={"connections": 2})
    site.fault("put", "delay", seconds=0.4, times=None)
    site.drop(count=150)
    site.start("--until-idle")
    for number, (name, portal) in enumerate(PORTALS.items()):
        done = len([image for image in site.images() if image.status != "pending"]) if number else 0
        site.until(lambda done=done: site.look() and site.look()["images"]["uploaded"] > done, "images are uploaded")
        site.cloud.faults.clear()
        site.fault(group, "status", **portal, times=None)
        site.until(lambda: site.vitals().get("pause"), f"paused by {name}")
        assert not site.look()["hold"]
        site.cloud.faults.clear()
        site.fault("put", "delay", seconds=0.4, times=None)
        site.until(lambda: not site.vitals().get("pause"), f"going on after {name}")
    site.cloud.faults.clear()
    assert site.ended(60) == 0
    site.once(images=150)


@pytest.mark.parametrize("code", [403, 404])
@pytest.mark.parametrize("state", ["settled", "started"])
def test_a_firewall_blocks_everything(site, state, code):
    """A block page refuses no project and makes none vanish: everything pauses, and goes on without a person."""
    site.cloud.change(processing_seconds=60.0)
    page = {"code": code, "body": "<html><title>Blocked</title></html>", "content_type": "text/html", "times": None}
    if state == "settled":
        site.fault("create", "status", **page)
        site.fault("list", "status", **page)
        site.fault("token", "status", **page, skip=1)
    site.drop()
    site.start()
    if state == "started":
        site.reach("started")
        site.fault("*", "status", **page)
    site.until(lambda: site.vitals().get("pause"), "everything is paused")
    assert not site.look()["hold"]
    site.cloud.change(processing_seconds=0.0)
    site.cloud.faults.clear()
    site.delivered()
    site.once()


@pytest.mark.parametrize("minutes", [20, -20])
def test_clock_is_off(site, flight, minutes):
    """A clock that is 20 minutes off is corrected for, and said: in the log once, and in what `status` shows."""
    site.cloud.change(clock_skew=minutes * 60.0)
    site.start()
    site.delivered()
    whole(site)
    site.until(lambda: abs((site.vitals().get("skew") or 0) - minutes * 60) < 10, "the vitals show it")
    (line,) = told(site, "clock differs from the cloud's")
    assert abs(int(re.search(r"seconds=(-?\d+)", line)[1]) - minutes * 60) < 10
    assert not site.cloud.ledger()["refused"]


def test_bytes_change_on_the_way(site, flight):
    """A byte that changes on the way is refused by the service, or found out when it arrived, and sent once more."""
    with Middle(site.cloud.url) as middle:
        configure(site, cloud={"s3_endpoint": middle.url})
        site.cloud.change(output_bytes=700_000)
        site.fault("get", "status", code=429, times=None)  # until it is known what to change in the results
        for mark in MARKS:
            middle.flip(UP, mark)
        site.start("--until-idle")
        site.reach("processed")
        assert middle.done == ["flip", "flip"]
        refused = site.cloud.ledger()["refused"]
        assert (refused["put"], refused["part"]) == (1, 1)
        content = site.until(lambda: _output(site, "ortho.tif"), "the result is made")
        middle.flip(DOWN, content[100_000:100_100])
        middle.flip(DOWN, content[600_000:600_100])
        site.cloud.faults.clear()
        assert site.ended(90) == 0
        assert len(middle.done) == 4
    whole(site)
    assert told(site, "failed", "MD5")


def _output(site, name):
    found = [item for key, item in site.cloud.state.outputs.items() if key.endswith(name)]
    return found[0].content.path.read_bytes() if found else None


def test_results_whose_etag_is_no_hash(site, flight):
    """Bytes that arrive twice the same are believed, whatever their ETag: under encryption it is no MD5."""
    site.fault("get", "wrong_etag", times=None)
    assert site.run() == 0
    whole(site)


def test_firewall_dislikes_one_image(site, flight):
    """What is reset because of the bytes of one image, small or large, counts against these; the others go on."""
    with Middle(site.cloud.url) as middle:
        # The images whose bytes are disliked must not have used up their tries before the other folder is delivered.
        configure(site, cloud={"s3_endpoint": middle.url}, retry_max="10s")
        middle.reset(UP, MARK)
        site.start("--until-idle")
        site.until(lambda: site.look() and site.look()["images"]["uploaded"] == 4, "the others are uploaded")
        site.until(lambda: all(site.images()[at].tries >= 2 for at in (0, 1)), "the two are tried again")
        site.drop("other")
        site.delivered("other")
        middle.clear()
        assert site.ended(90) == 0
    whole(site)


DELETED = {
    "created": {"op": "put", "do": "status", "code": 429},
    "uploaded": {"op": "register", "do": "status", "code": 429},
    "registered": {"op": "start", "do": "status", "code": 429},
    "started": {"op": "project", "do": "delay", "seconds": 0.2},
    "processed": {"op": "get", "do": "status", "code": 429},
}


def test_deleted_in_the_cloud_at_every_state(site):
    """A project that somebody deletes in the cloud is held in any state and never made anew; others go on."""
    configure(site)
    site.start()
    for state, fault in DELETED.items():
        site.cloud.change(processing_seconds=60.0 if state == "started" else 0.0)
        site.fault(times=None, **fault)
        site.drop(state)
        site.reach(state, state)
        site.cloud.by_hand(site.projects(state)[0]["id"], "delete")
        if state == "created":
            site.cloud.faults.clear()  # while its images wait nobody asks for the project
        assert "not in the cloud any more" in site.held("cloud_refused", state)
        site.cloud.faults.clear()
    site.cloud.change(processing_seconds=0.0)
    site.drop()
    site.delivered()
    whole(site)
    assert site.requests("create") == len(DELETED) + 1


def test_a_person_decides_during_a_slow_answer(site):
    """A start that a person allows while the cloud is being asked is not lost to the look that began before."""
    site.configure(start="manual", poll="1s", advanced={"request_timeout": "10s"})
    site.fault("project", "delay", seconds=2.0, skip=2, times=None)
    site.drop()
    site.start()
    site.held("manual_start")
    asked = site.requests("project")
    site.until(lambda: site.requests("project") > asked, "the cloud is asked again")
    site.ask("start")
    site.delivered()
    site.once(held=True)


def test_more_were_taken(site):
    """An answer that names more images than were sent is no reason to stop: what counts is that all of them are in."""
    body = json.dumps({"nb_images_registered": 99})
    site.fault("register", "status_after", code=200, body=body, content_type="application/json")
    site.drop()
    assert site.run() == 0
    site.once()


MAD = {
    "nested": "[" * 200_000,
    "nested a little": '{"a":' * 400 + "1" + "}" * 400,
    "giant": " " * (17 * MIB) + "{}",
    "huge number": json.dumps({"id": 2**70, "bucket_name": "b", "s3_base_path": "p", "image_count": 2**80}),
    "half characters": '{"id": "\\ud800", "access_key": "\\udfff"}',
    "a list": "[1, 2, 3]",
    "nothing": "",
}


@pytest.mark.parametrize("mad", MAD)
def test_mad_answers(site, mad):
    """No answer ends the service, however mad: it counts as none."""
    answer = {"code": 200, "body": MAD[mad], "content_type": "application/json"}
    ops = ("token", "create", "project", "credentials", "outputs", "put", "get")
    site.cloud.faults.add(*({"op": op, "do": "status", **answer} for op in ops))
    site.cloud.faults.add(*({"op": op, "do": "status_after", **answer} for op in ("register", "start")))
    configure(site)
    site.drop()
    assert site.run() == 0
    whole(site)
