"""Receiving the body of a PutObject or UploadPart: undo its encoding, hash it into a file, compare what was promised.

Owns aws-chunked bodies and every refusal that a body can earn. A body that is refused or cut off leaves no file.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

from pix4d_watcher.emulator.checksums import ALGORITHMS
from pix4d_watcher.emulator.s3_answers import S3Error
from pix4d_watcher.emulator.sigv4 import UNSIGNED, Signed, chunk_signature
from pix4d_watcher.emulator.state import Content
from pix4d_watcher.emulator.wire import BLOCK, Body, ClientGone, Request

SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
LARGEST = 5 << 30
"""Bytes that S3 takes in one PutObject or UploadPart."""

_PREFIX = "x-amz-checksum-"


def _plain(body: Body) -> Iterator[memoryview]:
    view = memoryview(bytearray(min(BLOCK, body.length or BLOCK)))
    while got := body.readinto(view):
        yield view[:got]


def _chunks(body: Body, signed: Signed, trailers: dict[str, str]) -> Iterator[memoryview]:
    """Yield the content of an aws-chunked body and fill `trailers`; raises S3Error for a wrong chunk signature."""
    view, previous = memoryview(bytearray(BLOCK)), signed.signature
    while True:
        head, _, rest = body.readline().strip().partition(b";")
        try:
            left = size = int(head, 16)
        except ValueError:
            raise S3Error(400, "InvalidRequest", "The aws-chunked body is malformed.") from None
        digest = hashlib.sha256()
        while left:
            got = body.readinto(view[: min(left, BLOCK)])
            if not got:
                raise S3Error(400, "IncompleteBody", "The aws-chunked body ends within a chunk.")
            left -= got
            if signed.payload == SIGNED_CHUNKS:
                digest.update(view[:got])
            yield view[:got]
        if signed.payload == SIGNED_CHUNKS:
            previous = chunk_signature(signed, previous, digest.hexdigest())
            if not hmac.compare_digest(rest, f"chunk-signature={previous}".encode()):
                raise S3Error(403, "SignatureDoesNotMatch", "The signature of a chunk does not match.")
        if size == 0:
            break
        body.readline()  # the line end that closes a chunk
    while line := body.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        trailers[name.lower()] = value.strip()


def _promises(request: Request) -> tuple[dict[str, str], str]:
    """Return the checksums that came as headers, by algorithm, and the name of the one that is to come as a trailer."""
    named = {name: request.header(_PREFIX + name) for name in ALGORITHMS}
    trailer = request.header("x-amz-trailer").lower()
    if trailer and trailer.removeprefix(_PREFIX) not in ALGORITHMS:
        raise S3Error(
            400, "InvalidRequest", f"The value specified in the x-amz-trailer header is not supported: {trailer}"
        )
    promised = {name: value for name, value in named.items() if value}
    if len(promised) + bool(trailer) > 1:
        raise S3Error(400, "InvalidRequest", "Expecting a single x-amz-checksum- header")
    for name, value in promised.items():
        if len(_decoded(value)) != len(ALGORITHMS[name]().digest()):
            raise S3Error(400, "InvalidRequest", f"Value for {_PREFIX}{name} header is invalid.")
    return promised, trailer.removeprefix(_PREFIX)


def _decoded(value: str) -> bytes:
    """Return what a header holds in Base64; empty where it holds something else."""
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return b""


def check_framing(request: Request, payload: str) -> None:
    """Raise S3Error when the body's length or encoding cannot be accepted; reads nothing of it."""
    if payload.startswith("STREAMING-"):
        if payload not in (SIGNED_CHUNKS, UNSIGNED_TRAILER):
            raise S3Error(501, "NotImplemented", f"This emulator does not know {payload}.")
        if not request.header("x-amz-decoded-content-length").isdecimal():
            raise S3Error(411, "MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
    elif request.body.length is None:
        raise S3Error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    size = request.header("x-amz-decoded-content-length") if payload.startswith("STREAMING-") else request.body.length
    if int(size or 0) > LARGEST:
        raise S3Error(
            400,
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            ProposedSize=str(size),
            MaxSizeAllowed=str(LARGEST),
        )
    if payload != UNSIGNED and not payload.startswith("STREAMING-") and len(payload) != 64:
        raise S3Error(
            400, "InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-…, or a SHA-256 in hex."
        )


def receive(request: Request, signed: Signed, path: Path) -> Content:
    """Receive the body into a new file and return it; raises S3Error or ClientGone, and then leaves no file."""
    check_framing(request, signed.payload)
    kept = False
    try:
        content = _receive(request, signed, path)
        kept = True
    finally:
        if not kept:
            path.unlink(missing_ok=True)
    return content


def _receive(request: Request, signed: Signed, path: Path) -> Content:
    promised, trailer = _promises(request)
    sums = {name: ALGORITHMS[name]() for name in filter(None, {*promised, trailer})}
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    trailers: dict[str, str] = {}
    streaming = signed.payload.startswith("STREAMING-")
    blocks = _chunks(request.body, signed, trailers) if streaming else _plain(request.body)
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            md5.update(block)
            sha256.update(block)
            for checksum in sums.values():
                checksum.update(block)
            size += file.write(block)
    if not request.body.finished and request.body.readinto(memoryview(bytearray(1))):
        raise ClientGone("there is more body than its encoding says")
    if streaming and size != int(request.header("x-amz-decoded-content-length")):
        raise S3Error(400, "IncompleteBody", "The body is not as long as x-amz-decoded-content-length says.")
    if trailer:
        if _PREFIX + trailer not in trailers:
            raise S3Error(400, "MalformedTrailerError", "The trailer that x-amz-trailer announces is missing.")
        promised[trailer] = trailers[_PREFIX + trailer]
    if not streaming and signed.payload != UNSIGNED:
        check_sha256(signed.payload, sha256.hexdigest())
    check_md5(request, md5.digest())
    for name, value in promised.items():
        if base64.b64encode(sums[name].digest()).decode() != value:
            raise S3Error(400, "BadDigest", f"The {name.upper()} you specified did not match the calculated checksum.")
    return Content(path, size, md5.hexdigest(), sha256.hexdigest(), promised)


def check_sha256(promised: str, computed: str) -> None:
    """Raise S3Error when a signed payload hash is not that of the body."""
    if promised != computed:
        raise S3Error(
            400,
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ClientComputedContentSHA256=promised,
            S3ComputedContentSHA256=computed,
        )


def check_md5(request: Request, computed: bytes) -> None:
    """Raise S3Error when a Content-MD5 header is malformed or is not that of the body."""
    value = request.header("Content-MD5")
    if not value:
        return
    promised = _decoded(value)
    if len(promised) != len(computed):
        raise S3Error(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")
    if promised != computed:
        raise S3Error(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
