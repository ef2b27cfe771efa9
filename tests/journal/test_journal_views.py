"""What is read: due work, the order of uploads, idleness, and the contract of `status --json`."""

import json
import time

import pytest
from journal_kit import (
    batch,
    checked,
    found,
    image_of,
    images,
    in_doubt,
    intend,
    offer,
    reach,
    start_intent,
)
from sqlalchemy import event

from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import EffectKind, HoldCode, State
from pix4d_watcher.journal import effects, folders, listing, people, projects, results, service, uploads, views

NOW, HORIZON = 1_000_000.0, 600.0
CONTRACT = {
    "root": str,
    "folder": str,
    "round": int,
    "state": str,
    "condition": str,
    "hold": (dict, type(None)),
    "remote_id": (int, type(None)),
    "images": dict,
    "bytes": dict,
    "waiting_for": (str, type(None)),
    "due_at": (str, type(None)),
    "outputs": dict,
}
MOVING = [state for state in State if state not in (State.FOUND, State.DELIVERED)]


def due(journal):
    return [project.id for project in views.due(journal, NOW, HORIZON)]


def to_upload(journal, but=(), most=99):
    found_images = views.to_upload(journal, NOW, HORIZON, but=set(but), most=most)
    return [(image.project_id, image.path[-8:-4].decode()) for image in found_images]


def status_of(journal, number):
    (row,) = views.status(journal, [number])
    return row


def test_what_is_due(journal):
    """Every active project between found and delivered is due, the oldest first; the scanner has the found ones."""
    numbers = {state: reach(journal, state, str(state).encode()) for state in State}
    assert due(journal) == [numbers[state] for state in MOVING]
    people.pause(journal, numbers[State.CREATED], paused=True)
    people.drop(journal, numbers[State.UPLOADED])
    assert due(journal) == [numbers[state] for state in MOVING if state not in (State.CREATED, State.UPLOADED)]


@pytest.mark.parametrize(
    ("due_at", "is_due"),
    [
        (NOW - 1, True),
        (NOW, True),
        (NOW + 1, False),
        (NOW + HORIZON, False),
        (NOW + HORIZON + 1, True),
        (NOW + 86400 * 400, True),
    ],
)
def test_when_it_is_due(journal, due_at, is_due):
    """A due time is kept, and one beyond the horizon is due now: the wall clock jumped. Images likewise."""
    number = reach(journal, State.CREATED)
    projects.waiting(journal, number, "later", due_at=due_at)
    uploads.failed(journal, image_of(journal, number), "reset", due_at=due_at)
    assert due(journal) == ([number] if is_due else [])
    assert len(to_upload(journal)) == (3 if is_due else 2)


@pytest.mark.parametrize("code", HOLDS)
def test_held_is_due_only_if_it_lifts_by_itself(journal, code):
    """A held project is looked at again only where the engine can lift the hold; paused, or not yet frozen, never."""
    number = reach(journal, State.REGISTERED)
    projects.hold(journal, number, code, "because")
    assert due(journal) == ([number] if HOLDS[code].by_itself else [])
    waiting = found(journal, b"other")
    projects.hold(journal, waiting, code, "because")
    assert waiting not in due(journal)
    people.pause(journal, number, paused=True)
    assert due(journal) == []


@pytest.mark.parametrize("paused", [False, True])
def test_dropped_is_due_while_an_effect_is_open(journal, paused):
    """A project that was given up is due until the outcome of its open effect is known, so that a twin is known."""
    number = reach(journal, State.REGISTERED)
    effect = start_intent(journal, number)
    people.pause(journal, number, paused=paused)
    people.drop(journal, number)
    assert due(journal) == [number]
    assert views.busy(journal)
    effects.undone(journal, effect, "never sent")
    assert due(journal) == []
    assert views.busy(journal) is None


