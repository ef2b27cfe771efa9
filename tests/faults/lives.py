"""Lives for the crash matrix: a small flight that the real service brings to its end, dying at boundaries on the way.

A boundary is where a crash leaves another state behind: before and after each commit of the journal (`crashpoints`),
and at each call to the cloud, where the emulator in this process kills the service while the request is in its hands:

- `NAME, lost`: before it; the request never has an effect
- `NAME, applied`: in flight; the request takes effect when the service is dead already
- `NAME, answered`: after it; the answer lies in the dead service's socket
- `NAME, late`: in flight; the request takes effect when the next life is awaiting its outcome

A call that changes nothing has one boundary, `NAME, asked`. What a life left is read from outside: files, ledger,
journal.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import select
import shutil
import signal
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from harness import Site, all_stopped
from nursery import Child

from pix4d_watcher.emulator import connection
from pix4d_watcher.emulator.flights import make_tiny_images
from pix4d_watcher.journal import database, service

CHANGES = {"create", "put", "initiate", "part", "complete", "register", "start"}
"""Calls that change something in the cloud; a crash at any other one can only lose its answer."""

EFFECTS = {"create", "register", "start"}
TRIES = 4
"""Lives for one crash that is not reached because the threads took turns in another way."""

PATIENCE = 100.0
"""Seconds within which a life must have ended; it takes three on an idle machine."""

SIDES = ("lost", "applied", "answered")
REPEATED = {"service.put vitals", "folders.still_settling"}
"""Commits that a clock repeats, as often as the life is long: only the first of each is a boundary."""

FETCHED = ("3_dsm_ortho/2_mosaic/ortho.tif", "1_initial/report/report.pdf")
RESULTS = {".complete", "ortho.tif", "report.pdf", "report.json", "pix4d-receipt.json"}
DOUBT, LATE = 1.2, 0.8
"""Seconds of `doubt_wait`, which begins at the next start, and until a late request is applied, from the kill on.

