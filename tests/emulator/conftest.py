"""A running emulator with the settings of the test, and a client with a project in it."""

import contextlib

import pytest
import requests
from emulator_client import Pilot

from pix4d_watcher.emulator import Emulator


@pytest.fixture
def emulate():
    """Start emulators with the settings given; all are stopped at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Emulator(**{"processing_seconds": 0.0, **settings}))


@pytest.fixture
def fly(emulate):
    """Start an emulator with the settings given and return a client with a project in it."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: Pilot(emulate(**settings), stack.enter_context(requests.Session())).begin()


@pytest.fixture
def pilot(fly):
    """A client with a project in an emulator with its default settings."""
    return fly()
