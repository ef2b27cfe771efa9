"""What each command does, says, and which exit code it gives."""

import json
import os
import sqlite3
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from pix4d_watcher.cli import exits
from pix4d_watcher.cli.app import app
from pix4d_watcher.core import errors
from pix4d_watcher.core.model import Condition, EffectKind, HoldCode, State
from pix4d_watcher.host import lock
from pix4d_watcher.journal import effects, people, projects, service, views

BAD = (HoldCode.BAD_IMAGES, "1 image is cut off.")


def said(result, code, *texts, stream="stdout"):
    """Check the exit code, and that each text was said; never with a traceback."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    spoken = " ".join(getattr(result, stream).split())
    for text in texts:
        assert text in spoken
    return result


# --- the frame


COMMANDS = ["run", "check-config", "status", "explain", "pause", "resume", "retry", "drop", "start", "approve"]
COMMANDS += ["doctor", "log", "backup", "restore", "demo", "emulator"]


def test_version_and_help(run_cli):
    """The version and the list of commands come without a configuration; no short help is cut off."""
    said(run_cli("--version"), 0, "pix4d-watcher 0.1.0")
    assert "..." not in said(run_cli("--help"), 0, *COMMANDS).stdout.partition("Commands:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command):
    """Every command explains itself and takes --config."""
    asked = CliRunner().invoke(app, [command, "-h", "--config", "x"])
    assert asked.exit_code == 0
    assert asked.output.startswith(f"Usage: pix4d-watcher {command}")
    assert "--config FILE" in asked.output or command in {"demo", "emulator"}


def test_light_start():
    """Before a command is chosen nothing heavy is imported: the service carries what this imports."""
    code = "import sys, pix4d_watcher.cli.app as a; print(*{n.split('.')[0] for n in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"rich", "sqlalchemy", "boto3", "PIL", "pydantic", "requests"} & set(loaded)


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--frob"],
        ["frobnicate"],
        ["retry"],
        ["approve"],
        ["status", "--watch", "--json"],
        ["status", "a", "b"],
    ],
)
def test_usage_is_2(cli, arguments):
    """A command line that makes no sense ends with 2 and says why."""
    assert said(cli(*arguments), 2).stderr


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_pause_wants_one_thing(cli, command):
    """Neither a folder nor --all, or both, is a usage error."""
    said(cli(command), 2, f"pix4d-watcher {command} --all", stream="stderr")
    said(cli(command, "--all", "survey/x"), 2, stream="stderr")


# --- configuration


def test_no_configuration_is_78(run_cli):
    """Without any configuration every place that was looked at is named."""
    said(run_cli("status"), 78, "--config FILE", "pix4d-watcher.yaml", stream="stderr")


def test_all_problems_at_once(cli, site):
    """Each problem stands on a line of its own, with its place."""
    site.config.write_text("wach: 3\nwatch:\n  - {name: a b, path: drop, settle: 5}\n")
    lines = said(cli("status"), 78, stream="stderr").stderr.splitlines()
    assert [line.partition(" ")[0] for line in lines[1:]] == [f"{site.config}:{number}:" for number in (1, 3, 3)]


@pytest.mark.parametrize("command", ["check-config", "run"])
@pytest.mark.parametrize("unknown", ["", "wach: 3\n"])
def test_problems_of_all_kinds_at_once(cli, site, command, unknown):
    """The file's own problems, its secret's and its drop directories' are told together, each with its line."""
    site.config.write_text(site.config.read_text() + unknown)
    (site.directory / "secret").chmod(0o640)
    (site.directory / "drop").rmdir()
    lines = said(cli(command), 78, stream="stderr").stderr.splitlines()[1:]
    texts = [
        "cloud.client_secret_file: ",
        f"drop directory survey: {site.directory}/drop is not there",
        "wach: unknown key",
    ]
    for line, number, text in zip(lines, [4, 8, 14], texts, strict=False):
        assert line.startswith(f"{site.config}:{number}: {text}")
    assert len(lines) == (3 if unknown else 2)


