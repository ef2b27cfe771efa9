"""What `status` shows: the fixed JSON, the table for people and pipes, one project in detail, and `--watch`."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from rich.cells import cell_len

from pix4d_watcher.cli import picture
from pix4d_watcher.core.model import HoldCode
from pix4d_watcher.host import lock
from pix4d_watcher.journal import folders, people, projects, service, uploads, views

# Colours, cursor movements and the like.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def json_of(result):
    """Read the JSON of a command that ended well and said nothing else."""
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def table_of(result):
    """Return the lines of a plain table, after the headline; checks that it is plain and fits."""
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert not set(result.stdout) & set("━─│┃╭╮█▏")
    lines = result.stdout.splitlines()
    assert all(cell_len(line) <= 80 for line in lines)
    assert all(line == line.rstrip() for line in lines)
    return lines[next(number for number, line in enumerate(lines) if line.startswith("FOLDER")) :]


# --- JSON


def test_json_without_journal(cli):
    """Before the first run there are no projects, and that is no error."""
    service = {"running": False, "paused": False, "pause": None}
    assert json_of(cli("status", "--json")) == {"version": 1, "service": service, "projects": [], "roots": []}


def test_json_contract(cli, site):
    """Every field of the contract has its meaning, for a folder that uploads with a failed image."""
    project = site.created("harbour", uploaded=12)
    image = views.images_of(site.journal, project)[20]
    uploads.failed(site.journal, image, "connection reset", due_at=2_000_000_000.0)
    projects.waiting(site.journal, project, "28 images to send", due_at=2_000_000_000.0)
    value = json_of(cli("status", "--json"))
    assert set(value) == {"version", "service", "projects", "roots"}
    assert value["version"] == 1
    (shown,) = value["projects"]
    assert {name: shown[name] for name in ("root", "folder", "round", "state", "condition", "hold", "remote_id")} == {
        "root": "survey",
        "folder": "harbour",
        "round": 1,
        "state": "created",
        "condition": "active",
        "hold": None,
        "remote_id": 883349,
    }
    assert shown["images"] == {
        "total": 40,
        "pending": 28,
        "uploaded": 12,
        "registered": 0,
        "skipped": 0,
        "failed": 1,
    }
    assert shown["bytes"] == {"total": 4000, "uploaded": 1200}
    assert shown["waiting_for"] == "28 images to send"
    assert shown["due_at"] == "2033-05-18T03:33:20Z"
    assert shown["outputs"] == {"total": 0, "fetched": 0}


def test_json_holds_and_results(cli, site):
    """A hold has code and text, paused is a code too, and results are counted; rounds are listed, oldest first."""
    site.delivered("harbour")
    site.settled("harbour", hold=(HoldCode.BAD_IMAGES, "1 image is cut off."))
    people.pause(site.journal, site.found("flight"), paused=True)
    first, second, third = json_of(cli("status", "--json"))["projects"]
    assert (first["state"], first["outputs"], first["images"]["registered"]) == (
        "delivered",
        {"total": 1, "fetched": 1},
        40,
    )
    assert (second["round"], second["hold"]) == (2, {"code": "bad_images", "text": "1 image is cut off."})
    assert (third["condition"], third["hold"]["code"]) == ("active", "paused")


def test_json_says_what_the_whole_service_waits_for(cli, site):
    """While the running service waits for the world, each project that could go on says so, and no other does."""
    site.delivered("done", remote_id=1)
    moving = site.created("moving", remote_id=2)
    projects.waiting(site.journal, moving, "40 images to send", due_at=2e9)
    site.settled("held", hold=(HoldCode.BAD_IMAGES, "1 image is cut off."))
    folders.still_settling(site.journal, site.found("copying"), images=3, why="a.JPG changed 3 s ago")
    site.vitals(pid=os.getpid(), pause={"kind": "network", "text": "no route to cloud.pix4d.com", "since": 2e9})

    def waits():
        value = json_of(cli("status", "--json"))
        return value["service"], [project["waiting_for"] for project in value["projects"]]

    down = {"running": False, "paused": False, "pause": None}
    assert waits() == (down, [None, "40 images to send", None, "a.JPG changed 3 s ago"])
    service.put(site.journal, service.PAUSED_ALL, value=True)
    with lock.hold(lock.lock_path(site.journal_path)):
        said, (done, going, held, copying) = waits()
    pause = {"kind": "network", "text": "no route to cloud.pix4d.com", "since": "2033-05-18T03:33:20Z"}
    assert said == {"running": True, "paused": True, "pause": pause}
    assert (done, going, held, copying) == (None, pause["text"], None, "a.JPG changed 3 s ago")


def test_json_has_commands_to_be_typed(cli, site):
    """Texts in the JSON name commands with the real name, and with the round where another one would be meant."""
    first = site.settled("my flight", hold=(HoldCode.BAD_IMAGES, "1 is cut off: `pix4d-watcher approve FOLDER`."))
    projects.waiting(site.journal, first, "or pix4d-watcher drop FOLDER", due_at=2e9)
    people.pause(site.journal, site.found("my flight"), paused=True)
    one, two = json_of(cli("status", "--json"))["projects"]
    assert one["hold"]["text"] == "1 is cut off: `pix4d-watcher approve 'survey/my flight#1'`."
    assert (one["title"], two["title"]) == ("survey/my flight#1", "survey/my flight#2")
    assert one["waiting_for"] == "or pix4d-watcher drop 'survey/my flight#1'"
    assert "resume 'survey/my flight#2'" in two["hold"]["text"]


def test_json_escapes(cli, site):
    """Names that are no UTF-8 have escapes, and what was escaped is accepted back; others are as they are."""
    site.found(b"M\xe9moire")
    site.found("Zürich\n")
    names = [project["folder"] for project in json_of(cli("status", "--json"))["projects"]]
    assert names == [r"M\xe9moire", r"Zürich\x0a"]
    for name in names:
        (one,) = json_of(cli("status", "--json", name))["projects"]
        assert one["folder"] == name


def test_json_in_another_encoding(cli, site):
    """Where stdout cannot take every character the JSON still means the same."""
    site.found("Zürich 測量")
    value = json_of(cli("status", "--json", PYTHONIOENCODING="ascii"))
    assert value["projects"][0]["folder"] == "Zürich 測量"


# --- the table


def test_table_says_what_is_going_on(cli, site):
    """Every folder has a line that says its state in words, aligned, plain in a pipe, within 80 columns."""
    site.delivered("harbour", remote_id=1)
    site.created("quarry", remote_id=2, uploaded=12)
    site.started("Zürich 測量", remote_id=3)
    folders.still_settling(
        site.journal, site.found("copying", images=12), images=12, why="12 images; a.JPG changed 3 s ago"
    )
    site.found("empty")
    lines = table_of(cli("status"))
    rows = {line.split("  ")[0]: line for line in lines if line.startswith("survey/")}
    assert re.search(r"done, (just now|\d+ s ago) +8\.00$", rows["survey/harbour"])
    assert re.search(r"uploading 12/40 +30 % +8\.00$", rows["survey/quarry"])
    assert "processing" in rows["survey/Zürich 測量"]
    assert "waiting for the copy to finish" in rows["survey/copying"]
    assert "waiting for images" in rows["survey/empty"]
    assert "    12 images; a.JPG changed 3 s ago" in lines
    columns = {cell_len(line[: line.index(word)]) for line, word in ((rows["survey/Zürich 測量"], "processing"),)}
    assert columns == {lines[0].index("STATE")}
    assert lines[-1].startswith("5 folders: ")


def test_table_says_what_to_do(cli, site):
    """A hold shows its text and its remedy with the folder's real name, quoted for the shell."""
    site.settled("no gps", hold=(HoldCode.NOT_GEOTAGGED, "8 of 8 images are not geotagged."))
    site.settled("bad", hold=(HoldCode.BAD_IMAGES, "1 is cut off. Copy anew, or `pix4d-watcher approve FOLDER`."))
    text = " ".join(" ".join(table_of(cli("status"))).split())
    assert "images without a position 8 of 8 images are not geotagged." in text
    assert "accept it: pix4d-watcher approve 'survey/no gps'" in text
    assert "or `pix4d-watcher approve survey/bad`." in text
    assert "FOLDER" not in text.partition("CREDITS")[2]


