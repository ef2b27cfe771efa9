"""What happens to bodies: their encodings, their promises, their ends."""

import base64
import hashlib
import io
import time
import zlib

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from emulator_client import answer, until

from pix4d_watcher.emulator import sigv4
from pix4d_watcher.emulator.checksums import ALGORITHMS

EMPTY = hashlib.sha256().hexdigest()
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
DELAYED = 0.04
"""Seconds that Linux delays an acknowledgement, for which a server that gathers small packets waits."""


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("crc32", "cbf43926"),
        ("crc32c", "e3069283"),
        ("crc64nvme", "ae8b14860a799888"),
        ("sha1", hashlib.sha1(b"123456789").hexdigest()),
        ("sha256", hashlib.sha256(b"123456789").hexdigest()),
    ],
)
def test_published_check_values(pilot, name, check):
    """Each checksum has its published value for 123456789, is compared with what was sent, and is answered."""
    checksum = ALGORITHMS[name]()
    checksum.update(memoryview(b"1234"))
    checksum.update(memoryview(b"56789"))
    assert checksum.digest().hex() == check
    right = {f"x-amz-checksum-{name}": base64.b64encode(bytes.fromhex(check)).decode()}
    assert pilot.send("PUT", "a.jpg", b"123456789", **right)[0] == 200
    status, body = pilot.send("PUT", "b.jpg", b"12345678", **right)
    assert (status, b"<Code>BadDigest</Code>" in body) == (400, True)
    assert list(pilot.emulator.ledger()["objects"]) == [pilot.key("a.jpg")]


def test_corrupted_payload_is_not_stored(pilot):
    """A body that is not the one whose hash was signed is refused and leaves nothing, not even a file."""
    status, body = pilot.send("PUT", "a.jpg", b"frozen", sent=b"FROZEN")
    assert (status, b"<Code>XAmzContentSHA256Mismatch</Code>" in body) == (400, True)
    right = base64.b64encode(hashlib.md5(b"frozen").digest()).decode()
    for promise, code in ((right, b"BadDigest"), ("nonsense", b"InvalidDigest")):
        sending = {"payload": "UNSIGNED-PAYLOAD", "sent": b"FROZEN", "Content-MD5": promise}
        status, body = pilot.send("PUT", "a.jpg", b"frozen", **sending)
        assert (status, b"<Code>" + code in body) == (400, True)
    assert pilot.emulator.ledger()["objects"] == {}
    assert list(pilot.emulator.state.directory.iterdir()) == []
    assert pilot.send("PUT", "a.jpg", b"FROZEN", payload="UNSIGNED-PAYLOAD")[0] == 200


def trailer_put(pilot, body, encoded, **more):
    headers = {
        "x-amz-decoded-content-length": str(len(body)),
        "x-amz-trailer": "x-amz-checksum-crc32",
        "Content-Encoding": "aws-chunked",
        **more,
    }
    return pilot.send("PUT", "a.jpg", body, payload=UNSIGNED_TRAILER, sent=encoded, **headers)


def test_trailer_checksum(pilot):
    """The aws-chunked body with a trailer that botocore writes over TLS is decoded, and its checksum compared."""
    body = bytes(range(256)) * 1000
    wrapper = AwsChunkedWrapper(io.BytesIO(body), Crc32Checksum, "x-amz-checksum-crc32", chunk_size=100_000)
    encoded = b"".join(iter(wrapper.read, b""))
    assert trailer_put(pilot, body, encoded)[0] == 200
    assert pilot.emulator.ledger()["objects"][pilot.key("a.jpg")]["sha256"] == hashlib.sha256(body).hexdigest()
    right = base64.b64encode(zlib.crc32(body).to_bytes(4, "big"))
    assert right in encoded
    for wrong, code in (
        (encoded.replace(right, b"AAAAAA=="), b"BadDigest"),
        (encoded[: encoded.rindex(b"x-amz-checksum")] + b"\r\n", b"MalformedTrailerError"),
        (
            encoded.replace(b"186a0\r\n", b"186a0;\r\n", 1).replace(b"\xff\r\n0\r\n", b"\xff\r\nzz\r\n"),
            b"InvalidRequest",
        ),
    ):
        status, said = trailer_put(pilot, body, wrong)
        assert (status, b"<Code>" + code in said) == (400, True)
    status, said = trailer_put(pilot, body + b"more", encoded)
    assert (status, b"<Code>IncompleteBody" in said) == (400, True)
    assert trailer_put(pilot, body, encoded, **{"x-amz-trailer": "x-amz-checksum-md4"})[0] == 400
    assert pilot.emulator.ledger()["objects"][pilot.key("a.jpg")]["puts"] == 1


