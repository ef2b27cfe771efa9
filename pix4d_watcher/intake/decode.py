"""Decodes images in full, since damage in the middle of a file shows in no other way, and says which ones.

Owns Pillow, which is imported on first use. Nothing that a file contains may raise, take memory without limit or keep
a processor busy for long: what cannot be decoded here is no finding, and is said in the image's facts.
"""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from dataclasses import replace
from struct import error as StructError  # noqa: N812  (a class, whatever its name)
from typing import TYPE_CHECKING, Any, Literal

from pix4d_watcher.core.errors import SourceChanged
from pix4d_watcher.core.model import printable
from pix4d_watcher.intake import jpeg
from pix4d_watcher.intake.exif import TRUNCATED
from pix4d_watcher.intake.files import file_id, open_file, source_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from pix4d_watcher.core.model import FrozenImage, ImageFacts

SAMPLE = 5
"""Images of a folder that a sample holds at least (all of them, where there are fewer than twice as many)."""

SAMPLE_EVERY = 50
"""The images of a sample are at most so far apart: damage that spans a minute of flight does not slip through."""

MOST_PIXELS = 400_000_000
"""An image that states more is made to burst a decoder: the largest aerial cameras have some 150 megapixels."""

FULL_PIXELS = 64_000_000
"""Pixels decoded at full size, 256 MB in Pillow; above, a JPEG is decoded at a fraction: all of its data is read."""

MOST_TIFF_BYTES = 256 << 20
"""A TIFF is read into memory to be decoded, since libtiff would map the file: a pulled card ends the process then."""

# Whatever Pillow raises for a file; it has no error of its own at the top.
_PILLOW = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    StructError,
)

# Compressions of TIFF that every build of Pillow knows: failing to decode another one proves nothing.
_KNOWN = frozenset({"raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "tiff_jpeg", "jpeg"})


def chosen(images: Sequence[FrozenImage], mode: Literal["off", "sample", "all"]) -> list[FrozenImage]:
    """Return the images of a folder (in the order of their paths) that are to be decoded; the same for the same images.

    A sample is every n-th counted from the last one, which a pulled card hits first, and what differs from nearly all
    others. Images that are known to be damaged or were decoded already count, and are left out of the answer.
    """
    if mode == "off" or not images:
        return []
    step = 1 if mode == "all" else max(1, min(SAMPLE_EVERY, len(images) // SAMPLE))
    odd = _odd(images)
    last = len(images) - 1
    wanted = [image for at, image in enumerate(images) if (last - at) % step == 0 or _trait(image.facts) in odd]
    return [image for image in wanted if not (image.facts.decoded or image.facts.problem or image.facts.detail)]


def _trait(facts: ImageFacts) -> tuple[bool, ...]:
    big = facts.width * facts.height > FULL_PIXELS
    return bool(facts.width), big, bool(facts.camera), bool(facts.taken_at), bool(facts.kind)


def _odd(images: Sequence[FrozenImage]) -> set[tuple[bool, ...]]:
    """Find the combinations of facts that at most one image in ten has: a whole folder of one sort is not odd."""
    counts = Counter(_trait(image.facts) for image in images)
    return {trait for trait, count in counts.items() if count * 10 <= len(images)}


def decode(folder: bytes, image: FrozenImage) -> ImageFacts:
    """Decode one image below `folder` and return its facts with what that showed.

    `problem` is `truncated` where it is damaged; `decoded` is set where all of it was; otherwise `detail` says why not.
    Raises SourceMissing, SourceUnreadable, or SourceChanged where the file is not the one that was frozen.
    """
    shown = folder + b"/" + image.path
    with source_errors(shown):
        descriptor = open_file(folder, image.path)
        with os.fdopen(descriptor, "rb") as stream:
            now, then = file_id(os.fstat(descriptor)), image.file_id
            if (now.size, now.mtime_ns) != (then.size, then.mtime_ns):
                raise SourceChanged(f"{printable(shown)}: it changed after it was read; the folder is looked at again.")
            return _decoded(stream, now.size, image.facts)


def _decoded(stream: io.BufferedReader, size: int, facts: ImageFacts) -> ImageFacts:
    """Add to the facts what decoding shows; raises OSError where the medium fails."""
    if facts.width * facts.height > MOST_PIXELS:
        what = f"it states {facts.width} x {facts.height} pixels, more than any camera has, and was not opened"
        return replace(facts, problem=TRUNCATED, detail=what)
    progressive = False
    if facts.format == "jpeg":

        def read(offset: int, count: int) -> bytes:
            return os.pread(stream.fileno(), count, offset)

        found = jpeg.walk(read, size)
        progressive = found.progressive
        if broken := jpeg.broken_scan(read, size, found):
            return replace(facts, problem=TRUNCATED, detail=broken)
    # A progressive JPEG keeps all its coefficients, whatever the size that is asked for.
    large = facts.width * facts.height > FULL_PIXELS and (progressive or facts.format == "tiff")
    if large or (facts.format == "tiff" and size > MOST_TIFF_BYTES):
        return replace(facts, detail="it was not decoded: that would take too much memory")
    try:
        damage, why_not = _pixels(stream, facts)
    except _PILLOW as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the medium, not of the picture
        return replace(facts, detail=f"it could not be decoded here: {_words(error)}")
    if damage:
        return replace(facts, problem=TRUNCATED, detail=damage)
    return replace(facts, detail=why_not) if why_not else replace(facts, decoded=True)


def _pixels(stream: io.BufferedReader, facts: ImageFacts) -> tuple[str, str]:
    """Decode all pixels; return what damage that showed, and why it shows nothing, each empty if there is none.

    Raises what Pillow raises for a file that it cannot open.
    """
    with _opened(stream, facts) as picture:
        scale = 1
        while picture.width * picture.height > FULL_PIXELS * scale * scale and scale < 8:
            scale *= 2
        if scale > 1:
            picture.draft(None, (picture.width // scale, picture.height // scale))
        try:
            picture.load()
        except OSError as error:
            if error.errno is not None:
                raise
            if facts.format == "tiff" and picture.info.get("compression") not in _KNOWN:
                return "", f"it could not be decoded here: {_words(error)}"
            return f"decoding fails: {_words(error)}", ""
        if facts.format == "jpeg" and _ends_early(picture, max(1, 8 // scale)):
            return "its data ends before its lower edge", ""
    return "", ""


def _opened(stream: io.BufferedReader, facts: ImageFacts) -> Any:
    """Open the picture with the one reader that fits: `Image.open` would load some forty of them."""
    from PIL import JpegImagePlugin, TiffImagePlugin  # noqa: PLC0415  (the idle service needs no Pillow)

    # Broken EXIF is our reader's concern. Set at each use, since others may reset the filters.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    stream.seek(0)
    if facts.format == "tiff":
        return TiffImagePlugin.TiffImageFile(io.BytesIO(stream.read()))
    return JpegImagePlugin.JpegImageFile(stream)


def _ends_early(picture: Image, rows: int) -> bool:
    """Say whether the lowest row of blocks is what libjpeg makes of data that is not there: exactly mid-grey.

    A picture that is mid-grey all over is a test card.
    """
    below = picture.crop((0, max(0, picture.height - rows), picture.width, picture.height))
    return _is_grey(below) and not _is_grey(picture)


def _is_grey(picture: Image) -> bool:
    return picture.mode in {"L", "RGB"} and {*picture.convert("RGB").getextrema()} == {(128, 128)}


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
