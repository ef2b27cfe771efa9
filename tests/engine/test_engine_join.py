"""Several folders that are one mission: by the pattern of their names, or listed in a pix4d.yaml."""

import pytest
import yaml
from nursery import Child

from pix4d_watcher.emulator.flights import make_tiny_images

pytestmark = pytest.mark.check  # minutes in all: run by make check

PATTERN = "{mission}_{part}"


def names_in_cloud(site, name="harbour"):
    """Give the base names of the one used project, which must be the only one and started once."""
    (project,) = [found for found in site.cloud.ledger()["projects"] if found["used"]]
    assert project["name"].startswith(f"{name} [")
    assert project["starts"] == 1
    assert set(project["registered"].values()) == {1}
    return {key.rpartition("/")[2] for key in project["registered"]}


def lists(folder, *names):
    """Write a pix4d.yaml that lists folders to join."""
    (folder / "pix4d.yaml").write_text(yaml.safe_dump({"join": list(names)}))


def told(site, *command):
    """Run a command as a person would and give what it prints."""
    with (site.directory / "told").open("wb") as out:
        assert Child([*command, "--config", site.config], stdout=out, stderr=out, cwd=site.directory).wait(30) == 0
    return " ".join((site.directory / "told").read_text().split())


def waits(site, words, name="harbour"):
    """Wait until the journal says that a folder waits for something."""
    site.until(lambda: words in (site.look(name).get("waiting_for") or ""), f"{name} waits for {words}")


def test_two_cards(site):
    """Two folders whose names match the pattern become one project; equal base names lie side by side."""
    site.configure(join=PATTERN, join_wait="1s", results=True)
    site.drop("harbour_1", 6)
    site.drop("harbour_2", 4)
    assert site.run() == 0
    assert names_in_cloud(site) == {f"DJI_{n:04d}.JPG" for n in range(1, 7)} | {
        f"harbour_2_DJI_{n:04d}.JPG" for n in range(1, 5)
    }
    site.once("harbour", 10)
    assert [(row["folder"], row["members"]) for row in site.status()] == [("harbour", ["harbour_1", "harbour_2"])]
    assert (site.results / "survey" / "harbour" / ".complete").exists()


def test_the_second_card_is_awaited(site):
    """The first card waits join_wait for further ones, says so, and what comes meanwhile joins."""
    site.configure(join=PATTERN, join_wait="1h", ready_file=".ready")
    site.drop("harbour_1", 6)
    site.start()
    waits(site, "for further parts of harbour")
    said = told(site, "explain", "harbour_1")
    assert "one mission made of 1 folder: harbour_1" in said
    assert "for further parts of harbour" in said
    (site.drops / "harbour_1" / ".ready").touch()
    second = site.prepare("harbour_2", 4)
    (second / ".ready").touch()
    assert site.look("harbour")["state"] == "found"
    second.rename(site.drops / "harbour_2")
    site.delivered("harbour")
    site.once("harbour", 10)


def test_an_empty_second_folder_is_awaited(site):
    """A folder of the mission that has no images yet keeps the others waiting, whatever join_wait says."""
    site.configure(join=PATTERN, join_wait="100ms")
    (site.drops / "harbour_2").mkdir()
    site.drop("harbour_1", 6)
    site.start()
    waits(site, "waits for images in harbour_2")
    site.bring(site.drops / "harbour_2", 3)
    site.delivered("harbour")
    site.once("harbour", 9)


def test_one_card_alone(site):
    """A single numbered folder becomes the mission after join_wait; other folders are not concerned."""
    site.configure(join=PATTERN, join_wait="500ms")
    site.drop("harbour_1", 6)
    site.drop("pier", 6)
    assert site.run() == 0
    assert {row["folder"]: row["members"] for row in site.status()} == {"harbour": ["harbour_1"], "pier": None}
    site.once("harbour")
    site.once("pier")


def test_listed(site):
    """Folders that a pix4d.yaml lists become one project once all are there; the first one names it."""
    folder = site.prepare("monday", 6)
    lists(folder, "monday", "card b")
    folder.rename(site.drops / "monday")
    site.start()
    waits(site, "waits for card b", "monday")
    site.drop("card b", 4)
    site.delivered("monday")
    site.once("monday", 10)
    assert [row["folder"] for row in site.status()] == ["monday"]


def test_list_comes_last(site):
    """A pix4d.yaml that comes while the folders are still copied joins them all the same."""
    site.configure(settle="8s")
    site.drop("card a", 6)
    site.drop("card b", 4)
    site.start()
    site.until(lambda: len(site.status()) == 2, "both are found")
    lists(site.drops / "card b", "card a")
    site.delivered("card b")
    site.once("card b", 10)
    assert {row["folder"]: row["condition"] for row in site.status()} == {"card b": "active", "card a": "dropped"}


def test_shrunk_list(site):
    """A list that is taken back before the folders are complete leaves them as projects of their own."""
    folder = site.prepare("monday", 6)
    lists(folder, "card b")
    folder.rename(site.drops / "monday")
    site.start()
    waits(site, "waits for card b", "monday")
    (site.drops / "monday" / "pix4d.yaml").unlink()
    site.delivered("monday")
    site.once("monday", 6)
    assert site.look("monday")["members"] is None


