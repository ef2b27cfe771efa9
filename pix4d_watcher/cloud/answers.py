"""The values that the service's answers become, read tolerantly: missing, extra and oddly typed fields are no error.

Pure: no network. A field that we cannot do without raises Unanswered, because its request may have been applied.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pix4d_watcher.cloud.faults import clean, unanswered

FALLBACK_LIFETIME = 3600.0
"""Seconds that S3 credentials are trusted where the answer's times make no sense (the guide's own sample does not)."""

_LONGEST_LIFETIME = 36 * 3600.0
"""No AWS session lasts longer than 36 hours; a longer one means that the two times do not belong together."""

_DEFAULT_REGION = "us-east-1"
_REGION = re.compile(r"[A-Za-z0-9_-]+")
"""What may become part of a host's name and of a signature."""

_DEEPEST = 20
"""Levels of the tree of outputs that are looked at; the guide's has three."""

_MOST = 2**63
"""Whole numbers from here on fit into no column of the journal, and are no id of the service."""

_FROM_2000, _TO_2200 = 946684800.0, 7258118400.0
"""Times outside of these (s since 1970) are none: no clock is corrected by them."""

_NAME_BYTES = 200
"""Longest file name made of an output's name; file systems allow 255 bytes, and results get suffixes while fetched."""

_AVAILABILITY = {
    **dict.fromkeys(("processed", "done", "available", "ready"), "done"),
    **dict.fromkeys(("in_progress", "in progress", "processing", "pending", "queued", "running"), "in_progress"),
    "requestable": "requestable",
}


@dataclass(frozen=True, slots=True)
class CloudOutput:
    """A result file in the cloud.

    `ident` is what tells it from others (output id, else S3 key, else its place); `name` is a safe base name for a
    file; `availability` is one of `done`, `in_progress`, `requestable`, `not available`. Key and bucket may be "" for
    what is not done.
    """

    ident: str
    kind: str
    name: str
    bucket: str
    key: str
    region: str | None
    availability: str


@dataclass(frozen=True, slots=True)
class CloudProject:
    """A project as the service shows it; texts are "" where the service says nothing.

    `has_processing_started`: the answer has the field, so that None means "not started" and not "unknown".
    """

    id: int
    name: str
    bucket: str
    prefix: str
    image_count: int | None = None
    status: str = ""
    detailed_status: str = ""
    error_reason: str = ""
    processing_started: str | None = None
    processing_ended: str | None = None
    has_processing_started: bool = False
    outputs: tuple[CloudOutput, ...] = ()
    detail_url: str = ""


