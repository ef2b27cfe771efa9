"""Images that come after the folder was complete."""

import json
import os
import shutil
import time
from dataclasses import replace

import pytest

from pix4d_watcher.config import load
from pix4d_watcher.core.model import FileId, FrozenImage, HoldCode
from pix4d_watcher.emulator import flights
from pix4d_watcher.engine import freezing, late
from pix4d_watcher.engine.context import Context
from pix4d_watcher.intake.scan import Rules, Tree, scan_folder
from pix4d_watcher.journal import people, projects, rounds, skips, views


def add(site, count=2, *, name="flight", salt="late"):
    """Add images to a folder that was dropped."""
    return site.fill(site.drops / name, count, names="LATE_{n:04d}.JPG", salt=salt)


def batches(site):
    """Give the size of each registered batch."""
    done = [effect for effect in site.effects() if effect.kind == "register" and effect.status == "done"]
    return [len(effect.request["keys"]) for effect in done]


def test_late_while_uploading(site):
    """Images that come during the upload join the project."""
    site.fault("put", "delay", seconds=1.5, times=None)
    site.drop()
    site.start()
    site.reach("created")
    add(site)
    site.delivered()
    site.once(images=8)


def test_late_while_registered(site):
    """Images that come while the start waits for a person join as a further batch, and then it waits again."""
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    add(site)
    site.until(lambda: len(site.used()["registered"]) == 8, "the late images are registered")
    site.until(lambda: batches(site) == [6, 2], "the journal has both batches")
    site.held("manual_start")
    site.ask("start")
    site.delivered()
    site.once(images=8, held=True)


def test_late_while_an_answer_is_awaited(site):
    """Images that come while the outcome of a batch is unknown join after it is known."""
    site.fault("register", "drop_before")
    site.drop()
    site.start()
    site.until(lambda: site.requests("register"), "the first batch went out")
    add(site)
    site.delivered()
    site.once(images=8)


def test_late_ones_are_looked_at(site):
    """A damaged late image and one that is there already stay behind, each with its reason; damage is asked about."""
    site.configure(start="manual")
    folder = site.drop()
    site.start()
    site.held("manual_start")
    made = add(site, 3)
    flights.make_empty_image(made[1])
    shutil.copy(folder / "DJI_0001.JPG", made[2])
    site.until(lambda: site.look()["images"]["registered"] == 7, "the sound one is registered")
    reasons = {image.path: image.reason for image in site.images() if image.status == "skipped"}
    assert "damaged" in reasons[b"LATE_0002.JPG"]
    assert "DJI_0001.JPG" in reasons[b"LATE_0003.JPG"]
    assert "LATE_0002.JPG" in site.held("bad_images")
    site.ask("approve")
    site.held("manual_start")
    site.ask("start")
    site.delivered()
    site.once(images=7, held=True)


def test_start_waits_for_images_that_settle(site):
    """An image that came before the start is processed, too, also where all others are registered before it settled."""
    site.configure(settle="4s")
    site.fault("register", "delay", seconds=1.0)
    site.drop()
    site.start()
    site.until(lambda: site.requests("register"), "the first batch is on its way")
    add(site)
    site.until(lambda: "2 more images" in (site.look()["waiting_for"] or ""), "it says what it waits for")
    site.delivered()
    site.once(images=8)


def test_start_at_the_next_run_waits_for_what_came_between(site):
    """Images that were added while the service was down are processed, too, although `start` was given already."""
    site.configure(start="manual")
    site.drop()
    assert site.run() == 0
    site.held("manual_start")
    add(site)
    site.ask("start")
    assert site.run() == 0
    site.once(images=8, held=True)


@pytest.mark.parametrize("sign", ["notes.txt~", ".hold"])
def test_a_person_is_asked_about_what_is_never_complete(site, sign):
    """Late images that time alone does not complete hold the start, with the reason; complete, they join after all."""
    site.configure(start="manual")
    folder = site.drop()
    site.start()
    site.held("manual_start")
    (folder / sign).write_text("windy")
    add(site)
    text = site.held("late_images")
    assert "2 more images are in the folder (LATE_0001.JPG, LATE_0002.JPG)" in text
    assert sign in text
    assert "pix4d-watcher approve survey/flight" in text
    with pytest.raises(people.Refusal, match="is held and can still go on"):
        rounds.again(site.journal(change=True), site.id_of())
    (folder / sign).unlink()
    site.held("manual_start")
    site.ask("start")
    site.delivered()
    site.once(images=8, held=True)


