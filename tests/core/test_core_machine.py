"""The state table and the table of holds: complete, in order, and with a remedy that a person can follow."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix4d_watcher.core import machine
from pix4d_watcher.core.model import HoldCode, State

COMMANDS = {"approve", "retry", "start"}
states = st.sampled_from(State)


@given(before=states, after=states)
def test_progress_moves_one_step(before, after):
    """A state follows the one before it, or is `created` again because late images joined; nothing else."""
    forward = machine.ORDER.index(after) - machine.ORDER.index(before) == 1
    late = after is State.CREATED and before in (State.UPLOADED, State.REGISTERED)
    assert machine.may_follow(before, after) == (forward or late)


@given(walk=st.lists(states, max_size=30))
def test_nothing_steps_back_behind_the_start(walk):
    """Whatever is tried in whatever order, a started project never has an earlier state again."""
    now, reached = State.FOUND, 0
    for wanted in walk:
        if machine.may_follow(now, wanted):
            now = wanted
        rank = machine.ORDER.index(now)
        assert rank >= min(reached, machine.ORDER.index(State.CREATED))
        if reached >= machine.ORDER.index(State.STARTED):
            assert rank >= reached
        reached = max(reached, rank)


def test_every_state_can_be_reached_and_is_shown():
    """The order holds every state, each follows the one before it, and each has words for people."""
    assert list(machine.ORDER) == list(State)
    assert all(machine.may_follow(*pair) for pair in zip(machine.ORDER, machine.ORDER[1:], strict=False))
    assert set(machine.SHOWN) == set(State)
    assert all(machine.SHOWN.values())


def test_before_the_creation():
    """Until the creation, and not after it, a folder may be frozen anew."""
    assert [state for state in State if machine.before_create(state)] == [State.FOUND, State.SETTLED]


def test_every_hold_is_explained():
    """Every code is in the table, with a title and a remedy of its own."""
    assert set(machine.HOLDS) == set(HoldCode)
    assert len({hold.title for hold in machine.HOLDS.values()}) == len(HoldCode)


@pytest.mark.parametrize("code", HoldCode)
def test_every_hold_can_be_left(code):
    """Each hold has a way out: by itself, by a change of the folder, or by a command."""
    hold = machine.HOLDS[code]
    assert hold.by_itself or hold.by_folder or hold.commands
    assert set(hold.commands) <= COMMANDS
    assert len(hold.commands) <= 1


@pytest.mark.parametrize("code", HoldCode)
def test_remedy_says_what_lifts(code):
    """The remedy names each command that lifts the hold, in full, and says so where it lifts by itself."""
    hold = machine.HOLDS[code]
    named = set(re.findall(r"pix4d-watcher ([a-z]+)", hold.remedy))
    assert set(hold.commands) <= named <= {*COMMANDS, "again", "drop", "skip"}
    if hold.by_itself and not hold.commands:
        assert "by itself" in hold.remedy
    if hold.by_folder:
        assert "by itself" in hold.remedy
        assert "approve" in hold.commands
    assert hold.remedy[0].isupper()


@pytest.mark.parametrize("code", HoldCode)
def test_acceptance_is_what_approve_means(code):
    """A hold is accepted, and not asked again, just where `approve` lifts it."""
    assert (
        machine.lifted_by(code, "approve") == machine.acceptances(code) == ("approve" in machine.HOLDS[code].commands)
    )
    assert not machine.lifted_by(code, "drop")


def test_the_design_s_table():
    """The ways out are those that were promised, code by code."""
    by_itself = {"media_absent", "disk_full", "source_unreadable", "no_credit", "manual_start", "cloud_failed"}
    by_folder = {"too_few_images", "too_many_images", "bad_images", "not_geotagged", "mixed_images", "bad_folder_file"}
    approve = {*by_folder, "approval", "already_sent", "late_images", "inputs_differ"}
    retry = {"source_missing", "source_changed", "cloud_refused", "cloud_failed", "tries_exhausted", "in_doubt"}

    def codes(wanted):
        return {str(code) for code, hold in machine.HOLDS.items() if wanted(hold)}

    assert codes(lambda hold: hold.by_itself) == by_itself
    assert codes(lambda hold: hold.by_folder) == by_folder
    assert codes(lambda hold: "approve" in hold.commands) == approve
    assert codes(lambda hold: "retry" in hold.commands) == retry
    assert codes(lambda hold: "start" in hold.commands) == {"manual_start"}
