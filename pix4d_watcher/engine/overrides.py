"""What a folder's own pix4d.yaml changes: read when the folder is checked, journalled, and applied over the root's.

Nothing that a folder says loosens what the administrator configured, whenever that was: it is judged when it is read,
and `folder_may` counts again each time it is applied.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from pix4d_watcher.config.folderfile import FOLDER_FILE, LARGEST, parse_folder_file
from pix4d_watcher.core.errors import ConfigError, SourceError
from pix4d_watcher.core.model import HoldCode, printable
from pix4d_watcher.engine import sources
from pix4d_watcher.intake.files import open_directory, open_file, source_errors
from pix4d_watcher.intake.names import matches
from pix4d_watcher.journal import missions, projects

if TYPE_CHECKING:
    from pix4d_watcher.config import RootSettings
    from pix4d_watcher.config.folderfile import FolderFile
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.projects import Hold
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()

_NAME = os.fsencode(FOLDER_FILE)
_NEAR = (_NAME, os.fsencode(FOLDER_FILE.replace(".yaml", ".yml")))
_ONE_VALUE = ("name", "create", "processing")
_REMEDY = (
    f"Correct or remove {FOLDER_FILE} (the folder is looked at again by itself), "
    "or go on without it: pix4d-watcher approve FOLDER"
)


def effective(root: RootSettings, overrides: dict[str, Any] | None) -> RootSettings:
    """Return the settings of a drop directory as one folder changes them."""
    if not overrides:
        return root
    allowed = {key: value for key, value in overrides.items() if key in root.folder_may}
    project = root.project.model_copy(
        update={
            "name": allowed.get("name", root.project.name),
            "create": {**root.project.create, **allowed.get("create", {})},
        }
    )
    limits = [limit for limit in (root.approve_above, overrides.get("approve_above")) if limit is not None]
    changes: dict[str, Any] = {"project": project, "approve_above": min(limits, default=None)}
    if "processing" in allowed:
        changes["processing"] = {**(root.processing or {}), **allowed["processing"]}
    if overrides.get("start") == "manual":
        changes["start"] = "manual"
    return root.model_copy(update=changes)


def read_file(root: RootSettings, folder: bytes) -> FolderFile | None:
    """Read the pix4d.yaml of the folder at `folder` (absolute), None where there is none.

    Raises ConfigError with every problem, and SourceError where the medium does not answer.
    """
    path = folder + b"/" + _NAME
    with source_errors(folder):
        os.close(open_directory(folder, b""))  # a folder that is away is not one without a file
    if matches(FOLDER_FILE, root.exclude):
        return None
    with source_errors(path):
        try:
            kind = os.lstat(path).st_mode
        except FileNotFoundError:
            _no_near_miss(root, folder)
            return None
        if stat.S_ISLNK(kind):
            raise ConfigError([f"{FOLDER_FILE}: is a link, and links are never followed; put the file itself there"])
        if not stat.S_ISREG(kind):
            return None
        with open(open_file(folder, _NAME), "rb") as file:  # noqa: PTH123  (a descriptor that followed no link)
            raw = file.read(LARGEST + 1)
    return parse_folder_file(raw, root)


def _no_near_miss(root: RootSettings, folder: bytes) -> None:
    """Raise ConfigError where a file is nearly called so: whoever wrote it believes in what it tightens."""
    with os.scandir(folder) as entries:
        near = [entry for entry in entries if entry.name.lower() in _NEAR and entry.is_file(follow_symlinks=False)]
    names = [os.fsdecode(entry.name) for entry in near]
    problems = [
        f"{name}: is not read; the file must be called {FOLDER_FILE}, or be taken away"
        for name in sorted(names)
        if not matches(name, root.exclude)
    ]
    if problems:
        raise ConfigError(problems)


def take_in(context: Context, project: Project) -> tuple[Project, Hold | None] | None:
    """Read and journal what the folder of a settled project says; a file that cannot be used comes back as a hold.

    One that a person accepted as unusable is left out. None while the whole drop directory is away, which is noted.
    Raises SourceError and Stale.
    """
    # Judged by what the administrator wrote, not by what an earlier version of the file made of it.
    root = context.root(replace(project, overrides=None))
    assert root is not None
    try:
        with context.media.at(project.root, project.id):
            overrides, problems = _said(root, project)
    except SourceError as error:
        if not sources.is_media_absent(context, project):
            raise
        again = context.after(sources.LOOK_AGAIN)
        projects.trouble(context.journal, project.id, str(error), due_at=again, counts=False)
        return None
    hold = None
    if problems and HoldCode.BAD_FOLDER_FILE not in project.accepted:
        hold = HoldCode.BAD_FOLDER_FILE, "\n".join([*problems, _REMEDY])
    if overrides != project.overrides:
        text = f"{FOLDER_FILE} sets {', '.join(overrides)}" if overrides else f"{FOLDER_FILE} sets nothing any more"
        projects.overridden(context.journal, project.id, overrides, fingerprint=project.fingerprint, text=text)
        log.info("folder file", project=project.title, sets=", ".join(overrides or ()))
    return replace(project, overrides=overrides), hold


def _said(root: RootSettings, project: Project) -> tuple[dict[str, Any] | None, list[str]]:
    """Return what the files of all folders of a project set together, None for nothing, and every problem.

    With a problem only what tightens is left of the others: to go on without one file is not to go on without them.
    """
    base, members = os.fsencode(root.path), missions.members_of(project)
    merged: dict[str, Any] = {}
    source: dict[str, str] = {}
    problems: list[str] = []
    for folder in members or (project.folder,):
        here = f"{printable(folder)}/" if members else ""
        try:
            found = read_file(root, base + b"/" + folder)
        except ConfigError as error:
            problems += [f"{here}{text}" for text in error.problems]
            continue
        said = {} if found is None else found.overrides()
        said.pop("join", None)  # was heard before the folders were complete
        for key, value in said.items():
            if key in _ONE_VALUE and merged.get(key, value) != value:
                problems.append(f"{here}{FOLDER_FILE}: {key}: is not what {source[key]}{FOLDER_FILE} says")
            merged[key] = _together(key, merged.get(key, value), value)
            source.setdefault(key, here)
    if problems:
        merged = {key: value for key, value in merged.items() if key not in _ONE_VALUE}
    return merged or None, problems


def _together(key: str, first: Any, second: Any) -> Any:
    if key == "approve_above":
        return min(first, second)
    if key == "start":
        return "manual" if "manual" in (first, second) else first
    return first
