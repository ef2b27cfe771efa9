"""S3 credentials that end, clocks that are off, regions."""

import json
import time

import pytest

pytestmark = pytest.mark.check  # minutes in all: run by make check


def no_trouble(site):
    """Check that nobody heard of it: nothing was tried again, nothing held."""
    assert {image.tries for image in site.images()} == {0}
    assert not [text for kind, text in site.events() if kind in ("trouble", "image", "held")]


def test_credentials_end_in_mid_upload(site):
    """Credentials are renewed before they end, however short their life."""
    site.cloud.change(credentials_lifetime=4.0)
    site.configure(upload={"connections": 2})
    site.fault("put", "delay", seconds=1.0, times=None)
    site.drop(count=20)
    assert site.run() == 0
    site.once(images=20)
    no_trouble(site)
    assert site.cloud.ledger()["credentials"] >= 3


def test_credentials_refused_in_mid_upload(site):
    """Credentials that S3 refuses as too old are renewed, and the image is sent again."""
    site.configure(upload={"connections": 2})
    site.fault("put", "expire_credentials", skip=2)
    site.drop(count=12)
    assert site.run() == 0
    site.once(images=12)
    no_trouble(site)
    assert site.cloud.ledger()["refused"]["put"] >= 1


@pytest.mark.parametrize("minutes", [20, -20])
def test_clock_is_off(site, minutes):
    """A clock that is 20 minutes off is corrected for signing, and shown."""
    site.cloud.change(clock_skew=minutes * 60.0)
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    site.until(lambda: abs((site.vitals().get("skew") or 0.0) - minutes * 60) < 30, "the vitals show it")
    site.ask("start")
    site.delivered()
    site.once(held=True)
    assert not site.cloud.ledger()["refused"].get("put")


def test_clock_jumps_in_mid_upload(site):
    """A clock that jumps during the upload is noticed by S3 and corrected."""
    site.configure(upload={"connections": 2})
    site.fault("put", "delay", seconds=1.0, times=None)
    site.drop(count=40)
    site.start("--until-idle")
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 3, "some images are uploaded")
    site.cloud.change(clock_skew=1200.0)
    site.until(lambda: site.cloud.ledger()["refused"].get("put", 0) >= 1, "a signature is refused")
    site.cloud.faults.clear()
    assert site.ended() == 0
    site.once(images=40)
    no_trouble(site)


def test_regions(site):
    """Requests are signed for the region that the service names."""
    assert site.cloud.settings.region == "eu-central-1"
    site.drop("first")
    assert site.run() == 0
    site.cloud.change(region="ap-southeast-2")
    site.drop()
    assert site.run() == 0
    for name in ("first", "flight"):
        site.once(name)
    assert not {op for op in site.cloud.ledger()["refused"] if op in ("put", "credentials")}


def test_marker_and_creation_fields(site):
    """The project in the cloud has the template's name, our marker and the further fields of the configuration."""
    create = {"project_type": "pro", "nested": {"a": [1]}}
    site.configure(project={"name": "{root}: {folder} ({date})", "create": create})
    days = [time.strftime("%Y-%m-%d", time.gmtime())]
    site.drop()
    assert site.run() == 0
    (project,) = site.cloud.ledger()["projects"]
    days.append(time.strftime("%Y-%m-%d", time.gmtime()))
    assert project["name"].startswith(tuple(f"survey: flight ({day}) [" for day in days))
    assert json.dumps(project["create_fields"], sort_keys=True) == json.dumps(create, sort_keys=True)
