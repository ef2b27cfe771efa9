"""The journal's disk runs full: the service pauses before, loses nothing when that was too late, and goes on alone."""

import os
import subprocess
import sys
import time

import nursery
import pytest
from disks import Kept, fill, free, lines, memory, processor_seconds
from harness import until
from media_kit import PATIENT

from pix4d_watcher.core.errors import JournalDiskFull
from pix4d_watcher.engine.world import World
from pix4d_watcher.host.room import MARK, MORE, RESERVE

SIZE = 64 << 20


@pytest.fixture
def disk(site, need):
    """A small disk for the journal."""
    need("mount", root=True)
    with memory(site.directory / "state", f"size={SIZE},mode=700") as place:
        yield place
        site.kill()
        site.let_go()


def paused(site):
    """Whether the service says that it waits for room; on a disk without any the journal may not even be read."""
    try:
        return (site.vitals().get("pause") or {}).get("kind") == "disk_full"
    except JournalDiskFull:
        return False


def told(site, event):
    """List the lines of the log that tell of an event."""
    return [line for line in lines(site) if f"event={event}" in line or f'event="{event}"' in line]


def typed(site, *words):
    """Type a command and give its exit code and what it printed."""
    out = site.directory / "typed"
    with out.open("wb") as file:
        arguments = [*words, "--config", str(site.config)]
        child = nursery.Child(arguments, stdout=file, stderr=file, cwd=site.directory)
        return child.wait(60), out.read_text("utf-8")


def test_pauses_before_it_is_full(site, disk):
    """Below the mark nothing is begun and all who ask are told why, at next to no cost; with room it goes on."""
    site.configure(upload={"connections": 2}, advanced=PATIENT)
    site.fault("put", "delay", seconds=1.0, times=None)
    site.drop(count=40)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 3, "some images are uploaded")
    ballast = fill(disk, leave=MARK - (1 << 20))
    site.until(lambda: paused(site), "the service pauses")
    site.drop("second")
    text = site.vitals()["pause"]["text"]
    assert all(part in text for part in (str(disk), "MB are free", "MB are needed", "Make room"))
    sent = site.until(lambda: site.vitals()["in_flight"] == {} and site.requests("put"), "what was in flight arrived")
    used, since = processor_seconds(site.process.pid), time.monotonic()
    code, status = typed(site, "status")
    assert (code, "almost full" in status) == (0, True)
    assert "almost full" in typed(site, "explain", "flight")[1]
    while time.monotonic() < since + 3:
        assert site.process.poll() is None
        time.sleep(0.1)
    assert site.requests("put") <= sent + 2
    assert not site.look("second")
    assert site.look()["images"]["uploaded"] < 40
    assert processor_seconds(site.process.pid) - used < 0.5 * (time.monotonic() - since)
    assert len(told(site, "paused")) == 1
    site.cloud.faults.clear()
    ballast.unlink()
    site.delivered("flight", "second")
    assert len(told(site, "going on")) == 1
    site.once(images=40)
    site.once("second")
    assert site.reserve.stat().st_blocks * 512 >= RESERVE


def test_filled_to_the_brim(site, disk):
    """Filled to the last byte in mid-upload, it uses its reserve, ends with 75 at most, and does nothing twice."""
    site.configure(upload={"connections": 2})
    site.fault("put", "delay", seconds=0.3, times=None)
    site.drop(count=40)
    site.start()
    with Kept(site) as kept:
        site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 3, "some images are uploaded")
        seen = {image.path for image in site.images() if image.status == "uploaded"}
        ballast = fill(disk)
        until(lambda: paused(site), "it pauses")
        until(lambda: told(site, "reserve used"), "the reserve is used")
        time.sleep(4)
        assert len(kept.ends) <= 2
        assert seen <= {image.path for image in site.images() if image.status == "uploaded"}
        site.cloud.faults.clear()
        ballast.unlink()
        until(lambda: site.look()["state"] == "delivered", "delivered")
        assert set(kept.ends) <= {75}
    site.once(images=40)
    assert "Traceback" not in site.log.read_text()
    assert site.reserve.exists()


def write_for_ever(site):
    """Write into the journal until it says no: a -wal that has room of its own takes some."""
    while True:
        site.pause_all(paused=True)


@pytest.mark.parametrize("first", [True, False], ids=["first start", "later start"])
def test_start_on_a_full_disk(site, disk, first):
    """A start on a full disk says why and ends with 75; where there is a reserve it pauses. With room all goes well."""
    if not first:
        site.start()
        site.until(site.vitals, "it runs")
        assert site.stop() == 0
        site.let_go()
        assert site.reserve.stat().st_size == RESERVE
    ballast = fill(disk)
    site.drop()
    site.start()
    if first:
        assert site.ended(60) == 75
        assert "no room for the" in lines(site)[-1]
        ballast.unlink()
        site.start()
    else:
        site.until(lambda: paused(site), "it pauses")
        assert not site.reserve.exists()
        assert len(told(site, "paused")) == 1
        ballast.unlink()
    site.delivered()
    site.once()
    assert len(told(site, "journal not usable yet")) <= 1
    assert site.reserve.stat().st_size == RESERVE


