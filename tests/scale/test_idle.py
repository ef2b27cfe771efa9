"""What an idle service carries around."""

import json
import signal
import subprocess
import sys

import pytest
from measure import memory
from nursery import WITH_THE_TESTS

from pix4d_watcher.emulator import flights
from pix4d_watcher.journal import views

pytestmark = pytest.mark.check  # minutes in all: run by make check

AIM = 90.0
"""MiB; as for a large flight, see test_large_flight."""

NEVER = {"alembic", "boto3", "apprise"}

# Runs the command as people do, and at each SIGUSR1 says which modules are there.
PROBE = """
import json, signal, sys
from pathlib import Path

def tell(*_):
    Path(sys.argv[-1]).with_suffix(".modules").write_text(json.dumps(sorted(sys.modules)))

signal.signal(signal.SIGUSR1, tell)
from pix4d_watcher.cli.app import main
main()
"""


def modules(station):
    """Ask the running service for its modules."""
    answer = station.config.with_suffix(".modules")
    answer.unlink(missing_ok=True)
    station.process.send_signal(signal.SIGUSR1)

    def answered():
        try:
            return json.loads(answer.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    return set(station.until(answered, "the service lists its modules"))


def scanned(station):
    """Say whether the drop directory was looked through."""
    with station.journal() as journal:
        return journal is not None and views.all_roots(journal)


@pytest.mark.timeout(200)
def test_idle_service_loads_little(station):
    """Neither before nor after a flight does the service hold what only commands, migrations or notices need."""
    with station.log.open("ab") as log:
        station.process = subprocess.Popen(
            [*WITH_THE_TESTS, sys.executable, "-c", PROBE, "run", "--config", str(station.config)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    station.until(lambda: scanned(station), "it has scanned")
    before = modules(station)
    fresh, _peak = memory(station.process.pid)
    station.drop(lambda folder: flights.make_tiny_images(folder, 8))
    station.until(lambda: station.look().get("state") == "delivered", "it is delivered")
    after = modules(station)
    idle, _peak = memory(station.process.pid)
    print(f"{fresh:.1f} MiB before a flight, {idle:.1f} MiB after it")
    station.ask_to_stop()
    assert station.ended() == 0
    # A flight needs Pillow, to decode a sample of its images, and the parts of botocore that renew credentials.
    assert not {name for name in before if name.partition(".")[0] in {*NEVER, "botocore", "PIL"}}
    assert not {name for name in after if name.partition(".")[0] in NEVER}
    assert idle <= AIM
