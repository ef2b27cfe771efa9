"""When a folder is complete, and whether a file is being written."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest
from intake_kit import put, scan, writer_of

from pix4d_watcher.intake.leases import being_written, writers
from pix4d_watcher.intake.settle import Settling, is_complete


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        put(tmp_path, f"DCIM/DJI_{number}.JPG")
    return tmp_path


def test_quiet_folder_is_complete(folder):
    """A folder is complete when nothing has changed for the quiet time, from the first look on."""
    settling = Settling(60)
    first = settling.observe(scan(folder), 1000.0, local=True)
    assert (first.complete, first.again_in) == (False, 60)
    assert first.why == "3 images; complete after 60 s of quiet"
    assert not settling.observe(scan(folder), 1059.9, local=True).complete
    assert settling.observe(scan(folder), 1060.0, local=True).complete


def test_change_starts_the_quiet_time_anew(folder):
    """A new, changed or removed file resets the wait, and the sentence names it."""
    settling = Settling(60)
    settling.observe(scan(folder), 0, local=True)
    put(folder, "DCIM/DJI_9.JPG")
    settling.observe(scan(folder), 50, local=True)
    verdict = settling.observe(scan(folder), 62, local=True)
    assert verdict.why == "4 images; DCIM/DJI_9.JPG appeared last; complete after 60 s of quiet"
    assert verdict.again_in == 48
    put(folder, "DCIM/DJI_1.JPG", b"more")
    assert "DCIM/DJI_1.JPG changed last;" in settling.observe(scan(folder), 70, local=True).why
    (folder / "DCIM/DJI_0.JPG").unlink()
    assert "DCIM/DJI_0.JPG went away last;" in settling.observe(scan(folder), 80, local=True).why
    assert settling.observe(scan(folder), 140, local=True).complete


def test_old_mtime_is_no_proof(folder):
    """A file with a time of years ago has been quiet only since it was first seen."""
    os.utime(folder / "DCIM/DJI_0.JPG", ns=(1, 1))
    assert not Settling(60).observe(scan(folder), 0, local=True).complete


def test_same_size_and_time_in_a_new_inode(folder):
    """A replaced file with equal size and mtime counts as a change on local filesystems only."""
    for local, complete in ((True, False), (False, True)):
        settling = Settling(60)
        settling.observe(scan(folder), 0, local=local)
        old = folder / "DCIM/DJI_0.JPG"
        times = old.stat().st_mtime_ns
        put(folder, "DCIM/new.bin")
        os.utime(folder / "DCIM/new.bin", ns=(times, times))
        (folder / "DCIM/new.bin").replace(old)
        assert settling.observe(scan(folder), 60, local=local).complete is complete


def test_no_settle_time_is_complete_at_once(folder):
    """A quiet time of zero asks for no second look."""
    assert Settling(0).observe(scan(folder), 0, local=True).complete


def test_folder_without_images_waits_for_them(tmp_path):
    """No image, no project, however quiet and ready the folder is."""
    put(tmp_path, "notes.txt")
    put(tmp_path, ".ready")
    verdict = Settling(0).observe(scan(tmp_path, ready_file=".ready"), 100, local=True)
    assert (verdict.complete, verdict.why, verdict.again_in) == (False, "waiting for images", None)


def test_ready_marker_ends_the_wait(folder):
    """The ready marker makes a folder complete at the first look."""
    put(folder, ".ready")
    verdict = Settling(60).observe(scan(folder, ready_file=".ready"), 0, local=True)
    assert verdict.complete
    assert verdict.ready


@pytest.mark.parametrize(
    ("name", "text"),
    [(".hold", "remove it when the folder is complete"), ("DCIM/DJI_4.JPG.part", "DCIM/DJI_4.JPG.part")],
)
def test_ready_marker_does_not_beat_a_reason_to_wait(folder, name, text):
    """`.hold` and temporary names stop a folder, however quiet, and with a ready marker too."""
    put(folder, ".ready")
    put(folder, name)
    settling = Settling(60)
    settling.observe(scan(folder, ready_file=".ready"), 0, local=True)
    verdict = settling.observe(scan(folder, ready_file=".ready"), 1000, local=True)
    assert not verdict.complete
    assert verdict.again_in is None
    assert text in verdict.why


def test_unreadable_entries_stop_a_folder(folder):
    """A folder of which a part is hidden is not complete, and the sentence says what is hidden."""
    tree = scan(folder)
    hidden = type(tree)(tree.files, tree.images, unreadable=((b"M\xe9", "permission denied"), (b"n", "x")))
    assert r"M\xe9 and 1 more cannot be read (permission denied)" in Settling(0).observe(hidden, 0, local=True).why


def test_image_is_hashed_ahead_after_three_seconds(folder):
    """Images that are quiet for three seconds, or the settle time if that is less, may be read already."""
    settling = Settling(60)
    assert settling.quiet_files(scan(folder), 0) == ()
    settling.observe(scan(folder), 0, local=True)
    put(folder, "DCIM/DJI_1.JPG", b"more")
    tree = scan(folder)
    settling.observe(tree, 2, local=True)
    assert [seen.path for seen in settling.quiet_files(tree, 3)] == [b"DCIM/DJI_0.JPG", b"DCIM/DJI_2.JPG"]
    assert len(settling.quiet_files(tree, 5)) == 3
    short = Settling(0.5)
    short.observe(tree, 0, local=True)
    assert len(short.quiet_files(tree, 0.5)) == 3


def test_preallocated_copy_is_seen_by_the_lease(folder):
    """A file at its full size and quiet, but open for writing elsewhere, stops the folder until it is closed."""
    settling = Settling(60)
    top = os.fsencode(folder)
    path = top + b"/DCIM/DJI_2.JPG"
    with writer_of(path):
        assert being_written(path) is True
        settling.observe(scan(folder), 0, local=True)
        assert settling.observe(scan(folder), 60, local=True).complete
        verdict = is_complete(settling, top, scan(folder), 60, local=True)
        assert not verdict.complete
        assert verdict.why == "3 images; being written by another program: DCIM/DJI_2.JPG"
        assert verdict.again_in is not None
        assert is_complete(Settling(0), top, scan(folder), 60, local=False).complete
        assert writers(top, scan(folder), local=False) == ()
    assert being_written(path) is False
    assert is_complete(settling, top, scan(folder), 60, local=True).complete


def test_lease_is_not_asked_before_its_time(folder):
    """While anything else says wait, no file is opened."""
    with writer_of(os.fsencode(folder / "DCIM/DJI_2.JPG")):
        verdict = is_complete(Settling(60), os.fsencode(folder), scan(folder), 0, local=True)
    assert "complete after 60 s of quiet" in verdict.why


def test_lease_is_given_back(folder):
    """After the probe a writer can open the file without waiting, and readers do not disturb the probe."""
    path = os.fsencode(folder / "DCIM/DJI_0.JPG")
    with (folder / "DCIM/DJI_0.JPG").open("rb"):
        assert being_written(path) is False
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.close(descriptor)


def test_probe_that_cannot_tell(tmp_path):
    """Missing files and things that are no files give no answer instead of a wrong one."""
    os.mkfifo(tmp_path / "pipe")
    assert being_written(os.fsencode(tmp_path / "missing")) is None
    assert being_written(os.fsencode(tmp_path / "pipe")) is None


_HOLDER = """
import fcntl, os, sys
from pix4d_watcher.intake.leases import ignore_sigio
if sys.argv[2] == "ignore":
    ignore_sigio()
handle = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("how", "code"), [("ignore", 0), ("die", -signal.SIGIO)])
def test_writer_does_not_kill_the_prober(folder, how, code):
    """A writer who comes while the lease is held raises SIGIO; ignored once at start-up, it does no harm."""
    path = os.fsencode(folder / "DCIM/DJI_0.JPG")
    command = [sys.executable, "-c", _HOLDER, path, how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        holder.communicate(timeout=20)
    assert holder.returncode == code


def test_leases_work_here(folder):
    """The filesystem under the tests grants leases, so that the tests above prove something."""
    with (folder / "DCIM/DJI_0.JPG").open("rb") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
