"""Runs the commands `on_delivered` and `on_held`, one at a time, in a thread that no upload ever waits for.

A row of the outbox stays open until its command succeeded, so a stop or a crash in its middle runs it again: at least
once, never silently not. A command gets the facts and nothing of the service's own environment, which may hold secrets.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from pix4d_watcher.core.machine import with_name
from pix4d_watcher.core.model import printable
from pix4d_watcher.engine.beats import Wake
from pix4d_watcher.engine.fetching import results_folder
from pix4d_watcher.engine.waits import backoff
from pix4d_watcher.journal import outbox, views

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.outbox import Post
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()

MAX_TRIES = 10
"""Failed tries of one command before it is given up: with pauses doubling to `retry_max` about a quarter of an hour."""

TICK = 1.0
"""Seconds between two looks for rows."""

LOOK = 0.1
"""Seconds between two looks whether a running command has ended, or is to be stopped."""

GRACE = 2.0
"""Seconds that a command gets between SIGTERM and SIGKILL; a stop of the whole service takes 8 at most."""

MOST_OUTPUT = 4096
"""Bytes of a failed command's output that are kept, its last ones: there the reason stands."""

PIPE = 65536
"""Bytes that a pipe holds: one read empties it."""


class Failed(Exception):
    """The command did not succeed; the text says why, with the end of its output."""


class Stopped(Exception):
    """The service stops: the command was ended in its middle and is run again at the next start."""


class Hooks:
    """The thread that works off the outbox."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.wake = Wake()

    def run(self) -> None:
        """Run what is due until the service stops; the work of one thread."""
        context = self._context
        while not context.stop.is_set():
            post = outbox.next_due(context.journal, time.time(), context.horizon)
            if post is None:
                context.beats.rest()
                self.wake.wait(TICK)
                continue
            context.beats.beat(context.settings.hooks.timeout + GRACE + 120.0)
            self._tell(post)
        context.beats.rest()

    @property
    def due(self) -> bool:
        """Whether a command is due or running now; one that is tried again later does not count."""
        return outbox.next_due(self._context.journal, time.time(), self._context.horizon) is not None

    def _tell(self, post: Post) -> None:
        context, hooks = self._context, self._context.settings.hooks
        command = hooks.on_delivered if post.kind == outbox.DELIVERED else hooks.on_held
        if command is None:
            outbox.unheard(context.journal, post)
            return
        project = views.project(context.journal, post.project_id)
        try:
            self._run(command, project, post)
        except Stopped:
            log.info("command stopped", hook=f"on_{post.kind}", project=project.title, text="it is run again")
        except Failed as error:
            self._failed(post, project, f"on_{post.kind}: {error}")
        else:
            outbox.succeeded(context.journal, post, f"on_{post.kind} done")
            log.info("command done", hook=f"on_{post.kind}", project=project.title)

    def _failed(self, post: Post, project: Project, text: str) -> None:
        context, advanced = self._context, self._context.settings.advanced
        tries = post.tries + 1
        if tries >= MAX_TRIES:
            outbox.given_up(context.journal, post, f"{text} ({tries} tries)")
            log.error("command given up", project=project.title, tries=tries, reason=text)
            return
        pause = backoff(post.tries, advanced.retry_base, advanced.retry_max)
        outbox.failed(context.journal, post, text, due_at=context.after(pause))
        log.warning("command failed", project=project.title, tries=tries, again_in=round(pause, 1), reason=text)

    def _run(self, command: Sequence[str], project: Project, post: Post) -> None:
        """Run a command to its end; raises Failed, and Stopped when the service ends first."""
        facts = _facts(self._context, project, post)
        given = os.memfd_create("pix4d-watcher-facts", os.MFD_CLOEXEC)
        try:
            os.write(given, json.dumps(facts, indent=2).encode() + b"\n")
            os.lseek(given, 0, os.SEEK_SET)
            process = subprocess.Popen(  # noqa: S603  (the administrator's own command, without a shell)
                command,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environment(project, facts, _results(self._context, project, post)),
                start_new_session=True,
            )
        except OSError as error:
            raise Failed(f"{command[0]} cannot be started: {error.strerror}") from error
        finally:
            os.close(given)
        with process:
            self._wait(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        end, output = time.monotonic() + self._context.settings.hooks.timeout, b""
        while (code := process.poll()) is None:
            if self._context.stop.is_set():
                _end(process)
                raise Stopped
            if time.monotonic() > end:
                _end(process)
                took = f"it ran longer than {self._context.settings.hooks.timeout:g} s and was ended"
                raise Failed(_with_output(took, output + _read(process, 0)))
            output = (output + _read(process, LOOK))[-MOST_OUTPUT:]
        output += _read(process, 0)
        if code:
            how = f"it ended with code {code}" if code > 0 else f"it was ended by {_signal_name(-code)}"
            raise Failed(_with_output(how, output))


def _read(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Read a piece of what a command wrote, waiting so long for it or for the command's end.

    The end of the pipe is not waited for: what a command leaves running in the background may keep it open for ever.
    """
    assert process.stdout is not None
    waiting = select.poll()
    waiting.register(process.stdout, select.POLLIN)
    piece = os.read(process.stdout.fileno(), PIPE) if waiting.poll(seconds * 1000) else b""
    if not piece and seconds:
        # Closed, and the command still runs: there is nothing to wait for but its end.
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    return piece[-MOST_OUTPUT:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started: politely, then at once."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, PermissionError):
            return
        except subprocess.TimeoutExpired:
            continue


def _with_output(text: str, output: bytes) -> str:
    shown = printable(b" | ".join(line for line in output[-MOST_OUTPUT:].splitlines() if line.strip()))
    return f"{text}: {shown}" if shown else text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _facts(context: Context, project: Project, post: Post) -> dict[str, Any]:
    """Say what happened as `status --json` says it; a hold is told as it was, whatever became of it since."""
    (facts,) = views.status(context.journal, [project.id])
    if post.kind == outbox.HELD:
        text = with_name(post.facts["text"], facts["title"])
        facts |= {"hold": {**post.facts, "text": text}, "condition": "held"}
    results = _results(context, project, post)
    shown = None if results is None else printable(os.fsencode(results))
    return {**facts, "event": post.kind, "event_at": views.moment(post.at), "results": shown}


def _results(context: Context, project: Project, post: Post) -> Path | None:
    there = post.kind == outbox.DELIVERED and context.settings.results is not None
    return results_folder(context, project) if there else None


def _environment(project: Project, facts: Mapping[str, Any], results: Path | None) -> dict[str, str]:
    """Make the whole environment of a command: names as they are on disk, empty where there is nothing to say."""
    hold = (facts["hold"] or {}) if facts["event"] == outbox.HELD else {}
    values = {
        "EVENT": facts["event"],
        "ROOT": project.root,
        "FOLDER": os.fsdecode(project.folder),
        "ROUND": project.round,
        "STATE": facts["state"],
        "HOLD_CODE": hold.get("code"),
        "HOLD_TEXT": hold.get("text"),
        "REMOTE_ID": facts["remote_id"],
        "PAGE": facts["page"],
        "RESULTS": results,
        "CREDITS": facts["credits"],
    }
    own = {"PATH": os.environ.get("PATH", os.defpath), "LANG": os.environ.get("LANG", "C.UTF-8")}
    told = {f"PIX4D_{name}": "" if value is None else str(value).replace("\0", "") for name, value in values.items()}
    return own | told
