"""Commands that are run when something happened: told once more when they fail, and never in the way of an upload."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from pix4d_watcher.journal import outbox

pytestmark = pytest.mark.check  # minutes in all: run by make check

# Appends what it was told to a file and ends as its first argument says.
HOOK = """\
import json, os, sys, time
place, code, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
said = {"env": dict(os.environ), "stdin": json.load(sys.stdin), "cwd": os.getcwd(), "group": os.getpgid(0),
        "pid": os.getpid(), "open": sorted(os.listdir("/proc/self/fd"))}
with open(place, "a") as file:
    file.write(json.dumps(said) + "\\n")
print("the printer is out of ink" if code else "fine", flush=True)
time.sleep(seconds)
sys.exit(code)
"""


@pytest.fixture
def hooked(site):
    """A site whose commands write down what they are told."""
    script = site.directory / "hook.py"
    script.write_text(HOOK)
    site.told = site.directory / "told"

    def command(code=0, seconds=0):
        return [sys.executable, str(script), str(site.told), str(code), str(seconds)]

    def configure(*, timeout="2m", more=None, **hooks):
        site.configure(**(more or {}))
        settings = yaml.safe_load(site.config.read_text())
        settings["hooks"] = {**hooks, "timeout": timeout}
        site.config.write_text(yaml.safe_dump(settings))

    site.command, site.hooks = command, configure
    return site


def told(site):
    """List what the commands were told so far."""
    return [json.loads(line) for line in site.told.read_text().splitlines()] if site.told.exists() else []


def hook_events(site, name="flight"):
    """List what the history says of commands."""
    return [text for kind, text in site.events(name) if kind == "hook"]


def test_delivered_and_held(hooked, monkeypatch):
    """Each delivery and each hold runs its command once, with the facts in variables and as JSON, and no secret."""
    site = hooked
    monkeypatch.setenv("PIX4D_CLIENT_SECRET", "demo-secret")
    monkeypatch.setenv("MY_TOKEN", "abc")
    site.hooks(on_delivered=site.command(), on_held=site.command(), more={"results": True})
    site.drop()
    site.drop("few", 3)
    assert site.run() == 0
    by_event = {said["env"]["PIX4D_EVENT"]: said for said in told(site)}
    assert len(told(site)) == 2
    done, held = by_event["delivered"], by_event["held"]
    assert {name for name in done["env"] if not name.startswith("PIX4D_")} <= {"PATH", "LANG", "LC_CTYPE"}
    assert "demo-secret" not in site.told.read_text()
    assert done["env"]["PIX4D_ROOT"] == "survey"
    assert done["env"]["PIX4D_FOLDER"] == done["stdin"]["folder"] == "flight"
    assert done["env"]["PIX4D_STATE"] == done["stdin"]["state"] == "delivered"
    assert done["env"]["PIX4D_REMOTE_ID"] == str(site.used()["id"]) == str(done["stdin"]["remote_id"])
    assert done["env"]["PIX4D_RESULTS"] == str(site.results / "survey" / "flight") == done["stdin"]["results"]
    assert (done["env"]["PIX4D_HOLD_CODE"], done["stdin"]["event"]) == ("", "delivered")
    assert held["env"]["PIX4D_HOLD_CODE"] == held["stdin"]["hold"]["code"] == "too_few_images"
    assert "3" in held["env"]["PIX4D_HOLD_TEXT"]
    assert "pix4d-watcher approve survey/few" in held["env"]["PIX4D_HOLD_TEXT"] == held["stdin"]["hold"]["text"]
    assert (done["cwd"], done["group"]) == ("/", done["pid"])
    assert set(done["open"]) <= {"0", "1", "2", "3"}
    assert hook_events(site) == ["on_delivered done"]
    assert site.run() == 0
    assert len(told(site)) == 2


def test_without_commands(site):
    """Where no command is configured nothing waits and nothing is kept for later."""
    site.drop()
    assert site.run() == 0
    assert outbox.next_due(site.journal(), 2e9, 0.0) is None
    assert not hook_events(site)


def test_failures_are_retried(hooked):
    """A command that fails is reported with its last words and run again until it succeeds; nothing else waits."""
    site = hooked
    site.hooks(on_delivered=site.command(code=3))
    site.drop()
    site.start()
    site.until(lambda: site.look() and len(told(site)) >= 2, "the command was run again")
    site.drop("other")
    site.delivered("other")
    (trouble, *_more) = outbox.troubles(site.journal())
    assert trouble.error == "on_delivered: it ended with code 3: the printer is out of ink"
    site.kill()
    site.hooks(on_delivered=site.command())
    site.start()
    site.until(lambda: hook_events(site)[-1:] == ["on_delivered done"], "it succeeded")
    site.until(lambda: not outbox.troubles(site.journal()), "nothing is left to say")


def test_renamed_before_it_is_run_again(hooked):
    """A command is told where the results lie, also when the folder was renamed since."""
    site = hooked
    site.hooks(on_delivered=site.command(code=3), more={"results": True})
    folder = site.drop()
    site.start()
    site.until(lambda: told(site), "the command was run")
    folder.rename(site.drops / "harbour")
    site.until(lambda: told(site)[-1]["env"]["PIX4D_FOLDER"] == "harbour", "it is run again")
    assert {said["env"]["PIX4D_RESULTS"] for said in told(site)} == {str(site.results / "survey" / "flight")}
    assert (site.results / "survey" / "flight" / ".complete").exists()


def test_given_up(hooked):
    """After ten failures a command is given up, and status says so until one of its kind succeeds."""
    site = hooked
    site.hooks(on_held=["/nowhere/notify"], on_delivered=site.command(), more={"advanced": {"retry_max": "300ms"}})
    site.drop("few", 3)
    site.drop()
    site.start()
    site.until(lambda: site.look("few") and [t for t in hook_events(site, "few") if "given up" in t], "given up")
    assert len(hook_events(site, "few")) == 10
    (given_up,) = outbox.troubles(site.journal())
    assert given_up.done_at
    assert "/nowhere/notify cannot be started: No such file or directory (10 tries)" in given_up.error
    assert b"given up" in site.log.read_bytes()
    site.delivered()


def test_timeout_ends_the_whole_group(hooked):
    """A command that hangs is ended with all that it started, and counts as failed."""
    site = hooked
    pids = site.directory / "pids"
    child = f"sleep 300 & echo $$ $! >> {pids}; wait"
    site.hooks(on_delivered=["/bin/sh", "-c", child], timeout="2s")
    site.drop()
    site.start()
    # On a busy machine its time may be over before it said anything; then it is run again.
    site.until(lambda: pids.exists() and pids.read_text().endswith("\n"), "it runs")
    both = [int(pid) for pid in pids.read_text().splitlines()[0].split()]
    site.until(lambda: site.look() and [text for text in hook_events(site) if "longer than 2 s" in text], "ended")
    site.until(lambda: not any(map(is_alive, both)), "both processes are gone")


def is_alive(pid):
    """Whether a process runs; one that is dead and not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_stop_in_the_middle(hooked):
    """A stop of the service ends a command within seconds, and the next start runs it again."""
    site = hooked
    site.hooks(on_delivered=site.command(seconds=300), timeout="10m")
    site.drop()
    site.start()
    site.until(lambda: told(site), "the command runs")
    assert site.stop() == 0
    (said,) = told(site)
    assert not is_alive(said["pid"])
    site.hooks(on_delivered=site.command())
    assert site.run() == 0
    assert len(told(site)) == 2
    assert hook_events(site) == ["on_delivered done"]
    site.once()


def test_kill_in_the_middle(hooked):
    """A command under way at a power cut is run again: at least once, never silently not."""
    site = hooked
    site.hooks(on_delivered=site.command(seconds=300), timeout="10m")
    site.drop()
    site.start()
    site.until(lambda: told(site), "the command runs")
    site.kill()
    os.kill(told(site)[0]["pid"], signal.SIGKILL)
    site.hooks(on_delivered=site.command())
    assert site.run() == 0
    assert len(told(site)) == 2


def test_a_talkative_command(hooked):
    """Output without end neither blocks a command nor fills the journal; what it leaves running holds nothing up."""
    site = hooked
    left = site.directory / "left"
    talk = f"yes 'a long line' | head -c 5000000; echo 'the last word' >&2; sleep 300 & echo $! >> {left}; exit 1"
    site.hooks(on_delivered=["/bin/sh", "-c", talk])
    site.drop()
    site.start()
    site.until(lambda: site.look() and hook_events(site), "it failed")
    text = hook_events(site)[0]
    assert text.endswith("the last word")
    assert len(text) < 5000
    site.kill()
    for pid in left.read_text().split():
        os.kill(int(pid), signal.SIGKILL)