def test_long_names_stay_whole(cli, site):
    """A name that is wider than its column is neither cut nor in the way of the others."""
    name = "the northern quarry, second flight of the day, with the new camera"
    site.created(name, uploaded=4)
    lines = table_of(cli("status"))
    assert f"survey/{name}" in lines
    assert re.search(r"^ +uploading 4/40 ", lines[lines.index(f"survey/{name}") + 1])


def test_headline(cli, site):
    """The headline says whether the service runs, why it waits, and what is wrong with drop directories."""
    site.see("survey", loose=2, watching="polling: the limit of inotify watches is used up")
    site.see("second")
    site.created("harbour", uploaded=3)
    folders.root_absent(site.journal, "second", "other: this drop directory is away (gone)")
    pause = {"kind": "network", "text": "cloud.pix4d.com cannot be reached", "since": time.time() - 155}
    site.vitals(pid=os.getpid(), pause=pause, throughput=3.1e6)
    down = " ".join(cli("status").stdout.split())
    assert "The service is not running (last seen" in down
    assert "cannot be reached" not in down
    assert "Drop directory second: other: this drop directory is away (gone)" in down
    assert "Drop directory survey: 2 images directly in it, in no folder: left alone" in down
    with lock.hold(lock.lock_path(site.journal_path)):
        up = " ".join(cli("status").stdout.split())
    assert f"The service is running (process {os.getpid()}, for 10 min), sending 3.1 MB/s." in up
    assert "since 3 min: cloud.pix4d.com cannot be reached" in up
    assert "Drop directory survey: watched by polling: the limit of inotify watches is used up" in up


