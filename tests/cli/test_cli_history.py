"""The history: which folders `status` shows, its filters, and the story that `log FOLDER` tells."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from sqlalchemy import insert, update

from pix4d_watcher.core.model import HoldCode
from pix4d_watcher.journal import listing, people, tables, views

DAY = 86400.0


def shown(result):
    """List the folders of a table in their order."""
    assert result.returncode == 0, result.stderr
    return [line.split()[0] for line in result.stdout.splitlines() if line.startswith(("survey/", "second/"))]


def delivered_at(site, project, days):
    """Move a delivery into the past."""
    with site.journal.write() as connection:
        table = tables.projects
        moved = update(table).where(table.c.id == project)
        connection.execute(moved.values(found_at=time.time() - days * DAY - 60, delivered_at=time.time() - days * DAY))


@pytest.fixture
def years(site):
    """A site with 13 deliveries, one a week, a hold and an upload in their middle, and a folder of another root."""
    for week in range(13, 0, -1):
        delivered_at(site, site.delivered(f"week-{week:02}", images=6, remote_id=week), 7 * week)
    site.settled("held", hold=(HoldCode.BAD_IMAGES, "1 image is cut off."))
    site.see("second")
    site.created("moving", remote_id=99, uploaded=4, root="second")
    return site


def test_open_first_then_the_last_ten(cli, years):
    """Open and held folders come first, then the ten that were done last; the rest is counted, and --all shows it."""
    first = cli("status")
    assert shown(first) == ["survey/held", "second/moving", *(f"survey/week-{week:02}" for week in range(1, 11))]
    assert "… and 3 more, done or dropped (--all)" in first.stdout
    assert first.stdout.rstrip().endswith("15 folders: 13 done, 1 uploading, 1 held") or (
        first.stdout.rstrip().endswith("15 folders: 13 done, 1 held, 1 uploading")
    )
    assert len(shown(cli("status", "--all"))) == 15
    assert len(json.loads(cli("status", "--json").stdout)["projects"]) == 15


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["--root", "second"], ["moving"]),
        (["--state", "held"], ["held"]),
        (["--state", "open"], ["held", "moving"]),
        (["--state", "created"], ["moving"]),
        (["--state", "done", "--since", "15d"], ["week-01", "week-02"]),
        (["--older", "83d"], ["week-12", "week-13"]),
        (["--since", "15d", "--older", "10d"], ["week-02"]),
        (["--state", "dropped"], []),
    ],
)
def test_filters(cli, years, filters, names):
    """Filters choose by drop directory, state and age, in the table and in the JSON alike."""
    assert {name.partition("/")[2] for name in shown(cli("status", *filters))} == set(names)
    projects = json.loads(cli("status", "--json", *filters).stdout)["projects"]
    assert {project["folder"] for project in projects} == set(names)
    assert [project["found_at"] for project in projects] == sorted(project["found_at"] for project in projects)


def test_filters_that_mean_nothing(cli, years):
    """A drop directory, state or duration that does not exist is a mistake, told with what there is."""
    for arguments, words in (
        (["--root", "nowhere"], "there are survey, second"),
        (["--state", "lost"], "open, held, done"),
        (["--since", "yesterday"], "is no duration"),
        (["--all", "held"], "leave --all"),
    ):
        result = cli("status", *arguments)
        assert result.returncode == 2
        assert words in " ".join(result.stderr.split())
    assert "No folder is like that." in cli("status", "--state", "dropped").stdout


def test_put_away_and_hooks_are_said(cli, site):
    """What became of a folder stands in the JSON, and a folder that could not be put away says so in the table."""
    kept = site.delivered("kept")
    with site.journal.write() as connection:
        connection.execute(
            update(tables.projects)
            .where(tables.projects.c.id == kept)
            .values(put_away="kept", waiting_for="the folder is kept: its disk is read-only")
        )
        connection.execute(
            insert(tables.outbox),
            {
                "project_id": kept,
                "kind": "delivered",
                "facts": {},
                "at": time.time(),
                "tries": 10,
                "error": "on_delivered: it ended with code 1 (10 tries)",
                "done_at": time.time(),
            },
        )
    text = cli("status").stdout
    assert "survey/kept: on_delivered: it ended with code 1 (10 tries)" in text
    assert "    the folder is kept: its disk is read-only" in text.splitlines()
    (project,) = json.loads(cli("status", "--json").stdout)["projects"]
    assert project["put_away"] == "kept"


# --- log


def test_log_tells_the_story(cli, site):
    """Events stand under their days in local time, oldest first, each with what happened."""
    project = site.delivered("harbour")
    with site.journal.write() as connection:
        events = tables.events
        first = connection.execute(events.select().where(events.c.project_id == project)).first()
        connection.execute(update(events).where(events.c.id == first.id).values(at=1_700_000_000.0))
        connection.execute(update(events).where(events.c.id != first.id).values(at=1_700_100_000.0))
    site.close()
    # A process of its own: in a forked one the time zone is that of its parent.
    command = [sys.executable, "-m", "pix4d_watcher", "log", "harbour", "--config", str(site.config)]
    told = subprocess.run(command, capture_output=True, env={**os.environ, "TZ": "EST5"}, check=True, text=True)
    lines = told.stdout.splitlines()
    assert lines[0] == "Tuesday, 2023-11-14"
    assert re.fullmatch(r"  17:13:20  found +found survey/harbour", lines[1])
    assert lines[2] == ""
    assert lines[3] == "Wednesday, 2023-11-15"
    kinds = [line.split()[1] for line in lines[4:]]
    assert [kind for kind in kinds if kind in {"settled", "created", "delivered"}] == [
        "settled",
        "created",
        "delivered",
    ]
    assert len(cli("log", "harbour", "-n", "2").stdout.splitlines()) == 3


def test_log_of_all_rounds(cli, site):
    """All rounds of a folder are told together, each event with its round; one round alone when it is named."""
    site.delivered("harbour")
    people.pause(site.journal, site.found("harbour"), paused=True)
    both = cli("log", "survey/harbour").stdout
    assert re.search(r"#1 delivered +done", both)
    assert re.search(r"#2 paused +by a person", both)
    second = cli("log", "harbour#2").stdout
    assert "#1" not in second
    assert "delivered" not in second
    value = json.loads(cli("log", "--json", "harbour").stdout)
    assert {name: value[name] for name in ("version", "root", "folder")} == {
        "version": 1,
        "root": "survey",
        "folder": "harbour",
    }
    assert {event["round"] for event in value["events"]} == {1, 2}
    assert value["events"][-1] | {"at": ""} == {"at": "", "round": 2, "kind": "paused", "text": "by a person"}
    assert value["events"][0]["at"].endswith("Z")


def test_log_of_nothing(cli, site):
    """An unknown folder, and a number of lines that makes no sense, are mistakes of the command line."""
    site.found("harbour")
    assert "did you mean survey/harbour" in cli("log", "harbor").stderr
    assert cli("log", "harbor").returncode == cli("log", "harbour", "-n", "0").returncode == 2


def test_only_what_is_shown_is_counted(site):
    """The table asks for the images of the projects that it shows, however many others there are."""
    for number in range(30):
        site.delivered(f"flight-{number:02}", images=6, remote_id=number + 1)
    selection = listing.select_shown(site.journal, listing.EVERYTHING, 10)
    assert (len(selection.ids), selection.hidden) == (10, 20)
    shown_ids = {project["id"] for project in views.status(site.journal, selection.ids)}
    assert shown_ids == set(selection.ids)
