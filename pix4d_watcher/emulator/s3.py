"""The emulated S3: routing, who may do what, and the operations on whole objects.

Owns the order of judgement: signature, credentials and prefix come before the first byte of a body is asked for.
Multipart uploads are in s3_multipart.py.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import quote, unquote

from pix4d_watcher.emulator import payload, sigv4
from pix4d_watcher.emulator.s3_answers import S3Error, element, error_answer, iso_date, text, xml_answer
from pix4d_watcher.emulator.sigv4 import UNSIGNED, Signed
from pix4d_watcher.emulator.state import State, StoredObject
from pix4d_watcher.emulator.wire import Answer, Request, TooLong

_PAGE = 1000
_LONGEST_KEY = 1024  # bytes, as S3 documents
_DOCUMENT_LIMIT = 8 << 20  # a Complete with 10,000 parts and checksums is about 2 MiB
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
# whatever else is asked of a bucket or key is refused, so that nobody relies on what is not emulated
_KNOWN_PARAMS = {
    "put": set(),
    "part": {"partNumber", "uploadId"},
    "initiate": {"uploads"},
    "complete": {"uploadId"},
    "abort": {"uploadId"},
    "list_parts": {"uploadId", "max-parts", "part-number-marker"},
    "list_uploads": {"uploads", "prefix", "max-uploads", "key-marker", "upload-id-marker", "encoding-type"},
    "list_objects": {"list-type", "prefix", "max-keys", "continuation-token", "encoding-type", "fetch-owner"},
    "head": set(),
    "get": set(),
    "delete": set(),
}


@dataclass(frozen=True, slots=True)
class Target:
    """What an S3 request is about."""

    op: str
    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Call:
    """One verified S3 request."""

    request: Request
    signed: Signed
    key: str
    params: dict[str, str]


Operation = Callable[[State, Call], Answer]


def route(request: Request, bucket: str) -> Target:
    """Return operation, bucket and key of a request; virtual-host style when the host begins with the bucket's name."""
    path = request.path.removeprefix("/")
    try:
        unquote(path, errors="strict")
    except UnicodeDecodeError:  # S3 names are UTF-8
        return Target("other", "", "")
    if request.header("Host").startswith(f"{bucket}."):
        named, key = bucket, unquote(path)
    else:
        head, _, tail = path.partition("/")
        named, key = unquote(head), unquote(tail)
    params = request.params()
    return Target(_operation(request.method, key, params) if named else "other", named, key)


def _operation(method: str, key: str, params: dict[str, str]) -> str:
    if not key:
        listing = "list_uploads" if "uploads" in params else "list_objects"
        op = listing if method == "GET" else "other"
    elif method == "PUT":
        op = "part" if "uploadId" in params else "put"
    elif method == "POST":
        op = "initiate" if "uploads" in params else "complete" if "uploadId" in params else "other"
    elif method == "DELETE":
        op = "abort" if "uploadId" in params else "delete"
    elif method == "GET":
        op = "list_parts" if "uploadId" in params else "get"
    else:
        op = "head" if method == "HEAD" else "other"
    extra = {name for name in params if not name.lower().startswith("x-amz-") and name != "x-id"}
    return op if op != "other" and extra <= _KNOWN_PARAMS[op] else "other"


def answer(state: State, request: Request, target: Target, operations: dict[str, Operation]) -> Answer:
    """Judge and carry out an S3 request; what is refused is answered in S3's XML."""
    try:
        signed = sigv4.verify(request, state.credentials.get, state.settings.region, state.now(), time.monotonic())
        _check_access(state, request, target, signed)
        done = operations[target.op](state, Call(request, signed, target.key, request.params()))
    except S3Error as error:
        done = error_answer(error, request.path)
    except TooLong as error:
        done = error_answer(S3Error(400, "MaxMessageLengthExceeded", str(error)), request.path)
    done.headers.setdefault("x-amz-request-id", f"{time.monotonic_ns():016X}")
    done.headers["Server"] = "AmazonS3"
    return done


def _check_access(state: State, request: Request, target: Target, signed: Signed) -> None:
    if target.op == "other" or request.header("x-amz-copy-source"):
        raise S3Error(
            501, "NotImplemented", "A header or parameter you provided implies functionality that is not implemented."
        )
    if len(target.key.encode()) > _LONGEST_KEY:
        raise S3Error(400, "KeyTooLongError", "Your key is too long", MaxSizeAllowed=str(_LONGEST_KEY))
    if target.bucket != state.settings.bucket:
        raise S3Error(404, "NoSuchBucket", "The specified bucket does not exist", BucketName=target.bucket)
    place = target.key or request.params().get("prefix", "")
    if not place.startswith(f"{signed.credentials.prefix}/"):
        raise S3Error(
            403, "AccessDenied", f"Access Denied: these credentials are for {signed.credentials.prefix}/ only."
        )
    if target.op in ("head", "list_parts") and getattr(state.settings, target.op) == "off":
        raise S3Error(403, "AccessDenied", "Access Denied")


def document(call: Call) -> bytes:
    """Return the small body of a request after comparing its hashes; raises S3Error or TooLong."""
    body = call.request.body.read_all(_DOCUMENT_LIMIT)
    if call.signed.payload != UNSIGNED:
        payload.check_sha256(call.signed.payload, hashlib.sha256(body).hexdigest())
    payload.check_md5(call.request, hashlib.md5(body, usedforsecurity=False).digest())
    return body


def number(params: dict[str, str], name: str, default: int) -> int:
    """Return a query parameter that is a number; raises S3Error when it is none."""
    value = params.get(name, "") or str(default)
    if not value.isdecimal():
        raise S3Error(400, "InvalidArgument", f"{name} must be a number", ArgumentName=name, ArgumentValue=value)
    return int(value)


