"""What every verb promises alike: one transaction with its event row, and nothing changed where it raises."""

import inspect
from dataclasses import replace

import pytest
from journal_kit import (
    HOUR,
    batch,
    checked,
    created,
    dump,
    events,
    found,
    frozen,
    frozen_image,
    image_of,
    images,
    in_doubt,
    intend,
    offer,
    reach,
    start_intent,
)
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from pix4d_watcher.core.model import EffectKind, HoldCode, Learnt, State
from pix4d_watcher.journal import (
    afterwards,
    effects,
    folders,
    people,
    projects,
    results,
    rounds,
    service,
    skips,
    uploads,
    views,
)
from pix4d_watcher.journal import late as after_start
from pix4d_watcher.journal.change import Stale
from pix4d_watcher.journal.sent import content_set

LATE = [frozen_image("100MEDIA/LATE.JPG")]


def root_seen(journal, **other):
    facts = {"device": 7, "inode": 2, "loose": 0, "watching": "inotify"}
    folders.root_seen(journal, "survey", b"/drop", **{**facts, **other})


def held(code=HoldCode.SOURCE_CHANGED, state=State.CREATED):
    """Make a set-up that ends in a hold."""

    def prepare(journal):
        number = reach(journal, state)
        projects.hold(journal, number, code, "because")
        return number

    return prepare


def at(state):
    """Make a set-up that ends in a state."""
    return lambda journal: reach(journal, state)


def then(prepare, more):
    """Make a set-up of two."""

    def both(journal):
        number = prepare(journal)
        more(journal, number)
        return number

    return both


def then_another(prepare, more):
    """Make a set-up in which something was done to another settled project as well."""

    def both(journal):
        more(journal, reach(journal, State.SETTLED, b"another", inode=12))
        return prepare(journal)

    return both


def settled(journal):
    number = reach(journal, State.SETTLED)
    checked(journal, number)
    return number


def overridden(journal, number, fingerprint=None):
    now = views.project(journal, number).fingerprint
    projects.overridden(journal, number, {"name": "x"}, fingerprint=fingerprint or now, text="sets name")


def template_sent(journal, number):
    projects.template_sent(journal, number, "prefix/template/a.tmpl", "uploaded and registered")


def late(journal, number):
    folders.late_images(
        journal, number, LATE, keys={LATE[0].path: "LATE.JPG"}, skipped={}, fingerprint=b"with late ones"
    )


def too_late(journal, number):
    after_start.held(journal, number, LATE, text="1 image came too late", fingerprint=b"with late ones")


def not_complete(journal, number):
    after_start.not_complete(journal, number, "1 more image is in the folder, and not complete yet: notes.txt~")


def rewritten(journal, number):
    after_start.seen_again(journal, number, {}, [image_of(journal, number)])


def unasked(verb, journal, number):
    """Have late images come where no person is asked."""
    verb(journal, number, LATE, text="1 image came too late", fingerprint=b"with late ones")


def deliver(journal, number):
    projects.advance(journal, number, State.PROCESSED, State.DELIVERED, "done")


def pause_everything(journal, _number):
    service.put(journal, service.PAUSED_ALL, value=True)


def an_output(journal, number):
    return views.outputs_of(journal, number)[0]


def multipart(journal, number):
    uploads.multipart_begun(journal, image_of(journal, number), "upload-1")


def part(journal, number, upload_id="upload-1", part_number=1):
    uploads.part_done(journal, image_of(journal, number), upload_id, part_number, etag="e", size=8 << 20)


def close(verb, *arguments):
    """Make a call that closes the open effect of a project."""
    return lambda journal, number: verb(journal, views.open_effect(journal, number), *arguments)


CREATING = then(settled, intend)
REGISTERING = then(at(State.UPLOADED), batch)
STARTING = then(at(State.REGISTERED), start_intent)
OFFERED = then(at(State.PROCESSED), offer)
SENDING = then(at(State.CREATED), multipart)

