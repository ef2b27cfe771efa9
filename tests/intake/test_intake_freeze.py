"""Freezing an image: hash, blocks, facts, and the proof that it stood still."""

import hashlib
import os
import threading

import pytest
from intake_kit import as_nobody, facts, jpeg, let_a_tick_pass, open_place, put

from pix4d_watcher.core.errors import SourceChanged, SourceMissing, SourceUnreadable
from pix4d_watcher.intake.freeze import BLOCK, freeze_image, identify, same_content

NEVER = 1 << 60


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 20) + 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 12345])
def test_hashes_are_those_of_the_content(tmp_path, length):
    """Whole hash and block hashes are the plain SHA-256 of the bytes, at every boundary of buffer and block."""
    content = os.urandom(1 << 16) * (length // (1 << 16) + 1)
    content = content[:length]
    put(tmp_path, b"M\xe9/a.jpg", content)
    image = freeze_image(os.fsencode(tmp_path), b"M\xe9/a.jpg", blocks_above=-1)
    assert image.sha256 == hashlib.sha256(content).digest()
    pieces = [content[at : at + BLOCK] for at in range(0, length, BLOCK)]
    assert image.blocks == b"".join(hashlib.sha256(piece).digest() for piece in pieces)
    assert image.file_id == identify(os.fsencode(tmp_path) + b"/M\xe9/a.jpg")
    assert freeze_image(os.fsencode(tmp_path), b"M\xe9/a.jpg", blocks_above=length).blocks == b""


def test_facts_come_from_the_same_read(tmp_path):
    """The facts are those of the image, also where its headers are longer than what is kept in memory."""
    small = jpeg(46.5, 6.5)
    thermal = b"\xff\xe3\xff\xff" + bytes(65533)
    large = small[:2] + thermal * 12 + small[2:]
    for name, content in ((b"a.jpg", small), (b"R.JPG", large)):
        put(tmp_path, name, content)
        image = freeze_image(os.fsencode(tmp_path), name, blocks_above=NEVER)
        assert image.facts == facts(content)
        assert (image.facts.problem, round(image.facts.latitude, 6)) == ("", 46.5)


def test_threads_have_buffers_of_their_own(tmp_path):
    """Images frozen at the same time do not mix."""
    for number in range(8):
        put(tmp_path, f"{number}.jpg", bytes([number]) * (3 << 20))
    results = {}

    def freeze(number):
        results[number] = freeze_image(os.fsencode(tmp_path), b"%d.jpg" % number, blocks_above=NEVER).sha256

    threads = [threading.Thread(target=freeze, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: hashlib.sha256(bytes([number]) * (3 << 20)).digest() for number in range(8)}


def test_image_that_changes_while_it_is_read(tmp_path, monkeypatch):
    """A file that somebody writes is never frozen: its stats before and after differ."""
    path = put(tmp_path, "a.jpg", bytes(3 << 20))
    read = os.preadv

    def write_meanwhile(*arguments):
        count = read(*arguments)
        let_a_tick_pass(path)
        with path.open("r+b") as file:
            file.write(b"x")
        return count

    # Between two reads, since a thread that writes all the time may get no turn for as long as the reading takes.
    monkeypatch.setattr(os, "preadv", write_meanwhile)
    with pytest.raises(SourceChanged, match="changed while it was read"):
        freeze_image(os.fsencode(tmp_path), b"a.jpg", blocks_above=NEVER)


def test_missing_images(tmp_path):
    """Gone files, vanished directories and what took their place are SourceMissing; a FIFO does not hang us."""
    os.mkfifo(tmp_path / "pipe.jpg")
    put(tmp_path, "real.jpg")
    (tmp_path / "link.jpg").symlink_to("real.jpg")
    (tmp_path / "linked").symlink_to(tmp_path)
    for name in (b"no.jpg", b"no/no.jpg", b"real.jpg/x.jpg", b"pipe.jpg", b"link.jpg", b"linked/real.jpg"):
        with pytest.raises(SourceMissing):
            freeze_image(os.fsencode(tmp_path), name, blocks_above=NEVER)


def test_error_of_the_medium():
    """EIO, here from the memory of our own process at address 0, is SourceUnreadable."""
    with pytest.raises(SourceUnreadable, match="cannot be read"):
        freeze_image(b"/proc/%d" % os.getpid(), b"mem", blocks_above=NEVER)


def test_image_without_permission():
    """A file that we may not read is SourceUnreadable and says that it is a matter of permission."""
    with open_place() as place:
        put(place, "a.jpg").chmod(0)
        with as_nobody(), pytest.raises(SourceUnreadable, match="no permission"):
            freeze_image(os.fsencode(place), b"a.jpg", blocks_above=NEVER)


def test_image_of_another_user_is_read():
    """Files of others can be frozen, although O_NOATIME is for the owner only."""
    with open_place() as place:
        put(place, "a.jpg", b"abc").chmod(0o644)
        with as_nobody():
            image = freeze_image(os.fsencode(place), b"a.jpg", blocks_above=NEVER)
    assert image.sha256 == hashlib.sha256(b"abc").digest()


def test_same_content_in_another_version(tmp_path):
    """chmod, new times and a copy in a new inode update the record; the hash proves that it is the same image."""
    folder, path = os.fsencode(tmp_path), put(tmp_path, "a.jpg", b"content")
    image = freeze_image(folder, b"a.jpg", blocks_above=NEVER)
    assert same_content(folder, image, blocks_above=NEVER) is image
    for change in (
        lambda: path.chmod(0o600),
        lambda: os.utime(path, ns=(7, 7)),
        lambda: (path.rename(tmp_path / "old"), put(tmp_path, "a.jpg", b"content")),
    ):
        let_a_tick_pass(path)
        change()
        again = same_content(folder, image, blocks_above=NEVER)
        assert again.sha256 == image.sha256
        assert again.file_id == identify(os.fsencode(path)) != image.file_id


def test_other_content_is_not_the_same(tmp_path):
    """Other bytes are None, with an equal size too; a missing image is SourceMissing."""
    folder, path = os.fsencode(tmp_path), put(tmp_path, "a.jpg", b"content")
    image = freeze_image(folder, b"a.jpg", blocks_above=NEVER)
    for other in (b"CONTENT", b"longer content"):
        let_a_tick_pass(path)
        put(tmp_path, "a.jpg", other)
        assert same_content(folder, image, blocks_above=NEVER) is None
    path.unlink()
    with pytest.raises(SourceMissing):
        same_content(folder, image, blocks_above=NEVER)


def test_reading_changes_nothing(tmp_path):
    """Access time, modification time and content stay as they are."""
    path = put(tmp_path, "a.jpg", b"content")
    os.utime(path, ns=(5, 7))
    freeze_image(os.fsencode(tmp_path), b"a.jpg", blocks_above=NEVER)
    facts_after = path.stat()
    assert (facts_after.st_atime_ns, facts_after.st_mtime_ns) == (5, 7)
