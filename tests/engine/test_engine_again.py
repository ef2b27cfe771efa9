"""The same thing again: what was sent once is not sent, and paid, a second time unless a person says so."""

import json
import shutil
import time

import pytest

from pix4d_watcher.journal import rounds, views
from pix4d_watcher.journal.people import Refusal


def starts(site):
    """Give how often each used project was started, the oldest first."""
    return [project["starts"] for project in site.cloud.ledger()["projects"] if project["used"]]


def copy_in(site, source, name, root=None):
    """Drop a copy of a folder all at once, by a rename."""
    place = site.directory / "copies" / name
    shutil.copytree(source, place)
    return place.rename((root or site.drops) / name)


def kept(site, name="flight", count=6, **more):
    """Drop a folder and keep a copy of it elsewhere, as a card keeps its images."""
    card = site.directory / "card"
    shutil.copytree(site.prepare(name, count, **more), card)
    (site.directory / "prepared" / name).rename(site.drops / name)
    return card


def finding(site, name):
    """Give the line of the report about images that were sent before."""
    report = views.project(site.journal(), site.id_of(name)).report
    return next(line for line in report["findings"] if line["check"] == "sent_before")


def test_a_card_is_dropped_again(site):
    """The same images are held under the same name, another name and in another drop directory, until approved."""
    other = site.directory / "other"
    other.mkdir()
    site.configure(results=True, more=[{"name": "second", "path": str(other), "settle": "500ms", "poll": "200ms"}])
    card = kept(site)
    site.start()
    site.delivered()
    first = site.used()["id"]
    shutil.rmtree(site.drops / "flight")
    site.until(lambda: not site.look()["present"], "the folder is seen to be gone")
    copy_in(site, card, "flight")
    copy_in(site, card, "copy")
    copy_in(site, card, "elsewhere", other)
    for name in ("flight", "copy", "elsewhere"):
        text = site.held("already_sent", name)
        assert "survey/flight" in text
        assert f"project {first}" in text
    assert (site.look()["round"], starts(site)) == (2, [1])
    site.ask("approve")
    site.delivered()
    assert starts(site) == [1, 1]
    assert (site.results / "survey/flight/.complete").read_text() != (
        site.results / "survey/flight.round2/.complete"
    ).read_text()
    assert site.requests("create") == 2


def test_given_up_and_taken_up_again(site):
    """`drop` and then `retry` is no approval: what was sent before is asked about again."""
    card = kept(site)
    site.start()
    site.delivered()
    copy_in(site, card, "copy")
    site.held("already_sent", "copy")
    site.ask("drop", "copy")
    assert site.ask("retry", "copy") == "taken up again"
    site.held("already_sent", "copy")
    assert starts(site) == [1]


def test_two_copies_at_once(site):
    """Of two copies that come in the same moment one is sent and the other one is held."""
    card = site.prepare("one")
    shutil.copytree(card, site.directory / "prepared" / "two")
    for name in ("one", "two"):
        (site.directory / "prepared" / name).rename(site.drops / name)
    assert site.run() == 0
    held = [row["folder"] for row in site.status() if row["condition"] == "held"]
    assert len(held) == 1
    site.held("already_sent", held[0])
    assert starts(site) == [1]


def test_a_copy_comes_while_credits_are_awaited(site):
    """A copy of a card that waits for credits is held: once there are some the first one goes on by itself."""
    card = kept(site)
    short = '{"detail": "Not enough credits."}'
    site.fault("create", "status", code=402, body=short, content_type="application/json", times=None)
    site.start()
    site.held("no_credit")
    copy_in(site, card, "copy")
    site.held("already_sent", "copy")
    site.cloud.faults.clear()
    site.delivered()
    assert starts(site) == [1]


def test_a_name_comes_back_with_new_content(site):
    """Tomorrow's card of the same name is a project of its own, and its results lie in a place of their own."""
    site.configure(results=True)
    site.drop()
    site.start()
    site.delivered()
    shutil.rmtree(site.drops / "flight")
    site.until(lambda: not site.look()["present"], "the folder is seen to be gone")
    site.drop(salt="tomorrow")
    site.until(lambda: site.look()["round"] == 2, "it is a new round")
    site.delivered()
    assert starts(site) == [1, 1]
    names = [json.loads((site.results / "survey" / name / "pix4d-receipt.json").read_text())["project"]["name"]
             for name in ("flight", "flight.round2")]  # fmt: skip
    assert len(set(names)) == 2


