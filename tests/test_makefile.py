import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

NO_VENV = """#!/bin/sh
case "$2" in *ensurepip*) exit 1;; esac
exec {python} "$@"
"""
TOO_OLD = """#!/bin/sh
case "$2" in *3,\\ 11*) exit 1;; esac
exec {python} "$@"
"""


@pytest.fixture
def make(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)

    def run(script, *arguments):
        if script:
            python = tmp_path / "python"
            python.write_text(script.format(python=sys.executable))
            python.chmod(0o755)
            arguments = (*arguments, f"PYTHON={python}")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON"))}
        command = ["make", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)

    return run


@pytest.mark.parametrize("target", ["demo", "test", "check", "format", "generate"])
def test_missing_venv_is_one_sentence(make, tmp_path, target):
    """A fresh Debian without python3-venv is told what to install, and nothing is left behind."""
    done = make(NO_VENV, target)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "python3-venv is missing: sudo apt-get install python3-venv"
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("script", [TOO_OLD, "#!/no/such/interpreter\n"])
def test_old_or_missing_python_is_one_sentence(make, tmp_path, script):
    """An old Python, or none, is told before anything is made."""
    done = make(script, "demo")
    assert done.returncode != 0
    assert done.stderr.startswith("Python 3.11 or newer is needed, and ")
    assert not (tmp_path / ".venv").exists()


def test_python_is_found(make):
    """Without PYTHON one is found that is new enough and can make environments."""
    done = make("", "--dry-run", "demo")
    assert done.returncode == 0, done.stderr
    assert "Preparing .venv with python3" in done.stdout