def test_more_than_one_piece_may_be(pilot):
    """More than 5 GiB in one piece are refused before a byte of them is read."""
    target, headers = pilot.signed("PUT", "a.jpg", payload="UNSIGNED-PAYLOAD")
    with pilot.raw() as connection:
        connection.sendall(pilot.head("PUT", target, headers, (5 << 30) + 1))
        status, body = answer(connection)
    assert (status, b"<Code>EntityTooLarge</Code>" in body) == (400, True)


def test_chunk_signatures_of_the_published_example():
    """The chunk signatures of AWS's own example come out as published."""
    signed = sigv4.Signed(
        credentials=None,
        payload=SIGNED_CHUNKS,
        signature="4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        signing_key=sigv4._signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1"),
        amz_date="20130524T000000Z",
        scope="20130524/us-east-1/s3/aws4_request",
    )
    signature, signatures = signed.signature, []
    for chunk in (b"a" * 65536, b"a" * 1024, b""):
        signature = sigv4.chunk_signature(signed, signature, hashlib.sha256(chunk).hexdigest())
        signatures.append(signature)
    assert signatures == [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ]


def signed_chunks(pilot, headers, chunks):
    """Encode chunks with their signatures, from the seed that is in the headers."""
    date = headers["X-Amz-Date"]
    scope = f"{date[:8]}/{pilot.keys['region']}/s3/aws4_request"
    seed = headers["Authorization"].rpartition("Signature=")[2]
    key = sigv4._signing_key(pilot.keys["secret_key"], date[:8], pilot.keys["region"])
    signed = sigv4.Signed(None, SIGNED_CHUNKS, seed, key, date, scope)
    encoded = b""
    for chunk in (*chunks, b""):
        seed = sigv4.chunk_signature(signed, seed, hashlib.sha256(chunk).hexdigest())
        encoded += f"{len(chunk):x};chunk-signature={seed}\r\n".encode() + chunk + b"\r\n"
    return encoded


def test_signed_chunks(pilot):
    """Every chunk's signature is verified: one changed byte in the second chunk and nothing is stored."""
    chunks = [b"a" * 70_000, b"b" * 10]
    length = {"x-amz-decoded-content-length": str(sum(map(len, chunks)))}
    for changed, expected in ((False, 200), (True, 403)):
        target, headers = pilot.signed("PUT", f"{changed}.jpg", payload=SIGNED_CHUNKS, **length)
        encoded = signed_chunks(pilot, headers, chunks)
        encoded = encoded.replace(b"bbb", b"bBb", 1) if changed else encoded
        with pilot.raw() as connection:
            connection.sendall(pilot.head("PUT", target, headers, len(encoded)) + encoded)
            assert answer(connection)[0] == expected
    assert list(pilot.emulator.ledger()["objects"]) == [pilot.key("False.jpg")]


def test_chunked_transfer_encoding(pilot):
    """HTTP chunks around an aws-chunked body are undone too; the decoded length must be told."""
    body = b"image" * 1000
    encoded = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n"
    encoded %= (len(body), body, base64.b64encode(zlib.crc32(body).to_bytes(4, "big")))
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (encoded[:100], encoded[100:])) + b"0\r\n\r\n"
    more = {"x-amz-decoded-content-length": str(len(body)), "x-amz-trailer": "x-amz-checksum-crc32"}
    for extra, payload, expected in ((more, UNSIGNED_TRAILER, 200), ({}, UNSIGNED_TRAILER, 411), ({}, None, 411)):
        target, headers = pilot.signed("PUT", "a.jpg", payload=payload, **extra)
        with pilot.raw() as connection:
            connection.sendall(pilot.head("PUT", target, {**headers, "Transfer-Encoding": "chunked"}) + framed)
            assert answer(connection)[0] == expected
    assert pilot.emulator.ledger()["objects"][pilot.key("a.jpg")]["size"] == 5000


