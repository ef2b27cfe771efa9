"""Whole flights by the real command line, compared with the cloud byte for byte."""

import shutil
from pathlib import Path

import pytest

from pix4d_watcher.emulator import flights

pytestmark = pytest.mark.timeout(200)


def deliver(station):
    """Run the real command until nothing is left to do, and compare what arrived with the files."""
    station.start("--until-idle", real=True)
    assert station.ended() == 0
    assert set(station.assert_delivered_once().values()) == {1}
    station.assert_results_complete()


def test_synthetic_flight(station):
    """A synthetic flight on a card with two directories of equal names arrives byte for byte."""
    station.drop(lambda folder: flights.make_flight(folder, 18, subfolders=flights.CARD_SUBFOLDERS))
    deliver(station)


def test_real_flight(station, pytestconfig):
    """The images of a real drone arrive byte for byte."""
    place = pytestconfig.machine.get("PIX4D_SAMPLE_IMAGES")  # the tests' own environment is cleaned
    if not place or not Path(place).is_dir():
        pytest.skip("PIX4D_SAMPLE_IMAGES names no directory with real images")
    station.drop(lambda folder: shutil.copytree(place, folder, dirs_exist_ok=True, copy_function=shutil.copyfile))
    deliver(station)
