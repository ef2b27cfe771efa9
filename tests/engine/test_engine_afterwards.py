"""What becomes of a delivered folder: kept, archived or deleted, and only what was proven."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from pix4d_watcher.engine import putaway
from pix4d_watcher.journal import afterwards, rounds, tables, views
from pix4d_watcher.journal.people import Refusal

pytestmark = pytest.mark.check  # minutes in all: run by make check

QUICKLY = {"retention": "1s"}
PAST = {"archive": "archived", "delete": "deleted"}


def put_away(site, how, name="flight"):
    """Wait until a folder is put away."""
    site.until(lambda: site.look(name).get("put_away") == how, f"{name} is {how}")


def let_it_pass(site, **root):
    """Start the service again with a retention that is over at once, so that no story hurries to be before its end."""
    site.configure(**{"after": "delete", **QUICKLY, **root})
    site.restart()


def said(site, kind, name="flight"):
    """List the texts of a folder's events of a kind."""
    return [text for found, text in site.events(name) if found == kind]


def tree(folder):
    """Map the files below a folder to their contents."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def elsewhere():
    """A directory on another filesystem than the site."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second filesystem to write to")
    with tempfile.TemporaryDirectory(dir=memory) as place:
        yield Path(place)


def test_keep_is_the_default(site):
    """Without configuration nothing is ever touched."""
    site.configure(**QUICKLY)
    folder = site.drop()
    before = tree(folder)
    assert site.run() == 0
    time.sleep(1.2)
    assert site.run() == 0
    assert tree(folder) == before
    assert site.look()["put_away"] is None


def test_delete_exactly_the_registered_images(site):
    """Deleted are the registered images and then empty directories; a copy, a note and a link stay."""
    site.configure(after="delete", **QUICKLY)
    plain = site.drop("plain")
    folder = site.prepare()
    shutil.copy(folder / "DJI_0001.JPG", folder / "copy.JPG")
    (folder / "notes.txt").write_text("windy")
    (folder / "link.JPG").symlink_to(site.directory / "secret")
    below = folder / "DCIM" / "100MEDIA"
    below.mkdir(parents=True)
    for image in folder.glob("DJI_*.JPG"):
        image.rename(below / image.name)
    (folder / "DCIM" / "empty").mkdir()
    folder = folder.rename(site.drops / "flight")
    site.start()
    put_away(site, "deleted")
    put_away(site, "deleted", "plain")
    assert not plain.exists()
    (duplicate,) = [image.path.decode() for image in site.images() if image.status == "skipped"]
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert left - {"DCIM/100MEDIA"} == {"DCIM", "DCIM/empty", "link.JPG", "notes.txt", duplicate}
    assert (site.directory / "secret").exists()
    assert said(site, "deleted")[0].startswith("6 images deleted")
    assert "is not empty" in said(site, "deleted")[0]
    time.sleep(2.5)
    assert len(site.status()) == 2
    assert not said(site, "gone") + said(site, "gone", "plain")
    site.once()


def test_not_before_the_retention_is_over(site):
    """Until the retention is over nothing is touched, and --until-idle does not wait for it."""
    site.configure(after="delete", retention="1h")
    folder = site.drop()
    assert site.run() == 0
    assert len(tree(folder)) == 6
    assert site.look()["put_away"] is None


def test_due_now_keeps_it_running(site):
    """`run --until-idle` ends only when what is due was put away."""
    site.configure(after="delete", retention="1ms")
    folder = site.drop()
    assert site.run() == 0
    assert not folder.exists()


def test_a_clock_ahead_deletes_nothing(site):
    """Where this machine's clock is ahead of the cloud's, the retention is counted by the cloud's."""
    site.configure(after="delete", retention="30d")
    folder = site.drop()
    assert site.run() == 0
    # As a jump of 40 days of this clock leaves it: delivered long ago, and the cloud says that it is not so.
    with site.journal(change=True).write() as connection:
        connection.execute(update(tables.projects).values(delivered_at=time.time() - 40 * 86400))
    site.start()
    site.until(lambda: said(site, "afterwards"), "it says why the folder is kept")
    assert "the retention is not over yet" in said(site, "afterwards")[0]
    assert len(tree(folder)) == 6
    site.stop()
    assert site.run() == 0


