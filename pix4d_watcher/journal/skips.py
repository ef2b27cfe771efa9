"""Verb of people: `skip FOLDER IMAGE…` takes single images out of a project, as long as they were not sent."""

from __future__ import annotations

import difflib
import shlex
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select, update

from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import Condition, EffectStatus, HoldCode, ImageStatus, State, printable, unprintable
from pix4d_watcher.journal import orphans, records, tables
from pix4d_watcher.journal.change import execute_many, tell, update_one
from pix4d_watcher.journal.people import Refusal
from pix4d_watcher.journal.removed import REMOVED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Connection

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Image, Project

OF_IMAGES = (
    HoldCode.SOURCE_MISSING,
    HoldCode.SOURCE_CHANGED,
    HoldCode.SOURCE_UNREADABLE,
    HoldCode.TRIES_EXHAUSTED,
)
"""Holds that single images may be the cause of, so that going on without these lifts them."""

SHOWN = 3
"""Names of images in a text; the rest is counted."""


def skip(journal: Journal, project_id: int, names: Sequence[str]) -> str:
    """Go on without these images, named by their path below the folder or by their file name; says what it did.

    Raises Refusal, and changes nothing, where one of them is not known, was sent already, or where none would be left.
    """
    with journal.write() as connection:
        query = select(tables.projects).where(tables.projects.c.id == project_id)
        row = records.project(connection.execute(query).mappings().one())
        _may_skip(row)
        images = _images(connection, project_id)
        chosen = {image.id: image for name in names for image in [_named(row, images, name)]}
        _not_sent(row, chosen.values())
        if all(image.id in chosen or image.status is ImageStatus.SKIPPED for image in images):
            raise Refusal(f"then no image of {row.title} is left; to give it up: pix4d-watcher drop FOLDER")
        marked = update(tables.images).where(tables.images.c.id == bindparam("this"))
        removed = marked.values(status=ImageStatus.SKIPPED, reason=REMOVED, error=None, due_at=None)
        execute_many(connection, removed, ({"this": number} for number in chosen))
        orphans.leave_in(connection, tables.images.c.project_id == project_id, tables.images.c.reason == REMOVED)
        shown = _listed(chosen.values())
        tell(connection, project_id, "skipped", f"goes on without {shown}, says a person")
        return f"goes on without {shown}{_go_on(connection, row, chosen)}"


def held_text(code: HoldCode, failing: Sequence[Image]) -> str:
    """Say which images hold a project, what is wrong with the first of them, and what to do, with their names."""
    error = failing[0].error or ""
    text = error if len(failing) == 1 else f"{len(failing)} images: {_listed(failing)}. {error}"
    if code not in (HoldCode.SOURCE_MISSING, HoldCode.SOURCE_CHANGED):
        return text
    # Looked at again for a person and refused all the same: what lies there now is damaged.
    accept = code is HoldCode.SOURCE_CHANGED and not all(image.look_again for image in failing)
    back = "Put the original images back" + (", or accept the new ones" if accept else "")
    names = " ".join(shlex.quote(printable(image.path)) for image in failing[:SHOWN]) + " …" * (len(failing) > SHOWN)
    return (
        f"{text.rstrip('.')}. {back}{':' if accept else ', then:'} pix4d-watcher retry FOLDER; "
        f"or go on without them: pix4d-watcher skip FOLDER {names}"
    )


def _images(connection: Connection, project_id: int) -> list[Image]:
    query = select(tables.images).where(tables.images.c.project_id == project_id).order_by(tables.images.c.path)
    return [records.image(row) for row in connection.execute(query).mappings()]


def _may_skip(row: Project) -> None:
    if row.condition is Condition.DROPPED:
        raise Refusal(f"{row.title} was given up. To take it up again: pix4d-watcher retry FOLDER")
    if row.state is State.FOUND:
        raise Refusal(
            f"the images of {row.title} are not known before the folder is complete; "
            f"until then take the file itself out of the folder"
        )


def _named(row: Project, images: Sequence[Image], name: str) -> Image:
    path = unprintable(name)
    found = [image for image in images if image.path == path]
    found = found or [image for image in images if image.path.rpartition(b"/")[2] == path]
    if len(found) == 1:
        return found[0]
    if found:
        raise Refusal(f"{name} may be any of these: {_listed(found)}")
    shown = {printable(image.path): printable(image.path) for image in images}
    shown |= {known.rpartition("/")[2]: known for known in shown}
    near = dict.fromkeys(shown[close] for close in difflib.get_close_matches(name, shown, n=3))
    hint = f"did you mean {' or '.join(near)}?" if near else "pix4d-watcher status FOLDER tells more"
    raise Refusal(f"no image {name} is known in {row.title}; {hint}")


def _not_sent(row: Project, images: Iterable[Image]) -> None:
    sent = [image for image in images if image.status in (ImageStatus.UPLOADED, ImageStatus.REGISTERED)]
    if sent:
        raise Refusal(
            f"{_listed(sent)} {'was' if len(sent) == 1 else 'were'} sent already and cannot be taken back: an image "
            f"that is {sent[0].status} belongs to the project in the cloud. Drop a folder without it as a new one, "
            f"and give {row.title} up: pix4d-watcher drop FOLDER"
        )


def _go_on(connection: Connection, row: Project, chosen: Collection[int]) -> str:
    """Make the project due, and lift a hold whose cause is taken out; says what still holds it."""
    values: dict[str, Any] = {"due_at": None}
    lift = False
    if row.state is State.SETTLED and not _is_creating(connection, row.id):
        # The checks decide anew, with the images that are left.
        values |= {"report": None}
        lift = row.hold_code is not None and (row.hold_code in OF_IMAGES or "approve" in HOLDS[row.hold_code].commands)
    elif row.hold_code in OF_IMAGES:
        failing = [
            image
            for image in _images(connection, row.id)
            if image.status is ImageStatus.PENDING and image.error and image.tries and image.id not in chosen
        ]
        if failing:
            still = tables.projects.c.id == row.id, tables.projects.c.hold_code == row.hold_code
            update_one(connection, tables.projects, *still, hold_text=held_text(row.hold_code, failing))
            return f"; still held for {_listed(failing)}"
        lift = True
    if lift:
        values |= {"condition": Condition.ACTIVE, "hold_code": None, "hold_text": None, "tries": 0}
    update_one(connection, tables.projects, tables.projects.c.id == row.id, **values)
    return ""


def _is_creating(connection: Connection, project_id: int) -> bool:
    effects = tables.effects
    query = select(effects.c.id).where(effects.c.project_id == project_id, effects.c.status == EffectStatus.OPEN)
    return connection.execute(query).first() is not None


def _listed(images: Iterable[Image]) -> str:
    names = [printable(image.path) for image in images]
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