def test_check_config_good(cli, site):
    """A good configuration is explained, warnings too, and called good in the last line; the secret is not shown."""
    site.config.write_text(site.config.read_text() + "dashboard: 127.0.0.1:8470\n")
    out = said(cli("check-config"), 0, "warning:", f"drop directory survey: {site.directory / 'drop'}").stdout
    assert out.splitlines()[-1] == "configuration is good"
    assert "demo-secret" not in out


def test_check_config_missing_directory(cli, site):
    """Every missing drop directory is named, after what was understood."""
    (site.directory / "drop").rmdir()
    result = said(cli("check-config"), 78, "drop directory survey", "is not there", stream="stderr")
    assert "journal: " in result.stdout
    assert "good" not in result.stdout


def test_check_config_secret(cli, site):
    """A secret that is missing, or that others may read, is a problem of the configuration."""
    (site.directory / "secret").chmod(0o644)
    said(cli("check-config"), 78, "chmod 600", stream="stderr")
    (site.directory / "secret").unlink()
    said(cli("check-config"), 78, "does not exist", stream="stderr")


# --- folders


def test_unknown_folder(cli, site):
    """A folder that nobody knows is 2, with the nearest name; without a journal it says so."""
    said(cli("drop", "harbor"), 2, "there is no journal yet", stream="stderr")
    site.found("harbour")
    said(cli("drop", "harbor"), 2, "did you mean survey/harbour?", stream="stderr")
    said(cli("status", "nowhere"), 2, "no folder nowhere is known", stream="stderr")


def test_ambiguous_folder(cli, site):
    """A name in two drop directories is 2 and lists both; with the drop directory it is clear."""
    site.found("flight")
    site.found("flight", root="second")
    result = said(cli("drop", "flight"), 2, stream="stderr")
    assert "  survey/flight\n  second/flight\n" in result.stderr
    said(cli("drop", "second/flight"), 0, "second/flight: dropped")
    site.split("flight")
    result = said(cli("drop", "flight"), 2, stream="stderr")
    assert "  survey/flight\n  second/flight\n" in result.stderr, "the name of a split folder means all of it"


def test_bytes_and_escapes(cli, site):
    """A name that is no UTF-8 is taken as its bytes and as its escapes, and shown escaped."""
    site.found(b"M\xe9moire", images=3)
    said(cli("pause", os.fsdecode(b"M\xe9moire")), 0, r"survey/M\xe9moire: paused")
    said(cli("resume", r"survey/M\xe9moire"), 0, r"survey/M\xe9moire: goes on")
    said(cli("resume", r"survey/M\xe9moire/"), 0)
    said(cli("status", os.fsdecode(b"\xff")), 2, r"'\xff'", stream="stderr")


def test_options_before_and_after(run_cli, site):
    """Options may stand before or behind the folder."""
    site.found("flight", images=3)
    site.close()
    said(run_cli("pause", "flight", "--config", site.config), 0)
    said(run_cli("resume", "--config", site.config, "flight"), 0)
    said(run_cli("status", "flight", "--json", "--config", site.config), 0, '"folder": "flight"')


def test_rounds(cli, site):
    """Without a number the newest round is meant, `#1` means the first."""
    first = site.found("flight")
    second = site.found("flight")
    said(cli("drop", "flight"), 0, "survey/flight#2: dropped")
    assert views.project(site.journal, second).condition is Condition.DROPPED
    said(
        cli("drop", "flight#1"), 0, "survey/flight#1: dropped; pix4d-watcher retry 'survey/flight#1' takes it up again"
    )
    assert views.project(site.journal, first).condition is Condition.DROPPED


