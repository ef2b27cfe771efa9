"""Single images that a person takes out: before the check, and as the way out where they are missing or changed."""

import shutil

import pytest

from pix4d_watcher.emulator import flights
from pix4d_watcher.journal import skips, views
from pix4d_watcher.journal.people import Refusal

SLOW = {"op": "put", "do": "delay", "seconds": 0.5, "times": None}


def skip(site, *names):
    """Do what `skip` does, and give what it says."""
    return skips.skip(site.journal(change=True), site.id_of(), names)


def uploading(site, count=8):
    """Drop a folder whose images are sent slowly, one after the other; wait until some are sent."""
    site.configure(upload={"connections": 1})
    site.cloud.faults.add(dict(SLOW))
    folder = site.drop(count=count)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 1, "an image is uploaded")
    return folder


def test_changed_image_is_skipped(site):
    """A project that is held for a changed image goes on without it, even while the service is down."""
    folder = uploading(site)
    (folder / "DJI_0008.JPG").write_bytes(flights.make_image(99, size=(64, 48)))
    site.held("source_changed")
    site.kill()
    assert skip(site, "DJI_0008.JPG") == "goes on without DJI_0008.JPG"
    site.cloud.faults.clear()
    site.start()
    site.delivered()
    site.once(images=7, held=True)
    assert [image.reason for image in site.images() if image.status == "skipped"] == ["removed by a person"]
    assert "DJI_0008.JPG" in next(text for kind, text in site.events() if kind == "skipped")


def test_one_retry_accepts_all_that_changed(site):
    """A hold names all images that changed, and one `retry` has all of them accepted."""
    folder = uploading(site, 9)
    for number in (9, 8, 7, 6):
        (folder / f"DJI_{number:04d}.JPG").write_bytes(flights.make_image(90 + number, size=(64, 48)))
    text = site.held("source_changed")
    assert "4 images: DJI_0006.JPG, DJI_0007.JPG, DJI_0008.JPG and 1 more" in text
    assert "accept the new ones: pix4d-watcher retry survey/flight" in text
    assert text.endswith("pix4d-watcher skip survey/flight DJI_0006.JPG DJI_0007.JPG DJI_0008.JPG …")
    site.cloud.faults.clear()
    site.ask("retry")
    site.delivered()
    site.once(images=9, held=True)
    assert [kind for kind, _text in site.events()].count("held") == 1


def test_a_damaged_new_image_cannot_be_accepted(site):
    """What `retry` cannot accept is not offered again: the original goes back, or the image is taken out."""
    folder = uploading(site)
    (folder / "DJI_0008.JPG").write_bytes((folder / "DJI_0008.JPG").read_bytes()[:300])
    site.held("source_changed")
    site.ask("retry")
    text = site.held("source_changed")
    assert "is now damaged (truncated)" in text
    assert "accept" not in text
    assert "pix4d-watcher skip survey/flight DJI_0008.JPG" in text
    site.cloud.faults.clear()
    skip(site, "DJI_0008.JPG")
    site.delivered()
    site.once(images=7, held=True)


def test_missing_images_are_skipped(site):
    """A project that is held for missing images goes on when the last of them is taken out."""
    folder = uploading(site)
    (folder / "DJI_0007.JPG").unlink()
    (folder / "DJI_0008.JPG").unlink()
    site.held("source_missing")
    failing = [image.path for image in site.images() if image.status == "pending" and image.error and image.tries]
    assert failing == [b"DJI_0007.JPG", b"DJI_0008.JPG"]
    text = site.held("source_missing")
    assert text.startswith("2 images: DJI_0007.JPG, DJI_0008.JPG. ")
    assert text.endswith("pix4d-watcher skip survey/flight DJI_0007.JPG DJI_0008.JPG")
    assert "still held for DJI_0008.JPG" in skip(site, "DJI_0007.JPG")
    assert "DJI_0007.JPG" not in site.held("source_missing")
    site.cloud.faults.clear()
    assert skip(site, "DJI_0008.JPG") == "goes on without DJI_0008.JPG"
    site.delivered()
    site.once(images=6, held=True)


