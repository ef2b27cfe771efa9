"""The service is killed while the outcome of a call is not known."""

import pytest

pytestmark = pytest.mark.check  # minutes in all: run by make check

MOMENTS = {
    "before it is applied": {"do": "stall", "seconds": 60},
    "after it was applied": {"do": "delay", "seconds": 60},
    "it is applied later": {"do": "late", "seconds": 2},
}


def is_open(site):
    """Whether the intent of a call is written and its outcome is not."""
    return site.look() and any(effect.status == "open" for effect in site.effects())


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("call", ["create", "register", "start"])
def test_killed_with_an_open_call(site, call, moment):
    """A call under way when the service dies is looked up after the restart and happens once."""
    site.cloud.faults.add({"op": call, **MOMENTS[moment]})
    site.drop()
    site.start()
    site.until(lambda: is_open(site) and site.requests(call), "the call is on the wire")
    site.kill()
    assert site.run() == 0
    site.once()


@pytest.mark.parametrize("call", ["create", "register", "start"])
def test_killed_again_and_again_in_doubt(site, call):
    """Kills during the wait for an outcome begin the wait again and change nothing else."""
    site.fault(call, "late", seconds=2)
    site.drop()
    for _life in range(3):
        site.start()
        site.until(lambda: is_open(site) and site.vitals(), "the outcome is awaited")
        site.kill()
    assert site.run() == 0
    site.once()
    assert site.requests(call) == 1


def test_killed_between_all_steps(site):
    """Kills at every state that the journal ever shows lead to one delivered project."""
    site.configure(settle="2s")
    site.cloud.change(processing_seconds=1.0)
    site.fault("*", "delay", seconds=1.0, times=None)
    site.drop()
    seen = {""}
    while site.look().get("state") != "delivered":
        site.start()
        state = site.until(lambda: {site.look().get("state", "")} - seen, "the next step").pop()
        seen.add(state)
        site.kill()
    assert {"found", "created", "started"} <= seen
    site.cloud.faults.clear()
    assert site.run() == 0
    site.once()
