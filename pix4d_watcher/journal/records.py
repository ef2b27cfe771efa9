"""Rows of the journal as frozen values, as verbs and views hand them out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from pix4d_watcher.core.model import (
    Condition,
    EffectKind,
    EffectStatus,
    FileId,
    FrozenImage,
    HoldCode,
    ImageFacts,
    ImageStatus,
    State,
    printable,
    round_name,
)

if TYPE_CHECKING:
    from sqlalchemy import RowMapping


@dataclass(frozen=True, slots=True)
class Project:
    """A project: what a folder became, here and in the cloud. See `tables.projects` for the columns."""

    id: int
    root: str
    folder: bytes
    round: int
    marker: str
    device: int
    inode: int
    present: bool
    state: State
    condition: Condition
    hold_code: HoldCode | None
    hold_text: str | None
    paused: bool
    accepted: tuple[str, ...]
    tries: int
    due_at: float | None
    waiting_for: str | None
    error: str | None
    seen_images: int
    fingerprint: bytes | None
    others: list[str] | None
    report: dict[str, Any] | None
    content_set: bytes | None
    members: list[str] | None
    split_part: int | None
    split_of: int | None
    overrides: dict[str, Any] | None
    template_key: str | None
    put_away: str | None
    kept_since: float | None
    remote_id: int | None
    remote_name: str | None
    bucket: str | None
    prefix: str | None
    page: str | None
    cloud_status: str | None
    results_folder: bytes | None
    found_at: float
    settled_at: float | None
    created_at: float | None
    uploaded_at: float | None
    registered_at: float | None
    started_at: float | None
    processed_at: float | None
    delivered_at: float | None

    @property
    def title(self) -> str:
        """How people name it: `root/folder`, with `#2` behind it from the second round on, `#1` where it is a part."""
        return self.numbered if self.round > 1 or self.split_of is not None else self.unnumbered

    @property
    def numbered(self) -> str:
        """Its name with the number of its round, which means no other one."""
        return f"{self.unnumbered}#{self.round}"

    @property
    def unnumbered(self) -> str:
        """The name of its folder, which means the newest round."""
        return f"{self.root}/{printable(self.folder)}"

    @property
    def results_name(self) -> bytes:
        """The name of the directory of its results, which it keeps from the first of them on."""
        return self.results_folder or round_name(self.folder, self.round)


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a project. See `tables.images` for the columns."""

    id: int
    project_id: int
    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: bytes
    blocks: bytes
    facts: dict[str, Any]
    status: ImageStatus
    reason: str | None
    key: str | None
    look_again: bool
    begun: bool
    etag: str | None
    upload_id: str | None
    batch: int | None
    tries: int
    due_at: float | None
    error: str | None
    uploaded_at: float | None

    @property
    def frozen(self) -> FrozenImage:
        """The image as it was frozen."""
        file_id = FileId(self.size, self.mtime_ns, self.ctime_ns, self.inode)
        return FrozenImage(self.path, file_id, self.sha256, self.blocks, ImageFacts(**self.facts))


@dataclass(frozen=True, slots=True)
class Effect:
    """A remote call that must not happen twice. See `tables.effects` for the columns."""

    id: int
    project_id: int
    kind: EffectKind
    part: int
    status: EffectStatus
    request: dict[str, Any]
    answer: dict[str, Any] | None
    learnt: str | None
    waits: int
    note: str | None
    asked_at: float
    closed_at: float | None


@dataclass(frozen=True, slots=True)
class Output:
    """A result file of the cloud. See `tables.outputs` for the columns."""

    id: int
    project_id: int
    ident: str
    kind: str
    name: str
    bucket: str
    key: str
    region: str | None
    etag: str | None
    size: int | None
    fetched: bool
    tries: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Root:
    """A drop directory as it was last seen. See `tables.roots` for the columns."""

    name: str
    path: bytes
    device: int
    inode: int
    first_scan_at: float
    scanned_at: float
    present: bool
    problem: str
    watching: str
    loose: int


_TYPES: dict[str, Any] = {
    "state": State,
    "condition": Condition,
    "hold_code": HoldCode,
    "accepted": tuple,
    "kind": EffectKind,
    "status": EffectStatus,
}


def project(row: RowMapping) -> Project:
    """Make a project of a row of `tables.projects`."""
    return Project(**_typed(row, Project, ("state", "condition", "hold_code", "accepted")))


def image(row: RowMapping) -> Image:
    """Make an image of a row of `tables.images`."""
    values = _typed(row, Image, ())
    values["status"] = ImageStatus(values["status"])
    return Image(**values)


def effect(row: RowMapping) -> Effect:
    """Make an effect of a row of `tables.effects`."""
    return Effect(**_typed(row, Effect, ("kind", "status")))


def output(row: RowMapping) -> Output:
    """Make an output of a row of `tables.outputs`."""
    return Output(**_typed(row, Output, ()))


def root(row: RowMapping) -> Root:
    """Make a drop directory of a row of `tables.roots`."""
    return Root(**_typed(row, Root, ()))


@cache
def _names(record: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(record))


def _typed(row: RowMapping, record: type, typed: tuple[str, ...]) -> dict[str, Any]:
    values = {name: row[name] for name in _names(record)}
    for name in typed:
        if values[name] is not None:
            values[name] = _TYPES[name](values[name])
    return values
