"""A site for stories: drop directory, configuration, the emulator, and the real service as a process of its own.

What the service did is read where other programs read it: in the journal's views, and in the emulator's ledger.
"""

import contextlib
import os
import re
import signal
import socket
import threading
import time
import zlib
from pathlib import Path

import clocks
import yaml
from nursery import Child

from pix4d_watcher.core.model import printable
from pix4d_watcher.emulator.connection import Server
from pix4d_watcher.emulator.flights import make_tiny_images
from pix4d_watcher.emulator.server import Emulator
from pix4d_watcher.journal import database, people, service, views

ADVANCED = {
    "doubt_wait": "3s",
    "scan_interval": "2s",
    "retry_base": "200ms",
    "retry_max": "2s",
    "request_timeout": "2s",
}
QUICK = {"processing_seconds": 0.0, "output_bytes": 1000}
"""Settings of the emulator for stories that are not about processing or results."""

PATIENCE = 45.0
"""Seconds within which anything that a story waits for must have happened; generous, since stories share two cores."""


def until(check, what, seconds=PATIENCE, every=0.05):
    """Poll until `check()` gives something true, and give it back; fail when it never does."""
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, f"did not happen within {seconds:.0f} s: {what}"
        time.sleep(every)
    return value


def threads(pid):
    """Give what /proc says of each thread of a process; one that ends meanwhile is left out."""
    for place in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield place.read_text("utf-8")


def all_stopped(pid):
    """Whether all threads of a process stand still, which is a little after they were told to."""
    return all(re.search(r"^State:\t[TZX]", said, re.MULTILINE) for said in threads(pid))


def all_traced(pid):
    """Whether all threads of a process have a tracer."""
    return all("TracerPid:\t0\n" not in said for said in threads(pid))


def pad(path, size):
    """Grow a JPEG to about `size` bytes by comments, which every reader skips and no two of which are alike."""
    content, start = path.read_bytes(), b"\xff\xfe\xff\xff"
    count = max(0, size - len(content)) // (len(start) + 65533)
    comments = b"".join(start + (b"%d" % number).ljust(65533, b".") for number in range(count))
    path.write_bytes(content[:2] + comments + content[2:])