@pytest.mark.parametrize("moment", ["found", "created", "registered"])
def test_late_card(site, moment):
    """A card that comes before the start joins the mission, whatever was sent by then."""
    site.configure(join=PATTERN, join_wait="8s" if moment == "found" else "10ms", start="manual")
    if moment == "created":
        site.fault("put", "delay", seconds=8.0, times=None)
    site.drop("harbour_1", 6)
    site.start()
    site.reach(moment, "harbour")
    site.drop("harbour_2", 4)
    site.cloud.faults.clear()
    site.until(lambda: site.look("harbour")["images"]["registered"] == 10, "all are registered")
    site.held("manual_start", "harbour")
    site.ask("start", "harbour")
    site.delivered("harbour")
    site.once("harbour", 10, held=True)


def test_card_after_the_start(site):
    """A card that comes after the start is what late images are: the mission is held once, and goes on without."""
    site.configure(join=PATTERN, join_wait="10ms")
    site.drop("harbour_1", 6)
    site.start()
    site.delivered("harbour")
    site.drop("harbour_2", 4)
    assert "harbour_2/DJI_0001.JPG" in site.held("late_images", "harbour")
    site.ask("approve", "harbour")
    site.until(lambda: site.look("harbour")["condition"] == "active", "approved")
    site.once("harbour", held=True)
    assert len(site.status()) == 1


@pytest.mark.parametrize("op", ["create", "put", "register", "start"])
def test_killed(site, op):
    """Kills at any call leave one project with each image of both cards once."""
    site.configure(join=PATTERN, join_wait="10ms")
    site.fault(op, "delay", seconds=1.0, times=None)
    site.drop("harbour_1", 6)
    site.drop("harbour_2", 4)
    site.start()
    site.until(lambda: site.requests(op), f"{op} is on the wire")
    site.kill()
    site.cloud.faults.clear()
    assert site.run() == 0
    site.once("harbour", 10)


def test_renamed_card(site):
    """A card that is renamed while it is sent is still a part of the mission, and nothing is sent again."""
    site.configure(join=PATTERN, join_wait="10ms")
    site.fault("put", "delay", seconds=8.0, times=None)
    site.drop("harbour_1", 6)
    site.drop("harbour_2", 4)
    site.start()
    site.reach("created", "harbour")
    (site.drops / "harbour_2").rename(site.drops / "quay")
    site.cloud.faults.clear()
    site.delivered("harbour")
    site.once("harbour", 10)
    assert [(row["folder"], row["members"]) for row in site.status()] == [("harbour", ["harbour_1", "quay"])]


def test_renamed_before_it_is_complete(site):
    """A folder that gets its numbered name while it is copied joins; one that loses it goes its own way."""
    site.configure(join=PATTERN, join_wait="8s", settle="8s")
    site.drop("New folder", 6)
    site.drop("harbour_1", 6)
    site.drop("harbour_3", 7)
    site.start()
    site.until(lambda: len(site.status()) == 2, "they are found")
    (site.drops / "New folder").rename(site.drops / "harbour_2")
    (site.drops / "harbour_3").rename(site.drops / "pier")
    site.delivered("harbour", "pier")
    site.once("harbour", 12)
    site.once("pier", 7)


def test_known_folders_stay_apart(site):
    """A folder that was complete before the pattern was configured is a project of its own and stays one."""
    site.drop("harbour_1", 6)
    assert site.run() == 0
    site.configure(join=PATTERN, join_wait="10ms")
    site.drop("harbour_2", 7)
    assert site.run() == 0
    site.once("harbour_1")
    site.once("harbour", 7)
    assert site.look("harbour")["members"] == ["harbour_2"]


def test_name_is_taken(site):
    """A mission and a folder that is really called so are two projects; the later one has the next round's number."""
    site.configure(join=PATTERN, join_wait="10ms", results=True)
    site.drop("harbour", 7)
    assert site.run() == 0
    site.drop("harbour_1", 6)
    assert site.run() == 0
    found = {(row["folder"], row["round"]): row for row in site.status()}
    assert [found["harbour", number]["members"] for number in (1, 2)] == [None, ["harbour_1"]]
    assert [row["state"] for row in found.values()] == ["delivered", "delivered"]
    assert all(row["present"] for row in found.values())
    assert len(site.projects("harbour")) == 2


def test_next_day(site):
    """Cards of the next day under the same names are a new mission, also where an old folder still lies there."""
    site.configure(join=PATTERN, join_wait="10ms")
    site.drop("harbour_1", 6)
    site.drop("harbour_2", 6)
    assert site.run() == 0
    (site.drops / "harbour_1").rename(site.directory / "gone")
    site.drop("harbour_1", 8, salt="tuesday")
    assert site.run() == 0
    rounds = sorted(site.status(), key=lambda row: row["round"])
    assert [(row["round"], row["state"], row["images"]["registered"]) for row in rounds] == [
        (1, "delivered", 12),
        (2, "delivered", 8),
    ]
    assert rounds[0]["present"]


def test_drop_directory_is_a_link(site):
    """Folders join below a drop directory that is a symlink, too."""
    real = site.directory / "real"
    site.drops.rename(real)
    site.drops.symlink_to(real)
    site.configure(join=PATTERN, join_wait="10ms")
    for name in ("harbour_1", "harbour_2"):
        make_tiny_images(real / name, 5, seed=len(name) + int(name[-1]))
    assert site.run() == 0
    site.once("harbour", 10)
