"""The demonstration: flights are dropped, the service is killed in mid-upload, and the ledger shows what came of it.

Owns the story; everything in it is real but the cloud, which is the emulator. Needs no privileges and leaves nothing.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

from rich.text import Text

from pix4d_watcher.cli import demo_proof, journals, out, picture, show, words
from pix4d_watcher.cli.demo_stage import PATIENCE, STOP_WITHIN, Stage, Stuck, stage
from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import Condition, HoldCode, State
from pix4d_watcher.emulator import flights
from pix4d_watcher.journal import naming

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from rich.console import Console

IMAGES = 40
"""Of the good flight."""

KILL_AT = 12
"""Images in the cloud at which the service is killed: clearly begun, and far from the end."""

SLOW = 0.5
"""Seconds by which the emulator delays each answer until the kill, so that mid-upload lasts long enough to be met."""

_SIZE = (640, 480)  # pixels: small files, since the demonstration is about steps and not about bytes
_HELD = {"truncated": HoldCode.BAD_IMAGES, "no-gps": HoldCode.NOT_GEOTAGGED}
_DONE = ("harbour", "dropped-live")
_LOG_LINES = 20


class _Teller:
    """Tells what happens, with the seconds since the beginning."""

    def __init__(self) -> None:
        self.console = show.console()
        self._began = time.monotonic()
        self._told: dict[str, str] = {}

    def say(self, text: str, style: str = "") -> None:
        """Print one line."""
        out.say(self.console, Text.assemble((f"{time.monotonic() - self._began:5.1f} s  ", "dim"), (text, style)))

    def news(self, stage: Stage) -> None:
        """Print what changed for each folder since the last time."""
        for folder, project in stage.projects().items():
            said = words.doing(project, time.time()).partition(",")[0]
            if project["hold"]:
                said = f"held: {HOLDS[HoldCode(project['hold']['code'])].title}"
            kind = said.rstrip("0123456789/ ")  # the counts change all the time
            if self._told.get(folder) != kind:
                self._told[folder] = kind
                self.say(f"  {folder:13} {said}", "yellow" if project["hold"] else "")


def run_demo() -> int:
    """Run the demonstration; returns 0 only if every line of its proof is true."""
    teller = _Teller()
    with stage() as set_up:
        try:
            return _story(set_up, teller)
        except Stuck as stuck:
            teller.say(str(stuck), "bold red")
            log = set_up.log.read_text(encoding="utf-8", errors="replace") if set_up.log.exists() else ""
            out.write("".join(f"    {line}\n" for line in log.splitlines()[-_LOG_LINES:]))
            return 1


def _story(stage: Stage, teller: _Teller) -> int:
    teller.say(f"The emulator stands in for the cloud: {stage.url}")
    _make_flights(stage.directory / "cards")
    stage.slow_uploads(SLOW)
    service = stage.start_service()
    teller.say("The service runs. Three flights are dropped into its drop directory.", "bold")
    for card in ("harbour", *_HELD):
        shutil.copytree(stage.directory / "cards" / card, stage.drop / card)
    copy = threading.Thread(
        target=_copy_slowly, args=(stage.directory / "cards" / "dropped-live", stage.drop), daemon=True
    )
    before = _kill_in_mid_upload(stage, service, copy, teller)
    stage.slow_uploads(None)
    service = stage.start_service()
    teller.say("It is started again, as systemd would, and goes on where it was.", "bold")
    copy.join(PATIENCE)
    stage.until(lambda: _is_settled(stage, teller), "every folder is done or held", service)
    service.send_signal(signal.SIGTERM)
    code = service.wait(STOP_WITHIN)
    teller.say(f"All is done or held. SIGTERM: the service ends with {code}.", "bold")
    return _prove(stage, teller.console, before, clean_end=code == 0)


def _make_flights(cards: Path) -> None:
    flights.make_flight(cards / "harbour", IMAGES, subfolders=flights.CARD_SUBFOLDERS, size=_SIZE)
    truncated = flights.make_flight(cards / "truncated", 8, size=_SIZE, seed=1)
    flights.truncate_image(truncated[4])
    flights.make_flight(cards / "no-gps", 8, size=_SIZE, geotag=False, seed=2)
    flights.make_flight(cards / "dropped-live", 10, size=_SIZE, seed=3)


def _copy_slowly(card: Path, drop: Path) -> None:
    """Copy as a slow card does: each file in two pieces with pauses."""
    never = threading.Event()
    (drop / card.name).mkdir()
    for image in sorted(card.iterdir()):
        content = image.read_bytes()
        with (drop / card.name / image.name).open("wb") as stream:
            stream.write(content[: len(content) // 2])
            stream.flush()
            never.wait(0.2)
            stream.write(content[len(content) // 2 :])
        never.wait(0.1)


def _kill_in_mid_upload(
    stage: Stage, service: subprocess.Popen[bytes], copy: threading.Thread, teller: _Teller
) -> set[str]:
    """Kill the service when some of harbour's images are in the cloud; returns the keys that were under way."""

    def arrived(count: int) -> bool:
        teller.news(stage)
        return _objects(stage) >= count

    stage.until(lambda: arrived(1), "the first image of harbour is in the cloud", service)
    teller.say("A fourth flight is copied in slowly meanwhile, as from a card.", "bold")
    copy.start()
    stage.until(lambda: arrived(KILL_AT), f"{KILL_AT} images of harbour are in the cloud", service)
    service.kill()
    service.wait()
    there = _objects(stage)
    with journals.journal_to_read(stage.settings()) as journal:
        assert journal is not None  # the service that was killed had made it
        (harbour,) = naming.find(journal, "survey/harbour")
        under_way = demo_proof.under_way(journal, harbour.id)
    if there >= IMAGES:
        raise Stuck("all images were up before the service could be killed; this machine is too fast for the story")
    teller.say(f"kill -9, when {there} of {IMAGES} images of harbour were in the cloud.", "bold red")
    return under_way


