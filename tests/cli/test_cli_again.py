"""`again FOLDER` and `skip FOLDER IMAGE…` as a person types them, with the service down."""

import pytest

from pix4d_watcher.core.model import Condition, HoldCode, ImageStatus, State, printable
from pix4d_watcher.journal import naming, projects, uploads, views


def said(result, code, *texts):
    """Check the exit code and that each text was said; what went wrong is said on stderr, without a traceback."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    spoken = " ".join((result.stderr if code else result.stdout).split())
    for text in texts:
        assert text in spoken
    return result


def there(site, name="flight"):
    """Make the folder itself."""
    (site.directory / "drop" / name).mkdir()


def skipped(site, project):
    """List the images that a person took out."""
    images = views.images_of(site.journal, project)
    return [printable(image.path) for image in images if image.reason == "removed by a person"]


def test_again(cli, site):
    """A delivered folder gets a new round that is found anew, does not ask about the same images, and is the newest."""
    there(site)
    first = site.delivered("flight")
    said(cli("again", "survey/flight"), 0, "survey/flight: is sent once more as survey/flight#2, and paid again")
    rows = naming.find(site.journal, "flight")
    assert [(row.title, row.state, row.accepted) for row in rows] == [
        ("survey/flight#2", State.FOUND, ("already_sent",))
    ]
    assert [row.id for row in views.folders_of(site.journal, "survey")] == [rows[0].id]
    assert rows[0].marker != views.project(site.journal, first).marker
    said(cli("again", "flight#1"), 2, "not the newest round", "survey/flight#2")
    said(cli("again", "flight"), 2, "is under way (waiting for the copy to finish)", "pix4d-watcher drop")


def test_again_of_what_failed(cli, site):
    """A failed round is given up for the new one, one that can still go on is refused with its remedy."""
    there(site)
    project = site.started("flight")
    said(cli("again", "flight"), 2, "is under way (processing)", "pix4d-watcher drop survey/flight")
    projects.hold(site.journal, project, HoldCode.DISK_FULL, "no room")
    said(cli("again", "flight"), 2, "can still go on: disk_full", "Make room")
    projects.lifted(site.journal, project, HoldCode.DISK_FULL, "room")
    projects.hold(site.journal, project, HoldCode.CLOUD_FAILED, "it failed")
    said(cli("again", "flight"), 0)
    old = views.project(site.journal, project)
    assert (old.condition, old.hold_code, old.present) == (Condition.DROPPED, None, False)


def test_again_of_a_split_folder(cli, site):
    """The part that is in the way is named with its own commands; a new round says that it is all parts once more."""
    there(site)
    parts = site.split("flight")
    projects.hold(site.journal, parts[0], HoldCode.MANUAL_START, "it waits")
    text = said(cli("again", "flight"), 2, "survey/flight#1 is held", "drop 'survey/flight#1'").stderr
    assert "#3" not in text
    said(cli("drop", "flight"), 0)
    said(cli("again", "flight"), 0, "sent once more with all 3 parts of its folder as survey/flight#4, and paid again")
    assert [row.title for row in naming.find(site.journal, "flight")] == ["survey/flight#4"]


def test_again_with_late_images(cli, site):
    """Where late images are the question, the new round has them and the round before goes on to its end."""
    there(site)
    project = site.started("flight")
    projects.hold(site.journal, project, HoldCode.LATE_IMAGES, "2 images came too late")
    said(cli("again", "flight"), 0)
    old = views.project(site.journal, project)
    assert (old.condition, old.state, old.accepted) == (Condition.ACTIVE, State.STARTED, ("late_images",))


def test_again_needs_the_folder(cli, site):
    """A folder that is gone is refused, whether the last scan saw that or not."""
    site.delivered("flight")
    said(cli("again", "flight"), 2, "is gone; put it back")
    assert len(views.status(site.journal)) == 1


def test_skip(cli, site):
    """Images are named by path, by file name or with escapes; those that were sent are refused, and nothing changes."""
    project = site.created("flight", images=10, uploaded=2)
    said(cli("skip", "flight", "DCIM/DJI_0009.JPG", "DJI_0010.JPG"), 0, "without DCIM/DJI_0009.JPG, DCIM/DJI_0010.JPG")
    assert skipped(site, project) == ["DCIM/DJI_0009.JPG", "DCIM/DJI_0010.JPG"]
    said(cli("skip", "flight", "DJI_0008.JPG", "DJI_0001.JPG"), 2, "DJI_0001.JPG was sent already", "cannot be taken")
    said(cli("skip", "flight", "DJI_0009.JPG"), 0)
    assert skipped(site, project) == ["DCIM/DJI_0009.JPG", "DCIM/DJI_0010.JPG"]
    assert not views.counts(site.journal, project)[ImageStatus.REGISTERED]


def test_skip_what_is_not_known(cli, site):
    """A name that fits nothing is refused with the nearest names, one that fits several with all of them."""
    site.created("flight", images=10)
    said(cli("skip", "flight", "DJI_0O01.JPG"), 2, "no image DJI_0O01.JPG is known", "DCIM/DJI_0001.JPG")
    said(cli("skip", "flight", "notes.txt"), 2, "pix4d-watcher status survey/flight")
    said(cli("skip", "flight"), 2, "Missing argument")


def test_skip_everything(cli, site):
    """The last images cannot be taken out: then there is nothing left to send."""
    project = site.created("flight", images=2)
    said(cli("skip", "flight", "DJI_0001.JPG"), 0)
    said(cli("skip", "flight", "DJI_0002.JPG"), 2, "no image of survey/flight is left", "drop survey/flight")
    assert skipped(site, project) == ["DCIM/DJI_0001.JPG"]


def test_skip_too_early_and_too_late(cli, site):
    """Before the folder is complete its images are not known; a folder that was given up is taken up again first."""
    project = site.found("flight", images=3)
    said(cli("skip", "flight", "DJI_0001.JPG"), 2, "not known before the folder is complete")
    said(cli("drop", "flight"), 0)
    said(cli("skip", "flight", "DJI_0001.JPG"), 2, "was given up", "pix4d-watcher retry survey/flight")
    assert not views.images_of(site.journal, project)


@pytest.mark.parametrize("code", [HoldCode.SOURCE_MISSING, HoldCode.SOURCE_CHANGED])
def test_skip_lifts_the_hold(cli, site, code):
    """The hold is lifted with the last failing image, and until then it is said what still holds."""
    project = site.created("flight", images=10)
    for image in views.images_of(site.journal, project)[:2]:
        uploads.failed(site.journal, image, "gone", due_at=1.0)
    uploads.failed(site.journal, views.images_of(site.journal, project)[5], "no link", due_at=1.0, counts=False)
    projects.hold(site.journal, project, code, "DJI_0001.JPG")
    said(cli("explain", "flight"), 0, "pix4d-watcher skip survey/flight IMAGE")
    said(cli("skip", "flight", "DJI_0001.JPG"), 0, "still held for DCIM/DJI_0002.JPG")
    assert views.project(site.journal, project).hold_code is code
    said(cli("skip", "flight", "DJI_0002.JPG"), 0)
    row = views.project(site.journal, project)
    assert (row.condition, row.hold_code, row.due_at) == (Condition.ACTIVE, None, None)


def test_skip_has_the_checks_run_again(cli, site):
    """Before the creation the checks decide anew, with the images that are left; what was skipped stays skipped."""
    project = site.settled("flight", hold=(HoldCode.BAD_IMAGES, "1 image is cut off."))
    said(cli("skip", "flight", "DJI_0001.JPG"), 0)
    row = views.project(site.journal, project)
    assert (row.condition, row.report, row.state) == (Condition.ACTIVE, None, State.SETTLED)
