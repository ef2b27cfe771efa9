"""A folder that became several projects: the split itself, and what its parts share.

The parts of a folder are the present projects of one name with `split_of`; each has a round and images of its own.
What happens to the folder (renamed, gone, joined by late images) happens to them together.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from pix4d_watcher.core.machine import ORDER
from pix4d_watcher.core.model import Condition, ImageStatus, State
from pix4d_watcher.journal import records, tables
from pix4d_watcher.journal.change import tell, update_one
from pix4d_watcher.journal.folders import insert_images, nothing_asked
from pix4d_watcher.journal.late import REWRITTEN
from pix4d_watcher.journal.projects import mark_images
from pix4d_watcher.journal.removed import REMOVED
from pix4d_watcher.journal.rounds import new_project_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from pix4d_watcher.core.model import FrozenImage
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Image, Project

_P, _I = tables.projects.c, tables.images.c


def by_folder(projects: Iterable[Project]) -> list[list[Project]]:
    """Group present projects of one drop directory by their folder: one project each, or all parts in their order.

    Each group stands where its first project does, the oldest first.
    """
    groups: list[list[Project]] = []
    latest: dict[tuple[bytes, bool], list[Project]] = {}
    for project in sorted(projects, key=lambda project: project.id):
        key = (project.folder, project.members is None)
        if (project.split_part or 1) > 1 and key in latest:
            latest[key].append(project)
            continue
        groups.append([project])
        if project.split_of:
            latest[key] = groups[-1]
    return groups


def taker(parts: Sequence[Project]) -> Project:
    """Choose the part that looks after the folder: the last one that late images can still join, else the last one."""
    alive = [part for part in parts if part.condition is not Condition.DROPPED] or list(parts)
    still_open = [part for part in alive if ORDER.index(part.state) < ORDER.index(State.STARTED)]
    return (still_open or alive)[-1]


def parts_of(journal: Journal, project: Project) -> list[Project]:
    """List all parts of a project's folder in their order; the project alone where it was not split."""
    with journal.read() as connection:
        return _parts(connection, project)


def images_of(journal: Journal, project: Project) -> list[Image]:
    """List the images of a folder, whichever part they belong to, in the order of their paths, the newest last."""
    with journal.read() as connection:
        ids = [part.id for part in _parts(connection, project)]
        query = select(tables.images).where(_I.project_id.in_(ids)).order_by(_I.path, _I.id)
        return [records.image(row) for row in connection.execute(query).mappings()]


def newest_of(journal: Journal, project: Project) -> dict[bytes, tuple[int, int] | None]:
    """Map the path of each image of a folder, whichever part it belongs to, to its size and mtime (ns).

    None where another version is no news: it is compared when it is sent, was told, or a person took the image out.
    Where one that stays behind in a part came once more and joined another part, that is the one.
    """
    with journal.read() as connection:
        ids = [part.id for part in _parts(connection, project)]
        query = select(_I.path, _I.size, _I.mtime_ns, _I.status, _I.reason).where(_I.project_id.in_(ids))
        rows = connection.execute(query.order_by(_I.id)).all()
    told = (REWRITTEN, REMOVED)
    no_news = {row.path for row in rows if row.status == ImageStatus.PENDING or row.reason in told}
    return {row.path: None if row.path in no_news else (int(row.size), row.mtime_ns) for row in rows}


def versions_of(journal: Journal, project: Project) -> dict[bytes, tuple[int, int, bytes]]:
    """Map the path of each image of a folder, whichever part it belongs to, to its size, mtime (ns) and SHA-256."""
    with journal.read() as connection:
        ids = [part.id for part in _parts(connection, project)]
        query = select(_I.path, _I.size, _I.mtime_ns, _I.sha256).where(_I.project_id.in_(ids))
        return {row.path: (int(row.size), row.mtime_ns, row.sha256) for row in connection.execute(query).all()}


