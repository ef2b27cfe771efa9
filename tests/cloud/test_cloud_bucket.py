"""Objects in trouble: broken answers, credentials and clocks as they are. What S3 promises: `test_cloud_contract`."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cloud_kit import WAIT, Big, Download

from pix4d_watcher.cloud.answers import S3Grant
from pix4d_watcher.cloud.bucket import Bucket, _Ask
from pix4d_watcher.cloud.credentials import Credentials
from pix4d_watcher.cloud.wire import Line
from pix4d_watcher.core import errors

MIB = 1 << 20
GRANT = S3Grant("AKIDEXAMPLE", "s", "t", 3600.0, 0.0, "bucket", "p", "eu-west-1")


def stored(emulator, key):
    return emulator.ledger()["objects"][key]


@pytest.fixture
def put(bucket, line, project):
    """Upload a source under a name and return key and ETag."""

    def do(image, name="a.jpg", **more):
        key = f"{project.prefix}/{name}"
        return key, bucket.put(line, key, image.range(), image.sha256, **more)

    return do


@pytest.fixture
def look(bucket, line):
    """Ask for size and ETag of a key."""
    return lambda key: bucket.head(line, key)


def test_only_below_the_prefix(bucket, line, source):
    """S3's refusal comes with its words."""
    image = source(b"abc")
    with pytest.raises(errors.Refused, match="AccessDenied") as caught:
        bucket.put(line, "user-x/other.jpg", image.range(), image.sha256)
    assert type(caught.value) is errors.Refused


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        ({"do": "drop_before"}, errors.Unanswered),
        ({"do": "drop_after"}, errors.Unanswered),
        ({"do": "cut_body", "bytes": 100_000}, errors.Unanswered),
        ({"do": "html"}, errors.Unanswered),
        ({"do": "status", "code": 500}, errors.Unanswered),
        ({"do": "status", "code": 503, "headers": {"Retry-After": "3"}}, errors.Throttled),
    ],
)
def test_trouble_with_a_put(emulator, put, source, trouble, kind):
    """What breaks on a fresh connection is told as it is, and the same call works afterwards."""
    emulator.faults.add({"op": "put", **trouble})
    image = source(os.urandom(3 * MIB))
    with pytest.raises(kind):
        put(image)
    key, _ = put(image)
    assert stored(emulator, key)["sha256"] == image.sha256.hex()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((200, b"<html><title>Log in</title></html>", 'ETag: W/"13-abc"'), errors.Unanswered),
        ((200, b"<Error><Code>InternalError</Code></Error>", 'ETag: "e"'), errors.Unanswered),
        ((200, b"", 'ETag: "e"', "x-amz-checksum-sha256: ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="), None),
        (
            (200, b"", 'ETag: "e"', "x-amz-checksum-sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
            errors.Corrupted,
        ),
    ],
    ids=["page", "error", "its hash", "another hash"],
)
@pytest.mark.parametrize("call", ["put", "part"])
def test_answers_to_an_upload(raw_server, line, source, call, answer, kind):  # noqa: PLR0917 - what is asked and answered
    """An upload counts as arrived only where S3 itself says so, and names no other hash."""

    def story(visitor, _number):
        visitor.request()
        visitor.answer(*answer)

    endpoint, image = f"http://127.0.0.1:{raw_server(story)}", source(b"abc")
    bucket = Bucket(Credentials(lambda: GRANT), s3_endpoint=endpoint, ca_file=None, timeout=WAIT)
    send, more = (bucket.put, ()) if call == "put" else (bucket.part, ("upload", 1))
    if kind is None:
        assert send(line, "k", *more, image.range(), image.sha256) == "e"
    else:
        with pytest.raises(kind):
            send(line, "k", *more, image.range(), image.sha256)


def test_short_lived_credentials(emulator, put, source):
    """Credentials of two seconds are renewed in time, over as many uploads as it takes."""
    emulator.change(credentials_lifetime=2.0)
    image, pause, took = source(os.urandom(20_000)), threading.Event(), []
    for number in range(30):
        began = time.monotonic()
        put(image, f"{number}.jpg")
        took.append(time.monotonic() - began)
        pause.wait(0.1)
    ledger = emulator.ledger()
    assert len(ledger["objects"]) == 30
    assert 2 <= ledger["credentials"] < 30
    # They are renewed half a second before their end: only an upload that was held up for about as long may be refused.
    assert ledger["refused"].get("put", 0) <= sum(seconds > 0.3 for seconds in took)


