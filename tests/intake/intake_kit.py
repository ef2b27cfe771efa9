"""Images, folders and processes that the tests of the intake are made of; nothing here comes from outside."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from pix4d_watcher.core.model import FileId, FrozenImage, ImageFacts
from pix4d_watcher.intake.exif import read_facts
from pix4d_watcher.intake.scan import Rules, scan_folder

# Holds a file open for writing, after it has given it its full size, until its input ends: Explorer and SMB do this.
_WRITER = """
import os, sys
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.truncate(handle, 100_000)
print("open", flush=True)
sys.stdin.read()
"""


def exif_block(latitude=46.5, longitude=6.5, *, time="2026:05:04 10:30:00"):
    """Make an EXIF block with Pillow; a latitude of None leaves the position out."""
    exif = Image.Exif()
    exif[271], exif[272] = "DJI", "FC6310R"
    exif.get_ifd(34665)[36867] = time
    if latitude is not None:
        refs = {1: "N" if latitude >= 0 else "S", 3: "E" if longitude >= 0 else "W"}
        exif.get_ifd(34853).update({**refs, 2: dms(abs(latitude)), 4: dms(abs(longitude))})
    return exif


def dms(degrees):
    """Split degrees into the three rationals of EXIF."""
    whole, rest = divmod(degrees, 1)
    minutes, rest = divmod(rest * 60, 1)
    return IFDRational(int(whole), 1), IFDRational(int(minutes), 1), IFDRational(round(rest * 600000), 10000)


def jpeg(latitude=46.5, longitude=6.5, *, size=(64, 48), colour=120, **options):
    """Make a sound JPEG; `colour` makes its content its own."""
    out = io.BytesIO()
    picture = Image.effect_noise(size, 60).convert("RGB") if colour is None else Image.new("RGB", size, (colour, 80, 9))
    picture.save(out, "JPEG", exif=exif_block(latitude, longitude), **options)
    return out.getvalue()


def tiff(size=(40, 30), **options):
    """Make a sound TIFF with Pillow, geotagged unless it is compressed (Pillow cannot write both)."""
    out = io.BytesIO()
    exif = b"" if "compression" in options else exif_block().tobytes()
    Image.effect_noise(size, 60).convert("RGB").save(out, "TIFF", exif=exif, **options)
    return out.getvalue()


def plain_tiff(order="<", *, big=False, size=(8, 4), before=True):
    """Build a grey TIFF by hand in any byte order; its one strip lies `before` or after its directory."""
    pixels = bytes(range(32)) * (size[0] * size[1] // 32)
    word, inline, head = ("Q", 8, 16) if big else ("I", 4, 8)
    fields = 6
    table = (8 if big else 2) + fields * (20 if big else 12) + inline
    first = head + len(pixels) if before else head
    strip = head if before else head + table
    mark = b"II" if order == "<" else b"MM"
    header = mark + (struct.pack(f"{order}HHHQ", 43, 8, 0, first) if big else struct.pack(f"{order}HI", 42, first))
    body = struct.pack(f"{order}{'Q' if big else 'H'}", fields)
    tags = ((256, size[0]), (257, size[1]), (258, 8), (262, 1), (273, strip), (279, len(pixels)))
    for tag, value in tags:
        # LONG everywhere, padded to the width of an inline value
        body += struct.pack(f"{order}HH{word}I", tag, 4, 1, value) + b"\0" * (inline - 4)
    body += struct.pack(f"{order}{word}", 0)
    return header + (pixels + body if before else body + pixels)


def facts(data, name=b"a.jpg"):
    """Read the facts of an image in memory."""
    return read_facts(name, len(data), lambda offset, count: data[offset : offset + count] if offset < 1 << 40 else b"")


def frozen(path, *, latitude=None, longitude=None, sha=None, problem="", pixels=(1000, 1000), size=1000):
    """Make the record of a frozen image without a file."""
    known = ImageFacts("jpeg", *pixels, latitude, longitude, problem=problem, detail="why" if problem else "")
    return FrozenImage(path, FileId(size, 1, 1, 1), sha or path.rjust(32, b"\0"), b"", known)


def flight(count, *, start=0):
    """Make the records of a sound flight: every image in another place."""
    return [frozen(b"DJI_%04d.JPG" % n, latitude=46 + n * 1e-4, longitude=6 + n * 1e-4) for n in range(start, count)]


def put(folder, path, content=b"x"):
    """Write a file below `folder` (both may be bytes), with its directories."""
    target = Path(os.fsdecode(folder), os.fsdecode(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def let_a_tick_pass(path):
    """Wait until the next change of a file shows in its times, which older kernels give in ticks of up to 10 ms."""
    probe = path.with_name("probe")
    probe.touch()
    while probe.stat().st_mtime_ns <= path.stat().st_ctime_ns:
        probe.touch()
    probe.unlink()


def scan(folder, **rules):
    """Scan a folder that is given as Path."""
    return scan_folder(os.fsencode(folder), Rules(**rules))


@contextlib.contextmanager
def writer_of(path):
    """Run another process that holds `path` open for writing."""
    process = subprocess.Popen([sys.executable, "-c", _WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"open\n"
        yield
    finally:
        process.communicate(timeout=20)


@contextlib.contextmanager
def as_nobody():
    """Act without privileges: root would be allowed everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def open_place():
    """Make a directory that everybody may enter (pytest's own are closed to other users, and TMPDIR may be)."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        yield Path(place)


def eventually(what, seconds=15):
    """Wait until `what()` is true, with a bound; return its last value."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if result := what():
            return result
        pause.wait(0.05)
    return what()