class Site:
    """One installation in a directory of its own, from entering to leaving it."""

    def __init__(self, directory, **cloud):
        self.directory = directory
        self.drops = directory / "drop"
        self.results = directory / "results"
        self.config = directory / "pix4d-watcher.yaml"
        self.log = directory / "log"
        self.reserve = directory / "state" / "journal.db.reserve"
        self.cloud = Emulator(**{**QUICK, **cloud})
        self.process = None
        self.privileged = True
        self.clock = None  # see `clocks`
        self.place = {}  # `network` and `etc` of `nursery.Child`
        self._journals = {}
        self._address = None

    def __enter__(self):
        """Start the emulator; write the configuration."""
        self.drops.mkdir(parents=True)
        secret = self.directory / "secret"
        secret.write_text("demo-secret\n")
        secret.chmod(0o600)
        self.cloud.start()
        self.configure()
        return self

    def __exit__(self, *_):
        """End everything."""
        self.kill()
        self.let_go()
        self.cloud.stop()
        # Megabytes each, and the directories of tests are kept for a while.
        self.reserve.unlink(missing_ok=True)

    # The installation.

    def configure(self, *, results=False, cloud=None, advanced=None, upload=None, more=(), **root):
        """Write the configuration; keyword arguments are keys of the drop directory, `more` are further ones."""
        url = self.cloud.url
        first = {"name": "survey", "path": str(self.drops), "settle": "500ms", "poll": "200ms", **root}
        secret = str(self.directory / "secret")
        pair = {"client_id": "demo-client", "client_secret_file": secret}
        settings = {
            "cloud": {"url": url, "s3_endpoint": url, **pair, **(cloud or {})},
            "journal": str(self.directory / "state" / "journal.db"),
            "watch": [first, *more],
            "results": str(self.results) if results else None,
            "upload": upload or {},
            "advanced": {**ADVANCED, **(advanced or {})},
        }
        self.config.write_text(yaml.safe_dump(settings))

    def fill(self, folder, count=6, *, names="DJI_{n:04d}.JPG", salt=""):
        """Write images of their own content into a folder; another `salt`, other images."""
        seed = zlib.crc32(f"{folder.name}/{salt}".encode())
        return make_tiny_images(folder, count, names=names, seed=seed)

    def prepare(self, name="flight", count=6, **more):
        """Make a folder beside the drop directory, on the same filesystem."""
        place = self.directory / "prepared" / name
        place.mkdir(parents=True)
        self.fill(place, count, **more)
        return place

    def drop(self, name="flight", count=6, **more):
        """Drop a folder of images, all at once, and give its path."""
        return self.prepare(name, count, **more).rename(self.drops / name)

    # The service.

    def set_clock(self, how):
        """Set the service's wall clock, now or from its next start on: `+0`, `+1d`, `-1h`, `@1970-01-01 00:05:00`."""
        self.clock = self.directory / "clock"
        clocks.write(self.clock, how)

    def clock_is(self):
        """Say by how many seconds the service's clock is off, by the newest things that it wrote."""
        with self.journal().read() as connection:
            told = connection.exec_driver_sql("SELECT at FROM events ORDER BY id DESC LIMIT 1").scalar()
        newest = (told, self.vitals().get("at") or told)
        return max(newest, key=lambda at: abs(at - time.time())) - time.time()

    def start(self, *options):
        """Start the service; it runs until it is stopped or killed."""
        assert self.process is None, "it runs already"
        with self.log.open("ab") as log:
            arguments = ["run", *options, "--config", self.config]
            how = {"privileged": self.privileged, "clock": self.clock, **self.place}
            self.process = Child(arguments, stdout=log, stderr=log, cwd=self.directory, **how)

    def run(self, seconds=2 * PATIENCE):
        """Run the service until it is idle and give the exit code."""
        self.start("--until-idle")
        return self.ended(seconds)

    def ended(self, seconds=PATIENCE):
        """Wait until the service ends by itself and give the exit code."""
        process, self.process = self.process, None
        try:
            return process.wait(seconds)
        finally:
            process.kill()
            process.wait()

    def stop(self):
        """Ask the service to end, as systemd does, and give the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def kill(self):
        """End the service as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def suspend(self):
        """Stop the service where it is, with all its threads."""
        self.process.send_signal(signal.SIGSTOP)
        until(lambda: all_stopped(self.process.pid), "all threads stand", every=0.001)

    def resume(self):
        """Have a suspended service go on."""
        self.process.send_signal(signal.SIGCONT)

    def restart(self):
        """Kill the service and start it again."""
        self.kill()
        self.start()

    # The cloud.

    def unplug(self):
        """Take the cloud off the network: connections are refused, what it knows stays."""
        server = self.cloud._server
        server.shutdown()
        server.server_close()
        server.end_connections(5)
        # Nobody listens there, and no other test's cloud may take the address meanwhile.
        self._address = socket.socket()
        self._address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._address.bind(server.server_address)

    def plug(self):
        """Bring the cloud back at the same address."""
        old = self.cloud._server
        self.cloud._server = Server(old.server_address, old.state)
        self._address.close()
        self.cloud._thread = threading.Thread(target=self.cloud._server.serve_forever, args=(0.05,), daemon=True)
        self.cloud._thread.start()

    def fault(self, op, do, **more):
        """Script a fault."""
        self.cloud.faults.add({"op": op, "do": do, **more})

    def requests(self, op):
        """Count the requests of an operation so far."""
        return self.cloud.ledger()["requests"].get(op, 0)

    def projects(self, name="flight"):
        """List the cloud's projects of a folder, those that are not used too."""
        return [found for found in self.cloud.ledger()["projects"] if found["name"].startswith(f"{name} [")]

    def used(self, name="flight"):
        """Give the one project of a folder that is used."""
        (project,) = [found for found in self.projects(name) if found["used"]]
        return project

    # The journal.

    def journal(self, *, change=False):
        """Open the journal; None while there is none."""
        if change not in self._journals:
            path = self.directory / "state" / "journal.db"
            found = database.open_journal(path) if change else database.open_to_read(path)
            if found is None:
                return None
            self._journals[change] = found
        return self._journals[change]

    def let_go(self):
        """Close the journal, so that nothing is open on its filesystem."""
        for journal in self._journals.values():
            journal.close()
        self._journals.clear()

    def status(self):
        """Give what `status --json` shows of all projects."""
        journal = self.journal()
        return [] if journal is None else views.status(journal)

    def look(self, name="flight", number=None):
        """Give what `status --json` shows of a folder's newest round, or of a round; {} while it is not known."""
        found = [row for row in self.status() if row["folder"] == name and number in (None, row["round"])]
        return max(found, key=lambda row: row["round"], default={})

    def id_of(self, name="flight", number=None):
        """Give the number of a folder's project."""
        return self.look(name, number)["id"]

    def images(self, name="flight"):
        """List a folder's images as the journal has them."""
        return views.images_of(self.journal(), self.id_of(name))

    def effects(self, name="flight"):
        """List a folder's effects."""
        return views.effects_of(self.journal(), self.id_of(name))

    def events(self, name="flight"):
        """List what happened to a folder: kind and text."""
        return [(kind, text) for _at, kind, text in views.events_of(self.journal(), self.id_of(name), 1000)]

    def vitals(self):
        """Give what the service says of itself."""
        journal = self.journal()
        return {} if journal is None else service.get(journal, service.VITALS, default={})

    def root(self, name="survey"):
        """Give what the journal knows of a drop directory."""
        return views.root(self.journal(), name)

    def ask(self, verb, name="flight", **more):
        """Do what a person's command does, by the same verb."""
        return getattr(people, verb)(self.journal(change=True), self.id_of(name), **more)

    def pause_all(self, *, paused):
        """Do what `pause --all` and `resume --all` do."""
        event = "everything resumed by a person"
        service.put(self.journal(change=True), service.PAUSED_ALL, paused, event=event)

    # Waiting.

    def until(self, check, what, seconds=PATIENCE, every=0.05):
        """Wait for something while the service runs; fail at once when the service ended."""

        def alive():
            found = check()
            assert found or self.process is None or self.process.poll() is None, f"the service ended before: {what}"
            return found

        return until(alive, what, seconds, every)

    def reach(self, state, name="flight", seconds=PATIENCE):
        """Wait until a folder is in a state."""
        return self.until(lambda: self._matching(name, state=state), f"{name} is {state}", seconds)

    def held(self, code, name="flight", seconds=PATIENCE):
        """Wait until a folder is held with a code, and give the text."""
        found = self.until(lambda: self._matching(name, hold=code), f"{name} is held {code}", seconds)
        return found["hold"]["text"]

    def delivered(self, *names, seconds=PATIENCE):
        """Wait until folders are done."""
        for name in names or ("flight",):
            self.reach("delivered", name, seconds)

    def _matching(self, name, *, state=None, hold=None):
        found = self.look(name)
        code = (found.get("hold") or {}).get("code")
        return found if found and state in (None, found["state"]) and hold in (None, code) else None

    # The promise.

    def once(self, name="flight", images=6, *, starts=1, held=False):
        """Check the promise: one used project, each image registered once, one start, and no person was needed."""
        project, uploaded = self.used(name), self.cloud.ledger()["objects"]
        assert sorted(project["registered"].values()) == [1] * images
        assert project["registered"].keys() <= uploaded.keys()
        assert project["starts"] == starts
        assert project["id"] == self.look(name)["remote_id"]
        prefix = f"{project['prefix']}/"
        assert {f"{prefix}{image.key}" for image in self.images(name) if image.status == "registered"} == set(
            project["registered"]
        )
        assert all(
            uploaded[f"{prefix}{image.key}"]["sha256"] == image.sha256.hex()
            for image in self.images(name)
            if image.status == "registered"
        )
        assert not [effect for effect in self.effects(name) if effect.status == "open"]
        holds = [text for kind, text in self.events(name) if kind == "held"]
        assert held or not holds

    def report(self):
        """Tell what a person would look at when a story failed: the status and the end of the log."""
        lines = [str(row) for row in self.status()]
        lines += [printable(line) for line in self.log.read_bytes().splitlines()[-80:]] if self.log.exists() else []
        ledger = self.cloud.ledger()
        lines += [str({name: ledger[name] for name in ("projects", "requests", "refused")})]
        return os.linesep.join(["", *lines])
