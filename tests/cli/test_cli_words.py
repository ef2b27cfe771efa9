"""How facts are said."""

import pytest

from pix4d_watcher.cli import words
from pix4d_watcher.core.machine import HOLDS, with_name


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (-5, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "2 h"), (129600, "2 days")],
)
def test_span(seconds, said):
    """A length of time is one number with a unit."""
    assert words.span(seconds) == said


def test_moments():
    """The past, the future, and what has just been."""
    assert words.ago(None, 100.0) == "never"
    assert words.ago(99.5, 100.0) == "just now"
    assert words.ago(200.0, 100.0) == "just now"
    assert words.ago(40.0, 100.0) == "60 s ago"
    assert words.ahead(400.0, 100.0) == "in 5 min"
    assert words.ahead(50.0, 100.0) == "now"


def test_sizes():
    """Bytes have decimal units."""
    assert [words.size(count) for count in (0, 999, 1000, 4_500_000, 2e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "4.5 MB",
        "2.0 TB",
    ]


@pytest.mark.parametrize("code", HOLDS)
def test_every_remedy_has_the_name(code):
    """No remedy is shown with the word FOLDER in it."""
    assert "FOLDER" not in words.remedy(code, "", "survey/my flight")


def test_commands_only():
    """The name is filled in behind commands alone, with any options."""
    text = "FOLDER: pix4d-watcher approve FOLDER, retry --not-done FOLDER"
    assert with_name(text, "a b") == "FOLDER: pix4d-watcher approve 'a b', retry --not-done 'a b'"
