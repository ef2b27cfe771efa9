"""People in the cloud's own page are followed, and people who pause the service stop it and nothing else."""

import random
import time

import pytest

pytestmark = pytest.mark.check  # minutes in all: run by make check


def by_hand(site, action, name="flight"):
    """Do what a person does in the cloud's own page."""
    site.cloud.by_hand(site.look(name)["remote_id"], action)


def test_stopped_and_started_again(site):
    """A project stopped in the cloud is held with the cloud's words; started there again it is followed by itself."""
    site.cloud.change(processing_seconds=60.0)
    site.drop()
    site.start()
    site.reach("started")
    by_hand(site, "stop")
    assert "CANCELED: Processing was stopped" in site.held("cloud_failed")
    assert site.look()["due_at"]
    by_hand(site, "start")
    site.until(lambda: site.look()["hold"] is None, "it is followed again")
    assert site.look()["state"] == "started"
    site.cloud.change(processing_seconds=0.0)
    site.delivered()
    site.once(starts=2, held=True)
    assert site.requests("start") == 1
    assert ("lifted", "it runs again in the cloud: somebody started it there") in site.events()


def test_failed_and_done_at_the_next_look(site):
    """A failed project that somebody started again is followed also where it is done before we look."""
    site.cloud.change(processing_result="error")
    site.drop()
    assert site.run() == 0
    site.held("cloud_failed")
    site.cloud.change(processing_result="done")
    by_hand(site, "start")
    site.start()
    site.delivered()
    site.once(starts=2, held=True)


def test_started_before_all_images_are_registered(site):
    """A start in the middle of the registration is noticed before more is registered, and a person decides."""
    site.configure(advanced={"register_batch": 4})
    site.cloud.change(processing_seconds=2.0)
    site.fault("register", "delay", seconds=8.0)
    site.drop()
    site.start()
    site.until(lambda: site.requests("register"), "the first batch is applied")
    site.until(lambda: len(site.used()["registered"]) == 4, "the first batch is applied")
    by_hand(site, "start")
    text = site.held("inputs_differ")
    assert "when 4 images were registered" in text
    assert "2 more are uploaded" in text
    assert len(site.used()["registered"]) == 4
    site.ask("approve")
    site.delivered()
    site.once(held=True)
    assert site.requests("start") == 0


def test_started_while_late_images_are_sent(site):
    """A start in the page while further images are on their way is noticed before those are registered."""
    site.configure(start="manual")
    site.cloud.change(processing_seconds=60.0)
    site.drop()
    site.start()
    site.held("manual_start")
    site.fault("put", "delay", seconds=8.0, times=None)
    site.bring(site.drops / "flight", 2, names="LATE_{n:04d}.JPG", salt="late")
    site.reach("created")
    by_hand(site, "start")
    assert "2 more are uploaded" in site.held("inputs_differ")
    site.ask("approve")
    site.until(lambda: site.look()["state"] == "started", "it is followed")
    assert site.requests("start") == 0
    assert len(site.used()["registered"]) == 8


def test_deleted_while_it_waits(site):
    """A project that is deleted in the cloud while it waits for a person is held, and nothing is made anew."""
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    by_hand(site, "delete")
    assert "not in the cloud any more" in site.held("cloud_refused")
    site.ask("retry")
    site.until(lambda: [kind for kind, _ in site.events()].count("held") == 3, "asked again")
    assert site.requests("create") == 1


def test_deleted_while_it_is_failed(site):
    """A failed project that somebody deletes in the cloud is told as such."""
    site.cloud.change(processing_result="error")
    site.drop()
    site.start()
    site.held("cloud_failed")
    by_hand(site, "delete")
    assert "not in the cloud any more" in site.held("cloud_refused")


def test_images_added_in_the_page(site):
    """Images that somebody adds in the cloud are noticed before the start; `approve` starts with them."""
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    by_hand(site, "add_image")
    assert "6 images were registered, the cloud counts 7" in site.held("inputs_differ")
    site.ask("approve")
    site.held("manual_start")
    assert site.requests("start") == 0
    site.ask("start")
    site.delivered()
    assert site.used()["starts"] == 1


def test_started_again_while_results_are_fetched(site):
    """A second start after the end of processing changes nothing about the first one's results."""
    site.cloud.change(outputs_seconds=600.0)
    site.configure(results=True)
    site.drop()
    site.start()
    site.reach("processed")
    by_hand(site, "start")
    site.cloud.change(outputs_seconds=0.0)
    site.delivered()
    assert (site.results / "survey" / "flight" / ".complete").exists()
    assert site.requests("start") == 1