def split(
    journal: Journal,
    project_id: int,
    *,
    starts: Sequence[bytes],
    skipped: Mapping[bytes, str],
    keys: Mapping[bytes, str],
    fingerprint: bytes | None,
) -> list[int]:
    """Split a settled folder: the images from each path of `starts` on become a project of their own.

    All in one transaction, before anything was asked of the cloud; each part is then checked by itself. Returns the
    ids of the new projects. Raises Stale when the folder was frozen anew or went on meanwhile.
    """
    of = len(starts) + 1
    with journal.write() as connection:
        nothing_asked(connection, project_id)
        mark_images(connection, project_id, skipped, keys)
        # Unique while they move: each part gives its own keys when it is checked.
        connection.execute(update(tables.images).where(_I.project_id == project_id).values(key=None))
        update_one(
            connection,
            tables.projects,
            _P.id == project_id,
            _P.state == State.SETTLED,
            _P.split_of.is_(None),
            _P.fingerprint == fingerprint,
            split_part=1,
            split_of=of,
            due_at=None,
        )
        row = records.project(connection.execute(select(tables.projects).where(_P.id == project_id)).mappings().one())
        new = [_insert_part(connection, row, number) for number in range(2, of + 1)]
        for new_id, start in zip(new, starts, strict=True):
            # The later parts take theirs from this one in their turn.
            connection.execute(
                update(tables.images)
                .where(_I.project_id.in_([project_id, *new]), _I.path >= start)
                .values(project_id=new_id)
            )
        for number, part in enumerate([project_id, *new], start=1):
            count = connection.execute(select(func.count()).where(_I.project_id == part)).scalar_one()
            update_one(connection, tables.projects, _P.id == part, seen_images=count)
            tell(connection, part, "split", f"part {number} of {of}, {count} of {len(keys) + len(skipped)} images")
    return new


def late_in_settled_part(
    journal: Journal,
    project_id: int,
    images: Sequence[FrozenImage],
    *,
    skipped: Mapping[bytes, str],
    fingerprint: bytes,
) -> None:
    """Add images to a part of which nothing was asked yet; it is checked again. Raises Stale when it went on."""
    with journal.write() as connection:
        nothing_asked(connection, project_id)
        insert_images(connection, project_id, images, skipped=skipped)
        settled = (_P.id == project_id, _P.state == State.SETTLED)
        update_one(connection, tables.projects, *settled, fingerprint=fingerprint, report=None, due_at=None)
        tell(connection, project_id, "late", f"{len(images)} more images joined before the start")


def _parts(connection: Connection, project: Project) -> list[Project]:
    """Read the parts of a folder; those of an earlier folder of the same name are not present any more."""
    if project.split_of is None:
        return [project]
    kind = _P.members.is_(None) if project.members is None else _P.members.is_not(None)
    together = (_P.root == project.root, _P.folder == project.folder, _P.present == project.present, kind)
    query = select(tables.projects).where(*together, _P.split_of == project.split_of).order_by(_P.id)
    return _own([records.project(row) for row in connection.execute(query).mappings()], project)


def _own(found: list[Project], project: Project) -> list[Project]:
    """Pick the parts that were made together with this one: gone folders of one name may have been split alike."""
    here = next(index for index, part in enumerate(found) if part.id == project.id)
    first = max(index for index in range(here + 1) if found[index].split_part == 1)
    rest = found[first + 1 :]
    end = next((index for index, part in enumerate(rest) if part.split_part == 1), len(rest))
    return [found[first], *rest[:end]]


_OF_THE_PART_ALONE = {"id", "root", "folder", "round", "marker", "split_part", "others", "report", "content_set"}


def _insert_part(connection: Connection, first: Project, number: int) -> int:
    """Insert a project like the first part; its number is the next free round of the name."""
    shared = {field.name: getattr(first, field.name) for field in fields(first)}
    values = {name: value for name, value in shared.items() if name not in _OF_THE_PART_ALONE}
    values |= {"accepted": list(first.accepted), "split_part": number}
    return new_project_in(connection, root=first.root, folder=first.folder, **values)
