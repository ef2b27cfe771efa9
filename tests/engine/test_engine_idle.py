"""When there is nothing left to do, and which folder is which project."""

import shutil
import time

import pytest


def runs_on(site, seconds=3.0):
    """Whether the service still runs after some time."""
    time.sleep(seconds)
    return site.process.poll() is None


def test_nothing_there(site):
    """With nothing to do it ends at once; folders without images and loose files are nothing to do."""
    assert site.run() == 0
    assert site.status() == []
    (site.drops / "empty").mkdir()
    (site.drops / "words").mkdir()
    (site.drops / "words" / "notes.txt").write_text("windy")
    site.fill(site.drops, 1)
    assert site.run() == 0
    assert site.look("empty")["state"] == "found"
    assert site.look("words")["state"] == "found"
    assert site.root().loose == 1
    assert not site.cloud.ledger()["projects"]


def test_folder_that_is_filled_later(site):
    """A folder without images waits for them."""
    (site.drops / "flight").mkdir()
    site.start()
    site.reach("found")
    time.sleep(1.5)
    site.fill(site.drops / "flight")
    site.delivered()
    site.once()


def test_hold_marker(site):
    """A folder with the marker `.hold` is not complete, and not idle either; without it, it goes on."""
    folder = site.prepare()
    (folder / ".hold").touch()
    folder.rename(site.drops / "flight")
    site.start("--until-idle")
    assert runs_on(site)
    assert site.look()["state"] == "found"
    assert ".hold" in site.look()["waiting_for"]
    (site.drops / "flight" / ".hold").unlink()
    assert site.ended() == 0
    site.once()


def test_what_counts_as_idle(site):
    """Held, paused and dropped projects count as idle; what is tried later by itself does not."""
    site.configure(start="manual")
    for name in ("held", "paused", "dropped"):
        site.drop(name)
    site.fault("put", "delay", seconds=1.0, times=None)
    site.start("--until-idle")
    site.until(lambda: site.look("paused").get("state") == site.look("dropped").get("state") == "created", "created")
    site.ask("pause", "paused", paused=True)
    site.ask("drop", "dropped")
    assert site.ended() == 0
    site.held("manual_start", "held")
    assert site.look("paused")["state"] == "created"
    site.fault("create", "status", code=429, headers={"Retry-After": "4"})
    site.drop("later")
    site.start("--until-idle")
    site.until(lambda: site.look("later").get("waiting_for"), "it is tried later")
    assert runs_on(site, 2.0)
    assert site.ended() == 0
    site.held("manual_start", "later")


def test_late_images_that_vanish_before_they_are_complete(site):
    """Images that came late and went with their folder before they were complete keep nothing waiting."""
    folder = site.drop()
    assert site.run() == 0
    site.configure(settle="6s")
    site.drop("other")
    site.start("--until-idle")
    site.reach("found", "other")
    site.fill(folder, 1, names="LATE_{n:04d}.JPG")
    time.sleep(3.5)  # a scan sees it, and it does not settle yet
    folder.rename(site.directory / "away")
    assert site.ended(60) == 0
    site.once("other")


@pytest.mark.parametrize("gone", ["the drop directory", "its configuration"])
def test_what_is_away_before_it_is_complete(site, gone):
    """A folder that nobody can look into counts as idle and says so; when it is there again, it goes on."""
    site.configure(settle="1h")
    site.drop()
    site.start()
    site.until(lambda: site.look().get("waiting_for"), "it is waited for")
    site.stop()
    if gone == "the drop directory":
        away = site.drops.rename(site.directory / "unplugged")
    else:
        other = site.directory / "other"
        other.mkdir()
        site.configure(name="another", path=str(other))
    assert site.run() == 0
    assert (site.look()["state"], site.look()["hold"]["code"]) == ("found", "media_absent")
    if gone == "the drop directory":
        away.rename(site.drops)
    else:
        assert "not in the configuration any more" in site.look()["hold"]["text"]
    site.configure()
    assert site.run() == 0
    site.once()


def test_pause_of_the_service_is_not_idle(site):
    """A service that waits for the world runs on."""
    site.unplug()
    site.start("--until-idle")
    assert runs_on(site)
    site.plug()
    assert site.ended() == 0


