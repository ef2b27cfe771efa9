"""Lives that nobody thought of: hypothesis drops, kills, breaks, waits and repents in any order.

The service is a real process, the cloud the emulator in this one. After every step the promise is read from outside:
from the cloud's ledger and the journal's views. At the end of a life everything that was broken is mended, a person
does what each hold asks for, and then every folder must have arrived once.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from harness import Site, until
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from mischief import EFFECTS, FAULTS, LOST, do_as_told

from pix4d_watcher.core.machine import ORDER
from pix4d_watcher.core.model import printable
from pix4d_watcher.journal import people, skips, views
from pix4d_watcher.journal.change import Stale

LIVES = 12
"""Lives in `make check`, each a test of its own."""

STEPS = 25

SOAK_MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))

STOPPED = (0, -signal.SIGTERM)
"""How a stop may end; by the signal itself where it comes before the service listens to it."""

A_MOMENT = 0.1
"""Seconds after each step; a folder that nothing hinders takes two seconds or so."""

MENDED_AFTER = 15.0
"""Seconds that what goes wrong may still go wrong after the last step."""

SHAPES = {
    "flat": ("DJI_{n:04d}.JPG", "{folder}"),
    "card": ("DCIM/10{odd}MEDIA/DJI_{half:04d}.JPG", "{folder}"),
    "bytes": ("b\udce9 {n:04d}.JPG", "{folder} M\udce9moire"),
}
"""How the images of a folder are called, and the folder: flat, as on a card with its equal names, no UTF-8."""


@dataclass
class Folder:
    """What the test knows of a folder: every version of every image that ever lay there, and all its names."""

    names: list[str]
    versions: dict[str, list[str]] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    paused: bool = False

    @property
    def name(self):
        """The name that it has now."""
        return self.names[-1]

    @property
    def shown(self):
        """The name as people see it."""
        return shown(self.name)


def shown(name):
    return printable(os.fsencode(name))


def one(found, choice):
    """Choose one of what is there now, if anything is: hypothesis must not see what the service does meanwhile."""
    return [found[choice % len(found)]] if found else []


def digest(data):
    return sha256(data).hexdigest()


class Life(RuleBasedStateMachine):
    """One installation from its first start to the day when everything was delivered."""

    counts = None
    site = None

    @initialize(
        begin=st.integers(0, 1 << 16),
        shape=st.sampled_from(list(SHAPES)),
        lost=st.tuples(*(st.sampled_from(LOST) for _effect in EFFECTS)),
    )
    def begins(self, begin, shape, lost):
        """Set up a site with a folder and a cloud that loses an answer to each effect.

        The simplest life, in which all numbers are 0, is always tried first, and left out.
        """
        if begin == 0:
            return
        self.directory = Path(tempfile.mkdtemp(prefix="life-"))
        self.site = Site(self.directory / "site", output_bytes=300, processing_seconds=0.3).__enter__()
        self.site.configure(settle="300ms", results=True, advanced={"request_timeout": "1s", "retry_max": "1s"})
        self.site.set_clock("+0")
        self.folders, self.story, self.states = [], [], {}
        self.plugged, self.paused = True, False
        self.counts["lives"] += 1
        for op, do in zip(EFFECTS, lost, strict=True):
            self.goes_wrong({"op": op, **do}, 0, 1)
        self.site.start()
        self.drops(shape, 6)

    @precondition(lambda self: self.site is None)
    @rule()
    def is_not_lived(self):
        """Let the simplest life pass."""

    # What happens at the station.

    def told(self, what):
        """Note a step, and let the service work for a moment."""
        self.story.append(what)
        time.sleep(A_MOMENT)
        self.counts["steps"] += 1

    @precondition(lambda self: self.site and len(self.folders) < 4)
    @rule(shape=st.sampled_from(list(SHAPES)), count=st.integers(6, 9))
    def drops(self, shape, count):
        """Drop a folder, all at once."""
        images, folder = SHAPES[shape]
        number = len(self.folders)
        name = folder.format(folder=f"flight{number}")
        place = self.directory / "prepared"
        made = self.site.fill(place / f"flight{number}", count, salt=str(number))
        known = Folder([name])
        for n, path in enumerate(made):
            relative = images.format(n=n, odd=n % 2, half=n // 2)
            target = place / name / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            known.versions[relative] = [digest(path.read_bytes())]
            path.rename(target)
        (place / name).rename(self.site.drops / name)
        self.folders.append(known)
        self.told(f"drops {known.shown} with {count} images")

    @precondition(lambda self: self.site and self.folders)
    @rule(choice=st.integers(0, 9))
    def adds_a_late_image(self, choice):
        """Put one more image into a folder that was dropped."""
        folder = self.folders[choice % len(self.folders)]
        relative = f"LATE_{len(folder.versions):04d}.JPG"
        (made,) = self.site.fill(self.directory / "late", 1, salt=shown(folder.names[0]) + relative)
        folder.versions[relative] = [digest(made.read_bytes())]
        folder.late.add(relative)
        made.rename(self.site.drops / folder.name / relative)
        self.told(f"adds {relative} to {folder.shown}")

    @precondition(lambda self: self.site and self.folders)
    @rule(choice=st.integers(0, 9), which=st.integers(0, 9))
    def rewrites_an_image(self, choice, which):
        """Write other content into an image, in place."""
        folder = self.folders[choice % len(self.folders)]
        relative = sorted(folder.versions)[which % len(folder.versions)]
        version = len(folder.versions[relative])
        (made,) = self.site.fill(
            self.directory / "new", 1, salt=f"{shown(folder.names[0])}/{shown(relative)}/{version}"
        )
        data = made.read_bytes()
        folder.versions[relative].append(digest(data))
        (self.site.drops / folder.name / relative).write_bytes(data)
        self.told(f"rewrites {shown(relative)} of {folder.shown}")

    @precondition(lambda self: self.site and self.folders)
    @rule(choice=st.integers(0, 9))
    def renames_a_folder(self, choice):
        """Give a folder another name."""
        folder = self.folders[choice % len(self.folders)]
        name = f"{folder.names[0]} r{len(folder.names)}"
        (self.site.drops / folder.name).rename(self.site.drops / name)
        folder.names.append(name)
        self.told(f"renames {shown(folder.names[-2])} to {folder.shown}")

    # What happens to the service.

    @precondition(lambda self: self.site and self.site.process)
    @rule()
    def is_killed(self):
        """End the service as a power cut would."""
        self.site.kill()
        self.told("is killed")

    @precondition(lambda self: self.site and self.site.process)
    @rule()
    def is_stopped(self):
        """End it as systemd does."""
        assert self.site.stop() in STOPPED
        self.told("is stopped")

    @precondition(lambda self: self.site and not self.site.process)
    @rule()
    def is_started(self):
        """Start it."""
        self.site.start()
        self.told("is started")

    @precondition(lambda self: self.site)
    @rule(how=st.sampled_from(["-1h", "+1d", "+0", "@1970-01-01 00:05:00"]))
    def clock_jumps(self, how):
        """Set the service's wall clock."""
        self.site.set_clock(how)
        self.told(f"the clock jumps to {how}")

    @precondition(lambda self: self.site)
    @rule(tenths=st.integers(1, 12))
    def time_passes(self, tenths):
        """Let it work."""
        time.sleep(tenths / 10)
        self.told(f"{tenths / 10} s pass")

    # What happens to the cloud.

    @precondition(lambda self: self.site and self.plugged)
    @rule(fault=st.sampled_from(FAULTS), skip=st.integers(0, 2), times=st.integers(1, 3))
    def goes_wrong(self, fault, skip, times):
        """Script a fault of the cloud, or of the way to it."""
        fault = {"times": times, "skip": skip, **fault}
        self.site.cloud.faults.add(fault)
        self.told(f"fault {fault}")

    @precondition(lambda self: self.site and self.plugged)
    @rule()
    def is_unplugged(self):
        """Take the cloud off the network."""
        self.site.unplug()
        self.plugged = False
        self.told("is unplugged")

    @precondition(lambda self: self.site and not self.plugged)
    @rule()
    def is_plugged_in(self):
        """Bring it back."""
        self.site.plug()
        self.plugged = True
        self.told("is plugged in")

    # What people do.

    @precondition(lambda self: self.site and self.folders)
    @rule(choice=st.integers(0, 9))
    def pauses_or_resumes_a_folder(self, choice):
        """Pause one folder, or resume it."""
        folder = self.folders[choice % len(self.folders)]
        row = self.row(folder)
        if row:
            with suppress(people.Refusal):
                people.pause(self.journal, row["id"], paused=not folder.paused)
                folder.paused = not folder.paused
                self.told(f"{'pauses' if folder.paused else 'resumes'} {folder.shown}")

    @precondition(lambda self: self.site)
    @rule()
    def pauses_or_resumes_everything(self):
        """Pause everything, or resume it."""
        if self.site.journal():
            self.paused = not self.paused
            self.site.pause_all(paused=self.paused)
            self.told("pauses everything" if self.paused else "resumes everything")

    @precondition(lambda self: self.site and self.folders)
    @rule(choice=st.integers(0, 9))
    def does_what_a_hold_asks_for(self, choice):
        """Look at one of the holds and do what it says."""
        for row in one(self.held(), choice):
            self.help(row)

    @precondition(lambda self: self.site and self.folders)
    @rule(choice=st.integers(0, 9))
    def retries(self, choice):
        """Ask for a retry, whether it is needed or not."""
        for row in one(self.site.status(), choice):
            with suppress(people.Refusal, Stale):
                people.retry(self.journal, row["id"])
                self.told(f"retries {row['folder']}")

    @precondition(lambda self: self.site and self.folders)
    @rule(choice=st.integers(0, 99))
    def skips_an_image(self, choice):
        """Have a folder go on without one of its images."""
        for row, path in one(self.pending(), choice):
            with suppress(people.Refusal, Stale):
                skips.skip(self.journal, row["id"], [printable(path)])
                self.folder_of(row["folder"]).skipped.add(os.fsdecode(path))
                self.told(f"skips {printable(path)} of {row['folder']}")

    def help(self, row):
        """Do what the remedy of a hold says."""
        self.told(do_as_told(self.journal, row))

    # What is looked at.

    @property
    def journal(self):
        """The journal, open to be changed, as the commands do."""
        return self.site.journal(change=True)

    def held(self):
        """List what is held."""
        return [row for row in self.site.status() if row["condition"] == "held"]

    def pending(self):
        """List the images that were not sent yet of folders that are known: (row, path)."""
        found = [row for row in self.site.status() if row["state"] in ("settled", "created")]
        return [(row, image.path) for row in found for image in self.images(row) if image.status == "pending"]

    def images(self, row):
        """List the images of a project."""
        return views.images_of(self.site.journal(), row["id"])

    def folder_of(self, name):
        """Find a folder by a name that it has or had."""
        (found,) = [folder for folder in self.folders if name in map(shown, folder.names)]
        return found

    def row(self, folder):
        """Give a folder's one project in `status --json`; {} while it is not known.

        One that was never complete under an earlier name, when the folder was renamed between two runs, counts for
        nothing: nothing was asked of the cloud for it.
        """
        rows = [row for row in self.site.status() if row["folder"] in map(shown, folder.names)]
        rows = [row for row in rows if (row["state"], row["condition"], row["present"]) != ("found", "dropped", False)]
        assert len(rows) <= 1, "a folder became two projects"
        return rows[0] if rows else {}

    @invariant()
    def the_promise_holds(self):
        """Check after every step what may never be otherwise."""
        if self.site:
            self.nothing_happens_twice()
            self.what_arrives_lay_there()
            self.nothing_is_touched()
            self.progress_is_kept()

    def nothing_happens_twice(self):
        """One used project for each folder, one start, one registration of each key."""
        used = Counter()
        for project in self.site.cloud.ledger()["projects"]:
            folder = self.folder_of(project["name"].rpartition(" [")[0])
            used[folder.names[0]] += project["used"]
            assert project["starts"] <= 1
            assert all(count <= 1 + self.again(folder) for count in project["registered"].values())
        assert all(count <= 1 for count in used.values())

    def again(self, folder):
        """Count the documented exceptions: batches that were registered again, since nobody could tell."""
        row = self.row(folder)
        effects = views.effects_of(self.site.journal(), row["id"]) if row else []
        return sum("registered again" in (effect.note or "") for effect in effects)

    def what_arrives_lay_there(self):
        """Every object is a version of an image of that folder, and lies under its project's prefix."""
        ledger = self.site.cloud.ledger()
        projects = {project["id"]: project for project in ledger["projects"]}
        for key, item in ledger["objects"].items():
            project = projects[item["project"]]
            folder = self.folder_of(project["name"].rpartition(" [")[0])
            assert key.startswith(f"{project['prefix']}/")
            assert item["sha256"] in {version for versions in folder.versions.values() for version in versions}

    def nothing_is_touched(self):
        """The drop directory holds what people put there, and nothing of ours."""
        there = {path.relative_to(self.site.drops).as_posix() for path in self.site.drops.rglob("*") if path.is_file()}
        assert there == {f"{folder.name}/{image}" for folder in self.folders for image in folder.versions}

    def progress_is_kept(self):
        """No state is ever lost; the one step back is to `created`, for images that joined."""
        for row in self.site.status():
            before, now = self.states.get(row["id"], row["state"]), row["state"]
            back = now == "created" and before in ("uploaded", "registered")
            assert back or ORDER.index(now) >= ORDER.index(before), f"{row['folder']}: {before}, then {now}"
            self.states[row["id"]] = now

    # The end.

    def teardown(self):
        """Mend everything, do what people are asked to, and see everything arrive, unless the life failed before."""
        if self.site is None:
            return
        try:
            if sys.exception() is None:
                self.ends_well()
        except BaseException as error:
            error.add_note("\n".join(["", *self.story, self.site.report()]))
            raise
        finally:
            if (failed := sys.exception()) is not None:
                failed.add_note("\n".join(["", *self.story, self.site.report()]))
            self.site.__exit__()
            shutil.rmtree(self.directory)

    def ends_well(self):
        """Mend everything and see every folder arrive once."""
        site = self.site
        site.set_clock("+0")
        if not self.plugged:
            site.plug()
        if not site.process:
            site.start()
        until(site.journal, "there is a journal")
        site.pause_all(paused=False)
        for row in site.status():
            with suppress(people.Refusal):
                people.pause(self.journal, row["id"], paused=False)
        mended = time.monotonic() + MENDED_AFTER
        site.until(lambda: self.all_arrived(mended), "everything arrived", seconds=90, every=0.3)
        self.nothing_happens_twice()
        self.what_arrives_lay_there()
        self.nothing_is_touched()
        for folder in self.folders:
            self.arrived_once(folder)
        assert site.stop() in STOPPED

    def all_arrived(self, mended):
        """Do what is asked, and say whether everything has arrived; what still goes wrong ends at some moment."""
        if time.monotonic() > mended:
            self.site.cloud.faults.clear()
        for row in self.held():
            self.help(row)
        rows = [self.row(folder) for folder in self.folders]
        return all(row.get("state") == "delivered" and row["condition"] == "active" for row in rows)

    def arrived_once(self, folder):
        """Check a folder: all that was not skipped or late is registered once, in a version that lay there."""
        row = self.row(folder)
        (project,) = [found for found in self.site.cloud.ledger()["projects"] if found["id"] == row["remote_id"]]
        objects = self.site.cloud.ledger()["objects"]
        images = {os.fsdecode(image.path): image for image in self.images(row)}
        registered = {path for path, image in images.items() if image.status == "registered"}
        assert project["starts"] == 1
        assert {f"{project['prefix']}/{images[path].key}" for path in registered} == set(project["registered"])
        for path in registered:
            sent = objects[f"{project['prefix']}/{images[path].key}"]["sha256"]
            assert sent == images[path].sha256.hex()
            assert sent in folder.versions[path]
        assert folder.versions.keys() - folder.late - folder.skipped <= registered
        assert images.keys() == folder.versions.keys(), "an image was forgotten"


