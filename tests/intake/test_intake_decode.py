"""Decoding: which images, what damage it shows, and that no file can harm it."""

import io
import os
import random
import struct
import subprocess
import sys
import zlib

import pytest
from intake_kit import exif_block, flight, frozen, jpeg, plain_tiff, put, tiff
from PIL import Image

from pix4d_watcher.core.errors import SourceChanged, SourceMissing
from pix4d_watcher.emulator import flights
from pix4d_watcher.intake.decode import SAMPLE_EVERY, chosen, decode
from pix4d_watcher.intake.freeze import freeze_image

GOOD = flights.make_image(0, size=(1200, 900))
MIDDLE = len(GOOD) // 2


def look(folder, content, name="a.jpg"):
    """Freeze an image and decode it; the facts."""
    put(folder, name, content)
    path, place = os.fsencode(name), os.fsencode(folder)
    return decode(place, freeze_image(place, path, blocks_above=1 << 40))


def paths(images):
    return [image.path for image in images]


def flat(**options):
    out = io.BytesIO()
    Image.new("RGB", (640, 480), (200, 30, 60)).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize("count", [1, 4, 6, 9, 10, 37, 250, 1000, 4000])
def test_a_sample_is_small_and_dense_enough(count):
    """At least five (or all), at least one in fifty, never far more, always the last one, and always the same."""
    images = flight(count)
    sample = chosen(images, "sample")
    assert len(sample) >= min(count, 5)
    assert len(sample) <= max(9, -(-count // SAMPLE_EVERY))
    assert sample[-1] is images[-1]
    places = [images.index(image) for image in sample]
    assert max((b - a for a, b in zip([-1, *places], places, strict=False)), default=0) <= SAMPLE_EVERY
    assert paths(chosen(flight(count), "sample")) == paths(sample)


def test_off_is_none_and_all_is_all():
    """The two other settings mean what they say."""
    images = flight(120)
    assert chosen(images, "off") == []
    assert chosen(images, "all") == images
    assert chosen([], "sample") == []


def test_what_differs_from_nearly_all_is_in_the_sample():
    """An image without a size among others is decoded; where many are like that, they are not odd."""
    odd = frozen(b"DJI_0003x.JPG", latitude=1, longitude=1, pixels=(0, 0))
    images = sorted([*flight(100), odd], key=lambda image: image.path)
    assert odd in chosen(images, "sample")
    many = [frozen(b"x%03d.JPG" % n, pixels=(0, 0)) for n in range(100)]
    assert len(chosen(sorted([*flight(100), *many], key=lambda image: image.path), "sample")) <= 9


def test_what_is_known_is_not_decoded_again(tmp_path):
    """Damaged, decoded and undecodable images drop out, and the rest of the sample stays the same."""
    images = [freeze(tmp_path, n) for n in range(12)]
    first, second, *rest = chosen(images, "sample")
    done = {first.path: decode(os.fsencode(tmp_path), first)}
    images = [replaced(image, done.get(image.path)) for image in images]
    assert paths(chosen(images, "sample")) == paths([second, *rest])
    damaged = [*flight(8), frozen(b"z.JPG", problem="zero_bytes")]
    assert b"z.JPG" not in paths(chosen(damaged, "all"))


def freeze(folder, number):
    name = b"DJI_%04d.JPG" % number
    put(folder, os.fsdecode(name), flights.make_image(number, size=(64, 48)))
    return freeze_image(os.fsencode(folder), name, blocks_above=1 << 40)


def replaced(image, facts):
    from dataclasses import replace

    return image if facts is None else replace(image, facts=facts)


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        flat(),
        flat(quality=5),
        flat(progressive=True),
        flat(subsampling=0, optimize=True),
        jpeg(colour=128),
        GOOD + bytes(5000),
        flights.make_image(0, size=(64, 48)) + GOOD,
        flights.make_thermal_image(0),
    ],
    ids=["photo", "flat", "coarse", "progressive", "fine", "grey", "padded", "appended", "thermal"],
)
def test_sound_images_are_decoded(tmp_path, content):
    """Flat, progressive, padded and thermal images are sound, and it is noted that they were decoded."""
    facts = look(tmp_path, content)
    assert (facts.problem, facts.detail, facts.decoded) == ("", "", True)


def test_a_whole_grey_image_is_sound(tmp_path):
    """A test card of the grey that stands for missing data is no damage."""
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (128, 128, 128)).save(out, "JPEG")
    assert look(tmp_path, out.getvalue()).decoded


def damaged():
    noise = random.Random(1)
    end = b"\xff\xd9"
    table = GOOD.index(b"\xff\xc4") + 5
    return {
        "zeroed block": GOOD[:MIDDLE] + bytes(4096) + GOOD[MIDDLE + 4096 :],
        "zeroed half": GOOD[:MIDDLE] + bytes(len(GOOD) - MIDDLE - 2) + end,
        "foreign block": GOOD[:MIDDLE] + noise.randbytes(4096) + GOOD[MIDDLE + 4096 :],
        "lost block": GOOD[:MIDDLE] + GOOD[MIDDLE + 65536 :],
        "ended early": GOOD[:MIDDLE] + end,
        "erased flash": GOOD[:MIDDLE] + b"\xff" * 4096 + GOOD[MIDDLE + 4096 :],
        "broken tables": GOOD[:table] + bytes(100) + GOOD[table + 100 :],
    }


