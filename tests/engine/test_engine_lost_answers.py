"""A lost answer to a call that must not happen twice, in every way in which it can be lost."""

import pytest

FATES = {
    "applied": {"do": "drop_after"},
    "applied later": {"do": "late", "seconds": 2},
    "not applied": {"do": "drop_before"},
}


@pytest.mark.parametrize("listing", ["on", *(pytest.param(how, marks=pytest.mark.check) for how in ("paged", "off"))])
@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("call", ["create", "register", "start"])
def test_lost_answer(site, call, fate, listing):
    """Whatever became of a call without an answer, nothing happens twice and no person is needed."""
    site.cloud.change(project_list=listing, page_size=1)
    if fate == "applied later":
        site.configure(advanced={"doubt_wait": "6s"})  # seconds more than it comes late
    site.start()
    # The very first project ever, and one after another that is known.
    for name in ("first", "second"):
        site.cloud.faults.add({"op": call, **FATES[fate]})
        site.drop(name)
        site.delivered(name)
        site.once(name)
    assert [fault["hits"] for fault in site.cloud.faults.listing()] == [1, 1]
    site.once("first")  # still: what comes late has come by now
    assert site.stop() == 0


@pytest.mark.parametrize("call", ["create", "register", "start"])
def test_every_answer_lost_twice(site, call):
    """A call whose answer is lost again after it was repeated is looked up again."""
    site.cloud.faults.add({"op": call, "do": "drop_before"}, {"op": call, "do": "drop_after"})
    site.drop()
    assert site.run() == 0
    site.once()