def test_what_was_sent_cannot_be_taken_back(site):
    """An image that was uploaded stays; one that waits is not sent any more, and its key is not given again."""
    uploading(site)
    with pytest.raises(Refusal, match=r"DJI_0001.JPG was sent already and cannot be taken back"):
        skip(site, "DJI_0008.JPG", "DJI_0001.JPG")
    assert site.look()["images"]["skipped"] == 0
    skip(site, "DJI_0007.JPG", "DJI_0008.JPG")
    site.cloud.faults.clear()
    site.delivered()
    site.once(images=6)
    with pytest.raises(Refusal, match="cannot be taken back"):
        skip(site, "DJI_0001.JPG")


def test_skip_before_the_check(site):
    """A damaged image that is taken out lifts the hold, stays out when the folder changes, and the rest is sent."""
    folder = site.prepare(count=8)
    flights.make_empty_image(folder / "DJI_0003.JPG")
    for name in ("DJI_0004.JPG", "DJI_0005.JPG"):
        flights.make_image_without_geotag(folder / name, 3 if name == "DJI_0004.JPG" else 4, size=(64, 48))
    folder = folder.rename(site.drops / "flight")
    site.start()
    site.held("bad_images")
    skip(site, "DJI_0003.JPG")
    text = site.held("not_geotagged")
    assert "2 of 7" in text
    # Another image of the folder is corrected: the folder is frozen anew, the mark stays.
    for index, name in enumerate(("DJI_0004.JPG", "DJI_0005.JPG")):
        (folder / name).write_bytes(flights.make_image(50 + index, size=(64, 48), seed=3))
    site.delivered()
    site.once(images=7, held=True)
    assert [image.path for image in site.images() if image.status == "skipped"] == [b"DJI_0003.JPG"]


def test_new_content_is_a_new_image(site):
    """An image that was taken out and then replaced by a sound one is sent: nothing is forgotten."""
    folder = site.prepare()
    flights.make_empty_image(folder / "DJI_0003.JPG")
    folder = folder.rename(site.drops / "flight")
    site.start()
    site.held("bad_images")
    skip(site, "DJI_0003.JPG")
    site.held("too_few_images")
    (folder / "DJI_0003.JPG").write_bytes(flights.make_image(50, size=(64, 48), seed=3))
    site.delivered()
    site.once(images=6, held=True)


def test_a_whole_card_after_one_image_of_it_was_taken_out(site):
    """A card that comes again with an image that was not sent of it goes on, told of those that were."""
    copy = shutil.copytree(site.prepare(count=8), site.directory / "prepared" / "copy")
    site.fault("put", "delay", seconds=1.0, times=None)
    (site.directory / "prepared" / "flight").rename(site.drops / "flight")
    site.start("--until-idle")
    site.reach("created")
    skip(site, "DJI_0008.JPG")
    site.cloud.faults.clear()
    assert site.ended(60) == 0
    site.once(images=7)
    copy.rename(site.drops / "copy")
    assert site.run() == 0
    site.once("copy", 8)
    (told,) = [line for line in views.project(site.journal(), site.id_of("copy")).report["findings"]
               if line["check"] == "sent_before"]  # fmt: skip
    assert "7 of 8 images were sent before" in told["text"]


def test_unreadable_image_is_skipped_before_the_check(site):
    """A folder that is held for an image that cannot be decoded goes on without it."""
    site.privileged = False
    site.configure(decode="off", approve_above=0)
    folder = site.drop(count=8)
    assert site.run() == 0
    site.held("approval")
    (folder / "DJI_0003.JPG").chmod(0)
    site.configure(decode="all", approve_above=0)
    site.ask("approve")
    site.start()
    assert "DJI_0003.JPG" in site.held("source_unreadable")
    skip(site, "DJI_0003.JPG")
    site.delivered()
    site.once(images=7, held=True)