TELLING = {
    "folders.root_seen": (lambda journal: 0, lambda journal, _: root_seen(journal)),
    "folders.root_absent": (root_seen, lambda journal, _: folders.root_absent(journal, "survey", "no such directory")),
    "folders.folders_found": (lambda journal: 0, lambda journal, _: found(journal)),
    "folders.folder_moved": (
        at(State.CREATED),
        lambda journal, number: folders.folder_moved(journal, number, name=b"renamed", device=7, inode=11),
    ),
    "folders.folders_gone": (at(State.FOUND), lambda journal, number: folders.folders_gone(journal, [number])),
    "folders.frozen": (at(State.FOUND), frozen),
    "folders.late_images": (at(State.REGISTERED), late),
    "late.held": (at(State.DELIVERED), too_late),
    "projects.checked": (at(State.SETTLED), checked),
    "projects.overridden": (at(State.SETTLED), overridden),
    "projects.template_sent": (at(State.REGISTERED), template_sent),
    "projects.hold": (
        at(State.CREATED),
        lambda journal, number: projects.hold(journal, number, HoldCode.CLOUD_REFUSED, "no"),
    ),
    "projects.lifted": (
        held(HoldCode.MEDIA_ABSENT),
        lambda journal, number: projects.lifted(journal, number, HoldCode.MEDIA_ABSENT, "it is back"),
    ),
    "projects.trouble": (
        at(State.CREATED),
        lambda journal, number: projects.trouble(journal, number, "no route", due_at=1.0),
    ),
    "projects.advance": (
        at(State.STARTED),
        lambda journal, number: projects.advance(journal, number, State.STARTED, State.PROCESSED, "done"),
    ),
    "projects.cloud_said": (
        at(State.STARTED),
        lambda journal, number: projects.cloud_said(journal, number, "PROCESSING", "it runs"),
    ),
    "effects.created": (CREATING, lambda journal, number: created(journal, number, views.open_effect(journal, number))),
    "effects.registered": (REGISTERING, close(effects.registered, Learnt.REPLY, {})),
    "effects.started": (STARTING, close(effects.started, Learnt.PROBE)),
    "effects.started_elsewhere": (at(State.REGISTERED), effects.started_elsewhere),
    "effects.undone": (CREATING, close(effects.undone, "never sent")),
    "effects.note_twins": (
        at(State.CREATED),
        lambda journal, number: effects.note_twins(journal, number, "an empty twin: 17"),
    ),
    "uploads.failed": (
        at(State.CREATED),
        lambda journal, number: uploads.failed(journal, image_of(journal, number), "reset", due_at=1.0),
    ),
    "uploads.frozen_anew": (
        at(State.CREATED),
        lambda journal, number: uploads.frozen_anew(
            journal, image_of(journal, number), frozen_image(content="new"), "new.JPG"
        ),
    ),
    "results.offered": (at(State.PROCESSED), offer),
    "results.fetched": (OFFERED, lambda journal, number: results.fetched(journal, an_output(journal, number))),
    "results.not_fetched": (
        OFFERED,
        lambda journal, number: results.not_fetched(journal, an_output(journal, number), "reset"),
    ),
    "results.replaced": (
        OFFERED,
        lambda journal, number: results.replaced(journal, an_output(journal, number), "another object"),
    ),
    "people.pause": (at(State.CREATED), lambda journal, number: people.pause(journal, number, paused=True)),
    "people.drop": (at(State.CREATED), people.drop),
    "people.approve": (held(HoldCode.APPROVAL, State.SETTLED), people.approve),
    "people.start": (held(HoldCode.MANUAL_START, State.REGISTERED), people.start),
    "people.retry": (held(HoldCode.SOURCE_CHANGED), people.retry),
    "people.retry, dropped": (then(at(State.CREATED), people.drop), people.retry),
    "people.retry, done": (
        lambda journal: in_doubt(journal, EffectKind.REGISTER)[0],
        lambda journal, number: people.retry(journal, number, verdict=True),
    ),
    "rounds.again": (at(State.DELIVERED), rounds.again),
    "rounds.renumber": (at(State.PROCESSED), lambda journal, number: rounds.renumber(journal, number, 2, "taken")),
    "late.not_complete": (at(State.REGISTERED), not_complete),
    "late.seen_again": (at(State.DELIVERED), rewritten),
    "late.ignored": (at(State.STARTED), lambda journal, number: unasked(after_start.ignored, journal, number)),
    "late.in_new_round": (
        at(State.STARTED),
        lambda journal, number: unasked(after_start.in_new_round, journal, number),
    ),
    "skips.skip": (
        held(HoldCode.SOURCE_MISSING),
        lambda journal, number: skips.skip(journal, number, ["DJI_0001.JPG"]),
    ),
    "service.put": (
        lambda journal: 0,
        lambda journal, _: service.put(journal, service.PAUSED_ALL, value=True, event="everything is paused"),
    ),
}
"""Verb → how to get there, and the call; each tells people in one event row."""

