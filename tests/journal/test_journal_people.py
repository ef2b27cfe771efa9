"""What people may ask for, in each situation, and what a refusal tells them."""

import pytest
from journal_kit import checked, dump, found, image_of, in_doubt, intend, offer, reach, statuses

from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import Condition, EffectKind, EffectStatus, HoldCode, Learnt, State
from pix4d_watcher.journal import folders, missions, people, projects, results, uploads, views
from pix4d_watcher.journal.people import Refusal


def held(journal, code, state=State.CREATED):
    number = reach(journal, state)
    projects.hold(journal, number, code, "because")
    return number


def condition(journal, number):
    project = views.project(journal, number)
    return project.condition, project.hold_code


@pytest.mark.parametrize("state", [State.FOUND, State.SETTLED, State.CREATED])
@pytest.mark.parametrize("code", HOLDS)
def test_approve_follows_the_table(journal, code, state):
    """`approve` lifts just the holds whose remedy it is, and records it; else it refuses with the remedy.

    Only the approval of a folder that nobody has looked into yet is not recorded: its cost is asked about later.
    """
    number = held(journal, code, state)
    if "approve" not in HOLDS[code].commands:
        with pytest.raises(Refusal) as refused:
            people.approve(journal, number)
        assert HOLDS[code].remedy in str(refused.value)
        assert condition(journal, number) == (Condition.HELD, code)
        return
    assert people.approve(journal, number) is code
    assert condition(journal, number) == (Condition.ACTIVE, None)
    recorded = () if (code, state) == (HoldCode.APPROVAL, State.FOUND) else (code,)
    assert views.project(journal, number).accepted == recorded
    projects.hold(journal, number, code, "again")
    people.approve(journal, number)
    assert views.project(journal, number).accepted == recorded


@pytest.mark.parametrize("code", HOLDS)
def test_start_follows_the_table(journal, code):
    """`start` lifts the wait for a manual start; for any other hold it refuses with the remedy."""
    number = held(journal, code, State.REGISTERED)
    if code is not HoldCode.MANUAL_START:
        with pytest.raises(Refusal) as refused:
            people.start(journal, number)
        assert HOLDS[code].remedy in str(refused.value)
        assert views.project(journal, number).accepted == ()
        return
    people.start(journal, number)
    assert condition(journal, number) == (Condition.ACTIVE, None)
    assert views.project(journal, number).accepted == (code,)


@pytest.mark.parametrize("code", HOLDS)
def test_retry_follows_the_table(journal, code):
    """`retry` looks again wherever that can help, accepts nothing, and else refuses with the remedy."""
    number = held(journal, code)
    hold = HOLDS[code]
    if "retry" in hold.commands or hold.by_itself or hold.by_folder:
        assert people.retry(journal, number) == "tried again now"
        assert condition(journal, number) == (Condition.ACTIVE, None)
        assert views.project(journal, number).accepted == ()
        return
    with pytest.raises(Refusal) as refused:
        people.retry(journal, number)
    assert hold.remedy in str(refused.value)
    assert condition(journal, number) == (Condition.HELD, code)


@pytest.mark.parametrize("code", HOLDS)
def test_drop_and_pause_always_help(journal, code):
    """Any hold can be paused, which keeps it, and given up, which ends it."""
    number = held(journal, code)
    people.pause(journal, number, paused=True)
    assert condition(journal, number) == (Condition.HELD, code)
    assert views.project(journal, number).paused
    people.pause(journal, number, paused=False)
    assert condition(journal, number) == (Condition.HELD, code)
    people.drop(journal, number)
    assert views.project(journal, number).condition is Condition.DROPPED
    assert views.status(journal)[0]["hold"] is None


@pytest.mark.parametrize("state", [State.FOUND, State.SETTLED, State.UPLOADED])
@pytest.mark.parametrize("code", HOLDS)
def test_giving_up_is_no_approval(journal, code, state):
    """What waits for a person's approval still does when the project was given up and is taken up again.

    Before the creation the checks run again, and ask what they asked.
    """
    number = held(journal, code, state)
    people.drop(journal, number)
    answer = people.retry(journal, number)
    project = views.project(journal, number)
    assert (project.accepted, project.report is None) == ((), state in (State.FOUND, State.SETTLED))
    asked = "approve" in HOLDS[code].commands and not HOLDS[code].by_folder and state is not State.SETTLED
    assert (project.condition, project.hold_code) == ((Condition.HELD, code) if asked else (Condition.ACTIVE, None))
    assert answer == (f"taken up again, and still held: {code}" if asked else "taken up again")


