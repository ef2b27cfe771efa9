"""Finds the configuration, the journal and the project that a person means; opens them for the length of a command.

Owns the way from `--config` and FOLDER to a project. Changes nothing by itself.
"""

from __future__ import annotations

import difflib
import os
import pwd
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pix4d_watcher.cli.exits import Misused
from pix4d_watcher.core.model import printable, unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pix4d_watcher.config import Settings
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project


def settings_of(config: Path | None) -> Settings:
    """Find and load the configuration; raises ConfigError with all problems."""
    from pix4d_watcher.config import find_config, load  # noqa: PLC0415  (--help and --version need none of it)

    return load(find_config(config, os.environ))


@contextmanager
def journal_to_read(settings: Settings) -> Iterator[Journal | None]:
    """Open the journal for looking only; None before the first run. Raises JournalError and PermissionError."""
    from pix4d_watcher.journal import database  # noqa: PLC0415

    journal = database.open_to_read(settings.journal) if _is_there(settings.journal) else None
    try:
        yield journal
    finally:
        if journal is not None:
            journal.close()


@contextmanager
def journal_to_change(settings: Settings) -> Iterator[Journal]:
    """Open the journal for a verb of people; makes it where there is none. Raises JournalError, PermissionError."""
    from pix4d_watcher.journal import database  # noqa: PLC0415

    _is_there(settings.journal)
    journal = database.open_journal(settings.journal)
    try:
        yield journal
    finally:
        journal.close()


def given(reference: str) -> str:
    """Take a FOLDER as it was typed, in bytes or with escapes, and write it as `status` shows it."""
    typed = os.fsencode(reference).decode("utf-8", errors="surrogateescape")  # its bytes, whatever the locale
    return printable(unprintable(typed)).rstrip("/")


def project_of(journal: Journal | None, reference: str) -> Project:
    """Find the one project that a person means; raises Misused where none or several fit."""
    found = candidates(journal, reference)
    if not found:
        raise unknown(journal, reference)
    return found[0]


def parts_of(journal: Journal | None, reference: str) -> list[Project]:
    """Find what a person means: one project, or all parts of a folder that was split where no number names one."""
    from pix4d_watcher.journal import splits  # noqa: PLC0415

    project = project_of(journal, reference)
    if journal is None or names_round(reference, project):
        return [project]
    return splits.parts_of(journal, project)


def names_round(reference: str, project: Project) -> bool:
    """Say whether a reference by which a project was found names its round, and so no other one."""
    return reference.endswith(f"{printable(project.folder)}#{project.round}")


def candidates(journal: Journal | None, reference: str) -> list[Project]:
    """Find the project that a person means, none or one; raises Misused where several fit."""
    from pix4d_watcher.journal import naming  # noqa: PLC0415

    found = naming.find(journal, reference) if journal is not None else []
    if len(found) > 1:
        # Without a number a name means all parts of a folder that was split.
        names = "\n".join(
            f"  {project.numbered if names_round(reference, project) else project.unnumbered}" for project in found
        )
        raise Misused(f"{reference} may be any of these; name it with its drop directory:\n{names}")
    return found


def unknown(journal: Journal | None, reference: str) -> Misused:
    """Say that no folder of this name is known, with the nearest names."""
    from pix4d_watcher.journal import listing  # noqa: PLC0415

    text = f"no folder {shlex.quote(reference)} is known"
    if journal is None:
        return Misused(f"{text}: there is no journal yet, the service has not run with this configuration")
    titles = listing.names(journal)
    near = difflib.get_close_matches(reference.rpartition("/")[2], titles, n=3)
    hint = f"; did you mean {' or '.join(titles[name] for name in near)}?" if near else ""
    return Misused(f"{text}{hint or '; pix4d-watcher status lists all of them'}")


def _is_there(path: Path) -> bool:
    """Look whether a journal is there and may be used; raises PermissionError with what to do about it."""
    try:
        owner = path.stat().st_uid
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise _refused(path, path.parent.stat().st_uid) from error
    if not os.access(path, os.R_OK | os.W_OK):
        raise _refused(path, owner)
    return True


def _refused(path: Path, owner: int) -> PermissionError:
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"'#{owner}'"
    text = f"this user may not use the journal; run the command as its owner: sudo -u {name} pix4d-watcher …"
    return PermissionError(13, text, str(path))
