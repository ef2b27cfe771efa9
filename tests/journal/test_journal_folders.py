"""Folders as the scanner sees them: found, renamed, gone and back, frozen, late."""

import pytest
from journal_kit import (
    batch,
    checked,
    dump,
    found,
    frozen,
    frozen_image,
    image_of,
    images,
    intend,
    reach,
    start_intent,
    statuses,
    upload_all,
)
from sqlalchemy.exc import IntegrityError

from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import Condition, EffectStatus, HoldCode, ImageStatus, State
from pix4d_watcher.journal import effects, folders, people, projects, views
from pix4d_watcher.journal import late as late_verbs
from pix4d_watcher.journal.change import Stale
from pix4d_watcher.journal.folders import NewFolder

LATE = [frozen_image("100MEDIA/LATE_1.JPG"), frozen_image("100MEDIA/LATE_2.JPG")]
HUGE = 2**64 - 1


def late(journal, number, skipped=()):
    keys = {image.path: image.path.decode() for image in LATE if image.path not in skipped}
    folders.late_images(
        journal, number, LATE, keys=keys, skipped=dict.fromkeys(skipped, "same content"), fingerprint=b"later"
    )


def too_late(journal, number, text="2 images came too late"):
    late_verbs.held(journal, number, LATE, text=text, fingerprint=b"later")


def test_found_folder_is_a_project(journal):
    """A new folder becomes a project with a marker of its own, its name as bytes and its numbers unsigned."""
    first, second = folders.folders_found(
        journal, "survey", [NewFolder(b"M\xe9moire", HUGE, HUGE - 1, 5), NewFolder(b"caf\xc3\xa9", 7, 12)]
    )
    project = views.project(journal, first)
    assert (project.root, project.folder, project.round) == ("survey", b"M\xe9moire", 1)
    assert (project.device, project.inode, project.seen_images) == (HUGE, HUGE - 1, 5)
    assert (project.state, project.condition, project.present) == (State.FOUND, Condition.ACTIVE, True)
    assert project.title == r"survey/M\xe9moire"
    assert len({project.marker, views.project(journal, second).marker}) == 2
    assert [row.id for row in views.folders_of(journal, "survey")] == [first, second]
    assert views.folders_of(journal, "other") == []


def test_first_scan_is_one_transaction(journal):
    """A first scan that meets an archive holds or ignores every folder of it, or none where it fails half-way."""
    archive = [NewFolder(b"flight %d" % number, 7, number) for number in range(3)]
    twice = [*archive, NewFolder(None, 7, 99)]
    with pytest.raises(IntegrityError):
        folders.folders_found(journal, "survey", twice, hold="3 folders were there")
    assert views.folders_of(journal, "survey") == []
    for number in folders.folders_found(journal, "survey", archive, hold="3 folders were there"):
        project = views.project(journal, number)
        assert (project.condition, project.hold_code) == (Condition.HELD, HoldCode.APPROVAL)
        assert project.hold_text == "3 folders were there"
    for number in folders.folders_found(journal, "old", archive, ignore="there before"):
        project = views.project(journal, number)
        assert (project.condition, project.hold_code, project.hold_text) == (Condition.DROPPED, None, None)
        assert views.events_of(journal, number, 5)[-1][1:] == ("found", "there before")


def test_rename_keeps_the_project(journal):
    """A renamed folder is the same project with the same round; to see it again unchanged is no news."""
    number = reach(journal, State.CREATED, b"New folder")
    assert folders.folder_moved(journal, number, name=b"Quarry", device=8, inode=HUGE)
    project = views.project(journal, number)
    assert (project.folder, project.device, project.inode, project.round) == (b"Quarry", 8, HUGE, 1)
    assert (project.state, project.remote_id) == (State.CREATED, 900 + number)
    assert views.events_of(journal, number, 1)[0][2] == "New folder is now called Quarry"
    assert not folders.folder_moved(journal, number, name=b"Quarry", device=8, inode=HUGE)


def test_rename_to_a_used_name_is_a_further_round(journal):
    """A folder that takes a name with results gets the next number; two that swap their names get on, too."""
    first, second = reach(journal, State.SETTLED, b"a"), reach(journal, State.SETTLED, b"b", inode=12)
    folders.folder_moved(journal, first, name=b"b", device=7, inode=11)
    folders.folder_moved(journal, second, name=b"a", device=7, inode=12)
    assert [views.project(journal, number).title for number in (first, second)] == ["survey/b#2", "survey/a"]


def test_gone_and_back_is_a_new_folder(journal):
    """A name that was seen to be gone and comes back is a new project with the next round; the old one goes on."""
    old = reach(journal, State.CREATED, b"DCIM")
    folders.folders_gone(journal, [old])
    assert views.folders_of(journal, "survey") == []
    new = found(journal, b"DCIM")
    assert [views.project(journal, number).title for number in (old, new)] == ["survey/DCIM", "survey/DCIM#2"]
    assert views.project(journal, old).condition is Condition.ACTIVE
    assert [row.id for row in views.folders_of(journal, "survey")] == [new]


