"""One ground station for each test."""

import pytest
from station import Station


@pytest.fixture
def station(tmp_path):
    """Give a ground station with a running emulator; its service is not started yet."""
    with Station(tmp_path / "station") as running:
        yield running
