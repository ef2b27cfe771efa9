"""A ground station for tests that kill it: drop directory, emulator, and the service as a process of its own.

What it did is read where other programs read it: in the journal's views, and in the emulator's ledger.
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys

import nursery
import yaml
from harness import until

from pix4d_watcher.emulator.server import Emulator
from pix4d_watcher.journal import database, service, uploads, views

CONNECTIONS = 4
PATIENCE = 90.0
"""Seconds within which whatever is waited for must have happened; generous, since tests share two cores."""

ADVANCED = {
    "doubt_wait": "1500ms",
    "scan_interval": "2s",
    "retry_base": "100ms",
    "retry_max": "1s",
    # Longer than any answer takes: a time-out would be a failed try, and the image would be sent again without a kill.
    "request_timeout": "20s",
}


class Station:
    """One installation in a directory of its own, from entering to leaving it."""

    def __init__(self, directory, **cloud):
        self.directory = directory
        self.drops = directory / "drop"
        self.results = directory / "results"
        self.config = directory / "pix4d-watcher.yaml"
        self.log = directory / "log"
        self.cloud = Emulator(**{"processing_seconds": 0.3, "output_bytes": 1000, **cloud})
        self.process = None

    def __enter__(self):
        """Start the emulator; write the configuration."""
        self.drops.mkdir(parents=True)
        secret = self.directory / "secret"
        secret.write_text("demo-secret\n")
        secret.chmod(0o600)
        self.cloud.start()
        self.configure()
        return self

    def __exit__(self, kind, *_):
        """End everything; after a failure show what a person would look at."""
        if kind is not None and self.log.exists():
            print(self.look(), *self.log.read_text(errors="replace").splitlines()[-60:], sep="\n")
        if self.process is not None:
            self.kill()
        self.cloud.stop()

    def configure(self, *, results=True, advanced=None, **root):
        """Write the configuration; keyword arguments are keys of the drop directory."""
        pair = {"client_id": "demo-client", "client_secret_file": str(self.directory / "secret")}
        settings = {
            "cloud": {"url": self.cloud.url, "s3_endpoint": self.cloud.url, **pair},
            "journal": str(self.directory / "state" / "journal.db"),
            "watch": [{"name": "survey", "path": str(self.drops), "settle": "300ms", "poll": "200ms", **root}],
            "results": str(self.results) if results else None,
            "upload": {"connections": CONNECTIONS},
            "advanced": {**ADVANCED, **(advanced or {})},
        }
        self.config.write_text(yaml.safe_dump(settings))

    def drop(self, fill, name="flight"):
        """Drop a folder that `fill(folder)` filled, all at once."""
        prepared = self.directory / "prepared" / name
        prepared.mkdir(parents=True)
        fill(prepared)
        return prepared.rename(self.drops / name)

    # The service.

    def start(self, *options, real=False):
        """Start the service; `real` by an interpreter of its own, else quickly."""
        assert self.process is None, "it runs already"
        arguments = ["run", *options, "--config", str(self.config)]
        with self.log.open("ab") as log:
            if real:
                self.process = subprocess.Popen(
                    [*nursery.WITH_THE_TESTS, sys.executable, "-m", "pix4d_watcher", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    start_new_session=True,
                )
            else:
                self.process = nursery.Child(arguments, stdout=log, stderr=log, cwd=self.directory)

    def ended(self, seconds=PATIENCE):
        """Wait until the service ends by itself and give the exit code."""
        process, self.process = self.process, None
        try:
            return process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def finish(self):
        """Run the service until nothing is left to do."""
        self.start("--until-idle")
        assert self.ended() == 0

    def kill(self):
        """End the service as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self.process = None

    def ask_to_stop(self):
        """Ask the service to end, as systemd does."""
        self.process.send_signal(signal.SIGTERM)

    def until(self, check, what, **patience):
        """Wait for something while the service runs; fail at once when the service ended."""

        def alive():
            found = check()
            assert found or self.process.poll() is None, f"the service ended before: {what}"
            return found

        return until(alive, what, **{"seconds": PATIENCE, **patience})

    # What it did.

    @contextlib.contextmanager
    def journal(self, *, change=False):
        """Open the journal; gives None while there is none."""
        path = self.directory / "state" / "journal.db"
        journal = database.open_journal(path) if change else database.open_to_read(path)
        try:
            yield journal
        finally:
            if journal is not None:
                journal.close()

    def status(self):
        """Give what `status --json` shows of all projects."""
        with self.journal() as journal:
            return [] if journal is None else views.status(journal)

    def look(self, name="flight"):
        """Give what `status --json` shows of a folder; {} while it is not known."""
        return next((row for row in self.status() if row["folder"] == name), {})

    def images(self, name="flight"):
        """List a folder's images as the journal has them."""
        with self.journal() as journal:
            return views.images_of(journal, self.look(name)["id"])

    def parts(self, image):
        """Give the numbers of the parts that the journal has of a large image."""
        with self.journal() as journal:
            return set() if image.upload_id is None else set(uploads.parts_of(journal, image, image.upload_id))

    def effects(self, name="flight"):
        """List a folder's effects."""
        with self.journal() as journal:
            return views.effects_of(journal, self.look(name)["id"])

    def pause_all(self, *, paused):
        """Do what `pause --all` and `resume --all` do."""
        with self.journal(change=True) as journal:
            service.put(journal, service.PAUSED_ALL, paused, event="everything resumed by a person")

    def requests(self, op):
        """Count the requests of an operation that the cloud has seen."""
        return self.cloud.state.requests[op]

    def used(self, name="flight"):
        """Give the one project of a folder that is used."""
        (project,) = [
            found
            for found in self.cloud.ledger()["projects"]
            if found["used"] and found["name"].startswith(f"{name} [")
        ]
        return project

    def assert_delivered_once(self, name="flight"):
        """Check the promise against the files themselves; gives how often each image was sent, by its path."""
        assert self.look(name)["state"] == "delivered"
        ledger, project = self.cloud.ledger(), self.used(name)
        keys = {image.path: f"{project['prefix']}/{image.key}" for image in self.images(name)}
        folder = self.drops / name
        files = {os.fsencode(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        assert keys.keys() == files.keys()
        assert project["registered"] == dict.fromkeys(keys.values(), 1)
        assert project["starts"] == 1
        assert project["id"] == self.look(name)["remote_id"]
        for path, file in files.items():
            assert ledger["objects"][keys[path]]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest(), path
        assert not [effect for effect in self.effects(name) if effect.status == "open"]
        return {path: ledger["objects"][key]["puts"] for path, key in keys.items()}

    def assert_results_complete(self, name="flight"):
        """Check that every result lies there as the cloud has it, and nothing unfinished beside it."""
        place = self.results / "survey" / name
        found = [path for path in place.iterdir() if path.is_file()]
        assert ".complete" in {path.name for path in found}
        assert not [path for path in found if path.name.endswith(".part")]
        wanted = {output["sha256"] for output in self.cloud.ledger()["outputs"].values()}
        assert wanted
        assert wanted <= {hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
