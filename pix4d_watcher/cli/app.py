"""The commands: their options, what each one calls, and how it ends. No decision is made here.

Whatever only some commands need is imported inside them, so that the service carries none of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import pix4d_watcher
from pix4d_watcher.cli import care, exits, journals, options, out
from pix4d_watcher.cli.exits import Misused
from pix4d_watcher.core.errors import ConfigError, WatcherError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pix4d_watcher.journal.database import Journal

app = typer.Typer(
    name="pix4d-watcher",
    help="A folder dropped here becomes a project on PIX4Dengine Cloud: once, whatever crashes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they show local variables, and so secrets
    rich_markup_mode=None,  # plain help and errors, for pipes and screen readers alike
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = options.Config
UnusedConfig = options.UnusedConfig
Folder = options.Folder
FolderOrNone = options.FolderOrNone
AsJson = options.AsJson
Everything = options.Everything
OfRoot = options.OfRoot
InState = options.InState
Since = options.Since
Older = options.Older


def main() -> None:
    """Run the command line; the process ends here, with the exit code of the contract."""
    out.prepare()
    try:
        app(prog_name="pix4d-watcher")
    except WatcherError as error:
        sys.exit(exits.tell(error))
    except OSError as error:
        if error.filename is None:
            raise  # about nothing that a person could name: a defect, and the traceback shows where
        sys.exit(exits.tell(error))
    finally:
        out.finish()


def _version(wanted: bool) -> None:  # noqa: FBT001  (signature of Typer)
    if wanted:
        out.write(f"pix4d-watcher {pix4d_watcher.__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: Config = None,
    *,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when every folder is done, held, paused or dropped.")
    ] = False,
) -> None:
    """Watch the drop directories until SIGTERM or Ctrl-C."""
    from pix4d_watcher.config import examine, find_config  # noqa: PLC0415
    from pix4d_watcher.host import logs  # noqa: PLC0415

    # A drop directory that is away is no reason not to run, and is told only beside one.
    settings, client, problems = examine(find_config(config, os.environ), os.environ, roots=False)
    if settings is None or client is None:
        raise ConfigError(problems)
    logs.configure()
    from pix4d_watcher import service  # noqa: PLC0415  (the heaviest of all; after logs, which keep Rich away)

    raise typer.Exit(service.run(settings, client, until_idle=until_idle))


@app.command("check-config")
def check_config(config: Config = None) -> None:
    """Say what the configuration means and whether it is good."""
    from pix4d_watcher.config import examine, explain, find_config  # noqa: PLC0415

    settings, client, problems = examine(find_config(config, os.environ), os.environ, roots=True)
    if settings is not None:
        out.write(explain(settings, client))
    if problems:
        raise ConfigError(problems)
    out.write("configuration is good\n")


@app.command()
def status(
    folder: FolderOrNone = None,
    config: Config = None,
    *,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, with progress.")] = False,
    everything: Everything = False,
    root: OfRoot = None,
    state: InState = None,
    since: Since = None,
    older: Older = None,
) -> None:
    """Show every folder, how far it is and why it waits.

    Of those that are done only the last ten, unless --all.

    With FOLDER: all that is known of it.
    """
    from pix4d_watcher.cli import history, looks  # noqa: PLC0415  (brings Rich along)

    if watch and (as_json or folder is not None):
        raise Misused("--watch shows all folders as a table; leave --json and FOLDER away")
    settings = journals.settings_of(config)
    wanted = history.wanted(settings, root=root, kind=state, since=since, older=older)
    if folder is not None and (everything or wanted != history.EVERYTHING):
        raise Misused("with FOLDER one folder is shown; leave --all, --root, --state, --since and --older away")
    most = None if everything else history.FINISHED_SHOWN
    if watch:
        looks.watch_all(settings, wanted, most)
    elif as_json:
        looks.as_json(settings, folder, wanted)
    else:
        looks.as_table(settings, folder, wanted, most)


app.command()(care.doctor)
app.command()(care.log)


@app.command()
def explain(folder: Folder, config: Config = None) -> None:
    """Say what a folder does or why it waits, and what lifts it."""
    from pix4d_watcher.cli import looks  # noqa: PLC0415

    looks.explained(journals.settings_of(config), journals.given(folder))


@app.command()
def pause(
    folder: FolderOrNone = None,
    config: Config = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Everything, until resume --all.")] = False,
) -> None:
    """Begin nothing new for one folder, or for all."""
    _pause(config, folder, everything=everything, paused=True)


@app.command()
def resume(
    folder: FolderOrNone = None,
    config: Config = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="What pause --all stopped.")] = False,
) -> None:
    """Go on after pause; holds stay."""
    _pause(config, folder, everything=everything, paused=False)


@app.command()
def retry(
    folder: Folder,
    config: Config = None,
    done: Annotated[
        bool | None,
        typer.Option("--done/--not-done", help="Held in_doubt: say whether the cloud did it.", show_default=False),
    ] = None,
) -> None:
    """Look again now and forget failed tries.

    Takes up a dropped folder again.
    """
    from pix4d_watcher.journal import people  # noqa: PLC0415

    _act(config, folder, lambda journal, project_id: people.retry(journal, project_id, verdict=done))


@app.command()
def drop(folder: Folder, config: Config = None) -> None:
    """Give a folder up: nothing more is sent for it. What is in the cloud or on disk stays."""
    from pix4d_watcher.journal import people  # noqa: PLC0415

    def dropped(journal: Journal, project_id: int) -> str:
        people.drop(journal, project_id)
        return "dropped; pix4d-watcher retry FOLDER takes it up again"

    _act(config, folder, dropped)


@app.command()
def start(folder: Folder, config: Config = None) -> None:
    """Allow processing to start, where starting is manual."""
    from pix4d_watcher.journal import people  # noqa: PLC0415

    def started(journal: Journal, project_id: int) -> str:
        people.start(journal, project_id)
        return "processing may start as soon as all its images are registered"

    _act(config, folder, started)


@app.command()
def approve(folder: Folder, config: Config = None) -> None:
    """Accept what a folder is held for.

    It is recorded and not asked again.
    """
    from pix4d_watcher.journal import people  # noqa: PLC0415

    _act(config, folder, lambda journal, project_id: f"accepted: {people.approve(journal, project_id)}")


@app.command()
def estimate(
    path: Annotated[
        Path,
        typer.Argument(
            # Not Typer's own: it asks the disk, and waits for ever for one that hangs.
            parser=Path,
            metavar="PATH",
            help="A folder of images, or a drop directory.",
            show_default=False,
        ),
    ],
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Say what images would send and cost, and how long it takes.

    Looks at the disk only, never at the cloud; nothing needs to be configured.
    """
    from pix4d_watcher.cli.estimate import estimate as say  # noqa: PLC0415

    say(path, config, as_json=as_json)


