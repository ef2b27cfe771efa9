"""Were these images sent before? Asked by their content, whatever the folder is called and wherever it lies.

The journal answers, and beside it the receipts in the results, which are still there when a journal was lost.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pix4d_watcher.core.model import Finding, HoldCode, Level
from pix4d_watcher.engine import reconcile
from pix4d_watcher.engine.fetching import results_folder
from pix4d_watcher.journal import sent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pix4d_watcher.core.model import Report
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Project
    from pix4d_watcher.journal.sent import Sent

CHECK = "sent_before"
"""The check's name in `checks`; it sets the level where some images are new. Where none is, the folder is held."""

SHOWN = 3


def look(context: Context, project: Project, hashes: Collection[bytes]) -> Finding | None:
    """Say whether all or some of the images to be sent, by their SHA-256, were sent in other projects before.

    All of them hold the folder, unless a person has accepted that: processing them again is paid again.
    """
    wanted = frozenset(hashes)
    found = sent.sent_elsewhere(context.journal, project.id, wanted)
    found += _by_receipt(context, project, wanted, found)
    root = context.root(project)
    assert root is not None
    finding = judge(found, wanted, root.checks)
    if finding is not None and finding.hold in project.accepted:
        return replace(finding, level=Level.WARN, hold=None)
    return finding


def judge(found: list[Sent], wanted: frozenset[bytes], levels: Mapping[str, Level]) -> Finding | None:
    """Say what it means that these of the `wanted` images were found to be sent before; None where nothing is said."""
    before = frozenset[bytes]().union(*(one.hashes for one in found))
    level = Level.HOLD if before == wanted else levels.get(CHECK, Level.WARN)
    if not before or level is Level.OFF:
        return None
    hold = HoldCode.ALREADY_SENT if level is Level.HOLD else None
    return Finding(CHECK, level, len(before), _text(found, before, wanted), hold)


def judged(context: Context, project: Project, report: Report, hashes: Collection[bytes]) -> Report:
    """Return the report of the checks with what `look` says."""
    finding = look(context, project, hashes)
    return report if finding is None else replace(report, findings=(*report.findings, finding))


def is_new(project: Project, report: Report) -> bool:
    """Say whether the project goes on only because nobody was found to have sent the same images before."""
    known = any(finding.hold is HoldCode.ALREADY_SENT for finding in report.findings)
    return not known and HoldCode.ALREADY_SENT not in project.accepted


def _by_receipt(context: Context, project: Project, wanted: frozenset[bytes], found: list[Sent]) -> list[Sent]:
    """Ask the receipts of projects that the journal does not know."""
    results = context.settings.results
    if results is None or not wanted:
        return []
    known = {results / root / os.fsdecode(name) for root, name in sent.delivered(context.journal)}
    own = results_folder(context, project)
    told = {one.remote_id for one in found}
    with context.media.at(str(results), project.id):
        if reconcile.is_own_receipt(context, project, own):
            known.add(own)
        receipts = context.receipts.sent(results, wanted, known=known)
    return [receipt for receipt in receipts if receipt.remote_id not in told]


def _text(found: list[Sent], before: frozenset[bytes], wanted: frozenset[bytes]) -> str:
    whole = [one for one in found if one.hashes == before]
    where = whole[:1] or found
    names = ", ".join(_named(one) for one in where[:SHOWN])
    if len(where) > SHOWN:
        more = len(where) - SHOWN
        names += f" and {more} more project{'s' if more > 1 else ''}"
    count = f"All {len(wanted)} images were" if before == wanted else f"{len(before)} of {len(wanted)} images were"
    if len(wanted) == 1:
        count = "The image was"
    return f"{count} sent before as {names}: processing them again is paid again."


def _named(one: Sent) -> str:
    day = dt.datetime.fromtimestamp(one.at, dt.UTC).date().isoformat()
    number = f"project {one.remote_id}" if one.remote_id is not None else "just being created"
    return f"{one.title} ({number}, {day})"
