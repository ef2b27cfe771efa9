"""Errors of the world pause the service, use up no tries and end by themselves."""

import time

import pytest

from pix4d_watcher.journal import views
from pix4d_watcher.service import AUTH_REFUSED

pytestmark = pytest.mark.check  # minutes in all: run by make check


def paused(site, kind):
    """Give what the service says of its pause, None unless it is one for this kind of trouble."""
    pause = site.vitals().get("pause") or {}
    return pause if pause.get("kind") == kind else None


def begin_upload(site, count=40, connections=2, advanced=None):
    """Start the service and wait for the middle of an upload that takes its time."""
    site.configure(upload={"connections": connections}, advanced=advanced)
    site.fault("put", "delay", seconds=1.0, times=None)
    site.drop(count=count)
    site.start("--until-idle")
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 3, "some images are uploaded")


def test_link_down_in_mid_upload(site):
    """A link that breaks pauses everything, uses up no tries, and the upload goes on by itself."""
    begin_upload(site)
    site.unplug()
    site.until(lambda: paused(site, "network"), "the service says that it is paused")
    time.sleep(3)
    assert site.look()["images"]["uploaded"] < 40
    assert site.look()["tries"] == 0
    assert {image.tries for image in site.images()} == {0}
    site.cloud.faults.clear()
    site.plug()
    assert site.ended(60) == 0
    site.once(images=40)
    assert site.vitals()["pause"] is None


@pytest.mark.parametrize("do", ["drop_before", "html", "stall"])
def test_cloud_out_of_reach(site, do):
    """Resets, the login page of a network and silence are the world's, whichever call meets them."""
    begin_upload(site, advanced={"request_timeout": "2s"})
    site.cloud.faults.clear()
    site.fault("*", do, seconds=30, times=None)
    site.until(lambda: site.vitals().get("pause"), "the service says that it is paused")
    site.drop("other")
    time.sleep(3)
    assert site.look("other").get("tries", 0) == 0
    assert site.process.poll() is None
    site.cloud.faults.clear()
    assert site.ended(60) == 0
    site.once(images=40)
    site.once("other")


def test_link_down_at_the_start(site):
    """A service that starts without a link waits for it."""
    site.unplug()
    site.drop()
    site.start("--until-idle")
    site.until(lambda: paused(site, "network"), "the service says that it is paused")
    site.until(lambda: site.look().get("state") == "settled", "folders are looked at all the same")
    site.plug()
    assert site.ended() == 0
    site.once()


@pytest.mark.parametrize("option", [(), ("--until-idle",)])
def test_wrong_secret(site, option):
    """Client credentials refused at the first token end the service with 77."""
    (site.directory / "secret").write_text("wrong\n")
    site.drop()
    site.start(*option)
    assert site.ended() == AUTH_REFUSED == 77
    assert "wrong" not in site.log.read_text()


def test_secret_refused_later(site):
    """Client credentials refused later pause the service, which goes on running."""
    site.start()
    site.drop("first")
    site.delivered("first")
    site.cloud.change(client_secret="another")
    site.cloud.expire("token")
    site.drop()
    site.until(lambda: paused(site, "auth"), "the service says that it is paused")
    time.sleep(1)
    assert site.process.poll() is None
    assert site.look()["tries"] == 0
    assert site.stop() == 0


@pytest.mark.check  # a minute: so long is waited after credentials were refused
def test_secret_mended_later(site):
    """A pause for refused client credentials ends by itself."""
    site.start()
    site.drop("first")
    site.delivered("first")
    site.cloud.change(client_secret="another")
    site.cloud.expire("token")
    site.drop()
    site.until(lambda: paused(site, "auth"), "the service says that it is paused")
    site.cloud.change(client_secret="demo-secret")
    site.delivered(seconds=90)
    site.once()


