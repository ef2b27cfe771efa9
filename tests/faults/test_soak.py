"""An hour of compressed life: hundreds of folders, thousands of faults, and nothing grows.

Run by `make soak`; SOAK_MINUTES says for how long. In the first two thirds one process lives through all of it, and is
measured from outside; in the last third it is also killed now and then.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest
from harness import until
from mischief import FAULTS, do_as_told
from nursery import WITH_THE_TESTS

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
SAMPLE_EVERY = 3.0
UNDER_WAY = 8
"""Folders that are not done at a time; more are dropped as they are done."""

KEPT = 20
"""Folders that are done and still lie there; people take older ones away."""

FAULTS_AHEAD = 30
"""Faults that are scripted and were not met yet."""

IMAGES = 6
BOUNDS = {"rss": 1.10, "threads": 1.05, "descriptors": 1.20, "watches": 1.25}
"""How much larger the median of the last quarter may be than that of the second."""

pytestmark = pytest.mark.soak


def measure(site):
    """Measure the process and its journal: bytes, and counts."""
    proc = Path(f"/proc/{site.process.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    descriptors = list((proc / "fdinfo").iterdir())
    watches = 0
    for descriptor in descriptors:
        with suppress(FileNotFoundError):  # closed meanwhile
            watches += descriptor.read_text().count("inotify wd:")
    return {
        "rss": int(status["VmRSS"].split()[0]) * 1024,
        "threads": int(status["Threads"]),
        "descriptors": len(descriptors),
        "watches": watches,
        "journal": sum(file.stat().st_size for file in (site.directory / "state").glob("journal.db*")),
    }


class Station:
    """What goes on around the service."""

    def __init__(self, site):
        self.site = site
        self.chance = random.Random(20261122)
        self.counts = Counter()
        self.dropped = []
        self.plug_in_at = None
        self.resume_at = None

    def live(self, seconds, each):
        """Go on for so long; `each` is called every SAMPLE_EVERY seconds."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self.something_happens(now)
            each()
            time.sleep(SAMPLE_EVERY)

    def something_happens(self, now):
        """Let people and the world do what they do in a few seconds."""
        rows = {row["folder"]: row for row in self.site.status() if row["condition"] != "dropped"}
        self.drop([row for row in rows.values() if row["state"] != "delivered"])
        self.tidy([row for row in rows.values() if row["state"] == "delivered" and row["present"]])
        self.break_things()
        self.people([row for row in rows.values() if row["condition"] == "held"], now)
        self.link(now)
        self.rename()

    def drop(self, under_way):
        """Drop further folders as others are done."""
        for _folder in range(UNDER_WAY - len(under_way)):
            name = f"flight{len(self.dropped):05d}"
            self.dropped.append(name)
            self.site.drop(name, IMAGES)
            self.counts["folders"] += 1

    def tidy(self, done):
        """Take away folders that were done long ago."""
        for row in sorted(done, key=lambda row: row["id"])[:-KEPT]:
            if (self.site.drops / row["folder"]).exists():  # it may just have got another name
                shutil.rmtree(self.site.drops / row["folder"])
                self.counts["taken away"] += 1

    def break_things(self):
        """Script faults for what is asked next."""
        waiting = [fault for fault in self.site.cloud.faults.listing() if fault["hits"] < fault["times"]]
        for _fault in range(FAULTS_AHEAD - len(waiting)):
            fault = {"times": self.chance.randint(1, 3), "skip": self.chance.randint(0, 3)}
            self.site.cloud.faults.add(fault | self.chance.choice(FAULTS))
            self.counts["faults"] += 1

    def people(self, held, now):
        """Do what holds ask for; pause everything for a while."""
        for row in held:
            do_as_told(self.site.journal(change=True), row)
            self.counts["holds"] += 1
        if self.resume_at and now > self.resume_at:
            self.site.pause_all(paused=False)
            self.resume_at = None
        elif not self.resume_at and self.chance.random() < 0.03:
            self.site.pause_all(paused=True)
            self.resume_at = now + 6
            self.counts["pauses"] += 1

    def link(self, now):
        """Lose the link for a while."""
        if self.plug_in_at and now > self.plug_in_at:
            self.site.plug()
            self.plug_in_at = None
        elif not self.plug_in_at and self.chance.random() < 0.05:
            self.site.unplug()
            self.plug_in_at = now + 10
            self.counts["links lost"] += 1

    def rename(self):
        """Give a folder another name."""
        folder = self.chance.choice(sorted(self.site.drops.iterdir()))
        if self.chance.random() < 0.3 and not folder.name.endswith("r"):
            folder.rename(f"{folder}r")
            self.counts["renames"] += 1

    def kill(self):
        """Kill the service and start it again, now and then."""
        if self.chance.random() < 0.15:
            self.site.restart()
            self.counts["kills"] += 1

    def ends(self):
        """Mend everything and see all folders done."""
        site = self.site
        site.cloud.faults.clear()
        if self.plug_in_at:
            site.plug()
        site.pause_all(paused=False)

        def all_done():
            rows = [row for row in site.status() if row["condition"] != "dropped"]
            for row in rows:
                if row["condition"] == "held":
                    do_as_told(site.journal(change=True), row)
            return all(row["state"] == "delivered" and row["condition"] == "active" for row in rows) and rows

        return site.until(all_done, "everything is done", 300, every=1.0)