def test_all_parts_of_a_split_folder(cli, site):
    """What is asked for a folder that was split is done with all its parts, each is named, and `#2` means that one."""
    parts = site.split("flight")

    def those(fact):
        return [fact(views.project(site.journal, part)) for part in parts]

    out = said(cli("pause", "survey/flight"), 0).stdout.splitlines()
    assert out == [f"survey/flight#{n}: paused; pix4d-watcher resume 'survey/flight#{n}' goes on" for n in (1, 2, 3)]
    assert those(lambda part: part.paused) == [True] * 3
    said(cli("resume", "flight#2"), 0, "survey/flight#2: goes on")
    assert those(lambda part: part.paused) == [True, False, True]
    said(cli("resume", "flight"), 0)
    assert those(lambda part: part.paused) == [False] * 3
    said(cli("start", "flight"), 0, *(f"survey/flight#{n}: processing may start" for n in (1, 2, 3)))
    projects.hold(site.journal, parts[1], HoldCode.LATE_IMAGES, "2 images came too late")
    said(cli("approve", "flight"), 0, "survey/flight#2: accepted: late_images survey/flight#1 is not held; there is")
    said(cli("approve", "flight"), 2, *(f"survey/flight#{n} is not held" for n in (1, 2, 3)), stream="stderr")
    said(cli("drop", "flight"), 0, *(f"survey/flight#{n}: dropped" for n in (1, 2, 3)))
    assert those(lambda part: part.condition) == [Condition.DROPPED] * 3
    said(cli("retry", "flight"), 0)
    assert those(lambda part: part.condition) == [Condition.ACTIVE] * 3


@pytest.mark.parametrize("split", [True, False])
def test_commands_for_a_first_round(cli, site, split):
    """A command that is proposed for a first round acts on it, although a bare name means a later one."""
    first = site.split("flight")[0] if split else site.settled("flight")
    if not split:
        site.found("flight")
    projects.hold(site.journal, first, HoldCode.MANUAL_START, "To process it: pix4d-watcher start FOLDER")
    for look in (["status"], ["status", "flight#1"], ["explain", "flight#1"], ["log", "flight"], ["log", "flight#1"]):
        said(cli(*look), 0, "pix4d-watcher start 'survey/flight#1'")
    said(cli("start", "survey/flight#1"), 0)
    assert views.project(site.journal, first).accepted == ("manual_start",)


# --- verbs


def test_pause_and_resume_one(cli, site):
    """Pausing one folder is a flag of its own and names the way back."""
    project = site.created("flight", uploaded=3)
    said(cli("pause", "flight"), 0, "paused; pix4d-watcher resume survey/flight goes on")
    assert views.project(site.journal, project).paused
    said(cli("resume", "flight"), 0, "survey/flight: goes on")
    assert not views.project(site.journal, project).paused


def test_resume_and_retry_say_what_comes_of_it(cli, site):
    """What stands in the way of going on is said: a hold, a pause, a folder that was given up or is done."""
    project = site.settled("flight", hold=BAD)
    said(cli("resume", "flight"), 0, "survey/flight: not paused any more, and still held: bad_images")
    people.pause(site.journal, project, paused=True)
    said(cli("retry", "flight"), 0, "survey/flight: tried again when it goes on", "pix4d-watcher resume survey/flight")
    service.put(site.journal, service.PAUSED_ALL, value=True)
    said(cli("resume", "flight"), 0, "but everything is; pix4d-watcher resume --all goes on")
    said(cli("retry", "flight"), 0, "tried again when everything goes on", "pix4d-watcher resume --all")
    service.put(site.journal, service.PAUSED_ALL, value=False)
    said(cli("retry", "flight"), 0, "survey/flight: tried again now")
    people.drop(site.journal, project)
    for command in ("pause", "resume"):
        said(cli(command, "flight"), 2, "was given up", "pix4d-watcher retry survey/flight", stream="stderr")
    site.delivered("done")
    said(cli("retry", "done"), 2, "survey/done is done; there is nothing to try again", stream="stderr")


def test_pause_and_resume_all(cli, site):
    """Pausing everything is kept in the journal, works before the first run, and is shown."""
    said(cli("pause", "--all"), 0, "everything is paused")
    assert service.get(site.journal, service.PAUSED_ALL) is True
    said(cli("status"), 0, "Everything is paused by a person; to go on: pix4d-watcher resume --all")
    said(cli("resume", "--all"), 0, "everything goes on")
    assert not service.get(site.journal, service.PAUSED_ALL)


