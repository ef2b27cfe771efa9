"""The arguments and options that several commands share. Declarations only."""

from pathlib import Path
from typing import Annotated

import typer

_CONFIG_HELP = "Configuration file. Default: $PIX4D_WATCHER_CONFIG, ./pix4d-watcher.yaml, the user's, the system's."
# readable=False: a file that cannot be read is a mistake of the configuration (78) and not of the command line (2).
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help=_CONFIG_HELP, show_default=False, readable=False),
]
UnusedConfig = Annotated[Path | None, typer.Option("--config", metavar="FILE", hidden=True, readable=False)]
_FOLDER_HELP = "root/folder, or folder where that is enough; #2 behind it for one round or part."
Folder = Annotated[str, typer.Argument(metavar="FOLDER", help=_FOLDER_HELP, show_default=False)]
FolderOrNone = Annotated[str | None, typer.Argument(metavar="FOLDER", help=_FOLDER_HELP, show_default=False)]
File = Annotated[Path, typer.Argument(metavar="FILE", readable=False, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone, for programs.")]

Everything = Annotated[bool, typer.Option("--all", help="Show every finished folder, not only ten.")]
OfRoot = Annotated[str | None, typer.Option("--root", metavar="NAME", help="Only of this drop directory.")]
InState = Annotated[
    str | None, typer.Option("--state", metavar="STATE", help="Only these: open, held, done, dropped, or a state.")
]
Since = Annotated[str | None, typer.Option("--since", metavar="7d", help="Only what was done, or found, since then.")]
Older = Annotated[str | None, typer.Option("--older", metavar="30d", help="Only what was done, or found, before.")]
