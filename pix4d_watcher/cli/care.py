"""The commands of upkeep: the story of a folder, a copy of the journal, the way back, the doctor. No decisions."""

from __future__ import annotations

from typing import Annotated

import typer

from pix4d_watcher.cli import journals, options

Config = options.Config
Folder = options.Folder
File = options.File
AsJson = options.AsJson


def log(
    folder: Folder,
    config: Config = None,
    *,
    as_json: AsJson = False,
    most: Annotated[int | None, typer.Option("-n", metavar="N", help="Only the last N events.")] = None,
) -> None:
    """Tell what happened to a folder, day by day.

    All its rounds together, or the one that is named.
    """
    from pix4d_watcher.cli import history  # noqa: PLC0415

    history.log(journals.settings_of(config), folder, as_json=as_json, most=most)


def doctor(
    config: Config = None,
    *,
    upload: Annotated[
        bool, typer.Option("--upload", help="Also try an upload, in an empty project that stays in the cloud.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check all that is needed, and say what to do.

    Looks only, also while the service runs.
    """
    from pix4d_watcher.cli.doctor import doctor as look  # noqa: PLC0415

    raise typer.Exit(look(config, upload=upload, as_json=as_json))


def backup(file: File, config: Config = None) -> None:
    """Copy the journal to FILE, also while the service runs."""
    from pix4d_watcher.cli import keep  # noqa: PLC0415

    keep.backup(journals.settings_of(config), file)


def restore(
    file: File,
    config: Config = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also a backup of other drop directories.")] = False,
) -> None:
    """Put a backup in the journal's place.

    Only while the service is down. What happened since is looked up in the cloud before anything is sent, and the
    replaced journal is kept.
    """
    from pix4d_watcher.cli import keep  # noqa: PLC0415

    keep.restore(journals.settings_of(config), file, force=force)
