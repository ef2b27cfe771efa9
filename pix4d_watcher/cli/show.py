"""The table that `status` prints: a headline about the service, one line per folder, and below it why it waits.

The same lines serve people at a terminal (colours, bars) and pipes (plain aligned text). Owns layout only: what was
seen comes as a `Picture`, how it is said stands in `words`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from pix4d_watcher.cli import words
from pix4d_watcher.cli.picture import FRESH
from pix4d_watcher.core.machine import HOLDS, PAUSES, with_name
from pix4d_watcher.core.model import Condition, HoldCode, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pix4d_watcher.cli.picture import Picture

BAR = 12
"""Cells of a bar: wide enough to see it move, narrow enough for 80 columns."""

FINISHED_SHOWN = 10
"""Finished folders that are shown unless all are asked for: what moves or waits must stay in sight."""

_NARROWEST_NAME = 16
_NOTE = "    "

_STYLES = {"held": "yellow", "paused": "cyan", "dropped": "dim", "done": "green"}


@dataclass(frozen=True)
class _Row:
    """One folder: name, state, share that is done (0 to 1), estimated credits, and notes with their styles."""

    name: str
    state: str
    done: float | None
    credits: str
    notes: list[tuple[str, str]]


def console() -> Console:
    """Make the console that all commands print on: nothing in names is taken for markup or coloured."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=False)


def lines(picture: Picture, out: Console, *, sums: bool = False) -> list[Text]:
    """Lay out the whole of `status` for a console; `sums` adds what is left in all, where a low window shows it."""
    return [*headline(picture), *([_left(picture)] if sums else []), Text(), *table(picture, out)]


def table(picture: Picture, out: Console) -> list[Text]:
    """Lay out one line per folder, with notes below it, and the count of them all."""
    rows = _rows(picture)
    if not rows:
        return [Text("No folder is like that." if picture.filtered else "No folder was dropped yet.")]
    found = list(_aligned(rows, out))
    if picture.hidden:
        found.append(Text(f"{_NOTE}… and {picture.hidden:,} more, done or dropped (--all)", "dim"))
    return [*found, Text(), Text(_counts(picture))]


def headline(picture: Picture) -> list[Text]:
    """Say what concerns all folders: whether the service runs, what pauses it, drop directories with problems."""
    found = [_service(picture)]
    if picture.paused_all:
        found.append(Text("Everything is paused by a person; to go on: pix4d-watcher resume --all", "cyan"))
    if picture.pause:
        since = _since(picture.pause, picture.now)
        found.append(
            Text(
                f"It waits for {PAUSES.get(picture.pause['kind'], 'the cloud')}, {since}: {picture.pause['text']}",
                "yellow",
            )
        )
    skew = picture.vitals.get("skew")
    if picture.running and skew is not None and abs(skew) >= FRESH:
        found.append(Text(f"The clock of this machine is {words.span(abs(skew))} off; it is corrected for.", "yellow"))
    if picture.restored:
        found.append(Text("The journal was restored; nothing is sent until it is compared with the cloud.", "yellow"))
    for title, error in picture.hook_troubles:
        found.append(Text(f"{title}: {error}", "yellow"))
    for root in picture.roots:
        if not root.present:
            found.append(Text(f"Drop directory {root.name}: {root.problem}", "yellow"))
        if root.loose:
            text = f"{words.number(root.loose, 'image')} directly in it, in no folder: left alone"
            found.append(Text(f"Drop directory {root.name}: {text}.", "dim"))
        if picture.running and root.watching not in {"", "inotify"}:
            found.append(Text(f"Drop directory {root.name}: watched by {root.watching}", "dim"))
    return found


