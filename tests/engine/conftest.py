"""The site of these tests: what they count is asked for once, however slow the machine is."""

import pytest
from harness import Site


class EngineSite(Site):
    """A site whose service waits for answers for longer than the cloud, a thread of a busy test, ever takes.

    A time-out is a lost answer: the call would be looked up or repeated, and the story would be another one.
    """

    def configure(self, *, advanced=None, **more):
        """Write the configuration, see `Site.configure`."""
        super().configure(advanced={"request_timeout": "20s", **(advanced or {})}, **more)

    def bring(self, folder, count, **more):
        """Have further images come into a folder in one moment, in a directory of their own below it."""
        place = self.directory / "prepared" / "brought"
        place.mkdir(parents=True)
        self.fill(place, count, **more)
        place.rename(folder / "brought")


@pytest.fixture
def site(tmp_path):
    """A site with its emulator running and the service not yet; its report is added where a story fails."""
    with EngineSite(tmp_path / "site") as made:
        yield made
