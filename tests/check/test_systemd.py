"""The unit under a real systemd, installed by the very commands of deploy/README.md."""

import io
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import requests
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

pytestmark = [pytest.mark.check, pytest.mark.timeout(600)]

INSTRUCTIONS = Path(__file__).parent.parent.parent / "deploy" / "README.md"
SOURCE = "/usr/src/pix4d-watcher"
UNIT = "pix4d-watcher.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
COMMAND = "/opt/pix4d-watcher/bin/pix4d-watcher"
CONFIG = "/etc/pix4d-watcher/pix4d-watcher.yaml"
CLIENT = {"client_id": "demo-client", "client_secret": "demo-secret"}  # what the emulator accepts
IMAGES = 6
CAP_DAC_READ_SEARCH, CAP_LEASE = 1 << 2, 1 << 28  # linux/capability.h

# What makes the tests quick; the rest is as installed. Neither id nor secret: they come as credentials.
SETTINGS = """
cloud:
  url: {url}
  s3_endpoint: {url}
journal: /var/lib/pix4d-watcher/journal.db
watch:
  - name: survey
    path: /srv/pix4d/drop
    settle: 1s
    poll: 500ms
    existing: process
results: /srv/pix4d/results
dashboard: null
advanced:
  scan_interval: 1s
  doubt_wait: 2s
  request_timeout: 2s
  retry_base: 200ms
  retry_max: 1s
"""