def test_expired_credentials_are_renewed_and_the_request_replayed(emulator, put, source):
    """Credentials that are refused in the middle cost one refused request."""
    image = source(os.urandom(2 * MIB))
    put(image, "a.jpg")
    emulator.expire("credentials")
    key, _ = put(image, "b.jpg")
    assert stored(emulator, key)["puts"] == 1
    assert (emulator.ledger()["credentials"], emulator.ledger()["refused"]) == (2, {"put": 1})


def test_credentials_refused_twice(emulator, put, source):
    """Fresh credentials that are refused as well are an error, after two requests."""
    body = "<Error><Code>InvalidToken</Code><Message>No.</Message></Error>"
    emulator.faults.add({"op": "put", "do": "status", "code": 400, "body": body, "times": None})
    with pytest.raises(errors.CredentialsExpired):
        put(source(b"abc"))
    assert emulator.ledger()["requests"]["put"] == 2


def test_credentials_expire_behind_an_old_proxy(raw_server, line, source):
    """Credentials are renewed also where a proxy ends the refusal by closing the connection."""
    grants = iter([GRANT, replace(GRANT, access_key="AKIDANOTHER")])

    def story(visitor, _number):
        head, _body = visitor.request()
        if b"AKIDANOTHER" in head:
            visitor.answer(200, b"", 'ETag: "e"')
        else:
            visitor.say(b"HTTP/1.0 400 X\r\n\r\n<Error><Code>ExpiredToken</Code></Error>")

    endpoint, image = f"http://127.0.0.1:{raw_server(story)}", source(b"abc")
    bucket = Bucket(Credentials(lambda: next(grants)), s3_endpoint=endpoint, ca_file=None, timeout=WAIT)
    assert bucket.put(line, "k", image.range(), image.sha256) == "e"


def test_one_renewal_for_many_threads(emulator, bucket, project, source):
    """Eight threads whose credentials expire at once fetch new ones once."""
    images = [source(os.urandom(200_000)) for _ in range(8)]
    gate = threading.Barrier(8, action=lambda: emulator.expire("credentials"))

    def upload(number):
        own = Line()
        try:
            key = f"{project.prefix}/{number}.jpg"
            bucket.put(own, key, images[number].range(), images[number].sha256)
            gate.wait(WAIT)
            bucket.put(own, key, images[number].range(), images[number].sha256)
        finally:
            own.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(upload, range(8)))
    ledger = emulator.ledger()
    assert ledger["credentials"] == 2
    assert {item["puts"] for item in ledger["objects"].values()} == {2}


@pytest.mark.parametrize("skew", [-1200.0, 1200.0])
def test_a_clock_that_is_off(emulator, put, credentials, source, skew):
    """Twenty minutes are measured with the credentials, reported, and corrected before anything is refused."""
    emulator.change(clock_skew=skew)
    put(source(b"abc"))
    assert emulator.ledger()["refused"] == {}
    assert abs(credentials.skew - skew) < 5


def test_a_clock_that_jumps(emulator, put, credentials, source):
    """A clock that goes off between two uploads is corrected from S3's own answer."""
    put(source(b"abc"), "a.jpg")
    emulator.change(clock_skew=3600.0)
    put(source(b"abc"), "b.jpg")
    assert emulator.ledger()["refused"] == {"put": 1}
    assert abs(credentials.skew - 3600.0) < 5


def test_a_failing_renewal():
    """It is no error while the old credentials hold, and one as soon as they do not."""
    fetched = []

    def fetch():
        fetched.append(None)
        if len(fetched) > 1:
            raise errors.Unanswered("no answer")
        return replace(GRANT, expires_in=10_000.0)

    credentials = Credentials(fetch)
    for used, fetches in ((0.0, 1), (7_000.0, 1), (1_000.0, 2)):
        credentials._held = credentials._held and replace(credentials._held, since=credentials._held.since - used)
        assert credentials.current().access_key == GRANT.access_key
        assert len(fetched) == fetches
    credentials._held = replace(credentials._held, since=credentials._held.since - 2_000.0)
    with pytest.raises(errors.Unanswered):
        credentials.current()