def test_part_of_a_card(site):
    """Images of which all were sent before, within more, are held; where some are new it is told, or held if wanted."""
    card = kept(site, count=14)
    assert site.run() == 0
    some = site.directory / "copies" / "some"
    some.mkdir(parents=True)
    for image in sorted(card.iterdir())[:6]:
        shutil.copy(image, some)
    copy_in(site, some, "subset")
    site.fill(some, 6, names="NEW_{n:04d}.JPG", salt="new")
    copy_in(site, some, "mixture")
    assert site.run() == 0
    assert "All 6 images were sent before as survey/flight" in site.held("already_sent", "subset")
    site.once("mixture", 12)
    line = finding(site, "mixture")
    assert (line["level"], line["count"]) == ("warn", 6)
    site.configure(checks={"sent_before": "hold"})
    site.fill(some, 6, names="MORE_{n:04d}.JPG", salt="more")
    copy_in(site, some, "third")
    assert site.run() == 0
    assert "12 of 18 images were sent before" in site.held("already_sent", "third")
    site.ask("approve", "third")
    assert site.run() == 0
    site.once("third", 18, held=True)
    assert finding(site, "third")["level"] == "warn"


def lose_journal(site):
    """Lose the journal, as with a new disk; the service is down."""
    for journal in site._journals.values():
        journal.close()
    site._journals.clear()
    shutil.rmtree(site.directory / "state")


def test_a_lost_journal(site):
    """Receipts beside the results keep from sending again what a lost journal knew; those results stay as they are."""
    site.configure(results=True)
    site.drop()
    assert site.run() == 0
    receipt = json.loads((site.results / "survey/flight/pix4d-receipt.json").read_text())
    assert (receipt["version"], receipt["round"], receipt["folder"]) == (1, 1, "flight")
    assert {image["key"] for image in receipt["images"]} == set(site.used()["registered"])
    assert receipt["project"]["id"] == site.used()["id"]
    complete = (site.results / "survey/flight/.complete").read_text()
    lose_journal(site)
    broken = site.results / "survey" / "broken"
    broken.mkdir()
    (broken / "pix4d-receipt.json").write_text('{"version": 1, "images": [')
    site.drop("unknown")
    assert site.run() == 0
    text = site.held("already_sent")
    assert f"survey/flight (project {receipt['project']['id']}" in text
    site.once("unknown")
    assert site.log.read_text(errors="replace").count("receipt not readable") == 1
    site.ask("approve")
    assert site.run() == 0
    assert site.look()["state"] == "delivered"
    assert (site.results / "survey/flight/.complete").read_text() == complete
    assert json.loads((site.results / "survey/flight/pix4d-receipt.json").read_text()) == receipt
    assert (site.look()["round"], (site.results / "survey/flight.round2/.complete").exists()) == (2, True)
    assert starts(site) == [1, 1, 1]


def test_report_and_receipt_lie_beside_the_results(site):
    """The report says what the checks found, and neither it nor the receipt displaces a result of the same name."""
    site.configure(results=True)
    folder = site.prepare()
    shutil.copy(folder / "DJI_0001.JPG", folder / "copy.JPG")
    folder.rename(site.drops / "flight")
    assert site.run() == 0
    place = site.results / "survey" / "flight"
    report = json.loads((place / "report.json").read_text())
    assert (report["folder"], report["images"], report["sendable"]) == ("flight", 7, 6)
    assert [line["check"] for line in report["findings"]] == ["duplicates"]
    assert [skipped["path"] for skipped in report["skipped"]] == ["copy.JPG"]
    receipt = json.loads((place / "pix4d-receipt.json").read_text())
    assert len(receipt["images"]) == 6
    assert receipt["times"]["started"] >= receipt["times"]["created"]
    assert not list(place.glob(".*.part"))


def test_again(site):
    """`again` sends a delivered folder once more, as a round with results of its own, and asks no second time."""
    site.configure(results=True)
    site.drop()
    site.start()
    site.delivered()
    new = rounds.again(site.journal(change=True), site.id_of())
    assert new.title == "survey/flight#2"
    site.until(lambda: site.look()["round"] == 2 and site.look()["state"] == "delivered", "the second round is done")
    assert starts(site) == [1, 1]
    assert [row["state"] for row in site.status()] == ["delivered", "delivered"]
    assert len({project["prefix"] for project in site.projects()}) == 2
    assert (site.results / "survey/flight.round2/.complete").exists()
    assert "again" in [kind for kind, _text in site.events()]
    # The folder belongs to the new round: what comes late joins or holds that one.
    site.fill(site.drops / "flight", 2, names="LATE_{n:04d}.JPG", salt="late")
    site.held("late_images")
    assert site.look(number=1)["hold"] is None