def test_one_image_does_not_go_through(site):
    """What a firewall resets for one image's sake counts against that image, and the others go on."""
    site.configure(advanced={"retry_max": "200ms"})
    site.fault("put", "drop_before", key="*DJI_0003*", times=None)
    site.drop()
    site.start("--until-idle")
    site.until(lambda: site.look() and site.look()["images"]["failed"] == 1, "one image is counted as failed")
    site.until(lambda: site.look()["images"]["uploaded"] == 5, "the others are uploaded")
    assert not site.vitals().get("pause")
    site.cloud.faults.clear()
    assert site.ended(60) == 0
    site.once()


@pytest.mark.check  # a minute: twenty tries
def test_one_image_never_goes_through(site):
    """An image that fails again and again holds its project with the reason; `retry` tries it anew."""
    site.configure(advanced={"retry_max": "200ms"})
    site.fault("put", "drop_before", key="*DJI_0003*", times=None)
    site.drop()
    site.start()
    text = site.held("tries_exhausted", seconds=110)
    assert "DJI_0003.JPG" in text
    site.cloud.faults.clear()
    site.ask("retry")
    site.delivered()
    site.once(held=True)


def test_storage_out_of_reach(site):
    """Where only S3 fails, and for every image, the service says that the storage is the trouble, and since when."""
    begin_upload(site, connections=1)  # else another image, on its way by now, would say that the storage works
    site.cloud.faults.clear()
    site.fault("s3", "drop_before", times=None)
    # Each look at the storage is a pause less for a moment: what is said is read at once.
    pauses = site.until(lambda: paused(site, "storage"), "the service says that it is paused")
    since, refused = pauses["since"], site.requests("put")
    site.until(lambda: site.requests("put") >= refused + 3, "the storage is asked now and then")
    site.until(
        lambda: (site.vitals().get("pause") or {}).get("since") == since, "it is away since the first that failed"
    )
    site.cloud.faults.clear()
    assert site.ended(60) == 0
    site.once(images=40)
    assert max(image.tries for image in site.images()) <= 1


def test_storage_out_of_reach_while_results_are_fetched(site):
    """Where S3 gives out no result of any project, the service waits, uses up no tries and goes on by itself."""
    names = ("first", "second", "third")
    site.configure(results=True, advanced={"retry_max": "200ms"})
    site.fault("get", "drop_before", times=None)
    for name in names:
        site.drop(name)
    site.start("--until-idle")
    site.until(lambda: paused(site, "storage"), "the service says that it is paused")
    refused = site.requests("get")
    site.until(lambda: site.requests("get") >= refused + 3, "the storage is asked now and then")
    assert max(row["tries"] for row in site.status()) <= 1
    site.cloud.faults.clear()
    assert site.ended(60) == 0
    for name in names:
        site.once(name)
    assert {row["outputs"]["fetched"] for row in site.status()} == {8}


@pytest.mark.parametrize("how", [{"do": "cut", "bytes": 1}, {"do": "html"}], ids=["broken off", "a page instead"])
def test_some_results_do_not_come_through(site, how):
    """Results that never come through count against their project, while other folders are sent and fetched."""
    site.configure(results=True, advanced={"retry_max": "200ms"})
    site.cloud.change(processing_seconds=60.0)
    site.drop()
    site.start("--until-idle")
    site.reach("started")
    for name in ("project.zip", "ortho.tif"):
        site.fault("get", key=f"{site.used()['prefix']}/*{name}", times=None, **how)
    site.cloud.change(processing_seconds=0.0)
    site.until(lambda: site.look().get("outputs", {}).get("fetched") == 6, "the others are fetched")
    site.drop("other")
    site.delivered("other")

    def tried():
        return sum(output.tries >= 4 for output in views.outputs_of(site.journal(), site.id_of()))

    site.until(lambda: tried() == 2, "they are tried again and again")
    # It may have looked as if nothing came through, before the others were tried.
    assert site.log.read_text().count("event=paused") <= 1
    site.cloud.faults.clear()
    assert site.ended(60) == 0
    site.once()
    site.once("other")
