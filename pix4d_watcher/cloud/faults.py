"""Turns what HTTP, TLS and sockets say into the errors of `core.errors`; the only place that does.

Never decides what to do about an error, and never lets a token, a signature or a query string into a text.
"""

import html
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from pix4d_watcher.core.errors import (
    AuthRefused,
    ClockSkewed,
    Conflict,
    Corrupted,
    CredentialsExpired,
    NoCredit,
    NotSent,
    NotThere,
    Refused,
    RemoteError,
    Throttled,
    Unanswered,
)

WORDS = 300
"""Longest quotation of the service's own words, in characters: enough for a sentence, too short to flood a log."""

_LONGEST_PAUSE = 600.0
"""A longer Retry-After is taken for ten minutes, in seconds: a due time further ahead would count as a jump of the
clock (`Context.horizon`) and be due at once, and a proxy that says a year by mistake costs no more."""

_DEEPEST = 8
"""Levels of a nested error that are quoted."""

_NEVER_LEFT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.LocationParseError,
    requests.exceptions.ConnectTimeout,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    ssl.SSLCertVerificationError,
    socket.gaierror,
)

_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidAccessKeyId", "TokenRefreshRequired"}
)
_CORRUPTED = frozenset({"XAmzContentSHA256Mismatch", "BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch"})
_GONE = frozenset({"NoSuchUpload", "NoSuchKey"})
_SLOWER = frozenset({"SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "Throttling", "TooManyRequests"})
_BROKEN = frozenset({"InternalError", "RequestTimeout", "IncompleteBody"})
_CONFLICTING = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "OperationAborted", "InvalidRange"})

_PROXY_LOGIN = "; the proxy wants another login, which belongs into its address in HTTPS_PROXY or HTTP_PROXY"

_SECRETS = (
    (re.compile(r"eyJ[\w-]+\.[\w.-]+"), "…"),  # a JSON web token
    (re.compile(r"(?i)\b(bearer|basic)\s+\S+"), r"\1 …"),
    (
        re.compile(r"(?i)((?:signature|credential|security-token|access_token|client_secret|secret)=)[^\s&,;\"']+"),
        r"\1…",
    ),
    (re.compile(r"\?[\w.%~-]+=\S*"), "?…"),  # a query string
    (re.compile(r"(?i)(https?://)[^/\s@]+@"), r"\1"),  # a password in an address
)


def clean(text: str) -> str:
    """Return foreign text on one line, without secrets and query strings, at most `WORDS` characters long."""
    text = " ".join(text.split())
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    text = "".join(char for char in text if char.isprintable())
    return text if len(text) <= WORDS else text[: WORDS - 1] + "…"


def translate_requests(error: Exception, what: str, way: str) -> RemoteError:
    """Return what an exception of requests or urllib3 means for `what`, the sentence's subject.

    Where nothing was sent the `way` is named too: which host or proxy did not take it.

    `requests.ConnectionError` covers both "never left" and "may be done", so the chain of causes decides. What was
    raised while a connection was being made (name, route, proxy, TLS) never left; all else may have been applied. A
    ProxyError alone says nothing: urllib3 calls it so too when a connection through a proxy breaks after the request.
    """
    if any(isinstance(cause, _NEVER_LEFT) or _while_connecting(cause) for cause in _causes(error)):
        return _not_sent(f"{what}: {way}", _reason(error))
    return _unanswered(what, _reason(error))


def translate_socket(error: Exception, what: str, *, sent: bool) -> RemoteError:
    """Return what an exception of a socket, TLS or http.client means; `sent`: bytes of the request may have left."""
    return _unanswered(what, _reason(error)) if sent else _not_sent(what, _reason(error))


def unanswered(what: str, why: str, *, status: int | None = None) -> Unanswered:
    """Return the error for an answer that cannot be used, such as a page of a proxy where JSON was due."""
    return Unanswered(f"{what}: {why}", status=status)


def sent_elsewhere(what: str, target: str, status: int) -> Unanswered:
    """Return the error for a redirect to another host or out of TLS: of a login page, or of a wrong cloud.url."""
    shown = _without_query(target) or "nowhere"
    why = f"it sends us to {shown}, and nothing is asked there: check cloud.url, or log in to this network"
    return unanswered(what, why, status=status)


