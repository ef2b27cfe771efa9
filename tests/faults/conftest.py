"""Every test here belongs to `make check`, or to `make soak` where it says so: they take root, tools or minutes."""

import os
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Mark what is not marked `soak` as a check."""
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.check)


@pytest.fixture
def need():
    """Skip where a command is missing, or root is asked for and is not there; in CI such a skip counts as failed."""

    def ask(*commands, root=False):
        if root and os.geteuid() != 0:
            pytest.skip("needs root")
        missing = [command for command in commands if shutil.which(command) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}; see PACKAGES in the Makefile")

    return ask


@pytest.fixture
def media(tmp_path, need):
    """Cards and shares of this test alone; all is undone at its end."""
    from media_kit import Media

    need("bindfs", "losetup", "mkfs.ext4", root=True)
    with Media(tmp_path / "media") as made:
        yield made
