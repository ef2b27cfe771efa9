"""The power is cut again and again: what was acknowledged is there afterwards, nothing is torn, and it finishes."""

import hashlib
import json
import os
import random
import sqlite3
import time
from contextlib import closing
from fnmatch import fnmatch

import pytest
from disks import loop, strace
from harness import until

from pix4d_watcher.core.model import ImageStatus

IMAGES = 14
CUTS = 6
RANK = {status: rank for rank, status in enumerate(ImageStatus)}


@pytest.fixture
def disk(site, need):
    """A disk whose power can be cut, for the journal and the results."""
    need("mount", "mkfs.ext4", root=True)
    with loop(site.directory, site.directory / "state", size=256 << 20) as made:
        made.place.chmod(0o700)
        yield made
        site.kill()
        site.let_go()


def acknowledged(site):
    """Give what an outsider saw before the cut: the statuses of images, and the effects that are closed."""
    if not site.look():
        return {}, set()
    images = {image.path: image.status for image in site.images()}
    return images, {(effect.kind, effect.part) for effect in site.effects() if effect.status == "done"}


def asked_of_cloud(site):
    """List what the cloud was asked to do, with the number of the project."""
    found = set()
    for project in site.projects():
        found.add("create")
        found |= {"register"} if project["registered"] else set()
        found |= {"start"} if project["starts"] else set()
    return found


def cut(site, disk, moment, later=1):
    """Cut the power at a moment, bring it up again, and compare; gives whether it was in the middle of the flight.

    It comes `later` times as late where the service has not asked the cloud for enough by then.
    """
    site.start()
    requests = sum(site.cloud.ledger()["requests"].values())
    enough, latest = requests + moment.randint(1, 14), time.monotonic() + later * moment.uniform(0.6, 4)
    while time.monotonic() < latest and sum(site.cloud.ledger()["requests"].values()) < enough:
        time.sleep(0.005)
    time.sleep(moment.uniform(0, 0.05))
    seen, done = acknowledged(site) if site.journal() else ({}, set())
    middle = bool(seen) and site.look()["state"] != "delivered"
    disk.cut()
    site.kill()
    site.let_go()
    asked = asked_of_cloud(site)
    disk.revive()
    with closing(sqlite3.connect(disk.place / "journal.db")) as journal:
        assert journal.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    if not site.journal() or not site.look():
        assert not seen
        assert not asked
        return middle
    now, _ = acknowledged(site)
    assert {path for path, status in seen.items() if RANK[now[path]] < RANK[status]} == set()
    effects = site.effects()
    assert done <= {(effect.kind, effect.part) for effect in effects if effect.status == "done"}
    assert asked <= {effect.kind for effect in effects}
    whole_results(site)
    return middle


def whole_results(site, wanted="*"):
    """Check that what has its final name is whole, and that `.complete` comes last."""
    place = site.results / "survey" / "flight"
    held = {key.rpartition("/")[2]: facts["sha256"] for key, facts in site.cloud.ledger()["outputs"].items()}
    held = {name: digest for name, digest in held.items() if fnmatch(name, wanted)}
    found = {path.name for path in place.iterdir()} if place.exists() else set()
    for name in found & held.keys():
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == held[name]
    for name in found & {"pix4d-receipt.json", "report.json"}:
        assert json.loads((place / name).read_text())["project"]["id"] == site.used()["id"]
    if ".complete" in found:
        assert held.keys() | {"pix4d-receipt.json", "report.json"} <= found
        assert (place / ".complete").read_text().endswith(f"project {site.used()['id']}\n")
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_journal(site, disk, seed):
    """No acknowledged commit is lost in any of many cuts, the journal is sound, and the flight is done once."""
    site.configure(results=True, upload={"connections": 3})
    live(site, disk, random.Random(seed))