SEVERAL = {"rounds.again": 2, "late.in_new_round": 3}
"""How many events the verbs about two rounds write: each round has its own history."""

SILENT = {
    "folders.still_settling": (
        at(State.FOUND),
        lambda journal, number: folders.still_settling(journal, number, images=9, why="still growing"),
    ),
    "folders.looked_at": (
        at(State.DELIVERED),
        lambda journal, number: folders.looked_at(journal, number, b"a text file more"),
    ),
    "projects.waiting": (
        at(State.CREATED),
        lambda journal, number: projects.waiting(journal, number, "3 images to send", due_at=1.0),
    ),
    "projects.put_off": (
        at(State.CREATED),
        lambda journal, number: projects.put_off(journal, views.project(journal, number), due_at=1.0),
    ),
    "effects.intent": (settled, intend),
    "effects.intent_of_batch": (at(State.UPLOADED), batch),
    "effects.waited": (REGISTERING, close(effects.waited)),
    "uploads.begun": (
        at(State.CREATED),
        lambda journal, number: uploads.begun(journal, image_of(journal, number)),
    ),
    "uploads.uploaded": (
        at(State.CREATED),
        lambda journal, number: uploads.uploaded(journal, image_of(journal, number), "etag"),
    ),
    "uploads.all_failing": (
        at(State.CREATED),
        lambda journal, number: uploads.all_failing(journal, {image_of(journal, number).id: "it is gone"}),
    ),
    "uploads.same_content": (
        at(State.CREATED),
        lambda journal, number: uploads.same_content(
            journal, image_of(journal, number), frozen_image(inode=2**64 - 1).file_id
        ),
    ),
    "uploads.multipart_begun": (at(State.CREATED), multipart),
    "uploads.multipart_lost": (
        SENDING,
        lambda journal, number: uploads.multipart_lost(journal, image_of(journal, number)),
    ),
    "uploads.multipart_given_up": (
        SENDING,
        lambda journal, number: uploads.multipart_given_up(journal, image_of(journal, number)),
    ),
    "uploads.part_done": (SENDING, part),
    "uploads.part_lost": (
        then(SENDING, part),
        lambda journal, number: uploads.part_lost(journal, image_of(journal, number), 1),
    ),
    "results.placed": (
        at(State.PROCESSED),
        lambda journal, number: results.placed(journal, views.project(journal, number)),
    ),
    "results.sized": (
        OFFERED,
        lambda journal, number: results.sized(journal, an_output(journal, number), size=5, etag="e"),
    ),
}
"""Verbs that come by the thousand or repeat: the row they change is the whole record, an event would only add bulk."""

READING = {"effects.is_place_taken", "projects.not_stopped", "uploads.parts_of", "uploads.next_due", "service.get"}

SAME = content_set(image.sha256 for image in images(3))

