"""What a name says: ignored, temporary, an image, or chosen by a glob.

Pure; names are text with the bytes that are no UTF-8 as surrogates (`os.fsdecode`).
"""

from __future__ import annotations

import fnmatch
import functools
import re

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".tif", ".tiff")

_IGNORED = frozenset({"@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"})

# Browsers, FTP and SFTP clients, download managers and editors name unfinished files like this.
_TEMPORARY_SUFFIXES = (".part", ".partial", ".filepart", ".crdownload", ".tmp", ".temp", ".download", ".!ut", "~")

# rsync writes `.NAME.XXXXXX`. NAME must have a suffix of its own: `.photos.sqlite` is somebody's settings,
# `.DJI_0001.JPG.x7Kq2Z` a copy in progress.
_RSYNC = re.compile(r"\..+\.[^.]{1,5}\.[A-Za-z0-9]{6}", re.DOTALL)


def is_ignored(name: str) -> bool:
    """Whether a name is never looked at: hidden (`._*` and `.Trash*` too), or a file server's own."""
    return name.startswith(".") or name.lower() in _IGNORED


def is_temporary(name: str) -> bool:
    """Whether a name is that of a copy in progress; so are some hidden names (rsync, `.~lock.…`, `.~tmp~`)."""
    if name.startswith("._"):  # AppleDouble: written beside any file, never a copy in progress
        return False
    if name.startswith((".~", "~")) or name.lower().endswith(_TEMPORARY_SUFFIXES):
        return True
    return _RSYNC.fullmatch(name) is not None


def image_in_progress(name: str) -> str:
    """Return the name of the image that a temporary name is a copy of, still in progress; empty where it is of none."""
    if not is_temporary(name):
        return ""
    suffix = next((suffix for suffix in _TEMPORARY_SUFFIXES if name.lower().endswith(suffix)), "")
    whole = name[1:-7] if _RSYNC.fullmatch(name) else name[: len(name) - len(suffix)].lstrip(".~")
    return whole if is_image(whole) else ""


def is_image(name: str) -> bool:
    """Whether a name has the suffix of an image, in any case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def matches(path: str, globs: tuple[str, ...]) -> bool:
    """Whether a relative path is chosen by one of the globs; `*` crosses `/`, case does not matter."""
    return bool(globs) and _compiled(globs).match(path.lower()) is not None


@functools.lru_cache(maxsize=256)
def _compiled(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(glob.lower()) for glob in globs))
