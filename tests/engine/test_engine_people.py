"""What people ask for: pause, resume, drop, retry, approve, and a folder corrected by hand."""

import time

import pytest

from pix4d_watcher.emulator import flights


def test_pause_and_resume(site):
    """A paused project begins nothing new while others go on; `resume` goes on with it."""
    site.configure(upload={"connections": 1})
    site.fault("put", "delay", seconds=0.4, times=None)
    site.drop(count=10)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 2, "some images are uploaded")
    site.ask("pause", paused=True)
    assert site.look()["hold"]["code"] == "paused"
    time.sleep(1)
    before = site.look()["images"]["uploaded"]
    site.drop("other")
    site.delivered("other")
    assert site.look()["images"]["uploaded"] == before < 10
    site.ask("pause", paused=False)
    site.delivered()
    site.once(images=10)


def test_pause_everything(site):
    """Everything can be paused, and goes on where it was."""
    site.configure(upload={"connections": 2})
    site.fault("put", "delay", seconds=0.3, times=None)
    site.drop(count=60)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 2, "some images are uploaded")
    site.pause_all(paused=True)
    time.sleep(2)
    before = site.look()["images"]["uploaded"]
    time.sleep(1)
    assert site.look()["images"]["uploaded"] == before < 60
    site.cloud.faults.clear()
    site.pause_all(paused=False)
    site.delivered()
    site.once(images=60)


def test_pause_stops_no_started_project(site):
    """A project paused while it processes is followed again after `resume`."""
    site.cloud.change(processing_seconds=2.0)
    site.drop()
    site.start()
    site.reach("started")
    site.ask("pause", paused=True)
    time.sleep(3)
    assert site.look()["state"] == "started"
    site.ask("pause", paused=False)
    site.delivered()
    site.once()


@pytest.mark.parametrize("do", ["drop_before", "drop_after"])
def test_drop_in_doubt(site, do):
    """A project given up while the outcome of a call is unknown is looked up once; `retry` takes it up again."""
    site.start()
    site.drop("first")
    site.delivered("first")
    site.fault("create", do)
    site.drop()
    site.until(lambda: site.look() and site.effects(), "the call went out")
    site.ask("drop")
    site.until(lambda: [effect.status for effect in site.effects()] != ["open"], "the outcome is known")
    (effect,) = site.effects()
    assert (effect.status, effect.learnt) == (("done", "probe") if do == "drop_after" else ("undone", None))
    looked = site.requests("list")
    time.sleep(2)
    assert site.look()["condition"] == "dropped"
    assert site.requests("list") == looked
    assert site.requests("put") == 6
    site.ask("retry")
    site.delivered()
    site.once()
    assert len(site.projects()) == 1


@pytest.mark.parametrize("gone", [True, False])
def test_drop_in_doubt_of_what_the_cloud_does_not_show(site, gone):
    """What became of a call is asked no more where the project is gone; where the cloud refuses to say, it has time."""
    site.drop()
    site.fault("start", "drop_after")
    site.start()
    site.until(lambda: site.requests("start"), "the start is asked for")
    site.ask("drop")
    if gone:
        site.fault("project", "status", code=404, times=None)
        site.until(lambda: site.effects()[-1].status == "undone", "the outcome is known")
        assert "not in the cloud any more" in site.effects()[-1].note
    else:
        site.fault("project", "status", code=403, times=None)
        site.until(lambda: site.look()["tries"] > 1, "it is tried later")
        assert site.look()["due_at"]
        site.cloud.faults.clear()
        site.until(lambda: site.effects()[-1].status == "done", "the outcome is known")
    assert site.look()["condition"] == "dropped"


def test_drop_while_uploading(site):
    """Nothing more is sent for a project that was given up; `retry` continues where it was."""
    site.configure(upload={"connections": 1})
    site.fault("put", "delay", seconds=0.4, times=None)
    site.drop(count=8)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 2, "some images are uploaded")
    site.ask("drop")
    time.sleep(1)
    sent = site.requests("put")
    time.sleep(1)
    assert site.requests("put") == sent < 8
    site.cloud.faults.clear()
    site.ask("retry")
    site.delivered()
    site.once(images=8)
    assert site.requests("put") == 8


def flawed(site, name):
    """Prepare a folder that a check holds."""
    folder = site.prepare(name, 3 if name == "few" else 8)
    first, second = folder / "DJI_0001.JPG", folder / "DJI_0002.JPG"
    if name == "no_geotag":
        flights.make_image_without_geotag(first, 1, size=(64, 48))
        flights.make_image_without_geotag(second, 2, size=(64, 48))
    elif name == "damaged":
        flights.make_empty_image(first)
        flights.truncate_image(second)
    elif name == "one_position":
        for index, image in enumerate(sorted(folder.iterdir())):
            image.write_bytes(flights.make_image(index, size=(64, 48), position=(46.5, 6.5)))
    return folder.rename(site.drops / name)


FLAWS = {
    "few": ("too_few_images", 3),
    "no_geotag": ("not_geotagged", 8),
    "damaged": ("bad_images", 6),
    "one_position": ("not_geotagged", 8),
}


def test_approve_what_checks_found(site):
    """What a check holds goes on after `approve`, and damaged images stay behind."""
    for name in FLAWS:
        flawed(site, name)
    assert site.run() == 0
    assert site.requests("create") == 0
    for name, (code, _images) in FLAWS.items():
        site.held(code, name)
        site.ask("approve", name)
    assert site.run() == 0
    for name, (_code, images) in FLAWS.items():
        site.delivered(name)
        site.once(name, images, held=True)


def test_folders_corrected_by_hand(site):
    """A folder that a check holds is looked at again by itself when it was corrected."""
    folders = {name: flawed(site, name) for name in FLAWS}
    site.start()
    for name, (code, _images) in FLAWS.items():
        site.held(code, name)
    for name, folder in folders.items():
        site.fill(folder, 8, salt=f"sound {name}")
    site.delivered(*FLAWS)
    for name in FLAWS:
        site.once(name, 8, held=True)


def test_too_many_images(site):
    """A folder with more images than a project takes is held before anything is asked of the cloud."""
    site.drop(count=4001)
    assert site.run() == 0
    assert "4001" in site.held("too_many_images")
    assert not site.cloud.ledger()["projects"]


def test_duplicates_are_sent_once(site):
    """An image that is there twice is sent once, and the other one says why it is not."""
    folder = site.prepare()
    (folder / "copy.JPG").write_bytes((folder / "DJI_0001.JPG").read_bytes())
    folder.rename(site.drops / "flight")
    assert site.run() == 0
    site.once()
    (skipped,) = [image for image in site.images() if image.status == "skipped"]
    assert "same" in skipped.reason or "DJI_0001" in skipped.reason