def test_everything_paused_is_idle(site):
    """With everything paused by a person there is nothing to do."""
    assert site.run() == 0
    site.pause_all(paused=True)
    site.drop()
    assert site.run() == 0
    assert site.look()["remote_id"] is None
    site.pause_all(paused=False)
    assert site.run() == 0
    site.once()


@pytest.mark.parametrize(
    ("existing", "folders", "code"),
    [
        (None, 11, "approval"),
        (None, 2, None),
        ("ask", 2, "approval"),
        ("process", 11, None),
    ],
)
def test_folders_of_the_first_scan(site, existing, folders, code):
    """What lies there at the very first scan is sent only as configured; more than ten are never sent unasked."""
    site.configure(existing=existing)
    names = [f"old{number}" for number in range(folders)]
    for name in names:
        site.drop(name)
    assert site.run() == 0
    assert {(row["hold"] or {}).get("code") for row in site.status()} == {code}
    if code is None:
        site.delivered(*names)
        return
    assert not site.cloud.ledger()["projects"]
    site.ask("approve", "old1")
    site.drop("new")
    assert site.run() == 0
    for name in ("old1", "new"):
        site.once(name, held=name == "old1")
    assert len(site.cloud.ledger()["projects"]) == 2


def test_folders_of_the_first_scan_ignored(site):
    """With `existing: ignore` old folders are left alone, and a new one is sent."""
    site.configure(existing="ignore")
    site.drop("old")
    assert site.run() == 0
    assert site.look("old")["condition"] == "dropped"
    site.drop()
    assert site.run() == 0
    site.once()
    assert len(site.cloud.ledger()["projects"]) == 1


def test_renamed_while_it_settles(site):
    """A folder that gets its name later is one project."""
    site.configure(settle="2s")
    site.start()
    (site.drops / "New folder").mkdir()
    site.reach("found", "New folder")
    site.fill(site.drops / "New folder")
    time.sleep(0.7)
    (site.drops / "New folder").rename(site.drops / "flight")
    site.delivered()
    site.once()
    assert len(site.status()) == 1


def test_renamed_when_it_is_done(site):
    """A folder that is renamed after its delivery is no new project."""
    site.start()
    folder = site.drop()
    site.delivered()
    folder.rename(site.drops / "archived")
    site.until(lambda: site.look("archived"), "the new name is known")
    time.sleep(2.5)
    assert len(site.status()) == 1
    assert len(site.cloud.ledger()["projects"]) == 1


def test_name_that_comes_back(site):
    """A name that was gone and comes back is a new folder, with results of its own."""
    site.configure(results=True, outputs=["quality_report"])
    site.start()
    folder = site.drop()
    site.delivered()
    shutil.rmtree(folder)
    site.until(lambda: not site.look()["present"], "it is seen to be gone")
    site.drop(salt="another day")
    site.until(lambda: site.look()["round"] == 2, "it is a new folder")
    site.delivered()
    first, second = site.projects()
    assert first["name"] != second["name"]
    assert [project["starts"] for project in (first, second)] == [1, 1]
    for name in ("flight", "flight.round2"):
        place = site.results / "survey" / name
        assert {"report.pdf", ".complete"} <= {path.name for path in place.iterdir()}


def test_replaced_between_two_runs(site):
    """A folder that was replaced by another of the same name while the service was down is a new folder."""
    folder = site.drop()
    assert site.run() == 0
    shutil.rmtree(folder)
    site.drop(salt="another day")
    assert site.run() == 0
    assert [row["round"] for row in site.status()] == [1, 2]
    assert [project["starts"] for project in site.projects()] == [1, 1]


def test_restart_when_all_is_done(site):
    """A restart with nothing new asks nothing of the cloud but a token."""
    site.drop()
    assert site.run() == 0
    before = site.cloud.ledger()
    assert site.run() == 0
    after = site.cloud.ledger()
    assert after["requests"]["token"] == before["requests"]["token"] + 1
    assert {**after["requests"], "token": 0} == {**before["requests"], "token": 0}
    site.once()