def test_what_is_never_complete_is_asked_about_after_another_hold(site):
    """A hold that needs a person says the same however often late images are looked at; they are asked about then."""
    site.configure(start="manual")
    folder = site.drop()
    site.start()
    site.held("manual_start")
    projects.hold(site.journal(change=True), site.id_of(), HoldCode.INPUTS_DIFFER, "the cloud counts 7")
    (folder / "LATE_0001.JPG.part").touch()
    time.sleep(late.PATIENCE * 0.5 + 5)  # some looks after `settle` passed so often
    assert site.look()["hold"]["text"] == "the cloud counts 7"
    site.ask("approve")
    assert "LATE_0001.JPG.part" in site.held("late_images")


@pytest.mark.parametrize("way", ["approved", "taken away"])
def test_goes_on_without_what_is_never_complete(site, way):
    """The start goes on without images that are not complete when a person says so, or takes them out again."""
    folder = site.drop()
    site.fault("put", "delay", seconds=1.5, times=6)
    site.start()
    site.reach("created")
    part = add(site, 1)[0].rename(folder / "LATE_0001.JPG.part")
    assert "LATE_0001.JPG.part" in site.held("late_images")
    assert site.stop() == 0
    site.start()
    if way == "approved":
        site.ask("approve")
    else:
        part.unlink()
    site.delivered()
    site.once(images=6, held=True)


def test_what_was_taken_out_holds_nothing_up(site):
    """An image that changed before it was sent and that a person took out stays out, also where a stray name comes."""
    site.configure(upload={"connections": 1}, start="manual")
    site.fault("put", "delay", seconds=0.5, times=None)
    folder = site.drop(count=7)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"], "an image is uploaded")
    (folder / "DJI_0007.JPG").write_bytes(flights.make_image(99, size=(64, 48)))
    site.held("source_changed")
    skips.skip(site.journal(change=True), site.id_of(), ["DJI_0007.JPG"])
    site.cloud.faults.clear()
    site.held("manual_start")
    (folder / "notes.txt~").write_text("windy")
    site.ask("start")
    site.delivered()
    site.once(images=6, held=True)


@pytest.mark.parametrize("start", ["auto", "manual"])
def test_a_late_image_that_cannot_be_read(site, start):
    """A late image that cannot be read is asked about, before the start and after it, and then let be."""
    site.privileged = False
    site.configure(start=start)
    site.drop()
    assert site.run() == 0
    add(site, 1)[0].chmod(0)
    if start == "manual":
        site.ask("start")
    assert site.run() == 0
    text = site.held("late_images")
    assert "LATE_0001.JPG" in text
    assert "no permission to read it" in text
    site.ask("approve")
    assert site.run() == 0
    assert site.look()["condition"] == "active"
    site.once(held=True)


def test_a_stray_file_alone_holds_nothing_up(site):
    """A temporary name without an image that is not known yet keeps nobody from the start."""
    site.configure(start="manual")
    folder = site.drop()
    site.start()
    site.held("manual_start")
    (folder / "notes.txt~").write_text("windy")
    shutil.copy(folder / "DJI_0001.JPG", folder / "DJI_0001.JPG~")
    site.ask("start")
    site.delivered()
    site.once(held=True)


@pytest.mark.parametrize("sign", ["notes.txt~", ".hold"])
def test_too_late_beside_a_stray_file(site, sign):
    """After the start late images are told whatever lies beside them, and the service comes to rest."""
    folder = site.drop()
    assert site.run() == 0
    (folder / sign).write_text("windy")
    add(site)
    assert site.run() == 0
    assert "2 images" in site.held("late_images")
    site.ask("approve")
    assert site.run() == 0
    assert site.look()["condition"] == "active"
    site.once(held=True)


def test_a_whole_copy_of_a_damaged_late_image(site):
    """A late image that was cut short when it was looked at is asked about, and joins when it is whole."""
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    (made,) = flights.make_tiny_images(site.directory / "made", 1, names="LATE_{n:04d}.JPG", seed=4711)
    (site.drops / "flight" / made.name).write_bytes(made.read_bytes()[:300])
    assert "LATE_0001.JPG" in site.held("bad_images")
    (site.drops / "flight" / made.name).write_bytes(made.read_bytes())
    site.until(lambda: len(site.used()["registered"]) == 7, "the whole one is registered")
    site.held("manual_start")
    site.ask("start")
    site.delivered()
    site.once(images=7, held=True)


def report_of(site):
    return views.project(site.journal(), site.id_of()).report