def read_json(body: bytes) -> Any:
    """Return the JSON in a body; raises ValueError for anything else, and for what is nested beyond all measure."""
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def from_rest(status: int, headers: Mapping[str, str], body: bytes, what: str) -> RemoteError:
    """Return what a REST answer outside 2xx means; also a 3xx to a POST, which is never followed.

    The shapes of the bodies are those of Django REST Framework (assumption: the service does not document them).
    """
    words, page = _rest_words(body), is_page(headers, body)
    target = _without_query(_header(headers, "location"))
    redirect = f"; it sends us to {target or 'nowhere'}: check cloud.url, which must name the address that answers"
    asks_token = re.search(r"(?i)\btoken\b|authentication credentials", words)
    denied = status == 401 or (status == 403 and asks_token and not page)
    rules = (
        (status < 300 or status >= 500 or status == 408, Unanswered, ""),
        (status == 407, NotSent, _PROXY_LOGIN),
        (status == 429, Throttled, ""),
        (status < 400, Refused, redirect),
        (denied, AuthRefused, "; the access token is refused"),
        (
            status == 402 or (re.search(r"(?i)\bcredits?\b", words) and not page),
            NoCredit,
            "; the account needs more credits",
        ),
        (status == 404, NotThere, ""),
        (status in {409, 412}, Conflict, ""),
        (True, Refused, ""),
    )
    error = _first(rules, f"{what}: the service answered {status}", status, headers, words)
    error.is_page = page
    return error


def is_page(headers: Mapping[str, str], body: bytes) -> bool:
    """Say whether an answer is a page for people: of a captive portal, a firewall or a proxy, hardly of the API."""
    return "html" in _header(headers, "content-type").lower() or body.lstrip()[:1] == b"<"


def is_page_for(key: str, headers: Mapping[str, str]) -> bool:
    """Say whether a page of something on the way stands in place of an object, as a login page with an ETag does.

    S3 names its request in every answer. A store that does not is believed where the object is HTML by its name.
    """
    foreign = "html" in _header(headers, "content-type").lower() and not _header(headers, "x-amz-request-id")
    return foreign and not key.lower().endswith((".html", ".htm"))


def from_s3(status: int, headers: Mapping[str, str], body: bytes, what: str) -> RemoteError:
    """Return what an S3 answer means that is not the success asked for; also a 200 whose body is an error.

    An answer of 400 or 403 without a body (HEAD has none) counts as `CredentialsExpired`: that is all S3 says there
    about credentials that are too old.
    """
    code = xml_text(body, "Code")
    words = clean(f"{code} {xml_text(body, 'Message')}") if code else _rest_words(body)
    region = clean(_header(headers, "x-amz-bucket-region"))
    foreign = not code and (body.lstrip()[:5].lower() in {b"<html", b"<!doc"} or (300 <= status < 400 and not region))
    rules = (
        (status == 407, NotSent, _PROXY_LOGIN),
        (foreign, Unanswered, "; that is no answer of S3, something on the way gave it"),
        (code in _EXPIRED, CredentialsExpired, "; the S3 credentials are too old"),
        (status in {400, 403} and not body.strip(), CredentialsExpired, "; perhaps the S3 credentials are too old"),
        (code == "RequestTimeTooSkewed", ClockSkewed, "; this machine's clock is off"),
        (code in _SLOWER or status in {429, 503}, Throttled, ""),
        (code in _CORRUPTED, Corrupted, "; what arrived is not what was frozen, and was not kept"),
        (code == "InvalidPart", Corrupted, "; S3 does not hold the parts that were sent"),
        (status >= 500 or status == 408 or code in _BROKEN, Unanswered, ""),
        (status < 300 and not code, Unanswered, "; that is no answer of S3"),
        (code in _CONFLICTING or status in {409, 412, 416}, Conflict, ""),
        (code in _GONE or (status == 404 and code != "NoSuchBucket"), NotThere, ""),
        (300 <= status < 400, Refused, f"; the bucket is in region {region or 'another one'}"),
        (True, Refused, ""),
    )
    return _first(rules, f"{what}: S3 answered {status}", status, headers, words)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the pause that Retry-After names, in seconds (0 to 600), or None; it is a number or an HTTP date."""
    value = _header(headers, "retry-after").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        seconds = until.timestamp() - (answered_at(headers) or time.time())
    return min(max(seconds, 0.0), _LONGEST_PAUSE) if seconds == seconds else None  # noqa: PLR0124 - NaN is no pause


def answered_at(headers: Mapping[str, str]) -> float | None:
    """Return the service's own time from the Date header, in seconds since 1970, or None; our clock may be off."""
    try:
        return parsedate_to_datetime(_header(headers, "date")).timestamp()
    except (ValueError, TypeError):
        return None