def test_silent_service(cli, site):
    """A service that holds its lock without a sign of life is told as that."""
    site.vitals(pid=os.getpid(), at=time.time() - 155)
    with lock.hold(lock.lock_path(site.journal_path)):
        assert "has not given a sign of life for 3 min" in cli("status").stdout


def test_looking_does_not_touch_the_lock(site):
    """A look at the lock never takes it: a service that starts in that moment must not be turned away."""
    path = lock.lock_path(site.journal_path)
    assert site.journal
    with lock.hold(path):
        assert picture._holder_of(path, {}, 0.0) == os.getpid()
    assert picture._holder_of(path, {}, 0.0) is None


def test_time_left(cli, site):
    """With a throughput each upload says what is left, one after the other, with the bytes under way."""
    first = site.created("first", remote_id=1, uploaded=20)
    site.created("second", remote_id=2)
    site.vitals(pid=os.getpid(), throughput=10.0, in_flight={str(first): 1000})
    with lock.hold(lock.lock_path(site.journal_path)):
        lines = table_of(cli("status"))
    assert "    3.0 kB of 4.0 kB, about 2 min left" in lines
    assert "    0 B of 4.0 kB, about 8 min left" in lines
    assert any(re.search(r"first +uploading 20/40 +75 %", line) for line in lines)


# --- one project


def test_detail(cli, site):
    """`status FOLDER` shows images by status, failed ones, findings, calls, results and the history."""
    done = site.delivered("harbour")
    assert done
    text = cli("status", "harbour").stdout
    assert "40: 40 registered" in text
    assert "[warn] duplicates: 2 images are there twice." in text
    assert "1 other file, not to be sent: flight.log" in text
    assert "start: done, learnt by reply, asked at " in text
    assert "ortho.tif (ortho_rgb): fetched" in text
    assert text.rstrip().splitlines()[-1].split("  ")[-1].strip() == "done"
    assert 'project 883349 "harbour [marker]", for the API http://cloud/1' in text


def test_detail_counts_the_rest(cli, site):
    """A long list of failed images is cut at ten and counted; other folders are not shown."""
    project = site.created("quarry")
    site.found("another")
    for image in views.images_of(site.journal, project)[:15]:
        uploads.failed(site.journal, image, "connection reset", due_at=time.time() + 120)
    lines = cli("status", "quarry").stdout.splitlines()
    assert sum("1 try: connection reset; again in" in line for line in lines) == 10
    assert "  and 5 more" in lines
    assert not any("another" in line for line in lines)


# --- readers that go away


