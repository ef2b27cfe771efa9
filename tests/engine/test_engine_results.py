"""Results are fetched once, whole, and only those that are wanted; `.complete` comes last."""

import hashlib
import json
import subprocess
import time

import pytest

from pix4d_watcher.core.model import HoldCode
from pix4d_watcher.emulator import projects
from pix4d_watcher.journal.projects import hold

ALL = {
    "project.zip",
    "ortho.tif",
    "dsm.tif",
    "point_cloud.laz",
    "mesh.zip",
    "report.pdf",
    "project.log",
    "project_thumb.jpg",
}

DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def fetched(site, folder="flight"):
    """Give the names of the files in a folder's results, without what the program writes there of its own."""
    return {path.name for path in (site.results / "survey" / folder).iterdir() if path.suffix != ".json"}


def check_contents(site, folder="flight"):
    """Compare every fetched file with what the cloud holds."""
    held = {key.rpartition("/")[2]: facts["sha256"] for key, facts in site.cloud.ledger()["outputs"].items()}
    for name in fetched(site, folder) - {".complete"}:
        assert hashlib.sha256((site.results / "survey" / folder / name).read_bytes()).hexdigest() == held[name]


@pytest.mark.parametrize("endpoint", ["on", "off"])
def test_all_results(site, endpoint):
    """Every result is fetched once, also where the list of outputs has it twice or is not there."""
    site.cloud.change(outputs_endpoint=endpoint)
    site.configure(results=True)
    site.drop()
    assert site.run() == 0
    site.once()
    assert fetched(site) == ALL | {".complete"}
    check_contents(site)
    assert site.requests("get") == len(ALL)
    assert site.look()["outputs"] == {"total": 8, "fetched": 8}
    # What is only requestable stays so: asking for it may cost money.
    assert site.requests("other") == 0
    place = site.results / "survey" / "flight"
    assert (place / ".complete").stat().st_mtime_ns == max(path.stat().st_mtime_ns for path in place.iterdir())


@pytest.mark.parametrize("when", ["before", "after"])
def test_results_that_are_wanted_no_more(site, when):
    """A project that had no room for its results is delivered without them; nothing holds one that is delivered."""
    site.configure(results=True)
    site.fault("get", "status", code=503, times=None)
    site.drop()
    site.start()
    site.reach("processed")
    site.stop()
    if when == "before":
        hold(site.journal(change=True), site.id_of(), HoldCode.DISK_FULL, "no room")
    site.configure()
    assert site.run() == 0
    if when == "after":
        hold(site.journal(change=True), site.id_of(), HoldCode.DISK_FULL, "no room")
        site.start()
        site.until(lambda: site.look()["hold"] is None, "the hold is lifted")
        assert site.stop() == 0
    assert (site.look()["state"], site.look()["condition"]) == ("delivered", "active")


def test_results_in_the_making(site):
    """A result that is still being made is waited for, and `.complete` waits, too."""
    site.cloud.change(outputs_seconds=3.0)
    site.configure(results=True)
    site.drop()
    site.start("--until-idle")
    site.until(lambda: "still being made" in (site.look().get("waiting_for") or ""), "it waits for what is not there")
    assert site.look()["outputs"]["fetched"] == 6
    assert "mesh" in site.look()["waiting_for"]
    assert ".complete" not in fetched(site)
    assert site.ended() == 0
    assert fetched(site) == ALL | {".complete"}


def test_results_not_awaited_for_ever(site):
    """After `outputs_wait` the project is done with what there is."""
    site.cloud.change(outputs_seconds=600.0)
    site.configure(results=True, outputs_wait="1s")
    site.drop()
    assert site.run() == 0
    site.delivered()
    assert fetched(site) == ALL - {"mesh.zip", "point_cloud.laz"} | {".complete"}


@pytest.mark.parametrize(
    ("wanted", "names"),
    [(["quality_report", "dsm"], {"report.pdf", "dsm.tif", ".complete"}), ("none", {".complete"})],
    ids=["some", "none"],
)
def test_wanted_results(site, wanted, names):
    """Only results of the wanted types are fetched."""
    site.configure(results=True, outputs=wanted)
    site.drop()
    assert site.run() == 0
    site.delivered()
    assert fetched(site) == names