def test_a_cloud_clock_behind_deletes_nothing(site):
    """The same where the cloud's clock goes back meanwhile."""
    site.configure(after="delete", retention="1h")
    folder = site.drop()
    assert site.run() == 0
    site.cloud.change(clock_skew=-3600.0)
    site.configure(after="delete", **QUICKLY)
    site.start()
    site.until(lambda: said(site, "afterwards"), "it says why the folder is kept")
    assert len(tree(folder)) == 6


def test_changed_images_stay(site):
    """An image that is not the file that was sent stays: replaced by a copy, or another content; a new time is none."""
    site.configure(after="delete", retention="1h")
    folder = site.drop(count=9)
    site.start()
    site.delivered()
    first, second, third = sorted(folder.iterdir())[:3]
    facts = first.stat()
    first.write_bytes(b"x" * facts.st_size)
    os.utime(first, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    shutil.copy2(second, folder / "copy")
    (folder / "copy").rename(second)
    third.touch()
    sorted(folder.iterdir())[3].chmod(0o600)  # changes ctime alone
    last = max(folder.iterdir())
    facts = last.stat()
    with last.open("r+b") as file:
        file.write(b"x" * facts.st_size)
    os.utime(last, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    touched = third.stat().st_mtime_ns
    site.until(lambda: site.images()[2].mtime_ns == touched, "it is read again and is what was sent")
    let_it_pass(site)
    put_away(site, "deleted")
    assert sorted(folder.iterdir()) == [first, second, last]
    assert "3 stay, since they are not what was sent" in said(site, "deleted")[0]


def test_what_stays_is_not_sent_again(site):
    """Images that changed after they were sent stay where the others are deleted, and are asked about, not paid."""
    site.configure(after="delete", retention="1h")
    folder = site.drop(count=9)
    site.start()
    site.delivered()
    for image in sorted(folder.iterdir())[:7]:
        with image.open("ab") as file:
            file.write(b"x")
    let_it_pass(site)
    site.until(lambda: site.look(number=1)["put_away"] == "deleted", "the others are deleted")
    assert "none of its images is what it was" in site.held("approval")
    assert len(tree(folder)) == 7
    assert len(site.cloud.ledger()["projects"]) == 1


def test_late_images_keep_everything(site):
    """While there are images that were not sent nothing is put away."""
    site.configure(after="delete", retention="1h")
    folder = site.drop()
    site.start()
    site.delivered()
    site.bring(folder, 2, names="late_{n}.JPG", salt="late")
    site.held("late_images")
    let_it_pass(site)
    time.sleep(2.5)
    assert len(tree(folder)) == 8
    site.ask("approve")
    put_away(site, "deleted")
    assert sorted(tree(folder)) == ["brought/late_1.JPG", "brought/late_2.JPG"]


def test_the_cloud_must_agree(site):
    """A project that the cloud does not have any more, or counts otherwise, keeps its folder."""
    site.configure(after="delete", retention="2s")
    site.cloud.change(counter="frozen")
    folder = site.drop()
    site.start()
    site.until(lambda: site.look() and said(site, "afterwards"), "it says why the folder is kept")
    assert "6 images were registered, and the cloud counts 0" in said(site, "afterwards")[0]
    site.fault("project", "status", code=404, times=None)
    site.cloud.change(counter="exact")
    site.ask("retry")
    put_away(site, "kept")
    assert len(tree(folder)) == 6
    site.cloud.faults.clear()
    site.ask("retry")
    put_away(site, "deleted")
    assert not folder.exists()


def test_pause_and_other_holds(site):
    """Nothing of a paused folder is put away."""
    site.configure(after="delete", retention="1h")
    folder = site.drop()
    site.start()
    site.delivered()
    site.ask("pause", paused=True)
    let_it_pass(site)
    time.sleep(3)
    assert len(tree(folder)) == 6
    site.ask("pause", paused=False)
    put_away(site, "deleted")


def test_a_medium_that_is_away(site):
    """Where the drop directory is away nothing counts as deleted, and it is done when it is back."""
    site.configure(after="delete", retention="1h")
    site.drop()
    site.start()
    site.delivered()
    site.drops.rename(site.directory / "unplugged")
    site.drops.mkdir()
    let_it_pass(site)
    time.sleep(4)
    assert site.look()["put_away"] is None
    site.drops.rmdir()
    (site.directory / "unplugged").rename(site.drops)
    site.until(lambda: site.root().present, "the drop directory is back")
    with contextlib.suppress(Refusal):  # unless it was done by itself meanwhile
        site.ask("retry")
    put_away(site, "deleted")


def test_archive_by_a_rename(site):
    """A folder is moved as it is, with all it holds; a name that is taken is never overwritten."""
    archive = site.directory / "archive"
    site.configure(after="archive", archive_to=str(archive), **QUICKLY)
    (archive / "survey" / "flight").mkdir(parents=True)
    (archive / "survey" / "flight" / "old").write_text("last year")
    folder = site.drop()
    (folder / "notes.txt").write_text("windy")
    before, inode = tree(folder), folder.stat().st_ino
    assert site.run() == 0
    site.start()
    put_away(site, "archived")
    moved = archive / "survey" / "flight_2"
    assert tree(moved) == before
    assert moved.stat().st_ino == inode
    assert tree(archive / "survey" / "flight") == {"old": b"last year"}
    assert not folder.exists()
    assert said(site, "archived") == [f"moved to {moved}"]
    time.sleep(2.5)
    assert len(site.status()) == 1
    site.drop("flight", 6, salt="tomorrow")
    site.until(lambda: site.look().get("round") == 2, "a new folder of the name is a new round")
    put_away(site, "archived")
    assert (archive / "survey" / "flight.round2").is_dir()


def test_archive_to_another_filesystem(site, elsewhere):
    """A folder is copied, compared and only then removed, whatever the names in it."""
    site.configure(after="archive", archive_to=str(elsewhere), **QUICKLY)
    folder = site.prepare()
    below = folder / "DCIM"
    below.mkdir()
    (below / os.fsdecode(b"M\xe9moire.txt")).write_text("bytes")
    (folder / "link").symlink_to("DCIM")
    (folder / "empty").mkdir()
    before = tree(folder)
    modified = (folder / "DJI_0001.JPG").stat().st_mtime_ns
    folder = folder.rename(site.drops / "flight")
    site.start()
    put_away(site, "archived")
    moved = elsewhere / "survey" / "flight"
    assert tree(moved) == before
    assert (moved / "link").readlink() == Path("DCIM")
    assert (moved / "empty").is_dir()
    assert (moved / "DJI_0001.JPG").stat().st_mtime_ns == modified
    assert not folder.exists()
    assert [path.name for path in (elsewhere / "survey").iterdir()] == ["flight"]


def test_archive_killed_again_and_again(site, elsewhere):
    """Kills while it is copied and removed lose no byte, and it is finished in the end."""
    site.configure(after="archive", archive_to=str(elsewhere), **QUICKLY)
    folder = site.prepare()
    for number in range(12):
        (folder / f"video_{number}.mp4").write_bytes(os.urandom(4_000_000))
    before = tree(folder)
    folder = folder.rename(site.drops / "flight")
    assert site.run() == 0
    time.sleep(1)
    target = elsewhere / "survey" / "flight"
    for seen in (lambda: list(elsewhere.glob("survey/.*.part/video_1*")), target.exists):
        site.start()
        site.until(lambda seen=seen: seen() or site.look()["put_away"] == "archived", "it is under way")
        site.kill()
        assert tree(target) == before or tree(folder) == before
    site.start()
    put_away(site, "archived")
    assert tree(target) == before
    assert not folder.exists()


def test_killed_between_the_files_and_the_journal(site):
    """A folder that was moved or deleted just before a power cut is found to be so."""
    archive = site.directory / "archive"
    site.configure(after="archive", archive_to=str(archive), retention="1h")
    folder, other, emptied = site.drop(), site.drop("other"), site.drop("emptied")
    assert site.run() == 0
    for name, place in (("flight", folder), ("other", other), ("emptied", emptied)):
        project = views.project(site.journal(), site.id_of(name))
        afterwards.begun(site.journal(change=True), [project], afterwards.archiving([name.encode()]))
        if name == "flight":
            (archive / "survey").mkdir(parents=True)
            place.rename(archive / "survey" / name)
        if name == "emptied":  # copied to another filesystem, and all files removed, but not their directory
            shutil.copytree(place, archive / "survey" / name)
            for file in place.iterdir():
                file.unlink()
    site.configure(after="archive", archive_to=str(archive), retention="1s")
    site.start()
    for name in ("flight", "other", "emptied"):
        put_away(site, "archived", name)
        assert len(tree(archive / "survey" / name)) == 6
    assert not emptied.exists()


@pytest.mark.parametrize("after", ["archive", "delete"])
def test_joined_folders_go_together(site, after):
    """The folders of one mission are put away together, each as a folder of its own."""
    archive = site.directory / "archive"
    site.configure(after=after, archive_to=str(archive), join="{mission}_{part}", join_wait="1s", **QUICKLY)
    folders = [site.drop(f"harbour_{part}", 4, salt=str(part)) for part in (1, 2)]
    site.start()
    put_away(site, PAST[after], "harbour")
    assert not any(folder.exists() for folder in folders)
    if after == "archive":
        assert [len(tree(archive / "survey" / folder.name)) for folder in folders] == [4, 4]
    site.once("harbour", 8)
    time.sleep(2.5)
    assert len([row for row in site.status() if row["condition"] == "active"]) == 1


@pytest.mark.parametrize("after", ["archive", "delete"])
def test_split_folders_go_together(site, after):
    """A folder that became several projects is put away when the last of them is done."""
    site.configure(after=after, archive_to=str(site.directory / "archive"), split=6, **QUICKLY)
    folder = site.drop(count=12)
    site.start()
    site.until(lambda: [row["put_away"] for row in site.status()] == [PAST[after]] * 2, "both are put away")
    assert not folder.exists()
    assert [row["waiting_for"] for row in site.status()] == [None, None]


def test_again_comes_first(site):
    """A folder that is sent once more stays until the new round is done as well."""
    site.configure(after="delete", retention="1h")
    folder = site.drop()
    site.start()
    site.delivered()
    site.cloud.change(processing_seconds=60.0)
    rounds.again(site.journal(change=True), site.id_of())
    site.until(lambda: site.look(number=2).get("state") == "started", "the second round processes")
    let_it_pass(site)
    time.sleep(3)
    assert len(tree(folder)) == 6
    site.cloud.change(processing_seconds=0.0)
    site.until(lambda: site.look(number=2)["put_away"] == "deleted", "it is deleted after the second round")
    assert not folder.exists()


def test_no_link_is_followed(tmp_path):
    """A directory that became a link leads to no removal outside, and neither does an image that became one."""
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    (root / "flight").mkdir(parents=True)
    outside.mkdir()
    (outside / "DJI_0001.JPG").write_text("precious")
    (root / "flight" / "DCIM").symlink_to(outside)
    (root / "flight" / "DJI_0002.JPG").symlink_to(outside / "DJI_0001.JPG")
    paths = [b"flight/DCIM/DJI_0001.JPG", b"flight/DJI_0002.JPG"]
    outcome = putaway.remove(bytes(root), paths, lambda _path, _facts: True)
    putaway.remove_empty(bytes(root), {b"flight", b"flight/DCIM"})
    assert (outcome.removed, outcome.missing, outcome.changed) == (0, 1, paths[1:])
    assert (outside / "DJI_0001.JPG").read_text() == "precious"
    assert len(list((root / "flight").iterdir())) == 2


def test_what_the_system_forbids_is_told_apart():
    """A removal that no retry will ever allow is an error of its own."""
    with pytest.raises(putaway.NotAllowed, match="Operation not permitted"):
        putaway.remove(b"/proc", [b"%d/comm" % os.getpid()], lambda _path, _facts: True)


def test_what_cannot_be_read_is_not_moved_away(site):
    """A directory that the service may not look into may hold images that were not sent: its folder is not archived."""
    archive = site.directory / "archive"
    archive.mkdir(mode=0o777)
    site.privileged = False
    site.configure(after="archive", archive_to=str(archive), retention="1h")
    side = site.prepare("side", salt="new")
    folder = site.drop()
    site.start()
    site.delivered()
    side.chmod(0)
    side.rename(folder / "late")
    let_it_pass(site, after="archive", archive_to=str(archive))
    site.until(lambda: said(site, "afterwards"), "it says why the folder is kept")
    assert "what cannot be read (late)" in said(site, "afterwards")[0]
    assert folder.is_dir()
    (folder / "late").chmod(0o755)
    site.held("late_images")


def test_not_allowed_is_said_once(site):
    """What permissions forbid is said and not tried for ever."""
    site.privileged = False
    site.configure(after="delete", retention="1h")
    folder = site.drop()
    site.start()
    site.delivered()
    folder.chmod(0o500)
    let_it_pass(site)
    put_away(site, "kept")
    assert len(tree(folder)) == 6
    folder.chmod(0o700)


def test_a_directory_that_may_not_be_read_keeps_the_folder(site, elsewhere):
    """A folder that cannot be copied as a whole to another filesystem is kept, and the service goes on."""
    site.privileged = False
    elsewhere.chmod(0o777)
    site.configure(after="archive", archive_to=str(elsewhere), **QUICKLY)
    folder = site.prepare()
    (folder / ".Trash-0").mkdir(0)
    folder = folder.rename(site.drops / "flight")
    site.start()
    put_away(site, "kept")
    assert f"{folder}/.Trash-0: Permission denied" in said(site, "kept")[0]
    (folder / ".Trash-0").chmod(0o700)
    assert len(tree(folder)) == 6
    assert not tree(elsewhere)


def test_an_archive_that_cannot_be_used(site, elsewhere):
    """An archive that cannot be made keeps the folder and says why."""
    (elsewhere / "survey").write_text("a file in the way")
    site.configure(after="archive", archive_to=str(elsewhere), advanced={"retry_max": "300ms"}, **QUICKLY)
    folder = site.drop()
    site.start()
    put_away(site, "kept")
    assert "the archive cannot be used" in said(site, "kept")[0]
    assert len(tree(folder)) == 6


def test_another_folder_comes_while_one_is_archived(site):
    """A new folder under the name of one that had just moved to the archive at a crash is archived too, beside it."""
    archive = site.directory / "archive"
    site.drop()
    assert site.run() == 0
    # A crash after the directory was moved and before that was written down.
    first = views.project(site.journal(change=True), site.id_of())
    afterwards.counted_from(site.journal(change=True), first, time.time())
    first = views.project(site.journal(), first.id)
    afterwards.begun(site.journal(change=True), [first], afterwards.archiving([b"flight"]))
    (archive / "survey").mkdir(parents=True)
    (site.drops / "flight").rename(archive / "survey" / "flight")
    before = tree(archive / "survey" / "flight")
    site.drop(salt="tomorrow")
    site.configure(after="archive", archive_to=str(archive), **QUICKLY)
    site.start()
    for number in (1, 2):
        site.until(lambda n=number: site.look(number=n).get("put_away") == "archived", f"round {number} is archived")
    assert tree(archive / "survey" / "flight") == before
    assert len(tree(archive / "survey" / "flight.round2")) == 6
    assert not (site.drops / "flight").exists()
