"""Clocks that jump, that begin in 1970, and machines that sleep: only the monotonic clock decides a wait.

The service runs under a clock that the tests set while it runs, see `clocks`.
"""

import os
import signal
import subprocess
import sys
import time

import clocks
import pytest
from harness import until
from nursery import WITH_THE_TESTS

from pix4d_watcher.host import lock

HOUR, DAY = 3600.0, 86400.0
JUMPS = {"an hour back": "-1h", "a day ahead": "+1d"}
SECONDS = {"-1h": -HOUR, "+1d": DAY}

PATIENT = {"request_timeout": "20s"}
"""No answer of a busy machine counts as lost, where a story is about no lost answer."""


@pytest.fixture(autouse=True)
def clock(site):
    """Have the service live by a clock that the test sets."""
    site.set_clock("+0")


def trouble(site):
    """List what was said of trouble with a folder."""
    return [text for kind, text in site.events() if kind in ("trouble", "image", "held")]


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_jump_while_settling(site, jump):
    """A jump while a folder settles does not cut its quiet time: that runs on another clock."""
    site.configure(settle="6s")
    site.start()
    site.until(site.vitals, "it runs")
    folder = site.drop()
    site.until(site.look, "it is found")
    began = time.monotonic()
    (folder / "DJI_0001.JPG").touch()
    time.sleep(1.5)  # the scanner saw it: a second behind its DEBOUNCE
    site.set_clock(jump)
    (site.drops / "note.txt").write_text("makes the scanner look")
    site.until(lambda: site.look()["state"] != "found", "it is complete")
    assert time.monotonic() - began >= 6.0
    site.delivered()
    assert site.clock_is() == pytest.approx(SECONDS[jump], abs=60)
    site.once()


def test_given_up_by_a_clock_that_was_behind(site):
    """A folder that was given up is not sent unasked because the clock was behind its directory when it was found."""
    site.set_clock("-1d")
    folder = site.prepare()
    (folder / ".hold").touch()
    folder = folder.rename(site.drops / "flight")
    site.start()
    site.until(site.look, "it is found")
    site.ask("drop")
    (folder / ".hold").unlink()
    assert "it may be survey/flight, which was given up" in site.held("approval")
    assert site.requests("create") == 0


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_jump_while_uploading(site, jump):
    """A jump in mid-upload spoils the signatures once; the cloud's time corrects them, and no image loses a try."""
    site.configure(upload={"connections": 2}, advanced=PATIENT)
    site.fault("put", "delay", seconds=0.5, times=None)
    site.drop(count=40)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 2, "some images are uploaded")
    site.set_clock(jump)
    site.until(lambda: site.cloud.ledger()["refused"].get("put", 0) >= 1, "a signature is refused")
    site.cloud.faults.clear()
    site.delivered()
    assert site.clock_is() == pytest.approx(SECONDS[jump], abs=60)
    assert not trouble(site)
    site.once(images=40)


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_jump_in_doubt(site, jump):
    """A jump right after a lost start does not cut the doubt: nobody asks before the start has had its time to land."""
    site.configure(advanced={"doubt_wait": "6s"})
    site.fault("start", "late", seconds=4)
    site.drop()
    site.start()
    site.until(lambda: site.requests("start"), "the answer to the start is lost")
    site.set_clock(jump)
    asked = site.requests("project")
    while True:
        probes, landed = site.requests("project") - asked, site.used()["starts"]
        if landed:
            break
        assert not probes, "it was asked whether the start happened before it could land"
        time.sleep(0.02)
    site.delivered()
    assert site.clock_is() == pytest.approx(SECONDS[jump], abs=60)
    (start,) = [effect for effect in site.effects() if effect.kind == "start"]
    assert start.learnt == "probe"
    assert site.requests("start") == 1
    site.once()


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_jump_while_polling(site, jump):
    """After a jump the cloud is asked on, neither late nor all the time: the growing pause counts by another clock."""
    site.cloud.change(processing_seconds=3600)
    site.configure(poll=None, advanced=PATIENT)
    site.drop()
    site.start()
    site.reach("started")
    site.until(lambda: "processing" in (site.look()["waiting_for"] or ""), "it was asked once")
    asked = site.requests("project")
    site.set_clock(jump)
    site.until(lambda: site.requests("project") > asked, "the due time of before the jump counts no more")
    site.until(lambda: site.clock_is() == pytest.approx(SECONDS[jump], abs=60), "it lives by the new clock")
    site.until(lambda: due_in(site) is not None, "it is to be asked again")
    assert due_in(site) < 60
    assert site.requests("project") <= asked + 2


def due_in(site):
    """Say in how many seconds of the service's clock a project is due; None for one that is due now."""
    journal = site.journal()
    with journal.read() as connection:
        due = connection.exec_driver_sql("SELECT due_at FROM projects").scalar()
    left = None if due is None else due - time.time() - site.clock_is()
    return left if left is not None and left > 0 else None


WRITERS = """
import sys, threading, time
from pathlib import Path
from pix4d_watcher.core.errors import JournalError
from pix4d_watcher.journal import database, service

journal = database.open_journal(Path(sys.argv[1]))
days, failed, stop, one_at_a_time = set(), [], threading.Event(), threading.Lock()

def work(name):
    while not stop.wait(0.005):
        today = int(time.time() // 86400)
        with one_at_a_time:
            if today not in days:
                days.add(today)
                print("a new day", flush=True)
        try:
            service.put(journal, name, True)
        except JournalError as error:
            failed.append(str(error))

threads = [threading.Thread(target=work, args=(f"thread {number}",)) for number in range(8)]
for thread in threads:
    thread.start()
sys.stdin.readline()
stop.set()
for thread in threads:
    thread.join()
print(len(days), failed)
"""


