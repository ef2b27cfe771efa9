"""Verification of AWS Signature Version 4 for S3, in the header and in the query of a presigned URL.

Owns the canonical request and every refusal that a signature, a date, a region or a session token can earn. Written
from the published description of the algorithm and shares no code with any client, so that a client's mistake is found
and not repeated.
"""

import calendar
import functools
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from pix4d_watcher.emulator.s3_answers import S3Error
from pix4d_watcher.emulator.state import Credentials
from pix4d_watcher.emulator.wire import Request

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
MAX_SKEW = 15 * 60  # seconds, as S3 says in RequestTimeTooSkewed
_MAX_PRESIGNED = 7 * 24 * 3600
_FIELDS = re.compile(r"\s*(Credential|SignedHeaders|Signature)=([^,\s]+)\s*")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says about its own signature."""

    access_key: str
    scope: tuple[str, ...]  # date, region, service, terminator
    signed_headers: tuple[str, ...]
    signature: str
    amz_date: str
    token: str
    payload: str
    presigned_for: int | None  # seconds


@dataclass(frozen=True, slots=True)
class Signed:
    """A verified signature, with what is needed to verify signed chunks."""

    credentials: Credentials
    payload: str  # the value of x-amz-content-sha256
    signature: str
    signing_key: bytes
    amz_date: str
    scope: str


def _from_header(request: Request) -> Claim:
    value = request.header("Authorization")
    if not value.startswith(f"{ALGORITHM} "):
        raise S3Error(
            400,
            "InvalidRequest",
            f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.",
        )
    fields: dict[str, str] = {}
    for piece in value[len(ALGORITHM) :].split(","):
        match = _FIELDS.fullmatch(piece)
        if match is not None:
            fields[match[1]] = match[2]
    if len(fields) != 3:
        raise S3Error(400, "AuthorizationHeaderMalformed", "The authorization header that you provided is not valid.")
    payload = request.header("x-amz-content-sha256")
    if not payload:
        raise S3Error(400, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    access_key, *scope = fields["Credential"].split("/")
    names = tuple(fields["SignedHeaders"].split(";"))
    token, date = request.header("x-amz-security-token"), request.header("x-amz-date")
    return Claim(access_key, tuple(scope), names, fields["Signature"], date, token, payload, None)


def _from_query(request: Request) -> Claim:
    params = request.params()
    expires = params.get("X-Amz-Expires", "")
    needed = ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date")
    if params["X-Amz-Algorithm"] != ALGORITHM or not all(name in params for name in needed):
        raise S3Error(
            400,
            "AuthorizationQueryParametersError",
            "The presigned URL lacks a query parameter, or its algorithm is unknown.",
        )
    if not expires.isdecimal() or not 1 <= int(expires) <= _MAX_PRESIGNED:
        raise S3Error(
            400, "AuthorizationQueryParametersError", "X-Amz-Expires must be a number of seconds up to a week."
        )
    access_key, *scope = params["X-Amz-Credential"].split("/")
    return Claim(
        access_key,
        tuple(scope),
        tuple(params["X-Amz-SignedHeaders"].split(";")),
        params["X-Amz-Signature"],
        params["X-Amz-Date"],
        params.get("X-Amz-Security-Token", ""),
        request.header("x-amz-content-sha256", UNSIGNED),
        int(expires),
    )


def read_claim(request: Request) -> Claim:
    """Return what the request claims; raises S3Error when it claims nothing or something malformed."""
    if request.header("Authorization"):
        return _from_header(request)
    if "X-Amz-Algorithm" in request.params():
        return _from_query(request)
    raise S3Error(403, "AccessDenied", "Access Denied: the request is not signed.")


def _check_date(claim: Claim, now: float) -> None:
    try:
        signed_at = calendar.timegm(time.strptime(claim.amz_date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise S3Error(403, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None
    if claim.scope[0] != claim.amz_date[:8]:
        raise S3Error(
            400, "AuthorizationHeaderMalformed", "The date of the credential scope is not that of the request."
        )
    if claim.presigned_for is None and abs(now - signed_at) > MAX_SKEW:
        raise S3Error(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            RequestTime=claim.amz_date,
            ServerTime=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            MaxAllowedSkewMilliseconds=str(MAX_SKEW * 1000),
        )
    if claim.presigned_for is not None and not -MAX_SKEW <= now - signed_at <= claim.presigned_for:
        raise S3Error(403, "AccessDenied", "Request has expired")


def _check_scope(claim: Claim, region: str) -> None:
    malformed = "AuthorizationHeaderMalformed" if claim.presigned_for is None else "AuthorizationQueryParametersError"
    if len(claim.scope) != 4 or claim.scope[2:] != ("s3", "aws4_request"):
        raise S3Error(400, malformed, "The credential scope is not DATE/REGION/s3/aws4_request.")
    if claim.scope[1] != region:
        message = f"The authorization header is malformed; the region '{claim.scope[1]}' is wrong; expecting '{region}'"
        raise S3Error(400, malformed, message, Region=region)


def _check_credentials(claim: Claim, known: Credentials | None, now: float) -> Credentials:
    if known is None or not claim.token:  # without their token temporary credentials are unknown to S3
        raise S3Error(
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            AWSAccessKeyId=claim.access_key,
        )
    if not hmac.compare_digest(claim.token.encode(), known.session_token.encode()):
        raise S3Error(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
    if known.expires <= now:
        raise S3Error(400, "ExpiredToken", "The provided token has expired.")
    return known


def _check_signed_headers(request: Request, claim: Claim) -> None:
    present = {name.lower() for name in request.headers}
    unsigned = sorted(name for name in present if name.startswith("x-amz-") and name not in claim.signed_headers)
    if "host" not in claim.signed_headers:
        unsigned.insert(0, "host")
    if unsigned:
        message = "There were headers present in the request which were not signed"
        raise S3Error(403, "AccessDenied", message, HeadersNotSigned=", ".join(unsigned))


def canonical_request(request: Request, claim: Claim) -> bytes:
    """Return the canonical request: what client and service must agree on, byte for byte."""
    pairs = []
    for piece in filter(None, request.query.split("&")):
        name, _, value = piece.partition("=")
        if name != "X-Amz-Signature":
            pairs.append((_encode(name.replace("+", " "), ""), _encode(value.replace("+", " "), "")))
    lines = [request.method, _encode(request.path, "/"), "&".join(f"{name}={value}" for name, value in sorted(pairs))]
    for name in claim.signed_headers:
        values = [" ".join(str(value).split()) for value in request.headers.get_all(name, [])]
        lines.append(f"{name}:{','.join(values)}")
    return "\n".join([*lines, "", ";".join(claim.signed_headers), claim.payload]).encode("latin-1")


def _encode(value: str, safe: str) -> str:
    return quote(unquote_to_bytes(value), safe=f"~{safe}")


@functools.lru_cache(maxsize=256)
def _signing_key(secret: str, date: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for word in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    return key


def verify(
    request: Request, lookup: Callable[[str], Credentials | None], region: str, now: float, monotonic: float
) -> Signed:
    """Verify a request's signature; `now` is the service's wall clock, `monotonic` judges expiry. Raises S3Error."""
    claim = read_claim(request)
    _check_scope(claim, region)
    credentials = _check_credentials(claim, lookup(claim.access_key), monotonic)
    _check_date(claim, now)
    _check_signed_headers(request, claim)
    key = _signing_key(credentials.secret_key, claim.scope[0], region)
    scope = "/".join(claim.scope)
    canonical = canonical_request(request, claim)
    to_sign = f"{ALGORITHM}\n{claim.amz_date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
    if not hmac.compare_digest(hmac.digest(key, to_sign.encode(), "sha256").hex().encode(), claim.signature.encode()):
        raise S3Error(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
            StringToSign=to_sign,
            CanonicalRequest=canonical.decode("latin-1"),
        )
    return Signed(credentials, claim.payload, claim.signature, key, claim.amz_date, scope)


def chunk_signature(signed: Signed, previous: str, chunk_sha256: str) -> str:
    """Return the signature of one chunk of a STREAMING-AWS4-HMAC-SHA256-PAYLOAD body."""
    empty = hashlib.sha256().hexdigest()
    lines = (f"{ALGORITHM}-PAYLOAD", signed.amz_date, signed.scope, previous, empty, chunk_sha256)
    return hmac.digest(signed.signing_key, "\n".join(lines).encode(), "sha256").hex()
