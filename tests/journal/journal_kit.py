"""Projects brought to any state by the verbs alone, as the engine brings them, and dumps of the whole journal."""

import hashlib
import itertools
import os
import sys
from pathlib import Path

from sqlalchemy import func, select

from pix4d_watcher.core.model import EffectKind, FileId, FrozenImage, HoldCode, ImageFacts, ImageStatus, Learnt, State
from pix4d_watcher.journal import effects, folders, projects, results, tables, uploads, views
from pix4d_watcher.journal.database import open_journal

HOUR = 3600.0


FACTS = ImageFacts("jpeg", 5472, 3648, 47.1, 8.2)


def frozen_image(name="100MEDIA/DJI_0001.JPG", *, size=8_000_000, content="", facts=FACTS, **file_id):
    """Make an image as the scanner freezes it; `content` tells versions of one file apart."""
    path = name if isinstance(name, bytes) else name.encode()
    numbers = {"size": size, "mtime_ns": 1_714_557_600_000_000_000, "ctime_ns": 1_714_557_600_000_000_001, "inode": 42}
    digest = hashlib.sha256(path + content.encode()).digest()
    return FrozenImage(path, FileId(**{**numbers, **file_id}), digest, b"", facts)


def images(count):
    """Make the images of a small flight."""
    return [frozen_image(f"100MEDIA/DJI_{number:04}.JPG") for number in range(1, count + 1)]


def found(journal, name=b"flight", *, root="survey", inode=11, count=3, **first_scan):
    """Let the scanner find one folder; gives the project's id."""
    folder = folders.NewFolder(name, 7, inode, count)
    (number,) = folders.folders_found(journal, root, [folder], **first_scan)
    return number


def frozen(journal, number, count=3):
    """Freeze the manifest of a folder."""
    folders.frozen(journal, number, images(count), fingerprint=b"as it was", others=[b"notes.txt"])


def checked(journal, number, **more):
    """Write checks that found nothing wrong."""
    keys = {image.path: image.path.decode() for image in views.images_of(journal, number)}
    projects.checked(journal, number, {"credits": 0.6}, skipped={}, keys=keys, **{"hold": None, **more})


def intend(journal, number, kind=EffectKind.CREATE, state=State.SETTLED):
    """Write the intent of a creation, or of a start."""
    return effects.intent(journal, number, kind, state, request={"marker": "m"})


def created(journal, number, effect, remote_id=None):
    """Close a creation."""
    facts = {"name": "flight [m]", "bucket": "bucket", "prefix": "p/7", "page": "https://cloud.pix4d.com/7"}
    effects.created(journal, effect, Learnt.REPLY, remote_id=remote_id or 900 + number, **facts)


def upload_all(journal, number):
    """Send every pending image."""
    for image in views.images_of(journal, number):
        if image.status is ImageStatus.PENDING:
            uploads.begun(journal, image)
            uploads.uploaded(journal, image, "etag")


def batch(journal, number):
    """Write the intent to register what is uploaded."""
    return effects.intent_of_batch(journal, number, request={"count_before": 0}, most=None)


def start_intent(journal, number):
    """Write the intent of the start."""
    return intend(journal, number, EffectKind.START, State.REGISTERED)


def _to_created(journal, number):
    checked(journal, number)
    created(journal, number, intend(journal, number))


def _to_uploaded(journal, number):
    upload_all(journal, number)
    projects.advance(journal, number, State.CREATED, State.UPLOADED, "uploaded")


def _to_registered(journal, number):
    effects.registered(journal, batch(journal, number), Learnt.REPLY, {"taken": 3})
    projects.advance(journal, number, State.UPLOADED, State.REGISTERED, "registered")


STEPS = {
    State.SETTLED: frozen,
    State.CREATED: _to_created,
    State.UPLOADED: _to_uploaded,
    State.REGISTERED: _to_registered,
    State.STARTED: lambda journal, number: effects.started(journal, start_intent(journal, number), Learnt.REPLY),
    State.PROCESSED: lambda journal, number: projects.advance(
        journal, number, State.STARTED, State.PROCESSED, "processed"
    ),
    State.DELIVERED: lambda journal, number: projects.advance(
        journal, number, State.PROCESSED, State.DELIVERED, "delivered"
    ),
}


def go(journal, number, state, *, told=lambda state: None):
    """Take a found project step by step to `state`; `told` hears of each state that is reached."""
    for reached, step in STEPS.items():
        if list(State).index(reached) > list(State).index(state):
            return
        step(journal, number)
        told(reached)


def reach(journal, state, name=b"flight", **folder):
    """Make a project that is in `state`; gives its id."""
    number = found(journal, name, **folder)
    go(journal, number, state)
    return number


def in_doubt(journal, kind):
    """Make a project whose call of that kind was never answered, held for a person; gives its id and the effect."""
    before = {EffectKind.CREATE: State.SETTLED, EffectKind.REGISTER: State.UPLOADED, EffectKind.START: State.REGISTERED}
    number = reach(journal, before[kind])
    if kind is EffectKind.CREATE:
        checked(journal, number)
        effect = intend(journal, number)
    else:
        effect = batch(journal, number) if kind is EffectKind.REGISTER else start_intent(journal, number)
    projects.hold(journal, number, HoldCode.IN_DOUBT, f"{kind}: no answer")
    return number, effect


def offer(journal, number):
    """Let the cloud offer one result."""
    results.offered(journal, number, [results.Offered("1", "ortho", "ortho.tif", "bucket", "out/ortho.tif", None)])


def dump(journal):
    """Read every row of every table."""
    with journal.read() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in tables.metadata.sorted_tables
        }


def events(journal):
    """Count the event rows."""
    with journal.read() as connection:
        return connection.execute(select(func.count()).select_from(tables.events)).scalar()


def image_of(journal, number, index=0):
    """Read one image of a project as the journal has it now."""
    return views.images_of(journal, number)[index]


def statuses(journal, number):
    """List the statuses of a project's images in the order of their paths."""
    return [str(image.status) for image in views.images_of(journal, number)]


def live(path):
    """Lead project after project to its end, and print each fact once its verb came back."""
    journal = open_journal(path)
    for flight in itertools.count():
        number = found(journal, b"%d of %d" % (flight, os.getpid()))

        def told(state, number=number):
            os.write(1, f"{number} {state}\n".encode())

        told(State.FOUND)
        go(journal, number, State.DELIVERED, told=told)


def nursery(path):
    """Begin a life in a process of its own for each line of input, and say when it was born and when it was dead."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            live(Path(path))
        os.write(1, f"{child} born\n".encode())
        os.waitpid(child, 0)
        os.write(1, f"{child} dead\n".encode())
