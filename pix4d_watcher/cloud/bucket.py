"""Objects of one project in S3: put, parts, look, get; signed, and replayed once after renewed credentials.

Every request carries its payload's SHA-256, so that S3 refuses what is not what was frozen. Owns addresses, headers and
the XML of S3. Deletes an object only for `doctor`, and never retries for any other reason than credentials and clock.
"""

import base64
import hashlib
import html
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pix4d_watcher.cloud.answers import S3Grant, moment, whole
from pix4d_watcher.cloud.credentials import Credentials
from pix4d_watcher.cloud.dial import Origin
from pix4d_watcher.cloud.faults import answered_at, from_s3, is_page_for, unanswered, xml_text
from pix4d_watcher.cloud.flow import Stop
from pix4d_watcher.cloud.sign import EMPTY_SHA256, encode_path, encode_query, sign
from pix4d_watcher.cloud.wire import Answer, FileRange, Line, Open, Peer, Progress, Request, Write
from pix4d_watcher.core.errors import (
    ClockSkewed,
    Conflict,
    Corrupted,
    CredentialsExpired,
    NotSent,
    NotThere,
    Refused,
    RemoteError,
    Unanswered,
)

__all__ = ["Bucket", "FileRange", "Line"]

_XML = "application/xml"
_BINARY = "application/octet-stream"
_WEAK = "W/"
_PLAIN_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
"""Names that can be a host label under AWS' own certificate, which covers one label: no dots."""


@dataclass(frozen=True, slots=True)
class _Ask:
    """A request before it is signed."""

    method: str
    key: str
    what: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: FileRange | bytes = b""
    sha256: str = EMPTY_SHA256
    bucket: str | None = None
    region: str | None = None