def test_approve(cli, site):
    """Approving lifts the hold and says what was accepted; what is not held is refused with 2."""
    project = site.settled("flight", hold=BAD)
    said(cli("approve", "flight"), 0, "survey/flight: accepted: bad_images")
    assert views.project(site.journal, project).accepted == ("bad_images",)
    said(cli("approve", "flight"), 2, "not held", stream="stderr")


def test_approve_names_what_would_help(cli, site):
    """A hold that approving does not lift is refused with the command that does, on the real name."""
    project = site.created("my flight", uploaded=3)
    projects.hold(site.journal, project, HoldCode.SOURCE_CHANGED, "3 images changed")
    said(cli("approve", "my flight"), 2, "pix4d-watcher retry 'survey/my flight'", stream="stderr")


def test_drop_and_retry(cli, site):
    """A dropped folder names the way back, and retry takes it up again."""
    project = site.settled("flight")
    said(cli("drop", "flight"), 0, "dropped; pix4d-watcher retry survey/flight takes it up again")
    said(cli("retry", "flight"), 0, "taken up again")
    assert views.project(site.journal, project).condition is Condition.ACTIVE


def test_start(cli, site):
    """A start that a person allows lifts the hold."""
    project = site.registered("flight")
    projects.hold(site.journal, project, HoldCode.MANUAL_START, "all images are registered")
    said(cli("start", "flight"), 0, "processing may start")
    assert views.project(site.journal, project).condition is Condition.ACTIVE


@pytest.mark.parametrize(("option", "state"), [("--done", State.STARTED), ("--not-done", State.REGISTERED)])
def test_retry_records_a_verdict(cli, site, option, state):
    """A person's answer about an effect in doubt is recorded and decides."""
    project = site.registered("flight")
    effects.intent(site.journal, project, EffectKind.START, State.REGISTERED, request={})
    projects.hold(site.journal, project, HoldCode.IN_DOUBT, "start: no answer")
    said(cli("retry", option, "flight"), 0, "recorded")
    assert views.project(site.journal, project).state is state
    assert views.open_effect(site.journal, project) is None


def test_verdict_without_doubt(cli, site):
    """A verdict where nothing is in doubt is refused."""
    site.registered("flight")
    said(cli("retry", "flight", "--done"), 2, "not in doubt", stream="stderr")


# --- the journal


