"""What `status` and `explain` print, in each of their forms."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pix4d_watcher.cli import explain, journals, out, picture, show
from pix4d_watcher.cli.watch import watch
from pix4d_watcher.core.model import Condition, State, printable
from pix4d_watcher.journal import listing, views
from pix4d_watcher.journal.listing import EVERYTHING

if TYPE_CHECKING:
    from pix4d_watcher.cli.picture import Picture
    from pix4d_watcher.config import Settings
    from pix4d_watcher.journal.listing import Wanted
    from pix4d_watcher.journal.records import Root

JSON_VERSION = 1
"""Of `status --json`; fields may be added, never renamed."""

watch_all = watch


def as_json(settings: Settings, reference: str | None, wanted: Wanted = EVERYTHING) -> None:
    """Print the fixed JSON, of one project where one is named."""
    with journals.journal_to_read(settings) as journal:
        ids = None
        if reference is not None:
            ids = [journals.project_of(journal, journals.given(reference)).id]
        elif journal is not None and wanted != EVERYTHING:
            ids = listing.in_order(journal, wanted)
        seen = picture.look(settings, journal, ids)
    readable = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    value = {
        "version": JSON_VERSION,
        "service": _service(seen),
        "projects": [_project(project, seen) for project in seen.projects],
        "roots": [_root(root) for root in seen.roots],
    }
    out.write(json.dumps(value, indent=2, ensure_ascii=not readable) + "\n")


def _service(seen: Picture) -> dict[str, Any]:
    """Say whether the service runs, whether a person `paused` everything, and what `pause` of its own it makes now."""
    pause = seen.pause and {**seen.pause, "since": views.moment(seen.pause["since"])}
    return {"running": seen.running, "paused": seen.paused_all, "pause": pause}


def _project(project: dict[str, Any], seen: Picture) -> dict[str, Any]:
    """Say of a project that it waits for what the whole service waits for; a folder still being copied does not."""
    moves = project["condition"] == Condition.ACTIVE and project["state"] not in {State.FOUND, State.DELIVERED}
    return {**project, "waiting_for": seen.pause["text"]} if seen.pause and moves else project


def _root(root: Root) -> dict[str, Any]:
    """Say of a drop directory what a program may want to know; `watching` is `inotify`, or `polling: ` and why."""
    shown = {"name": root.name, "path": printable(root.path), "present": root.present, "problem": root.problem}
    return {**shown, "watching": root.watching, "loose": root.loose}


def as_table(
    settings: Settings, reference: str | None, wanted: Wanted = EVERYTHING, most: int | None = show.FINISHED_SHOWN
) -> None:
    """Print the table with at most so many finished projects, or all that is known of one project."""
    console = show.console()
    with journals.journal_to_read(settings) as journal:
        if reference is None or journal is None:
            if reference is not None:
                raise journals.unknown(None, reference)
            selection = listing.select_shown(journal, wanted, most) if journal else None
            lines = show.lines(picture.look(settings, journal, selection=selection), console)
        else:
            from pix4d_watcher.cli import detail  # noqa: PLC0415  (there is a journal to import for)

            project = journals.project_of(journal, journals.given(reference))
            lines = detail.lines(journal, picture.look(settings, journal, [project.id]), project, console)
    out.say(console, *lines)


def explained(settings: Settings, reference: str) -> None:
    """Print why a folder is where it is."""
    console = show.console()
    with journals.journal_to_read(settings) as journal:
        found = journals.candidates(journal, reference)
        seen = picture.look(settings, journal, [project.id for project in found])
        if found and journal is not None:
            sentences = list(explain.known(settings, journal, seen, found[0]))
        else:
            sentences = list(explain.unknown(settings, journal, seen, reference))
    out.say(console, *filter(None, sentences))
