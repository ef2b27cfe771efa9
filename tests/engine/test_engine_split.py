"""A folder with more images than a project is to have becomes several projects."""

import shutil

import pytest
from nursery import Child

from pix4d_watcher.core.model import FileId, FrozenImage
from pix4d_watcher.journal import database, folders, people, splits, views
from pix4d_watcher.journal.change import Stale

pytestmark = pytest.mark.check  # minutes in all: run by make check


def parts(site, name="flight"):
    """Give what `status --json` shows of the parts of a folder, in their order."""
    return sorted((row for row in site.status() if row["folder"] == name), key=lambda row: row["round"])


def images_in(site, row):
    """Give the paths of a part's images, and check that the cloud has just these, once each, and started once."""
    (project,) = [found for found in site.cloud.ledger()["projects"] if found["id"] == row["remote_id"]]
    images = [image for image in views.images_of(site.journal(), row["id"]) if image.status == "registered"]
    assert project["registered"] == {f"{project['prefix']}/{image.key}": 1 for image in images}
    assert project["starts"] == 1
    return {image.path.decode() for image in images}


def sent(site, name="flight"):
    """Check that every part is done, each image lies in just one of them, and nothing else is used in the cloud."""
    rows = parts(site, name)
    assert [row["state"] for row in rows] == ["delivered"] * len(rows)
    found = [images_in(site, row) for row in rows]
    assert sum(map(len, found)) == len(set().union(*found))
    assert len([project for project in site.cloud.ledger()["projects"] if project["used"]]) == len(rows)
    return found


def all_reach(site, state, name="flight"):
    """Wait until all parts of a folder are in a state."""
    site.until(lambda: {row["state"] for row in parts(site, name)} == {state}, f"all parts are {state}")


def test_split(site):
    """25 images with at most 10 each become three balanced projects in the order of the flight, each started once."""
    site.configure(split=10, results=True)
    site.drop(count=25)
    assert site.run() == 0
    assert [len(names) for names in sent(site)] == [8, 8, 9]
    assert sorted(sent(site)[0]) == [f"DJI_{n:04d}.JPG" for n in range(1, 9)]
    assert [(row["part"], row["parts"], row["round"]) for row in parts(site)] == [(1, 3, 1), (2, 3, 2), (3, 3, 3)]
    names = [project["name"].partition(" [")[0] for project in site.cloud.ledger()["projects"]]
    assert sorted(names) == ["flight (1 of 3)", "flight (2 of 3)", "flight (3 of 3)"]
    with (site.directory / "told").open("wb") as out:
        assert (
            Child(["explain", "flight#2", "--config", site.config], stdout=out, stderr=out, cwd=site.directory).wait()
            == 0
        )
    assert "part 2 of 3" in (site.directory / "told").read_text()
    for place in ("flight", "flight.round2", "flight.round3"):
        assert (site.results / "survey" / place / ".complete").exists()


@pytest.mark.parametrize(("count", "most", "sizes"), [(10, 10, [10]), (11, 10, [11]), (12, 6, [6, 6]), (13, 6, [6, 7])])
def test_no_part_is_too_small(site, count, most, sizes):
    """A folder is split only into parts of at least six images; where that is not possible, one is larger."""
    site.configure(split=most)
    site.drop(count=count)
    assert site.run() == 0
    assert [len(names) for names in sent(site)] == sizes


def test_duplicates_are_decided_before(site):
    """An image that is there twice is sent once, whichever parts its copies would have come to."""
    site.configure(split=10)
    folder = site.drop(count=24)
    shutil.copy(folder / "DJI_0002.JPG", folder / "DJI_0025.JPG")
    assert site.run() == 0
    assert [len(names) for names in sent(site)] == [8, 8, 8]
    assert sum(row["images"]["skipped"] for row in parts(site)) == 1


def test_a_hold_concerns_the_whole_folder(site):
    """What the checks find holds the folder as one; once it is approved the parts are not asked again."""
    site.configure(split=10)
    folder = site.drop(count=25)
    (folder / "DJI_0013.JPG").write_bytes(b"")
    site.start()
    site.held("bad_images")
    assert len(parts(site)) == 1
    site.ask("approve")
    site.until(lambda: len(parts(site)) == 3, "it is split")
    all_reach(site, "delivered")
    assert [len(names) for names in sent(site)] == [8, 8, 8]


def test_killed_between_all_steps(site):
    """Kills whenever a part took a step lose no image and send none twice."""
    site.configure(split=10, settle="10s")
    # Each of the states that must be seen lasts until it was.
    site.cloud.change(processing_seconds=600.0)
    site.fault("put", "delay", seconds=15.0, times=None)
    site.fault("*", "delay", seconds=1.0, times=None)
    site.drop(count=25)
    seen = set()
    while "started" not in (states := {state for _part, state in seen}):
        if "found" in states:
            site.configure(split=10)
        if "created" in states:
            site.cloud.faults.clear()
            site.fault("*", "delay", seconds=1.0, times=None)
        site.start()
        steps = site.until(lambda: {(row["part"], row["state"]) for row in parts(site)} - seen, "the next step")
        seen.update(steps)
        site.kill()
        assert len(parts(site)) in (1, 3)
        assert sum(row["images"]["total"] for row in parts(site)) in (0, 25)
    assert {"found", "created", "started"} <= {state for _part, state in seen}
    site.cloud.faults.clear()
    site.cloud.change(processing_seconds=0.0)
    assert site.run() == 0
    assert [len(names) for names in sent(site)] == [8, 8, 9]


