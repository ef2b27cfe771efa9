"""The journal after its process was killed at any moment: sound, whole, and with every fact that was acknowledged."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from journal_kit import statuses

from pix4d_watcher.core.model import State
from pix4d_watcher.journal import database, views

KILLS = 20
ORDER = list(State)
LIFE = [
    "found",
    "settled",
    "checked",
    "created",
    "uploaded",
    "batch",
    "registered",
    "started",
    "processed",
    "delivered",
]
NURSERY = "import sys; sys.path.insert(0, sys.argv[1]); import journal_kit; journal_kit.nursery(sys.argv[2])"


def killed_life(nursery, facts):
    """Have a life begun, kill it after so many facts, and give all the facts that it acknowledged."""
    nursery.stdin.write("go\n")
    nursery.stdin.flush()
    number, acknowledged, killed = None, [], False
    for line in nursery.stdout:
        who, what = line.split()
        if what == "dead":
            assert killed, "the life ended by itself"
            return acknowledged
        if what == "born":
            number = int(who)
        else:
            acknowledged.append((int(who), State(what)))
        if number and len(acknowledged) >= facts and not killed:
            os.kill(number, signal.SIGKILL)
            killed = True
    raise AssertionError("the nursery ended")


def look_at_all(journal, acknowledged):
    """Hold the journal against what was acknowledged, and each project against its own history."""
    database.check(journal)
    states = {row["id"]: State(row["state"]) for row in views.status(journal)}
    for number, state in acknowledged:
        assert ORDER.index(states[number]) >= ORDER.index(state)
    for number, state in states.items():
        told = [kind for _, kind, _ in views.events_of(journal, number, 99)]
        assert told == LIFE[: len(told)]
        assert state == [kind for kind in told if kind in ORDER][-1]
        assert len(statuses(journal, number)) == (0 if state is State.FOUND else 3)
        if ORDER.index(state) >= ORDER.index(State.REGISTERED):
            assert statuses(journal, number) == ["registered"] * 3


def test_killed_at_any_moment(journal_file):
    """Killed twenty times in the middle of its verbs, the journal opens, is sound, and lost nothing acknowledged."""
    rng = random.Random(20_240_501)
    acknowledged = []
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, Path(__file__).parent, journal_file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for _ in range(KILLS):
            acknowledged += killed_life(nursery, rng.randint(1, 12))
            journal = database.open_journal(journal_file)
            look_at_all(journal, acknowledged)
            journal.close()
    finally:
        os.killpg(nursery.pid, signal.SIGKILL)
        nursery.communicate(timeout=30)
    assert len(acknowledged) > KILLS