def test_no_results_configured(site):
    """Without `results` nothing is downloaded."""
    site.drop()
    assert site.run() == 0
    site.once()
    assert site.requests("get") == 0
    assert not site.results.exists()


def test_download_goes_on_where_it_was(site):
    """A download that was cut continues with the missing bytes."""
    site.cloud.change(output_bytes=9_000_000)
    site.configure(results=True, outputs=["ortho"])
    # Begun anew, the second try would be cut again; for one that goes on, less than that is left.
    site.fault("get", "cut", bytes=6_000_000, key="*ortho.tif", skip=1, times=2)
    site.drop()
    assert site.run() == 0
    site.once()
    check_contents(site)
    # One that asks what it is, one that is cut, one for the rest.
    assert site.requests("get") == 3


def test_download_with_many_breaks(site):
    """The breaks of a download that moves on are no failed tries that add up."""
    site.cloud.change(output_bytes=6_000_000)
    site.configure(results=True, outputs=["ortho"], advanced={"retry_max": "200ms"})
    site.fault("get", "cut", bytes=1_500_000, key="*ortho.tif", skip=1, times=None)
    site.drop()
    site.start("--until-idle")
    tries = set()

    def watched():
        tries.add(site.look().get("tries", 0))
        return site.look().get("state") == "delivered"

    site.until(watched, "delivered")
    assert site.ended() == 0
    site.once()
    check_contents(site)
    assert max(tries) <= 1


def test_result_that_is_refused(site):
    """One result that the storage refuses holds the project with its words, after all the others were fetched."""
    site.configure(results=True)
    site.fault("get", "status", code=403, body=DENIED, key="*project.zip", times=None)
    site.drop()
    assert site.run() == 0
    assert "AccessDenied" in site.held("cloud_refused")
    assert fetched(site) & (ALL | {".complete"}) == ALL - {"project.zip"}
    site.cloud.faults.clear()
    site.ask("retry")
    assert site.run() == 0
    site.once(held=True)
    assert fetched(site) == ALL | {".complete"}
    assert site.requests("get") == len(ALL) + 1


def test_result_that_is_refused_while_others_are_made(site):
    """A result that is refused does not keep those that are still being made from being fetched."""
    site.cloud.change(outputs_seconds=3.0)
    site.configure(results=True)
    site.fault("get", "status", code=403, body=DENIED, key="*project.zip", times=None)
    site.drop()
    assert site.run() == 0
    site.held("cloud_refused")
    assert fetched(site) & (ALL | {".complete"}) == ALL - {"project.zip"}


def test_result_that_is_missing(site):
    """A result that is not there is looked for again, and the others do not wait for it."""
    site.configure(results=True)
    site.fault("get", "status", code=404, key="*project.zip", times=None)
    site.drop()
    site.start()
    site.until(lambda: site.look().get("outputs", {}).get("fetched") == len(ALL) - 1, "the others are fetched")
    site.until(lambda: site.look()["tries"] >= 2, "it is looked for again")
    site.cloud.faults.clear()
    site.delivered()
    site.once()
    check_contents(site)


def test_killed_while_downloading(site):
    """A kill in the middle of the downloads loses none and fetches none twice."""
    site.configure(results=True)
    site.fault("get", "delay", seconds=0.4, times=None)
    site.drop()
    site.start()
    site.until(lambda: site.look().get("outputs", {}).get("fetched", 0) >= 2, "some are fetched")
    site.kill()
    assert site.run() == 0
    site.once()
    assert fetched(site) == ALL | {".complete"}
    check_contents(site)
    assert site.requests("get") <= len(ALL) + 1


