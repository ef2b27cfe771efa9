"""The values that all rooms speak of."""

import dataclasses
import inspect
import json

import pytest

from pix4d_watcher.core import model
from pix4d_watcher.core.model import FileId, Finding, FrozenImage, HoldCode, ImageFacts, Level, Report, State

VALUES = [kind for _, kind in inspect.getmembers(model, dataclasses.is_dataclass)]


@pytest.mark.parametrize("kind", VALUES)
def test_values_cannot_be_changed(kind):
    """Values are frozen and have no room for more: what was read stays as it was read."""
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)


def test_words_are_text():
    """States and codes are their own text, in SQL, JSON and sentences."""
    assert f"{State.FOUND} {HoldCode.IN_DOUBT}" == "found in_doubt"
    assert json.dumps([State.FOUND]) == '["found"]'


def test_megapixels_of_an_image():
    """Megapixels are width times height, and 0 where the size is not known."""
    assert ImageFacts(width=5472, height=3648).megapixels == pytest.approx(19.96, abs=0.01)
    assert ImageFacts().megapixels == 0


def test_report_knows_what_holds():
    """Of the findings of a report just those of level `hold` hold."""
    findings = tuple(
        Finding("count", level, 3, "3 images", HoldCode.TOO_FEW_IMAGES) for level in (Level.WARN, Level.HOLD, Level.OFF)
    )
    report = Report(images=3, sendable=3, total_bytes=24, megapixels=60.0, credits=0.6, findings=findings)
    assert report.holding == (findings[1],)


def test_same_version_is_the_same_value():
    """Two looks at the same version of a file are equal, a later version is not."""
    first = FileId(8, 1, 2, 2**64 - 1)
    assert first == FileId(8, 1, 2, 2**64 - 1)
    assert first != dataclasses.replace(first, ctime_ns=3)
    assert FrozenImage(b"a", first, b"h" * 32) == FrozenImage(b"a", first, b"h" * 32)
