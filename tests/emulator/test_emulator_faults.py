"""What scripted faults do to requests, connections and facts."""

import contextlib
import http.client
import time

import pytest
import requests
from botocore.exceptions import ClientError
from emulator_client import answer, until


def projects(pilot):
    return [item["name"] for item in pilot.emulator.ledger()["projects"]]


def create(pilot, name):
    return pilot.session.post(f"{pilot.emulator.url}/project/api/v3/projects/", json={"name": name}, timeout=10)


@pytest.mark.parametrize(("do", "applied"), [("drop_before", False), ("drop_after", True)])
def test_drops(pilot, do, applied):
    """A connection is reset before or after the request was applied, for REST and S3, and the next request is well."""
    pilot.emulator.faults.add({"op": "create", "do": do}, {"op": "put", "do": do})
    with pytest.raises(requests.ConnectionError):
        create(pilot, "second")
    assert ("second" in projects(pilot)) is applied
    target, headers = pilot.signed("PUT", "a.jpg", b"body")
    with pilot.raw() as connection:
        connection.sendall(pilot.head("PUT", target, headers, 4) + b"body")
        with pytest.raises(ConnectionResetError):
            answer(connection)
    assert (pilot.key("a.jpg") in pilot.emulator.ledger()["objects"]) is applied
    assert create(pilot, "third").status_code == 201
    assert pilot.put()


def test_late(pilot):
    """A request whose connection was reset is applied later all the same: REST and S3, body included."""
    late, began = {"do": "late", "seconds": 2.0}, time.monotonic()
    pilot.emulator.faults.add({"op": "create", **late}, {"op": "put", **late})
    with pytest.raises(requests.ConnectionError):
        create(pilot, "second")
    with pytest.raises(ConnectionResetError):
        pilot.send("PUT", "a.jpg", b"body")
    seen = projects(pilot)
    assert seen == ["survey"] or time.monotonic() - began >= late["seconds"]
    until(lambda: projects(pilot) == ["survey", "second"])
    until(lambda: pilot.emulator.ledger()["objects"].get(pilot.key("a.jpg"), {}).get("size") == 4)
    until(lambda: len(list(pilot.emulator.state.directory.iterdir())) == 1)


def test_late_is_applied_before_what_comes_after_it(pilot):
    """Whoever asks when a late request is due finds it applied, however long applying it takes."""
    body = bytes(64 << 20)
    pilot.emulator.faults.add({"op": "put", "do": "late", "seconds": 0.5})
    with pytest.raises(ConnectionResetError):
        pilot.send("PUT", "a.jpg", body)
    time.sleep(0.5)
    pilot.get()
    assert pilot.key("a.jpg") in pilot.emulator.ledger()["objects"]


def test_delay(pilot):
    """A delayed answer is applied at once: the client gives up, the fact stands."""
    pilot.emulator.faults.add({"op": "create", "do": "delay", "seconds": 3600})
    with pytest.raises(requests.ReadTimeout):
        pilot.session.post(f"{pilot.emulator.url}/project/api/v3/projects/", json={"name": "second"}, timeout=1.0)
    until(lambda: projects(pilot) == ["survey", "second"])


def test_statuses(pilot):
    """A status can be answered in place of the request or after it, with headers and body."""
    slow = {"op": "create", "do": "status", "code": 429, "headers": {"Retry-After": "7"}, "body": "slow down"}
    pilot.emulator.faults.add(slow, {"op": "create", "do": "status_after", "code": 504, "content_type": "text/html"})
    first, second = create(pilot, "first"), create(pilot, "second")
    assert (first.status_code, first.headers["Retry-After"], first.text) == (429, "7", "slow down")
    assert (second.status_code, second.headers["Content-Type"], second.text) == (504, "text/html", "")
    assert projects(pilot) == ["survey", "second"]
    assert pilot.emulator.ledger()["refused"] == {"create": 2}


def test_complete_answers_200_with_an_error(fly):
    """CompleteMultipartUpload can answer 200 with an error in its body, and the upload stays open."""
    pilot = fly()
    s3, place = pilot.s3(), {"Bucket": pilot.keys["bucket"], "Key": pilot.key("big.tif")}
    place["UploadId"] = s3.create_multipart_upload(**place)["UploadId"]
    parts = [{"PartNumber": 1, "ETag": s3.upload_part(**place, PartNumber=1, Body=b"x")["ETag"]}]
    body = "<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
    pilot.emulator.faults.add(
        {"op": "complete", "do": "status", "code": 200, "body": body, "content_type": "application/xml"}
    )
    with pytest.raises(ClientError, match="InternalError"):
        s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    assert pilot.emulator.ledger()["uploads"][0]["state"] == "open"
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    assert pilot.emulator.ledger()["uploads"][0]["state"] == "completed"


