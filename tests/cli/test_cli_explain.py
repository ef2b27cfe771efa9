"""`explain`: why a folder is where it is, with the service down, for folders known and unknown."""

import os
import time

import pytest

from pix4d_watcher.core.model import EffectKind, HoldCode, State
from pix4d_watcher.host import lock
from pix4d_watcher.intake import leases
from pix4d_watcher.journal import afterwards, effects, folders, people, projects, results, service, uploads, views


@pytest.fixture
def explain(cli):
    """Explain a folder and return the text on one line."""

    def run(folder, code=0):
        result = cli("explain", folder)
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        assert all(len(line) <= 80 for line in result.stdout.splitlines())
        return " ".join((result.stdout if code == 0 else result.stderr).split())

    return run


def fill(site, name, *files, age=0.0, root="drop"):
    """Make a folder with files that were changed so many seconds ago, and return its path."""
    folder = site.directory / root / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(b"content")
        then = time.time() - age
        os.utime(folder / file, (then, then))
    return folder


# --- found: a live look


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ((), "waiting for images"),
        (("notes.txt",), "waiting for images"),
        (("a.JPG", "b.JPG.part"), "still being copied, by its temporary name: b.JPG.part"),
        (("a.JPG", ".hold"), "the marker .hold is there"),
        (("a.JPG",), "1 image, nothing is being written"),
    ],
)
def test_found(explain, site, files, why):
    """A folder that is not complete is looked at, and what it waits for is named."""
    fill(site, "flight", *files)
    site.found("flight")
    text = explain("flight")
    assert why in text
    assert "The service is not running: it goes on here when it is started." in text


def test_found_and_quiet(explain, site):
    """The time until a folder can be complete at the earliest is said."""
    fill(site, "flight", "a.JPG", "log.txt")
    site.found("flight", images=1)
    text = explain("flight")
    assert "A folder is complete when nothing in it changed for 60 s: in " in text
    assert "Not sent, being no images: 1 file, log.txt." in text


def test_found_and_unreadable(explain, site):
    """What a look from outside cannot see is told in the service's words."""
    fill(site, "flight", "a.JPG", "b.JPG")
    project = site.found("flight", images=2)
    folders.still_settling(site.journal, project, images=2, why="a.JPG: permission denied")
    site.config.write_text(site.config.read_text().replace("settle: 60s", "settle: 1ms"))
    assert "It waits: a.JPG: permission denied." in explain("flight")


def test_found_and_written(explain, site):
    """A file that a program still holds open for writing is named."""
    folder = fill(site, "flight", "a.JPG", "b.JPG")
    site.found("flight", images=2)
    with (folder / "b.JPG").open("ab"):
        if not leases.being_written(bytes(folder / "b.JPG")):
            pytest.skip("this filesystem cannot tell")
        assert "being written by another program: b.JPG" in explain("flight")


def test_ready_file(explain, site):
    """A ready marker is named."""
    site.config.write_text(site.config.read_text().replace("settle: 60s", "settle: 60s\n    ready_file: .ready"))
    fill(site, "flight", "a.JPG", ".ready")
    site.found("flight", images=1)
    assert "the marker .ready is there" in explain("flight")


def test_parts_of_a_mission(explain, site):
    """What a mission waits for is said once, and not of its folders that they are taken soon."""
    project = site.found("harbour", members=(b"harbour_1", b"harbour_2"))
    for name in ("harbour_1", "harbour_2"):
        fill(site, name, "a.JPG")
    site.config.write_text(site.config.read_text().replace("settle: 60s", "settle: 1ms"))
    folders.still_settling(site.journal, project, images=2, why="2 images in harbour_1 and harbour_2; waits for cardC")
    text = explain("harbour")
    assert text.count("1 image, nothing is being written") == 2
    assert "taken soon" not in text
    assert "It waits: 2 images in harbour_1 and harbour_2; waits for cardC." in text


def test_drop_directory_away(explain, site):
    """A drop directory that is away is told, and that nothing is lost."""
    site.found("flight", images=1)
    (site.directory / "drop").rmdir()
    text = explain("flight")
    assert "this drop directory is away" in text
    assert "nothing is taken for deleted" in text


def test_root_not_configured_any_more(explain, site):
    """A drop directory that was taken out of the configuration is named."""
    site.found("flight", root="former")
    assert "former is not in the configuration any more" in explain("flight")


# --- on its way


def test_held(explain, site):
    """A hold is told with its code, text, remedy and what was accepted before."""
    project = site.settled("my flight", hold=(HoldCode.NOT_GEOTAGGED, "8 of 8 images are not geotagged."))
    people.approve(site.journal, project)
    projects.hold(site.journal, project, HoldCode.TOO_FEW_IMAGES, "4 images are left to send.")
    text = explain("my flight")
    assert "survey/my flight is held: too few images (too_few_images). 4 images are left to send." in text
    assert "pix4d-watcher approve 'survey/my flight'" in text
    assert "A person accepted not_geotagged; it is not asked again." in text


def test_held_by_itself(explain, site):
    """A hold that lifts by itself says when it is looked at again."""
    project = site.created("flight")
    projects.hold(site.journal, project, HoldCode.NO_CREDIT, "no credits", due_at=time.time() + 325)
    text = explain("flight")
    assert "It is looked at again in 5 min." in text
    assert "goes on by itself" in text