_CANNED_ACLS = {
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
}


def put(state: State, call: Call) -> Answer:
    """PutObject."""
    unless = call.request.header("If-None-Match")
    if unless not in {"", "*"}:
        raise S3Error(501, "NotImplemented", "A header you provided implies functionality that is not implemented.")
    if unless and state.find(call.key) is not None:
        raise S3Error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    acl = call.request.header("x-amz-acl", "private")
    if acl not in _CANNED_ACLS:
        raise S3Error(400, "InvalidArgument", "", ArgumentName="x-amz-acl", ArgumentValue=acl)
    content = payload.receive(call.request, call.signed, state.new_file())
    kind = call.request.header("Content-Type", "binary/octet-stream")
    state.store(call.key, content, etag=content.md5, content_type=kind, multipart=False)
    return Answer(200, {"ETag": f'"{content.md5}"', **_checksum_headers(content.checksums)})


def _checksum_headers(checksums: dict[str, str]) -> dict[str, str]:
    return {f"x-amz-checksum-{name}": value for name, value in checksums.items()}


def _found(state: State, call: Call) -> tuple[StoredObject, dict[str, str]]:
    """Return an object and its headers; raises S3Error when it is not there or not what the client means."""
    stored = state.find(call.key)
    if stored is None:
        raise S3Error(404, "NoSuchKey", "The specified key does not exist.", Key=call.key)
    wanted = call.request.header("If-Match")
    if wanted not in ("", "*") and stored.etag not in [tag.strip().strip('"') for tag in wanted.split(",")]:
        raise S3Error(
            412,
            "PreconditionFailed",
            "At least one of the pre-conditions you specified did not hold",
            Condition="If-Match",
        )
    headers = {
        "ETag": f'"{stored.etag}"',
        "Last-Modified": formatdate(stored.modified, usegmt=True),
        "Accept-Ranges": "bytes",
        "Content-Type": stored.content_type,
    }
    return stored, headers


def _wanted_range(value: str, size: int) -> tuple[int, int] | None:
    """Return first and last byte that a Range header names, None for the whole; raises S3Error when it lies outside."""
    match = _RANGE.fullmatch(value)
    if match is None or match[1] == match[2] == "":
        return None  # what is malformed, or of several ranges, is ignored
    if match[1]:
        first, last = int(match[1]), min(int(match[2] or size), size - 1)
        if match[2] and int(match[2]) < first:
            return None
    else:
        first, last = max(size - int(match[2]), 0), size - 1
    if first > last:
        raise S3Error(
            416,
            "InvalidRange",
            "The requested range is not satisfiable",
            ActualObjectSize=str(size),
            RangeRequested=value,
        )
    return first, last


def head(state: State, call: Call) -> Answer:
    """HeadObject."""
    if state.settings.head == "present" and state.find(call.key) is None:
        raise S3Error(403, "AccessDenied", "Access Denied")
    return _read(state, call, opened=False)


def get(state: State, call: Call) -> Answer:
    """GetObject, whole or a range."""
    return _read(state, call, opened=True)


def _read(state: State, call: Call, *, opened: bool) -> Answer:
    with state.lock:  # an object that is stored anew meanwhile takes its file away
        stored, headers = _found(state, call)
        size = stored.content.size
        part = _wanted_range(call.request.header("Range"), size)
        file = stored.content.path.open("rb") if opened else None
    if part is not None:
        headers["Content-Range"] = f"bytes {part[0]}-{part[1]}/{size}"
        return Answer(206, headers, file=file, offset=part[0], length=part[1] - part[0] + 1)
    if call.request.header("x-amz-checksum-mode").upper() == "ENABLED":
        headers |= _checksum_headers(stored.content.checksums)
    return Answer(200, headers, file=file, length=size)


def delete(state: State, call: Call) -> Answer:
    """DeleteObject; what is not there is deleted too."""
    with state.lock:
        stored = state.objects.pop(call.key, None)
    if stored is not None:
        stored.content.path.unlink(missing_ok=True)
    return Answer(204)


def list_objects(state: State, call: Call) -> Answer:
    """ListObjectsV2 with prefix and paging."""
    params = call.params
    if params.get("list-type") != "2":
        raise S3Error(501, "NotImplemented", "Only ListObjectsV2 is implemented.")
    limit = min(number(params, "max-keys", _PAGE), _PAGE)
    prefix, after = params["prefix"], params.get("continuation-token", "")
    coded = params.get("encoding-type") == "url"
    with state.lock:
        held = {**state.outputs, **state.objects}
    keys = sorted(key for key in held if key.startswith(prefix) and key > after)
    page = keys[:limit]
    contents = [
        element(
            "Contents",
            text("Key", quote(key) if coded else key),
            text("LastModified", iso_date(held[key].modified)),
            text("ETag", f'"{held[key].etag}"'),
            text("Size", held[key].content.size),
            text("StorageClass", "STANDARD"),
        )
        for key in page
    ]
    more = len(keys) > len(page) > 0
    return xml_answer(
        "ListBucketResult",
        text("Name", state.settings.bucket),
        text("Prefix", quote(prefix) if coded else prefix),
        text("MaxKeys", limit),
        text("KeyCount", len(page)),
        text("EncodingType", "url") if coded else "",
        text("IsTruncated", "true" if more else "false"),
        text("NextContinuationToken", page[-1]) if more else "",
        *contents,
    )


OBJECT_OPERATIONS: dict[str, Operation] = {
    "put": put,
    "head": head,
    "get": get,
    "delete": delete,
    "list_objects": list_objects,
}
