"""`explain FOLDER`: in a few sentences, what a folder does or why it waits, until when, and what lifts it.

Looks at the folder itself where that says more than the journal, so that it answers with the service down, too.
Changes nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pix4d_watcher.cli import journals, live, words
from pix4d_watcher.cli.picture import FRESH
from pix4d_watcher.config import within
from pix4d_watcher.core.machine import HOLDS, before_create, with_name
from pix4d_watcher.core.model import Condition, State, printable, unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pix4d_watcher.cli.picture import Picture
    from pix4d_watcher.config import RootSettings, Settings
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project


def known(settings: Settings, journal: Journal, picture: Picture, project: Project) -> Iterator[str]:
    """Explain a project of the journal; `picture` was taken of it alone."""
    as_json = picture.projects[0]
    title = as_json["title"]
    if project.condition is not Condition.HELD:
        yield f"{title}: {words.doing(as_json, picture.now)}."
    yield from _made_of(project)
    if project.condition is Condition.DROPPED:
        yield from _dropped(journal, project, title)
        return
    if project.state is State.DELIVERED and project.condition is Condition.ACTIVE:
        yield from _delivered(settings, journal, project, as_json["outputs"]["fetched"])
        return
    if project.condition is Condition.HELD:
        yield from _held(project, as_json, picture.now)
    if project.paused:
        yield with_name("A person paused it; nothing new is begun for it. To go on: pix4d-watcher resume FOLDER", title)
    yield from _doubt(settings, journal, project, picture.now)
    yield from _waiting(project, as_json, picture.now)
    if project.accepted:
        yield f"A person accepted {', '.join(project.accepted)}; it is not asked again."
    if project.state is State.FOUND:
        yield from _seen(settings, project)
    yield from _service(picture)


def unknown(settings: Settings, journal: Journal | None, picture: Picture, reference: str) -> Iterator[str]:
    """Explain a name that the journal does not know, by a look into the drop directories; raises Misused."""
    found = list(_places(settings, reference))
    if not found:
        raise journals.unknown(journal, reference)
    for root, name in found:
        yield from live.seen(root, name, known=False)
    yield from _service(picture)


def _made_of(project: Project) -> Iterator[str]:
    if project.members:
        yield f"It is one mission made of {words.number(len(project.members), 'folder')}: {', '.join(project.members)}."
    if project.split_of is not None:
        yield (
            f"It is part {project.split_part} of {project.split_of} of its folder, which has more images than one "
            "project is to have (`split`); the other parts are the rounds beside it."
        )


def _dropped(journal: Journal, project: Project, title: str) -> Iterator[str]:
    from pix4d_watcher.journal import views  # noqa: PLC0415  (the journal is open, so it is there)

    events = views.events_of(journal, project.id, 1000)
    why = next((text for _at, kind, text in reversed(events) if kind in {"dropped", "gone", "found"}), "")
    yield f"Nothing more is sent for it: {why}. What is in the cloud or on disk stays as it is."
    if project.present or not before_create(project.state):
        yield with_name("To take it up again: pix4d-watcher retry FOLDER", title)


def _delivered(settings: Settings, journal: Journal, project: Project, fetched: int) -> Iterator[str]:
    from pix4d_watcher.journal import afterwards, views  # noqa: PLC0415

    if fetched and settings.results is not None:
        place = os.fsencode(settings.results / project.root) + b"/" + project.results_name
        yield f"{words.number(fetched, 'result')} in {printable(place)}/"
    if project.remote_id is not None:
        yield f"In the cloud: project {project.remote_id}{f', for the API {project.page}' if project.page else ''}"
    if project.put_away in {afterwards.ARCHIVED, afterwards.DELETED}:
        events = views.events_of(journal, project.id, 1000)
        told = next((text for _at, kind, text in reversed(events) if kind == project.put_away), "")
        yield f"The folder was {project.put_away}: {told}."


def _held(project: Project, as_json: dict[str, Any], now: float) -> Iterator[str]:
    assert project.hold_code is not None  # held projects have a code: a rule of the journal
    hold, title, text = HOLDS[project.hold_code], as_json["title"], project.hold_text or ""
    yield f"{title} is held: {hold.title} ({project.hold_code})."
    yield with_name(text, title)
    if hold.by_itself and project.due_at is not None:
        yield f"It is looked at again {words.ahead(project.due_at, now)}."
    remedy = words.remedy(project.hold_code, text, title)
    if hold.by_folder and not remedy:
        yield "It is checked again by itself as soon as the folder changes."
    yield remedy


def _doubt(settings: Settings, journal: Journal, project: Project, now: float) -> Iterator[str]:
    from pix4d_watcher.journal import views  # noqa: PLC0415

    effect = views.open_effect(journal, project.id)
    if effect is not None:
        yield (
            f"The cloud was asked to {effect.kind} {words.ago(effect.asked_at, now)} and the outcome is not known yet. "
            f"It is never asked twice blindly: {words.span(settings.advanced.doubt_wait)} after the call "
            "the cloud is asked what it knows."
        )


def _waiting(project: Project, as_json: dict[str, Any], now: float) -> Iterator[str]:
    # For a folder that is still being copied the look at the folder says it better.
    if project.condition is not Condition.ACTIVE or project.state is State.FOUND:
        return
    if as_json["images"]["failed"]:
        failed = words.number(as_json["images"]["failed"], "image")
        yield with_name(f"{failed} failed and will be sent again; see: pix4d-watcher status FOLDER", as_json["title"])
    if project.state is State.CREATED and not project.error:
        yield f"Still to be sent: {words.number(as_json['images']['pending'], 'image')}."
        return
    again = f"; it is looked at again {words.ahead(project.due_at, now)}" if project.due_at is not None else ""
    if as_json["waiting_for"]:
        yield f"It waits: {as_json['waiting_for']}{again}."


def _seen(settings: Settings, project: Project) -> Iterator[str]:
    root = next((root for root in settings.watch if root.name == project.root), None)
    if root is None:
        yield f"Its drop directory {project.root} is not in the configuration any more, so nobody looks at it."
        return
    for member in project.members or ():
        yield f"In {member}:"
        yield from live.seen(root, unprintable(member), known=True, joined=True)
    if project.members is None:
        yield from live.seen(root, project.folder, known=True, said=project.waiting_for)
    elif project.waiting_for:
        yield f"It waits: {project.waiting_for}."


def _places(settings: Settings, reference: str) -> Iterator[tuple[RootSettings, bytes]]:
    """List where something of that name lies directly in a drop directory."""
    root_name, slash, rest = reference.partition("/")
    for root in settings.watch:
        own = unprintable(rest) if slash and root.name == root_name else unprintable(reference)
        if own and b"/" not in own and own not in {b".", b".."} and _lies_in(root, own):
            yield root, own


def _lies_in(root: RootSettings, name: bytes) -> bool:
    try:
        return within(live.PATIENCE, lambda: os.path.lexists(os.fsencode(root.path) + b"/" + name))
    except TimeoutError:
        return False


def _service(picture: Picture) -> Iterator[str]:
    if picture.paused_all:
        yield "Everything is paused by a person; to go on: pix4d-watcher resume --all"
    if not picture.running:
        yield "The service is not running: it goes on here when it is started."
    elif picture.vitals and picture.silent >= FRESH:
        yield f"The service has not given a sign of life for {words.span(picture.silent)}."
    elif picture.pause:
        since = words.span(picture.now - picture.pause["since"])
        yield f"The whole service waits, since {since}: {picture.pause['text']}"
