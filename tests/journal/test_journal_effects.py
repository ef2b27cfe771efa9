"""Nothing twice, as far as the journal holds it: intents, batches, outcomes, and the indexes below them."""

import pytest
from journal_kit import (
    batch,
    checked,
    created,
    dump,
    found,
    frozen_image,
    image_of,
    images,
    intend,
    reach,
    start_intent,
    statuses,
)
from sqlalchemy import insert, text, update
from sqlalchemy.exc import IntegrityError

from pix4d_watcher.core.model import Condition, EffectKind, EffectStatus, HoldCode, Learnt, State
from pix4d_watcher.journal import effects, folders, people, projects, tables, uploads, views
from pix4d_watcher.journal.change import Stale


def effect_row(number, **other):
    row = {"project_id": number, "kind": "create", "part": 0, "status": "open", "request": {}, "waits": 0}
    return insert(tables.effects).values(asked_at=0.0, **{**row, **other})


def test_one_open_effect_per_project(journal):
    """A second open effect of a project breaks a rule of the database, whatever its kind."""
    number = reach(journal, State.REGISTERED)
    start_intent(journal, number)
    with pytest.raises(IntegrityError):
        start_intent(journal, number)
    with pytest.raises(IntegrityError), journal.write() as connection:
        connection.execute(effect_row(number, kind="register", part=9))
    assert [effect.kind for effect in views.effects_of(journal, number)] == ["create", "register", "start"]


def test_one_success_per_kind_and_part(journal):
    """A second success of the same kind and part breaks a rule of the database; undone tries do not count."""
    number = reach(journal, State.STARTED)
    with pytest.raises(IntegrityError), journal.write() as connection:
        connection.execute(effect_row(number, kind="start", status="done"))
    with journal.write() as connection:
        connection.execute(effect_row(number, kind="start", status="undone"))
        connection.execute(effect_row(number, kind="start", status="undone"))


@pytest.mark.parametrize("column", ["marker", "remote_id"])
def test_no_two_projects_share(journal, column):
    """A marker and a project of the cloud belong to one project of ours."""
    first, second = reach(journal, State.CREATED), reach(journal, State.CREATED, b"other")
    projects_of = tables.projects
    value = getattr(views.project(journal, first), column)
    with pytest.raises(IntegrityError), journal.write() as connection:
        connection.execute(update(projects_of).where(projects_of.c.id == second).values({column: value}))


def test_one_image_per_key_and_path(journal):
    """A key is given once in a project, and a path is frozen once; another project may use them, too."""
    number = reach(journal, State.CREATED)
    taken = image_of(journal, number, 1).key
    before = dump(journal)
    with pytest.raises(IntegrityError):
        uploads.frozen_anew(journal, image_of(journal, number), frozen_image(content="new"), taken)
    with pytest.raises(IntegrityError):
        folders.late_images(journal, number, images(1), keys={}, skipped={}, fingerprint=b"f")
    assert dump(journal) == before
    other = reach(journal, State.CREATED, b"other")
    assert image_of(journal, other, 1).key == taken


def test_batches_count_up(journal):
    """A batch is what is uploaded, in the order of the paths and at most as many as asked for; numbers never repeat."""
    number = reach(journal, State.UPLOADED)
    first = effects.intent_of_batch(journal, number, request={"count_before": 4}, most=2)
    assert (first.part, first.request["count_before"]) == (1, 4)
    assert first.request["keys"] == ["100MEDIA/DJI_0001.JPG", "100MEDIA/DJI_0002.JPG"]
    effects.undone(journal, first, "too large")
    second = effects.intent_of_batch(journal, number, request={}, most=1)
    assert (second.part, second.request["keys"]) == (2, ["100MEDIA/DJI_0001.JPG"])
    effects.registered(journal, second, Learnt.REPLY, {"taken": 1})
    assert statuses(journal, number) == ["registered", "uploaded", "uploaded"]
    third = batch(journal, number)
    assert (third.part, len(third.request["keys"])) == (3, 2)
    effects.registered(journal, third, Learnt.PROBE, {})
    assert batch(journal, number) is None
    assert [(effect.part, effect.status, effect.learnt) for effect in views.effects_of(journal, number)][1:] == [
        (1, EffectStatus.UNDONE, None),
        (2, EffectStatus.DONE, Learnt.REPLY),
        (3, EffectStatus.DONE, Learnt.PROBE),
    ]


def test_large_batch_is_whole(journal):
    """A batch of more images than one statement may name holds each of them once."""
    number = reach(journal, State.SETTLED)
    folders.frozen(journal, number, images(1203), fingerprint=b"f")
    checked(journal, number)
    created(journal, number, intend(journal, number))
    with journal.write() as connection:
        connection.execute(text("UPDATE images SET status = 'uploaded'"))
    projects.advance(journal, number, State.CREATED, State.UPLOADED, "all")
    effects.registered(journal, batch(journal, number), Learnt.REPLY, {})
    assert set(statuses(journal, number)) == {"registered"}


