"""Plain steps, the upload pool and the results: what each verb leaves behind."""

import pytest
from journal_kit import (
    batch,
    checked,
    found,
    frozen_image,
    image_of,
    images,
    offer,
    reach,
    statuses,
)

from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import Condition, HoldCode, ImageFacts, ImageStatus, State
from pix4d_watcher.journal import folders, people, projects, results, uploads, views
from pix4d_watcher.journal.change import Stale


def test_checks_mark_every_image(journal):
    """Checks give every image a key or a reason, write the report, and may hold; run again they decide anew."""
    number = reach(journal, State.SETTLED)
    first, second, third = (image.path for image in images(3))
    report = {"credits": 1.5, "findings": [{"text": "caf\u00e9 \U0001f6f8"}]}
    projects.checked(
        journal,
        number,
        report,
        skipped={first: "damaged", second: "same content"},
        keys={third: "c.JPG"},
        hold=(HoldCode.TOO_FEW_IMAGES, "1 image"),
        fingerprint=b"as it was",
    )
    project = views.project(journal, number)
    assert (project.report, project.condition, project.hold_text) == (report, Condition.HELD, "1 image")
    assert [(image.status, image.reason, image.key) for image in views.images_of(journal, number)] == [
        (ImageStatus.SKIPPED, "damaged", None),
        (ImageStatus.SKIPPED, "same content", None),
        (ImageStatus.PENDING, None, "c.JPG"),
    ]
    projects.checked(journal, number, {}, skipped={third: "x"}, keys={first: "c.JPG", second: "b.JPG"}, hold=None)
    assert [image.key for image in views.images_of(journal, number)] == ["c.JPG", "b.JPG", None]
    assert statuses(journal, number) == ["pending", "pending", "skipped"]


@pytest.mark.parametrize("old", HOLDS)
def test_no_hold_waves_another_through(journal, old):
    """A hold that lifts by itself never replaces one that needs a person, since it would let the project pass."""
    for new in HOLDS:
        number = found(journal)
        projects.hold(journal, number, old, "the first", due_at=5.0)
        projects.hold(journal, number, new, "the second", due_at=5.0)
        kept = HOLDS[new].by_itself and not HOLDS[old].by_itself
        project = views.project(journal, number)
        assert (project.hold_code, project.hold_text) == ((old, "the first") if kept else (new, "the second"))
        assert project.due_at == (5.0 if HOLDS[project.hold_code].by_itself else None)


def test_dropped_project_is_not_held(journal):
    """A step that ends after a person gave the project up does not hold it, and tells of no hold."""
    number = reach(journal, State.CREATED)
    people.drop(journal, number)
    told = views.events_of(journal, number, 99)
    projects.hold(journal, number, HoldCode.CLOUD_REFUSED, "no")
    assert views.project(journal, number).condition is Condition.DROPPED
    assert views.events_of(journal, number, 99) == told


def test_what_a_person_allowed_is_not_asked_again(journal):
    """A step that began before a person allowed the start does not hold the project for it once more."""
    number = reach(journal, State.REGISTERED)
    projects.hold(journal, number, HoldCode.MANUAL_START, "when you say so", due_at=5.0)
    people.start(journal, number)
    told = views.events_of(journal, number, 99)
    with pytest.raises(Stale):
        projects.hold(journal, number, HoldCode.MANUAL_START, "when you say so", due_at=5.0, unless_accepted=True)
    project = views.project(journal, number)
    assert (project.condition, project.hold_code, project.due_at) == (Condition.ACTIVE, None, None)
    assert views.events_of(journal, number, 99) == told


def test_only_the_same_hold_is_lifted(journal):
    """A hold whose cause is gone is lifted with its tries; another one that came meanwhile stays."""
    number = reach(journal, State.CREATED)
    projects.trouble(journal, number, "EIO", due_at=1.0)
    projects.hold(journal, number, HoldCode.MEDIA_ABSENT, "away", due_at=9e9)
    projects.lifted(journal, number, HoldCode.DISK_FULL, "there is room")
    assert views.project(journal, number).hold_code is HoldCode.MEDIA_ABSENT
    projects.lifted(journal, number, HoldCode.MEDIA_ABSENT, "it is back")
    project = views.project(journal, number)
    assert (project.condition, project.hold_code, project.due_at, project.tries) == (Condition.ACTIVE, None, None, 0)


def test_nothing_is_lifted_of_what_was_given_up(journal):
    """A hold that is kept with a project that was given up is lifted by `retry` alone, and by no look of the engine."""
    number = reach(journal, State.REGISTERED)
    projects.hold(journal, number, HoldCode.LATE_IMAGES, "one is not complete")
    people.drop(journal, number)
    projects.lifted(journal, number, HoldCode.LATE_IMAGES, "nothing more is on its way")
    folders.late_images(
        journal, number, [frozen_image("late.JPG")], keys={b"late.JPG": "late.JPG"}, skipped={}, fingerprint=b""
    )
    project = views.project(journal, number)
    assert (project.condition, project.hold_code) == (Condition.DROPPED, HoldCode.LATE_IMAGES)


