"""`estimate PATH`: what a folder, or each folder of a drop directory, would send and cost. Asks the disk only.

Works without configuration; where one is found, its globs and levels of checks hold for its drop directories, and its
journal tells how fast the link was and what was sent before. Images are decoded only when they are dropped.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pix4d_watcher.cli import journals, out, words
from pix4d_watcher.cli.exits import Misused
from pix4d_watcher.config import within
from pix4d_watcher.config.folderfile import FOLDER_FILE
from pix4d_watcher.core.errors import ConfigError, JournalError
from pix4d_watcher.core.model import Finding, HoldCode, Level, Report, printable
from pix4d_watcher.intake.checks import check_images, render_report, report_as_json
from pix4d_watcher.intake.join import missions
from pix4d_watcher.intake.scan import Rules, list_root, scan_folder
from pix4d_watcher.intake.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pix4d_watcher.config import RootSettings, Settings
    from pix4d_watcher.core.model import FrozenImage
    from pix4d_watcher.intake.scan import Tree
    from pix4d_watcher.journal.database import Journal

PATIENCE = 20.0
"""Seconds for the first look at a place; a disk that sleeps takes some."""

JSON_VERSION = 1
"""Of `estimate --json`; fields may be added, never renamed."""

SPEEDS = (5, 50)
"""Megabits a second for which the hours are said where none was measured: a phone's uplink, and a good line's."""

# A card's own directories (DCF: DCIM, 100MEDIA; newer DJI drones: DJI_202305171000_001): parts of one folder.
_CARD = re.compile(rb"dcim|\d{3}[a-z0-9_]{5}|dji_\d{12}_\d{3}.*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Estimate:
    """What was found: a report by folder, and the link's speed in bytes a second with the time when it was measured.

    `notes` say of a folder what makes its project another one than the folder alone.
    """

    path: bytes
    folders: list[tuple[bytes, Report]]
    notes: dict[bytes, list[str]]
    speed: float | None
    measured_at: float | None

    @property
    def total_bytes(self) -> int:
        """Bytes that all folders together would send."""
        return sum(report.total_bytes for _name, report in self.folders)

    def hours(self, speed: float) -> float:
        """Return how long the upload takes at so many bytes a second."""
        return self.total_bytes / speed / 3600


def estimate(path: Path, config: Path | None, *, as_json: bool) -> None:
    """Print what would be sent; raises Misused where there is no such directory, ConfigError, SourceError."""
    try:
        there = within(PATIENCE, path.is_dir)
    except TimeoutError:
        text = f"{printable(os.fsencode(path))} does not answer: its disk or network share hangs"
        raise Misused(text) from None
    if not there:
        raise Misused(f"{printable(os.fsencode(path))} is no directory; name a folder of images, or a drop directory")
    settings = _settings(config)
    place = os.fsencode(os.path.realpath(path))
    root = _root_of(settings, place)
    (speed, at), reports = _look(settings, place, root)
    notes = {name: list(_notes(root, name, report)) for name, report in reports}
    found = Estimate(place, reports, notes, speed, at)
    if as_json:
        readable = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        out.write(json.dumps(_as_json(found), indent=2, ensure_ascii=not readable) + "\n")
    else:
        out.write("\n".join(_lines(found)) + "\n")


def _settings(config: Path | None) -> Settings | None:
    from pix4d_watcher.config import find_config, load  # noqa: PLC0415  (as elsewhere: only commands need it)

    try:
        file = find_config(config, os.environ)
    except ConfigError:
        return None
    return load(file)


def _root_of(settings: Settings | None, place: bytes) -> RootSettings | None:
    """Find the drop directory that a path is, or lies in."""
    for root in settings.watch if settings else ():
        path = os.fsencode(os.path.realpath(root.path))
        if place == path or place.startswith(path.rstrip(b"/") + b"/"):
            return root
    return None


def _look(
    settings: Settings | None, place: bytes, root: RootSettings | None
) -> tuple[tuple[float | None, float | None], list[tuple[bytes, Report]]]:
    """Read how fast the link was, and make the reports; with what the journal knows, where it can be read."""
    if settings is not None:
        # Another user's journal, or a broken one: the estimate needs nothing of it.
        with suppress(JournalError, PermissionError), journals.journal_to_read(settings) as journal:
            return _measured(journal), list(_reports(place, root, journal))
    return (None, None), list(_reports(place, root, None))


def _reports(place: bytes, root: RootSettings | None, journal: Journal | None) -> Iterator[tuple[bytes, Report]]:
    rules = Rules(include=root.include, exclude=root.exclude, ready_file=root.ready_file) if root else Rules()
    for folder in _folders(place, root):
        tree = scan_folder(folder, rules)
        levels = root.checks if root else {}
        images = survey(folder, tree.images, hashed=_sizes(journal, tree))
        report = check_images(images, not_images=tree.not_images, levels=levels)
        more = [_sent_before(journal, images, report, levels), _folder_file(root, folder)]
        yield folder.rpartition(b"/")[2], replace(report, findings=(*report.findings, *filter(None, more)))


def _sizes(journal: Journal | None, tree: Tree) -> set[int]:
    if journal is None:
        return set()
    from pix4d_watcher.journal import sent  # noqa: PLC0415  (the journal is open, so it is there)

    return sent.known_sizes(journal, {image.file_id.size for image in tree.images})


def _sent_before(
    journal: Journal | None, images: list[FrozenImage], report: Report, levels: Mapping[str, Level]
) -> Finding | None:
    """Say what the check at the drop will say of images that the journal knows as sent."""
    if journal is None:
        return None
    from pix4d_watcher.engine import already  # noqa: PLC0415  (heavy, and for this alone)
    from pix4d_watcher.journal import sent  # noqa: PLC0415

    skipped = dict(report.skipped)
    wanted = frozenset(image.sha256 for image in images if image.path not in skipped)
    return already.judge(sent.sent_elsewhere(journal, 0, wanted), wanted, levels)


def _folder_file(root: RootSettings | None, folder: bytes) -> Finding | None:
    """Say what would hold the folder for its pix4d.yaml."""
    if root is None:
        return None
    from pix4d_watcher.engine.overrides import read_file  # noqa: PLC0415  (heavy, and for this alone)

    try:
        read_file(root, folder)
    except ConfigError as error:
        text = " ".join(error.problems)
        return Finding(FOLDER_FILE, Level.HOLD, len(error.problems), text, HoldCode.BAD_FOLDER_FILE)
    return None


def _notes(root: RootSettings | None, name: bytes, report: Report) -> Iterator[str]:
    """Say where the folder and its project are not the same; what is estimated is the folder alone."""
    if root is None:
        return
    if root.split is not None and report.sendable > root.split:
        yield f"`split` makes several projects of it: it has more than {root.split} images"
    if root.join is not None and missions([name], pattern=root.join, lists={}):
        yield "`join` may make one project of it and others; this is the estimate of this folder alone"


def _folders(place: bytes, root: RootSettings | None) -> list[bytes]:
    """List what would become a project each: the path itself, or its sub-directories where it is a drop directory.

    A drop directory is one that is configured, or else has no image of its own but sub-directories that are not a
    card's.
    """
    listing = list_root(place)
    below = [place.rstrip(b"/") + b"/" + entry.name for entry in listing.folders]
    if root is not None:
        return below if place == os.fsencode(os.path.realpath(root.path)) else [place]
    parts = [entry.name for entry in listing.folders if not _CARD.fullmatch(entry.name)]
    return below if parts and not listing.loose else [place]


def _measured(journal: Journal | None) -> tuple[float | None, float | None]:
    """Read how fast the link was, in bytes a second, and when; None where no service has measured it."""
    if journal is None:
        return None, None
    from pix4d_watcher.journal import service  # noqa: PLC0415  (there may be no journal to import it for)

    fact = service.get(journal, service.MEASURED_THROUGHPUT)
    return (float(fact["bytes_per_second"]), float(fact["at"])) if fact else (None, None)


def _lines(found: Estimate) -> Iterator[str]:
    for name, report in found.folders:
        yield f"{printable(name)}: {render_report(report)}" + "".join(f"{note}\n" for note in found.notes[name])
    if not found.folders:
        yield f"{printable(found.path)}: there is no folder in it\n"
    if len(found.folders) != 1:
        reports = [report for _name, report in found.folders]
        megapixels, credit = sum(report.megapixels for report in reports), sum(report.credits for report in reports)
        yield (
            f"together: {words.number(len(reports), 'folder')}, "
            f"{words.number(sum(report.sendable for report in reports), 'image')} to be sent: "
            f"{words.size(found.total_bytes)}, {megapixels:.1f} megapixels, about {credit:.2f} credits"
        )
    yield _upload(found)


def _upload(found: Estimate) -> str:
    if found.speed:
        when = words.ago(found.measured_at, time.time())
        mbit = found.speed * 8 / 1e6
        return f"upload: {_span(found, found.speed)} on this link, at {mbit:.1f} Mbit/s as measured {when}"
    spans = " and ".join(f"{_span(found, mbit * 1e6 / 8)} at {mbit} Mbit/s" for mbit in SPEEDS)
    return f"upload: {spans}; this link was not measured yet"


def _span(found: Estimate, speed: float) -> str:
    hours = found.hours(speed)
    return f"{hours:.1f} h" if hours >= 1 else f"{hours:.2f} h ({words.span(hours * 3600)})"


def _as_json(found: Estimate) -> dict[str, Any]:
    from pix4d_watcher.journal.views import moment  # noqa: PLC0415  (SQLAlchemy, which the text needs not)

    reports = [report_as_json(report) for _name, report in found.folders]
    totals = {name: sum(report[name] for report in reports) for name in ("images", "sendable", "total_bytes")}
    return {
        "version": JSON_VERSION,
        "path": printable(found.path),
        "folders": [
            {"folder": printable(name), **report, "notes": found.notes[name]}
            for (name, _), report in zip(found.folders, reports, strict=True)
        ],
        **totals,
        "megapixels": round(sum(report.megapixels for _name, report in found.folders), 3),
        "credits": round(sum(report.credits for _name, report in found.folders), 3),
        "upload": {
            "bytes_per_second": found.speed,
            "measured_at": moment(found.measured_at),
            "hours": round(found.hours(found.speed), 3) if found.speed else None,
            "hours_at_mbit": {str(mbit): round(found.hours(mbit * 1e6 / 8), 3) for mbit in SPEEDS},
        },
    }
