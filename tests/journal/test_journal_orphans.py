"""Multipart uploads that nobody needs any more are kept until they are aborted, and no other is."""

import pytest
from journal_kit import frozen_image, image_of, reach

from pix4d_watcher.core.model import HoldCode, State
from pix4d_watcher.journal import orphans, people, projects, restored, rounds, skips, uploads, views
from pix4d_watcher.journal.change import Stale


def sending(journal):
    """Make a project whose first image is sent in parts, one of which arrived."""
    number = reach(journal, State.CREATED)
    image = image_of(journal, number)
    uploads.begun(journal, image)
    uploads.multipart_begun(journal, image, "upload-1")
    uploads.part_done(journal, image, "upload-1", 1, etag="e", size=8 << 20)
    return number


def next_orphan(journal, *, now=1000.0, but=()):
    return orphans.to_abort(journal, now, 600.0, but=but)


def skip(journal, number):
    skips.skip(journal, number, ["DJI_0001.JPG"])


def freeze_anew(journal, number):
    uploads.frozen_anew(journal, image_of(journal, number), frozen_image(content="new"), "another key")


def begin_anew(journal, number):
    projects.hold(journal, number, HoldCode.CLOUD_REFUSED, "no")
    rounds.again(journal, number)


def find_registered(journal, number):
    restored.caught_up(
        journal, views.project(journal, number), [image_of(journal, number)], "1 image more", started=False
    )


@pytest.mark.parametrize(
    "verb",
    [
        skip,
        people.drop,
        freeze_anew,
        begin_anew,
        find_registered,
        lambda journal, number: uploads.multipart_given_up(journal, image_of(journal, number)),
    ],
    ids=["skip", "drop", "frozen_anew", "again", "restored", "given_up"],
)
def test_what_is_not_needed_is_left_to_be_aborted(journal, verb):
    """Whatever ends an upload in the middle leaves its id and its key behind, and its parts are forgotten."""
    number = sending(journal)
    image, project = image_of(journal, number), views.project(journal, number)
    assert next_orphan(journal) is None
    verb(journal, number)
    orphan = next_orphan(journal)
    assert (orphan.upload_id, orphan.image_id, orphan.remote_id) == ("upload-1", image.id, project.remote_id)
    assert orphan.key == f"{project.prefix}/{image.key}"
    assert views.image(journal, image.id).upload_id is None
    assert uploads.parts_of(journal, image, "upload-1") == {}


def test_what_is_needed_is_left_alone(journal):
    """A hold, a pause, a break and the end of the upload abort nothing; nor does what happens to another image."""
    number = sending(journal)
    projects.hold(journal, number, HoldCode.SOURCE_MISSING, "gone")
    people.retry(journal, number)
    people.pause(journal, number, paused=True)
    skips.skip(journal, number, ["DJI_0002.JPG"])
    uploads.multipart_lost(journal, image_of(journal, number, 2))
    assert set(uploads.parts_of(journal, image_of(journal, number), "upload-1")) == {1}
    uploads.uploaded(journal, image_of(journal, number), "etag-1")
    people.drop(journal, number)
    assert not orphans.any_left(journal)


@pytest.mark.parametrize("verb", [skip, people.drop, freeze_anew], ids=["skip", "drop", "frozen_anew"])
def test_begun_in_vain(journal, verb):
    """An upload whose id comes when the image is not wanted any more is left to be aborted at once."""
    number = reach(journal, State.CREATED)
    image = image_of(journal, number)
    verb(journal, number)
    with pytest.raises(Stale):
        uploads.multipart_begun(journal, image, "upload-2")
    assert next_orphan(journal).upload_id == "upload-2"
    assert next_orphan(journal).key.endswith(image.key)
    assert image_of(journal, number).upload_id is None


def test_aborts_are_taken_in_turn(journal):
    """One at a time: none of an image that is being sent, none before its time, none once it is gone."""
    people.drop(journal, sending(journal))
    orphan = next_orphan(journal)
    assert next_orphan(journal, but=[orphan.image_id]) is None
    orphans.later(journal, orphan, due_at=1100.0, counts=True)
    assert next_orphan(journal) is None
    assert orphans.any_left(journal)
    assert next_orphan(journal, now=1100.0).tries == 1
    assert next_orphan(journal, now=1.0).tries == 1  # further ahead than any wait: the clock jumped
    orphans.later(journal, orphan, due_at=0.0, counts=False)
    assert next_orphan(journal).tries == 0
    orphans.gone(journal, orphan)
    assert next_orphan(journal) is None
    assert not orphans.any_left(journal)


def test_next_due(journal):
    """Who sends images can sleep until the first one has waited long enough; one that is due is nobody's wait."""
    number = reach(journal, State.CREATED)
    assert uploads.next_due(journal, 1000.0) is None
    for index, due_at in enumerate((1200.0, 1100.0, 900.0)):
        uploads.failed(journal, image_of(journal, number, index), "no", due_at=due_at)
    assert uploads.next_due(journal, 1000.0) == 1100.0
    people.pause(journal, number, paused=True)
    assert uploads.next_due(journal, 1000.0) is None
