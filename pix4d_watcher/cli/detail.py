"""`status FOLDER`: everything that is known of one project, in sections; empty ones are left out.

Owns the selection and the layout; reads the journal only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pix4d_watcher.cli import show, words
from pix4d_watcher.core.machine import with_name
from pix4d_watcher.core.model import Condition, ImageStatus, printable
from pix4d_watcher.journal import views

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console

    from pix4d_watcher.cli.picture import Picture
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Image, Project

MOST = 10
"""Lines of a section; the rest is counted."""

_LABEL = 12
_EVENT = 27


def lines(journal: Journal, picture: Picture, project: Project, out: Console) -> list[Text]:
    """Lay out all that is known of the project that `picture` was taken of."""
    images = views.images_of(journal, project.id)
    now, title = picture.now, picture.projects[0]["title"]
    sections: list[tuple[str, Iterable[str]]] = [
        ("Images", _image_counts(images, picture.projects[0])),
        (
            "Failed",
            (_failed(image, now, project) for image in images if image.status is ImageStatus.PENDING and image.error),
        ),
        ("Skipped", _with_reason(images, skipped=True)),
        ("Rewritten", _with_reason(images, skipped=False)),
        ("Report", _report(project.report or {}, title)),
        ("Calls", _effects(journal, project)),
        ("Results", _outputs(journal, project)),
    ]
    found = [
        *show.headline(picture),
        Text(),
        *show.table(picture, out)[:-1],
        *_wrapped(_facts(project, views.events_of(journal, project.id, 1000), now), out, _LABEL),
    ]
    for heading, texts in sections:
        some = list(texts)
        if some:
            found += [Text(), Text(heading, "bold"), *_wrapped((f"  {text}" for text in some[:MOST]), out, 4)]
            if len(some) > MOST:
                found.append(Text(f"  and {len(some) - MOST} more"))
    return [*found, Text(), Text("History", "bold"), *_wrapped(_events(journal, project, title, now), out, _EVENT)]


def _wrapped(texts: Iterable[str], out: Console, hanging: int) -> Iterator[Text]:
    """Wrap each text to the width; its further lines are indented by so many cells."""
    for text in texts:
        head, rest = text[:hanging], text[hanging:]
        for index, line in enumerate(Text(rest).wrap(out, max(20, out.width - hanging)) or [Text()]):
            yield Text(head if index == 0 else " " * hanging) + line


def _facts(project: Project, events: Sequence[tuple[float, str, str]], now: float) -> Iterator[str]:
    yield f"{'Found':{_LABEL}}{words.ago(project.found_at, now)}, {_clock(project.found_at)}"
    if project.members:
        yield f"{'Folders':{_LABEL}}{', '.join(project.members)}"
    if project.split_of is not None:
        yield f"{'Part':{_LABEL}}{project.split_part} of {project.split_of}"
    if project.remote_id is not None:
        name = f' "{project.remote_name}"' if project.remote_name else ""
        address = f", for the API {project.page}" if project.page else ""
        yield f"{'Cloud':{_LABEL}}project {project.remote_id}{name}{address}"
    if project.cloud_status:
        yield f"{'Cloud says':{_LABEL}}{project.cloud_status}"
    if project.delivered_at is not None:
        yield f"{'Done':{_LABEL}}{words.ago(project.delivered_at, now)}, {_clock(project.delivered_at)}"
    if project.accepted:
        yield f"{'Accepted':{_LABEL}}{', '.join(project.accepted)}, by a person"
    if project.tries:
        yield f"{'Tries':{_LABEL}}{project.tries}, the last one: {project.error}"
    if project.put_away in {"archived", "deleted"}:
        told = next((text for _at, kind, text in reversed(events) if kind == project.put_away), "")
        yield f"{'Folder':{_LABEL}}was {project.put_away} when its retention was over: {told}"
    elif not project.present:
        yield f"{'Folder':{_LABEL}}is not in the drop directory any more"


def _image_counts(images: list[Image], project: dict[str, Any]) -> Iterator[str]:
    if not images:
        if project["images"]["total"]:
            yield f"{words.number(project['images']['total'], 'image')} seen so far; the folder is not complete yet"
        return
    counts = project["images"]
    parts = [f"{counts[name]} {name}" for name in ("pending", "uploaded", "registered", "skipped") if counts[name]]
    yield f"{len(images)}: {', '.join(parts)}"
    sent, total = project["bytes"]["uploaded"], project["bytes"]["total"]
    yield f"{words.size(sent)} of {words.size(total)} uploaded"


def _with_reason(images: list[Image], *, skipped: bool) -> Iterator[str]:
    for image in images:
        if image.reason and (image.status is ImageStatus.SKIPPED) == skipped:
            yield f"{printable(image.path)}: {image.reason}"


def _failed(image: Image, now: float, project: Project) -> str:
    due = image.due_at if project.condition is Condition.ACTIVE else None
    again = f"; again {words.ahead(due, now)}" if due is not None else ""
    return f"{printable(image.path)}, {words.number(image.tries, 'try').replace('trys', 'tries')}: {image.error}{again}"


def _report(report: dict[str, Any], name: str) -> Iterator[str]:
    if report:
        yield (
            f"{report['sendable']} of {words.number(report['images'], 'image')} to be sent, "
            f"{report['megapixels']:.1f} megapixels, about {report['credits']:.2f} credits"
        )
    for finding in report.get("findings", ()):
        yield f"[{finding['level']}] {finding['check']}: {with_name(finding['text'], name)}"
    others = report.get("not_images", ())
    if others:
        more = " and more" if others[3:] else ""
        yield f"{words.number(len(others), 'other file')}, not to be sent: {', '.join(others[:3])}{more}"


def _effects(journal: Journal, project: Project) -> Iterator[str]:
    for effect in views.effects_of(journal, project.id):
        part = f" batch {effect.part}" if effect.part else ""
        learnt = f", learnt by {effect.learnt}" if effect.learnt else ""
        note = f": {effect.note}" if effect.note else ""
        yield f"{effect.kind}{part}: {effect.status}{learnt}, asked at {_clock(effect.asked_at)}{note}"


def _outputs(journal: Journal, project: Project) -> Iterator[str]:
    for output in views.outputs_of(journal, project.id):
        size = f", {words.size(output.size)}" if output.size is not None else ""
        state = "fetched" if output.fetched else f"not yet here{f': {output.error}' if output.error else ''}"
        yield f"{output.name} ({output.kind}{size}): {state}"


def _events(journal: Journal, project: Project, title: str, now: float) -> Iterator[str]:
    for at, kind, text in views.events_of(journal, project.id, MOST):
        yield f"{words.ago(at, now):>12}  {kind:11.11}  {with_name(text, title)}"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