@dataclass(frozen=True, slots=True)
class FoundProject:
    """A project in the list of projects."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class ProjectSearch:
    """What the list of projects showed: those whose name has the marker, and how far the list can be trusted.

    Absence means something only where `read_to_end` and `saw_known` (a project of ours was in it) are both true.
    """

    matches: tuple[FoundProject, ...] = ()
    read_to_end: bool = False
    saw_known: bool = False


@dataclass(frozen=True, slots=True)
class S3Grant:
    """S3 credentials of one project. `expires_in` and `skew` (the service's clock minus ours) are in seconds."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_in: float
    skew: float
    bucket: str
    prefix: str
    region: str = _DEFAULT_REGION
    endpoint_override: str | None = None
    accelerated: bool = False


def parse_project(value: Any, what: str, *, created: bool = False) -> CloudProject:
    """Return the project in an answer; raises Unanswered without an id, for a `created` one also without its bucket."""
    row = value if isinstance(value, Mapping) else {}
    number = whole(row.get("id"))
    if number is None:
        raise unanswered(what, "the answer holds no project id")
    bucket, prefix = text(row.get("bucket_name")), text(row.get("s3_base_path")).strip("/")
    if created and not (bucket and prefix):
        raise unanswered(what, "the answer lacks bucket_name or s3_base_path")
    return CloudProject(
        id=number,
        name=text(row.get("name")) or text(row.get("display_name")),
        bucket=bucket,
        prefix=prefix,
        image_count=whole(row.get("image_count")),
        status=text(row.get("public_status")),
        detailed_status=text(row.get("display_detailed_status")),
        error_reason=text(row.get("error_reason")),
        processing_started=text(row.get("last_datetime_processing_started")) or None,
        processing_ended=text(row.get("last_datetime_processing_ended")) or None,
        has_processing_started="last_datetime_processing_started" in row,
        outputs=merge_outputs(_leaves(row.get("outputs"), (), _region(row.get("s3_bucket_region")))),
        detail_url=text(row.get("detail_url")),
    )


def parse_grant(value: Any, what: str, *, now: float) -> S3Grant:
    """Return the S3 credentials in an answer; `now` is our wall clock (s since 1970) when it was asked for.

    Times without a zone are UTC. Raises Unanswered where keys, bucket or prefix are missing.
    """
    row = value if isinstance(value, Mapping) else {}
    names = ("access_key", "secret_key", "session_token", "bucket", "key")
    fields = {name: text(row.get(name)) for name in names}
    missing = [name for name in names if not fields[name]]
    if missing:
        raise unanswered(what, f"the answer lacks {', '.join(missing)}")
    region, endpoint = text(row.get("region")) or _DEFAULT_REGION, text(row.get("endpoint_override"))
    if any(re.search(r"[^!-~]", value) for value in (*(fields[name] for name in names[:3]), endpoint)):
        raise unanswered(what, "the S3 credentials or their address hold characters that no header can carry")
    if not _REGION.fullmatch(region):
        raise unanswered(what, f"{clean(region)!a} is no region of S3")
    server, expiration = moment(row.get("server_time")), moment(row.get("expiration"))
    life = expiration - server if server is not None and expiration is not None else -1.0
    return S3Grant(
        access_key=fields["access_key"],
        secret_key=fields["secret_key"],
        session_token=fields["session_token"],
        expires_in=life if 0 < life <= _LONGEST_LIFETIME else FALLBACK_LIFETIME,
        skew=server - now if server is not None else 0.0,
        bucket=fields["bucket"],
        prefix=fields["key"].strip("/"),
        region=region,
        endpoint_override=endpoint or None,
        accelerated=text(row.get("is_bucket_accelerated")).lower() in {"true", "1", "yes"},
    )


def parse_outputs(value: Any, what: str) -> tuple[CloudOutput, ...]:
    """Return the outputs in an answer of the outputs endpoint; raises Unanswered where there is no list of them."""
    rows = value.get("outputs", value.get("results")) if isinstance(value, Mapping) else value
    if not isinstance(rows, list):
        raise unanswered(what, "the answer holds no list of outputs")
    return merge_outputs(filter(None, (_listed(row) for row in rows if isinstance(row, Mapping))))


def merge_outputs(*groups: Iterable[CloudOutput]) -> tuple[CloudOutput, ...]:
    """Return the outputs of all groups once each, by ident and by key; one that is done beats one that is not.

    The service lists the same object under several types, and both in the project and at the outputs endpoint.
    """
    merged: list[CloudOutput] = []
    place: dict[tuple[str, str], int] = {}
    for output in (output for group in groups for output in group):
        marks = [("ident", output.ident), *([("key", f"{output.bucket}/{output.key}")] if output.key else [])]
        known = next((place[mark] for mark in marks if mark in place), None)
        if known is None:
            known = len(merged)
            merged.append(output)
        elif output.availability == "done" != merged[known].availability:
            merged[known] = output
        elif merged[known].region is None and output.region and output.key == merged[known].key:
            merged[known] = replace(merged[known], region=output.region)
        place.update(dict.fromkeys(marks, known))
    return tuple(merged)


def safe_name(*candidates: str) -> str:
    """Return a base name for a file from the first usable candidate: no path, no leading dot, at most 200 bytes."""
    for candidate in candidates:
        base = re.split(r"[/\\]", candidate.rstrip("/\\"))[-1]
        base = re.sub(r"[^\w .()+,=@~\[\]-]", "_", base).lstrip(". ").rstrip(". ")
        if base:
            stem, dot, suffix = base.rpartition(".") if "." in base else (base, "", "")
            suffix = dot + suffix[:20]
            return stem.encode()[: _NAME_BYTES - len(suffix.encode())].decode(errors="ignore") + suffix
    return "output"


def whole(value: Any) -> int | None:
    """Return a whole number that came as number or text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if -_MOST <= number < _MOST else None


def seconds(value: Any) -> float | None:
    """Return a positive duration that came as number or text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        duration = float(value)
    except (ValueError, OverflowError):
        return None
    return duration if 0 < duration < float("inf") else None


def text(value: Any) -> str:
    """Return a scalar of an answer as text without blanks around it; "" for null and for what is no scalar."""
    return _verbatim(value).strip()


def moment(value: Any) -> float | None:
    """Return an ISO 8601 time of the service as seconds since 1970 (`Z`, an offset, or nothing, which is UTC)."""
    try:
        when = datetime.fromisoformat(text(value))
    except ValueError:
        return None
    since = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return since if _FROM_2000 <= since <= _TO_2200 else None


def _verbatim(value: Any) -> str:
    """Return a scalar as text with its blanks, which belong to a key of S3.

    Half characters (lone surrogates), which JSON can carry and nothing else, become question marks.
    """
    if value is None or isinstance(value, list | Mapping):
        return ""
    return str(value).encode("utf-8", "replace").decode()


def _region(value: Any) -> str | None:
    """Return the region of an output, or None, for that of its project, where what is said is none."""
    found = _REGION.fullmatch(text(value))
    return found[0] if found else None


def _availability(word: str, key: str) -> str:
    known = _AVAILABILITY.get(word.lower(), "done" if not word and key else "not available")
    return "not available" if known == "done" and not key else known


def _listed(row: Mapping[str, Any]) -> CloudOutput | None:
    kind, key = text(row.get("output_type")) or text(row.get("result_type")), _verbatim(row.get("s3_key"))
    ident = text(row.get("output_id")) or key or kind
    return (
        CloudOutput(
            ident=ident,
            kind=kind or "output",
            name=safe_name(key, text(row.get("name")), kind),
            bucket=text(row.get("s3_bucket")),
            key=key,
            region=_region(row.get("s3_region")),
            availability=_availability(text(row.get("availability")) or text(row.get("status")), key),
        )
        if ident
        else None
    )


def _leaves(value: Any, path: tuple[str, ...], region: str | None) -> Iterator[CloudOutput]:
    """Walk the tree of outputs in a project; a leaf has an S3 key or a status."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping) or len(path) > _DEEPEST:
        return
    key, status = _verbatim(value.get("s3_key")), text(value.get("status"))
    if not (key or status):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, str(name)), region)
        return
    kind = text(value.get("output_type")) or (path[-1] if path else "output")
    yield CloudOutput(
        ident=text(value.get("output_id")) or key or "/".join(path),
        kind=kind,
        name=safe_name(text(value.get("name")), key, kind),
        bucket=text(value.get("s3_bucket")),
        key=key,
        region=_region(value.get("s3_region")) or region,
        availability=_availability(status, key),
    )
