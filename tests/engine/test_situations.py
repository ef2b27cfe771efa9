"""The README's table of situations: each line is lived through, with the command that it says to type."""

import os
import re
import shlex
import shutil
import threading
from pathlib import Path

import nursery
import pytest
from harness import Site

from pix4d_watcher.emulator.flights import truncate_image

README = Path(__file__).resolve().parents[2] / "README.md"
ROWS = re.findall(
    r"^\| ([^|]+?) \| ([^|]+?) \| (?:`([^`]+)`)? ?\|$",
    README.read_text("utf-8").split("\n## Situations\n")[1].split("\n## ")[0],
    re.MULTILINE,
)
TYPE = {situation: command for situation, _happens, command in ROWS}
STORIES = {}


def situation(text):
    """Mark the story of a line of the table."""

    def mark(story):
        STORIES[text] = story
        return story

    return mark


class Place(Site):
    """A site where the table's commands are typed."""

    def type(self, text):
        """Type the command of a line and give what it printed."""
        words = shlex.split(TYPE[text])
        assert words[0] == "pix4d-watcher"
        options = [] if words[1] == "demo" else ["--config", str(self.config)]
        out = self.directory / "typed"
        with out.open("wb") as file:
            child = nursery.Child(
                [words[1], *words[2:], *options], stdout=file, stderr=file, cwd=self.directory, environment=os.environ
            )
            code = child.wait(60)
        printed = out.read_text("utf-8")
        assert code == 0, printed
        return printed

    def slow(self, op, seconds, times=None):
        """Let the cloud take its time."""
        self.cloud.faults.add({"op": op, "do": "delay", "seconds": seconds, "times": times})


def test_every_situation_has_its_story():
    """Each line of the table is lived through below, and nothing else is."""
    assert set(TYPE) == set(STORIES)
    assert len(ROWS) == len(TYPE) >= 20


@pytest.mark.parametrize("text", sorted(TYPE))
def test_situation(tmp_path, text):
    """What the README promises for a situation is what happens."""
    with Place(tmp_path / "site", processing_seconds=0.2) as place:
        STORIES[text](place, text)


@situation("I copied the card twice")
def _(place, text):
    folder = place.drop("harbour")
    place.start()
    place.delivered("harbour")
    shutil.copytree(folder, place.directory / "copy")
    (place.directory / "copy").rename(place.drops / "harbour-copy")
    place.held("already_sent", "harbour-copy")
    place.type(text)
    assert place.look("harbour-copy")["condition"] == "dropped"
    assert len(place.cloud.ledger()["projects"]) == 1


@situation("I want it processed once more")
def _(place, text):
    place.configure(results=True)
    place.drop("harbour")
    place.start()
    place.delivered("harbour")
    place.type(text)
    place.until(lambda: place.look("harbour", 2).get("state") == "delivered", "the second round is delivered")
    assert [project["starts"] for project in place.cloud.ledger()["projects"]] == [1, 1]
    assert (place.results / "survey" / "harbour" / ".complete").exists()
    assert (place.results / "survey" / "harbour.round2" / ".complete").exists()


@situation("I forgot twelve images, and it is still uploading")
def _(place, _text):
    place.configure(upload={"connections": 1})
    place.slow("put", 0.5)
    folder = place.drop("harbour")
    place.start()
    place.reach("created", "harbour")
    place.fill(folder, 12, names="LATE_{n:04d}.JPG", salt="late")
    place.until(lambda: place.look("harbour")["images"]["total"] == 18, "twelve more are known")
    place.cloud.faults.clear()
    place.delivered("harbour")
    place.once("harbour", 18)


@situation("I am still copying more images when all others are registered")
def _(place, _text):
    place.configure(settle="3s")
    place.slow("register", 1.0, times=1)
    folder = place.drop("harbour")
    place.start()
    place.until(lambda: place.requests("register"), "the others are being registered")
    place.fill(folder, 12, names="LATE_{n:04d}.JPG", salt="late")
    place.delivered("harbour")
    place.once("harbour", 18)


@situation("A copy broke off and left a `.part` file behind")
def _(place, text):
    place.slow("put", 1.5, times=6)
    folder = place.drop("harbour")
    place.start()
    place.reach("created", "harbour")
    (folder / "DJI_0007.JPG.part").write_bytes(b"half")
    assert "DJI_0007.JPG.part" in place.held("late_images", "harbour")
    place.type(text)
    place.delivered("harbour")
    place.once("harbour", 6, held=True)


@situation("I forgot twelve images, and it is processing")
def _(place, text):
    place.cloud.change(processing_seconds=3600)
    folder = place.drop("harbour")
    place.start()
    place.reach("started", "harbour")
    place.fill(folder, 12, names="LATE_{n:04d}.JPG", salt="late")
    place.held("late_images", "harbour")
    place.type(text)
    place.cloud.change(processing_seconds=0)
    place.delivered("harbour")
    place.once("harbour", 6, held=True)


@situation("I forgot twelve images, it is processing, and I need them")
def _(place, text):
    place.cloud.change(processing_seconds=3600)
    folder = place.drop("harbour")
    place.start()
    place.reach("started", "harbour")
    place.fill(folder, 12, names="LATE_{n:04d}.JPG", salt="late")
    place.held("late_images", "harbour")
    place.type(text)
    place.until(lambda: place.look("harbour", 2).get("state") == "started", "the second round is started")
    first, second = place.projects("harbour")
    assert [len(first["registered"]), len(second["registered"])] == [6, 18]
    assert [first["starts"], second["starts"]] == [1, 1]