def test_continue_is_sent_to_who_may_go_on(pilot):
    """`100 Continue` comes only after the request was found good, and before any of the body."""
    target, headers = pilot.signed("PUT", "a.jpg", b"body", Expect="100-continue")
    with pilot.raw() as connection:
        connection.sendall(pilot.head("PUT", target, headers, 4))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert pilot.emulator.ledger()["objects"] == {}
        connection.sendall(b"body")
        assert answer(connection)[0] == 200
    assert pilot.emulator.ledger()["objects"][pilot.key("a.jpg")]["size"] == 4


@pytest.mark.parametrize("why", ["expired", "signature", "prefix"])
def test_refusal_comes_instead_of_continue(pilot, why):
    """Expired credentials, a wrong signature or prefix are told without a byte of the body, and the connection ends."""
    if why == "signature":
        pilot.keys["secret_key"] = "x" * 40
    elif why == "prefix":
        pilot.keys["key"] = "user-x/project-1"
    else:
        pilot.emulator.expire("credentials")
    before = pilot.emulator.ledger()["received_bytes"]
    target, headers = pilot.signed("PUT", "a.jpg", b"body", Expect="100-continue")
    with pilot.raw() as connection:
        connection.sendall(pilot.head("PUT", target, headers, 4))
        assert answer(connection)[0] in (400, 403)
        assert connection.recv(1000) == b""
    assert pilot.emulator.ledger()["received_bytes"] == before


def test_early_refusal_does_not_need_the_whole_body(pilot):
    """A refused PUT whose body is already on its way is answered, and a small one leaves the connection usable."""
    right, wrong = (dict(pilot.keys), {**pilot.keys, "secret_key": "x" * 40})
    with pilot.raw() as connection:
        for keys, expected in ((wrong, 403), (right, 200)):
            pilot.keys = keys
            target, headers = pilot.signed("PUT", "a.jpg", b"x" * 500_000)
            connection.sendall(pilot.head("PUT", target, headers, 500_000) + b"x" * 500_000)
            assert answer(connection)[0] == expected
    pilot.keys = wrong
    target, headers = pilot.signed("PUT", "a.jpg", b"")
    with pilot.raw() as connection:
        connection.sendall(pilot.head("PUT", target, headers, 1 << 40) + b"x" * 1000)
        assert answer(connection)[0] == 403
        assert connection.recv(1000) == b""


def test_a_body_that_ends_early_stores_nothing(pilot):
    """A client that leaves in the middle of a body has stored nothing, and its file is gone."""
    target, headers = pilot.signed("PUT", "a.jpg", b"x" * 1000)
    with pilot.raw() as connection:
        connection.sendall(pilot.head("PUT", target, headers, 1000) + b"x" * 999)
        until(lambda: list(pilot.emulator.state.directory.iterdir()))
    until(lambda: not list(pilot.emulator.state.directory.iterdir()))
    assert pilot.emulator.ledger()["objects"] == {}
    assert until(lambda: pilot.emulator.ledger()["received_bytes"] >= 999)


def test_many_requests_on_one_connection(pilot):
    """Connections are kept alive, count once, and are quick."""
    before, took = pilot.emulator.ledger()["connections"], []
    with pilot.raw() as connection:
        for number in range(300):
            target, headers = pilot.signed("PUT", f"{number}.jpg", b"body")
            began = time.monotonic()
            connection.sendall(pilot.head("PUT", target, headers, 4) + b"body")
            assert answer(connection)[0] == 200
            took.append(time.monotonic() - began)
    print(f"300 small objects in {sum(took):.2f} s")
    # Not all, and not their sum: a busy machine makes some of them slow, and a new connection acknowledges at once.
    assert sorted(took)[100] < DELAYED, "each waits for an acknowledgement that is delayed"
    ledger = pilot.emulator.ledger()
    assert (ledger["connections"] - before, len(ledger["objects"]), ledger["requests"]["put"]) == (1, 300, 300)