def test_secrets_do_not_show(emulator, rest, bucket, credentials, put, source):  # noqa: PLR0917 - all that holds secrets
    """No key, token or signature is in an error or in what objects show of themselves."""
    grant = credentials.current()
    secrets = {grant.access_key, grant.secret_key, grant.session_token, rest.token.value(), "demo-secret"}
    told = f"Credential={grant.access_key}/20260101 Signature=0a1b2c"
    body = f"<Error><Code>AccessDenied</Code><Message>{told}</Message></Error>"
    emulator.faults.add({"op": "put", "do": "drop_before"}, {"op": "put", "do": "status", "code": 403, "body": body})
    image, texts = source(b"abc"), [repr(grant), repr(credentials), repr(bucket), repr(rest), repr(rest.token)]
    for kind in (errors.Unanswered, errors.Refused):
        with pytest.raises(kind) as caught:
            put(image)
        texts += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    assert not [secret for secret in secrets for text in texts if secret in text]


@pytest.fixture
def big(bucket, line, project):
    """A multipart upload of `big.tif`."""
    return Big(bucket, line, f"{project.prefix}/big.tif")


def page_of_parts(numbers, *, more):
    """Write what S3 answers to ListParts."""
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;e{number}&quot;</ETag><Size>{number * 10}</Size></Part>"
        for number in numbers
    )
    head = f"<IsTruncated>{str(more).lower()}</IsTruncated><NextPartNumberMarker>{numbers[-1]}</NextPartNumberMarker>"
    return f'<?xml version="1.0"?><ListPartsResult xmlns="http://x/">{head}{rows}</ListPartsResult>'.encode()


def test_many_parts_are_listed_page_by_page(raw_server, line):
    """More parts than one answer holds are all listed, each page from the last part of the one before."""
    asked = []

    def story(visitor, _number):
        for page in (page_of_parts([1, 2, 1000], more=True), page_of_parts([1001, 1003], more=False)):
            asked.append(visitor.head().split()[1])
            visitor.answer(200, page)

    endpoint = f"http://127.0.0.1:{raw_server(story)}"
    bucket = Bucket(Credentials(lambda: GRANT), s3_endpoint=endpoint, ca_file=None, timeout=WAIT)
    parts = bucket.list_parts(line, "k", "u/1")
    assert parts == {number: (f"e{number}", number * 10) for number in (1, 2, 1000, 1001, 1003)}
    assert asked == [b"/bucket/k?uploadId=u%2F1", b"/bucket/k?part-number-marker=1000&uploadId=u%2F1"]


def test_abort(emulator, bucket, line, big):
    """A given-up upload is gone, and giving it up again says so."""
    bucket.abort(line, big.key, big.id)
    assert [upload["state"] for upload in emulator.ledger()["uploads"]] == ["aborted"]
    with pytest.raises(errors.NotThere):
        bucket.abort(line, big.key, big.id)


@pytest.mark.parametrize(
    ("code", "kind"), [("InternalError", errors.Unanswered), ("SlowDown", errors.Throttled), ("", errors.Unanswered)]
)
def test_complete_with_an_error_inside(emulator, big, source, code, kind):
    """A 200 whose body is an error, or nothing, is no success."""
    etags = {1: big.part(1, source(b"x"))}
    body = f"<Error><Code>{code}</Code><Message>We are sorry.</Message></Error>" if code else ""
    emulator.faults.add({"op": "complete", "do": "status", "code": 200, "body": body})
    with pytest.raises(kind):
        big.complete(etags)
    assert big.complete(etags)


def test_a_lost_complete_is_not_repeated(emulator, big, look, source):
    """What becomes of a complete whose answer is lost is for the caller to look up."""
    etags = {1: big.part(1, source(b"x"))}
    emulator.faults.add({"op": "complete", "do": "drop_after"})
    with pytest.raises(errors.Unanswered):
        big.complete(etags)
    assert emulator.ledger()["requests"]["complete"] == 1
    assert look(big.key)[0] == 1


def test_head(emulator, look, put, source):
    """Size and ETag, None for nothing, a refusal where looking is not allowed, renewal where keys are too old."""
    key, etag = put(source(b"abc"))
    assert look(key) == (3, etag)
    assert look(key + "x") is None
    emulator.expire("credentials")
    assert look(key) == (3, etag)
    emulator.change(head="off")
    with pytest.raises(errors.Refused) as caught:
        look(key)
    assert type(caught.value) is errors.Refused


