"""A started project is followed to its end, and a start is a person's where it is manual."""

import time

import pytest

from pix4d_watcher.core.model import HoldCode
from pix4d_watcher.journal import projects
from pix4d_watcher.journal.people import Refusal


def test_unknown_status(site):
    """A status that is not known is waited for, and said."""
    site.cloud.change(processing_result="HALF_BAKED", odd_status_seconds=3.0)
    site.drop()
    site.start("--until-idle")
    site.until(lambda: "HALF_BAKED" in (site.look().get("waiting_for") or ""), "the status is shown")
    assert "does not know" in site.look()["waiting_for"]
    assert site.ended() == 0
    site.once()


def test_failed_in_the_cloud(site):
    """A failure is shown in the cloud's words; when it runs again there, `retry` follows it."""
    site.cloud.change(processing_result="error")
    site.drop()
    site.start()
    assert "Not enough images could be calibrated." in site.held("cloud_failed")
    site.ask("retry")
    site.until(lambda: [kind for kind, _text in site.events()].count("held") == 2, "asked again")
    site.held("cloud_failed")
    site.cloud.change(processing_result="done")
    site.cloud.by_hand(site.used()["id"], "start")
    site.ask("retry")
    site.delivered()
    site.once(starts=2, held=True)
    assert site.requests("start") == 1


def test_waiting_for_credits(site):
    """A project that waits for credits in the cloud is no failure and goes on by itself."""
    site.cloud.change(credits=0.0)
    site.drop()
    site.start()
    assert "credits" in site.held("no_credit")
    site.cloud.change(credits=100.0)
    site.delivered()
    site.once(held=True)


def test_start_refused_for_credits(site):
    """A start that the cloud refuses for lack of credits is made when there are some, once."""
    site.cloud.change(credits_refuse=True)
    site.drop()
    site.start()
    assert "Not enough credits." in site.held("no_credit")
    site.until(lambda: site.requests("start") >= 2, "asked again by itself")
    assert site.used()["starts"] == 0
    site.cloud.change(credits_refuse=False)
    site.delivered()
    site.once(held=True)


@pytest.mark.parametrize("state", ["created", "started"])
def test_deleted_in_the_cloud(site, state):
    """A project that was deleted in the cloud is held and never made anew by itself."""
    site.cloud.change(processing_seconds=60.0)
    if state == "created":
        site.fault("put", "delay", seconds=1.5, times=None)
    site.drop()
    site.start()
    site.reach(state)
    site.cloud.by_hand(site.projects()[0]["id"], "delete")
    assert "not in the cloud any more" in site.held("cloud_refused")
    time.sleep(1)
    assert site.requests("create") == 1


def test_manual_start(site):
    """A manual start waits for a person and happens once."""
    site.configure(start="manual")
    site.drop()
    assert site.run() == 0
    site.held("manual_start")
    assert site.requests("start") == 0
    site.ask("start")
    assert site.run() == 0
    site.delivered()
    site.once(held=True)
    with pytest.raises(Refusal, match="started already"):
        site.ask("start")


def test_start_said_early(site):
    """A start that is said before everything is registered is not asked for again."""
    site.configure(start="manual")
    site.fault("put", "delay", seconds=1.5, times=None)
    site.drop()
    site.start()
    site.reach("created")
    site.ask("start")
    site.delivered()
    site.once()


def test_started_in_the_page_of_the_cloud(site):
    """A start by hand in the cloud is followed, and none is added."""
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    site.cloud.by_hand(site.used()["id"], "start")
    site.delivered()
    assert site.requests("start") == 0
    site.once(held=True)


def test_start_body(site):
    """The start body of the configuration goes out as it is."""
    body = {"custom_template_s3_key": "templates/a.tmpl", "nested": {"quality": [1, 2]}}
    site.configure(processing=body)
    site.drop()
    assert site.run() == 0
    site.once()
    assert site.used()["start_bodies"] == [body]


def test_manual_start_that_is_configured_away(site):
    """A project that waits for a person's start is started by itself once the configuration says `start: auto`."""
    site.configure(start="manual")
    site.drop()
    assert site.run() == 0
    site.held("manual_start")
    site.configure(start="auto")
    assert site.run() == 0
    site.once(held=True)
    assert ("lifted", "the configuration says `start: auto` now") in site.events()


def test_a_step_that_comes_to_nothing_is_put_off(site):
    """A project whose state and hold forbid the step that is due does not keep the service and the cloud busy."""
    site.configure(start="manual")
    site.drop()
    assert site.run() == 0
    site.ask("start")
    projects.hold(site.journal(change=True), site.id_of(), HoldCode.DISK_FULL, "left of another state")
    site.start()
    site.until(lambda: site.look()["due_at"], "it is looked at again later")
    assert (site.look()["state"], site.used()["starts"]) == ("registered", 0)
