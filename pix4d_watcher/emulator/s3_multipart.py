"""Multipart uploads of the emulated S3: initiate, parts, complete, abort, and their lists.

Owns what S3 says about parts: their numbers, order, sizes and ETags. Access was judged before (s3.py).
"""

import hashlib
import threading
from itertools import pairwise
from secrets import token_urlsafe
from urllib.parse import quote
from xml.etree import ElementTree as ET

from pix4d_watcher.emulator import payload
from pix4d_watcher.emulator.s3 import Call, Operation, document, number
from pix4d_watcher.emulator.s3_answers import S3Error, element, iso_date, text, xml_answer
from pix4d_watcher.emulator.state import Content, Part, State, Upload
from pix4d_watcher.emulator.wire import BLOCK, Answer

SMALLEST_PART = 5 << 20  # bytes; every part but the last
_MOST_PARTS = 10_000
_PAGE = 1000


def initiate(state: State, call: Call) -> Answer:
    """CreateMultipartUpload."""
    document(call)
    project = state.project_of(call.key)
    upload = Upload(
        upload_id=token_urlsafe(48),
        key=call.key,
        project=project.id if project is not None else 0,
        content_type=call.request.header("Content-Type", "binary/octet-stream"),
        initiated=state.now(),
    )
    with state.lock:
        state.uploads[upload.upload_id] = upload
    ids = (text("Bucket", state.settings.bucket), text("Key", call.key), text("UploadId", upload.upload_id))
    return xml_answer("InitiateMultipartUploadResult", *ids)


def _open_upload(state: State, call: Call) -> Upload:
    upload = state.uploads.get(call.params["uploadId"])
    if upload is None or upload.key != call.key or upload.state != "open":
        raise S3Error(
            404,
            "NoSuchUpload",
            "The specified upload does not exist. It may have been aborted or completed.",
            UploadId=call.params["uploadId"],
        )
    return upload


def put_part(state: State, call: Call) -> Answer:
    """UploadPart; a part that is sent again takes the place of the one before."""
    part_number = number(call.params, "partNumber", 0)
    if not 1 <= part_number <= _MOST_PARTS:
        raise S3Error(400, "InvalidArgument", f"Part number must be an integer between 1 and {_MOST_PARTS}, inclusive")
    _open_upload(state, call)
    content = payload.receive(call.request, call.signed, state.new_file())
    stored = False
    try:
        with state.lock:
            upload = _open_upload(state, call)  # it may have been completed or aborted meanwhile
            before = upload.parts.get(part_number)
            upload.parts[part_number] = Part(content, 1 + (before.puts if before is not None else 0), state.now())
            stored = True
    finally:
        if not stored:
            content.path.unlink(missing_ok=True)
    if before is not None:
        before.content.path.unlink(missing_ok=True)
    sums = {f"x-amz-checksum-{name}": value for name, value in content.checksums.items()}
    return Answer(200, {"ETag": f'"{content.md5}"', **sums})


def _named_parts(body: bytes) -> list[tuple[int, str, dict[str, str]]]:
    """Return part numbers, ETags and checksums that a Complete names; raises S3Error when it is malformed."""
    malformed = S3Error(
        400, "MalformedXML", "The XML you provided was not well-formed or did not validate against our schema"
    )
    try:
        root = ET.fromstring(body)  # noqa: S314 - from a test's own client
    except ET.ParseError:
        raise malformed from None
    named = []
    for part in root:
        fields = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in part}
        if not fields.get("PartNumber", "").isdecimal() or "ETag" not in fields:
            raise malformed
        sums = {
            name.removeprefix("Checksum").lower(): value
            for name, value in fields.items()
            if name.startswith("Checksum")
        }
        named.append((int(fields["PartNumber"]), fields["ETag"].strip('"'), sums))
    if not named:
        raise malformed
    return named


def _chosen_parts(state: State, upload: Upload, named: list[tuple[int, str, dict[str, str]]]) -> list[Content]:
    if any(first[0] >= second[0] for first, second in pairwise(named)):
        raise S3Error(
            400,
            "InvalidPartOrder",
            "The list of parts was not in ascending order. The parts list must be specified in order.",
        )
    chosen = []
    for part_number, etag, sums in named:
        part = upload.parts.get(part_number)
        agreed = part is not None and all(
            part.content.checksums.get(name, value) == value for name, value in sums.items()
        )
        if part is None or part.content.md5 != etag or not agreed:
            message = "One or more of the specified parts could not be found, or its entity tag did not match."
            raise S3Error(
                400, "InvalidPart", message, UploadId=upload.upload_id, PartNumber=str(part_number), ETag=etag
            )
        chosen.append(part.content)
    for content, (part_number, etag, _) in zip(chosen[:-1], named, strict=False):
        if content.size < SMALLEST_PART and not state.settings.small_parts:
            raise S3Error(
                400,
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed object size.",
                ProposedSize=str(content.size),
                MinSizeAllowed=str(SMALLEST_PART),
                PartNumber=str(part_number),
                ETag=etag,
            )
    return chosen