@pytest.mark.parametrize("name", damaged())
def test_damage_in_the_middle_shows(tmp_path, name):
    """An image whose structure is sound from start to end marker, but not its data, is damaged and says how."""
    facts = look(tmp_path, damaged()[name])
    assert (facts.problem, facts.decoded) == ("truncated", False)
    assert facts.detail
    assert (facts.width, facts.latitude) == (1200, pytest.approx(46.5191))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (tiff(), ""),
        (tiff(compression="tiff_lzw"), ""),
        (tiff(compression="jpeg"), ""),
        (plain_tiff(">"), ""),
        (flights.make_band(0, "NIR"), ""),
        (tiff((400, 300), compression="tiff_lzw"), "truncated"),
        (tiff((400, 300), compression="packbits"), "truncated"),
    ],
    ids=["raw", "lzw", "jpeg", "hand-made", "band", "broken lzw", "broken packbits"],
)
def test_tiff_images(tmp_path, content, problem):
    """TIFFs of every sort are decoded, and broken compressed data shows."""
    if problem:
        middle = len(content) // 2
        content = content[:middle] + bytes(4096) + content[middle + 4096 :]
    facts = look(tmp_path, content, "a.tif")
    assert (facts.problem, facts.decoded) == (problem, not problem)


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_never_raises(tmp_path, seed):
    """Whatever is in a file, decoding it gives facts."""
    dice = random.Random(seed)
    small = (
        flights.make_image(0, size=(96, 64)),
        tiff(compression="tiff_lzw"),
        flights.make_band(0, "NIR", size=(32, 24)),
    )
    for _ in range(40):
        name, content = dice.choice(list(zip(("a.jpg", "a.tif", "b.tif"), small, strict=True)))
        spoilt = bytearray(content)
        for _ in range(dice.randrange(1, 30)):
            spoilt[dice.randrange(2, len(spoilt))] = dice.randrange(256)
        facts = look(tmp_path, bytes(spoilt), name)
        assert facts.problem or facts.decoded or facts.detail


def test_broken_exif_is_harmless(tmp_path):
    """An EXIF block of nonsense leaves a sound image sound."""
    block = exif_block().tobytes()
    content = jpeg(colour=None, size=(640, 480))
    facts = look(tmp_path, content.replace(block[20:], b"\xee" * len(block[20:])))
    assert (facts.problem, facts.decoded, facts.latitude) == ("", True, None)


def bomb(width, height):
    """Make a small JPEG that states that it is huge."""
    content = bytearray(flat())
    frame = content.index(b"\xff\xc0")
    struct.pack_into(">HH", content, frame + 5, height, width)
    return bytes(content)


def bomb_tiff(side):
    """Make a TIFF of nothing but compressed zeros, `side` pixels square."""
    rows = zlib.compress(bytes(side * side), 9)
    tags = ((256, side), (257, side), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, side), (279, len(rows)))
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + body + bytes(4)


def test_a_decompression_bomb_is_a_finding(tmp_path):
    """An image that states more pixels than any camera has is damaged, and is never opened."""
    facts = look(tmp_path, bomb(65000, 65000))
    assert facts.problem == "truncated"
    assert "65000 x 65000 pixels" in facts.detail


def test_no_image_takes_much_memory(tmp_path):
    """Bombs below the limit are decoded at a fraction or not at all: a process of 600 MiB in all can do it."""
    put(tmp_path, "a.jpg", bomb(19000, 19000))
    put(tmp_path, "b.tif", bomb_tiff(9000))
    script = (
        "import resource, sys, os; from pix4d_watcher.intake.decode import decode;"
        "from pix4d_watcher.intake.freeze import freeze_image;"
        "resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20));"
        "images = [freeze_image(sys.argv[1].encode(), name, blocks_above=1 << 40) for name in (b'a.jpg', b'b.tif')];"
        "[print(decode(sys.argv[1].encode(), image)) for image in images]"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    big, compressed = done.stdout.splitlines()
    assert "too much memory" in compressed
    assert "problem='truncated'" in big


def test_too_many_scans_are_a_finding(tmp_path):
    """A progressive JPEG made of thousands of scans is not left to keep a processor busy."""
    content = flat(progressive=True)
    scan = content.rindex(b"\xff\xda")
    last = content[scan:-2]
    facts = look(tmp_path, content[:scan] + last * 2000 + b"\xff\xd9")
    assert (facts.problem, facts.decoded) == ("truncated", False)
    assert "scans" in facts.detail


def test_the_file_must_be_the_frozen_one(tmp_path):
    """A file that is gone or was rewritten is the scan's concern, and no damage."""
    place = os.fsencode(tmp_path)
    put(tmp_path, "a.jpg", GOOD)
    image = freeze_image(place, b"a.jpg", blocks_above=1 << 40)
    put(tmp_path, "a.jpg", GOOD + b"x")
    with pytest.raises(SourceChanged):
        decode(place, image)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(SourceMissing):
        decode(place, image)