def test_jumps_while_threads_wait_to_write(tmp_path):
    """Jumps ahead do not end the wait of threads for their turn to write into the journal."""
    clock = tmp_path / "clock"
    clocks.write(clock, "+0")
    command = [sys.executable, "-c", WRITERS, str(tmp_path / "journal.db")]
    environment = {**os.environ, **clocks.environment(clock)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    writers = subprocess.Popen(command, **pipes, env=environment, text=True)
    try:
        for day in range(1, 5):
            assert writers.stdout.readline() == "a new day\n"
            clocks.write(clock, f"+{day}d")
        assert writers.stdout.readline() == "a new day\n"
        said, _nothing = writers.communicate("enough\n", timeout=60)
    finally:
        writers.kill()
    days, failed = said.split(maxsplit=1)
    assert failed == "[]\n"
    assert int(days) >= 5


def test_jump_while_a_retention_runs(site):
    """A clock that jumps a day ahead deletes nothing before the retention has really passed."""
    site.configure(after="delete", retention="12h")
    folder = site.drop()
    site.start()
    site.until(lambda: site.look().get("state") == "delivered" and retention_runs(site), "the retention runs")
    site.set_clock("+1d")
    site.until(lambda: "afterwards" in kinds(site), "it says why the folder is kept")
    assert "the retention is not over yet" in dict(site.events())["afterwards"]
    assert len(list(folder.iterdir())) == 6


def test_delivered_in_1970(site):
    """Where the clock is set right only after the delivery the retention still begins with the delivery.

    Also where the download of the results took longer than the retention.
    """
    site.configure(results=True, after="delete", retention="12h")
    site.fault("get", "status", code=503, times=None)
    folder = site.drop()
    site.set_clock("@1970-01-01 00:05:00")
    site.start()
    site.reach("processed")
    site.cloud.change(clock_skew=DAY)
    site.cloud.faults.clear()
    site.until(lambda: site.look().get("state") == "delivered" and retention_runs(site), "the retention runs")
    site.set_clock("+1d")
    site.until(lambda: "afterwards" in kinds(site), "it says why the folder is kept")
    assert len(list(folder.iterdir())) == 6
    site.kill()
    site.cloud.change(clock_skew=2 * DAY)
    site.set_clock("+2d")
    site.start()
    site.until(lambda: site.look().get("put_away") == "deleted", "it is deleted when it is time")
    assert not folder.exists()


def retention_runs(site):
    with site.journal().read() as connection:
        return connection.exec_driver_sql("SELECT kept_since FROM projects").scalar()


def kinds(site):
    return {kind for kind, _text in site.events()}


def test_start_in_1970(site):
    """A machine without a battery for its clock begins in 1970: signed by the cloud's time, said once, delivered."""
    site.configure(results=True, upload={"connections": 4})
    site.set_clock("@1970-01-01 00:05:00")
    site.drop("first")
    site.drop("second")
    site.start()
    site.delivered("first", "second")
    assert site.clock_is() < -50 * 365 * DAY
    for name in ("first", "second"):
        site.once(name)
    assert not site.cloud.ledger()["refused"]
    assert site.log.read_text().count("clock differs from the cloud's") == 1
    site.set_clock("+0")
    time.sleep(clocks.SEEN_WITHIN)
    site.drop("third")
    site.delivered("third")
    site.once("third")
    assert site.log.read_text().count("clock differs from the cloud's") == 2


def test_due_times_of_a_clock_that_was_ahead(site):
    """Due times that a wrong clock wrote far ahead are due now; nothing sleeps for a year."""
    site.configure(advanced={"retry_max": "30s", "retry_base": "10s"})
    site.fault("create", "status", code=429, times=None)
    site.drop()
    site.set_clock("+400d")
    site.start()
    site.until(lambda: site.requests("create") and due_in(site), "it waits for another try")
    site.kill()
    site.cloud.faults.clear()
    site.set_clock("+0")
    site.start()
    site.delivered()
    site.once()


def test_uptime_begins_anew(site, need):
    """The monotonic clock of the last boot means nothing in this one: a doubt found open waits in full, once."""
    need("unshare", root=True)
    site.fault("start", "late", seconds=2)
    site.drop()
    far = ["unshare", "-T", "--fork", "--kill-child", "--monotonic", "8640000", "--boottime", "8640000"]
    command = [*WITH_THE_TESTS, *far, sys.executable, "-m", "pix4d_watcher", "run", "--config", site.config]
    with site.log.open("ab") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log, cwd=site.directory, start_new_session=True)
    try:
        until(lambda: site.requests("start"), "the answer to the start is lost")
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    until(lambda: is_free(site), "the killed service is gone")
    site.start()
    site.delivered()
    assert site.requests("start") == 1
    site.once()


def is_free(site):
    try:
        with lock.hold(lock.lock_path(site.directory / "state" / "journal.db")):
            return True
    except lock.AlreadyRunning:
        return False


@pytest.mark.parametrize(("call", "state"), [("put", "created"), ("start", "registered"), ("project", "uploaded")])
def test_suspended(site, call, state):
    """A service that is stopped for longer than every timeout while it waits for an answer goes on as before."""
    site.configure(upload={"connections": 2}, advanced={"request_timeout": "8s"})
    site.fault(call, "delay", seconds=7.0)
    site.drop()
    site.start()
    site.until(lambda: site.requests(call), "it waits for an answer")
    site.suspend()
    assert site.look()["state"] == state, "it waits for the answer"
    time.sleep(10)  # longer than request_timeout and doubt_wait
    site.resume()
    site.delivered()
    site.once()