def test_trouble_counts_and_success_forgets(journal):
    """Failed tries count unless they are the world's, the newest error is what is shown, and a good look ends both."""
    number = reach(journal, State.STARTED)
    projects.waiting(journal, number, "processing in the cloud", due_at=1.0)
    assert projects.trouble(journal, number, "503", due_at=2.0) == 1
    assert projects.trouble(journal, number, "no route", due_at=3.0, counts=False) == 1
    assert projects.trouble(journal, number, "503", due_at=4.0) == 2
    (shown,) = views.status(journal)
    assert (shown["waiting_for"], shown["error"], shown["due_at"]) == ("503", "503", "1970-01-01T00:00:04Z")
    projects.waiting(journal, number, "processing in the cloud", due_at=5.0)
    project = views.project(journal, number)
    assert (project.tries, project.error, project.waiting_for) == (0, None, "processing in the cloud")


def test_advance_stamps_and_clears(journal):
    """Each fact has its time, and what the step before it waited for is over; a jump in the order is a defect."""
    number = reach(journal, State.STARTED)
    projects.trouble(journal, number, "503", due_at=9e9)
    projects.advance(journal, number, State.STARTED, State.PROCESSED, "done")
    project = views.project(journal, number)
    assert (project.state, project.tries, project.due_at, project.error) == (State.PROCESSED, 0, None, None)
    times = [project.found_at, project.settled_at, project.created_at, project.uploaded_at]
    times += [project.registered_at, project.started_at, project.processed_at]
    assert times == sorted(times)
    assert project.delivered_at is None
    with pytest.raises(AssertionError, match="registered does not follow processed"):
        projects.advance(journal, number, State.PROCESSED, State.REGISTERED, "back")


def test_skipped_images_do_not_stop_a_project(journal):
    """A project with a skipped image goes on without it."""
    number = reach(journal, State.SETTLED)
    paths = [image.path for image in images(3)]
    keys = {path: path.decode() for path in paths[1:]}
    projects.checked(journal, number, {}, skipped={paths[0]: "damaged"}, keys=keys, hold=None)
    assert statuses(journal, number) == ["skipped", "pending", "pending"]
    assert views.counts(journal, number) == {
        ImageStatus.PENDING: 2,
        ImageStatus.UPLOADED: 0,
        ImageStatus.REGISTERED: 0,
        ImageStatus.SKIPPED: 1,
    }


def test_last_image_makes_the_project_due(journal):
    """An uploaded image is kept with its ETag; the last pending one says so and makes its project due at once."""
    number = reach(journal, State.CREATED)
    projects.waiting(journal, number, "3 images to send", due_at=9e9)
    assert not uploads.uploaded(journal, image_of(journal, number), "e1")
    assert not uploads.uploaded(journal, image_of(journal, number, 1), "e2")
    assert views.project(journal, number).due_at == 9e9
    assert uploads.uploaded(journal, image_of(journal, number, 2), "e3")
    assert views.project(journal, number).due_at is None
    assert [image.etag for image in views.images_of(journal, number)] == ["e1", "e2", "e3"]


def test_failed_image_stays_pending(journal):
    """A failed try counts unless it is the world's, and one that comes after the success changes nothing."""
    number = reach(journal, State.CREATED)
    assert uploads.failed(journal, image_of(journal, number), "reset", due_at=5.0) == 1
    assert uploads.failed(journal, image_of(journal, number), "no route", due_at=6.0, counts=False) == 1
    image = image_of(journal, number)
    assert (image.status, image.error, image.due_at, image.tries) == (ImageStatus.PENDING, "no route", 6.0, 1)
    uploads.uploaded(journal, image, "etag")
    uploads.failed(journal, image, "reset", due_at=7.0)
    image = image_of(journal, number)
    assert (image.status, image.error, image.due_at) == (ImageStatus.UPLOADED, None, None)


def test_upload_of_old_content_is_no_success(journal):
    """What was sent before an image was frozen anew is not recorded as its upload."""
    number = reach(journal, State.CREATED)
    sent = image_of(journal, number)
    uploads.begun(journal, sent)
    new = frozen_image(sent.path, content="new", size=9, inode=2**64 - 1, facts=ImageFacts("tiff", 10, 20))
    uploads.frozen_anew(journal, image_of(journal, number), new, "again.JPG")
    with pytest.raises(Stale):
        uploads.uploaded(journal, sent, "etag")
    image = image_of(journal, number)
    assert (image.frozen, image.key, image.begun, image.look_again) == (new, "again.JPG", False, False)
    assert uploads.uploaded(journal, image, "etag") is False


