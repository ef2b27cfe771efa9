"""A journal restored from a backup: what happened since is learnt from the cloud before anything is sent."""

import json

import pytest
from harness import PATIENCE
from nursery import Child

from pix4d_watcher.journal import restored

pytestmark = pytest.mark.check  # minutes in all: run by make check


class Keeper:
    """Backs up and restores as people do, by the commands."""

    def __init__(self, site):
        self.site = site
        self.file = site.directory / "kept.db"

    def _run(self, *arguments):
        for journal in self.site._journals.values():
            journal.close()
        self.site._journals.clear()
        with (self.site.directory / "commands").open("ab") as log:
            command = Child([*arguments, "--config", self.site.config], stdout=log, stderr=log, cwd=self.site.directory)
            return command.wait(PATIENCE)

    def backup(self):
        """Keep the journal as it is now."""
        assert self._run("backup", self.file) == 0

    def restore(self):
        """Put the kept one in its place."""
        assert self._run("restore", self.file) == 0


@pytest.fixture
def keeper(site):
    """Commands for the site."""
    return Keeper(site)


LATE = 8.0
"""Seconds by which answers come late, so that a state lasts for as long."""


def back_up_what_is_found(site, keeper, **root):
    """Back up the journal when a folder is found; then the service goes on with a folder that settles."""
    site.configure(settle="1h", **root)
    site.start()
    site.reach("found")
    keeper.backup()
    site.kill()
    site.configure(**root)


def untouched(site, **counts):
    """Check that since a restore nothing was asked that must not happen twice."""
    assert {op: site.requests(op) for op in counts} == counts


@pytest.mark.parametrize("state", ["found", "settled", "created", "uploaded", "registered", "started"])
def test_backup_in_the_middle_of_a_life(site, keeper, state):
    """A backup of any moment, restored after the delivery, leads to the delivery again, and nothing happens twice."""
    slow = {"found": None, "settled": "create", "created": "put", "uploaded": "register", "registered": "start"}
    site.configure(results=True)
    site.cloud.change(processing_seconds=600.0)
    if slow.get(state):
        site.fault(slow[state], "delay", seconds=LATE, times=None)
    site.drop(count=8)
    if state == "found":
        back_up_what_is_found(site, keeper, results=True)
        site.start()
    else:
        site.start()
        site.reach(state)
        keeper.backup()
    site.cloud.faults.clear()
    site.cloud.change(processing_seconds=0.5)
    site.delivered()
    assert site.stop() == 0
    counts = {op: site.requests(op) for op in ("create", "register", "start")}
    keeper.restore()
    assert site.run() == 0
    site.delivered()
    site.once(images=8)
    untouched(site, **counts)
    assert len(site.projects()) == 1


def test_killed_while_it_is_compared(site, keeper):
    """Kills in the middle of the comparison change nothing of what it comes to."""
    site.fault("register", "delay", seconds=LATE, times=None)
    site.drop(count=8)
    site.start()
    site.reach("uploaded")
    keeper.backup()
    site.cloud.faults.clear()
    site.delivered()
    site.kill()
    keeper.restore()
    site.fault("project", "delay", seconds=10.0, times=None)
    for _life in range(3):
        site.start()
        seen = site.requests("project")
        site.until(lambda seen=seen: site.requests("project") > seen, "it asks")
        site.kill()
    site.cloud.faults.clear()
    assert site.run() == 0
    site.once(images=8)


def test_some_images_were_registered(site, keeper):
    """Batches that were registered after the backup are not registered again, the others are."""
    site.configure(advanced={"register_batch": 3})
    site.fault("register", "delay", seconds=LATE)
    site.fault("register", "delay", seconds=1.0)
    site.fault("register", "delay", seconds=60, times=None)
    site.drop(count=10)
    site.start()
    site.reach("uploaded")
    keeper.backup()
    site.until(lambda: site.look()["images"]["registered"] == 6, "two batches are registered")
    site.kill()
    site.cloud.faults.clear()
    count = site.used()["image_count"]
    assert count in (6, 9)
    keeper.restore()
    assert site.run() == 0
    site.delivered()
    site.once(images=10)