def test_newer_journal_is_78(cli, site):
    """A journal of a newer version is left alone by every command, with 78."""
    site.found("flight")
    site.close()
    with sqlite3.connect(site.journal_path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for command in (["status"], ["status", "--json"], ["drop", "flight"], ["pause", "--all"], ["run"]):
        said(cli(*command), 78, "newer pix4d-watcher", stream="stderr")


def test_no_journal_at_all_is_1(cli, site):
    """A file that is no journal is told as that."""
    site.journal_path.parent.mkdir()
    site.journal_path.write_bytes(b"this is something else entirely" * 100)
    said(cli("status"), 1, "no journal of pix4d-watcher", stream="stderr")


# --- run


def test_second_service_is_75(cli, site):
    """A second service on one journal ends with 75 and names the first."""
    assert site.journal
    site.close()
    with lock.hold(lock.lock_path(site.journal_path)):
        said(cli("run"), 75, f"process {os.getpid()}", stream="stderr")


def test_nothing_to_watch_is_78(cli, site):
    """The first run with no drop directory at all is a mistake of the configuration."""
    for name in ("drop", "other"):
        (site.directory / name).rmdir()
    said(cli("run"), 78, f"{site.config}:8: drop directory survey", "is not there", stream="stderr")


def test_directories_of_somebody_else(cli, site):
    """Drop directories that the user of the service may not read are told by `check-config`, by `run` and by `status`.

    With none that it may read the first run ends with 77, which systemd does not try again; with one it goes on.
    """
    texts = [f"drop directory {name}:" for name in ("survey", "second")]
    for name in ("drop", "other"):
        (site.directory / name).chmod(0)
    try:
        for command in ("check-config", "run"):
            found = cli(command, privileged=False)
            said(found, 78 if command == "check-config" else 77, *texts, "may not be read", "setfacl", stream="stderr")
        (site.directory / "other").chmod(0o700)
        running = cli.start("run", privileged=False)
        roots = {}
        # Each drop directory has a scanner of its own.
        while not (roots and roots["second"]["present"] and "drop directory is away" in running.text()):
            assert running.process.poll() is None, running.text()
            roots = {root["name"]: root for root in json.loads(cli("status", "--json").stdout)["roots"]}
        said(cli("status"), 0, "Drop directory survey: never seen yet", "pix4d-watcher check-config")
        assert (roots["survey"]["present"], roots["second"]["present"]) == (False, True)
        assert "never seen yet" in roots["survey"]["problem"]
        assert running.stop() == 0
    finally:
        (site.directory / "drop").chmod(0o700)


def test_unsafe_secret_is_78(cli, site):
    """The service does not start with a secret that others may read."""
    (site.directory / "secret").chmod(0o640)
    said(cli("run"), 78, "chmod 600", stream="stderr")


def test_refused_secret_is_77(cli, site, emulator):
    """A client secret that the cloud refuses at the start ends the service with 77."""
    site.config.write_text(site.config.read_text().replace("http://127.0.0.1:9", emulator.url))
    (site.directory / "secret").write_text("wrong\n")
    said(cli("run"), 77, "refused", stream="stderr")


def test_idle_run_is_0(cli, site, emulator):
    """With nothing to do `run --until-idle` ends with 0, and logs on stderr alone."""
    site.config.write_text(site.config.read_text().replace("http://127.0.0.1:9", emulator.url))
    assert said(cli("run", "--until-idle"), 0, "idle", stream="stderr").stdout == ""


# --- emulator


def test_emulator_is_ready(run_cli):
    """The emulator says where it listens and ends by SIGTERM."""
    running = run_cli.start("emulator", "--listen", "127.0.0.1:0", "--set", "processing_seconds=30")
    while not running.text().endswith("\n") and running.process.poll() is None:
        threading.Event().wait(0.05)
    assert running.text().startswith("ready http://127.0.0.1:")
    assert running.stop() == 0


def test_emulator_mistakes(run_cli, emulator):
    """A wrong address, an unknown setting and a taken port are told."""
    said(run_cli("emulator", "--listen", "here"), 2, "HOST:PORT", stream="stderr")
    said(run_cli("emulator", "--set", "colour=red"), 2, "known are", "processing_seconds", stream="stderr")
    said(run_cli("emulator", "--set", "colour"), 2, "NAME=VALUE", stream="stderr")
    said(run_cli("emulator", "--listen", emulator.url.removeprefix("http://")), 1, "cannot serve", stream="stderr")


# --- the one place that maps


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError(["x"]), 78),
        (errors.JournalTooNew("x"), 78),
        (errors.JournalError("x"), 1),
        (lock.AlreadyRunning("x"), 75),
        (errors.NotSent("x"), 75),
        (errors.Throttled("x"), 75),
        (errors.HostError("x"), 1),
        (errors.AuthRefused("x"), 77),
        (PermissionError(13, "x", "y"), 77),
        (OSError(5, "x", "y"), 1),
        (exits.Misused("x"), 2),
        (errors.WatcherError("x"), 1),
    ],
)
def test_exit_codes(error, code):
    """Each kind of error has the exit code of the contract."""
    assert exits.exit_code(error) == code


def test_permission_below_another_error():
    """An error of ours that a missing permission caused is 77, too."""
    error = errors.HostError("no lock")
    error.__cause__ = PermissionError(13, "x")
    assert exits.exit_code(error) == 77