def test_uploading(explain, site):
    """An upload says what it sends, and that failed images are sent again."""
    project = site.created("flight", uploaded=12)
    projects.waiting(site.journal, project, "28 images to send", due_at=time.time() + 60)
    uploads.failed(site.journal, views.images_of(site.journal, project)[30], "reset", due_at=time.time() + 60)
    text = explain("flight")
    assert "survey/flight: uploading 12/40." in text
    assert "Still to be sent: 28 images." in text
    assert "1 image failed and will be sent again; see: pix4d-watcher status survey/flight" in text


def test_processing(explain, site):
    """A processing project says when it is asked again."""
    project = site.started("flight")
    projects.waiting(site.journal, project, "processing in the cloud", due_at=time.time() + 325)
    assert "It waits: processing in the cloud; it is looked at again in 5 min." in explain("flight")


def test_in_doubt(explain, site):
    """An effect whose outcome is not known is told, and that it is not repeated blindly."""
    project = site.registered("flight")
    effects.intent(site.journal, project, EffectKind.START, State.REGISTERED, request={})
    text = explain("flight")
    assert "The cloud was asked to start" in text
    assert "never asked twice blindly: 3 min after the call" in text


def test_paused(explain, site):
    """A pause says who lifts it; of one folder, and of everything."""
    project = site.created("flight")
    people.pause(site.journal, project, paused=True)
    service.put(site.journal, service.PAUSED_ALL, value=True)
    text = explain("flight")
    assert "To go on: pix4d-watcher resume survey/flight" in text
    assert "to go on: pix4d-watcher resume --all" in text


def test_service_pause(explain, site):
    """What the whole service waits for is told for each folder."""
    site.created("flight")
    pause = {"kind": "network", "text": "no route to cloud.pix4d.com", "since": time.time() - 155}
    site.vitals(pid=os.getpid(), pause=pause)
    with lock.hold(lock.lock_path(site.journal_path)):
        assert "The whole service waits, since 3 min: no route to cloud.pix4d.com" in explain("flight")


# --- finished


def test_delivered(explain, site):
    """A folder that is done says where its results and its project are."""
    site.delivered("flight")
    text = explain("flight")
    assert "1 result in /" in text
    # A path that is longer than a line is broken.
    assert f"1resultin{site.directory}/results/survey/flight/" in text.replace(" ", "")
    assert "In the cloud: project 883349, for the API http://cloud/1" in text


@pytest.mark.parametrize("how", [afterwards.ARCHIVED, afterwards.DELETED])
def test_put_away(explain, cli, site, how):
    """A folder that was put away says where it is, or what of it is left."""
    project = views.project(site.journal, site.delivered("flight"))
    afterwards.finished(site.journal, [project], how, "moved to /archive/survey/flight", gone=True)
    assert f"The folder was {how}: moved to /archive/survey/flight." in explain("flight")
    told = " ".join(cli("status", "flight").stdout.split())
    assert f"was {how} when its retention was over: moved to /archive/survey/flight" in told


def test_delivered_and_renamed(explain, site):
    """A folder that was renamed since says where its results lie, which is under its old name."""
    number = site.delivered("flight")
    results.placed(site.journal, views.project(site.journal, number))
    folders.folder_moved(site.journal, number, name=b"harbour", device=7, inode=11)
    assert f"{site.directory}/results/survey/flight/" in explain("harbour").replace(" ", "")


def test_dropped(explain, site):
    """A dropped folder says why, and how to take it up again."""
    people.drop(site.journal, site.found("flight", images=3))
    site.found("old", ignore="was here before the first scan and `existing` is ignore")
    assert "given up by a person" in explain("flight")
    assert "To take it up again: pix4d-watcher retry survey/flight" in explain("flight")
    assert "was here before the first scan" in explain("old")


# --- unknown to the journal


def test_not_seen_yet(explain, site):
    """A folder that the service has not seen is looked at all the same, even before the first run."""
    fill(site, "flight", "a.JPG", "b.JPG.part")
    for name in ("flight", "survey/flight"):
        text = explain(name)
        assert "survey/flight is there, and the service has not seen it yet." in text
        assert "b.JPG.part" in text


def test_names_that_are_never_folders(explain, site):
    """Loose files, links and ignored names say why they are left alone."""
    drop = site.directory / "drop"
    (drop / "loose.JPG").write_bytes(b"x")
    (drop / "link").symlink_to(site.directory)
    (drop / "@eaDir").mkdir()
    (drop / ".hidden").mkdir()
    assert "a file directly in the drop directory" in explain("loose.JPG")
    assert "links are never followed" in explain("link")
    assert "never looked at" in explain("survey/@eaDir")
    assert "never looked at" in explain(".hidden")


@pytest.mark.parametrize("name", ["nowhere", "..", "survey/..", "/", "a/b/c"])
def test_nowhere(explain, name):
    """What is neither in the journal nor in a drop directory is unknown: 2."""
    assert "is known" in explain(name, code=2)


def test_bytes(explain, site):
    """A folder whose name is no UTF-8 is found by its bytes and by its escapes."""
    (site.directory / "drop" / os.fsdecode(b"M\xe9moire")).mkdir()
    for name in (os.fsdecode(b"M\xe9moire"), r"M\xe9moire", r"survey/M\xe9moire"):
        assert r"survey/M\xe9moire is there" in explain(name)