def uploading(picture: Picture) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield each project that uploads, in the order of their turn, with its bytes sent and its bytes in all."""
    for project in picture.projects:
        moves = project["condition"] == Condition.ACTIVE and not project["hold"]
        if project["state"] == State.CREATED and moves and project["bytes"]["total"]:
            total = project["bytes"]["total"]
            sent = project["bytes"]["uploaded"] + picture.in_flight.get(str(project["id"]), 0)
            # What was under way two seconds ago may be counted as uploaded by now: never all while an image is pending.
            yield project, min(sent, total - (project["images"]["pending"] > 0)), total


def _service(picture: Picture) -> Text:
    if not picture.running:
        seen = f" (last seen {words.ago(picture.vitals['at'], picture.now)})" if picture.vitals.get("at") else ""
        return Text(f"The service is not running{seen}, so nothing moves.", "bold red")
    who = f"process {picture.holder}"
    if picture.vitals.get("pid") == picture.holder and picture.silent >= FRESH:
        return Text(f"The service ({who}) has not given a sign of life for {words.span(picture.silent)}.", "bold red")
    since = picture.vitals.get("started_at") if picture.vitals.get("pid") == picture.holder else None
    text = f"The service is running ({who}{f', for {words.span(picture.now - since)}' if since else ''})"
    sending = picture.throughput and any(uploading(picture))
    rate = f", sending {words.size(picture.throughput)}/s" if sending else ""
    return Text(f"{text}{rate}.", "bold")


def _since(pause: dict[str, Any], now: float) -> str:
    return f"since {words.span(now - pause['since'])}"


def _rows(picture: Picture) -> list[_Row]:
    waits = {project["id"]: text for project, text in _turns(picture)}
    sent = {project["id"]: done / total for project, done, total in uploading(picture)}
    return [
        _row(project, picture.now, sent.get(project["id"]), waits.get(project["id"], ""))
        for project in picture.projects
    ]


def _is_finished(project: dict[str, Any]) -> bool:
    delivered = bool(project["state"] == State.DELIVERED and project["condition"] == Condition.ACTIVE)
    return delivered or project["condition"] == Condition.DROPPED


def _is_under_way(project: dict[str, Any]) -> bool:
    """Whether a hold stopped work in its middle; a folder that waits for its checks or its start does nothing."""
    return project["state"] in {State.CREATED, State.UPLOADED, State.STARTED, State.PROCESSED}


def _turns(picture: Picture) -> Iterator[tuple[dict[str, Any], str]]:
    """Say how far each upload is and when it will be through: they go out one after the other."""
    before = 0.0
    for project, sent, total in uploading(picture):
        before += total - sent
        yield project, f"{words.size(sent)} of {words.size(total)}{_time_left(before, picture.throughput)}"


def _row(project: dict[str, Any], now: float, sent: float | None, turn: str) -> _Row:
    name = project["title"]
    credit = "" if project["credits"] is None else f"{project['credits']:.2f}"
    done = sent if sent is not None else _share(project)
    return _Row(name, words.heading(project, now), done, credit, list(_notes(project, name, now, turn)))


def _share(project: dict[str, Any]) -> float | None:
    images, outputs, total = project["images"], project["outputs"], project["bytes"]["total"]
    if project["condition"] == Condition.DROPPED or _is_finished(project):
        return None
    if project["state"] == State.CREATED and total:
        return float(project["bytes"]["uploaded"] / total)
    if project["state"] == State.UPLOADED and images["total"] > images["skipped"]:
        return float(images["registered"] / (images["total"] - images["skipped"]))
    if project["state"] == State.PROCESSED and outputs["total"]:
        return float(outputs["fetched"] / outputs["total"])
    return None


def _hold(project: dict[str, Any], name: str, now: float) -> Iterator[tuple[str, str]]:
    if project["condition"] == Condition.HELD:
        code = HoldCode(project["hold"]["code"])
        yield HOLDS[code].title + (f", while {words.doing(project, now)}" if _is_under_way(project) else ""), "yellow"
        yield project["hold"]["text"], ""
        yield words.remedy(code, project["hold"]["text"], name), "bold"
    elif project["hold"] and project["hold"]["code"] == HoldCode.MEDIA_ABSENT:
        # Not looked into, and so not held. Why, stands once above all folders.
        yield HOLDS[HoldCode.MEDIA_ABSENT].title, "yellow"


def _notes(project: dict[str, Any], name: str, now: float, turn: str) -> Iterator[tuple[str, str]]:
    if project["parts"]:
        yield f"part {project['part']} of {project['parts']}", "dim"
    if project["members"] and not _is_finished(project):
        yield f"one mission of {', '.join(project['members'])}", "dim"
    yield from _hold(project, name, now)
    if project["condition"] != Condition.HELD and _is_finished(project):
        if project["waiting_for"] and project["state"] == State.DELIVERED:
            yield project["waiting_for"], "dim"
        return
    if project["paused"]:
        yield f"paused by a person while {words.doing(project, now)}", "cyan"
        yield with_name("to go on: pix4d-watcher resume FOLDER", name), "bold"
    if turn:
        yield turn, "dim"
    due = words.moment(project["due_at"])
    again = f"; again {words.ahead(due, now)}" if due is not None and due > now else ""
    # While images go out, how far they are says more than the net below the wake-ups.
    new = project["waiting_for"] and project["waiting_for"] != words.doing(project, now)
    if new and project["condition"] == Condition.ACTIVE and (not turn or project["error"]):
        yield f"{project['waiting_for']}{again}", "dim"
    if project["images"]["failed"] and project["condition"] == Condition.ACTIVE:
        yield f"{words.number(project['images']['failed'], 'image')} failed and will be sent again", "yellow"


def _aligned(rows: list[_Row], out: Console) -> Iterable[Text]:
    """Align the columns; a name that is too wide for its column stands on a line of its own."""
    state = max(cell_len("STATE"), *(cell_len(row.state) for row in rows))
    progress = BAR + 6 if out.is_terminal else 8
    room = max(_NARROWEST_NAME, out.width - state - progress - 7 - 6)
    name = min(room, max(cell_len("FOLDER"), *(cell_len(row.name) for row in rows)))
    # Long names must not spoil the columns of the others.
    head = f"{set_cell_size('FOLDER', name)}  {set_cell_size('STATE', state)}  {'DONE':<{progress}}  CREDITS"
    yield Text(head, "bold")
    for row in rows:
        if cell_len(row.name) > name:
            yield Text(row.name, overflow="fold")
        first = set_cell_size("" if cell_len(row.name) > name else row.name, name)
        style = _STYLES.get(row.state.partition(",")[0], "blue")
        yield Text.assemble(
            first,
            "  ",
            (set_cell_size(row.state, state), style),
            "  ",
            _bar(row.done, progress, out),
            "  ",
            f"{row.credits:>7}",
        )
        yield from _wrapped(row.notes, out)


def _wrapped(notes: list[tuple[str, str]], out: Console) -> Iterator[Text]:
    for note, style in notes:
        for line in Text(note, style).wrap(out, max(20, out.width - len(_NOTE))) if note else ():
            yield Text(_NOTE) + line


def _bar(done: float | None, width: int, out: Console) -> Text:
    if done is None:
        return Text(" " * width)
    percent = f"{int(done * 100):>3} %"
    if not out.is_terminal:
        return Text(f"{percent:<{width}}")
    full = int(done * BAR)
    filled, rest = ("#", "-") if out.options.ascii_only else ("━", "━")
    return Text.assemble((filled * full, "green"), (rest * (BAR - full), "bright_black"), f" {percent}")


def _counts(picture: Picture) -> str:
    kinds: Counter[str] = Counter()
    seen = [(Condition(one["condition"]), State(one["state"]), one["paused"], 1) for one in picture.projects]
    for condition, state, paused, count in picture.sorts or seen:
        kinds[words.sort_of(condition, state, paused=paused or picture.paused_all)] += count
    total = words.number(kinds.total(), "folder")
    return f"{total}: {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}"


def _left(picture: Picture) -> Text:
    moving = list(uploading(picture))
    if not moving:
        return Text("Nothing is being uploaded.", "dim")
    sent, total = (sum(values) for values in list(zip(*moving, strict=True))[1:])
    rate = f", {words.size(picture.throughput)}/s" if picture.throughput else ""
    left = _time_left(total - sent, picture.throughput)
    return Text(f"In all {words.size(sent)} of {words.size(total)}{rate}{left}", "bold")


def _time_left(left: float, throughput: float) -> str:
    return f", about {words.span(max(1.0, left / throughput))} left" if throughput else ""