def test_the_report_says_what_was_sent(site):
    """Images that join count in the report, its credits and the receipt; those that stayed behind are listed there."""
    site.configure(start="manual", results=True, outputs=["quality_report"])
    folder = site.drop()
    site.start()
    site.held("manual_start")
    before = report_of(site)
    made = add(site, 3)
    shutil.copy(folder / "DJI_0001.JPG", made[2])
    site.until(lambda: site.look()["images"]["registered"] == 8, "two of them are registered")
    now = report_of(site)
    assert (before["images"], before["sendable"]) == (6, 6)
    assert (now["images"], now["sendable"]) == (9, 8)
    assert now["megapixels"] > before["megapixels"]
    assert now["credits"] >= before["credits"]
    assert [one["path"] for one in now["skipped"]] == ["LATE_0003.JPG"]
    site.held("manual_start")
    site.ask("start")
    site.delivered()
    place = site.results / "survey" / "flight"
    assert json.loads((place / "report.json").read_text())["sendable"] == 8
    receipt = json.loads((place / "pix4d-receipt.json").read_text())
    assert (len(receipt["images"]), receipt["credits"]) == (8, now["credits"])


@pytest.mark.parametrize(("checks", "code"), [({}, "too_many_images"), ({"too_many_images": "warn"}, None)])
def test_more_than_a_project_may_have(site, checks, code):
    """Where images join beyond the service's limit the start asks first, as the check says; once accepted, no more."""
    site.configure(start="manual", checks={"not_geotagged": "off", **checks})
    site.drop()
    assert site.run() == 0
    context = in_process(site)
    came = [FrozenImage(b"LATE_%04d.JPG" % n, FileId(n, n, n, n), b"%032d" % n) for n in range(4000)]
    freezing.record(context, views.project(context.journal, site.id_of()), came, Tree((), ()), b"f")
    project = views.project(context.journal, site.id_of())
    hold = late.ask_before_start(context, project)
    assert (hold and hold[0]) == code
    assert "4006 images" in " ".join(finding["text"] for finding in project.report["findings"])
    assert late.ask_before_start(context, replace(project, accepted=("too_many_images",))) is None


def in_process(site):
    """Give a context of this process, to take decisions in."""
    journal = site.journal(change=True)
    return Context(load(site.config), journal, rest=None, buckets=None, world=None, wake_scanner=lambda _root: None)


@pytest.mark.parametrize("more", [5, 6])
def test_more_than_split_allows(site, more):
    """So many late images that they could be a project of their own are asked about; some fewer go with the others."""
    site.configure(split=10)
    site.fault("put", "delay", seconds=1.5, times=10)
    site.drop(count=10)
    site.start()
    site.reach("created")
    add(site, more)
    if more == 6:
        assert "16 images are in it" in site.held("too_many_images")
        assert site.requests("start") == 0
        site.ask("approve")
    site.delivered()
    site.once(images=10 + more, held=more == 6)


def test_an_image_rewritten_after_it_was_sent(site):
    """A sent image that gets another content in the folder is told, and what was sent is what is processed."""
    site.configure(start="manual")
    folder = site.drop()
    site.start()
    site.held("manual_start")
    (folder / "DJI_0003.JPG").write_bytes(flights.make_image(99, size=(64, 48)))
    (folder / "DJI_0004.JPG").touch()
    told = "DJI_0003.JPG was rewritten in the folder after it was sent; what was sent stays"
    site.until(lambda: ("late", told) in site.events(), "it is told")
    site.ask("start")
    site.delivered()
    site.once(held=True)
    assert [image.path for image in site.images() if image.reason] == [b"DJI_0003.JPG"]
    assert [text for kind, text in site.events() if kind == "late"] == [told]


def test_another_time_zone_is_no_new_content(site):
    """Where the times of all images moved alike nothing is read again; where one of them moved, that one is."""
    folder = site.drop()
    assert site.run() == 0

    def unknown():
        project = views.project(site.journal(), site.id_of())
        return [file.path for file in late.unknown(site.journal(), project, scan_folder(os.fsencode(folder), Rules()))]

    for path in folder.iterdir():
        times = path.stat()
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 3600 * 10**9))
    assert unknown() == []
    (folder / "DJI_0002.JPG").touch()
    assert b"DJI_0002.JPG" in unknown()


