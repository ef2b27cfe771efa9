"""The stage of the demonstration: a temporary site, the emulator and the service as processes of their own.

Owns what is started and made, and ends and removes all of it. Knows nothing of the story.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from pix4d_watcher.cli import journals
from pix4d_watcher.config import load
from pix4d_watcher.journal import views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pix4d_watcher.config import Settings

PATIENCE = 45.0
"""Seconds that any one step may take; on an idle machine of two cores the whole demonstration takes half of it."""

LOOK_EVERY = 0.1
"""Seconds between two looks."""

STOP_WITHIN = 20.0
"""Seconds for a process to end after SIGTERM."""

# Everything short, so that a minute is enough; the example configuration has the values for work.
_CONFIG = """\
cloud:
  url: {url}
  s3_endpoint: {url}
  client_id: demo-client
  client_secret_file: client_secret
journal: state/journal.db
watch:
  - {{name: survey, path: drop, settle: 2s, poll: 1s, existing: process}}
results: results
advanced: {{doubt_wait: 5s, request_timeout: 5s, scan_interval: 2s, retry_base: 500ms, retry_max: 2s}}
"""

# What would lead the demonstration to a real account, or make it believe that systemd started it.
_UNWANTED = ("PIX4D_", "AWS_", "NOTIFY_SOCKET", "WATCHDOG_", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY")


class Stuck(Exception):
    """A step of the demonstration did not happen in time, or a process ended that should run."""


@dataclass
class Stage:
    """A running demonstration in `directory`; `url` is the emulator's, `session` speaks to it without any proxy."""

    directory: Path
    url: str = ""
    session: requests.Session = field(default_factory=requests.Session)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def drop(self) -> Path:
        """The drop directory."""
        return self.directory / "drop"

    @property
    def log(self) -> Path:
        """What the service wrote, over all its lives."""
        return self.directory / "service.log"

    def settings(self) -> Settings:
        """Load the configuration of the site."""
        return load(self.directory / "pix4d-watcher.yaml")

    def start_service(self) -> subprocess.Popen[bytes]:
        """Start the service as systemd would."""
        with self.log.open("ab") as log:
            return self._start("run", "--config", str(self.directory / "pix4d-watcher.yaml"), out=log.fileno(), err=log)

    def start_emulator(self) -> None:
        """Start the emulator and wait until it says where it listens; raises Stuck."""
        said, errors = self.directory / "emulator.out", self.directory / "emulator.err"
        with said.open("wb") as out, errors.open("wb") as err:
            data = str(self.directory / "cloud")
            settings = ["--set", "processing_seconds=3"]
            process = self._start(
                "emulator", "--listen", "127.0.0.1:0", "--data", data, *settings, out=out.fileno(), err=err
            )
        self.until(lambda: said.read_bytes().endswith(b"\n"), "the emulator listens", process)
        self.url = said.read_text(encoding="ascii").split()[1]

    def ledger(self) -> dict[str, Any]:
        """Ask the emulator what it applied."""
        answer = self.session.get(f"{self.url}/_emulator/ledger", timeout=PATIENCE)
        answer.raise_for_status()
        return dict(answer.json())

    def slow_uploads(self, seconds: float | None) -> None:
        """Have every upload answered so many seconds after it was applied; None ends that."""
        self.session.delete(f"{self.url}/_emulator/faults", timeout=PATIENCE).raise_for_status()
        if seconds is not None:
            fault = {"op": "put", "do": "delay", "seconds": seconds, "times": None}
            self.session.post(f"{self.url}/_emulator/faults", json=[fault], timeout=PATIENCE).raise_for_status()

    def projects(self) -> dict[str, dict[str, Any]]:
        """Read the projects of the journal, by folder."""
        with journals.journal_to_read(self.settings()) as journal:
            found = views.status(journal) if journal is not None else []
        return {project["folder"]: project for project in found}

    def until(self, holds: Callable[[], object], what: str, process: subprocess.Popen[bytes]) -> None:
        """Look until something holds, while a process runs; raises Stuck."""
        end, never = time.monotonic() + PATIENCE, threading.Event()
        while not holds():
            if process.poll() is not None:
                raise Stuck(f"waiting until {what}: the process ended with {process.returncode}")
            if time.monotonic() > end:
                raise Stuck(f"waiting until {what}: nothing for {PATIENCE:.0f} s")
            never.wait(LOOK_EVERY)

    def _start(self, *arguments: str, out: int, err: Any) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_UNWANTED)}
        environment["NO_PROXY"] = environment["no_proxy"] = "127.0.0.1"
        command = [sys.executable, "-m", "pix4d_watcher", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment)  # noqa: S603
        self.processes.append(process)
        return process


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Set the stage: a fresh site with the emulator running; afterwards nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="pix4d-watcher-demo-") as name, requests.Session() as session:
        session.trust_env = False
        made = Stage(Path(name), session=session)
        before = signal.signal(signal.SIGTERM, _end)
        try:
            _furnish(made)
            yield made
        finally:
            for process in made.processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
            signal.signal(signal.SIGTERM, before)


def _furnish(made: Stage) -> None:
    made.drop.mkdir()
    made.start_emulator()
    (made.directory / "pix4d-watcher.yaml").write_text(_CONFIG.format(url=made.url), encoding="utf-8")
    secret = os.open(made.directory / "client_secret", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(secret, "w") as stream:
        stream.write("demo-secret\n")  # the emulator's default


def _end(_number: int, _frame: object) -> None:
    raise SystemExit(1)  # on the way out the processes are ended and the directory is removed
