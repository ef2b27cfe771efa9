"""The values that all rooms speak of: states, conditions, hold codes, images and files as they were seen.

Nothing here reads a disk, a clock or a network.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum

_HOST = re.compile(r"[A-Za-z0-9_.:%~-]+")


class State(StrEnum):
    """The last durably true fact about a project; moves forward one step at a time."""

    FOUND = "found"
    SETTLED = "settled"
    CREATED = "created"
    UPLOADED = "uploaded"
    REGISTERED = "registered"
    STARTED = "started"
    PROCESSED = "processed"
    DELIVERED = "delivered"


class Condition(StrEnum):
    """What people and errors change; progress never does."""

    ACTIVE = "active"
    HELD = "held"
    DROPPED = "dropped"


class HoldCode(StrEnum):
    """Why a project is held; `machine.HOLDS` says when each one is lifted."""

    MEDIA_ABSENT = "media_absent"
    DISK_FULL = "disk_full"
    SOURCE_UNREADABLE = "source_unreadable"
    NO_CREDIT = "no_credit"
    TOO_FEW_IMAGES = "too_few_images"
    TOO_MANY_IMAGES = "too_many_images"
    BAD_IMAGES = "bad_images"
    NOT_GEOTAGGED = "not_geotagged"
    MIXED_IMAGES = "mixed_images"
    BAD_FOLDER_FILE = "bad_folder_file"
    ALREADY_SENT = "already_sent"
    APPROVAL = "approval"
    LATE_IMAGES = "late_images"
    INPUTS_DIFFER = "inputs_differ"
    MANUAL_START = "manual_start"
    SOURCE_MISSING = "source_missing"
    SOURCE_CHANGED = "source_changed"
    CLOUD_REFUSED = "cloud_refused"
    CLOUD_FAILED = "cloud_failed"
    TRIES_EXHAUSTED = "tries_exhausted"
    IN_DOUBT = "in_doubt"


class ImageStatus(StrEnum):
    """Where one image stands; `failed` is derived: pending with an error and tries."""

    PENDING = "pending"
    UPLOADED = "uploaded"
    REGISTERED = "registered"
    SKIPPED = "skipped"


class EffectKind(StrEnum):
    """The remote calls that must not happen twice."""

    CREATE = "create"
    REGISTER = "register"
    START = "start"


class EffectStatus(StrEnum):
    """An effect is open from its intent until its outcome is known."""

    OPEN = "open"
    DONE = "done"
    UNDONE = "undone"


class Learnt(StrEnum):
    """How the outcome of an effect became known."""

    REPLY = "reply"
    PROBE = "probe"
    PERSON = "person"


class Level(StrEnum):
    """What a failed check of the images does."""

    HOLD = "hold"
    WARN = "warn"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class FileId:
    """What tells one version of a file from another without reading it. Sizes in bytes, times in ns since 1970."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What one read of an image showed.

    `problem` is empty for a sound image, else one of `zero_bytes`, `wrong_format`, `truncated`; `detail` explains it.
    `kind` is empty for an ordinary photo, else `thermal` (R-JPEG) or `multispectral` (a single band). `decoded` tells
    that every pixel was decoded once.
    Latitude and longitude are degrees (WGS84), None without a geotag. `taken_at` is the camera's own clock as ISO text.
    """

    format: str = ""
    width: int = 0
    height: int = 0
    latitude: float | None = None
    longitude: float | None = None
    taken_at: str = ""
    camera: str = ""
    kind: str = ""
    decoded: bool = False
    problem: str = ""
    detail: str = ""

    @property
    def megapixels(self) -> float:
        """Size in millions of pixels; 0 where it is not known."""
        return self.width * self.height / 1e6


@dataclass(frozen=True, slots=True)
class FrozenImage:
    """One image as it was frozen: where (bytes, relative to the folder), which version, which content.

    `sha256` is the digest of the whole file (32 bytes). `blocks` holds the concatenated SHA-256 digests of its 8 MiB
    blocks for files above the multipart threshold, else it is empty.
    """

    path: bytes
    file_id: FileId
    sha256: bytes
    blocks: bytes = b""
    facts: ImageFacts = field(default_factory=ImageFacts)


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check: `count` is how many images it concerns, `text` is one line for a person."""

    check: str
    level: Level
    count: int
    text: str
    hold: HoldCode | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks found in one folder, before any money is spent.

    `megapixels` is the sum over the images that will be sent; `credits` = megapixels / 100, PIX4D's published formula
    (megapixels per image x images / 100).
    """

    images: int
    sendable: int
    total_bytes: int
    megapixels: float
    credits: float
    findings: tuple[Finding, ...] = ()
    skipped: tuple[tuple[bytes, str], ...] = ()
    not_images: tuple[bytes, ...] = ()

    @property
    def holding(self) -> tuple[Finding, ...]:
        """The findings that hold the project."""
        return tuple(finding for finding in self.findings if finding.level is Level.HOLD)


LONGEST_NAME = 255
"""Bytes of a name on disk: NAME_MAX of Linux and of its filesystems."""


def round_name(folder: bytes, number: int) -> bytes:
    """Name a folder's results, or the folder in the archive: the first round has its own name."""
    return with_suffix(folder, b".round%d" % number) if number > 1 else folder


def with_suffix(name: bytes, suffix: bytes) -> bytes:
    """Put a suffix behind the name of a directory; where that is too long (255 bytes), a digest stands for its end."""
    if len(name) + len(suffix) <= LONGEST_NAME:
        return name + suffix
    digest = hashlib.sha256(name).hexdigest()[:8].encode()
    head = name[: LONGEST_NAME - len(suffix) - 1 - len(digest)]
    # Not in the middle of a character, so that a readable name stays one.
    kept = head.decode("utf-8", errors="ignore").encode() if _is_text(name) else head
    return b"%b~%b%b" % (kept, digest, suffix)


def _is_text(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def host_name(host: str | None) -> str:
    """Return a host in the letters in which its name travels (IDNA), empty where it is none; raises ValueError."""
    name = (host or "").encode("idna").decode()
    return name if _HOST.fullmatch(name) else ""


def printable(name: bytes) -> str:
    r"""Show a name from disk: UTF-8 as it is, other bytes and control characters as `\x..`, a backslash doubled."""
    text = name.replace(b"\\", b"\\\\").decode("utf-8", errors="backslashreplace")
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def unprintable(text: str) -> bytes:
    r"""Turn what `printable` showed back into the bytes of the name; text without escapes is its UTF-8 bytes."""
    out = bytearray()
    rest = text
    while rest:
        head, backslash, tail = rest.partition("\\")
        out += head.encode("utf-8", errors="surrogateescape")
        if not backslash:
            break
        if tail[:1] == "\\":
            out += b"\\"
            rest = tail[1:]
        elif tail[:1] == "x" and len(tail) >= 3 and all(c in "0123456789abcdefABCDEF" for c in tail[1:3]):
            out.append(int(tail[1:3], 16))
            rest = tail[3:]
        else:
            out += b"\\"
            rest = tail
    return bytes(out)


def _escaped(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8"))