@pytest.mark.parametrize("head", ["on", "off"])
def test_images_that_came_after_the_start(site, keeper, head):
    """What was never sent is not taken for registered after a restore: it is held as late, and no receipt names it."""
    site.cloud.change(head=head)
    # Where the cloud says what lies there, the late ones may come first in the order of the paths.
    late = "AAA_{n}.JPG" if head == "on" else "ZZZ_{n}.JPG"
    folder = site.drop(count=8)
    back_up_what_is_found(site, keeper, results=True)
    site.start()
    site.delivered()
    assert site.stop() == 0
    site.fill(folder, 7, names=late, salt="late")
    keeper.restore()
    site.start()
    text = site.held("late_images")
    assert "7 images" in text
    assert late.format(n=1) in text
    site.ask("approve")
    site.delivered()
    site.once(images=8, held=True)
    receipt = json.loads((site.results / "survey/flight/pix4d-receipt.json").read_text())
    assert {image["key"] for image in receipt["images"]} == set(site.used()["registered"])
    untouched(site, create=1, register=1, start=1)


def test_nothing_can_be_looked_up(site, keeper):
    """Where the list of projects is closed a creation that may have happened is never repeated without a person."""
    site.cloud.change(project_list="off")
    site.fault("create", "delay", seconds=LATE)
    site.drop()
    site.start()
    site.reach("settled")
    keeper.backup()
    site.delivered()
    site.stop()
    keeper.restore()
    assert site.run() == 0
    assert "create" in site.held("in_doubt")
    untouched(site, create=1)
    site.cloud.change(project_list="on")
    site.ask("retry")
    assert site.run() == 0
    site.once(held=True)
    untouched(site, create=1, register=1, start=1)


def test_a_person_decides(site, keeper):
    """`retry --not-done` has a project created that was held in doubt after a restore."""
    site.cloud.change(project_list="off")
    site.drop()
    back_up_what_is_found(site, keeper)
    keeper.restore()
    assert site.run() == 0
    site.held("in_doubt")
    site.ask("retry", verdict=False)
    assert site.run() == 0
    site.once(held=True)


def test_folders_that_the_backup_does_not_know(site, keeper):
    """A folder that is not in the backup may have been sent: it is held before it is created; later drops are not."""
    site.drop("first")
    site.start()
    site.delivered("first")
    keeper.backup()
    site.cloud.change(processing_seconds=60.0)
    site.drop()
    site.reach("started")
    site.stop()
    keeper.restore()
    site.start()
    assert "restored from a backup" in site.held("approval")
    untouched(site, create=2, start=2)
    site.cloud.change(processing_seconds=0.2)
    site.drop("later")
    site.delivered("later")
    site.ask("approve")
    site.delivered()
    assert len(site.projects()) == 2


def test_dear_folders_that_the_backup_does_not_know(site, keeper):
    """Who approves the cost of a folder is told in the same words that it may have been sent since the backup."""
    site.configure(approve_above=0.0)
    site.start()
    site.until(lambda: site.journal() and site.root(), "it looked once")
    assert site.stop() == 0
    keeper.backup()
    site.drop()
    assert site.run() == 0
    assert "restored" not in site.held("approval")
    site.ask("approve")
    assert site.run() == 0
    keeper.restore()
    assert site.run() == 0
    text = site.held("approval")
    assert "restored from a backup" in text
    assert "credits" in text
    untouched(site, create=1, start=1)
    site.ask("drop")
    site.ask("retry")
    assert site.run() == 0
    assert "restored from a backup" in site.held("approval")
    untouched(site, create=1, start=1)


def test_started_in_a_way_that_cannot_be_seen(site, keeper):
    """A project that has more images in the cloud than the journal knows is held before it is started."""
    site.configure(start="manual")
    folder = site.drop()
    site.start()
    site.held("manual_start")
    keeper.backup()
    site.fill(folder, 2, names="more_{n}.JPG", salt="more")
    site.until(lambda: site.look()["images"]["registered"] == 8, "two more images joined")
    site.kill()
    keeper.restore()
    site.drops.rename(site.directory / "unplugged")
    site.drops.mkdir()
    site.start()
    assert "the cloud counts 8 images, the restored journal knows 6" in site.held("inputs_differ")
    untouched(site, start=0)


def test_the_comparison_waits_for_the_link(site, keeper):
    """Nothing is sent while the cloud cannot be asked, and all goes on when it can."""
    site.fault("put", "delay", seconds=LATE, times=None)
    site.drop(count=8)
    site.start()
    site.reach("created")
    keeper.backup()
    site.cloud.faults.clear()
    site.delivered()
    site.stop()
    sent = site.requests("put")
    keeper.restore()
    site.unplug()
    site.start()
    site.until(lambda: site.vitals().get("pause"), "the link is down")
    assert not restored.facts(site.journal()).compared
    site.plug()
    site.delivered()
    site.once(images=8)
    assert site.requests("put") == sent
