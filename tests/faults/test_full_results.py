"""The disk of the results is full, broken or read-only: the project waits with its reason, the others go on."""

import hashlib
import os
import time

import pytest
from disks import fill, free, lines, loop, memory, run, strace
from media_kit import PATIENT

from pix4d_watcher.engine.download import FIRST, RESERVE


@pytest.fixture
def disk(site, need, request):
    """A small disk for the results."""
    need("mount", root=True)
    with memory(site.results, getattr(request, "param", "size=300m")) as place:
        yield place
        site.kill()


def contents(site, folder="flight"):
    """Compare each fetched file with what the cloud holds, and give their names."""
    outputs = site.cloud.ledger()["outputs"].items()
    number = f"project-{site.used(folder)['id']}/"
    held = {key.rpartition("/")[2]: facts["sha256"] for key, facts in outputs if number in key}
    place = site.results / "survey" / folder
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir() if path.name in held}
    assert all(digest == held[name] for name, digest in found.items())
    return found.keys()


def kinds(site, name="flight"):
    """List what happened to a folder: the kinds only."""
    return [kind for kind, _text in site.events(name)]


@pytest.mark.parametrize("disk", [f"size={RESERVE + (2 << 20)}"], indirect=True)
def test_result_that_cannot_fit(site, disk):
    """A result that cannot fit takes a piece at most, is not asked for again and again, and holds up nobody else."""
    site.cloud.change(output_bytes=4_000_000)
    site.configure(results=True, outputs=["ortho"], advanced=PATIENT)
    site.drop()
    site.start()
    text = site.held("disk_full")
    assert str(disk) in text
    assert "are needed" in text
    assert "are free" in text
    asked = site.requests("get")
    site.drop("second")
    site.reach("processed", "second")
    site.once("second", held=True)
    time.sleep(2)
    assert kinds(site).count("held") == 1
    assert "lifted" not in kinds(site)
    assert site.requests("get") <= asked + 1  # the one question for the second's
    assert free(disk) >= RESERVE
    assert not any("Traceback" in line for line in lines(site))
    run("mount", "-o", "remount,size=200m", disk)
    site.delivered("flight", "second")
    assert contents(site) == contents(site, "second") == {"ortho.tif"}
    site.once(held=True)


@pytest.mark.parametrize("disk", ["size=200m,nr_inodes=6"], indirect=True)
def test_no_inodes(site, disk):
    """A disk with bytes and without inodes holds the project, once, until a file more is possible."""
    site.configure(results=True, outputs=["ortho", "dsm"])
    spare = [disk / f"file{number}" for number in range(3)]
    for file in spare:
        file.touch()
    site.drop()
    site.start()
    assert "inodes" in site.held("disk_full")
    time.sleep(2)
    assert kinds(site).count("held") == 1
    assert "lifted" not in kinds(site)
    run("mount", "-o", "remount,nr_inodes=100", disk)
    site.delivered()
    assert contents(site) == {"ortho.tif", "dsm.tif"}
    site.once(held=True)


def test_quota(site, disk, need, tmp_path):
    """A quota, which no count of free bytes shows, holds the project until it is gone."""
    need("strace")
    site.configure(results=True, outputs=["ortho"])
    site.start()
    site.until(site.vitals, "it runs")
    part = disk / "survey" / "flight" / ".ortho.tif.part"
    inject = ["-e", "trace=fallocate", "-e", "inject=fallocate:error=EDQUOT", "-P", str(part)]
    with strace(site.process.pid, tmp_path / "trace", *inject):
        site.drop()
        assert "quota" in site.held("disk_full")
        looks = site.look()["due_at"]
        site.until(lambda: site.look()["due_at"] != looks, "it is looked at again")
        time.sleep(1)
        assert kinds(site).count("held") == 1
        assert "lifted" not in kinds(site)
    site.delivered()
    assert contents(site) == {"ortho.tif"}
    site.once(held=True)


def test_flush_that_fails(site, disk, need, tmp_path):
    """After a flush that failed nothing of the file is believed: it is fetched again from its first byte."""
    need("strace")
    site.cloud.change(output_bytes=1_000_000)
    site.configure(results=True, outputs=["ortho"], advanced=PATIENT)
    site.start()
    site.until(site.vitals, "it runs")
    part = disk / "survey" / "flight" / ".ortho.tif.part"
    inject = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=2", "-P", str(part)]
    with strace(site.process.pid, tmp_path / "trace", *inject):
        site.drop()
        site.delivered()
    failed = (tmp_path / "trace").read_text().count("EIO")
    assert failed in {1, 2}  # strace counts the flushes of each of the two threads that fetch
    assert any("the disk fails" in line for line in lines(site))
    # A piece and the rest, and both once more: what the failed flush left in memory is not taken for the file.
    assert site.requests("get") == 2 + 2 * failed
    assert contents(site) == {"ortho.tif"}
    site.once()


def test_left_by_a_power_cut(site):
    """Of a file that an earlier process left, what was not surely flushed is fetched again: it may be zeros."""
    site.cloud.change(output_bytes=2_000_000)
    site.configure(results=True, outputs=["ortho"])
    site.fault("get", "cut", bytes=700_000, key="*ortho.tif", skip=1, times=1)
    site.fault("get", "delay", seconds=30, skip=1, times=None)
    site.drop()
    site.start()
    part = site.results / "survey" / "flight" / ".ortho.tif.part"
    site.until(lambda: part.exists() and part.stat().st_size > FIRST, "the middle of a download")
    site.kill()
    with part.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(FIRST)
        file.write(bytes(size - FIRST))
    site.cloud.faults.clear()
    assert site.run() == 0
    assert contents(site) == {"ortho.tif"}
    site.once()


def test_read_only_results(site, need):
    """Results on a disk that became read-only are tried again with clear words, seldom, until it is writable."""
    need("mount", "mkfs.ext4", root=True)
    # By twenty tries, after which a person is asked, a busy machine has come to the end: they last about a minute.
    site.configure(results=True, outputs=["ortho", "dsm"], advanced={"retry_base": "500ms", "retry_max": "5s"})
    site.cloud.change(processing_seconds=60.0)
    with loop(site.directory, site.results, size=150 << 20) as disk:
        site.drop()
        site.start()
        site.reach("started")
        disk.remount("ro")
        site.cloud.change(processing_seconds=0.0)
        site.until(lambda: "read-only" in (site.look()["waiting_for"] or ""), "it says so")
        assert "remount,rw" in site.look()["waiting_for"]
        before = len(lines(site))
        site.drop("second")
        site.reach("processed", "second")
        assert len([line for line in lines(site)[before:] if "read-only" in line]) <= 20
        assert site.requests("get") == 0
        disk.remount("rw")
        site.delivered("flight", "second")
        assert contents(site) == {"ortho.tif", "dsm.tif"}
        site.once()
        site.kill()


@pytest.mark.parametrize("disk", [f"size={RESERVE + (2 << 20)}"], indirect=True)
def test_never_to_the_brim(site, disk):
    """However small the results are, they leave the rest of the machine its room."""
    ballast = fill(disk, leave=RESERVE - (1 << 20))
    site.configure(results=True)
    site.drop()
    site.start()
    site.held("disk_full")
    assert site.requests("get") == 0
    ballast.unlink()
    site.delivered()
    site.once(held=True)