def test_again_after_a_failure(site):
    """A round that failed in the cloud is given up for the new one; while one is under way there is no other."""
    site.cloud.change(processing_seconds=1.0, processing_result="error")
    site.drop()
    site.start()
    site.reach("started")
    with pytest.raises(Refusal, match="under way"):
        rounds.again(site.journal(change=True), site.id_of())
    site.held("cloud_failed")
    site.cloud.change(processing_seconds=0.1, processing_result="done")
    rounds.again(site.journal(change=True), site.id_of())
    site.until(lambda: site.look()["round"] == 2 and site.look()["state"] == "delivered", "the second round is done")
    assert (site.look(number=1)["condition"], starts(site)) == ("dropped", [1, 1])


def test_no_receipts_without_results(site):
    """Where no results are kept there are no receipts, and only the journal knows what was sent."""
    site.drop()
    assert site.run() == 0
    assert not site.results.exists()
    lose_journal(site)
    assert site.run() == 0
    assert starts(site) == [1, 1]


def test_again_of_a_mission_and_of_a_split_folder(site):
    """A mission is joined once more by the new round, and a folder that was split is split once more."""
    site.configure(join="{mission}_{part}", join_wait="1s", split=10)
    site.drop("harbour_1", 6)
    site.drop("harbour_2", 4)
    site.drop("large", 12)
    site.start()
    site.until(lambda: [row["state"] for row in site.status()] == ["delivered"] * 3, "all are done")
    for name in ("harbour", "large"):
        rounds.again(site.journal(change=True), site.id_of(name))
    site.until(lambda: [row["state"] for row in site.status()] == ["delivered"] * 6, "all are done once more")
    assert sorted(len(project["registered"]) for project in site.cloud.ledger()["projects"]) == [6, 6, 6, 6, 10, 10]
    assert starts(site) == [1] * 6


def test_every_image_rewritten(site):
    """A delivered folder whose images are all written anew where they lie is asked about, and never paid unasked."""
    folder = site.drop()
    site.start()
    site.delivered()
    for image in folder.iterdir():
        with image.open("ab") as file:
            file.write(b"x")
    text = site.held("approval")
    assert "survey/flight, and none of its images is what it was" in text
    assert (site.look()["round"], starts(site)) == (2, [1])
    site.ask("drop")
    time.sleep(3)
    assert len(site.status()) == 2
    site.ask("retry")
    site.ask("approve")
    site.delivered()
    assert starts(site) == [1, 1]


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("name", ["flight", "another"])
def test_another_folder_after_one_that_was_given_up(site, name, running):
    """Another flight at the place of a folder that was given up is not given up with it, whatever number it gets."""
    folder = site.drop(count=3)
    site.start()
    site.held("too_few_images")
    site.ask("drop")
    if not running:
        assert site.stop() == 0
    shutil.rmtree(folder)
    site.fill(site.drops / name, salt="another flight")
    if not running:
        site.start()
    site.until(lambda: len(site.status()) == 2, "it is a new folder")
    site.delivered(name)
    assert starts(site) == [1]


@pytest.mark.parametrize("existing", ["ignore", "ask"])
def test_an_old_folder_is_renamed_while_nobody_looks(site, existing):
    """A folder that was there before the first scan is not sent because it gets another name between two runs."""
    site.configure(existing=existing)
    site.drop("archive")
    assert site.run() == 0
    (site.drops / "archive").rename(site.drops / "archive 2019")
    assert site.run() == 0
    assert [row["condition"] for row in site.status()] == ["dropped" if existing == "ignore" else "held"]
    assert site.requests("create") == 0


def test_another_flight_under_the_name_of_an_ignored_one(site):
    """What comes between two runs under the name of a folder that is left alone is asked about, not forgotten."""
    site.configure(existing="ignore")
    folder = site.drop("100MEDIA")
    assert site.run() == 0
    shutil.rmtree(folder)
    site.drop("100MEDIA", salt="tomorrow")
    assert site.run() == 0
    assert "it may be survey/100MEDIA, which was given up" in site.held("approval", "100MEDIA")
    site.ask("approve", "100MEDIA")
    assert site.run() == 0
    site.delivered("100MEDIA")