def test_uploads_finish_the_oldest_first(journal):
    """The next images are those of the oldest project, in the order of freezing; what is under way is left out."""
    first, second = reach(journal, State.CREATED, b"a"), reach(journal, State.CREATED, b"b")
    everything = [(number, f"000{at}") for number in (first, second) for at in (1, 2, 3)]
    assert to_upload(journal) == everything
    assert to_upload(journal, most=4) == everything[:4]
    under_way = [image_of(journal, first, at).id for at in (0, 2)]
    assert to_upload(journal, but=under_way, most=1) == [(first, "0002")]
    assert to_upload(journal, but=under_way, most=2) == [(first, "0002"), (second, "0001")]
    uploads.uploaded(journal, image_of(journal, first), "etag")
    assert to_upload(journal) == everything[1:]


@pytest.mark.parametrize(
    "stop",
    [
        lambda journal, number: people.pause(journal, number, paused=True),
        people.drop,
        lambda journal, number: projects.hold(journal, number, HoldCode.MEDIA_ABSENT, "away", due_at=NOW),
    ],
    ids=["paused", "dropped", "held"],
)
def test_stopped_projects_upload_nothing(journal, stop):
    """Nothing more is sent for a project that is paused, dropped or held; other projects go on."""
    number, other = reach(journal, State.CREATED, b"a"), reach(journal, State.CREATED, b"b")
    reach(journal, State.SETTLED, b"c")
    stop(journal, number)
    assert {project for project, _ in to_upload(journal)} == {other}


@pytest.mark.parametrize("state", State)
def test_busy_until_delivered(journal, state):
    """The service is busy with every project that moves, says which, and is idle with what only waits for people."""
    number = reach(journal, state)
    assert views.busy(journal) == (None if state is State.DELIVERED else f"survey/flight is {state}")
    people.pause(journal, number, paused=True)
    assert views.busy(journal) is None
    people.pause(journal, number, paused=False)
    projects.hold(journal, number, HoldCode.CLOUD_REFUSED, "no")
    assert views.busy(journal) is None


def test_empty_folder_keeps_nobody_busy(journal):
    """A folder without images waits, and the service is idle; with the first image it is busy."""
    number = found(journal, count=0)
    assert views.busy(journal) is None
    folders.still_settling(journal, number, images=1, why="growing")
    assert views.busy(journal) == "survey/flight is found"


def test_open_effect_keeps_busy_only_while_it_is_looked_up(journal):
    """An outcome that is looked up by itself keeps the service busy; one that only a person can tell does not."""
    number, _effect = in_doubt(journal, EffectKind.START)
    assert views.busy(journal) is None
    people.retry(journal, number)
    assert views.busy(journal) == "survey/flight is registered"
    projects.hold(journal, number, HoldCode.NO_CREDIT, "0 credits", due_at=NOW)
    assert views.busy(journal) == "survey/flight: the outcome of a call to the cloud is not known yet"
    people.pause(journal, number, paused=True)
    assert views.busy(journal) is None


def test_status_keeps_its_contract(journal):
    """Every project, whatever its state, has the fields of the contract in their types, as JSON, oldest first."""
    numbers = [reach(journal, state, str(state).encode()) for state in State]
    rows = json.loads(json.dumps(views.status(journal)))
    assert [row["id"] for row in rows] == numbers
    for row, state in zip(rows, State, strict=True):
        assert {name: value for name, value in row.items() if not isinstance(value, CONTRACT.get(name, object))} == {}
        assert CONTRACT.keys() <= row.keys()
        assert (row["state"], row["condition"], row["round"], row["hold"]) == (state, "active", 1, None)
        assert row["images"].keys() == {"total", "pending", "uploaded", "registered", "skipped", "failed"}
        assert row["bytes"].keys() == {"total", "uploaded"}
        assert row["outputs"] == {"total": 0, "fetched": 0}
        counts = row["images"]
        parts = ("pending", "uploaded", "registered", "skipped")
        assert counts["total"] == sum(counts[name] for name in parts) == 3
    assert [row["remote_id"] for row in rows] == [None, None, *(900 + number for number in numbers[2:])]
    assert views.status(journal, []) == []


