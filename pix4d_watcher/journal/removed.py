"""Which images a person took out of a project: the mark, and how it survives another check and another look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from pix4d_watcher.journal import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from pix4d_watcher.core.model import FrozenImage
    from pix4d_watcher.journal.database import Journal

REMOVED = "removed by a person"
"""The reason of such an image, and by that its mark."""


def removed(journal: Journal, project_id: int) -> set[bytes]:
    """List the paths of the images that a person took out of a project."""
    with journal.read() as connection:
        return set(removed_in(connection, project_id))


def removed_in(connection: Connection, project_id: int) -> dict[bytes, bytes]:
    """Map their paths to their SHA-256 inside the transaction of another verb."""
    images = tables.images
    query = select(images.c.path, images.c.sha256).where(images.c.project_id == project_id, images.c.reason == REMOVED)
    return {row.path: row.sha256 for row in connection.execute(query)}


def still_removed(connection: Connection, project_id: int, images: Sequence[FrozenImage]) -> dict[bytes, str]:
    """Map those of the images, frozen anew, that a person took out to the reason; new content is a new image."""
    contents = removed_in(connection, project_id)
    return {image.path: REMOVED for image in images if contents.get(image.path) == image.sha256}
