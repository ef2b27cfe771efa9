"""What happens to the files while they are sent."""

import hashlib
import os
import shutil
import subprocess
import sys
import time

import pytest
from nursery import WITH_THE_TESTS
from sqlalchemy import update

from pix4d_watcher.emulator.flights import make_tiny_images
from pix4d_watcher.journal import tables

pytestmark = pytest.mark.check  # minutes in all: run by make check


def sent(site):
    """Map the name of each object to the hash of its content."""
    return {key.rpartition("/")[2]: facts["sha256"] for key, facts in site.cloud.ledger()["objects"].items()}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def upload_slowly(site):
    """Start a service that sends one image after the other, and wait until the first one is on its way.

    There it stays for long, so that whatever a story does next happens while it is sent.
    """
    site.configure(upload={"connections": 1})
    site.fault("put", "delay", seconds=8.0)
    site.fault("put", "delay", seconds=1.0, times=None)
    folder = site.drop()
    site.start()
    site.until(lambda: site.requests("put"), "the first image is on its way")
    return folder


def other_content(site, image):
    """Rewrite an image in place with a sound one of another content."""
    (made,) = make_tiny_images(site.directory / "other", 1, names=image.name, seed=4711)
    image.write_bytes(made.read_bytes())


@pytest.mark.parametrize("name", ["DJI_0001.JPG", "DJI_0004.JPG"], ids=["while it is sent", "before it is sent"])
def test_image_rewritten(site, name):
    """An image that changed after its check is never sent as if it were checked; `retry` accepts the new one."""
    folder = upload_slowly(site)
    image = folder / name
    before = sha256(image)
    other_content(site, image)
    assert name in site.held("source_changed")
    assert sent(site).get(name, before) == before
    site.cloud.faults.clear()
    site.ask("retry")
    site.delivered()
    site.once(held=True)
    # What was once sent under the old key may still land there, so the new content has a key of its own.
    key = "DJI_0001_2.JPG" if name == "DJI_0001.JPG" else name
    assert sent(site)[key] == sha256(image) != before
    registered = {path.rpartition("/")[2] for path in site.used()["registered"]}
    assert key in registered
    assert (name in registered) == (key == name)


def test_image_cut_short(site):
    """An image that was truncated meanwhile holds the project; with the original back it goes on."""
    folder = upload_slowly(site)
    image = folder / "DJI_0005.JPG"
    whole = image.read_bytes()
    image.write_bytes(whole[:300])
    assert "DJI_0005.JPG" in site.held("source_changed")
    site.cloud.faults.clear()
    site.ask("retry")
    assert "damaged" in site.held("source_changed")
    image.write_bytes(whole)
    site.ask("retry")
    site.delivered()
    site.once(held=True)


def test_image_removed(site):
    """A missing image holds the project after some looks; put back, `retry` goes on."""
    folder = upload_slowly(site)
    image = folder / "DJI_0006.JPG"
    image.rename(site.directory / "aside.JPG")
    site.cloud.faults.clear()
    assert "DJI_0006.JPG" in site.held("source_missing")
    assert site.requests("register") == 0
    (site.directory / "aside.JPG").rename(image)
    site.ask("retry")
    site.delivered()
    site.once(held=True)


def test_image_unreadable(site):
    """An image that stays unreadable holds the project once, however often it is looked at; then it goes on."""
    site.privileged = False
    folder = upload_slowly(site)
    image = folder / "DJI_0006.JPG"
    image.chmod(0)
    site.held("source_unreadable")
    for _look in range(2):
        # The next look is due now, and its outcome is awaited.
        with site.journal(change=True).write() as connection:
            connection.execute(update(tables.projects).values(due_at=None))
        site.until(lambda: site.look()["due_at"] or not site.look()["hold"], "it is looked at again")
        time.sleep(1)
    site.held("source_unreadable")
    assert [kind for kind, _text in site.events()].count("held") == 1
    image.chmod(0o644)
    with site.journal(change=True).write() as connection:
        connection.execute(update(tables.projects).values(due_at=None))
    site.delivered()
    site.once(held=True)


def test_image_missing_for_a_moment(site):
    """An image that was in trouble before is looked for as long as any other before a person is asked."""
    folder = upload_slowly(site)
    image = folder / "DJI_0006.JPG"
    image.rename(site.directory / "aside.JPG")
    with site.journal(change=True).write() as connection:
        connection.execute(update(tables.images).where(tables.images.c.path == image.name.encode()).values(tries=5))
    site.cloud.faults.clear()
    site.until(lambda: site.images()[5].error, "it is missed")
    (site.directory / "aside.JPG").rename(image)
    site.delivered()
    site.once()


def test_missing_images_of_a_renamed_folder(site):
    """A folder that is held for missing images goes on by itself where it is seen under another name."""
    folder = upload_slowly(site)
    image = folder / "DJI_0006.JPG"
    image.rename(site.directory / "aside.JPG")
    site.cloud.faults.clear()
    site.held("source_missing")
    (site.directory / "aside.JPG").rename(image)
    folder.rename(site.drops / "renamed")
    site.delivered("renamed")
    assert site.look("renamed")["images"]["registered"] == 6