@pytest.mark.parametrize("command", [people.approve, people.retry])
def test_checks_run_again_before_the_creation(journal, command):
    """What lifts a hold of the checks lets them run again, so that a retry is no approval by the back door."""
    number = reach(journal, State.SETTLED)
    checked(journal, number, hold=(HoldCode.TOO_FEW_IMAGES, "3 images"))
    assert condition(journal, number) == (Condition.HELD, HoldCode.TOO_FEW_IMAGES)
    command(journal, number)
    assert views.project(journal, number).report is None
    assert views.due(journal, 0.0, 600.0)[0].id == number


def test_start_may_be_allowed_early(journal):
    """A start that is allowed before the project is ready counts when it is; asked twice it is allowed once."""
    number = reach(journal, State.SETTLED)
    checked(journal, number)
    for _ in range(2):
        people.start(journal, number)
    project = views.project(journal, number)
    assert project.accepted == (HoldCode.MANUAL_START,)
    assert project.report is not None


@pytest.mark.parametrize("state", [State.STARTED, State.PROCESSED, State.DELIVERED])
def test_nothing_starts_twice(journal, state):
    """`start` refuses a project that was started, and names how far it is."""
    number = reach(journal, state)
    with pytest.raises(Refusal, match=f"survey/flight was started already, it is {state}"):
        people.start(journal, number)


def test_what_is_not_held_cannot_be_approved(journal):
    """`approve` refuses a project that goes on by itself."""
    number = reach(journal, State.CREATED)
    with pytest.raises(Refusal, match="survey/flight is not held; there is nothing to approve"):
        people.approve(journal, number)


def test_what_is_done_cannot_be_given_up(journal):
    """`drop` refuses a finished project, unless late images hold it."""
    number = reach(journal, State.DELIVERED)
    with pytest.raises(Refusal, match="survey/flight is done; there is nothing to give up"):
        people.drop(journal, number)
    projects.hold(journal, number, HoldCode.LATE_IMAGES, "2 came too late")
    people.drop(journal, number)
    assert views.project(journal, number).condition is Condition.DROPPED


@pytest.mark.parametrize("command", [people.approve, people.start])
def test_refusal_for_a_dropped_project_names_retry(journal, command):
    """For a project that was given up, a refusal says how to take it up again."""
    number = reach(journal, State.CREATED)
    people.drop(journal, number)
    with pytest.raises(Refusal, match=r"given up\. To take it up again: pix4d-watcher retry FOLDER"):
        command(journal, number)


@pytest.mark.parametrize("state", list(State))
def test_dropped_project_is_taken_up_again(journal, state):
    """`retry` takes a dropped project up where it stood."""
    number = reach(journal, state)
    projects.hold(journal, number, HoldCode.CLOUD_REFUSED, "no")
    people.drop(journal, number)
    assert people.retry(journal, number) == "taken up again"
    project = views.project(journal, number)
    assert (project.state, project.condition, project.due_at) == (state, Condition.ACTIVE, None)


def test_folder_that_is_gone_is_not_taken_up_again(journal):
    """A folder that went before it was frozen cannot be taken up; the refusal says what would do."""
    number = found(journal)
    folders.folders_gone(journal, [number])
    with pytest.raises(Refusal, match=r"is gone from the drop directory.*; put it back"):
        people.retry(journal, number)


def test_part_of_a_mission_is_not_taken_up_again(journal):
    """A folder that was complete and became a part of a mission is not sent beside it."""
    number, mission = reach(journal, State.SETTLED, b"y_1"), found(journal, b"y", inode=12)
    missions.members_changed(journal, [mission], members=[b"y_1", b"y_2"], absorbed=[number])
    with pytest.raises(Refusal, match="a part of a mission"):
        people.retry(journal, number)


