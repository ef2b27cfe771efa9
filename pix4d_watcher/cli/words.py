"""How facts are said to people: spans of time, sizes, names of folders, what a project does, what lifts a hold.

Owns wording only; reads no journal, no disk and no clock.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from pix4d_watcher.core.machine import HOLDS, SHOWN, with_name
from pix4d_watcher.core.model import Condition, HoldCode, State

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPANS = ((90.0, 1.0, "s"), (90 * 60.0, 60.0, "min"), (36 * 3600.0, 3600.0, "h"))


def span(seconds: float) -> str:
    """Say a length of time in one number: `12 s`, `3 min`, `5 h`, `4 days`."""
    for below, unit, word in _SPANS:
        if seconds < below:
            return f"{max(0.0, seconds) / unit:.0f} {word}"
    return f"{seconds / 86400:.0f} days"


def ago(then: float | None, now: float) -> str:
    """Say how long ago a moment was; both in seconds since 1970."""
    if then is None:
        return "never"
    return "just now" if now - then < 1 else f"{span(now - then)} ago"


def ahead(then: float, now: float) -> str:
    """Say in how much time a moment comes; one that has passed is `now`."""
    return "now" if then - now < 1 else f"in {span(then - now)}"


def moment(text: str | None) -> float | None:
    """Turn the ISO 8601 of `status --json` back into seconds since 1970."""
    return None if text is None else dt.datetime.fromisoformat(text).timestamp()


def size(count: float) -> str:
    """Say bytes in decimal units, as disks and links are sold: `312 B`, `4.5 MB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def number(count: int, thing: str) -> str:
    """Count things: `1 image`, `3 images`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def remedy(code: HoldCode, text: str, name: str) -> str:
    """Say what to do about a hold; empty where its own text already names the command."""
    return "" if "pix4d-watcher" in text else with_name(HOLDS[code].remedy, name)


def doing(project: Mapping[str, Any], now: float) -> str:
    """Say in a few words what a project of the JSON does, whatever its holds: `uploading 12/40`."""
    state, images = State(project["state"]), project["images"]
    if project["condition"] == Condition.DROPPED:
        return "dropped"
    if state is State.FOUND and not images["total"]:
        return "waiting for images"
    if state in (State.CREATED, State.UPLOADED):
        wanted = images["total"] - images["skipped"]
        done = images["registered"] + (images["uploaded"] if state is State.CREATED else 0)
        return f"{SHOWN[state]} {done}/{wanted}"
    if state is State.PROCESSED and project["outputs"]["total"]:
        return f"{SHOWN[state]} {project['outputs']['fetched']}/{project['outputs']['total']}"
    if state is State.DELIVERED and project["delivered_at"]:
        return f"{SHOWN[state]}, {ago(moment(project['delivered_at']), now)}"
    return SHOWN[state]


def sort_of(condition: Condition, state: State, *, paused: bool) -> str:
    """Say in one word what a project is counted as: `held`, `paused`, `dropped`, or the first word of what it does."""
    if condition is Condition.HELD:
        return "held"
    if condition is Condition.DROPPED:
        return "dropped"
    if paused and state is not State.DELIVERED:
        return "paused"
    return SHOWN[state].partition(",")[0].partition(" ")[0]


def heading(project: Mapping[str, Any], now: float) -> str:
    """Say the state of a project of the JSON, its condition first: `held`, `paused`, or what it does."""
    if project["condition"] == Condition.HELD:
        return "held"
    if project["hold"] and project["hold"]["code"] == "paused":  # one folder, or everything
        return "paused"
    return doing(project, now)
