"""The documentation names all that there is, and nothing that is not."""

import re
from pathlib import Path

import typer.main

from pix4d_watcher.cli.app import app
from pix4d_watcher.config import SETTINGS_KEYS
from pix4d_watcher.config.__main__ import with_settings
from pix4d_watcher.core.machine import HOLDS, SHOWN
from pix4d_watcher.core.model import HoldCode, State

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
MAP = (ROOT / "pix4d_watcher" / "README.md").read_text("utf-8")


def first_column(text):
    return set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands():
    return set(typer.main.get_command(app).commands)


def test_every_command_is_documented():
    """Each command that exists stands in the README's table, and no other."""
    named = {word.split()[0] for line in section("What you see").splitlines() if line.startswith("| `")
             for word in re.findall(r"`([a-z-]+[^`]*)`", line.split("|")[1])}  # fmt: skip
    named |= {word for word in commands() if f"`{word}`" in section("What you see")}
    assert named == commands()


def test_every_hold_is_documented():
    """Each hold code stands in the README's table, and no other."""
    assert first_column(section("Holds")) == {str(code) for code in HoldCode}
    assert set(HOLDS) == set(HoldCode)


def test_every_state_is_documented_in_its_own_words():
    """Each state stands in the README's table with the words that people see."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section("States"), re.MULTILINE)
    assert rows == [(str(state), SHOWN[state]) for state in State]


def test_the_table_of_settings_is_current():
    """Each setting stands in the README as the code explains it; if not, run make generate."""
    assert with_settings(README) == README
    named = first_column(section("Configuration"))
    sections = {key for key in SETTINGS_KEYS for other in SETTINGS_KEYS if other.startswith((f"{key}.", f"{key}["))}
    assert set(SETTINGS_KEYS) - sections <= named


def test_the_map_names_every_module():
    """Each module of the product stands in the map, and each module that the map names exists."""
    package = ROOT / "pix4d_watcher"
    rooms = MAP.split("\n## The rooms\n")[1].split("```")[1]
    for room in ("core", "config", "journal", "host", "intake", "cloud", "engine", "doctor"):
        for module in (package / room).glob("*.py"):
            if not module.name.startswith("__"):
                assert module.name in rooms, f"{room}/{module.name} is not in pix4d_watcher/README.md"
    existing = {path.name for path in package.rglob("*.py")}
    assert set(re.findall(r"\b[a-z_]+\.py\b", rooms)) <= existing


def test_links_lead_somewhere():
    """Each file that the README names by a path exists."""
    names = re.findall(r"`((?:config|deploy|pix4d_watcher)/[\w./-]+)`", README)
    assert names
    for name in names:
        assert (ROOT / name).exists(), name


def test_the_table_of_faults_names_tests_that_exist():
    """Each test that the table of faults names exists, and each file of tests beside it is named."""
    table = (ROOT / "tests" / "faults" / "README.md").read_text("utf-8")
    named = set(re.findall(r"`(?:tests/)?([\w/]+\.py)::(test_\w+)`", table))
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text("utf-8"), f"{file}::{test}"
    beside = {f"faults/{path.name}" for path in (ROOT / "tests" / "faults").glob("test_*.py")}
    assert beside <= {file for file, _ in named}