def xml_text(body: bytes, name: str) -> str:
    """Return the text of the first XML element `name` in a flat S3 answer, or "" where there is none."""
    found = re.search(rf"<{name}>([^<]*)</{name}>", body.decode("utf-8", errors="replace"))
    return html.unescape(found[1]).strip() if found else ""


def _first(
    rules: tuple[tuple[object, type[RemoteError], str], ...],
    text: str,
    status: int,
    headers: Mapping[str, str],
    words: str,
) -> RemoteError:
    """Return the error of the first rule that holds."""
    kind, hint = next((kind, hint) for holds, kind, hint in rules if holds)
    text = f"{text}{': ' + words if words else ''}{hint}"
    if kind is Throttled:
        return Throttled(text, status=status, words=words, retry_after=retry_after(headers))
    return kind(text, status=status, words=words)


def _not_sent(what: str, why: str) -> NotSent:
    return NotSent(f"{what}: nothing was sent: {why}")


def _unanswered(what: str, why: str) -> Unanswered:
    return Unanswered(f"{what}: no usable answer: {why}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk the causes, the `reason` of urllib3 and the exceptions that are arguments of others; the root comes last."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        context = None if current.__suppress_context__ else current.__context__
        related = (current.__cause__, context, getattr(current, "reason", None), *current.args)
        waiting += [cause for cause in related if isinstance(cause, BaseException)]


def _while_connecting(error: BaseException) -> bool:
    """Whether it was raised while a connection was made: a reset or a time-out in the TLS handshake, a bad CA file.

    urllib3 gives those the same classes as a break of a request under way; only the traceback tells them apart.
    """
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in {"connect", "do_handshake", "cert_verify"}:
            return True
        trace = trace.tb_next
    return False


def _reason(error: Exception) -> str:
    """Say in a few words what the innermost useful cause is."""
    said = (_in_words(cause) for cause in reversed(list(_causes(error))))
    return clean(next(filter(None, said), type(error).__name__))


def _in_words(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({cause.verify_message}); cloud.ca_file can name a CA"
    if isinstance(cause, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(cause, http.client.IncompleteRead):
        return "the answer was cut short"
    if isinstance(cause, http.client.HTTPException):
        return f"what came back is no HTTP ({type(cause).__name__})"
    if isinstance(cause, requests.exceptions.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    # requests' errors are OSErrors too, and their texts hold addresses of objects
    return (cause.strerror or str(cause)) if isinstance(cause, OSError) and not _foreign(cause) else ""


def _foreign(cause: BaseException) -> bool:
    return isinstance(cause, requests.RequestException | urllib3.exceptions.HTTPError)


def _rest_words(body: bytes) -> str:
    """Return the readable part of an error body: `detail`, lists of field errors, or the title of an HTML page."""
    text = body.decode("utf-8", errors="replace").strip()
    if text.startswith("<"):
        title = re.search(r"(?is)<title[^>]*>(.*?)</title>", text)
        return clean(html.unescape(title[1])) if title else "a page of HTML"
    try:
        value = read_json(body)
    except ValueError:
        return clean(text)
    return clean(_flatten(value))


def _flatten(value: Any, depth: int = _DEEPEST) -> str:
    if isinstance(value, dict | list) and not depth:
        return "…"
    if isinstance(value, dict):
        named = {str(name): _flatten(inner, depth - 1) for name, inner in value.items()}
        plain = {"detail", "non_field_errors", "error_description", "message"}
        return "; ".join(text if name in plain else f"{name}: {text}" for name, text in named.items() if text)
    if isinstance(value, list):
        return ", ".join(filter(None, (_flatten(inner, depth - 1) for inner in value)))
    return "" if value is None else str(value)


def _without_query(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return clean(f"{parts.scheme}://{host}{parts.path}" if host else parts.path)


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")