def commands(section):
    """Give the shell commands that one section of the instructions shows."""
    text = INSTRUCTIONS.read_text(encoding="utf-8")
    (part,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return "\n".join(re.findall(r"```sh\n(.*?)```", part, re.DOTALL))


def picture(number):
    """Make a small photograph with a position of its own."""
    exif = Image.Exif()
    exif[0x0110] = "FC330"
    east = (IFDRational(6), IFDRational(38), IFDRational(number, 10))
    exif.get_ifd(0x8825).update({1: "N", 2: (IFDRational(46), IFDRational(31), IFDRational(0)), 3: "E", 4: east})
    out = io.BytesIO()
    Image.new("RGB", (640, 480), (number * 9 % 256, number * 31 % 256, 99)).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.fixture(scope="session")
def installed(box):
    """The box after the instructions were followed, and a pilot who may drop folders."""
    box.run(f"cd {SOURCE}\n{commands('Install')}\n{commands('Credentials')}", timeout=500)
    box.run("useradd pilot && chgrp pilot /srv/pix4d/drop && chmod 2775 /srv/pix4d/drop")
    return box


@pytest.fixture(scope="session")
def url(installed):
    """The emulator's address; it runs in the box as a unit of its own."""
    installed.run(
        f"systemd-run --quiet --unit=emulator --property=DynamicUser=yes {COMMAND} emulator --listen 127.0.0.1:0"
    )
    log = lambda: installed.journal("emulator.service")  # noqa: E731
    return installed.until(lambda: re.search(r"ready (http://\S+)", log()), log)[1]


class Service:
    """The installed service: what an administrator and a pilot do with it, and what they see."""

    def __init__(self, box, url):
        self.box = box
        self.url = url

    def configure(self, settings=SETTINGS, **credentials):
        """Write the configuration and the credentials."""
        self.box.write(CONFIG, settings.format(url=self.url))
        for name, value in (CLIENT | credentials).items():
            self.box.write(f"/etc/pix4d-watcher/{name}", f"{value}\n", 0o600)

    def start(self, **options):
        """Start it; systemctl comes back when it is ready."""
        return self.box.run(f"systemctl start {UNIT}", timeout=120, **options)

    def show(self, name):
        """Give one property of the unit."""
        return self.box.show(UNIT, name)

    def until(self, name, *values, timeout=60.0):
        """Wait until a property of the unit has one of some values."""
        return self.box.until(lambda: self.show(name) in values, self.words, timeout)

    def until_started_again(self):
        """Wait until systemd has started it again, by a short watchdog perhaps more than once."""
        self.box.until(lambda: int(self.show("NRestarts")) >= 1, self.words)

    def words(self):
        """Give what explains a failure."""
        return self.box.run(f"systemctl status {UNIT} --no-pager --full --lines=50", check=False).stdout

    def drop(self, name):
        """Copy a folder into the drop directory as the pilot does, readable by nobody else.

        Under a name that is not looked at, since a copy that is stopped for longer than `settle` would be two flights.
        """
        for number in range(IMAGES):
            path = self.box.path(f"/var/tmp/{name}/DJI_{number + 1:04}.JPG")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(picture(number + 10 * sum(name.encode())))
        copy = f"cp -r /var/tmp/{name} .copying && mv .copying {name}"
        self.box.run(f"umask 077; cd /srv/pix4d/drop; {copy}", user="pilot")

    def projects(self, name):
        """Give what the cloud knows of a folder."""
        known = requests.get(f"{self.url}/_emulator/ledger", timeout=30).json()["projects"]
        return [project for project in known if project["name"].startswith(f"{name} [")]

    def until_seen(self, name):
        """Wait until the cloud knows of a folder."""
        return self.box.until(lambda: self.projects(name), self.words)

    def until_delivered(self, name):
        """Wait until the results are there; everything must have happened once."""
        complete = self.box.path(f"/srv/pix4d/results/survey/{name}/.complete")
        self.box.until(complete.exists, self.words, 120)
        (project,) = self.projects(name)
        assert project["image_count"] == IMAGES
        assert set(project["registered"].values()) == {1}
        assert project["starts"] == 1


@pytest.fixture
def service(installed, url):
    """The service, stopped, configured and without a past."""
    installed.run(
        f"systemctl stop {UNIT}; systemctl reset-failed {UNIT} 2>/dev/null || true\n"
        f"rm -rf {UNIT_FILE}.d /var/lib/pix4d-watcher /srv/pix4d/drop/* /srv/pix4d/results/*\n"
        "systemctl daemon-reload"
    )
    it = Service(installed, url)
    it.configure()
    yield it
    installed.run(f"systemctl stop {UNIT}", timeout=60, check=False)  # the last test leaves no unit


def test_unit_is_sound(installed):
    """The checker of systemd finds nothing to say about the unit, and its exposure is at most 2.0 of 10."""
    done = installed.run(f"systemd-analyze verify --man=no --recursive-errors=no {UNIT_FILE}")
    assert UNIT not in done.stderr
    installed.run(f"systemd-analyze security --offline=true --threshold=20 --no-pager {UNIT_FILE}")


def test_ready_with_a_status(service):
    """The start ends when the service is ready, and systemctl shows in a line what it does."""
    service.start()
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")
    assert service.show("StatusText")
    assert service.box.run("stat --format=%a-%U /var/lib/pix4d-watcher").stdout == "700-pix4d-watcher\n"


def test_flight_of_another_user_is_delivered(service):
    """A folder that only its pilot can read is delivered, once, and stays as it was."""
    service.start()
    service.drop("meadow")
    look = "cd /srv/pix4d/drop/meadow && stat --format='%n %U %a %s %y %z' . * && sha256sum *"
    before = service.box.run(look).stdout
    service.until_delivered("meadow")
    assert service.box.run(look).stdout == before
    assert before.count(".JPG pilot 600 ") == IMAGES


def test_secret_only_as_credential(service):
    """The secret comes from systemd alone: it stands in no environment, command line, log, or file of the service."""
    service.start()
    service.drop("secretive")
    service.until_delivered("secretive")
    pid = service.show("MainPID")
    facts = service.box.run(f"cat /proc/{pid}/environ /proc/{pid}/cmdline").stdout
    assert "CREDENTIALS_DIRECTORY=" in facts
    assert CLIENT["client_secret"] not in facts
    assert CLIENT["client_secret"] not in service.box.journal(UNIT)
    search = f"grep -rl --binary-files=text {CLIENT['client_secret']} {CONFIG} /var/lib/pix4d-watcher /srv/pix4d"
    assert service.box.run(search, check=False).stdout == ""


def test_rights_of_the_process(service):
    """The process runs as its own user with two capabilities, a filter on system calls, and a read-only system."""
    service.start()
    pid = service.show("MainPID")
    status = dict(line.split(":\t", 1) for line in service.box.run(f"cat /proc/{pid}/status").stdout.splitlines())
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == CAP_DAC_READ_SEARCH | CAP_LEASE
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert service.box.run(f"stat --format=%U /proc/{pid}").stdout == "pix4d-watcher\n"
    inside = f"nsenter --target {pid} --mount"
    assert "Read-only" in service.box.run(f"{inside} touch /srv/pix4d/drop/x 2>&1 || true").stdout
    assert "Read-only" in service.box.run(f"{inside} touch /etc/x 2>&1 || true").stdout
    service.box.run(f"{inside} sh -c 'touch /srv/pix4d/results/x && rm /srv/pix4d/results/x'")


def test_log_lines_in_the_journal(service):
    """The journal of systemd gets each event as one line with its priority and without a second time."""
    service.start()
    read = f"journalctl --unit={UNIT} --output=json --no-pager _TRANSPORT=stdout"
    entries = service.box.until(
        lambda: [json.loads(line) for line in service.box.run(read).stdout.splitlines() if '"level=' in line],
        service.words,
    )
    assert {entry["PRIORITY"] for entry in entries if entry["MESSAGE"].startswith("level=info ")} == {"6"}
    assert not [entry for entry in entries if "timestamp=" in entry["MESSAGE"]]


def test_stop_is_quick_and_clean(service):
    """Stopped in the middle of the work it ends within 10 s as a success, and the next start finishes the folder."""
    service.start()
    service.drop("halfway")
    service.until_seen("halfway")
    service.box.run(f"systemctl stop {UNIT}", timeout=10)
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
    assert service.show("ExecMainStatus") == "0"
    service.start()
    service.until_delivered("halfway")


def test_killed_service_goes_on(service):
    """After kill -9 in the middle of the work systemd starts it again, and everything still happens once."""
    service.start()
    service.drop("killed")
    service.until_seen("killed")
    service.box.run(f"kill -9 {service.show('MainPID')}")
    service.until("NRestarts", "1")
    service.until("ActiveState", "active")
    service.until_delivered("killed")


def test_hanging_service_is_replaced(service):
    """A process that hangs is ended by systemd's watchdog and started again."""
    service.box.write(f"{UNIT_FILE}.d/quick.conf", "[Service]\nWatchdogSec=4\nTimeoutAbortSec=4\nRestartSec=1\n")
    service.box.run("systemctl daemon-reload")
    service.start()
    service.box.run(f"kill -STOP {service.show('MainPID')}")
    service.until_started_again()
    service.until("ActiveState", "active")
    assert "Watchdog timeout" in service.box.journal(UNIT)
    service.drop("woken")
    service.until_delivered("woken")


@pytest.fixture
def disk(installed, service, tmp_path):
    """Put the journal on an ext4 filesystem of its own, which can be frozen; gives where it is in the box."""
    place, image = "/var/lib/pix4d-watcher", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, timeout=60)
    find = ["losetup", "--find", "--show", image]
    loop = subprocess.run(find, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    try:
        number = Path(loop).stat().st_rdev
        installed.run(f"mkdir -p {place}; mknod /dev/disk b {os.major(number)} {os.minor(number)}")
        installed.run(f"mount /dev/disk {place}")
        yield place
    finally:
        # Thawed first, whatever happened: nothing can end that waits for it.
        installed.run(f"fsfreeze --unfreeze {place}", check=False)
        installed.run(f"systemctl stop {UNIT}; umount {place}; rm -f /dev/disk", check=False)
        subprocess.run(["losetup", "--detach", loop], check=False, timeout=60)


def test_frozen_journal_is_noticed(service, disk):
    """While the journal's disk hangs the watchdog is not fed; ended by it and started again the service finishes."""
    service.box.write(f"{UNIT_FILE}.d/quick.conf", "[Service]\nWatchdogSec=4\nTimeoutAbortSec=4\nRestartSec=1\n")
    service.box.run("systemctl daemon-reload")
    service.start()
    service.drop("cold")
    service.until_seen("cold")
    before = service.box.journal(UNIT).count("Watchdog timeout")  # others' lines may be there
    service.box.run(f"fsfreeze --freeze {disk}")
    service.box.until(lambda: service.box.journal(UNIT).count("Watchdog timeout") > before, service.words)
    service.box.run(f"fsfreeze --unfreeze {disk}")
    service.until_started_again()
    service.until("ActiveState", "active")
    service.until_delivered("cold")


def test_dead_loop_is_replaced(service):
    """An unexpected error in one loop ends the process with 1, and the one that systemd starts finishes the folder."""
    python = f"{COMMAND.rpartition('/')[0]}/python"
    rename = (
        "import sqlite3; sqlite3.connect('/var/lib/pix4d-watcher/journal.db').execute('ALTER TABLE {} RENAME TO {}')"
    )

    def renamed(*names):
        service.box.run(f'{python} -c "{rename.format(*names)}"', user="pix4d-watcher")

    service.start()
    renamed("images", "elsewhere")
    service.drop("dying")
    service.until("SubState", "auto-restart")
    assert service.show("ExecMainStatus") == "1"
    renamed("elsewhere", "images")
    service.until("ActiveState", "active")
    service.until_delivered("dying")
    assert "unexpected error" in service.box.journal(UNIT)


def test_living_service_is_left_alone(service):
    """With a short watchdog a service that works keeps its process."""
    service.box.write(f"{UNIT_FILE}.d/quick.conf", "[Service]\nWatchdogSec=4\n")
    service.box.run("systemctl daemon-reload")
    service.start()
    pid = service.show("MainPID")
    for name in ("first", "second"):
        service.drop(name)
        service.until_delivered(name)
    assert (service.show("MainPID"), service.show("NRestarts")) == (pid, "0")


def test_wrong_secret_is_not_tried_again(service):
    """A refused secret ends the service with 77 and a sentence; systemd leaves it at that."""
    service.configure(client_secret="wrong-secret")
    service.start(check=False)
    service.until("SubState", "failed")
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == ("77", "0")
    log = service.box.journal(UNIT)
    assert "client_secret" in log or "client secret" in log
    assert "wrong-secret" not in log


def test_wrong_configuration_is_not_tried_again(service):
    """A configuration with errors ends the service with 78; the log names the key."""
    service.configure(SETTINGS.replace("settle:", "setle:"))
    assert service.start(check=False).returncode != 0
    service.until("SubState", "failed")
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == ("78", "0")
    assert "setle" in service.box.journal(UNIT)


def test_second_service_steps_back(service):
    """A second service with the same journal ends with 75 and leaves the first one alone."""
    service.start()
    second = f"{COMMAND} run --config {CONFIG}"
    credentials = {f"PIX4D_{name.upper()}": value for name, value in CLIENT.items()}
    done = service.box.run(second, check=False, user="pix4d-watcher", **credentials)
    assert done.returncode == 75
    assert service.show("MainPID") in done.stderr
    assert service.show("ActiveState") == "active"


def test_uninstalled_without_a_trace(installed, service):  # the last one: nothing is installed afterwards
    """The instructions for an upgrade and for the removal work, and leave no user, file or unit behind."""
    service.start()
    installed.run(f"cd {SOURCE}\n{commands('Upgrade')}", timeout=300)
    assert service.show("ActiveState") == "active"
    installed.run(commands("Look").replace("journalctl", "journalctl --no-pager"), timeout=60)
    installed.run(commands("Uninstall"))
    assert service.show("LoadState") == "not-found"
    left = (
        "ls -d /opt/pix4d-watcher /etc/pix4d-watcher /var/lib/pix4d-watcher 2>/dev/null; id pix4d-watcher 2>/dev/null"
    )
    assert installed.run(left, check=False).stdout == ""
    installed.run("test -d /srv/pix4d/results")