def test_difference_holds_with_the_registration(journal):
    """A batch whose answer names fewer images is registered and held in one transaction: it never starts unseen."""
    number = reach(journal, State.UPLOADED)
    hold = (HoldCode.INPUTS_DIFFER, "3 sent, 2 taken")
    effects.registered(journal, batch(journal, number), Learnt.REPLY, {"taken": 2}, hold=hold)
    project = views.project(journal, number)
    assert (project.hold_code, project.hold_text) == hold
    assert statuses(journal, number) == ["registered"] * 3


def test_registration_of_other_images_is_refused(journal):
    """A batch whose images are not those of its intent any more is not recorded as a success."""
    number = reach(journal, State.UPLOADED)
    effect = batch(journal, number)
    with journal.write() as connection:
        connection.execute(text("UPDATE images SET status = 'skipped' WHERE path = (SELECT max(path) FROM images)"))
    with pytest.raises(Stale, match="2 images instead of 3"):
        effects.registered(journal, effect, Learnt.REPLY, {})
    assert views.open_effect(journal, number).id == effect.id


def test_creation_is_kept_whole(journal):
    """The closed creation names the one project in the cloud, where its images go, and what was asked for."""
    number = reach(journal, State.SETTLED)
    checked(journal, number)
    effect = intend(journal, number)
    assert (effect.status, effect.request, effect.waits) == (EffectStatus.OPEN, {"marker": "m"}, 0)
    created(journal, number, effect, remote_id=2**40)
    project = views.project(journal, number)
    assert (project.state, project.remote_id, project.remote_name) == (State.CREATED, 2**40, "flight [m]")
    assert (project.bucket, project.prefix, project.page) == ("bucket", "p/7", "https://cloud.pix4d.com/7")
    (closed,) = views.effects_of(journal, number)
    assert (closed.status, closed.learnt, closed.answer) == (EffectStatus.DONE, Learnt.REPLY, {"id": 2**40})
    assert views.open_effect(journal, number) is None
    assert views.known_remote_ids(journal) == [2**40]


def test_outcome_of_a_dropped_project_is_recorded(journal):
    """A creation whose outcome becomes known after the project was given up is recorded, and it stays dropped."""
    number = reach(journal, State.SETTLED)
    checked(journal, number)
    effect = intend(journal, number)
    people.drop(journal, number)
    created(journal, number, effect)
    project = views.project(journal, number)
    assert (project.state, project.condition) == (State.CREATED, Condition.DROPPED)


@pytest.mark.parametrize("code", [HoldCode.MANUAL_START, HoldCode.NO_CREDIT])
@pytest.mark.parametrize("how", ["ours", "in the cloud's own page"])
def test_start_ends_what_waited_for_it(journal, code, how):
    """A start, ours or one made in the cloud's own page, lifts what held it, is a success, and blocks another."""
    number = reach(journal, State.REGISTERED)
    if how == "ours":
        effect = start_intent(journal, number)
        projects.hold(journal, number, code, "because")
        effects.started(journal, effect, Learnt.PROBE)
    else:
        projects.hold(journal, number, code, "because")
        effects.started_elsewhere(journal, number)
    project = views.project(journal, number)
    assert (project.state, project.condition, project.hold_code) == (State.STARTED, Condition.ACTIVE, None)
    last = views.effects_of(journal, number)[-1]
    assert (last.kind, last.status, last.learnt) == (EffectKind.START, EffectStatus.DONE, Learnt.PROBE)
    with pytest.raises(Stale):
        start_intent(journal, number)


def test_held_for_credits_may_ask_again(journal):
    """A project that waits for credits asks for its start by itself; every other hold keeps it from asking."""
    number = reach(journal, State.REGISTERED)
    for code in HoldCode:
        if code is HoldCode.NO_CREDIT:
            continue
        projects.hold(journal, number, code, "because")
        with pytest.raises(Stale):
            start_intent(journal, number)
        people.drop(journal, number)
        people.retry(journal, number)
    projects.hold(journal, number, HoldCode.NO_CREDIT, "0 credits")
    assert start_intent(journal, number).status is EffectStatus.OPEN


def test_waits_and_notes_are_counted(journal):
    """Each doubt_wait that ended without knowledge counts, and the reason of an undone effect is kept."""
    number = reach(journal, State.REGISTERED)
    effect = start_intent(journal, number)
    effects.waited(journal, effect)
    effect = views.open_effect(journal, number)
    assert effect.waits == 1
    effects.undone(journal, effect, "401 before anything was sent")
    closed = views.effects_of(journal, number)[-1]
    assert (closed.status, closed.note, closed.waits) == (EffectStatus.UNDONE, "401 before anything was sent", 1)
    assert closed.closed_at is not None
    assert start_intent(journal, number).waits == 0


def test_unknown_project_is_a_defect(journal):
    """An effect cannot be written for a project that is not there."""
    found(journal)
    with pytest.raises(IntegrityError), journal.write() as connection:
        connection.execute(effect_row(4711))
