"""The demonstration, whole: the one slow test of the commands."""

import pytest

from pix4d_watcher.cli.demo_proof import _uploads


@pytest.mark.timeout(200)
def test_demo(run_cli, tmp_path):
    """`demo` ends with 0, tells its story in plain lines, proves each claim, and leaves nothing behind."""
    done = run_cli("demo", timeout=180, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "kill -9, when " in done.stdout
    assert "NOT TRUE" not in done.stdout
    proof = done.stdout.partition("THE JOURNAL SAYS")[2].splitlines()[1:]
    assert sum(line.startswith("ok") for line in proof) == 13
    assert any("held: bad_images" in line for line in proof)
    assert any("held: not_geotagged" in line for line in proof)
    assert list(tmp_path.iterdir()) == []


def test_proof_sees_a_lie():
    """An image that was sent twice without the kill as its reason is not true; one that was under way is."""
    objects = {"p/a": {"puts": 2}, "p/b": {"puts": 1}}
    assert _uploads("harbour", objects, {"p/a"}).true
    assert not _uploads("harbour", objects, {"p/b"}).true
    assert not _uploads("harbour", {"p/a": {"puts": 3}}, {"p/a"}).true
