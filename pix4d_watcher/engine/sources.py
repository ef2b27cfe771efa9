"""The files behind the images: opened, and compared with what was frozen before and after each upload."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import MediaAbsent, SourceChanged, SourceError, SourceMissing
from pix4d_watcher.core.model import Condition, HoldCode, ImageStatus, State, printable
from pix4d_watcher.host import mounts
from pix4d_watcher.intake.files import file_id, open_file, source_errors
from pix4d_watcher.intake.freeze import freeze_image, same_content
from pix4d_watcher.intake.keys import give_keys
from pix4d_watcher.journal import projects, uploads, views
from pix4d_watcher.journal.change import Stale
from pix4d_watcher.journal.missions import members_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from pix4d_watcher.cloud.wire import FileRange
    from pix4d_watcher.core.model import FileId
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Image, Project

MISSING = "missing"
"""The wait for an image that is not where it was; it ends where the image is opened."""

LOOK_AGAIN = 30.0
"""Seconds between two looks at files that could not be read."""


def base(root: bytes, project: Project) -> bytes:
    """Return where the paths of a project's images begin: its folder, or the drop directory where folders are joined.

    A drop directory that is a symlink is resolved then: below where the paths begin no link is ever followed.
    """
    return os.path.realpath(root) if project.members is not None else root + b"/" + project.folder


def places(root: bytes, project: Project) -> list[bytes]:
    """List the directories of a project in a drop directory: its folder, or all folders that it joins."""
    return [root + b"/" + name for name in members_of(project) or (project.folder,)]


def base_path(context: Context, project: Project) -> bytes:
    """Return where the paths of a project's images begin: its folder, or the drop directory where folders are joined.

    Raises SourceMissing when its drop directory is not configured any more.
    """
    return base(_root_path(context, project), project)


def _root_path(context: Context, project: Project) -> bytes:
    root = context.root(project)
    if root is None:
        raise SourceMissing(f"{project.title}: its drop directory is not in the configuration any more")
    return os.fsencode(root.path)


def is_media_absent(context: Context, project: Project) -> bool:
    """Say whether the medium that the project's folder lies on is away, and not just a file.

    Another one may stand in its place: another card, or the empty directory that its own disk was mounted on.
    """
    known, root = views.root(context.journal, project.root), context.root(project)
    if known is None or root is None or not known.present:
        return True
    try:
        with context.media.at(project.root, project.id):
            return _is_another_there(os.fsencode(root.path), project)
    except MediaAbsent:
        return True


def _is_another_there(path: bytes, project: Project) -> bool:
    for place, links in *((place, os.O_NOFOLLOW) for place in places(path, project)), (path, 0):
        try:
            here = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | links)
        except OSError:
            continue
        try:
            return mounts.medium(here) != project.device
        except OSError:
            continue
        finally:
            os.close(here)
    return True


def what_is_away(context: Context, project: Project) -> str:
    """Say what is away where the medium is: the drop directory, or with another one in its place, the folder's own."""
    known = views.root(context.journal, project.root)
    if known is None or not known.present:
        return f"the drop directory {project.root} is away"
    return f"the card or disk that {project.title} lies on is away, although the drop directory is there"


def tell_away(context: Context, found: Iterable[Project], there: Container[int]) -> None:
    """Hold what was not complete yet and lies on another medium than is here now; lift that when it is back."""
    code = HoldCode.MEDIA_ABSENT
    for project in found:
        if project.state is not State.FOUND:
            continue
        if project.id in there and project.hold_code is code:
            projects.lifted(context.journal, project.id, code, "the folder is there again")
        elif project.id not in there and project.condition is Condition.ACTIVE:
            projects.hold(context.journal, project.id, code, what_is_away(context, project))


@contextmanager
def opened(context: Context, project: Project, image: Image) -> Iterator[tuple[int, Image]]:
    """Open an image whose content is what was frozen; gives the descriptor and the image as the journal has it now.

    Raises SourceMissing, SourceUnreadable, MediaAbsent, and SourceChanged when the content is another one.
    """
    with context.media.at(project.root, project.id):
        handle, image = _open(context, base_path(context, project), image)
    context.waits.end(MISSING, image.id)
    try:
        yield handle, image
    finally:
        # On some media this asks, too, and it must be done: else each try would leave a descriptor behind.
        with context.media.at(project.root, project.id, anyway=True):
            os.close(handle)


