"""Hundreds of folders at once, beside an archive of years."""

import os

import pytest
from measure import descriptors, memory, processor, threads, timed
from sqlalchemy import event

from pix4d_watcher.core.model import EffectKind, Learnt, State
from pix4d_watcher.emulator import flights
from pix4d_watcher.host import mounts
from pix4d_watcher.intake.freeze import freeze_image
from pix4d_watcher.intake.scan import Rules, scan_folder
from pix4d_watcher.journal import effects, folders, projects, uploads, views

pytestmark = pytest.mark.check  # minutes in all: run by make check

OLD, NEW, IMAGES = 2000, 300, 6
SPARE = 24
"""Threads or descriptors more than at rest before: the journal's readers come as they are needed, up to twenty."""


def keep_archive(station, count):
    """Put delivered folders into the drop directory and into the journal, by the verbs that the service uses."""
    with station.journal(change=True) as journal:
        event.listen(journal._writer, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        journal._writer.dispose()
        root, medium = station.drops.stat(), mounts.medium(bytes(station.drops))
        facts = {"device": medium, "inode": root.st_ino, "loose": 0, "watching": "inotify"}
        folders.root_seen(journal, "survey", bytes(station.drops), **facts)
        for number in range(count):
            folder = station.drops / f"old{number:05d}"
            flights.make_tiny_images(folder, IMAGES, seed=number)
            deliver(journal, folder, number)


def deliver(journal, folder, number):
    """Take one folder through its life in the journal alone."""
    seen = folder.stat()
    new = folders.NewFolder(os.fsencode(folder.name), mounts.medium(bytes(folder)), seen.st_ino)
    (project,) = folders.folders_found(journal, "survey", [new])
    tree = scan_folder(bytes(folder), Rules())
    images = [freeze_image(bytes(folder), image.path, blocks_above=1 << 25) for image in tree.images]
    folders.frozen(journal, project, images, fingerprint=tree.signature(with_inodes=True))
    keys = {image.path: os.fsdecode(image.path) for image in images}
    projects.checked(journal, project, {}, skipped={}, keys=keys, hold=None)
    create = effects.intent(journal, project, EffectKind.CREATE, State.SETTLED, request={})
    facts = {"name": folder.name, "bucket": "bucket", "prefix": "prefix", "page": "http://cloud/1"}
    effects.created(journal, create, Learnt.REPLY, remote_id=number + 1, **facts)
    for image in views.images_of(journal, project):
        uploads.uploaded(journal, image, "etag")
    projects.advance(journal, project, State.CREATED, State.UPLOADED, "")
    batch = effects.intent_of_batch(journal, project, request={"count_before": 0}, most=None)
    effects.registered(journal, batch, Learnt.REPLY, {})
    projects.advance(journal, project, State.UPLOADED, State.REGISTERED, "")
    effects.started(
        journal, effects.intent(journal, project, EffectKind.START, State.REGISTERED, request={}), Learnt.REPLY
    )
    projects.advance(journal, project, State.STARTED, State.PROCESSED, "")
    projects.advance(journal, project, State.PROCESSED, State.DELIVERED, "")


@pytest.mark.timeout(1200)
def test_many_folders_beside_an_archive(station, run_cli):
    """Hundreds of folders dropped at once are all delivered once; the archive stays as it is, and nothing piles up."""
    with timed(f"archive of {OLD} folders"):
        keep_archive(station, OLD)
    station.configure(existing="process", advanced={"scan_interval": "5m"})
    prepared = station.directory / "prepared"
    for number in range(NEW):
        flights.make_tiny_images(prepared / f"new{number:04d}", IMAGES, seed=10_000 + number)
    station.start(real=True)
    pid = station.process.pid
    # A first folder, so that what is only made when it is needed is there.
    (prepared / "new0000").rename(station.drops / "new0000")
    station.until(lambda: station.look("new0000").get("state") == State.DELIVERED, "the first is delivered")
    rested = threads(pid), descriptors(pid), memory(pid)[0], processor(pid)
    for number in range(1, NEW):
        (prepared / f"new{number:04d}").rename(station.drops / f"new{number:04d}")
    with timed(f"{NEW} folders"):
        station.until(lambda: delivered(station) == OLD + NEW, "all are delivered", seconds=900, every=2.0)
    for options in ([], ["--json"]):
        with timed(f"status {' '.join(options)}"):
            assert run_cli("status", *options, "--config", station.config).returncode == 0
    print(f"processor time for each folder: {(processor(pid) - rested[3]) / NEW:.3f} s")
    print(f"threads, descriptors, MiB before: {rested[:3]}, after: {threads(pid), descriptors(pid), memory(pid)[0]}")
    station.until(lambda: threads(pid) <= rested[0] + SPARE, "the threads of the folders that settled have ended")
    station.until(lambda: descriptors(pid) <= rested[1] + SPARE, "their descriptors are closed")
    station.ask_to_stop()
    assert station.ended() == 0
    ledger = station.cloud.ledger()
    assert len(ledger["projects"]) == NEW
    for project in ledger["projects"]:
        assert project["starts"] == 1
        assert list(project["registered"].values()) == [1] * IMAGES
    assert {found["puts"] for found in ledger["objects"].values()} == {1}
    assert len(station.status()) == OLD + NEW


def delivered(station):
    """Count the folders that are done."""
    with station.journal() as journal:
        return sum(row["state"] == State.DELIVERED for row in views.status(journal))
