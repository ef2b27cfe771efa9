"""A site that was used: a configuration, drop directories, and a journal written by the same verbs as the service's."""

import hashlib
import time

import pytest

from pix4d_watcher.core.model import EffectKind, FileId, FrozenImage, Learnt, State, printable
from pix4d_watcher.journal import database, effects, folders, projects, results, service, splits, uploads, views

CONFIG = """\
cloud:
  url: http://127.0.0.1:9
  client_id: demo-client
  client_secret_file: secret
journal: state/journal.db
watch:
  - name: survey
    path: drop
    settle: 60s
    poll: 30s
  - name: second
    path: other
results: results
"""

REPORT = {
    "images": 40,
    "sendable": 40,
    "bytes": 4000,
    "megapixels": 800.0,
    "credits": 8.0,
    "findings": [
        {"check": "duplicates", "level": "warn", "count": 2, "text": "2 images are there twice.", "hold": None}
    ],
    "skipped": [],
    "not_images": ["flight.log"],
}


class Site:
    """One installation in a directory of its own; `config` is its configuration file."""

    def __init__(self, directory):
        self.directory = directory
        self.config = directory / "pix4d-watcher.yaml"
        self.journal_path = directory / "state" / "journal.db"
        self.config.write_text(CONFIG)
        secret = directory / "secret"
        secret.write_text("demo-secret\n")
        secret.chmod(0o600)
        for name in ("drop", "other"):
            (directory / name).mkdir()
        self._journal = None
        self._inode = 0

    @property
    def journal(self):
        """The open journal; made when it is first asked for."""
        if self._journal is None:
            self._journal = database.open_journal(self.journal_path)
            self.see("survey")
        return self._journal

    def see(self, root, *, loose=0, watching="inotify"):
        """Record a scan of a drop directory."""
        path = bytes(self.directory / ("drop" if root == "survey" else "other"))
        folders.root_seen(self.journal, root, path, device=1, inode=2, loose=loose, watching=watching)

    def found(self, name, *, images=0, root="survey", members=(), **more):
        """Record a folder that was just seen and return the id of its project."""
        self._inode += 1
        new = folders.NewFolder(name if isinstance(name, bytes) else name.encode(), 1, self._inode, images, members)
        return folders.folders_found(self.journal, root, [new], **more)[0]

    def settled(self, name, *, images=40, frozen=None, hold=None, root="survey"):
        """Record a folder that is frozen and checked, perhaps held."""
        project = self.found(name, root=root)
        frozen = frozen or [
            FrozenImage(
                b"DCIM/DJI_%04d.JPG" % index,
                FileId(100, 1, 1, index),
                hashlib.sha256(b"%d" % index).digest(),
            )
            for index in range(1, images + 1)
        ]
        folders.frozen(self.journal, project, frozen, fingerprint=b"fingerprint", others=[b"flight.log"])
        keys = {image.path: printable(image.path).replace("/", "_") for image in frozen}
        projects.checked(self.journal, project, REPORT, skipped={}, keys=keys, hold=hold)
        return project

    def split(self, name, starts=(11, 21)):
        """Record a folder of 30 images that became several projects, beginning at these images; gives their ids."""
        project = self.settled(name, images=30)
        images = views.images_of(self.journal, project)
        paths = [images[start - 1].path for start in starts]
        keys = {image.path: image.key for image in images}
        return [
            project,
            *splits.split(self.journal, project, starts=paths, skipped={}, keys=keys, fingerprint=b"fingerprint"),
        ]

    def created(self, name, *, remote_id=883349, uploaded=0, **more):
        """Record a folder that has a project in the cloud and some of its images."""
        project = self.settled(name, **more)
        effect = effects.intent(self.journal, project, EffectKind.CREATE, State.SETTLED, request={})
        facts = {"name": f"{name} [marker]", "bucket": "bucket", "prefix": "prefix", "page": "http://cloud/1"}
        effects.created(self.journal, effect, Learnt.REPLY, remote_id=remote_id, **facts)
        for image in views.images_of(self.journal, project)[:uploaded]:
            uploads.uploaded(self.journal, image, "etag")
        return project

    def registered(self, name, *, images=40, **more):
        """Record a folder whose images are all in the cloud and registered."""
        project = self.created(name, images=images, uploaded=images, **more)
        projects.advance(self.journal, project, State.CREATED, State.UPLOADED, "all images are uploaded")
        effect = effects.intent_of_batch(self.journal, project, request={}, most=None)
        effects.registered(self.journal, effect, Learnt.REPLY, {"nb_images_registered": images})
        projects.advance(self.journal, project, State.UPLOADED, State.REGISTERED, "registered")
        return project

    def started(self, name, **more):
        """Record a folder that processes in the cloud."""
        project = self.registered(name, **more)
        effects.started(
            self.journal,
            effects.intent(self.journal, project, EffectKind.START, State.REGISTERED, request={}),
            Learnt.REPLY,
        )
        return project

    def delivered(self, name, **more):
        """Record a folder that is done, with one result."""
        project = self.started(name, **more)
        projects.advance(self.journal, project, State.STARTED, State.PROCESSED, "processing is done")
        offered = results.Offered("7", "ortho_rgb", "ortho.tif", "bucket", "results/ortho.tif", None)
        results.offered(self.journal, project, [offered])
        results.fetched(self.journal, views.outputs_of(self.journal, project)[0])
        projects.advance(self.journal, project, State.PROCESSED, State.DELIVERED, "done")
        return project

    def vitals(self, **more):
        """Have the service say of itself what it says every few seconds."""
        facts = {"pid": 1, "at": time.time(), "started_at": time.time() - 575, "pause": None, "throughput": 0.0}
        service.put(self.journal, service.VITALS, {**facts, "in_flight": {}, "skew": 0.0, **more})

    def close(self):
        """Give the journal back, as between two commands."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


@pytest.fixture
def site(tmp_path):
    """An installation whose service is down."""
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def cli(run_cli, site):
    """Run a command with the site's configuration."""

    def run(command, *arguments, **more):
        site.close()
        return run_cli(command, "--config", site.config, *arguments, **more)

    run.start = lambda command, **more: run_cli.start(command, "--config", site.config, **more)
    return run