def still_same(context: Context, project: Project, handle: int, image: Image) -> None:
    """Compare the open file with the record once more after an upload; raises SourceChanged, MediaAbsent."""
    with context.media.at(project.root, project.id):
        with source_errors(image.path):
            now = file_id(os.fstat(handle))
        if now != image.frozen.file_id:
            _refresh(context, base_path(context, project), image)


def troubles(context: Context, project: Project) -> dict[int, str]:
    """Look at every image that is still to be sent, and map the ids of those that are gone or changed to what is wrong.

    Only what another stat shows is read. Raises MediaAbsent.
    """
    found: dict[int, str] = {}
    with context.media.at(project.root, project.id):
        folder = base_path(context, project)
        for image in views.images_of(context.journal, project.id):
            if image.status is not ImageStatus.PENDING:
                continue
            context.media.check()
            try:
                if _identity(folder, image) != image.frozen.file_id:
                    _refresh(context, folder, image)
            except MediaAbsent:
                raise
            except SourceError as error:
                found[image.id] = str(error)
            except Stale:
                continue  # sent or taken out meanwhile
    return found


def _identity(folder: bytes, image: Image) -> FileId:
    with source_errors(folder + b"/" + image.path):
        handle = open_file(folder, image.path)
        try:
            return file_id(os.fstat(handle))
        finally:
            os.close(handle)


def read_again(context: Context, project: Project, image: Image) -> None:
    """Read an image of which something else arrived than was frozen; raises SourceError where the file is to blame.

    Its size and times tell nothing then: they can be set back, and FAT and shares keep no others.
    """
    above = context.settings.upload.multipart_threshold
    with context.media.at(project.root, project.id):
        found = freeze_image(base_path(context, project), image.path, blocks_above=above)
    if found.sha256 != image.sha256:
        raise SourceChanged(
            f"{printable(image.path)} is not what was checked, and was refused: it was rewritten after the folder was "
            "complete, whatever its times say, or its medium does not read the same twice"
        )


def body(context: Context, project: Project, handle: int, offset: int, size: int) -> FileRange:
    """Return bytes of an open image as a body: `size` of them from `offset` on."""
    from pix4d_watcher.cloud.wire import FileRange  # noqa: PLC0415  (the idle service needs no data plane)

    return FileRange(handle, offset, size, lambda: context.media.at(project.root, project.id))


def content_type(path: bytes) -> str:
    """Return the media type of an image by its suffix."""
    return "image/tiff" if path.lower().endswith((b".tif", b".tiff")) else "image/jpeg"


def _open(context: Context, folder: bytes, image: Image) -> tuple[int, Image]:
    for _try in range(3):
        with source_errors(folder + b"/" + image.path):
            handle = open_file(folder, image.path)
        try:
            # A person who asks for another look means the content: size and times may be the same.
            if file_id(os.fstat(handle)) == image.frozen.file_id and not image.look_again:
                return handle, image
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
        # Another part of the same image may have brought the record up to date already.
        known = views.image(context.journal, image.id)
        image = known if known.frozen.file_id != image.frozen.file_id else _refresh(context, folder, image)
    raise SourceChanged(f"{printable(image.path)} changes while it is sent; is something still writing it?")


def _refresh(context: Context, folder: bytes, image: Image) -> Image:
    """Bring the record of a file with another identity up to date; raises SourceChanged when its content differs."""
    above = context.settings.upload.multipart_threshold
    if image.look_again:
        _look_again(context, folder, image, above)
    elif (found := same_content(folder, image.frozen, blocks_above=above)) is not None:
        uploads.same_content(context.journal, image, found.file_id)
    else:
        raise SourceChanged(
            f"{printable(image.path)} is not what was checked: it was rewritten after the folder was complete"
        )
    return views.image(context.journal, image.id)


def _look_again(context: Context, folder: bytes, image: Image, above: int) -> None:
    """Accept what lies there now, for a person asked for that."""
    frozen = freeze_image(folder, image.path, blocks_above=above)
    if frozen.sha256 == image.sha256:
        uploads.same_content(context.journal, image, frozen.file_id)
        return
    if frozen.facts.problem:
        raise SourceChanged(f"{printable(image.path)} is now damaged ({frozen.facts.problem}): {frozen.facts.detail}")
    assert image.key is not None
    key = image.key
    if image.begun:
        # The old PUT may still land: the new content gets a key of its own.
        taken = [other.key for other in views.images_of(context.journal, image.project_id) if other.key]
        key = give_keys([image.path], taken=taken)[image.path]
    uploads.frozen_anew(context.journal, image, frozen, key)
