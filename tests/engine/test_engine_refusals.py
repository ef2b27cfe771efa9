"""The service of the cloud says no, asks for patience, or answers nonsense."""

import json
import time

import pytest

from pix4d_watcher.journal import views

pytestmark = pytest.mark.check  # minutes in all: run by make check

NONSENSE = {
    "error after applying": {"do": "status_after", "code": 500},
    "bad gateway": {"do": "status", "code": 502, "body": "<html>Bad Gateway</html>", "content_type": "text/html"},
    "login page": {"do": "html"},
    "no JSON": {"do": "not_json"},
    "cut": {"do": "cut", "bytes": 10},
}


def refusal(code, words):
    """A fault that refuses in the service's own words."""
    return {
        "do": "status",
        "code": code,
        "body": json.dumps({"detail": words}),
        "content_type": "application/json",
    }


@pytest.mark.parametrize("call", ["create", "register", "start"])
def test_refused(site, call):
    """A refusal holds the project with the service's words; `retry` asks again, once it is mended."""
    site.start()
    for code in (400, 403, 409):
        name = f"refused{code}"
        site.cloud.faults.add({"op": call, **refusal(code, "Not on a Sunday.")})
        site.drop(name)
        text = site.held("cloud_refused", name)
        assert "Not on a Sunday." in text
        assert str(code) in text
        site.ask("retry", name)
        site.delivered(name)
        site.once(name, held=True)


@pytest.mark.parametrize("call", ["create", "register", "start"])
def test_no_credit_at_a_call(site, call):
    """A call refused for lack of credits is asked again by itself."""
    site.cloud.faults.add({"op": call, **refusal(402, "Not enough credits."), "times": 2})
    site.drop()
    site.start()
    site.delivered()
    # Told by the history: a hold that ends by itself may be over before it is looked at.
    holds = [text for kind, text in site.events() if kind == "held"]
    assert holds
    assert all(text.startswith("no_credit: ") and "Not enough credits." in text for text in holds)
    site.once(held=True)
    assert site.requests(call) == 3


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_in_place_of_an_answer(site, nonsense):
    """An answer that cannot be used counts as lost: what became of the call is looked up."""
    site.cloud.faults.add(*({"op": call, **NONSENSE[nonsense]} for call in ("create", "register", "start")))
    site.drop()
    assert site.run() == 0
    site.once()
    assert [fault["hits"] for fault in site.cloud.faults.listing()] == [1, 1, 1]


def test_too_many_at_once(site):
    """A batch that is too large is halved until it fits."""
    site.cloud.change(max_register=2)
    site.drop(count=7)
    assert site.run() == 0
    site.once(images=7)
    batches = [effect for effect in site.effects() if effect.kind == "register" and effect.status == "done"]
    assert all(len(effect.request["keys"]) <= 2 for effect in batches)


def test_too_large_alone(site):
    """One image that is still too much is a refusal like any other."""
    site.cloud.faults.add({"op": "register", **refusal(413, "Too much."), "times": None})
    site.drop()
    assert site.run() == 0
    assert "Too much." in site.held("cloud_refused")
    assert site.requests("start") == 0


@pytest.mark.parametrize("call", ["create", "register", "start"])
def test_applied_and_refused(site, call):
    """A refusal of what was applied all the same (repeated by a proxy) is not believed."""
    site.cloud.change(project_list="on")
    site.cloud.faults.add({"op": call, **refusal(400, "It is there already."), "do": "status_after"})
    site.drop()
    assert site.run() == 0
    site.once()


def test_second_start_is_refused(site):
    """A start made by hand a moment before ours is found out when ours is refused."""
    site.cloud.change(second_start="refuse")
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    site.ask("pause", paused=True)
    time.sleep(2)  # longer than a look that is under way
    before = site.requests("project")
    site.fault("project", "delay", seconds=8, skip=1)
    site.ask("start")
    site.ask("pause", paused=False)
    site.until(lambda: site.requests("project") == before + 2, "the last look before the start")
    time.sleep(1)  # its answer is made by then, and on its way for longer
    site.cloud.by_hand(site.used()["id"], "start")
    site.delivered()
    assert site.requests("start") == 1
    site.once(held=True)


@pytest.mark.parametrize("how", ["refused", "expired"])
def test_token_refused_once(site, how):
    """A token that is refused is renewed, and nobody notices."""
    fault = refusal(401, "Invalid token.") if how == "refused" else {"do": "expire_token"}
    site.cloud.faults.add(*({"op": call, **fault} for call in ("create", "credentials", "register", "start")))
    site.drop()
    assert site.run() == 0
    site.once()
    assert site.cloud.ledger()["tokens"] == 5
    assert not [text for kind, text in site.events() if kind in ("trouble", "image")]


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}], ids=["in its own time", "Retry-After"])
def test_throttled(site, headers):
    """A request for patience is obeyed and uses up no tries."""
    for call in ("create", "put", "start"):
        site.fault(call, "status", code=429, headers=headers)
    site.drop()
    site.start("--until-idle")
    tries = set()

    def watched():
        tries.add(site.look().get("tries", 0))
        tries.update(image.tries for image in site.images() if site.look())
        return site.look().get("state") == "delivered"

    site.until(site.look, "found")
    site.until(watched, "delivered")
    assert site.ended() == 0
    assert tries == {0}
    site.once()


def test_the_storage_asks_for_patience(site):
    """Where S3 asks for patience no other image goes out meanwhile, of whatever folder, and the image says why."""
    site.configure(upload={"connections": 2}, advanced={"retry_max": "1m"})
    body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    site.fault("put", "status", code=503, body=body, headers={"Retry-After": "30"}, times=None)
    for name in ("flight", "other"):
        site.drop(name, 20)
    site.start()
    for name in ("flight", "other"):
        site.reach("created", name)

    def told():
        return [image.error for image in site.images() + site.images("other") if image.error]

    site.until(told, "it says why")
    time.sleep(3)  # forty could be refused by then
    assert all("SlowDown" in error for error in told())
    assert site.requests("put") <= 2
    assert {image.tries for image in site.images()} == {0}
    assert site.stop() == 0


@pytest.mark.check  # half a minute: the pauses are what it is about
def test_throttled_again_and_again(site):
    """Each time in a row that the cloud asks for patience the pause doubles, so that the journal hardly grows."""
    site.configure(advanced={"retry_max": "5m"})
    site.fault("create", "status", code=429, times=None)
    site.drop()
    site.start()

    def pause():
        closed = [effect.closed_at for effect in site.effects()] if site.look() else []
        due = views.project(site.journal(), site.id_of()).due_at if closed[1:] and closed[1] else None
        return due is not None and due > closed[1] and due - closed[1]

    # The first one is 4 to 8 seconds long.
    assert site.until(pause, "it is put off a second time") >= 8
    assert site.look()["tries"] == 0


def test_throttled_for_long(site):
    """Patience has no end: more refusals for haste than tries would be."""
    site.configure(advanced={"retry_max": "200ms"})
    site.fault("create", "status", code=429, times=25)
    site.drop()
    assert site.run() == 0
    site.once()
