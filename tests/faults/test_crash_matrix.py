"""The crash matrix: one clean life as a list of boundaries, a crash at every one and at pairs, and the same end.

The first crash is at a boundary of a clean life, the second at one of the life that follows: so those of the recovery
itself, which no clean life has, are among them. A clean life has some 120 boundaries, the lives that follow a crash
about 70 on average. All pairs (`make soak`) are some 8,000 lives of three processes, a quarter of a second of processor
time each: about an hour on two cores that have nothing else to do. PIX4D_LIVES says how many lives run
at a time; most of what they do is wait.
"""

import random

import pytest
from lives import EFFECTS, Lab, name_of, once_for_all

SEED = 20261122
PAIRS = 300
CHUNKS, CHUNKS_OF_ALL = 60, 12
"""Tests over which the boundaries are spread, so that several run at a time and none takes minutes; so for the soak."""

AT_A_TIME = "14"

# The project list can be read to its end and holds a project that the journal knows; or cannot; or shows a new project
# later than it is looked for, which is the one way to an empty twin that nobody could avoid.
VARIANTS = {
    "list off": {"project_list": "off"},
    "list off, others known": {"project_list": "off", "known": 1},
    "list with others": {"known": 1},
    "list of pages": {"project_list": "paged", "page_size": 1, "known": 3},
    "list that lags": {"list_lag": 0.4, "known": 1},
    "list that lags for long": {"list_lag": 30.0, "known": 1},
    "two batches": {"batch": 2},
}

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="session")
def boundaries(tmp_path_factory):
    """Give the boundaries of one clean life, sorted by name; the same to every worker that takes its share of them."""

    def record():
        lab = Lab(tmp_path_factory.mktemp("clean"))
        (end,) = lab.ends("")
        assert not lab.broken, lab.broken
        return sorted(end.passed)

    return once_for_all(tmp_path_factory, "boundaries", record)


def test_a_clean_life_is_the_same_each_time(boundaries, tmp_path, record_property):
    """However the threads take turns, a life passes the same boundaries, and each kind of them is there."""
    lab = Lab(tmp_path)
    assert sorted(lab.ends("")[0].passed) == boundaries
    lab.report(record_property, "clean lives")
    record_property("count", ("crash matrix: boundaries of a clean life", len(boundaries)))
    kinds = {point.split("#")[0].split()[0] for point in boundaries}
    assert kinds == {"before", "after", "token", "credentials", "project", "outputs", "get"} | EFFECTS | {
        "put",
        "initiate",
        "part",
        "complete",
    }
    commits = {name_of(point) for point in boundaries if point.startswith("before ")}
    assert {"effects.intent", "effects.intent_of_batch", "uploads.part_done", "results.fetched"} <= commits


def crash_at(lab, firsts, seconds):
    """Crash at each of the boundaries, and at pairs with those that `seconds` chooses of the life that follows."""
    following = lab.reach_all([(first,) for first in firsts])
    lab.broken += [f"{first}: not reached" for first, passed in zip(firsts, following, strict=True) if passed is None]
    lab.counts["singles"] += len(firsts)
    pairs = [
        (first, second)
        for first, passed in zip(firsts, following, strict=True)
        for second in seconds(first, sorted(passed or ()))
    ]
    missed = [pair for pair, passed in zip(pairs, lab.reach_all(pairs), strict=True) if passed is None]
    if pairs:
        lab.counts["pairs that there are"] += sum(len(passed or ()) for passed in following)
        lab.counts["pairs"] += len(pairs) - len(missed)
        lab.counts["pairs not reached"] += len(missed)
    if len(missed) > max(2, len(pairs) // 10):
        lab.broken.append(f"too many pairs were not reached: {missed}")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_boundary(boundaries, tmp_path, record_property, chunk):
    """Killed at any boundary, and at two that a seed chose, the next life brings the flight to its end, once."""
    lab = Lab(tmp_path)

    def some(first, passed):
        number = boundaries.index(first)
        share = PAIRS // len(boundaries) + (number < PAIRS % len(boundaries))
        return random.Random(f"{SEED}/{number}").sample(passed, min(share, len(passed)))

    crash_at(lab, boundaries[chunk::CHUNKS], some)
    lab.report(record_property, "check")


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("chunk", range(CHUNKS_OF_ALL))
def test_every_pair(boundaries, tmp_path, record_property, pytestconfig, chunk):
    """Killed at any boundary, and then at any of the life that follows, the third life brings the flight to its end."""
    lab = Lab(tmp_path, at_a_time=int(pytestconfig.machine.get("PIX4D_LIVES", AT_A_TIME)))
    crash_at(lab, boundaries[chunk::CHUNKS_OF_ALL], lambda _first, passed: passed)
    print(f"{chunk + 1} of {CHUNKS_OF_ALL}: {dict(lab.counts)}")
    lab.report(record_property, "every pair")


@pytest.mark.parametrize("call", sorted(EFFECTS))
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_call_in_flight(tmp_path, record_property, variant, call):
    """Killed with a call in flight that is lost, applied or late, it happens once whatever the project list shows."""
    lab = Lab(tmp_path, **VARIANTS[variant])
    numbers = (1, 2) if (call, variant) == ("register", "two batches") else (1,)
    points = [f"{call}#{number}, {side}" for number in numbers for side in ("lost", "applied", "late")]
    crash_at(lab, points, lambda _first, _passed: ())
    lab.report(record_property, "variants")