def fresh(site):
    """Start the service as people do: not forked, so that its memory is its own."""
    command = [*WITH_THE_TESTS, sys.executable, "-m", "pix4d_watcher", "run", "--config", str(site.config)]
    with site.log.open("ab") as log:
        site.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=site.directory)
    until(site.vitals, "it runs")


def growth(samples):
    """Compare the medians of the second and the last quarter."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[3 * quarter :]
    return {
        name: (median(sample[name] for sample in second), median(sample[name] for sample in last))
        for name in samples[0]
    }


@pytest.mark.timeout(0)
def test_soak(site, record_property):
    """After hundreds of folders and thousands of faults nothing has grown, and every folder was done once."""
    site.configure(
        settle="300ms", poll="500ms", results=True, advanced={"request_timeout": "1s", "scan_interval": "5s"}
    )
    site.cloud.change(output_bytes=300, processing_seconds=0.5)
    station, samples = Station(site), []
    fresh(site)
    first = site.process.pid
    station.live(MINUTES * 40, lambda: samples.append(measure(site)))
    assert site.process.pid == first
    assert site.process.poll() is None
    grown = growth(samples)
    table = [
        f"{name:12} {before:>12,.0f} {after:>12,.0f} {after / before:6.2f}" for name, (before, after) in grown.items()
    ]
    print("", f"{'median of':12} {'2nd quarter':>12} {'last quarter':>12} {'ratio':>6}", *table, sep="\n")
    station.live(MINUTES * 20, station.kill)
    rows = station.ends()
    ledger = site.cloud.ledger()
    told = {**station.counts, "requests": sum(ledger["requests"].values()), "samples": len(samples)}
    text = ", ".join(f"{count} {what}" for what, count in told.items())
    print(text)
    record_property("count", f"soak: {text}")
    assert_once(site, station, rows, ledger)
    for name, most in BOUNDS.items():
        before, after = grown[name]
        assert after <= before * most + 2, f"{name} grew"


def assert_once(site, station, rows, ledger):
    """Check that each folder has one used project, which was started once."""
    used = Counter(project["name"].partition(" [")[0].rstrip("r") for project in ledger["projects"] if project["used"])
    assert used == dict.fromkeys(station.dropped, 1)
    by_id = {project["id"]: project for project in ledger["projects"]}
    assert len(rows) == len(station.dropped)
    for row in rows:
        project = by_id[row["remote_id"]]
        assert project["starts"] == 1
        assert len(project["registered"]) == IMAGES
