"""The step that waits for a project's images to be sent."""

import pytest

from pix4d_watcher.config import load
from pix4d_watcher.core.model import ImageStatus, State
from pix4d_watcher.engine.context import Context
from pix4d_watcher.engine.steps import step
from pix4d_watcher.journal import uploads, views

pytestmark = pytest.mark.check  # seconds: run by make check


class Quick:
    """An uploader that is through with everything in the moment in which it is woken."""

    def __init__(self, journal, number):
        self._journal, self._number = journal, number

    def call(self):
        """Record all images as sent."""
        for image in views.images_of(self._journal, self._number):
            if image.status is ImageStatus.PENDING:
                uploads.uploaded(self._journal, image, "etag")


def test_last_image_arrives_while_it_is_looked_at(site):
    """A project whose last image arrives just when the step has counted goes on at once, not at the next look."""
    site.fault("put", "stall", seconds=60, times=None)
    site.drop()
    site.start()
    site.reach("created")
    site.kill()
    journal = site.journal(change=True)
    project = views.project(journal, site.id_of())
    context = Context(load(site.config), journal, rest=None, buckets=None, world=None, wake_scanner=lambda _root: None)
    context.wake_uploads = Quick(journal, project.id)
    step(context, project)
    assert views.project(journal, project.id).state is State.UPLOADED