def test_half_a_minute_of_patience(site, disk):
    """A start on a disk without any room waits for a while before it gives up, and goes on when there is some."""
    with open(disk / "journal.db.lock", "w"):  # noqa: PTH123
        pass
    ballast = fill(disk)
    site.drop()
    site.start()
    site.until(lambda: told(site, "journal not usable yet"), "it says that it waits")
    time.sleep(1)
    assert site.process.poll() is None
    ballast.unlink()
    site.delivered()
    site.once()


def test_room_comes_back_above_the_mark_only(site, disk):
    """The pause does not end and begin with every file that somebody writes around the mark."""
    site.start()
    site.until(site.vitals, "it runs")
    # What its copy and its reserve take for a moment only would be room above the mark afterwards.
    site.until((disk / "journal.db.backup").exists, "the copy of the journal")
    site.until(lambda: site.reserve.exists() and site.reserve.stat().st_size == RESERVE, "the reserve")
    ballast = fill(disk, leave=MARK - (64 << 10))
    site.until(lambda: paused(site), "it pauses")
    os.truncate(ballast, ballast.stat().st_size - (MORE // 2))
    assert MARK < free(disk) < MARK + MORE
    time.sleep(2)
    assert paused(site)
    assert len(told(site, "paused")) == 1
    ballast.unlink()
    site.until(lambda: not paused(site), "it goes on")


def test_commands_on_a_full_disk(site, disk):
    """Commands that change the journal say that there is no room, with 75; those that look at it work."""
    site.configure(approve_above=0)
    site.drop()
    site.start()
    site.held("approval")
    fill(disk, leave=MARK // 2)
    until(lambda: paused(site), "it pauses")
    site.reserve.unlink(missing_ok=True)
    fill(disk, name="more")
    with pytest.raises(JournalDiskFull):
        write_for_ever(site)
    code, text = typed(site, "approve", "flight")
    assert code == 75
    assert "no room for the journal" in text
    assert typed(site, "status")[0] == 0


def test_no_half_backup(site, disk, tmp_path):
    """A backup that does not fit replaces no good one, leaves nothing behind, and the service goes on."""
    site.drop()
    site.start()
    site.delivered()
    good = disk / "journal.db.backup"
    site.until(good.exists, "the service keeps a copy")
    with memory(tmp_path / "stick", "size=1m") as stick:
        copy = stick / "copy.db"
        assert typed(site, "backup", str(copy))[0] == 0
        whole = copy.read_bytes()
        fill(stick, leave=len(whole) // 2)
        code, text = typed(site, "backup", str(copy))
        assert code == 75
        assert "the backup of the journal failed" in text
        assert copy.read_bytes() == whole
        assert sorted(file.name for file in stick.iterdir()) == ["ballast", "copy.db"]
    assert site.stop() == 0
    site.let_go()
    before = good.read_bytes()
    fill(disk, leave=MARK + len(before) - (8 << 10))
    site.start()
    site.until(lambda: told(site, "no backup"), "the copy does not fit")
    assert good.read_bytes() == before
    assert site.process.poll() is None
    assert not list(disk.glob("*.part"))


def test_restore_without_room(site, disk, tmp_path):
    """A restore that does not fit changes nothing and leaves nothing behind."""
    site.drop()
    assert site.run() == 0
    site.let_go()
    assert typed(site, "backup", str(tmp_path / "copy.db"))[0] == 0
    journal = site.directory / "state" / "journal.db"
    for room in (1.5, 2.5):  # in units of the journal: for the copy that is restored, and not for the one that is kept
        ballast = fill(disk, leave=int(room * journal.stat().st_size) // 4096 * 4096)
        before, names = journal.read_bytes(), sorted(disk.iterdir())
        code, text = typed(site, "restore", str(tmp_path / "copy.db"))
        ballast.unlink()
        if code:
            assert "cannot be restored" in text or "no room" in text
            assert journal.read_bytes() == before
            assert sorted(disk.iterdir()) == [name for name in names if name != ballast]
        else:
            assert room > 2
    assert site.run() == 0
    site.once()


def test_nothing_is_hurried():
    """Where only the disk is full the cloud is not asked, and the dispatcher does not look again at once."""
    world = World(lambda: pytest.fail("the cloud was asked"))
    assert not world.room("full")
    assert world.pause.kind == "disk_full"
    assert not world.look_again()
    assert world.until_look() > 60
    assert world.room("")
    assert world.pause is None


def test_log_on_a_full_disk(site):
    """Log lines that cannot be written end nothing and change no exit code."""
    site.drop()
    command = [sys.executable, "-m", "pix4d_watcher", "run", "--until-idle", "--config", site.config]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(command, stderr=full, stdout=full, check=False, timeout=100, cwd=site.directory)
        assert done.returncode == 0
        site.once()
        site.config.write_text("wrong: true\n")
        done = subprocess.run(command, stderr=full, stdout=full, check=False, timeout=100, cwd=site.directory)
        assert done.returncode == 78