def test_status_counts_each_image_once(journal):
    """Each image counts at its present status, failed ones are part of pending, skipped ones add no bytes."""
    number = reach(journal, State.SETTLED)
    folders.frozen(journal, number, images(6), fingerprint=b"f")
    paths = [image.path for image in images(6)]
    keys = {path: path.decode() for path in paths[1:]}
    projects.checked(journal, number, {"credits": 1.2}, skipped={paths[0]: "damaged"}, keys=keys, hold=None)
    effects_of = intend(journal, number)
    effects.undone(journal, effects_of, "never sent")
    uploads.uploaded(journal, image_of(journal, number, 1), "e")
    uploads.failed(journal, image_of(journal, number, 2), "reset", due_at=NOW)
    uploads.failed(journal, image_of(journal, number, 3), "no route", due_at=NOW, counts=False)
    row = status_of(journal, number)
    assert row["images"] == {"total": 6, "pending": 4, "uploaded": 1, "registered": 0, "skipped": 1, "failed": 1}
    assert row["bytes"] == {"total": 5 * 8_000_000, "uploaded": 8_000_000}
    assert row["credits"] == 1.2


def test_status_shows_what_the_scan_saw(journal):
    """Before a folder is frozen its images as they were seen are pending, and what it waits for is said."""
    number = found(journal, count=0)
    folders.still_settling(journal, number, images=17, why="2 files still grow")
    row = status_of(journal, number)
    assert row["images"] == {"total": 17, "pending": 17, "uploaded": 0, "registered": 0, "skipped": 0, "failed": 0}
    assert (row["waiting_for"], row["bytes"]) == ("2 files still grow", {"total": 0, "uploaded": 0})
    empty = reach(journal, State.SETTLED, b"empty", count=5)
    folders.frozen(journal, empty, [], fingerprint=b"f")
    assert status_of(journal, empty)["images"]["total"] == 0


def test_status_shows_holds_and_pauses(journal):
    """A hold shows its code and text; `paused` is shown where nothing else holds, and never over what is over."""
    number, other = reach(journal, State.CREATED), reach(journal, State.DELIVERED, b"done")
    people.pause(journal, number, paused=True)
    paused = status_of(journal, number)
    assert (paused["hold"]["code"], paused["condition"], paused["paused"]) == ("paused", "active", True)
    assert "pix4d-watcher resume survey/flight" in paused["hold"]["text"]
    projects.hold(journal, number, HoldCode.NO_CREDIT, "0 credits left", due_at=0.0)
    held = status_of(journal, number)
    assert held["hold"] == {"code": "no_credit", "text": "0 credits left"}
    assert (held["condition"], held["due_at"]) == ("held", "1970-01-01T00:00:00Z")
    people.drop(journal, number)
    assert status_of(journal, number)["hold"] is None
    moving = reach(journal, State.CREATED, b"moving")
    service.put(journal, service.PAUSED_ALL, value=True)
    assert "pix4d-watcher resume --all" in status_of(journal, moving)["hold"]["text"]
    assert status_of(journal, other)["hold"] is None
    assert status_of(journal, number)["hold"] is None


def test_status_shows_names_as_they_are_typed(journal):
    r"""A name that is not UTF-8 appears with backslash escapes, as the contract says: `M\xe9moire`."""
    number = found(journal, b"M\xe9moire")
    assert json.loads(json.dumps(status_of(journal, number)))["folder"] == r"M\xe9moire"


def test_status_lists_every_round(journal):
    """Every round of a folder is listed, oldest first, with its outputs."""
    first = reach(journal, State.PROCESSED)
    offer(journal, first)
    results.fetched(journal, views.outputs_of(journal, first)[0])
    folders.folders_gone(journal, [first])
    found(journal)
    rows = views.status(journal)
    assert [(row["round"], row["present"], row["outputs"]) for row in rows] == [
        (1, False, {"total": 1, "fetched": 1}),
        (2, True, {"total": 0, "fetched": 0}),
    ]


