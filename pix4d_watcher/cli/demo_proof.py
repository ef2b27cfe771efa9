"""What the demonstration claims at its end, and whether it is true: the journal beside the emulator's ledger.

Pure comparison of what both say, and of the files on disk; starts and changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pix4d_watcher.core.model import Condition, ImageStatus, State
from pix4d_watcher.journal import views

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of the proof: about which folder, what the journal says, what the cloud says, and whether they agree."""

    folder: str
    journal: str
    cloud: str
    true: bool


def under_way(journal: Journal, project_id: int) -> set[str]:
    """List the keys of images whose upload had begun and whose answer is not in the journal."""
    images = views.images_of(journal, project_id)
    return {str(image.key) for image in images if image.begun and image.status is ImageStatus.PENDING}


def delivered(
    journal: Journal, ledger: Mapping[str, Any], project: Project, results: Path, at_the_kill: Collection[str]
) -> Iterator[Claim]:
    """Compare a folder that must be done; `at_the_kill` are the keys whose upload was under way when it was killed."""
    name = project.folder.decode()
    used = [entry for entry in ledger["projects"] if entry["used"] and entry["name"].startswith(f"{name} [")]
    yield Claim(
        name,
        f"project {project.remote_id}, {project.state}",
        f"{len(used)} used project, {sum(entry['starts'] for entry in used)} start",
        project.state is State.DELIVERED
        and [entry["id"] for entry in used] == [project.remote_id]
        and used[0]["starts"] == 1,
    )
    objects = {key: entry for key, entry in ledger["objects"].items() if entry["project"] == project.remote_id}
    images = {f"{project.prefix}/{image.key}": image.sha256.hex() for image in views.images_of(journal, project.id)}
    yield Claim(
        name,
        f"{len(images)} images",
        f"{len(objects)} objects, the same bytes",
        images == {key: entry["sha256"] for key, entry in objects.items()},
    )
    registered = used[0]["registered"] if used else {}
    yield Claim(
        name,
        f"{views.counts(journal, project.id)[ImageStatus.REGISTERED]} registered",
        f"{sum(registered.values())} registered, each once",
        registered == dict.fromkeys(images, 1),
    )
    yield _uploads(name, objects, {f"{project.prefix}/{key}" for key in at_the_kill})
    yield _results(journal, ledger, project, results / project.root / name)


def sent_twice(ledger: Mapping[str, Any]) -> int:
    """Count the objects that arrived more than once."""
    return sum(entry["puts"] > 1 for entry in ledger["objects"].values())


def held(ledger: Mapping[str, Any], project: Project, code: str) -> Claim:
    """Compare a folder that must be held with a code, and must have cost nothing."""
    name = project.folder.decode()
    made = [entry["id"] for entry in ledger["projects"] if entry["name"].startswith(f"{name} [")]
    sent = sum(entry["project"] in made for entry in ledger["objects"].values())
    return Claim(
        name,
        f"held: {project.hold_code}",
        f"{len(made)} projects, {sent} images sent",
        project.condition is Condition.HELD and project.hold_code == code and not made,
    )


def _uploads(name: str, objects: Mapping[str, Any], at_the_kill: Collection[str]) -> Claim:
    """Each image was sent once; twice only where the kill came between its arrival and the note in the journal."""
    again = {key for key, entry in objects.items() if entry["puts"] == 2}
    once = {key for key, entry in objects.items() if entry["puts"] == 1}
    twice = f", {len(again)} twice" if again else ""
    return Claim(
        name,
        f"{len(at_the_kill)} uploads cut by kill -9",
        f"{len(once)} sent once{twice}",
        again <= set(at_the_kill) and len(once) + len(again) == len(objects),
    )


def _results(journal: Journal, ledger: Mapping[str, Any], project: Project, folder: Path) -> Claim:
    outputs = views.outputs_of(journal, project.id)
    wanted = {output.name: ledger["outputs"].get(output.key, {}).get("sha256") for output in outputs}
    here = {name: _sha256(folder / name) for name in wanted}
    finished = (folder / ".complete").is_file()
    return Claim(
        project.folder.decode(),
        f"{sum(output.fetched for output in outputs)} results fetched{', .complete' if finished else ''}",
        f"{len(wanted)} results, the same bytes",
        finished and bool(wanted) and here == wanted,
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