class Bucket:
    """S3 as one project may use it, shared by all threads; each thread brings its own `Line`.

    Every method raises NotSent, Unanswered, Throttled or a Refused, and what `Credentials.current` raises.
    """

    def __init__(
        self, credentials: Credentials, *, s3_endpoint: str | None, ca_file: str | None, timeout: float
    ) -> None:
        """Connect to nothing yet. `s3_endpoint` (http or https) wins over what the service says about addresses."""
        self._credentials = credentials
        self._endpoint = s3_endpoint
        self._ca_file = ca_file
        self._timeout = timeout

    def put(
        self,
        line: Line,
        key: str,
        source: FileRange,
        sha256: bytes,
        *,
        content_type: str = "image/jpeg",
        on_progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> str:
        """Upload a whole object and return its ETag, without quotes; S3 compares and keeps the SHA-256 (32 bytes).

        Raises Corrupted, SourceChanged or SourceUnreadable where what arrived, or the file, is not what was frozen.
        """
        headers = {"content-type": content_type, "x-amz-checksum-sha256": base64.b64encode(sha256).decode()}
        ask = _Ask("PUT", key, f"Upload of {key}", {}, headers, source, sha256.hex())
        return _stored(self._send(line, ask, stop=stop, on_progress=on_progress), ask)

    def initiate(self, line: Line, key: str, *, content_type: str = "image/jpeg", stop: Stop | None = None) -> str:
        """Begin a multipart upload and return its id."""
        ask = _Ask("POST", key, f"Beginning the upload of {key}", {"uploads": ""}, {"content-type": content_type})
        answer = self._send(line, ask, stop=stop)
        upload_id = xml_text(answer.body, "UploadId")
        if not upload_id:
            raise from_s3(answer.status, answer.headers, answer.body, ask.what)
        return upload_id

    def part(  # noqa: PLR0917 - the order in which S3 itself names them
        self,
        line: Line,
        key: str,
        upload_id: str,
        number: int,
        source: FileRange,
        sha256: bytes,
        *,
        on_progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> str:
        """Upload part `number` (from 1) and return its ETag, without quotes; S3 compares the part's SHA-256."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        what = f"Upload of {key}, part {number}"
        ask = _Ask("PUT", key, what, query, {"content-type": _BINARY}, source, sha256.hex())
        return _stored(self._send(line, ask, stop=stop, on_progress=on_progress), ask)

    def list_parts(
        self, line: Line, key: str, upload_id: str, *, stop: Stop | None = None
    ) -> dict[int, tuple[str, int]]:
        """Return the parts that S3 holds: number to (ETag, size in bytes); raises NotThere for an unknown upload."""
        parts: dict[int, tuple[str, int]] = {}
        marker = 0
        while True:
            query = {"uploadId": upload_id, **({"part-number-marker": str(marker)} if marker else {})}
            ask = _Ask("GET", key, f"Listing the parts of {key}", query, {})
            answer = self._send(line, ask, stop=stop)
            if b"<ListPartsResult" not in answer.body:
                raise from_s3(answer.status, answer.headers, answer.body, ask.what)
            page = _parts(answer.body)
            parts |= page
            if xml_text(answer.body, "IsTruncated") != "true" or not page or max(page) <= marker:
                return parts
            marker = max(page)

    def complete(
        self, line: Line, key: str, upload_id: str, parts: Sequence[tuple[int, str]], *, stop: Stop | None = None
    ) -> str:
        """Put the parts (number, ETag) together and return the object's ETag.

        S3 may answer 200 with an error inside, which raises like any other; NotThere: the upload is gone, perhaps
        because an earlier call did it.
        """
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{html.escape(etag)}&quot;</ETag></Part>"
            for number, etag in sorted(parts)
        )
        name = "CompleteMultipartUpload"
        body = f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{rows}</{name}>'.encode()
        digest = hashlib.sha256(body).hexdigest()
        what = f"Completing the upload of {key}"
        ask = _Ask("POST", key, what, {"uploadId": upload_id}, {"content-type": _XML}, body, digest)
        answer = self._send(line, ask, stop=stop)
        etag = xml_text(answer.body, "ETag").strip('"')
        if b"<Error>" in answer.body or not etag:
            raise from_s3(answer.status, answer.headers, answer.body, what)
        return etag

    def abort(self, line: Line, key: str, upload_id: str, *, stop: Stop | None = None) -> None:
        """Give a multipart upload up; raises NotThere where it is gone already."""
        self._send(line, _Ask("DELETE", key, f"Aborting the upload of {key}", {"uploadId": upload_id}, {}), stop=stop)

    def remove(self, line: Line, key: str) -> None:
        """Delete an object that `doctor --upload` put; nothing else is ever deleted. Refused: it may not be."""
        ask = _Ask("DELETE", key, f"Deleting {key}", {}, {})
        try:
            self._send(line, ask)
        except CredentialsExpired as error:  # renewed already: without a body 403 also means that it is not allowed
            raise Refused(f"{ask.what}: S3 answered {error.status} without a word", status=error.status) from error

    def origin(self) -> Origin:
        """Return where this project's objects are spoken to; asks for credentials where there are none yet."""
        return self._address(_Ask("HEAD", "", "The address of S3", {}, {}), self._credentials.current())[0]

    def head(
        self,
        line: Line,
        key: str,
        *,
        bucket: str | None = None,
        region: str | None = None,
        stop: Stop | None = None,
    ) -> tuple[int, str] | None:
        """Return size in bytes and ETag of an object, or None; raises Refused where HEAD is not allowed."""
        ask = _Ask("HEAD", key, f"Looking at {key}", {}, {}, bucket=bucket, region=region)
        try:
            answer = self._send(line, ask, stop=stop)
        except NotThere:
            return None
        except CredentialsExpired as error:  # renewed already: without a body 403 also means that HEAD is not allowed
            raise Refused(f"{ask.what}: S3 answered {error.status} without a word", status=error.status) from error
        return _length(answer, ask), _etag(answer, ask)

    def get(
        self,
        line: Line,
        key: str,
        *,
        write: Write,
        start: int = 0,
        size: int | None = None,
        if_match: str | None = None,
        bucket: str | None = None,
        region: str | None = None,
        stop: Stop | None = None,
    ) -> tuple[int, str]:
        """Hand `size` bytes of an object (None: all) from `start` on to `write`; returns its whole size and its ETag.

        A service that ignores ranges sends all of the rest. `if_match` is the ETag that the first part of a resumed
        download had: another object, or one shorter than `start`, raises Conflict before anything is written, whether
        or not what answers looked at it. Raises Unanswered where the body ends early; what was written until then is
        good. Errors of `write` pass as they are.
        """
        headers: dict[str, str] = {}
        if start or size is not None:
            headers["range"] = f"bytes={start}-{'' if size is None else start + size - 1}"
        if if_match is not None and not if_match.startswith(_WEAK):  # a weak one never matches: RFC 9110, 13.1.1
            headers["if-match"] = f'"{if_match}"'
        ask = _Ask("GET", key, f"Download of {key}", {}, headers, bucket=bucket, region=region)
        download = _Download(ask, start, size, if_match, write)
        answer = self._send(line, ask, stop=stop, receive=download.open, also=416)
        if answer.status == 416:
            whole_size = whole(xml_text(answer.body, "ActualObjectSize"))
            if whole_size == start or answer.headers.get("content-range") == f"bytes */{start}":
                return start, if_match or _bare(answer)  # there is nothing behind `start`
            raise from_s3(answer.status, answer.headers, answer.body, ask.what)
        return download.finish(), _etag(answer, ask)

    def answers(self, line: Line, key: str, *, bucket: str | None = None, region: str | None = None) -> bool:
        """Say whether S3 answers a question about an object, be it with a refusal; raises nothing.

        The question is a GET, since S3 gives a reason in words when it refuses one.
        """
        try:
            self.get(line, key, size=1, write=lambda _piece: None, bucket=bucket, region=region)
        except (NotSent, Unanswered):
            return False
        except RemoteError:
            return True
        return True

    def _send(
        self,
        line: Line,
        ask: _Ask,
        *,
        stop: Stop | None = None,
        on_progress: Progress | None = None,
        receive: Open | None = None,
        also: int | None = None,
    ) -> Answer:
        """Sign and send; once more after credentials that were too old, and once after a clock that was off.

        Returns a 2xx answer, or one of the status `also`; raises what any other means.
        """
        healed: set[type[RemoteError]] = set()
        while True:
            grant = self._credentials.current()
            request = self._signed(ask, grant)
            answer = line.exchange(request, what=ask.what, stop=stop, on_progress=on_progress, receive=receive)
            if answer.ok or answer.status == also:
                return answer
            error = from_s3(answer.status, answer.headers, answer.body, ask.what)
            if type(error) in healed or not isinstance(error, CredentialsExpired | ClockSkewed):
                raise error
            healed.add(type(error))
            shown = moment(xml_text(answer.body, "ServerTime")) or answered_at(answer.headers)
            if isinstance(error, ClockSkewed) and shown is not None:
                self._credentials.correct(shown - time.time())
            else:
                self._credentials.renew(grant.access_key)

    def _signed(self, ask: _Ask, grant: S3Grant) -> Request:
        origin, path = self._address(ask, grant)
        query = encode_query(ask.query)
        headers = sign(
            ask.method,
            path,
            query,
            {"host": origin.authority, **ask.headers},
            access_key=grant.access_key,
            secret_key=grant.secret_key,
            session_token=grant.session_token,
            region=ask.region or grant.region,
            payload_sha256=ask.sha256,
            now=self._credentials.now(),
        )
        peer = Peer(origin, self._ca_file, self._timeout)
        return Request(ask.method, peer, f"{path}?{query}" if query else path, headers, ask.body)

    def _address(self, ask: _Ask, grant: S3Grant) -> tuple[Origin, str]:
        """Return where a request goes, and its encoded path.

        Our own `s3_endpoint` wins over the service's `endpoint_override` (both path-style), that over acceleration, and
        that over AWS' regional host, which is asked in the virtual-host style AWS wants where the bucket's name allows.
        """
        bucket, region = ask.bucket or grant.bucket, ask.region or grant.region
        given = self._endpoint or grant.endpoint_override
        label = _PLAIN_BUCKET.fullmatch(bucket) is not None
        if given:
            url, path = given if "://" in given else f"https://{given}", f"{bucket}/{ask.key}"
        elif grant.accelerated and label and bucket == grant.bucket:
            url, path = f"https://{bucket}.s3-accelerate.amazonaws.com", ask.key
        elif label:
            url, path = f"https://{bucket}.s3.{region}.amazonaws.com", ask.key
        else:
            url, path = f"https://s3.{region}.amazonaws.com", f"{bucket}/{ask.key}"
        try:
            return Origin.of(url), encode_path(f"{urlsplit(url).path.rstrip('/')}/{path}")
        except ValueError as error:
            raise NotSent(f"{ask.what}: nothing was sent: the S3 address cannot be used: {error}") from error


class _Download:
    """Where the bytes of one ranged GET go: checks what the answer holds, skips what was not asked for, counts."""

    def __init__(self, ask: _Ask, start: int, size: int | None, etag: str | None, write: Write) -> None:
        self._ask = ask
        self._start = start
        self._last = None if size is None else start + size - 1
        self._expected = etag
        self._write = write
        self._at = 0
        self._end = self._total = -1

    def open(self, answer: Answer) -> Write:
        """Look at the head of the answer before any byte is written; raises Unanswered, Conflict."""
        if is_page_for(self._ask.key, answer.headers):
            raise unanswered(self._ask.what, "a page of HTML came, which is not of S3", status=answer.status)
        etag = _etag(answer, self._ask)
        if self._expected not in (None, etag):
            raise Conflict(f"{self._ask.what}: another object stands there by now", status=answer.status)
        if answer.status == 206:
            extent = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("content-range", ""))
            begin, last, total = map(int, extent.groups()) if extent else (-1, -1, -1)
            wanted = total - 1 if self._last is None else min(self._last, total - 1)
            if begin != self._start or last != wanted:
                why = f"bytes {self._start} to {wanted} were asked for, the answer holds another range"
                raise unanswered(self._ask.what, why, status=206)
            self._at, self._end, self._total = begin, last + 1, total
        else:
            self._end = self._total = _length(answer, self._ask)
        return self._take

    def finish(self) -> int:
        """Return the object's size; raises Unanswered where bytes are missing."""
        if self._at != self._end:
            raise unanswered(self._ask.what, f"the answer ended at byte {self._at}, not at {self._end}")
        return self._total

    def _take(self, piece: memoryview) -> None:
        wanted = piece[max(0, self._start - self._at) :]  # a service that ignores ranges begins at 0
        self._at += len(piece)
        if wanted:
            self._write(wanted)


def _bare(answer: Answer) -> str:
    """Return the ETag without quotes; a weak one, of something on the way, as it came."""
    tag = answer.headers.get("etag", "")
    return tag if tag.startswith(_WEAK) else tag.strip('"')


def _etag(answer: Answer, ask: _Ask) -> str:
    """Return the ETag as `_bare` does; an answer without one is not of S3 (a login page answers 200 too)."""
    etag = _bare(answer)
    if not etag:
        raise unanswered(ask.what, "the answer has no ETag, so it is not one of S3", status=answer.status)
    return etag


def _stored(answer: Answer, ask: _Ask) -> str:
    """Return the ETag of what was put; raises Corrupted where S3 names another hash, Unanswered for a foreign answer.

    S3 says nothing more about what it took, so that whatever has a body was said by something on the way.
    """
    if answer.body.strip():
        raise from_s3(answer.status, answer.headers, answer.body, ask.what)
    arrived = answer.headers.get("x-amz-checksum-sha256")
    if arrived not in (None, base64.b64encode(bytes.fromhex(ask.sha256)).decode()):
        raise Corrupted(f"{ask.what}: what arrived is not what was frozen: S3 names another SHA-256")
    return _etag(answer, ask)


def _length(answer: Answer, ask: _Ask) -> int:
    length = whole(answer.headers.get("content-length"))
    if length is None:
        raise unanswered(ask.what, "the answer does not say how long it is", status=answer.status)
    return length


def _parts(body: bytes) -> dict[int, tuple[str, int]]:
    found: dict[int, tuple[str, int]] = {}
    for row in re.findall(rb"<Part>.*?</Part>", body, re.DOTALL):
        number, size = whole(xml_text(row, "PartNumber")), whole(xml_text(row, "Size"))
        if number is not None and size is not None:
            found[number] = (xml_text(row, "ETag").strip('"'), size)
    return found