def _objects(stage: Stage) -> int:
    """Count the images of harbour that the emulator holds."""
    ledger = stage.ledger()
    ids = {project["id"] for project in ledger["projects"] if project["name"].startswith("harbour [")}
    return sum(entry["project"] in ids for entry in ledger["objects"].values())


def _is_settled(stage: Stage, teller: _Teller) -> bool:
    teller.news(stage)
    projects = stage.projects()
    done = all(name in projects and projects[name]["state"] == State.DELIVERED for name in _DONE)
    return done and all(name in projects and projects[name]["condition"] == Condition.HELD for name in _HELD)


def _prove(stage: Stage, console: Console, under_way: set[str], *, clean_end: bool) -> int:
    """Print the journal's view beside the ledger, and mark each line that is not true."""
    settings, ledger = stage.settings(), stage.ledger()
    claims = [demo_proof.Claim("the service", "stopped by SIGTERM", "", clean_end)]
    with journals.journal_to_read(settings) as journal:
        assert journal is not None and settings.results is not None  # noqa: PT018  (the site was made with both)
        out.say(console, Text(), *show.table(picture.look(settings, journal), console), Text())
        for name in _DONE:
            (project,) = naming.find(journal, f"survey/{name}")
            claims += demo_proof.delivered(
                journal, ledger, project, settings.results, under_way if name == "harbour" else set()
            )
        for name, code in _HELD.items():
            (project,) = naming.find(journal, f"survey/{name}")
            claims.append(demo_proof.held(ledger, project, code))
    out.say(console, *_columns(claims, sent_twice=demo_proof.sent_twice(ledger)))
    wrong = sum(not claim.true for claim in claims)
    text = (
        f"{wrong} lines are NOT TRUE."
        if wrong
        else "Nothing was lost. Each folder: one project, one registration, one start."
    )
    out.say(console, Text(), Text(text, "bold red" if wrong else "bold green"))
    return 1 if wrong else 0


def _columns(claims: list[demo_proof.Claim], *, sent_twice: int) -> list[Text]:
    folder = max(len(claim.folder) for claim in claims)
    journal = max(len(claim.journal) for claim in claims)
    lines = [Text(f"{'':10}{'FOLDER':{folder}}  {'THE JOURNAL SAYS':{journal}}  THE CLOUD'S LEDGER SAYS", "bold")]
    for claim in claims:
        mark = ("ok        ", "green") if claim.true else ("NOT TRUE  ", "bold red")
        lines.append(Text.assemble(mark, f"{claim.folder:{folder}}  {claim.journal:{journal}}  {claim.cloud}".rstrip()))
    if sent_twice:
        what = words.number(sent_twice, "image")
        lines += [
            Text(f"\nSent twice: {what} had arrived when the service was killed; it had no answer yet.", "dim"),
            Text("The same bytes went to the same keys again, which costs nothing but time.", "dim"),
        ]
    return lines