def test_a_download_that_breaks_goes_on(emulator, bucket, line, put, source):
    """What came before the break is good, and the rest comes from there on."""
    image = source(os.urandom(2 * MIB))
    key, etag = put(image)
    emulator.faults.add({"op": "get", "do": "cut", "bytes": 1_500_000})
    got = Download()
    with pytest.raises(errors.Unanswered):
        bucket.get(line, key, if_match=etag, write=got)
    assert 0 < len(got.data) <= 1_500_000
    bucket.get(line, key, start=len(got.data), if_match=etag, write=got)
    assert got.data == image.data


def test_a_login_page_is_no_download(emulator, bucket, line, put, source):
    """HTML with a 200 is not written as if it were the object."""
    key, _ = put(source(b"abc"))
    emulator.faults.add({"op": "get", "do": "html"})
    got = Download()
    with pytest.raises(errors.Unanswered):
        bucket.get(line, key, write=got)
    assert got.data == b""


@pytest.mark.parametrize(
    ("key", "headers", "is_page"),
    [
        ("ortho.tif", ["Content-Type: text/html; charset=utf-8"], True),
        ("ortho.tif", ["Content-Type: text/html", "x-amz-request-id: 4442587FB7D0A2F9"], False),
        ("report.HTML", ["Content-Type: text/html"], False),
        ("ortho.tif", ["Content-Type: image/tiff"], False),
    ],
)
def test_a_login_page_with_an_etag(raw_server, line, key, headers, is_page):
    """HTML that is not of S3 is no object, also with an ETag and in the middle of one; a report in HTML is."""
    page = b"<html><title>Log in</title></html>"

    def story(visitor, _number):
        visitor.request()
        visitor.answer(200, page, 'ETag: "13-abc"', *headers)

    endpoint = f"http://127.0.0.1:{raw_server(story)}"
    bucket = Bucket(Credentials(lambda: GRANT), s3_endpoint=endpoint, ca_file=None, timeout=WAIT)
    got = Download()
    if is_page:
        for known in (None, "of what was fetched so far"):
            with pytest.raises(errors.Unanswered, match="a page of HTML"):
                bucket.get(line, key, if_match=known, write=got)
    else:
        assert bucket.get(line, key, write=got) == (len(page), "13-abc")
    assert got.data == (b"" if is_page else page)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((200, b"0123456789", 'ETag: "e"'), b"456789"),
        ((206, b"456789", 'ETag: "e"', "Content-Range: bytes 4-9/10"), b"456789"),
        ((206, b"3456789", 'ETag: "e"', "Content-Range: bytes 3-9/10"), errors.Unanswered),
        ((206, b"4567", 'ETag: "e"', "Content-Range: bytes 4-7/10"), errors.Unanswered),
        ((206, b"45678", 'ETag: "e"', "Content-Range: bytes 4-9/10"), errors.Unanswered),
        ((206, b"456789", 'ETag: "e"'), errors.Unanswered),
        ((200, b"0123456789"), errors.Unanswered),
    ],
)
def test_answers_to_a_range(raw_server, line, answer, outcome):
    """A service that ignores ranges is understood, one that answers another range is not believed."""

    def story(visitor, _number):
        assert b"range: bytes=4-\r\n" in visitor.head()
        visitor.answer(*answer)

    endpoint = f"http://127.0.0.1:{raw_server(story)}"
    bucket = Bucket(Credentials(lambda: GRANT), s3_endpoint=endpoint, ca_file=None, timeout=WAIT)
    got = Download()
    if isinstance(outcome, bytes):
        assert bucket.get(line, "k", start=4, write=got) == (10, "e")
        assert got.data == outcome
    else:
        with pytest.raises(outcome):
            bucket.get(line, "k", start=4, write=got)


