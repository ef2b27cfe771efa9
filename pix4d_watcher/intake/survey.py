"""Looks at the images of a folder without reading them through, for an estimate before anything is dropped.

Only what shares its size with another file is hashed: files of different sizes are no duplicates.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from pix4d_watcher.core.model import FrozenImage
from pix4d_watcher.intake.exif import read_facts
from pix4d_watcher.intake.files import open_file, source_errors
from pix4d_watcher.intake.freeze import freeze_image

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from pix4d_watcher.core.model import ImageFacts
    from pix4d_watcher.intake.scan import SeenFile

_NO_BLOCKS = 1 << 62


def survey(folder: bytes, files: Sequence[SeenFile], *, hashed: Container[int] = ()) -> list[FrozenImage]:
    """Return what the image checks need of each file.

    `sha256` is the real one only where two files share a size, or have one of the sizes `hashed`.

    Raises SourceMissing, SourceUnreadable, or SourceChanged where a file is being written.
    """
    sizes = Counter(file.file_id.size for file in files)
    return [
        freeze_image(folder, file.path, blocks_above=_NO_BLOCKS)
        if sizes[file.file_id.size] > 1 or file.file_id.size in hashed
        else FrozenImage(file.path, file.file_id, b"size %d" % file.file_id.size, b"", _facts(folder, file))
        for file in files
    ]


def _facts(folder: bytes, file: SeenFile) -> ImageFacts:
    with source_errors(folder + b"/" + file.path):
        descriptor = open_file(folder, file.path)
        try:
            size = os.fstat(descriptor).st_size
            return read_facts(file.path, size, lambda offset, count: _pread(descriptor, offset, count))
        finally:
            os.close(descriptor)


def _pread(descriptor: int, offset: int, count: int) -> bytes:
    # A hostile file may state offsets that no file can have, and the system call refuses them as our mistake.
    return os.pread(descriptor, count, offset) if offset < 1 << 62 else b""