@pytest.mark.parametrize("replaced", [False, True], ids=["gone", "replaced between two scans"])
def test_unfinished_folder_that_is_gone_is_dropped(journal, replaced):
    """A folder that goes before it was frozen is dropped, held or not, so that nothing waits for it for ever."""
    number = found(journal, b"DCIM", hold="asked first")
    if replaced:
        assert views.project(journal, found(journal, b"DCIM", inode=12, count=0)).round == 2
    else:
        folders.folders_gone(journal, [number])
    project = views.project(journal, number)
    assert (project.condition, project.present, project.hold_code) == (Condition.DROPPED, False, None)
    assert views.events_of(journal, number, 1)[0][2] == "the folder is gone before it was complete"
    assert views.busy(journal) is None


def test_frozen_manifest_is_kept_as_it_was(journal):
    """Freezing keeps each image as it was read: bytes of its name, numbers of any size, hash, facts."""
    odd = frozen_image(b"DJI_\xe9.JPG", size=2**40, mtime_ns=2**64 - 1, ctime_ns=-(2**62), inode=HUGE)
    number = found(journal)
    folders.frozen(journal, number, [odd, *images(2)], fingerprint=b"\x00\xff", others=[b"M\xe9mo.txt"])
    assert {image.frozen for image in views.images_of(journal, number)} == {odd, *images(2)}
    project = views.project(journal, number)
    assert (project.state, project.fingerprint, project.seen_images) == (State.SETTLED, b"\x00\xff", 3)
    assert project.others == [r"M\xe9mo.txt"]
    assert views.paths_of(journal, number)[b"DJI_\xe9.JPG"] == 2**40


def test_frozen_again_while_settled(journal):
    """A folder that changes before the creation is frozen anew: the old images and the old report are gone."""
    number = reach(journal, State.SETTLED)
    checked(journal, number)
    folders.frozen(journal, number, images(5), fingerprint=b"changed")
    project = views.project(journal, number)
    assert (len(views.images_of(journal, number)), project.report, project.fingerprint) == (5, None, b"changed")


@pytest.mark.parametrize("code", list(HoldCode))
def test_a_changed_folder_lifts_what_it_can(journal, code):
    """Freezing anew lifts the holds that a change of the folder lifts, and no other."""
    number = reach(journal, State.SETTLED)
    projects.hold(journal, number, code, "because")
    frozen(journal, number, 4)
    project = views.project(journal, number)
    assert project.hold_code is (None if HOLDS[code].by_folder else code)
    assert project.condition is (Condition.ACTIVE if HOLDS[code].by_folder else Condition.HELD)


def test_frozen_again_after_a_creation_that_came_to_nothing(journal):
    """While the outcome of a creation is open the manifest stands; once it surely came to nothing it may change."""
    number = reach(journal, State.SETTLED)
    checked(journal, number)
    effect = intend(journal, number)
    with pytest.raises(Stale):
        frozen(journal, number, 4)
    effects.undone(journal, effect, "never sent")
    frozen(journal, number, 4)
    assert len(views.images_of(journal, number)) == 4


@pytest.mark.parametrize("state", [State.CREATED, State.UPLOADED, State.REGISTERED])
def test_late_images_join(journal, state):
    """Images that come before the start join as a further batch: the one step back, to created."""
    number = reach(journal, state)
    before = statuses(journal, number)
    late(journal, number, skipped=[LATE[1].path])
    project = views.project(journal, number)
    assert (project.state, project.fingerprint, project.due_at) == (State.CREATED, b"later", None)
    assert statuses(journal, number) == [*before, "pending", "skipped"]
    assert image_of(journal, number, 4).reason == "same content"
    upload_all(journal, number)
    projects.advance(journal, number, State.CREATED, State.UPLOADED, "again")
    assert len(batch(journal, number).request["keys"]) == (1 if state is State.REGISTERED else 4)


@pytest.mark.parametrize("code", list(HoldCode))
def test_late_images_lift_what_held_the_start(journal, code):
    """Late images lift a hold that only the start waited for, since it would hold their upload; no other."""
    number = reach(journal, State.REGISTERED)
    projects.hold(journal, number, code, "because")
    late(journal, number)
    lifts = HOLDS[code].by_folder or code in (HoldCode.MANUAL_START, HoldCode.NO_CREDIT, HoldCode.LATE_IMAGES)
    assert views.project(journal, number).condition is (Condition.ACTIVE if lifts else Condition.HELD)
    assert [image.path for image in views.to_upload(journal, 0.0, 600.0, but=[], most=9)] == (
        [image.path for image in LATE] if lifts else []
    )


def test_late_images_wait_for_an_open_start(journal):
    """Once the start is asked for, late images do not join; they may again if it surely came to nothing."""
    number = reach(journal, State.REGISTERED)
    effect = start_intent(journal, number)
    with pytest.raises(Stale, match="start"):
        late(journal, number)
    effects.undone(journal, effect, "never sent")
    late(journal, number)
    assert views.project(journal, number).state is State.CREATED