def test_times_are_utc(journal):
    """Times are ISO 8601 in UTC."""
    assert views.moment(None) is None
    assert views.moment(1_714_557_600.9) == "2024-05-01T10:00:00Z"
    number = found(journal)
    assert status_of(journal, number)["found_at"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def test_headline_counts(journal):
    """The one line for systemd counts what moves, is held and is done; what was given up counts nowhere."""
    for state, name in ((State.FOUND, b"a"), (State.CREATED, b"b"), (State.DELIVERED, b"c")):
        reach(journal, state, name)
    projects.hold(journal, reach(journal, State.CREATED, b"d"), HoldCode.CLOUD_REFUSED, "no")
    people.drop(journal, found(journal, b"e"))
    assert listing.headline(journal) == "2 under way, 1 held, 1 done"


def test_last_event_of_a_kind(journal):
    """The number of the newest event grows with each event of the kinds that are asked for, and only with these."""
    assert views.last_event(journal) == 0
    number = found(journal)
    assert views.last_event(journal, ("paused",)) == 0
    people.pause(journal, number, paused=True)
    newest = views.last_event(journal, ("paused",))
    assert newest == views.last_event(journal) > 0
    projects.cloud_said(journal, number, "NEW", "new")
    assert views.last_event(journal, ("paused",)) == newest < views.last_event(journal)


@pytest.mark.parametrize(
    "look",
    [
        lambda journal: views.due(journal, NOW, HORIZON),
        lambda journal: views.to_upload(journal, NOW, HORIZON, but=[], most=4),
        views.busy,
        lambda journal: views.open_effect(journal, 1),
        lambda journal: views.effects_of(journal, 1),
        lambda journal: views.images_of(journal, 1),
        lambda journal: views.counts(journal, 1),
        lambda journal: views.folders_of(journal, "survey"),
        lambda journal: views.events_of(journal, 1, 5),
    ],
    ids=["due", "to_upload", "busy", "open_effect", "effects_of", "images_of", "counts", "folders_of", "events_of"],
)
def test_frequent_questions_use_an_index(journal, look):
    """What is asked again and again reads no whole table, however many projects and images there are."""
    number = reach(journal, State.UPLOADED)
    batch(journal, number)
    reach(journal, State.CREATED, b"other")
    plans = []

    def explain(_connection, cursor, statement, parameters, _context, _many):
        if statement.startswith("SELECT"):
            plans.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    event.listen(journal._reader, "before_cursor_execute", explain)
    try:
        look(journal)
    finally:
        event.remove(journal._reader, "before_cursor_execute", explain)
    assert [plan for plan in plans if "INDEX" in plan]
    assert not [plan for plan in plans if plan.startswith("SCAN")]


def test_uploads_are_read_in_the_order_of_the_index(journal):
    """The next image of a project is found without sorting all that are pending."""
    reach(journal, State.CREATED)
    with journal.read() as connection:
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT * FROM images WHERE status = 'pending' AND project_id = 1 ORDER BY id LIMIT 1"
        ).all()
    assert [row.detail for row in plan] == ["SEARCH images USING INDEX images_by_status (project_id=? AND status=?)"]


def test_checked_project_reads_back_whole(journal):
    """A report with nested lists and a list of accepted codes come back as they were given."""
    number = reach(journal, State.SETTLED)
    report = {"credits": 0.5, "skipped": [["a", "b"]], "findings": []}
    keys = {image.path: image.path.decode() for image in views.images_of(journal, number)}
    projects.checked(journal, number, report, skipped={}, keys=keys, hold=(HoldCode.APPROVAL, "dear"))
    people.approve(journal, number)
    checked(journal, number)
    assert views.project(journal, number).accepted == ("approval",)
    assert views.project(journal, number).report == {"credits": 0.6}
