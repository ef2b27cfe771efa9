"""Looks at a folder in its drop directory where a command may only go on while it lies there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pix4d_watcher.config import within
from pix4d_watcher.core.model import printable
from pix4d_watcher.journal import views
from pix4d_watcher.journal.missions import members_of
from pix4d_watcher.journal.people import Refusal

if TYPE_CHECKING:
    from pix4d_watcher.journal.database import Journal


PATIENCE = 10.0
"""Seconds for a look at one directory."""


def must_be_there(journal: Journal, project_id: int) -> None:
    """Raise Refusal where the folder of a project, or one that it joins, is gone: the last scan may be older."""
    project = views.project(journal, project_id)
    root = views.root(journal, project.root)
    if root is None or not project.present:
        return
    for name in members_of(project) or (project.folder,):
        place = root.path + b"/" + name
        try:
            there = within(PATIENCE, Path(os.fsdecode(place)).is_dir)
        except TimeoutError:
            raise Refusal(f"{printable(place)} does not answer now: its disk or share hangs; try again later") from None
        if not there:
            raise Refusal(f"{printable(place)} is gone; put it back, and it is found as a new folder by itself")