@pytest.mark.parametrize("state", [State.STARTED, State.PROCESSED, State.DELIVERED])
def test_too_late_images_hold(journal, state):
    """Images that come after the start are kept as skipped, with their reason, and the project is held."""
    number = reach(journal, state)
    too_late(journal, number)
    project = views.project(journal, number)
    assert (project.state, project.condition, project.hold_code) == (state, Condition.HELD, HoldCode.LATE_IMAGES)
    assert project.hold_text == "2 images came too late"
    assert [image.status for image in views.images_of(journal, number)][3:] == [ImageStatus.SKIPPED] * 2
    assert image_of(journal, number, 3).reason == "came after processing had started"


def test_too_late_images_during_the_start(journal):
    """While the start is open, late images count as too late: nobody knows what it will process."""
    number = reach(journal, State.REGISTERED)
    start_intent(journal, number)
    too_late(journal, number)
    assert views.project(journal, number).hold_code is HoldCode.LATE_IMAGES
    assert views.open_effect(journal, number).status is EffectStatus.OPEN


@pytest.mark.parametrize("code", [code for code, hold in HOLDS.items() if hold.by_itself])
def test_too_late_images_are_asked_about_whatever_lifts_by_itself(journal, code):
    """A hold that lifts by itself gives way to the question about late images, which else nobody would be asked."""
    number = reach(journal, State.STARTED)
    projects.hold(journal, number, code, "it broke", due_at=1.0)
    too_late(journal, number)
    project = views.project(journal, number)
    assert (project.hold_code, project.hold_text) == (HoldCode.LATE_IMAGES, "2 images came too late")


def test_too_late_images_keep_a_hold_that_needs_a_person(journal):
    """A hold that a person has to lift stays, and its text says that images came late, too."""
    number = reach(journal, State.STARTED)
    projects.hold(journal, number, HoldCode.IN_DOUBT, "start: nobody knows")
    too_late(journal, number)
    project = views.project(journal, number)
    assert project.hold_code is HoldCode.IN_DOUBT
    assert project.hold_text == "start: nobody knows. 2 images came too late"
    assert views.events_of(journal, number, 1)[0][1:] == ("held", f"in_doubt: {project.hold_text}")


def test_new_content_of_an_image_that_stayed_behind(journal):
    """A late image that was damaged and came once more takes the same row, is to be sent, and has a key of its own."""
    number = reach(journal, State.REGISTERED)
    late(journal, number, skipped=[LATE[1].path])
    behind = {image.path: image for image in views.images_of(journal, number)}[LATE[1].path]
    again = frozen_image("100MEDIA/LATE_2.JPG", content="whole", size=4711)
    folders.late_images(journal, number, [again], keys={again.path: "LATE_2b.JPG"}, skipped={}, fingerprint=b"again")
    image = views.image(journal, behind.id)
    assert (image.status, image.reason, image.key) == (ImageStatus.PENDING, None, "LATE_2b.JPG")
    assert image.frozen == again


def test_a_rewritten_image_is_told_once(journal):
    """What was rewritten after it was sent is marked and told once."""
    number = reach(journal, State.DELIVERED)
    image = image_of(journal, number)
    for _ in range(2):
        late_verbs.seen_again(journal, number, {}, [image])
    told = [text for _at, kind, text in views.events_of(journal, number, 100) if kind == "late"]
    assert told == [f"{image.path.decode()} {late_verbs.REWRITTEN}"]
    assert views.image(journal, image.id).reason == late_verbs.REWRITTEN


def test_settling_is_said_only_where_it_matters(journal):
    """Why a folder is not complete is noted while it is found, not for one that is frozen or given up."""
    waiting, settled, dropped = found(journal), reach(journal, State.SETTLED, b"b"), found(journal, b"c")
    people.drop(journal, dropped)
    before = dump(journal)["projects"]
    for number in (settled, dropped):
        folders.still_settling(journal, number, images=9, why="still growing")
    assert dump(journal)["projects"] == before
    folders.still_settling(journal, waiting, images=9, why="still growing")
    project = views.project(journal, waiting)
    assert (project.seen_images, project.waiting_for) == (9, "still growing")


def test_drop_directory_away_and_back(journal):
    """A drop directory is remembered with its numbers, when it was first seen, why it is away, and that it is back."""
    folders.root_absent(journal, "survey", "never seen")
    assert views.root(journal, "survey") is None
    seen = {"device": HUGE, "inode": HUGE, "loose": 2, "watching": "inotify"}
    folders.root_seen(journal, "survey", b"/m\xe9dia", **seen)
    first = views.root(journal, "survey")
    assert (first.path, first.device, first.inode, first.present, first.loose) == (b"/m\xe9dia", HUGE, HUGE, True, 2)
    folders.root_absent(journal, "survey", "survey: not mounted")
    away = views.root(journal, "survey")
    assert (away.present, away.problem, away.device) == (False, "survey: not mounted", HUGE)
    folders.root_seen(journal, "survey", b"/m\xe9dia", **{**seen, "inode": 5})
    (back,) = views.all_roots(journal)
    assert (back.present, back.problem, back.inode) == (True, "", 5)
    assert back.first_scan_at == first.first_scan_at
