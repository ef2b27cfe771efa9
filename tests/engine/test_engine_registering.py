"""What the cloud counts, and what a person decides when it does not tell."""

import json
import time

import pytest

from pix4d_watcher.journal.people import Refusal

pytestmark = pytest.mark.check  # minutes in all: run by make check


def counted(number, *, do="status_after"):
    """A fault whose answer says how many images were taken."""
    body = json.dumps({"nb_images_registered": number})
    return {"op": "register", "do": do, "code": 200, "body": body, "content_type": "application/json"}


def test_fewer_were_taken(site):
    """An answer that names fewer images than were sent holds the project before the start; `approve` goes on."""
    site.cloud.faults.add(counted(4))
    site.drop()
    site.start()
    text = site.held("inputs_differ")
    assert "6" in text
    assert "4" in text
    site.drop("second")
    site.delivered("second")
    assert site.used()["starts"] == 0
    site.ask("approve")
    site.delivered()
    site.once(held=True)


def test_fewer_were_taken_but_all_are_counted(site):
    """A counter that was seen to work explains an odd answer."""
    site.start()
    site.drop("first")
    site.delivered("first")
    site.cloud.faults.add(counted(4))
    site.drop()
    site.delivered()
    site.once()


def test_counter_shows_that_nothing_was_taken(site):
    """Where the counter was seen to work, a registration that was only answered never leads to a start."""
    site.start()
    site.drop("first")
    site.delivered("first")
    site.cloud.faults.add(counted(6, do="status"))
    site.drop()
    text = site.held("inputs_differ")
    assert "0" in text
    assert site.requests("start") == 1


def test_image_added_by_hand(site):
    """An image that somebody added in the cloud's page is noticed before money is spent; `approve` accepts it."""
    site.configure(start="manual")
    site.start()
    site.drop()
    site.held("manual_start")
    site.cloud.by_hand(site.used()["id"], "add_image")
    text = site.held("inputs_differ")
    assert "7" in text
    site.ask("approve")
    site.held("manual_start")
    site.ask("start")
    site.delivered()
    assert site.used()["starts"] == 1


ODD_COUNTERS = [
    ("frozen", 0.0, None),
    ("frozen", 0.0, "drop_before"),
    ("frozen", 0.0, "drop_after"),
    ("lagging", 1.0, None),
    ("lagging", 1.0, "drop_after"),
    ("lagging", 7.0, "drop_after"),
]


@pytest.mark.parametrize(("counter", "lag", "do"), ODD_COUNTERS)
def test_odd_counter(site, counter, lag, do):
    """A counter that lags or stands still holds nothing up and starts nothing twice."""
    site.cloud.change(counter=counter, counter_lag=lag)
    # The longest lag ends between the first and the second look, and far from both.
    site.configure(advanced={"doubt_wait": "6s"} if lag > 6 else {})
    if do:
        site.fault("register", do)
    site.drop()
    assert site.run() == 0
    project = site.used()
    # Registering the same keys again is allowed only where nothing tells that it happened.
    times = 2 if do == "drop_after" and counter == "frozen" else 1
    assert list(project["registered"].values()) == [times] * 6
    assert project["starts"] == 1
    assert not [text for kind, text in site.events() if kind == "held"]


def test_late_count_of_the_batch_before(site):
    """A batch that was lost is not taken for registered because the one before it was counted late."""
    site.cloud.change(counter="lagging", counter_lag=2.0)
    site.configure(advanced={"register_batch": 3})
    site.fault("register", "drop_before", skip=1)
    site.drop()
    assert site.run() == 0
    site.once()


def test_counter_that_worked_begins_to_lag(site):
    """A count that comes a little late is waited for and needs no person."""
    site.start()
    site.drop("first")
    site.delivered("first")
    site.cloud.change(counter="lagging", counter_lag=1.5)
    site.drop()
    site.delivered()
    site.once()


@pytest.mark.parametrize("applied", [True, False])
def test_register_in_doubt(site, applied):
    """With `register_in_doubt: hold` a person decides, and what the person says is recorded."""
    site.cloud.change(counter="frozen")
    site.configure(cloud={"register_in_doubt": "hold"})
    site.fault("register", "drop_after" if applied else "drop_before")
    site.drop()
    assert site.run() == 0
    assert "register" in site.held("in_doubt")
    site.start()
    site.ask("retry")
    site.until(lambda: [kind for kind, _text in site.events()].count("held") == 2, "looked up again")
    site.held("in_doubt")
    site.ask("retry", verdict=applied)
    site.delivered()
    site.once(held=True)


def test_create_in_doubt(site):
    """With `create_in_doubt: hold` a person decides; a project that is there is found by its marker."""
    site.cloud.change(project_list="off")
    site.configure(cloud={"create_in_doubt": "hold"})
    site.start()
    site.fault("create", "drop_before")
    site.drop("absent")
    assert "create" in site.held("in_doubt", "absent")
    with pytest.raises(Refusal, match="marker"):
        site.ask("retry", "absent", verdict=True)
    site.ask("retry", "absent", verdict=False)
    site.delivered("absent")
    site.once("absent", held=True)
    site.fault("create", "drop_after")
    site.drop("there")
    site.held("in_doubt", "there")
    site.cloud.change(project_list="on")
    site.ask("retry", "there")
    site.delivered("there")
    site.once("there", held=True)
    assert site.requests("create") == 3


@pytest.mark.parametrize("applied", [True, False])
def test_start_in_doubt(site, applied):
    """A start that the cloud does not tell of is never repeated before a person said that it did not happen."""
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    site.ask("pause", paused=True)
    time.sleep(0.5)
    number = site.used()["id"]
    silent = json.dumps({"id": number, "public_status": "", "image_count": 6})
    site.fault("start", "drop_after" if applied else "drop_before")
    site.fault("project", "status", code=200, body=silent, content_type="application/json", times=None)
    site.ask("start")
    site.ask("pause", paused=False)
    assert "start" in site.held("in_doubt")
    site.ask("retry")
    site.until(lambda: [kind for kind, _text in site.events()].count("held") == 3, "looked up again")
    assert site.requests("start") == 1
    site.cloud.faults.clear()
    site.ask("retry", verdict=applied)
    site.delivered()
    site.once(held=True)
    assert site.requests("start") == (1 if applied else 2)