STALE = {
    "frozen, once the creation is asked for": (CREATING, frozen),
    "frozen, once dropped": (then(at(State.FOUND), people.drop), frozen),
    "frozen, once created": (at(State.CREATED), frozen),
    "checked, once created": (at(State.CREATED), checked),
    "checked, another manifest": (
        at(State.SETTLED),
        lambda journal, number: checked(journal, number, fingerprint=b"as it was before"),
    ),
    "checked, other images": (
        at(State.SETTLED),
        lambda journal, number: projects.checked(
            journal, number, {}, skipped={}, keys={b"other.JPG": "other.JPG"}, hold=None
        ),
    ),
    "overridden, another manifest": (at(State.SETTLED), lambda journal, number: overridden(journal, number, b"before")),
    "overridden, once created": (at(State.CREATED), overridden),
    "template_sent, sent already": (then(at(State.REGISTERED), template_sent), template_sent),
    "late_images, once the start is asked for": (STARTING, late),
    "late_images, once started": (at(State.STARTED), late),
    "late_images, before the creation": (settled, late),
    "held, while they can still join": (at(State.REGISTERED), too_late),
    "held, after a start that came to nothing": (then(STARTING, close(effects.undone, "no")), too_late),
    "not_complete, once the start is asked for": (STARTING, not_complete),
    "not_complete, not registered yet": (at(State.CREATED), not_complete),
    "not_complete, accepted": (
        then(
            at(State.REGISTERED),
            lambda journal, number: (not_complete(journal, number), people.approve(journal, number)),
        ),
        not_complete,
    ),
    "in_new_round, while they can still join": (
        at(State.REGISTERED),
        lambda journal, number: unasked(after_start.in_new_round, journal, number),
    ),
    "in_new_round, the folder has a newer one": (
        then(at(State.DELIVERED), rounds.again),
        lambda journal, number: unasked(after_start.in_new_round, journal, number),
    ),
    "in_new_round, while the folder is put away": (
        then(
            at(State.DELIVERED),
            lambda journal, number: afterwards.begun(journal, [views.project(journal, number)], afterwards.deleting()),
        ),
        lambda journal, number: unasked(after_start.in_new_round, journal, number),
    ),
    "checked, a person took an image out meanwhile": (
        then(at(State.SETTLED), lambda journal, number: skips.skip(journal, number, ["DJI_0001.JPG"])),
        checked,
    ),
    "checked, another project has the same images by now": (
        then_another(at(State.SETTLED), lambda journal, number: checked(journal, number, content_set=SAME)),
        lambda journal, number: checked(journal, number, content_set=SAME, alone=True),
    ),
    "advance, another state": (
        at(State.STARTED),
        lambda journal, number: projects.advance(journal, number, State.PROCESSED, State.DELIVERED, "done"),
    ),
    "advance to uploaded, an image is pending": (
        at(State.CREATED),
        lambda journal, number: projects.advance(journal, number, State.CREATED, State.UPLOADED, "all"),
    ),
    "advance to registered, an image is not": (
        at(State.UPLOADED),
        lambda journal, number: projects.advance(journal, number, State.UPLOADED, State.REGISTERED, "all"),
    ),
    "advance to delivered, paused": (
        then(at(State.PROCESSED), lambda journal, number: people.pause(journal, number, paused=True)),
        deliver,
    ),
    "advance to delivered, everything paused": (then(at(State.PROCESSED), pause_everything), deliver),
    "advance to delivered, dropped": (then(at(State.PROCESSED), people.drop), deliver),
    "placed, renamed meanwhile": (
        at(State.PROCESSED),
        lambda journal, number: results.placed(journal, replace(views.project(journal, number), folder=b"before")),
    ),
    "intent, another state": (at(State.CREATED), intend),
    "intent, images not checked": (at(State.SETTLED), intend),
    "intent, paused": (then(settled, lambda journal, number: people.pause(journal, number, paused=True)), intend),
    "intent, everything paused": (then(settled, pause_everything), intend),
    "intent_of_batch, everything paused": (then(at(State.UPLOADED), pause_everything), batch),
    "intent, dropped": (then(settled, people.drop), intend),
    "intent, held": (
        then(settled, lambda journal, number: projects.hold(journal, number, HoldCode.APPROVAL, "dear")),
        intend,
    ),
    "intent_of_batch, another state": (at(State.CREATED), batch),
    "intent_of_batch, dropped": (then(at(State.UPLOADED), people.drop), batch),
    "started_elsewhere, not registered yet": (at(State.UPLOADED), effects.started_elsewhere),
    "begun, uploaded already": (
        at(State.UPLOADED),
        lambda journal, number: uploads.begun(journal, image_of(journal, number)),
    ),
    "part_done, another upload": (SENDING, lambda journal, number: part(journal, number, "upload-0")),
    "part_done, no upload": (at(State.CREATED), part),
    "pause, no such project": (
        lambda journal: 0,
        lambda journal, _: people.pause(journal, 4711, paused=True),
    ),
}
"""What is not true any more → how to get there, and the call that must change nothing."""


def test_every_verb_is_in_a_table():
    """No verb escapes the promises below: each public function that takes a journal is listed."""
    verbs = {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in (effects, folders, after_start, people, projects, results, rounds, service, skips, uploads)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and next(iter(inspect.signature(function).parameters)) == "journal"
    }
    assert verbs - READING == {name.partition(",")[0] for name in TELLING | SILENT}


