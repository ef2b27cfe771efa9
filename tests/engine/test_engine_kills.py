"""The service is killed while the outcome of a call is not known."""

import pytest

pytestmark = pytest.mark.check  # minutes in all: run by make check

MOMENTS = {
    "before it is applied": {"do": "stall", "seconds": 60},
    "after it was applied": {"do": "delay", "seconds": 60},
    "it is applied later": {"do": "late", "seconds": 2},
}


LONG_DOUBT = {"doubt_wait": "15s"}
"""An effect stays open until the kill, also where that comes late."""


def is_open(site):
    """Whether the intent of a call is written and its outcome is not."""
    return site.look() and any(effect.status == "open" for effect in site.effects())


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("call", ["create", "register", "start"])
def test_killed_with_an_open_call(site, call, moment):
    """A call under way when the service dies is looked up after the restart and happens once."""
    site.configure(advanced=LONG_DOUBT)
    site.cloud.faults.add({"op": call, **MOMENTS[moment]})
    site.drop()
    site.start()
    site.until(lambda: is_open(site) and site.requests(call), "the call is on the wire")
    site.kill()
    site.configure()
    assert site.run() == 0
    site.once()


@pytest.mark.parametrize("call", ["create", "register", "start"])
def test_killed_again_and_again_in_doubt(site, call):
    """Kills during the wait for an outcome begin the wait again and change nothing else."""
    site.configure(advanced=LONG_DOUBT)
    site.fault(call, "late", seconds=2)
    site.drop()
    for _life in range(3):
        site.start()
        site.until(lambda: is_open(site) and site.vitals().get("pid") == site.process.pid, "the outcome is awaited")
        site.kill()
    site.configure()
    assert site.run() == 0
    site.once()
    assert site.requests(call) == 1


LASTS = {
    "found": None,
    "settled": "create",
    "created": "put",
    "uploaded": "register",
    "registered": "start",
    "started": None,
}
"""The states in their order, and the call that each of them lasts for; delivered is what becomes of them."""


def test_killed_between_all_steps(site):
    """Kills at every state that the journal ever shows lead to one delivered project."""
    site.configure(settle="1h")
    site.cloud.change(processing_seconds=600.0)
    site.drop()
    # What comes next does not come to its end before the kill, also where that is late.
    for state, call in LASTS.items():
        site.cloud.faults.clear()
        if call:
            site.fault(call, "delay", seconds=60.0, times=None)
        site.start()
        site.reach(state)
        site.kill()
        site.configure()
    site.cloud.faults.clear()
    site.cloud.change(processing_seconds=0.0)
    assert site.run() == 0
    site.once()