@pytest.mark.parametrize("status", [200, 206])
@pytest.mark.parametrize(("known", "now"), [("old", '"new"'), ("old", 'W/"old"'), ('W/"old"', 'W/"new"')])
def test_another_object_in_the_middle(raw_server, line, status, known, now):
    """A download never goes on in another object, also where a cache on the way does not look at If-Match."""

    def story(visitor, _number):
        visitor.request()
        body = b"0123456789" if status == 200 else b"456789"
        visitor.answer(status, body, f"ETag: {now}", *(["Content-Range: bytes 4-9/10"] if status == 206 else []))

    endpoint = f"http://127.0.0.1:{raw_server(story)}"
    bucket = Bucket(Credentials(lambda: GRANT), s3_endpoint=endpoint, ca_file=None, timeout=WAIT)
    got = Download()
    with pytest.raises(errors.Conflict, match="another object"):
        bucket.get(line, "k", start=4, if_match=known, write=got)
    assert got.data == b""


def test_a_weak_etag(raw_server, line):
    """A download whose ETag something on the way made weak goes on, and does not ask by what can never match."""
    heads = []

    def story(visitor, _number):
        for first in (0, 5):
            heads.append(visitor.head())
            visitor.answer(206, b"01234", 'ETag: W/"e"', f"Content-Range: bytes {first}-{first + 4}/10")

    endpoint = f"http://127.0.0.1:{raw_server(story)}"
    bucket = Bucket(Credentials(lambda: GRANT), s3_endpoint=endpoint, ca_file=None, timeout=WAIT)
    got = Download()
    _size, etag = bucket.get(line, "k", size=5, write=got)
    assert bucket.get(line, "k", start=5, size=5, if_match=etag, write=got) == (10, 'W/"e"')
    assert got.data == b"0123401234"
    assert not [head for head in heads if b"if-match" in head]


@pytest.mark.parametrize(
    ("changes", "endpoint", "asked", "expected"),
    [
        ({}, None, {}, "https://bucket.s3.eu-west-1.amazonaws.com/p/a%20b"),
        ({"bucket": "my.bucket"}, None, {}, "https://s3.eu-west-1.amazonaws.com/my.bucket/p/a%20b"),
        ({"accelerated": True}, None, {}, "https://bucket.s3-accelerate.amazonaws.com/p/a%20b"),
        ({"accelerated": True, "bucket": "a.b"}, None, {}, "https://s3.eu-west-1.amazonaws.com/a.b/p/a%20b"),
        ({"accelerated": True, "endpoint_override": "s3.x"}, None, {}, "https://s3.x/bucket/p/a%20b"),
        ({"endpoint_override": "http://s3.x:81/s/"}, None, {}, "http://s3.x:81/s/bucket/p/a%20b"),
        ({"endpoint_override": "s3.x"}, "http://127.0.0.1:9000", {}, "http://127.0.0.1:9000/bucket/p/a%20b"),
        ({}, None, {"bucket": "other", "region": "ap-1"}, "https://other.s3.ap-1.amazonaws.com/p/a%20b"),
        ({"accelerated": True}, None, {"bucket": "other"}, "https://other.s3.eu-west-1.amazonaws.com/p/a%20b"),
    ],
)
def test_where_objects_are_asked_for(changes, endpoint, asked, expected):
    """Our endpoint wins over the service's override, that over acceleration, and that over the region's host."""
    fields = {name: getattr(GRANT, name) for name in GRANT.__slots__} | changes
    bucket = Bucket(Credentials(lambda: GRANT), s3_endpoint=endpoint, ca_file=None, timeout=WAIT)
    origin, path = bucket._address(_Ask("GET", "p/a b", "x", {}, {}, **asked), S3Grant(**fields))
    assert origin.url + path == expected


def test_an_impossible_address(line):
    """An override that is no address sends nothing."""
    grant = S3Grant("AKIDEXAMPLE", "s", "t", 3600.0, 0.0, "bucket", "p", endpoint_override="ftp://x")
    bucket = Bucket(Credentials(lambda: grant), s3_endpoint=None, ca_file=None, timeout=WAIT)
    with pytest.raises(errors.NotSent):
        bucket.head(line, "k")


def test_the_services_own_override(emulator, credentials, line, source):
    """An endpoint_override in the credentials is used."""
    emulator.change(endpoint_override=emulator.url)
    key, image = f"{credentials.current().prefix}/a.jpg", source(b"abc")
    bucket = Bucket(credentials, s3_endpoint=None, ca_file=None, timeout=WAIT)
    bucket.put(line, key, image.range(), image.sha256)
    assert stored(emulator, key)["size"] == 3