def complete(state: State, call: Call) -> Answer:
    """CompleteMultipartUpload; a second one for the same upload finds no upload, as none is open any more."""
    named = _named_parts(document(call))
    with state.lock:
        upload = _open_upload(state, call)
        chosen = _chosen_parts(state, upload, named)
        upload.state = "completing"  # from here on no part changes, so that they can be read outside the lock
    content, etag = _joined(state, chosen)
    threading.Event().wait(state.settings.complete_seconds)
    with state.lock:
        upload.state = "completed"
        state.store(call.key, content, etag=etag, content_type=upload.content_type, multipart=True)
    _remove_parts(upload)
    location = text("Location", f"http://{call.request.header('Host')}{call.request.path}")
    ids = (text("Bucket", state.settings.bucket), text("Key", call.key), text("ETag", f'"{etag}"'))
    return xml_answer("CompleteMultipartUploadResult", location, *ids)


def _joined(state: State, parts: list[Content]) -> tuple[Content, str]:
    """Return the parts as one new file, and the ETag: the MD5 of the parts' MD5s and their number."""
    path, view = state.new_file(), memoryview(bytearray(BLOCK))
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("wb") as target:
        for part in parts:
            with part.path.open("rb") as source:
                while got := source.readinto(view):
                    sha256.update(view[:got])
                    target.write(view[:got])
            md5.update(bytes.fromhex(part.md5))
    etag = f"{md5.hexdigest()}-{len(parts)}"
    return Content(path, sum(part.size for part in parts), etag, sha256.hexdigest()), etag


def _remove_parts(upload: Upload) -> None:
    for part in upload.parts.values():
        part.content.path.unlink(missing_ok=True)


def abort(state: State, call: Call) -> Answer:
    """AbortMultipartUpload."""
    with state.lock:
        upload = _open_upload(state, call)
        upload.state = "aborted"
    _remove_parts(upload)
    return Answer(204)


def list_parts(state: State, call: Call) -> Answer:
    """ListParts, paged by max-parts and part-number-marker."""
    limit, marker = min(number(call.params, "max-parts", _PAGE), _PAGE), number(call.params, "part-number-marker", 0)
    with state.lock:
        upload = _open_upload(state, call)
        numbers = sorted(part_number for part_number in upload.parts if part_number > marker)
        page = [(part_number, upload.parts[part_number]) for part_number in numbers[:limit]]
    more = len(numbers) > len(page) > 0
    return xml_answer(
        "ListPartsResult",
        text("Bucket", state.settings.bucket),
        text("Key", upload.key),
        text("UploadId", upload.upload_id),
        text("PartNumberMarker", marker),
        text("NextPartNumberMarker", page[-1][0] if page else 0),
        text("MaxParts", limit),
        text("IsTruncated", "true" if more else "false"),
        text("StorageClass", "STANDARD"),
        *[_part_element(part_number, part) for part_number, part in page],
    )


def _part_element(part_number: int, part: Part) -> str:
    sums = [text(f"Checksum{name.upper()}", value) for name, value in part.content.checksums.items()]
    return element(
        "Part",
        text("PartNumber", part_number),
        text("LastModified", iso_date(part.modified)),
        text("ETag", f'"{part.content.md5}"'),
        text("Size", part.content.size),
        *sums,
    )


def list_uploads(state: State, call: Call) -> Answer:
    """ListMultipartUploads under a prefix, paged by key-marker and upload-id-marker."""
    params = call.params
    limit = min(number(params, "max-uploads", _PAGE), _PAGE)
    marker, coded = (
        (params.get("key-marker", ""), params.get("upload-id-marker", "")),
        params.get("encoding-type") == "url",
    )
    with state.lock:
        held = [
            upload
            for upload in state.uploads.values()
            if upload.state == "open" and upload.key.startswith(params["prefix"])
        ]
    held = sorted(
        (upload for upload in held if _after(upload, marker)), key=lambda upload: (upload.key, upload.upload_id)
    )
    page = held[:limit]
    more = len(held) > len(page) > 0
    listed = [
        element(
            "Upload",
            text("Key", quote(upload.key) if coded else upload.key),
            text("UploadId", upload.upload_id),
            text("Initiated", iso_date(upload.initiated)),
        )
        for upload in page
    ]
    last = page[-1] if more else None
    return xml_answer(
        "ListMultipartUploadsResult",
        text("Bucket", state.settings.bucket),
        text("EncodingType", "url") if coded else "",
        text("MaxUploads", limit),
        text("IsTruncated", "true" if more else "false"),
        text("NextKeyMarker", quote(last.key) if coded else last.key) if last is not None else "",
        text("NextUploadIdMarker", last.upload_id) if last is not None else "",
        *listed,
    )


def _after(upload: Upload, marker: tuple[str, str]) -> bool:
    key, upload_id = marker
    return (upload.key, upload.upload_id) > marker if upload_id else upload.key > key or not key


MULTIPART_OPERATIONS: dict[str, Operation] = {
    "initiate": initiate,
    "part": put_part,
    "complete": complete,
    "abort": abort,
    "list_parts": list_parts,
    "list_uploads": list_uploads,
}
