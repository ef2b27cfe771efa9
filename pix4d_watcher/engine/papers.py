"""What lies beside the results for people and for later: the report of the checks, and the receipt of what was sent.

A receipt says which images were sent in which project. It outlives the journal: who finds one asks before the same
images are sent and paid again. Without `results` there are none.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pix4d_watcher.core.model import printable
from pix4d_watcher.host import durable
from pix4d_watcher.journal import sent, views
from pix4d_watcher.journal.sent import Sent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()

REPORT = "report.json"
RECEIPT = "pix4d-receipt.json"
VERSION = 1

MOST_BYTES = 32 << 20
"""Bytes of a receipt that is read: an image takes about 250, and a project has 4,000 at most."""

DEEPEST = 5
"""Directories below `results` in which receipts are looked for: two are ours, the rest leaves room for an archive."""


def write(journal: Journal, project: Project, folder: Path) -> None:
    """Write report and receipt of a project beside its results; each is complete and flushed before it has its name.

    Raises OSError.
    """
    head = {
        "version": VERSION,
        "root": project.root,
        "folder": printable(project.folder),
        "round": project.round,
        "project": {"id": project.remote_id, "name": project.remote_name},
    }
    _write(folder, REPORT, {**head, **(project.report or {})})
    _write(folder, RECEIPT, {**head, **_receipt(journal, project)})


def complete_text(project: Project) -> str:
    """Return what the file that is written last says of whose results they are."""
    return f"{project.remote_name}\nproject {project.remote_id}\n"


def is_anothers(complete: Path, project: Project) -> bool:
    """Say whether the results that `complete` (the file written last) ends are another project's; raises OSError."""
    try:
        with complete.open(encoding="utf-8", errors="replace") as file:
            return file.read(4096) != complete_text(project)[:4096]
    except (FileNotFoundError, NotADirectoryError):
        return False


class Receipts:
    """The receipts that were read, by their file, until it changes; none is read before a folder is checked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: dict[Path, _Read] = {}

    def sent(self, results: Path, hashes: frozenset[bytes], *, known: Collection[Path]) -> list[Sent]:
        """List the projects that were sent with any of these images; results in the directories `known` are left out.

        A receipt that cannot be read is told once and says nothing.
        """
        with self._lock:
            found = {}
            for file in _files(results, known):
                with suppress(OSError):  # gone, or on a disk that fails: it says nothing
                    facts = file.stat()
                    version = (facts.st_mtime_ns, facts.st_size)
                    before = self._read.get(file)
                    found[file] = before if before and before.version == version else _look(file, version)
            self._read = found
            receipts = [one.receipt for one in found.values() if one.receipt]
        every = [Sent(one.title, one.remote_id, one.at, hashes & one.hashes()) for one in receipts]
        return [one for one in every if one.hashes]


@dataclass(frozen=True, slots=True)
class _Receipt:
    """What a receipt says; the hashes lie together, since thousands of receipts are kept after a lost journal."""

    title: str
    remote_id: int | None
    at: float
    packed: bytes

    def hashes(self) -> set[bytes]:
        return {self.packed[at : at + 32] for at in range(0, len(self.packed), 32)}


@dataclass(frozen=True, slots=True)
class _Read:
    version: tuple[int, int]
    receipt: _Receipt | None


def _receipt(journal: Journal, project: Project) -> dict[str, Any]:
    images = views.registered_of(journal, project.id)
    times = ("found", "created", "uploaded", "registered", "started", "processed")
    return {
        "times": {name: views.moment(getattr(project, f"{name}_at")) for name in times},
        "created_at": project.created_at,
        "content_set": sent.content_set(sha256 for _path, sha256, _size, _key in images).hex(),
        "credits": (project.report or {}).get("credits"),
        "images": [
            {"path": printable(path), "sha256": sha256.hex(), "size": size, "key": f"{project.prefix}/{key}"}
            for path, sha256, size, key in images
        ],
    }


def _write(folder: Path, name: str, facts: dict[str, Any]) -> None:
    durable.write(folder / name, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def _files(results: Path, known: Collection[Path]) -> Iterator[Path]:
    """Find the receipts below the results; directories that cannot be listed have none."""
    for name, below, files in os.walk(results):
        directory = Path(name)
        if directory in known:
            below.clear()
        elif RECEIPT in files:
            yield directory / RECEIPT
        if len(directory.parts) - len(results.parts) >= DEEPEST:
            below.clear()


def _look(file: Path, version: tuple[int, int]) -> _Read:
    try:
        return _Read(version, _parse(file))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning(
            "receipt not readable", file=printable(os.fsencode(file)), reason=f"{type(error).__name__}: {error}"
        )
        return _Read(version, None)


def _parse(file: Path) -> _Receipt:
    with file.open("rb") as opened:
        data = opened.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
    facts = json.loads(data)
    if facts["version"] != VERSION:
        raise ValueError(f"version {facts['version']}, this program knows {VERSION}")
    hashes = [bytes.fromhex(image["sha256"]) for image in facts["images"]]
    if any(len(one) != 32 for one in hashes):
        raise ValueError("a sha256 is not 32 bytes long")
    number = f"#{facts['round']}" if facts["round"] > 1 else ""
    title = f"{facts['root']}/{facts['folder']}{number}"
    remote_id = facts["project"]["id"]
    return _Receipt(title, None if remote_id is None else int(remote_id), float(facts["created_at"]), b"".join(hashes))
