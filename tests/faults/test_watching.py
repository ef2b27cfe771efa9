"""Watches that are lost, refused or blind: the scan finds what no event told, and `status` says how it is watched."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import all_traced, until
from nursery import WITH_THE_TESTS

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
USUAL_QUEUE = 16384
"""The kernel's default: what is put back is never less, for other runs of these tests may have lowered it meanwhile."""


def watching(site):
    """Say how the drop directory is watched, as the journal has it."""
    root = site.root() if site.journal() else None
    return root.watching if root else ""


def becomes(site, how):
    """Wait until the drop directory is watched in a way, and give what is said of it."""
    return site.until(lambda: watching(site) if watching(site).startswith(how) else "", f"it is watched by {how}")


def says_so(site, run_cli, how):
    """Check that people and programs are told how it is watched."""
    table = run_cli("status", "--config", site.config).stdout
    assert "".join(f"watched by {how}".split()) in "".join(table.split())
    (root,) = json.loads(run_cli("status", "--json", "--config", site.config).stdout)["roots"]
    assert root["watching"] == how


@pytest.fixture
def small_queue(need):
    """A queue of sixteen events for each watcher that is made meanwhile."""
    need(root=True)
    before = QUEUE.read_text()
    QUEUE.write_text("16")
    try:
        yield
    finally:
        QUEUE.write_text(str(max(int(before), USUAL_QUEUE)))


@pytest.fixture
def hinder(need):
    """Have calls of the running service end as told, by strace; what is given back ends that."""
    need("strace", root=True)
    tracers = []

    def begin(site, what):
        report = site.directory / f"strace-{len(tracers)}"
        call = what.partition(":")[0]
        command = ["strace", "-f", "-q", "-o", report, "-e", f"trace={call}", "-e", f"inject={what}"]
        tracer = subprocess.Popen([*command, "-p", str(site.process.pid)], stderr=subprocess.DEVNULL)
        tracers.append(tracer)
        until(lambda: all_traced(site.process.pid), "strace holds all threads")
        return lambda: (tracer.send_signal(signal.SIGINT), tracer.wait(60))

    yield begin
    for tracer in tracers:
        tracer.kill()
        tracer.wait()


def test_queue_overflows(small_queue, site):
    """When the kernel's queue overflows, what it lost is found all the same."""
    names = [f"flight-{number}" for number in range(20)]
    for name in names:
        site.prepare(name, count=4)
    site.configure(checks={"too_few_images": "off"})
    site.start()
    becomes(site, "inotify")
    site.suspend()
    for name in names:
        (site.directory / "prepared" / name).rename(site.drops / name)
        (site.drops / name / "DJI_0004.JPG").touch()
    site.resume()
    site.delivered(*names)
    assert "overflow" in site.log.read_text()
    assert len(site.cloud.ledger()["projects"]) == 20


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_root_made_anew(site, how):
    """A drop directory that is deleted and made again, or replaced, is watched anew, and what is done stays done."""
    site.drop("before")
    site.start()
    site.delivered("before")
    inode = site.root().inode
    if how == "deleted":
        (site.directory / "keeps the inode").mkdir()
        shutil.rmtree(site.drops)
    else:
        site.drops.rename(site.directory / "old")
    site.until(lambda: not site.root().present, "the drop directory is seen to be away")
    site.drops.mkdir()
    site.drop("after")
    site.delivered("after")
    site.once("after")
    becomes(site, "inotify")
    assert site.root().inode == site.drops.stat().st_ino != (None if how == "deleted" else inode)
    assert [row["state"] for row in site.status()] == ["delivered", "delivered"]


def test_card_put_into_a_running_service(media, site):
    """A card that is mounted on the drop directory while the service runs is found, watched and sent."""
    site.start()
    becomes(site, "inotify")
    site.prepare()
    media.reader(site.drops).insert(media.card(site.directory / "prepared"))
    site.delivered()
    site.once()
    site.until(lambda: site.root().inode == site.drops.stat().st_ino, "the card is what is watched")
    becomes(site, "inotify")


def test_share_is_polled(media, site, run_cli):
    """Where other machines write without an event, it polls, says so, and finds what they write."""
    source = site.directory / "source"
    source.mkdir()
    media.share(source, site.drops)
    site.start()
    how = becomes(site, "polling")
    assert how == "polling: this filesystem does not report what other machines write"
    says_so(site, run_cli, how)
    (site.prepare()).rename(source / "flight")
    site.delivered()
    site.once()


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (
            "error=ENOSPC",
            "polling: the limit of inotify watches is used up; raise it: sysctl fs.inotify.max_user_watches",
        ),
        ("error=EMFILE", "polling: the limit of inotify instances is used up; raise it: sysctl"),
        ("retval=1", "polling: the kernel granted no watch"),
    ],
    ids=["no watches left", "no instances left", "a watch that is none"],
)
def test_no_watch_while_it_runs(site, run_cli, hinder, outcome, said):
    """Where a watch is refused, or granted and not there, it polls, says why, and watches again when that is over."""
    site.start()
    becomes(site, "inotify")
    release = hinder(site, f"inotify_add_watch:{outcome}")
    site.drops.rename(site.directory / "old")
    site.drops.mkdir()
    how = becomes(site, said)  # just between the two calls something else may be said
    if outcome == "error=ENOSPC":
        says_so(site, run_cli, how)
    site.drop()
    site.delivered()
    site.once()
    release()
    becomes(site, "inotify")


def test_no_watch_from_the_start(site, need):
    """At the limit of watches it starts, polls and names the setting; raised while it runs, it watches again."""
    need("unshare", "nsenter", root=True)
    limit = "/proc/sys/user/max_inotify_watches"
    script = f'echo 0 > {limit} && exec {" ".join(WITH_THE_TESTS)} "$0" -m pix4d_watcher run --config "$1"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script, sys.executable, str(site.config)]
    with site.log.open("ab") as log:
        site.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=site.directory)
    assert "sysctl fs.inotify.max_user_watches=" in becomes(site, "polling: the limit of inotify watches is used up")
    site.drop()
    site.delivered()
    site.once()
    inside = ["nsenter", "--user", "--preserve-credentials", "--target", str(site.process.pid)]
    subprocess.run([*inside, "sh", "-c", f"echo 1000 > {limit}"], check=True)
    becomes(site, "inotify")


def test_root_behind_a_link(site):
    """A drop directory that is a link is watched where it leads to, and where it leads to later."""
    site.drops.rename(site.directory / "one")
    site.drops.symlink_to("one")
    site.drop("first")
    site.start()
    site.delivered("first")
    (site.directory / "two").mkdir()
    site.prepare("second").rename(site.directory / "two/second")
    (site.directory / "next").symlink_to("two")
    (site.directory / "next").rename(site.drops)
    site.delivered("second")
    becomes(site, "inotify")
    assert site.root().inode == (site.directory / "two").stat().st_ino
    assert site.look("first")["state"] == "delivered"
