import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest
pytestmark = pytest.mark.check

@pytest.mark.skipif(True, reason="no systemd here")
def test_mark(): pass

def test_call(): pytest.skip("no root")

@pytest.mark.xfail(reason="known")
def test_known(): assert False

def test_fine(): pass
"""

COUNTING = """
import pytest

@pytest.mark.parametrize("number", [3, 4])
def test_counts(record_property, number):
    record_property("count", ("crash matrix: lives", number))
    record_property("count", f"one of them had {number}")
    record_property("other", "not shown")
"""


def run(tmp_path, text, *options, **environment):
    """Run tests of their own under this conftest; give the finished process."""
    for name in ("conftest.py", "nursery.py", "clocks.py"):
        shutil.copy(Path(__file__).parent / name, tmp_path)
    (tmp_path / "test_it.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = check\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", *options, str(tmp_path)]
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=110, check=False, env=environment, cwd=tmp_path
    )


@pytest.mark.parametrize("options", [["-q"], ["-n", "2"]])
def test_counts_are_printed(tmp_path, options):
    """What tests counted stands at the end of a run, summed up, also where workers counted."""
    said = run(tmp_path, COUNTING, *options).stdout
    assert "crash matrix: lives: 7" in said
    assert "one of them had 3\none of them had 4\n" in said
    assert "not shown" not in said


@pytest.mark.parametrize(
    ("ci", "counts"), [("true", "1 failed, 1 passed, 1 xfailed, 1 error in"), ("", "1 passed, 2 skipped, 1 xfailed in")]
)
def test_skips_fail_in_ci(tmp_path, ci, counts):
    """A check that skips itself is a failure with CI=true, and only there; its reason is shown."""
    done = run(tmp_path, SKIPPING, "-rs", CI=ci)
    assert counts in done.stdout.splitlines()[-1]
    assert (done.returncode == 0) == (ci == "")
    assert "no systemd here" in done.stdout
    assert "no root" in done.stdout


def test_environment_is_clean():
    """Nothing of the machine leads a test to a proxy, another configuration, a systemd or another width of lines."""
    left = [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith(("PIX4D_", "AWS_"))]
    assert left == []
    assert not {"NOTIFY_SOCKET", "COLUMNS", "FORCE_COLOR", "PYTHONWARNINGS"} & os.environ.keys()
