"""The ground station of tests/kill, for flights and archives of a size that few people have."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "kill"))

from station import Station


@pytest.fixture
def station(tmp_path):
    """Give a ground station with a running emulator; its service is not started yet."""
    with Station(tmp_path / "station") as running:
        yield running