@pytest.mark.parametrize("seed", [3, 4])
def test_results(site, disk, seed):
    """Results, receipts and reports with their final names are whole after each cut, and at the end all are there."""
    site.results = disk.place / "results"
    site.cloud.change(output_bytes=400_000)
    site.configure(results=True, upload={"connections": 6})
    site.fault("get", "delay", seconds=0.05, times=None)
    live(site, disk, random.Random(seed), put=0.01)


def live(site, disk, moment, put=0.1):
    """Cut one life several times and let it end."""
    site.fault("put", "delay", seconds=put, times=None)
    site.drop(count=IMAGES)
    cuts = []
    while len(cuts) < CUTS or (not any(cuts) and len(cuts) < 2 * CUTS):
        # A machine that is so busy that it never came to the flight gets more time each time.
        cuts.append(cut(site, disk, moment, later=1 if any(cuts) else 1 + len(cuts)))
    assert any(cuts), "all cuts came before the flight or after it"
    assert site.run() == 0
    site.once(images=IMAGES)
    outputs = {key.rpartition("/")[2] for key in site.cloud.ledger()["outputs"]}
    assert whole_results(site) == outputs | {".complete", "pix4d-receipt.json", "report.json"}


def test_last_file_is_never_empty(site, disk, need, tmp_path):
    """A cut while `.complete` is written leaves none, never an empty one that would look like another's results."""
    need("strace")
    site.results = disk.place / "results"
    site.configure(results=True, outputs=["ortho"])
    site.start()
    site.until(site.vitals, "it runs")
    place = site.results / "survey" / "flight"
    names = [place / ".complete", place / ".complete.part"]
    stop = ["-e", "trace=fsync", "-e", "inject=fsync:error=EINTR:signal=SIGSTOP"]
    trace = tmp_path / "trace"
    with strace(site.process.pid, trace, *stop, *(word for name in names for word in ("-P", str(name)))):
        site.drop()
        site.until(lambda: "INJECTED" in trace.read_text(), "the last file is about to be flushed")
        assert any(name.exists() for name in names)
        # Another flush on the same disk brings the names along, and not what is in the files.
        with (disk.place / "other").open("w") as other:
            os.fsync(other.fileno())
        disk.cut()
        site.kill()
    site.let_go()
    disk.revive()
    assert not names[0].exists()
    assert site.run() == 0
    site.once()
    assert sorted(path.name for path in (site.results / "survey").iterdir()) == ["flight"]
    assert whole_results(site, "ortho*") == {"ortho.tif", ".complete", "pix4d-receipt.json", "report.json"}


def test_names_reach_the_disk(site, disk, need, tmp_path):
    """Each file that is renamed is flushed before and its directory after; so is each directory that is made."""
    need("strace")
    site.results = disk.place / "results"
    archive = disk.place / "archive"
    site.configure(results=True, outputs=["ortho"], after="archive", archive_to=str(archive), retention="1s")
    site.start()
    site.until(site.vitals, "it runs")
    until((disk.place / "journal.db.backup").exists, "the copy of the journal")
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,mkdir"
    with strace(site.process.pid, tmp_path / "trace", "-y", "-e", calls):
        site.drop()
        site.delivered()
        site.until(lambda: any("moved to" in text for _kind, text in site.events()), "the folder is archived")
    told = (tmp_path / "trace").read_text().splitlines()
    flushed = [(number, line) for number, line in enumerate(told) if "fsync(" in line or "fdatasync(" in line]
    checked = 0
    for number, line in enumerate(told):
        words = line.split('"')
        if " = 0" not in line or len(words) < 3 or str(disk.place) not in words[-2]:
            continue
        target = words[-2]
        after = [where for at, where in flushed if at > number]
        assert any(f"<{os.path.dirname(target)}>" in where for where in after), line  # noqa: PTH120
        if "rename" in line and str(disk.place) in words[1]:
            before = [where for at, where in flushed if at < number]
            assert any(f"<{words[1]}>" in where for where in before), line
        checked += 1
    assert checked >= 8