@pytest.mark.parametrize(("stop", "go_on"), [("pause", "pause"), ("drop", "retry")])
def test_stopped_while_downloading(site, stop, go_on):
    """A project that a person stops while its results are fetched fetches no more; what is missing comes afterwards."""
    site.configure(results=True)
    site.fault("get", "delay", seconds=1.0, times=None)
    site.drop()
    site.start("--until-idle")
    site.until(lambda: site.look().get("outputs", {}).get("fetched"), "one is fetched")
    site.ask(stop, **({"paused": True} if stop == "pause" else {}))
    site.cloud.faults.clear()
    assert site.ended() == 0
    assert site.look()["state"] == "processed"
    assert site.look()["outputs"]["fetched"] < len(ALL)
    assert ".complete" not in fetched(site)
    site.ask(go_on, **({"paused": False} if stop == "pause" else {}))
    assert site.run() == 0
    site.once()
    assert fetched(site) == ALL | {".complete"}
    check_contents(site)
    assert site.requests("get") == len(ALL)


def test_stopped_in_the_middle_of_a_download(site):
    """A large result is not fetched to its end for a project that a person stopped, and goes on where it was."""
    site.cloud.change(output_bytes=600_000)
    site.configure(results=True, outputs=["ortho"], advanced={"request_timeout": "30s"})
    site.fault("get", "delay", seconds=4.0)
    site.drop()
    site.start("--until-idle")
    site.until(lambda: site.requests("get"), "it is asked for")
    site.ask("pause", paused=True)
    assert site.ended() == 0
    assert (site.look()["state"], site.requests("get")) == ("processed", 1)
    site.ask("pause", paused=False)
    assert site.run() == 0
    site.once()
    check_contents(site)
    assert fetched(site) == {"ortho.tif", ".complete"}


def test_renamed_while_downloading(site):
    """Results stay together where the first of them lies, and another folder of that name gets a place of its own."""
    site.configure(results=True)
    site.fault("get", "delay", seconds=1.0, times=None)
    folder = site.drop()
    site.start()
    site.until(lambda: site.look().get("outputs", {}).get("fetched"), "one is fetched")
    site.ask("pause", paused=True)
    site.cloud.faults.clear()
    folder.rename(site.drops / "harbour")
    site.until(lambda: site.look("harbour"), "the new name is known")
    site.drop(salt="tomorrow")
    site.delivered()
    assert not (site.results / "survey/flight/.complete").exists()
    site.ask("pause", "harbour", paused=False)
    site.delivered("harbour")
    assert {place.name for place in (site.results / "survey").iterdir()} == {"flight", "flight.round2"}
    for name, place in (("harbour", "flight"), ("flight", "flight.round2")):
        assert fetched(site, place) == ALL | {".complete"}
        complete = (site.results / "survey" / place / ".complete").read_text()
        assert f"project {site.look(name)['remote_id']}\n" in complete


def test_names_stay_in_the_results(site):
    """A name that leads out of the results becomes a plain one."""
    site.configure(results=True)
    site.cloud.change(processing_seconds=60.0, outputs_endpoint="off")
    site.drop()
    site.start()
    site.reach("started")
    site.cloud.change(processing_seconds=0.0)
    project = site.cloud.state.projects[site.used()["id"]]
    detail = projects.detail(site.cloud.state, project, site.cloud.url)
    names = iter(["../../evil", "/etc/passwd", "..", ".hidden", "a/b\\c"])
    for group in detail["outputs"].values():
        for leaf in group.values():
            if "s3_key" in leaf:
                leaf["name"] = next(names, leaf["name"])
    site.fault("project", "status", code=200, body=json.dumps(detail), content_type="application/json", times=None)
    site.delivered()
    assert {"evil", "passwd", "c", "hidden"} <= fetched(site)
    assert len(fetched(site)) == 9
    assert {path.parent for path in site.directory.rglob("evil*")} == {site.results / "survey" / "flight"}


@pytest.mark.check  # mounts a small disk
def test_no_room_for_results(site):
    """Results that do not fit hold the project, which goes on by itself when there is room."""
    site.results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", site.results], check=True)
    try:
        ballast = site.results / "ballast"
        ballast.write_bytes(bytes(20 << 20))
        site.configure(results=True)
        site.drop()
        site.start()
        assert "free" in site.held("disk_full")
        time.sleep(1)
        ballast.unlink()
        site.delivered()
        assert fetched(site) == ALL | {".complete"}
        site.once(held=True)
    finally:
        site.kill()
        subprocess.run(["umount", site.results], check=True)