LATE is long enough that a service that does not wait asks again before, and leaves DOUBT room on a busy machine.
"""

BLOCK = 8 << 20
"""Bytes of a part of a large image; one more byte makes two parts."""


def large_image(path, size=BLOCK + 10_000):
    """Grow a JPEG to so many bytes or a little more, by comments, which every reader skips."""
    content, comment = path.read_bytes(), b"\xff\xfe\xff\xff" + b"." * 65533
    count = -(-(size - len(content)) // len(comment))
    path.write_bytes(content[:2] + comment * count + content[2:])


class Dying(connection.Connection):
    """A connection of the emulator at which the service dies when its life says so."""

    def _serve(self, request):
        self._crash = self.server.life.meets(self._title(request))
        if self._crash == "late":
            _op, _key, run = connection._dispatch(self.server.state, request)
            self._apply_late(LATE, request, run)
        if self._crash in ("lost", "asked", "late"):
            self.server.life.die()
            raise connection._Reset
        super()._serve(request)

    def _send(self, request, answer):
        if self._crash == "answered":
            self.server.life.freeze()
            super()._send(request, answer)
            self._wait_until_taken()
        elif self._crash != "applied":
            super()._send(request, answer)
            return
        elif answer.file is not None:
            answer.file.close()
        self.server.life.die()
        raise connection._Reset

    def _title(self, request):
        op, key, _run = connection._dispatch(self.server.state, request)
        part = request.params().get("partNumber", "")
        return " ".join(filter(None, (op, key.rpartition("/")[2] if not key.isdecimal() else "", part)))


@dataclass
class Ended:
    """How a process of the service ended: its exit code, and the boundaries that it passed in their order."""

    code: int
    passed: list = field(default_factory=list)

    @property
    def crashed(self):
        """Whether it was killed; else it came to its end."""
        return self.code == -signal.SIGKILL


class Life(Site):
    """A site with one small flight in its drop directory, whose service dies where it is told.

    `known` folders were delivered before; images are registered `batch` at a time; the rest are settings of the cloud.
    """

    def __init__(self, directory, *, known=0, batch=None, **cloud):
        # A client of its own: the port may be one that another test's service still calls, whose emulator is gone.
        self._client = f"life-{uuid.uuid4()}"
        super().__init__(directory, output_bytes=2000, client_id=self._client, **cloud)
        self.known, self.batch = known, batch
        self.crashes = []
        self._pid = self._pidfd = None
        self._handles = contextlib.ExitStack()  # open until no thread of the emulator can use them any more
        self._begun = threading.Event()
        self._lock = threading.Lock()
        self._counts = Counter()
        self._wanted = ""
        self._met = []

    def __enter__(self):
        """Start the emulator; write the configuration; have `known` folders delivered; drop the flight."""
        super().__enter__()
        self.cloud._server.RequestHandlerClass = Dying
        self.cloud._server.life = self
        self.configure(
            results=True,
            cloud={"client_id": self._client},
            advanced={
                "doubt_wait": f"{DOUBT * 1000:.0f}ms",
                "scan_interval": "1h",
                "retry_base": "50ms",
                "retry_max": "200ms",
                "request_timeout": "20s",
                "register_batch": self.batch,
            },
            upload={"connections": 2, "multipart_threshold": "8MiB"},
            settle="200ms",
            poll="100ms",
            decode="off",
            checks={"too_few_images": "off"},
            outputs=["ortho", "quality_report"],
        )
        if self.known:
            for number in range(self.known):
                self.drop(f"earlier-{number}", 2)
            assert self.live().code == 0
        folder = self.directory / "prepared" / "flight"
        make_tiny_images(folder, 3, names="DJI_{n}.JPG")
        large_image(folder / "DJI_3.JPG")
        self.before = contents(folder)
        folder.rename(self.drops / "flight")
        return self

    def __exit__(self, *error):
        """End everything."""
        super().__exit__(*error)
        self._handles.close()

    # A process of the service.

    def live(self, crash=""):
        """Run the service until it dies at `crash`, or is idle; give how it ended."""
        trace = self.directory / f"trace-{len(self.crashes)}"
        self._wanted = crash
        environment = {**os.environ, "CRASH_TRACE": str(trace), "CRASH_AT": crash}
        code = self.live_as(
            lambda arguments, **more: Child(
                arguments, cwd=self.directory, environment=environment, first="crashpoints", **more
            ),
            crash,
        )
        return Ended(code, [point for _at, point in sorted(self._commits(trace) + self._met)])

    def live_as(self, start, crash):
        """Run the service as a process that `start` makes of its arguments; `crash` says what is done to it."""
        self.crashes.append(crash)
        self._counts.clear()
        self._met = []
        self._begun.clear()
        with self.log.open("ab") as log:
            self.process = start(["run", "--until-idle", "--config", str(self.config)], stdout=log, stderr=log)
        self._pid, self._pidfd = self.process.pid, None
        with contextlib.suppress(ProcessLookupError):  # it died already
            self._pidfd = os.pidfd_open(self._pid)
            self._handles.callback(os.close, self._pidfd)
        self._begun.set()
        try:
            return self.ended(PATIENCE)
        finally:
            self._wanted = ""

    def _commits(self, trace):
        lines = trace.read_text().splitlines() if trace.exists() else []
        found = [(int(at), point) for at, _, point in (line.partition(" ") for line in lines)]
        return [(at, point) for at, point in found if point.endswith("#1") or name_of(point) not in REPEATED]

    # Asked by the emulator's threads.

    def meets(self, title):
        """Note a request; give the side of it on which the service is to die, or nothing."""
        self._begun.wait()
        with self._lock:
            self._counts[title] += 1
            name = f"{title}#{self._counts[title]}"
            op = title.split()[0]
            sides = ("asked",) if op not in CHANGES else (*SIDES, "late") if op in EFFECTS else SIDES
            self._met += [(time.monotonic_ns(), f"{name}, {side}") for side in sides]
        wanted, _, side = self._wanted.rpartition(", ")
        return side if wanted == name else ""

    def die(self):
        """Kill the service and wait until it is dead."""
        self._begun.wait()  # a flush may come before this process knows whom it started
        self._signal(signal.SIGKILL)
        if self._pidfd is not None:
            select.select([self._pidfd], [], [], 30)

    def freeze(self):
        """Stop all threads of the service where they are, so that an answer arrives and nobody reads it."""
        self._signal(signal.SIGSTOP)
        while not all_stopped(self._pid):
            time.sleep(0.0005)

    def _signal(self, number):
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    # The end of all lives.

    def kept(self):
        """Hold what a finished flight left against the promise; gives what is broken, nothing if all is kept.

        The emulator's count of images is exact, so that a batch in doubt is never named twice here: `register_in_doubt`
        repeats one only where the count stands still.
        """
        cloud, crashes = self.cloud.ledger(), sum(map(bool, self.crashes))
        used = [project for project in self.projects() if project["used"]]
        if len(used) != 1:
            return [f"{len(used)} used projects"]
        (project,) = used
        keys = {f"{project['prefix']}/{os.fsdecode(path)}": facts[2] for path, facts in self.before.items()}
        sent = {key: found for key, found in cloud["objects"].items() if key.startswith(f"{project['prefix']}/")}
        outputs = {key.removeprefix(f"{project['prefix']}/"): found for key, found in cloud["outputs"].items()}
        place = self.results / "survey" / "flight"
        here = contents(place)
        doubted = [effect for effect in self.effects() if effect.kind == "create" and effect.status == "undone"]
        facts = {
            "every image is registered once": project["registered"] == dict.fromkeys(keys, 1),
            "there is one start": project["starts"] == 1,
            "the journal names the used project": self.look()["remote_id"] == project["id"],
            "every empty twin is a doubt in the journal": len(self.projects()) - 1 <= len(doubted),
            "objects are the images": {key: found["sha256"] for key, found in sent.items()} == keys,
            "an image is sent once more at each crash": all(found["puts"] <= 1 + crashes for found in sent.values()),
            "the sources are as they were": contents(self.drops / "flight") == self.before,
            "the results are complete": set(map(os.fsdecode, here)) == RESULTS,
            "the results are the outputs": all(
                here.get(key.rpartition("/")[2].encode(), ["", "", ""])[2] == outputs.get(key, {}).get("sha256")
                for key in FETCHED
            ),
            "it is delivered, and was never held": self.look()["state"] == "delivered"
            and "held" not in [kind for kind, _text in self.events()],
            "the last end was a clean one": service.get(self.journal(), service.RUNNING) is False,
            "no effect is open": all(effect.status != "open" for effect in self.effects()),
        }
        database.check(self.journal())
        return [f"not true: {fact}" for fact, holds in facts.items() if not holds]


class Lab:
    """Many lives of one kind, each in a directory of its own, some of them at a time; counts what became of them."""

    def __init__(self, directory, *, by=Life.live, at_a_time=2, **variant):
        self._directory, self._by, self._variant = directory, by, variant
        self._at_a_time = at_a_time
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.counts = Counter()
        self.broken = []

    def ends(self, *crashes):
        """Bring one flight to its end with these crashes on the way; gives how each process ended, the last one too.

        The end is held against the promise; what is not true is noted in `broken`. A crash "" is none.
        """
        place = self._directory / f"life-{next(self._numbers)}"
        with Life(place, **self._variant) as life:
            ends = [self._by(life, crash) for crash in crashes]
            if ends[-1].crashed:
                ends.append(life.live())
            wrong = life.kept() if ends[-1].code == 0 else [f"it ended with {ends[-1].code}"]
            if wrong:
                self.broken.append(f"{' + '.join(crashes)}: {', '.join(wrong)}{life.report()}")
        shutil.rmtree(place)
        with self._lock:
            self.counts["lives"] += 1
            self.counts["crashes"] += sum(end.crashed for end in ends)
        return ends

    def reach(self, *crashes):
        """Have these crashes, in life after life until all are reached; gives what the process after them passed."""
        for _try in range(TRIES):
            ends = self.ends(*crashes)
            if all(end.crashed for end in ends[: len(crashes)]):
                return ends[len(crashes)].passed
            with self._lock:
                self.counts["lives that did not come to their crash"] += 1
        return None

    def reach_all(self, many):
        """Have many lives with crashes, some at a time; gives what `reach` gives for each."""
        with ThreadPoolExecutor(self._at_a_time) as pool:
            return list(pool.map(lambda crashes: self.reach(*crashes), many))

    def report(self, record_property, what):
        """Count for the end of the run; fail with all that was broken."""
        for name, number in self.counts.items():
            record_property("count", (f"crash matrix, {what}: {name}", number))
        assert not self.broken, "\n\n".join(self.broken)


def once_for_all(tmp_path_factory, name, make):
    """Have one worker of a test run make a value of JSON; all others take the same."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    file = place / f"{name}.json"
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            file.write_text(json.dumps(make()))
    return json.loads(file.read_text())


def name_of(point):
    """Take a boundary's name apart: what is left without its side and its number."""
    return point.removeprefix("before ").removeprefix("after ").rpartition("#")[0]


def contents(folder):
    """Give what is in a directory: size, time of change and SHA-256 by relative path."""
    return {
        os.fsencode(path.relative_to(folder)): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }
