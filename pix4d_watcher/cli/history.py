"""What `status` is asked for, and `log FOLDER`: the story of a project from its events, in local time, day by day.

Owns the reading of filters and the layout of the story; reads the journal only.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from typing import TYPE_CHECKING

from rich.text import Text

from pix4d_watcher.cli import journals, out, show
from pix4d_watcher.cli.exits import Misused
from pix4d_watcher.core.model import printable
from pix4d_watcher.journal import listing, views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pix4d_watcher.config import Settings
    from pix4d_watcher.journal.records import Project

EVERYTHING, FINISHED_SHOWN = listing.EVERYTHING, show.FINISHED_SHOWN

JSON_VERSION = 1
"""Of `log --json`; fields may be added, never renamed."""

Event = tuple[float, int, str, str]
"""When (s since 1970), of which round, its kind and its text."""


def wanted(
    settings: Settings, *, root: str | None, kind: str | None, since: str | None, older: str | None
) -> listing.Wanted:
    """Read the filters of `status`; raises Misused for a name or a duration that means nothing."""
    names = [one.name for one in settings.watch]
    if root is not None and root not in names:
        with journals.journal_to_read(settings) as journal:
            known = [one.name for one in views.all_roots(journal)] if journal else []
        names += [name for name in known if name not in names]
        if root not in names:
            raise Misused(f"--root {root}: there is no such drop directory; there are {', '.join(names)}")
    if kind is not None and kind not in listing.KINDS:
        raise Misused(f"--state {kind}: there is no such state; there are {', '.join(listing.KINDS)}")
    now = time.time()
    return listing.Wanted(
        root=root,
        kind=kind,
        since=None if since is None else now - _seconds("--since", since),
        until=None if older is None else now - _seconds("--older", older),
    )


def log(settings: Settings, reference: str, *, as_json: bool, most: int | None) -> None:
    """Print the events of a folder, of all its rounds or of the one that is named; `most`: only the last so many."""
    if most is not None and most < 1:
        raise Misused(f"-n {most}: at least one line")
    name = journals.given(reference)
    with journals.journal_to_read(settings) as journal:
        project = journals.project_of(journal, name)
        assert journal is not None
        events = listing.story(journal, project, rounds=not journals.names_round(name, project), most=most)
    if as_json:
        out.write(_as_json(project, events))
        return
    console = show.console()
    if console.is_terminal:
        out.say(console, *_story(events, console.width))
    else:
        # A console would wrap these, too.
        out.write("".join(f"{line.plain.rstrip()}\n" for line in _story(events, None)))


def _seconds(option: str, text: str) -> float:
    from pix4d_watcher.config.units import parse_duration  # noqa: PLC0415

    try:
        return parse_duration(text)
    except ValueError as error:
        raise Misused(f"{option} {text}: {error}") from error


def _as_json(project: Project, events: list[Event]) -> str:
    told = [{"at": views.moment(at), "round": number, "kind": kind, "text": text} for at, number, kind, text in events]
    readable = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    value = {
        "version": JSON_VERSION,
        "root": project.root,
        "folder": printable(project.folder),
        "events": told,
    }
    return json.dumps(value, indent=2, ensure_ascii=not readable) + "\n"


def _story(events: list[Event], width: int | None) -> Iterator[Text]:
    """Lay out the events under their days; with several rounds each says its own. `width` None: never wrap."""
    several = len({number for _at, number, _kind, _text in events}) > 1
    day = None
    for at, number, kind, text in events:
        when = dt.datetime.fromtimestamp(at).astimezone()
        if when.date() != day:
            if day is not None:
                yield Text()
            day = when.date()
            yield Text(f"{when:%A, %Y-%m-%d}", "bold")
        head = f"  {when:%H:%M:%S}  {f'#{number} ' if several else ''}{kind:11}"
        yield from _wrapped(head, text, width)


def _wrapped(head: str, text: str, width: int | None) -> Iterator[Text]:
    if width is None:
        yield Text(f"{head}  {text}")
        return
    lines = Text(text).wrap(show.console(), max(20, width - len(head) - 2))
    for index, line in enumerate(lines or [Text()]):
        yield Text(f"{head}  " if index == 0 else " " * (len(head) + 2)) + line