@situation("I want it to wait for my OK")
def _(place, text):
    place.configure(approve_above=0)
    place.drop("harbour")
    place.start()
    assert "credit" in place.held("approval", "harbour")
    assert not place.cloud.ledger()["projects"]
    place.type(text)
    place.delivered("harbour")


@situation("I want to start processing myself")
def _(place, text):
    place.configure(start="manual")
    place.drop("harbour")
    place.start()
    place.held("manual_start", "harbour")
    assert place.used("harbour")["starts"] == 0
    place.type(text)
    place.delivered("harbour")
    assert place.used("harbour")["starts"] == 1


@situation("One image is broken")
def _(place, text):
    folder = place.prepare("harbour", 8)
    truncate_image(folder / "DJI_0003.JPG")
    folder.rename(place.drops / "harbour")
    place.start()
    assert "DJI_0003.JPG" in place.held("bad_images", "harbour")
    place.type(text)
    place.delivered("harbour")
    place.once("harbour", 7, held=True)


@situation("One image is gone before it was sent")
def _(place, text):
    folder = place.drop("harbour", 8)
    place.fault("create", "delay", seconds=1.5)
    place.start()
    place.until(lambda: place.requests("create"), "the project is being created")
    (folder / "DJI_0007.JPG").unlink()
    place.held("source_missing", "harbour")
    place.type(text)
    place.delivered("harbour")
    place.once("harbour", 7, held=True)


@situation("I dropped the wrong folder")
def _(place, text):
    place.configure(start="manual")
    place.drop("harbour")
    place.start()
    place.held("manual_start", "harbour")
    place.type(text)
    assert place.look("harbour")["condition"] == "dropped"
    assert place.used("harbour")["starts"] == 0


@situation("I gave up the wrong folder")
def _(place, text):
    place.configure(approve_above=0)
    place.drop("harbour")
    place.start()
    place.held("approval", "harbour")
    place.ask("drop", "harbour")
    place.type(text)
    place.held("approval", "harbour")
    place.ask("approve", "harbour")
    place.delivered("harbour")
    place.once("harbour", 6, held=True)


@situation("My mission is on two cards")
def _(place, _text):
    place.configure(join="{mission}_{part}", join_wait="2s")
    place.drop("harbour_1", salt="one")
    place.drop("harbour_2", salt="two")
    place.start()
    place.delivered("harbour")
    place.once("harbour", 12)


@situation("My folder is larger than a project may be")
def _(place, _text):
    place.configure(split=10)
    place.drop("harbour", 25)
    place.start()
    place.until(lambda: [row["state"] for row in place.status()] == ["delivered"] * 3, "three parts are delivered")
    projects = place.cloud.ledger()["projects"]
    assert sorted(len(project["registered"]) for project in projects) == [8, 8, 9]
    assert {project["starts"] for project in projects} == {1}


@situation("Tomorrow's folder has yesterday's name")
def _(place, text):
    folder = place.drop("harbour")
    place.start()
    place.delivered("harbour")
    shutil.rmtree(folder)
    place.until(lambda: not place.look("harbour")["present"], "it is gone")
    place.drop("harbour", 7, salt="tomorrow")
    place.until(lambda: place.look("harbour", 2).get("state") == "delivered", "the new one is delivered")
    assert "harbour#2" in place.type(text)
    assert len(place.projects("harbour")) == 2


@situation("I wrote all its images anew after it was sent")
def _(place, text):
    folder = place.drop("harbour")
    place.start()
    place.delivered("harbour")
    for image in folder.iterdir():
        with image.open("ab") as file:
            file.write(b"of a tool that writes EXIF")
    place.until(lambda: (place.look("harbour", 2).get("hold") or {}).get("code") == "approval", "it is asked about")
    assert "harbour#2" in place.type(text)
    place.until(lambda: place.look("harbour", 2)["condition"] == "dropped", "it is given up")
    assert len(place.projects("harbour")) == 1


@situation("This client wants another project name")
def _(place, _text):
    place.configure(folder_may=["name"])
    folder = place.prepare("harbour")
    (folder / "pix4d.yaml").write_text("name: Port of Call {date}\n")
    folder.rename(place.drops / "harbour")
    place.start()
    place.delivered("harbour")
    assert place.cloud.ledger()["projects"][0]["name"].startswith("Port of Call 2")


@situation("What will it cost?")
def _(place, text):
    place.drop("harbour")
    printed = place.type(text)
    assert "6 images" in printed
    assert "credits" in printed
    assert not place.cloud.ledger()["requests"]


@situation("I need the link for a call")
def _(place, text):
    place.start()
    place.until(place.vitals, "it runs")
    place.type(text)
    place.drop("harbour")
    place.reach("settled", "harbour")
    threading.Event().wait(2)
    assert not place.cloud.ledger()["projects"]


@situation("The call is over")
def _(place, text):
    place.start()
    place.until(place.vitals, "it runs")
    place.pause_all(paused=True)
    place.drop("harbour")
    place.reach("settled", "harbour")
    place.type(text)
    place.delivered("harbour")


@situation("What became of that folder?")
def _(place, text):
    place.drop("harbour")
    assert place.run() == 0
    printed = place.type(text)
    assert "created" in printed
    assert "delivered" in printed


@situation("I want a copy of the journal")
def _(place, text):
    place.drop("harbour")
    place.start()
    place.delivered("harbour")
    place.type(text)
    assert (place.directory / "copy.db").read_bytes().startswith(b"SQLite format 3")