def test_resume_clears_only_the_pause(site):
    """A hold stays through pause and resume, and a pause through approval: neither sets nor clears the other."""
    site.drop(count=3)
    site.start()
    text = site.held("too_few_images")
    site.ask("pause", paused=True)
    assert site.look()["hold"] == {"code": "too_few_images", "text": text}
    assert site.look()["paused"]
    site.ask("pause", paused=False)
    time.sleep(1.5)
    assert site.look()["hold"] == {"code": "too_few_images", "text": text}
    assert not site.look()["paused"]
    site.ask("pause", paused=True)
    site.ask("approve")
    time.sleep(1.5)
    assert site.look()["hold"]["code"] == "paused"
    assert site.requests("create") == 0
    site.ask("pause", paused=False)
    site.delivered()
    site.once(images=3, held=True)


def test_two_pauses(site):
    """`resume --all` leaves a folder alone that was paused by itself, and a pause of all leaves no mark on folders."""
    site.drop()
    site.drop("other")
    site.fault("put", "delay", seconds=8.0, times=None)
    site.start()
    site.until(lambda: site.look("other") and site.look(), "both are found")
    site.ask("pause", paused=True)
    site.pause_all(paused=True)
    site.cloud.faults.clear()
    time.sleep(1.5)
    site.pause_all(paused=False)
    site.delivered("other")
    assert site.look()["hold"]["code"] == "paused"
    assert not site.look("other")["paused"]
    site.ask("pause", paused=False)
    site.delivered()
    site.once()
    site.once("other")


@pytest.mark.parametrize("everything", [False, True], ids=["one folder", "everything"])
def test_a_pause_survives_a_crash(site, everything):
    """What was paused in the middle of an upload is still paused after a kill, and goes on from there."""
    site.configure(upload={"connections": 1})
    site.fault("put", "delay", seconds=1.5, times=None)
    site.drop(count=10)
    site.start()
    site.until(lambda: site.look() and site.look()["images"]["uploaded"] >= 3, "some images are uploaded")
    pause = site.pause_all if everything else lambda *, paused: site.ask("pause", paused=paused)
    pause(paused=True)
    time.sleep(2)  # longer than the answer to what is on its way
    site.restart()
    site.until(lambda: site.vitals().get("pid") == site.process.pid, "it is up")
    sent, starts = site.requests("put"), site.requests("start")
    time.sleep(2)
    assert (site.requests("put"), site.requests("start")) == (sent, starts)
    assert site.look()["hold"]["code"] == "paused"
    site.cloud.faults.clear()
    pause(paused=False)
    site.delivered()
    site.once(images=10)


def test_pause_inside_a_large_image(site):
    """A pause holds back the parts of a large image that are still queued; `resume` goes on inside the file."""
    site.configure(upload={"connections": 1, "multipart_threshold": "8MiB"})
    site.fault("part", "delay", seconds=1.5, times=None)
    folder = site.prepare()
    large = folder / "DJI_0001.JPG"
    small = large.read_bytes()
    noise = random.Random(1).randbytes(65 << 20)
    # Comments behind the start of a JPEG, as long as they may be.
    pieces = [noise[at : at + 65533] for at in range(0, len(noise), 65533)]
    comments = b"".join(b"\xff\xfe" + (len(piece) + 2).to_bytes(2, "big") + piece for piece in pieces)
    large.write_bytes(small[:2] + comments + small[2:])
    folder.rename(site.drops / "flight")
    site.start()
    site.until(lambda: site.requests("part") >= 2, "some parts are sent")
    site.ask("pause", paused=True)
    time.sleep(3)  # longer than the answer to the part that is on its way
    sent = site.requests("part")
    time.sleep(2)  # longer than another part takes
    assert site.requests("part") == sent < 9
    site.cloud.faults.clear()
    site.ask("pause", paused=False)
    site.delivered()
    site.once()
    (upload,) = site.cloud.ledger()["uploads"]
    assert {part["puts"] for part in upload["parts"].values()} == {1}


def test_start_while_the_cloud_is_asked(site):
    """A start that a person allows while a step waits for the cloud's answer is not lost with that step."""
    site.configure(start="manual")
    site.drop()
    site.start()
    site.held("manual_start")
    site.fault("project", "delay", seconds=1.5, times=2)
    asked = site.requests("project")
    site.until(lambda: site.requests("project") > asked, "a step waits for the answer")
    site.ask("start")
    site.delivered()
    site.once(held=True)