@pytest.mark.parametrize("name", TELLING)
def test_verb_tells_in_one_event(journal, name):
    """A verb changes the journal and writes one event row."""
    prepare, verb = TELLING[name]
    number = prepare(journal)
    before = events(journal)
    verb(journal, number)
    assert events(journal) == before + SEVERAL.get(name, 1)


@pytest.mark.parametrize("name", TELLING)
def test_change_and_event_are_one_transaction(journal, name):
    """Where the event row cannot be written, the change is not there either."""
    prepare, verb = TELLING[name]
    number = prepare(journal)
    with journal.write() as connection:
        connection.execute(text("CREATE TRIGGER mute BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'mute'); END"))
    before = dump(journal)
    with pytest.raises(IntegrityError, match="mute"):
        verb(journal, number)
    assert dump(journal) == before


@pytest.mark.parametrize("name", SILENT)
def test_frequent_verb_writes_no_event(journal, name):
    """A verb that comes by the thousand changes the journal and adds no event row."""
    prepare, verb = SILENT[name]
    number = prepare(journal)
    before, told = dump(journal), events(journal)
    verb(journal, number)
    assert dump(journal) != before
    assert events(journal) == told


@pytest.mark.parametrize("name", STALE)
def test_stale_fact_changes_nothing(journal, name):
    """A verb whose expectation is not true any more raises Stale, and neither rows nor events change."""
    prepare, verb = STALE[name]
    number = prepare(journal)
    before = dump(journal)
    with pytest.raises(Stale):
        verb(journal, number)
    assert dump(journal) == before


@pytest.mark.parametrize("name", ["created", "registered", "started", "undone", "waited"])
def test_closed_effect_is_not_closed_again(journal, name):
    """The outcome of an effect is recorded once: a second record raises Stale and changes nothing."""
    prepare, _verb = {**TELLING, **SILENT}[f"effects.{name}"]
    number = prepare(journal)
    effect = views.open_effect(journal, number)
    effects.undone(journal, effect, "never sent")
    before = dump(journal)
    again = {
        "created": lambda: created(journal, number, effect),
        "registered": lambda: effects.registered(journal, effect, Learnt.REPLY, {}),
        "started": lambda: effects.started(journal, effect, Learnt.REPLY),
        "undone": lambda: effects.undone(journal, effect, "never sent"),
        "waited": lambda: effects.waited(journal, effect),
    }
    with pytest.raises(Stale):
        again[name]()
    assert dump(journal) == before


@pytest.mark.parametrize(
    "repeat",
    [
        lambda journal, number: projects.trouble(journal, number, "no route", due_at=1.0),
        lambda journal, number: projects.hold(journal, number, HoldCode.NO_CREDIT, "0 credits", due_at=HOUR),
        lambda journal, number: projects.cloud_said(journal, number, "PROCESSING", "it runs"),
        lambda journal, number: uploads.failed(journal, image_of(journal, number), "reset", due_at=1.0),
        lambda journal, number: folders.folders_gone(journal, [number]),
        lambda journal, number: folders.root_absent(journal, "survey", "no such directory"),
        lambda journal, number: root_seen(journal),
    ],
    ids=["trouble", "hold", "cloud_said", "failed", "folders_gone", "root_absent", "root_seen"],
)
def test_the_same_again_is_no_news(journal, repeat):
    """What repeats for weeks (a dead link, a poll, a scan) is told once: events do not grow with time."""
    number = reach(journal, State.CREATED)
    root_seen(journal)
    repeat(journal, number)
    told = events(journal)
    for _ in range(3):
        repeat(journal, number)
    assert events(journal) == told


def test_the_same_wait_writes_nothing(journal):
    """A folder that still copies is looked at every few seconds, and the disk is not flushed for the same words."""
    number = found(journal)
    folders.still_settling(journal, number, images=9, why="still growing")
    with journal.read() as connection:
        before = connection.execute(text("PRAGMA data_version")).scalar()
    folders.still_settling(journal, number, images=9, why="still growing")
    with journal.read() as connection:
        assert connection.execute(text("PRAGMA data_version")).scalar() == before