def test_killed_in_the_split(tmp_path):
    """A split that does not come to its end leaves the folder whole, with every image."""
    journal = database.open_journal(tmp_path / "journal.db")
    (whole,) = folders.folders_found(journal, "survey", [folders.NewFolder(b"flight", 1, 2)])
    taken = [FrozenImage(b"%02d.JPG" % n, FileId(n, n, n, n), bytes([n]) * 32) for n in range(25)]
    folders.frozen(journal, whole, taken, fingerprint=b"f")
    keys = {image.path: image.path.decode() for image in taken}
    with pytest.raises(ZeroDivisionError):
        # The third part is never reached: what was written by then goes with the transaction.
        splits.split(journal, whole, starts=BreaksAt(2), skipped={}, keys=keys, fingerprint=b"f")
    (row,) = views.status(journal)
    assert (row["parts"], row["images"]["total"]) == (None, 25)
    made = splits.split(journal, whole, starts=[b"08.JPG", b"16.JPG"], skipped={}, keys=keys, fingerprint=b"f")
    assert [len(views.images_of(journal, one)) for one in (whole, *made)] == [8, 8, 9]
    with pytest.raises(Stale):
        splits.split(journal, whole, starts=[b"04.JPG"], skipped={}, keys=keys, fingerprint=b"f")
    journal.close()


class BreaksAt(list):
    """Paths where parts begin, of which reading one fails."""

    def __init__(self, number):
        super().__init__([b"08.JPG", b"16.JPG"])
        self.number = number

    def __iter__(self):
        for index, start in enumerate(super().__iter__(), start=1):
            yield start if index < self.number else 1 // 0


def test_renamed(site):
    """A folder that is renamed while its parts are sent takes all of them along."""
    site.configure(split=10)
    site.fault("put", "delay", seconds=8.0, times=None)
    site.drop(count=25)
    site.start()
    site.until(lambda: {row["state"] for row in parts(site)} == {"created"} and len(parts(site)) == 3, "all are sent")
    (site.drops / "flight").rename(site.drops / "valley")
    site.until(lambda: len(parts(site, "valley")) == 3, "all are renamed")
    site.cloud.faults.clear()
    all_reach(site, "delivered", "valley")
    assert [len(names) for names in sent(site, "valley")] == [8, 8, 9]
    assert [row["round"] for row in parts(site, "valley")] == [1, 2, 3]
    assert len(site.status()) == 3


def test_gone(site):
    """A folder that is taken away after all was sent is gone for every part; the same name again is a new folder."""
    site.configure(split=10)
    folder = site.drop(count=12)
    assert site.run() == 0
    folder.rename(site.directory / "away")
    site.drop(count=7, salt="tomorrow")
    assert site.run() == 0
    assert [(row["part"], row["present"]) for row in parts(site)] == [(1, False), (2, False), (None, True)]
    assert [len(images_in(site, row)) for row in parts(site)] == [6, 6, 7]


@pytest.mark.parametrize("moment", ["settled", "created", "registered"])
def test_late_images(site, moment):
    """Images that come before the start join the last part, once; the other parts go on as they are."""
    site.configure(split=10, start="manual")
    if moment == "settled":
        site.fault("create", "status", code=429, times=None)
    elif moment == "created":
        site.fault("put", "delay", seconds=8.0, times=None)
    site.drop(count=20)
    site.start()
    site.until(lambda: [row["state"] for row in parts(site)] == [moment] * 2, f"both are {moment}")
    site.fill(site.drops / "flight", 2, names="LATE_{n:04d}.JPG", salt="late")
    site.cloud.faults.clear()
    site.until(lambda: sum(row["images"]["registered"] for row in parts(site)) == 22, "all are registered")
    for row in parts(site):
        site.until(lambda row=row: parts(site)[row["part"] - 1]["hold"], "it waits for the start")
        people.start(site.journal(change=True), row["id"])
    all_reach(site, "delivered")
    assert [len(names) for names in sent(site)] == [10, 12]


def test_late_after_the_start(site):
    """Images that come after all parts were started hold the last part, and nothing else."""
    site.configure(split=10)
    site.drop(count=20)
    site.start()
    site.until(lambda: len(parts(site)) == 2, "it is split")
    all_reach(site, "delivered")
    site.bring(site.drops / "flight", 2, names="LATE_{n:04d}.JPG", salt="late")
    assert "2 images" in site.held("late_images")
    assert [row["condition"] for row in parts(site)] == ["active", "held"]
    sent_images = [len(images_in(site, row)) for row in parts(site)]
    assert sent_images == [10, 10]


def test_joined_and_split(site):
    """A mission of two cards is split as one flight, and follows the rename of a card in every part."""
    site.configure(split=10, join="{mission}_{part}", join_wait="10ms")
    site.fault("put", "delay", seconds=8.0, times=None)
    site.drop("harbour_1", 12)
    site.drop("harbour_2", 9)
    site.start()
    site.until(lambda: {row["state"] for row in parts(site, "harbour")} == {"created"}, "its parts are sent")
    (site.drops / "harbour_1").rename(site.drops / "harbour_7")
    site.until(lambda: all("harbour_7" in row["members"] for row in parts(site, "harbour")), "renamed in every part")
    site.cloud.faults.clear()
    all_reach(site, "delivered", "harbour")
    assert [len(names) for names in sent(site, "harbour")] == [7, 7, 7]


def test_the_same_folder_again(site):
    """A copy of a folder that was split is recognised as sent before, and the parts never accuse each other."""
    site.configure(split=10)
    folder = site.drop(count=12)
    assert site.run() == 0
    assert {row["hold"] and row["hold"]["code"] for row in parts(site)} == {None}
    shutil.copytree(folder, site.drops / "copy")
    assert site.run() == 0
    (copy,) = parts(site, "copy")
    assert copy["hold"]["code"] == "already_sent"
    assert [len(names) for names in sent(site)] == [6, 6]