@app.command()
def again(folder: Folder, config: Config = None) -> None:
    """Send a folder once more, as a new round.

    It is paid again; the rounds before stay as they are.
    """
    from pix4d_watcher.cli import folders  # noqa: PLC0415
    from pix4d_watcher.journal import rounds, splits, views  # noqa: PLC0415

    def sent_again(journal: Journal, project_id: int) -> str:
        folders.must_be_there(journal, project_id)
        parts = splits.parts_of(journal, views.project(journal, project_id))
        new = rounds.again(journal, project_id)
        whole = f" with all {len(parts)} parts of its folder" if len(parts) > 1 else ""
        return f"is sent once more{whole} as {new.title}, and paid again"

    _act(config, folder, sent_again, parts=False)


@app.command()
def skip(
    folder: Folder,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE", help="Paths below the folder as status shows them, or file names.", show_default=False
        ),
    ],
    config: Config = None,
) -> None:
    """Go on without single images that were not sent yet."""
    from pix4d_watcher.journal import skips  # noqa: PLC0415

    names = [journals.given(image) for image in images]
    _act(config, folder, lambda journal, project_id: skips.skip(journal, project_id, names), parts=False)


app.command()(care.backup)
app.command()(care.restore)


@app.command()
def demo(config: UnusedConfig = None) -> None:  # noqa: ARG001  (every command takes --config)
    """See it work in a minute, on this machine alone.

    Against the emulator: drops, a crash in mid-upload, and the proof that nothing happened twice.
    """
    from pix4d_watcher.cli.demo import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo())


@app.command()
def emulator(
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Address; port 0 takes a free one.")
    ] = "127.0.0.1:0",
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", readable=False, help="Keep the objects there. Default: a temporary one."),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Change a setting, such as processing_seconds=30; repeatable."
        ),
    ] = None,
    config: UnusedConfig = None,  # noqa: ARG001
) -> None:
    """Serve a stand-in for PIX4Dengine Cloud and its S3.

    Prints `ready` and its address when it listens. Put that address under
    `cloud` as `url` and as `s3_endpoint`, with client id demo-client and secret
    demo-secret.
    """
    from pix4d_watcher.cli.emulate import emulate  # noqa: PLC0415

    emulate(listen, data, values or [])


def _pause(config: Path | None, folder: str | None, *, everything: bool, paused: bool) -> None:
    from pix4d_watcher.journal import people, service  # noqa: PLC0415

    verb = "pause" if paused else "resume"
    if everything == (folder is not None):
        raise Misused(f"what? pix4d-watcher {verb} FOLDER, or pix4d-watcher {verb} --all")
    if folder is not None:
        _act(config, folder, lambda journal, project_id: people.pause(journal, project_id, paused=paused))
        return
    settings = journals.settings_of(config)
    with journals.journal_to_change(settings) as journal:
        event = f"everything {'paused' if paused else 'resumed'} by a person"
        service.put(journal, service.PAUSED_ALL, paused, event=event)
    out.write("everything is paused; pix4d-watcher resume --all goes on\n" if paused else "everything goes on\n")


def _act(config: Path | None, folder: str, verb: Callable[[Journal, int], str], *, parts: bool = True) -> None:
    """Do what a person asks for with a folder, and say what it came to; `parts`: with all of one that was split."""
    from pix4d_watcher.core.machine import with_name  # noqa: PLC0415
    from pix4d_watcher.journal import naming  # noqa: PLC0415
    from pix4d_watcher.journal.people import Refusal  # noqa: PLC0415

    settings, reference = journals.settings_of(config), journals.given(folder)
    with journals.journal_to_read(settings) as journal:
        projects = journals.parts_of(journal, reference) if parts else [journals.project_of(journal, reference)]
    refused = []
    with journals.journal_to_change(settings) as journal:
        for project in projects:
            name = naming.title(journal, project)
            try:
                out.write(f"{name}: {with_name(verb(journal, project.id), name)}\n")
            except Refusal as refusal:
                refused.append(with_name(str(refusal), name))
    if len(refused) == len(projects):
        raise Misused("\n".join(refused))
    out.write("".join(f"{text}\n" for text in refused))