def test_folder_removed(site):
    """A folder that is deleted while it is sent is held, and nothing is started without its images."""
    folder = upload_slowly(site)
    shutil.rmtree(folder)
    site.held("source_missing")
    assert site.requests("start") == 0


def test_folder_renamed(site):
    """A folder that is renamed while it is sent stays the same project."""
    folder = upload_slowly(site)
    folder.rename(site.drops / "renamed")
    site.cloud.faults.clear()
    site.delivered("renamed")
    (row,) = site.status()
    assert row["images"]["registered"] == 6
    assert site.used()["starts"] == 1
    assert not [text for kind, text in site.events("renamed") if kind == "held"]


def test_folder_renamed_while_the_service_is_down(site):
    """A folder that gets another name between two runs, in mid-upload, stays one project."""
    site.configure(upload={"connections": 2})
    site.fault("put", "delay", seconds=0.3, times=None)
    folder = site.drop(count=12)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 2, "some images are uploaded")
    site.kill()
    folder.rename(site.drops / "harbour")
    site.cloud.faults.clear()
    site.start()
    site.delivered("harbour")
    assert len(site.status()) == 1
    assert len(site.cloud.ledger()["projects"]) == 1
    assert not [text for kind, text in site.events("harbour") if kind == "held"]


def test_another_folder_with_the_number_of_one_that_is_gone(site):
    """Between two runs a folder is deleted, and a new one gets its place on the disk: it is another project."""
    site.configure(start="manual")
    folder = site.drop()
    site.start()
    site.held("manual_start")
    site.kill()
    number = folder.stat().st_ino
    new = site.prepare("harbour", salt="another")
    with site.journal(change=True).write() as connection:
        # As if the filesystem had given the number of the one to the other.
        connection.execute(update(tables.projects).values(inode=new.stat().st_ino))
    assert number != new.stat().st_ino
    shutil.rmtree(folder)
    new.rename(site.drops / "harbour")
    site.start()
    site.held("manual_start", "harbour")
    assert {row["folder"] for row in site.status()} == {"flight", "harbour"}


def test_file_attributes_changed(site):
    """Permissions, times and copies of the same content are no change."""
    folder = upload_slowly(site)
    for image in sorted(folder.iterdir()):
        image.chmod(0o640)
        os.utime(image)
    copy = folder / "DJI_0005.JPG"
    shutil.copy(copy, site.directory / "copy.JPG")
    (site.directory / "copy.JPG").replace(copy)
    site.cloud.faults.clear()
    site.delivered()
    site.once()


def test_an_old_folder_that_cannot_be_read(site):
    """A folder that was given up and cannot be read any more keeps no other folder of its drop directory waiting."""
    site.privileged = False
    site.configure(start="manual")
    folder = site.drop()
    site.start()
    site.held("manual_start")
    site.ask("drop")
    assert site.stop() == 0
    for image in folder.iterdir():
        os.utime(image, (1, 1))
        image.chmod(0)
    site.drop("other")
    site.start()
    site.held("manual_start", "other")
    assert [row["condition"] for row in site.status()] == ["dropped", "held"]


@pytest.mark.check  # half a minute: so long is waited before it is looked at again
def test_unreadable_image(site):
    """An image without permission to read holds the project, which goes on by itself when it is given."""
    site.configure(upload={"connections": 1})
    site.fault("put", "delay", seconds=2.0, times=None)
    folder = site.drop()
    # Even root reads only what it may without these capabilities.
    drop = "-dac_override,-dac_read_search"
    command = ["setpriv", "--inh-caps", drop, "--bounding-set", drop] if os.geteuid() == 0 else []
    command += [*WITH_THE_TESTS, sys.executable, "-m", "pix4d_watcher", "run", "--config", site.config]
    with site.log.open("ab") as log:
        site.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=site.directory)
    site.until(lambda: site.requests("put"), "the first image is on its way")
    image = folder / "DJI_0006.JPG"
    image.chmod(0)
    site.cloud.faults.clear()
    assert "permission" in site.held("source_unreadable")
    image.chmod(0o644)
    site.delivered(seconds=60)
    site.once(held=True)


def test_drop_directory_away_and_back(site):
    """A drop directory that goes away while its images are sent is waited for; nothing counts as deleted."""
    upload_slowly(site)
    site.drops.rename(site.directory / "away")
    site.until(lambda: not site.root().present, "the drop directory is seen to be away")
    site.held("media_absent")
    time.sleep(1)
    (site.directory / "away").rename(site.drops)
    site.cloud.faults.clear()
    site.delivered()
    site.once(held=True)
    assert {image.tries for image in site.images()} == {0}


def test_empty_mount_point(site):
    """An empty directory in the place of the drop directory is a medium that is away, and no folder is gone."""
    upload_slowly(site)
    site.drops.rename(site.directory / "away")
    site.drops.mkdir()
    site.until(lambda: not site.root().present, "the drop directory is seen to be away")
    site.held("media_absent")
    assert site.look()["present"]
    site.drops.rmdir()
    (site.directory / "away").rename(site.drops)
    site.cloud.faults.clear()
    site.delivered()
    site.once(held=True)
