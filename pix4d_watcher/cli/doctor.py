"""`doctor`: shows what the checks found, as lines for people or as JSON for monitoring. Decides only the exit code."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from pix4d_watcher.cli import exits, out, show, words
from pix4d_watcher.doctor.examination import examine
from pix4d_watcher.doctor.findings import Cause, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rich.console import Console

    from pix4d_watcher.doctor.findings import Finding

JSON_VERSION = 1
"""Of `doctor --json`; fields may be added, never renamed."""

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
_NAME = 22
"""Cells of a check's name; a longer one pushes its own line only."""

_NARROWEST, ENDLESS = 20, 100_000
"""Cells of a text column: at the least, and where nobody needs lines to be broken."""

_CODES = {
    Cause.CONFIGURATION: exits.CONFIGURATION,
    Cause.PERMISSION: exits.NO_PERMISSION,
    Cause.OTHER: exits.UNEXPECTED,
    Cause.UNREACHABLE: exits.TRY_LATER,
}
"""What a failed check gives; of several the first of this order counts, so that 75 says that waiting may be enough."""


def doctor(config: Path | None, *, upload: bool, as_json: bool) -> int:
    """Run all checks, show each as soon as those before it are through, and return the exit code."""
    found: list[Finding] = []
    checks = examine(config, os.environ, upload=upload)
    if as_json:
        found = list(checks)
        shown = [{name: value for name, value in asdict(one).items() if name != "cause"} for one in found]
        out.write(json.dumps({"version": JSON_VERSION, "checks": shown}, indent=2) + "\n")
        return _code(found)
    console = show.console()
    if not console.is_terminal:
        console.width = ENDLESS
    for finding in checks:
        found.append(finding)
        out.say(console, *_lines(finding, console))
    out.say(console, Text(), Text(_sum(found), "bold"))
    return _code(found)


def _lines(finding: Finding, console: Console) -> Iterator[Text]:
    """Lay out one finding; in a pipe each fact and each remedy is one line, for grep."""
    level, name = f"{finding.level:<4}", f"{finding.name:<{_NAME}}"
    remedy = f"to do: {finding.remedy}" if finding.remedy else ""
    width = console.width if console.is_terminal else ENDLESS
    room = max(_NARROWEST, width - 8 - max(_NAME, len(name)))
    for number, line in enumerate(Text(finding.text).wrap(console, room) or [Text()]):
        start = Text.assemble((level, _STYLES[finding.level]), "  ", name, "  ")
        yield (start if number == 0 else Text(" " * len(start))) + line
    for line in Text(remedy, "bold").wrap(console, max(_NARROWEST, width - 6)) if remedy else ():
        yield Text(" " * 6) + line


def _sum(found: Iterable[Finding]) -> str:
    levels = [finding.level for finding in found]
    wrong, odd = levels.count(Level.FAIL), levels.count(Level.WARN)
    if not wrong and not odd:
        return "Everything is in order."
    return f"{words.number(wrong, 'failure')}, {words.number(odd, 'warning')}, {levels.count(Level.OK)} in order."


def _code(found: list[Finding]) -> int:
    causes = {finding.cause for finding in found if finding.level is Level.FAIL}
    return next((code for cause, code in _CODES.items() if cause in causes), exits.DONE)
