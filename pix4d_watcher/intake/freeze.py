"""Freezes an image: one read that gives its hash, its block hashes and its facts, and proves that it stood still.

Owns reading the contents of dropped files; must not decide what a difference means for the project. Never maps a
file: a pulled card would kill the process with SIGBUS.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import SourceChanged
from pix4d_watcher.core.model import FrozenImage, printable
from pix4d_watcher.intake.exif import read_facts
from pix4d_watcher.intake.files import file_id, identify, open_file, source_errors

if TYPE_CHECKING:
    from pix4d_watcher.intake.tiff import Read

__all__ = ["BLOCK", "freeze_image", "identify", "same_content"]

BLOCK = 8 << 20
"""Length (bytes) of the blocks of a large file that have a hash of their own; a part of its upload is one block."""

# Page-aligned and 1 MiB: an unaligned buffer costs four times as much in the read (performance.md, 0.2).
_BUFFER = 1 << 20

# Headers, EXIF and previews of drone images fit into this much (bytes); the rest is asked of the file again.
_HEAD = 256 << 10

_local = threading.local()


def freeze_image(folder: bytes, path: bytes, *, blocks_above: int) -> FrozenImage:
    """Read the image `path` (relative to `folder`, absolute) once; files above `blocks_above` bytes get block hashes.

    Raises SourceMissing, SourceUnreadable, or SourceChanged where the file changed while it was read.
    """
    shown = folder + b"/" + path
    with source_errors(shown):
        descriptor = open_file(folder, path)
        try:
            before = file_id(os.fstat(descriptor))
            sha256, blocks, head = _digest(descriptor, with_blocks=before.size > blocks_above)
            facts = read_facts(path, before.size, _reader(descriptor, head))
            after = file_id(os.fstat(descriptor))
        finally:
            os.close(descriptor)
    if before != after:
        raise SourceChanged(
            f"{printable(shown)}: it changed while it was read, so somebody still writes it. "
            "It is read again when it has been quiet; if that never happens, end the program that writes it."
        )
    return FrozenImage(path, before, sha256, blocks, facts)


def same_content(folder: bytes, frozen: FrozenImage, *, blocks_above: int) -> FrozenImage | None:
    """Return the record of an image as it is now, or None if its content is not what was frozen.

    The file is read only where its stat differs: chmod, Samba attributes and remounts change that, and not the content.
    Raises what `freeze_image` raises.
    """
    with source_errors(folder + b"/" + frozen.path):
        descriptor = open_file(folder, frozen.path)
        try:
            now = file_id(os.fstat(descriptor))
        finally:
            os.close(descriptor)
    if now == frozen.file_id:
        return frozen
    if now.size != frozen.file_id.size:
        return None
    again = freeze_image(folder, frozen.path, blocks_above=blocks_above)
    return replace(again, blocks=again.blocks or frozen.blocks) if again.sha256 == frozen.sha256 else None


def _digest(descriptor: int, *, with_blocks: bool) -> tuple[bytes, bytes, bytes]:
    """Read the file to its end; return its SHA-256, the joined SHA-256 of its blocks, and its first bytes."""
    buffer = _buffer()
    whole, block, blocks, head = hashlib.sha256(), hashlib.sha256(), bytearray(), b""
    offset = 0
    while count := os.preadv(descriptor, [buffer], offset):
        piece = buffer[:count]
        if offset < _HEAD:
            head += bytes(piece[: _HEAD - offset])
        whole.update(piece)
        if with_blocks:
            room = BLOCK - offset % BLOCK
            block.update(piece[:room])
            if count >= room:
                blocks += block.digest()
                block = hashlib.sha256(piece[room:])
        offset += count
    if with_blocks and offset % BLOCK:
        blocks += block.digest()
    return whole.digest(), bytes(blocks), head


def _reader(descriptor: int, head: bytes) -> Read:
    """Serve reads from the first bytes that are kept; ask the file only for what lies behind them."""

    def read(offset: int, count: int) -> bytes:
        if offset + count <= len(head):
            return head[offset : offset + count]
        return _pread(descriptor, offset, count)

    return read


def _pread(descriptor: int, offset: int, count: int) -> bytes:
    # A hostile file may state offsets that no file can have, and the system call refuses them as our mistake.
    return os.pread(descriptor, count, offset) if offset < 1 << 62 else b""


def _buffer() -> memoryview:
    view: memoryview | None = getattr(_local, "view", None)
    if view is None:
        view = _local.view = memoryview(mmap.mmap(-1, _BUFFER))
    return view