def test_too_late_while_the_cloud_has_failed(site):
    """Late images are asked about although processing has failed, also when it is then started again in the cloud."""
    site.cloud.change(processing_seconds=0.2, processing_result="error")
    site.drop()
    site.start()
    site.held("cloud_failed")
    add(site)
    site.held("late_images")
    site.cloud.change(processing_result="done")
    site.cloud.by_hand(site.look()["remote_id"], "start")
    site.ask("approve")
    site.delivered()
    site.once(starts=2, held=True)


@pytest.mark.parametrize(
    ("state", "count", "words"),
    [("started", 1, "1 image came after processing had started and was not sent"), ("delivered", 2, "2 images came")],
)
def test_too_late(site, state, count, words):
    """Images that come after the start hold the project once; `approve` goes on without them."""
    site.cloud.change(processing_seconds=4.0 if state == "started" else 0.1)
    site.drop()
    site.start()
    site.reach(state)
    add(site, count)
    text = site.held("late_images")
    assert words in text
    assert "LATE_0001.JPG" in text
    site.ask("approve")
    site.delivered()
    site.until(lambda: site.look()["condition"] == "active", "approved")
    time.sleep(2.5)
    assert site.look()["condition"] == "active"
    site.once(held=True)


def rounds_of(site, name="flight"):
    """Give state and condition of each round of a folder."""
    rows = sorted((row for row in site.status() if row["folder"] == name), key=lambda row: row["round"])
    return [(row["state"], row["condition"]) for row in rows]


@pytest.mark.parametrize("state", ["started", "delivered"])
def test_too_late_and_ignored(site, state):
    """With `late_images: ignore` twelve forgotten images are noted with their reason, and the project goes on."""
    site.configure(late_images="ignore")
    site.cloud.change(processing_seconds=4.0 if state == "started" else 0.1)
    site.drop()
    site.start()
    site.reach(state)
    add(site, 12)
    site.until(lambda: site.look()["images"]["skipped"] == 12, "the late images are noted")
    site.delivered()
    assert {image.reason for image in site.images() if image.status == "skipped"} == {
        "came after processing had started"
    }
    assert "12 images" in next(text for kind, text in site.events() if kind == "late")
    time.sleep(2.5)
    assert rounds_of(site) == [("delivered", "active")]
    site.once()


@pytest.mark.parametrize("state", ["started", "delivered"])
def test_too_late_and_a_new_round(site, state):
    """With `late_images: round` all images are sent as a new round, told in both, while the first goes to its end."""
    site.configure(late_images="round", checks={"sent_before": "hold"}, results=True)
    site.cloud.change(processing_seconds=6.0 if state == "started" else 0.1)
    site.drop()
    site.start()
    site.reach(state)
    add(site, 12)
    site.until(lambda: rounds_of(site) == [("delivered", "active")] * 2, "both rounds are done")
    first, second = sorted(site.projects(), key=lambda project: project["id"])
    assert [len(project["registered"]) for project in (first, second)] == [6, 18]
    assert [project["starts"] for project in (first, second)] == [1, 1]
    told = views.events_of(site.journal(), site.id_of(number=1), 1000)
    assert "survey/flight#2" in next(text for _at, kind, text in told if kind == "again")
    assert "again" in [kind for kind, _text in site.events()]
    assert (site.results / "survey/flight.round2/.complete").exists()
    time.sleep(2.5)
    assert len(rounds_of(site)) == 2


def test_uncovered_by_the_configuration(site):
    """With `late_images: round` files that only another configuration uncovers are asked about, not paid for."""
    site.configure(late_images="round", exclude=["*_T.JPG"])
    folder = site.prepare()
    site.fill(folder, 2, names="DJI_{n:04d}_T.JPG", salt="thermal")
    folder.rename(site.drops / "flight")
    assert site.run() == 0
    site.configure(late_images="round")
    site.start()
    text = site.held("late_images")
    assert "2 of them lay there before" in text
    assert rounds_of(site) == [("delivered", "held")]
    site.once(held=True)


def test_twelve_forgotten_are_no_second_card(site):
    """Images that joined belong to what was sent: the whole card once more is the same thing again."""
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    add(site, 12)
    site.until(lambda: len(site.used()["registered"]) == 18, "the late images are registered")
    copy = site.directory / "copy"
    shutil.copytree(site.drops / "flight", copy)
    copy.rename(site.drops / "copy")
    assert "All 18 images" in site.held("already_sent", "copy")


def test_other_files_are_no_late_images(site):
    """A file that is no image changes nothing about a project, whenever it comes."""
    folder = site.drop()
    site.start()
    site.delivered()
    (folder / "notes.txt").write_text("windy")
    time.sleep(3)
    assert site.look()["hold"] is None
    site.once()