def test_new_identity_of_the_same_content(journal):
    """A chmod or a remount changes the record of the file and nothing else."""
    number = reach(journal, State.CREATED)
    image = image_of(journal, number)
    touched = frozen_image(image.path, mtime_ns=1, ctime_ns=2, inode=2**64 - 1).file_id
    uploads.same_content(journal, image, touched)
    again = image_of(journal, number)
    assert again.frozen.file_id == touched
    assert (again.sha256, again.key, again.status) == (image.sha256, image.key, image.status)


def test_parts_continue_only_their_own_upload(journal):
    """Parts are kept per multipart upload, may be sent again or lost, and go with the upload they belong to."""
    number = reach(journal, State.CREATED)
    image = image_of(journal, number)
    uploads.multipart_begun(journal, image, "first")
    uploads.part_done(journal, image, "first", 1, etag="a", size=8)
    uploads.part_done(journal, image, "first", 2, etag="b", size=8)
    uploads.part_done(journal, image, "first", 1, etag="c", size=8)
    assert uploads.parts_of(journal, image, "first") == {1: ("c", 8), 2: ("b", 8)}
    uploads.part_lost(journal, image, 2)
    assert uploads.parts_of(journal, image, "first") == {1: ("c", 8)}
    uploads.multipart_lost(journal, image)
    assert image_of(journal, number).upload_id is None
    uploads.multipart_begun(journal, image, "second")
    assert uploads.parts_of(journal, image, "first") == uploads.parts_of(journal, image, "second") == {}
    uploads.part_done(journal, image, "second", 1, etag="d", size=8)
    uploads.uploaded(journal, image, "etag-1")
    assert uploads.parts_of(journal, image, "second") == {}
    assert image_of(journal, number).upload_id is None


def test_outputs_have_names_of_their_own(journal):
    """Results are noted once each, under names that no filesystem mixes up; what is known keeps its name."""
    number = reach(journal, State.PROCESSED)
    wanted = ["ortho.tif", "Ortho.TIF", "ortho.tif", "report", "Report", ".hidden", ".HIDDEN"]
    outputs = [results.Offered(str(at), "kind", name, "bucket", f"out/{at}", None) for at, name in enumerate(wanted)]
    assert results.offered(journal, number, outputs[:3]) == 3
    assert results.offered(journal, number, outputs) == 4
    assert results.offered(journal, number, outputs) == 0
    names = [output.name for output in views.outputs_of(journal, number)]
    assert names == ["ortho.tif", "Ortho_2.TIF", "ortho_3.tif", "report", "Report_2", ".hidden", ".HIDDEN_2"]


def test_output_from_offer_to_disk(journal):
    """A download knows its object's size and ETag, forgets them when it was replaced, and ends fetched."""
    number = reach(journal, State.PROCESSED)
    offer(journal, number)

    def now():
        (output,) = views.outputs_of(journal, number)
        return output

    results.sized(journal, now(), size=2**40, etag="e1")
    assert (now().size, now().etag, now().fetched) == (2**40, "e1", False)
    results.not_fetched(journal, now(), "reset")
    results.replaced(journal, now(), "another object")
    assert (now().size, now().etag, now().error, now().tries) == (None, None, "another object", 2)
    results.fetched(journal, now())
    assert (now().fetched, now().error) == (True, None)
    assert views.status(journal)[0]["outputs"] == {"total": 1, "fetched": 1}


def test_cloud_status_is_told_when_it_changes(journal):
    """A new word of the cloud is kept and told once."""
    number = reach(journal, State.STARTED)
    for word in ("PROCESSING", "PROCESSING", "DONE"):
        projects.cloud_said(journal, number, word, f"the cloud says {word}")
    assert views.project(journal, number).cloud_status == "DONE"
    told = [text for _, kind, text in views.events_of(journal, number, 99) if kind == "cloud"]
    assert told == ["the cloud says PROCESSING", "the cloud says DONE"]


def test_history_is_kept_per_project(journal):
    """The last events of a project come in their order, and no other project's are among them."""
    number, other = found(journal, b"a"), reach(journal, State.UPLOADED, b"b")
    people.pause(journal, number, paused=True)
    folders.still_settling(journal, number, images=1, why="growing")
    assert [kind for _, kind, _ in views.events_of(journal, number, 99)] == ["found", "paused"]
    kinds = [kind for _, kind, _ in views.events_of(journal, other, 99)]
    assert kinds == ["found", "settled", "checked", "created", "uploaded"]
    assert [kind for _, kind, _ in views.events_of(journal, other, 2)] == ["created", "uploaded"]
    assert batch(journal, other).part == 1


def test_checks_of_an_older_manifest_are_refused(journal):
    """A folder frozen anew while its images were checked keeps its new manifest, and is checked again."""
    number = reach(journal, State.SETTLED)
    before = views.project(journal, number).fingerprint
    folders.frozen(journal, number, images(3), fingerprint=b"repaired")
    with pytest.raises(Stale):
        checked(journal, number, fingerprint=before)
    assert views.project(journal, number).report is None
    checked(journal, number, fingerprint=b"repaired")
