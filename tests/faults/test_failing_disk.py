"""The journal's disk fails or is read-only: nothing un-flushed is believed, nothing is done twice, nothing spins."""

import time
from pathlib import Path

import pytest
from disks import Kept, lines, loop, processor_seconds, strace
from harness import until
from media_kit import steady

from pix4d_watcher.core.errors import JournalError
from pix4d_watcher.engine.opening import AGAIN

UNIT = Path(__file__).parents[2] / "deploy" / "pix4d-watcher.service"


@pytest.fixture
def disk(site, need):
    """A disk of its own for the journal."""
    need("mount", "mkfs.ext4", root=True)
    with loop(site.directory, site.directory / "state") as made:
        made.place.chmod(0o700)
        yield made
        site.kill()
        site.let_go()


def status(site):
    """Give what is known of the folder, {} where the journal cannot be read at the moment."""
    try:
        return site.look()
    except JournalError:
        site.let_go()
        return {}


@pytest.mark.parametrize("when", [2, 9])
def test_flush_that_fails(site, need, tmp_path, when):
    """After a flush of the journal that failed the process ends with 75 and comes back; nothing is done twice."""
    need("strace")
    site.start()
    site.until(site.vitals, "it runs")
    process = site.process
    wal = site.directory / "state" / "journal.db-wal"
    inject = ["-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={when}", "-P", str(wal)]
    with Kept(site) as kept:
        with strace(process.pid, tmp_path / "trace", *inject):
            site.drop(count=12)
            until(lambda: process.poll() is not None, "the process ends")
        until(lambda: kept.ends and status(site).get("state") == "delivered", "delivered")
    assert "EIO" in (tmp_path / "trace").read_text()
    assert kept.ends == [75]
    assert any("journal not usable" in line and "the disk of the journal fails" in line for line in lines(site))
    assert "Traceback" not in site.log.read_text()
    site.once(images=12)


def test_read_only_while_running(site, disk):
    """A journal whose disk becomes read-only says so with the remedy, waits without spinning, and comes back."""
    disk.remount("errors=remount-ro")
    site.configure(upload={"connections": 2})
    site.fault("put", "delay", seconds=0.3, times=None)
    site.drop(count=40)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 3, "some images are uploaded")
    first = site.process
    with Kept(site) as kept:
        disk.remount("abort")  # as an error of the disk does; remount,ro is refused while files are being written
        until(lambda: first.poll() == 75, "it ends")
        until(lambda: site.process not in (None, first), "it is started again")
        until(lambda: any("not usable yet" in line for line in lines(site)), "it says why")
        written, process = len(lines(site)), site.process
        used, sent = processor_seconds(process.pid), site.requests("put")
        time.sleep(5)
        assert len(kept.ends) == 1
        assert process.poll() is None
        assert len(lines(site)) == written
        assert processor_seconds(process.pid) - used < 1.0
        assert site.requests("put") == sent
        assert all(any(part in line for line in lines(site)) for part in ("read-only", "remount,rw", str(disk.place)))
        # A filesystem that was aborted is checked and mounted anew; a service that waits does not keep it busy.
        site.let_go()
        site.cloud.faults.clear()
        disk.revive(lambda: steady(lambda: not any(disk.place.iterdir()), "no journal is begun there", 2 * AGAIN + 0.5))
        until(lambda: status(site).get("state") == "delivered", "delivered")
    site.once(images=40)
    assert "Traceback" not in site.log.read_text()


def test_start_on_a_read_only_disk(site, disk):
    """A start on a read-only disk is no question of permission: it ends with 75, which systemd tries again."""
    site.start()
    site.until(site.vitals, "it runs")
    assert site.stop() == 0
    site.let_go()
    disk.remount("ro")
    site.start()
    assert site.ended(60) == 75
    assert "is read-only" in lines(site)[-1]
    disk.remount("rw")
    site.drop()
    assert site.run() == 0
    site.once()


def test_old_wal_is_not_appended_to(site):
    """After an unclean end the -wal begins anew, so that no later commit follows one that never reached the disk."""
    site.drop()
    site.start()
    site.delivered()
    wal = site.directory / "state" / "journal.db-wal"
    site.kill()
    salt, size = wal.read_bytes()[16:24], wal.stat().st_size
    assert size > 100_000
    site.start()
    site.until(lambda: any("unclean end" in line for line in lines(site)), "it starts")
    site.until(lambda: wal.exists() and 0 < wal.stat().st_size < size, "it is a new one")
    assert wal.read_bytes()[16:24] != salt


def test_systemd_never_gives_up():
    """The unit starts a service that ended with 75 again, however often."""
    lines = [line.strip() for line in UNIT.read_text("utf-8").splitlines()]
    assert "Restart=on-failure" in lines
    assert "StartLimitIntervalSec=0" in lines[lines.index("[Unit]") : lines.index("[Service]")]
    assert not any("75" in line.split("=")[1].split() for line in lines if line.startswith("RestartPrevent"))