@pytest.mark.parametrize("size", [200, 3_000_000])
def test_cut_answer(pilot, size):
    """An answer's body breaks off after exactly so many bytes, small or large."""
    pilot.put(body=bytes(size))
    pilot.emulator.faults.add({"op": "get", "do": "cut", "bytes": size // 2})
    target, headers = pilot.signed("GET", "a.jpg")
    received = b""
    with pilot.raw() as connection:
        connection.sendall(pilot.head("GET", target, headers))
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(100_000):
                received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"Content-Length: {size}".encode() in head
    assert len(body) == size // 2


def test_cut_json(pilot):
    """A REST answer can be cut too; what it was about is applied."""
    pilot.emulator.faults.add({"op": "create", "do": "cut", "bytes": 10})
    with pytest.raises(requests.RequestException):
        create(pilot, "second")
    assert projects(pilot) == ["survey", "second"]


def test_cut_body(pilot):
    """The connection breaks after some bytes of the request's body; nothing is applied."""
    pilot.emulator.faults.add({"op": "put", "do": "cut_body", "bytes": 1000})
    target, headers = pilot.signed("PUT", "a.jpg", bytes(50_000_000))
    connection = http.client.HTTPConnection(pilot.emulator.url.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection), pytest.raises(ConnectionError):
        connection.request("PUT", target, bytes(50_000_000), headers)
    assert pilot.emulator.ledger()["objects"] == {}
    assert until(lambda: pilot.emulator.ledger()["received_bytes"] >= 1000)


def test_stall(pilot):
    """Nothing is read or answered for a while, then the connection is reset."""
    pilot.emulator.faults.add({"op": "rest", "do": "stall", "seconds": 0.3})
    with pytest.raises(requests.ConnectionError):
        create(pilot, "second")
    pilot.emulator.faults.add({"op": "create", "do": "stall", "seconds": 3600})
    with pytest.raises(requests.ReadTimeout):
        pilot.session.post(f"{pilot.emulator.url}/project/api/v3/projects/", json={"name": "third"}, timeout=0.3)
    assert projects(pilot) == ["survey"]


def test_expiry_in_the_middle(pilot):
    """All tokens or credentials expire with the n-th request, which is answered as that demands."""
    faults = ({"op": "project", "do": "expire_token", "skip": 1}, {"op": "put", "do": "expire_credentials", "skip": 1})
    pilot.emulator.faults.add(*faults)
    assert [pilot.get().status_code for _ in range(3)] == [200, 401, 401]
    answers = [pilot.send("PUT", "a.jpg", b"x") for _ in range(3)]
    assert [status for status, _ in answers] == [200, 400, 400]
    assert b"ExpiredToken" in answers[1][1]
    pilot.login()
    pilot.renew()
    assert (pilot.get().status_code, pilot.send("PUT", "a.jpg", b"x")[0]) == (200, 200)


def test_wrong_etag(pilot):
    """What is stored is right, only the answer's ETag is not: in the header and in the XML of a Complete."""
    pilot.emulator.faults.add({"op": "put", "do": "wrong_etag"}, {"op": "complete", "do": "wrong_etag"})
    s3, place = pilot.s3(), {"Bucket": pilot.keys["bucket"], "Key": pilot.key("a.jpg")}
    wrong = s3.put_object(**place, Body=b"body")["ETag"]
    assert wrong != s3.head_object(**place)["ETag"]
    place["UploadId"] = s3.create_multipart_upload(**place)["UploadId"]
    parts = [{"PartNumber": 1, "ETag": s3.upload_part(**place, PartNumber=1, Body=b"x")["ETag"]}]
    assert s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})["ETag"] == wrong
    assert pilot.emulator.ledger()["objects"][pilot.key("a.jpg")]["etag"].endswith("-1")


def test_html_and_broken_json(pilot):
    """A captive portal's page comes in place of the request; a body that is no JSON comes after it."""
    pilot.emulator.faults.add({"op": "create", "do": "html"}, {"op": "create", "do": "not_json"})
    portal, broken = create(pilot, "portal"), create(pilot, "broken")
    assert (portal.status_code, portal.headers["Content-Type"], portal.text[:9]) == (200, "text/html", "<!doctype")
    with pytest.raises(requests.JSONDecodeError):
        broken.json()
    assert projects(pilot) == ["survey", "broken"]


def test_which_requests_are_met(pilot):
    """Faults are met by operation, group and glob, after `skip` and for `times`, in the order of their adding."""
    pilot.emulator.faults.add(
        {"op": "s3", "key": "*/b*.jpg", "do": "status", "code": 500, "times": None},
        {"op": "put", "do": "status", "code": 501, "skip": 1, "times": 2},
        {"op": "project", "key": str(pilot.project["id"]), "do": "status", "code": 502},
        {"op": "project", "key": "1", "do": "status", "code": 599},
    )
    names = ("a.jpg", "b.jpg", "a.jpg", "b2.jpg", "a.jpg", "a.jpg")
    assert [pilot.send("PUT", name)[0] for name in names] == [200, 500, 501, 500, 501, 200]
    assert [pilot.get().status_code for _ in range(2)] == [502, 200]
    counts = [(fault["hits"], fault["skipped"]) for fault in pilot.emulator.faults.listing()]
    assert counts == [(2, 0), (2, 1), (1, 0), (0, 0)]
    pilot.emulator.faults.clear()
    assert pilot.emulator.faults.listing() == []