@pytest.mark.parametrize("arguments", [["status", "--json"], ["status", "--watch"], ["check-config"]])
def test_closed_early(site, arguments):
    """A reader that goes away is no failure and no traceback."""
    site.created("harbour")
    site.close()
    command = [sys.executable, "-m", "pix4d_watcher", *arguments, "--config", str(site.config)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["status", "--watch"], ["pause", "--all"]])
def test_a_full_disk_takes_no_output(site, arguments, buffered):
    """What cannot be written is one sentence and 1, however Python buffers it."""
    site.created("harbour")
    site.close()
    command = [sys.executable, "-m", "pix4d_watcher", *arguments, "--config", str(site.config)]
    environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == b"error: what was to be shown cannot be written: No space left on device\n"


def test_no_stdout_at_all(site):
    """A command without any stdout does its work."""
    command = f'exec "{sys.executable}" -m pix4d_watcher pause --all --config "{site.config}" >&-'
    done = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# --- at a terminal


class Terminal:
    """A command at a terminal of a given width; `text` is what it showed so far."""

    def __init__(self, columns, *arguments):
        self.main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pix4d_watcher", *map(str, arguments)],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(other)
        self.text = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # EIO: the command has ended
            while piece := os.read(self.main, 65536):
                self.text += piece.decode("utf-8", errors="replace")

    def until(self, words, times=1):
        """Wait until the words were shown so often."""
        end = time.monotonic() + 30
        while ESCAPES.sub("", self.text).count(words) < times:
            assert time.monotonic() < end, self.text
            threading.Event().wait(0.05)

    def close(self):
        """End the command."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        self.reader.join(30)
        os.close(self.main)


@pytest.fixture
def terminal(site):
    """Start commands at terminals."""
    opened = []

    def start(columns, *arguments):
        site.close()
        opened.append(Terminal(columns, *arguments, "--config", site.config))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.parametrize("columns", [80, 120])
def test_fits_a_terminal(site, terminal, columns):
    """At a terminal there are colours and bars, and no line is wider than the window."""
    site.created("the northern quarry, second flight of the day, with the new camera", remote_id=1, uploaded=30)
    site.settled("bad", hold=(HoldCode.BAD_IMAGES, "Some images are cut off. " * 10))
    shown = terminal(columns, "status")
    assert shown.process.wait(30) == 0
    shown.reader.join(30)
    assert "\x1b[" in shown.text
    assert "━" in shown.text
    assert all(cell_len(line) <= columns for line in ESCAPES.sub("", shown.text).replace("\r", "").splitlines())


def test_watch_at_a_terminal(site, terminal):
    """`--watch` shows the table again and again, with the sum of all uploads, and Ctrl-C ends it with 0."""
    site.created("harbour", uploaded=10)
    shown = terminal(100, "status", "--watch")
    shown.until("survey/harbour", times=2)
    shown.until("In all 1.0 kB of 4.0 kB")
    shown.process.send_signal(signal.SIGINT)
    assert shown.process.wait(30) == 0
    assert "Traceback" not in shown.text


def test_watch_shows_the_first_run(site, terminal):
    """A watch that began before the journal was there shows it when it comes."""
    shown = terminal(100, "status", "--watch")
    shown.until("No folder was dropped yet.")
    site.found("harbour")
    site.close()
    shown.until("survey/harbour")


def test_watch_in_a_pipe(run_cli, site):
    """In a pipe `--watch` prints plain tables, and SIGINT ends it with 0."""
    site.created("harbour", uploaded=10)
    site.close()
    running = run_cli.start("status", "--watch", "--config", site.config)
    end = time.monotonic() + 30
    while running.text().count("survey/harbour") < 2 and time.monotonic() < end:
        threading.Event().wait(0.1)
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 0
    assert running.text().count("survey/harbour") >= 2
    assert "\x1b" not in running.text()


def test_finished_folders_leave_room(site, terminal):
    """The ten newest finished folders are shown, and the rest is counted."""
    for number in range(13):
        people.drop(site.journal, site.found(f"flight-{number:02}"))
    site.found("new", images=3)
    shown = terminal(100, "status")
    assert shown.process.wait(30) == 0
    shown.reader.join(30)
    assert "flight-02" not in shown.text
    assert "flight-03" in shown.text
    assert "survey/new" in shown.text
    assert "and 3 more, done or dropped (--all)" in shown.text
