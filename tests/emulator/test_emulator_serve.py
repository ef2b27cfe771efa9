"""The emulator as a process, and as a guest in one."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from emulator_client import until

from pix4d_watcher.emulator import Emulator

ROOT = Path(__file__).resolve().parents[2]
SERVE = "import sys; sys.path.insert(0, sys.argv[1]); from pix4d_watcher.emulator import serve; serve(sys.argv[2])"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve(tmp_path, number):
    """Without any installed package it says when it is ready, serves, and ends on a signal with 0, leaving nothing."""
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", SERVE, str(ROOT), "127.0.0.1:0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        word, url = process.stdout.readline().split()
        assert (word, url.startswith("http://127.0.0.1:")) == ("ready", True)
        with requests.Session() as session:
            assert session.get(f"{url}/_emulator/ledger", timeout=10).json()["projects"] == []
            assert list(tmp_path.iterdir())
            process.send_signal(number)
            _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def test_a_given_data_directory_is_kept(fly, tmp_path):
    """Objects lie as files in the directory that was given, and stay when the emulator stops."""
    pilot = fly(data_dir=tmp_path / "data")
    pilot.put(body=b"kept")
    pilot.emulator.stop()
    assert [file.read_bytes() for file in (tmp_path / "data").iterdir()] == [b"kept"]


def test_stopping_leaves_nothing_behind(fly):
    """Stopping ends idle, waiting and stalled connections with their threads, removes the files, may be repeated."""
    before = set(threading.enumerate())
    pilot = fly()
    directory = pilot.emulator.state.directory
    stall, late = {"op": "create", "do": "stall", "seconds": 3600}, {"op": "project", "do": "late", "seconds": 3600}
    pilot.emulator.faults.add(stall, late)
    with pytest.raises(requests.ConnectionError):
        pilot.get()
    with pilot.raw() as idle, pilot.raw() as stalled:
        target = "/project/api/v3/projects/"
        stalled.sendall(pilot.head("POST", target, {}, 2))
        until(lambda: pilot.emulator.faults.listing()[0]["hits"])
        pilot.emulator.stop()
        pilot.emulator.stop()
        assert idle.recv(10) == b""
        with contextlib.suppress(ConnectionResetError):  # as a stall ends
            assert stalled.recv(10) == b""
    until(lambda: set(threading.enumerate()) <= before)
    assert not directory.exists()


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1:http", ":80"])
def test_wrong_address(listen):
    """An address that is not HOST:PORT is refused with the right form."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        Emulator(listen)


def test_wrong_setting_and_taken_port(emulate):
    """A wrong setting and a taken port are told before anything runs, and leave no temporary directory."""
    with pytest.raises(ValueError, match="unknown setting colour"):
        Emulator(colour="blue")
    taken = emulate().url.removeprefix("http://")
    with pytest.raises(OSError, match="in use"):
        Emulator(taken).start()