def test_retry_gives_every_image_a_fresh_start(journal):
    """`retry` makes failed images and results due at once, with their tries forgotten; sent ones stay as they are."""
    number = reach(journal, State.CREATED)
    uploads.uploaded(journal, image_of(journal, number, 2), "etag")
    uploads.failed(journal, image_of(journal, number), "reset", due_at=9e9)
    projects.trouble(journal, number, "no route", due_at=9e9)
    offer(journal, number)
    results.not_fetched(journal, views.outputs_of(journal, number)[0], "reset")
    people.retry(journal, number)
    image = image_of(journal, number)
    assert (image.tries, image.due_at, image.error, image.look_again) == (0, None, None, False)
    assert statuses(journal, number) == ["pending", "pending", "uploaded"]
    assert [output.tries for output in views.outputs_of(journal, number)] == [0]
    project = views.project(journal, number)
    assert (project.tries, project.due_at) == (0, None)


@pytest.mark.parametrize("code", [HoldCode.SOURCE_MISSING, HoldCode.SOURCE_CHANGED])
def test_retry_accepts_just_the_images_in_question(journal, code):
    """`retry` for changed or missing images lets those be frozen anew that had an error, and no others."""
    number = reach(journal, State.CREATED)
    uploads.failed(journal, image_of(journal, number, 1), "is not what was checked", due_at=0.0)
    projects.hold(journal, number, code, "because")
    people.retry(journal, number)
    assert [image.look_again for image in views.images_of(journal, number)] == [False, True, False]


@pytest.mark.parametrize("kind", list(EffectKind))
def test_retry_asks_again_in_doubt(journal, kind):
    """`retry` in doubt lifts the hold and leaves the effect open, so that the cloud is asked again."""
    number, effect = in_doubt(journal, kind)
    people.retry(journal, number)
    assert condition(journal, number) == (Condition.ACTIVE, None)
    assert views.open_effect(journal, number).id == effect.id


@pytest.mark.parametrize("kind", list(EffectKind))
def test_a_person_says_not_done(journal, kind):
    """`retry --not-done` closes the effect as undone; the same may be asked again, and nothing has advanced."""
    number, effect = in_doubt(journal, kind)
    state = views.project(journal, number).state
    assert people.retry(journal, number, verdict=False) == "recorded"
    closed = views.effects_of(journal, number)[-1]
    assert (closed.id, closed.status, closed.learnt) == (effect.id, EffectStatus.UNDONE, Learnt.PERSON)
    assert condition(journal, number) == (Condition.ACTIVE, None)
    assert views.project(journal, number).state is state


def test_a_person_says_registered(journal):
    """`retry --done` for a batch registers its images."""
    number, _effect = in_doubt(journal, EffectKind.REGISTER)
    people.retry(journal, number, verdict=True)
    closed = views.effects_of(journal, number)[-1]
    assert (closed.status, closed.learnt) == (EffectStatus.DONE, Learnt.PERSON)
    assert statuses(journal, number) == ["registered"] * 3
    assert views.project(journal, number).state is State.UPLOADED


def test_a_person_says_started(journal):
    """`retry --done` for the start makes the project started."""
    number, _effect = in_doubt(journal, EffectKind.START)
    people.retry(journal, number, verdict=True)
    assert views.effects_of(journal, number)[-1].status is EffectStatus.DONE
    project = views.project(journal, number)
    assert (project.state, project.condition) == (State.STARTED, Condition.ACTIVE)
    assert project.started_at is not None


def test_a_person_cannot_say_created(journal):
    """`retry --done` for a creation is refused, since its id is not known; the text names the marker and the ways."""
    number, effect = in_doubt(journal, EffectKind.CREATE)
    marker = views.project(journal, number).marker
    with pytest.raises(Refusal, match=rf"\[{marker}\].*retry --not-done"):
        people.retry(journal, number, verdict=True)
    assert views.open_effect(journal, number).id == effect.id


@pytest.mark.parametrize("verdict", [True, False])
@pytest.mark.parametrize("situation", ["active", "held for another cause", "dropped in doubt"])
def test_a_verdict_needs_a_doubt(journal, verdict, situation):
    """`--done` and `--not-done` are refused, and change nothing, unless the project is held in doubt."""
    if situation == "dropped in doubt":
        number, _effect = in_doubt(journal, EffectKind.START)
        people.drop(journal, number)
    else:
        number = reach(journal, State.SETTLED)
        checked(journal, number)
        intend(journal, number)
    if situation == "held for another cause":
        projects.hold(journal, number, HoldCode.CLOUD_REFUSED, "no")
    before = dump(journal)
    with pytest.raises(Refusal, match="is not in doubt; there is nothing to decide"):
        people.retry(journal, number, verdict=verdict)
    assert dump(journal) == before