QUICK = settings(
    max_examples=2,  # the first is the simplest, which is not lived
    stateful_step_count=STEPS,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    phases=[Phase.generate],  # making a story of 20 s shorter takes hours; it is told in full
    suppress_health_check=list(HealthCheck),
)


def live(number, how=QUICK):
    """Live the life of that number and count its steps; some are short, since hypothesis leaves rules out of them."""
    counts = Counter()
    while counts["steps"] < STEPS / 2:
        life = type("ThisLife", (Life,), {"counts": counts, "_hypothesis_internal_use_seed": number})
        run_state_machine_as_test(life, settings=how)
        number += 1 << 32
    return counts


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", range(LIVES))
def test_lives(number, record_property):
    """Whatever happens in whatever order: nothing twice, nothing lost, and in the end everything arrives."""
    counts = live(number)
    record_property("count", f"state machine, life {number}: {counts['steps']} steps")


@pytest.mark.soak
def test_many_lives(record_property):
    """The same for as long as SOAK_MINUTES says, each time other lives."""
    end, counts = time.monotonic() + SOAK_MINUTES * 60, Counter()
    seed = time.time_ns() // 1000
    while time.monotonic() < end:
        seed += 1
        print(f"life {seed}", flush=True)
        counts += live(seed)
    text = f"state machine: {counts['lives']} lives, {counts['steps']} steps"
    print(text)
    record_property("count", text)
