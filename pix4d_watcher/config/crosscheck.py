"""What only several keys together show: directories inside directories, double names, odd combinations.

Owns checks across keys. They run on the plain data, so that they are told together with every other problem.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pix4d_watcher.config.settings import DEFAULT_JOURNAL, Settings, is_loopback
from pix4d_watcher.config.units import show_duration
from pix4d_watcher.core.errors import WatcherError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pix4d_watcher.config.yamlfile import Loc

Found = list[tuple["Loc", str]]
T = TypeVar("T")

# A hard-mounted network share whose server is away blocks every look at it for ever; the service starts all the same.
ANSWER_WITHIN_S = 5.0


def cross_problems(data: Any, base: Path) -> Found:
    """Find double names and directories inside each other in the plain data of a file that stands in `base`."""
    if not isinstance(data, dict):
        return []
    roots = _roots(data)
    places = [(("watch", i, "path"), _real(root.get("path"), base)) for i, root in enumerate(roots)]
    return [
        *_double_names(roots),
        *_nested_roots([(loc, path) for loc, path in places if path]),
        *_inside_roots(data, base, [path for _loc, path in places if path]),
        *_absent_authorities(data, base),
        *_absent_templates(roots, base),
        *_archives(roots, base, [path for _loc, path in places if path]),
    ]


def _roots(data: Any) -> list[dict[str, Any]]:
    entries = data.get("watch") if isinstance(data, dict) else None
    return [entry if isinstance(entry, dict) else {} for entry in entries] if isinstance(entries, list) else []


def _double_names(roots: list[dict[str, Any]]) -> Found:
    first: dict[str, str] = {}
    found: Found = []
    for index, root in enumerate(roots):
        name = root.get("name")
        if not isinstance(name, str):
            continue
        if name.lower() in first:
            text = f"'{name}' is taken by watch[{first[name.lower()]}] already; upper and lower case count as the same"
            found.append((("watch", index, "name"), text))
        first.setdefault(name.lower(), str(index))
    return found


def _nested_roots(places: list[tuple[Loc, Path]]) -> Found:
    owners: dict[Path, Loc] = {}
    for loc, path in places:
        owners.setdefault(path, loc)
    found: Found = []
    for loc, path in places:
        around = next((parent for parent in path.parents if parent in owners), None)
        if owners[path] != loc:
            entry = f"watch[{owners[path][1]}]"
            found.append((loc, f"is the same directory as {entry}; each folder would be sent twice"))
        elif around is not None:
            entry = f"watch[{owners[around][1]}] ({around})"
            found.append((loc, f"lies inside the drop directory of {entry}; its folders would be sent twice"))
    return found


def _inside_roots(data: dict[str, Any], base: Path, roots: list[Path]) -> Found:
    found: Found = []
    results = _real(data.get("results"), base)
    journal = _real(data.get("journal", str(DEFAULT_JOURNAL)), base)
    for root in roots:
        if results and results.is_relative_to(root):
            found.append(
                (("results",), f"lies inside the drop directory {root}; results would be sent as a new folder")
            )
        elif results and root.is_relative_to(results):
            found.append((("results",), f"lies around the drop directory {root}; results would mix with drops"))
        if journal and journal.is_relative_to(root):
            found.append((("journal",), f"lies inside the drop directory {root}; put it elsewhere"))
    return found


def _absent_authorities(data: dict[str, Any], base: Path) -> Found:
    cloud = data.get("cloud")
    path = _real(cloud.get("ca_file"), base) if isinstance(cloud, dict) else None
    if path is None or _answer(path.is_file, otherwise=False):
        return []
    return [(("cloud", "ca_file"), f"there is no file {path} that this user can see")]


def _absent_templates(roots: list[dict[str, Any]], base: Path) -> Found:
    found: Found = []
    for index, root in enumerate(roots):
        path = _real(root.get("template"), base)
        if path is not None and not _answer(path.is_file, otherwise=False):
            found.append((("watch", index, "template"), f"there is no file {path} that this user can see"))
    return found


def _archives(roots: list[dict[str, Any]], base: Path, drops: list[Path]) -> Found:
    found: Found = []
    for index, root in enumerate(roots):
        archive = _real(root.get("archive_to"), base)
        if root.get("after") == "archive" and archive is None:
            found.append((("watch", index, "after"), "archive needs archive_to, the directory to move folders to"))
        inside = next((drop for drop in drops if archive is not None and archive.is_relative_to(drop)), None)
        if inside is not None:
            text = f"lies inside the drop directory {inside}; what is archived would be sent again"
            found.append((("watch", index, "archive_to"), text))
    return found


def _real(value: Any, base: Path) -> Path | None:
    """Resolve links of a path from the file; None where it is none, as written where the disk does not answer."""
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    path = base / os.path.expanduser(value)  # noqa: PTH111  Path.expanduser raises for an unknown user
    return Path(_answer(lambda: os.path.realpath(path), otherwise=os.path.normpath(path)))


def root_trouble(path: Path) -> OSError | None:
    """Look at a drop directory; None where it can be used, else an error whose `strerror` says what is wrong with it.

    PermissionError where this user may not look into it, TimeoutError where it does not answer, any other else.
    """
    why = {
        PermissionError: f"may not be read by this user; to allow it: setfacl -m u:USER:rx {shlex.quote(str(path))}",
        TimeoutError: f"does not answer within {ANSWER_WITHIN_S:.0f} s: its disk or network share hangs; "
        "its folders wait, and the others do not",
        NotADirectoryError: "is a file, and a drop directory is wanted; name a directory, or move the file away",
        FileNotFoundError: "is not there; make it, or mount what belongs there",
    }
    try:
        within(ANSWER_WITHIN_S, lambda: _look_into(path))
    except OSError as error:
        return OSError(error.errno, why.get(type(error), f"cannot be looked at: {error.strerror}"))
    return None


def _look_into(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except NotADirectoryError:  # further up
        raise FileNotFoundError(errno.ENOENT, "") from None
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, "")
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, "")


def root_problems(data: Any, base: Path) -> Found:
    """Look at each drop directory that plain data name, and say what is wrong with it and where it is named."""
    places = [(i, root.get("name"), _real(root.get("path"), base)) for i, root in enumerate(_roots(data))]
    return [
        (("watch", i, "path"), root_text(str(name), path, trouble))
        for i, name, path in places
        if path is not None and (trouble := root_trouble(path))
    ]


def root_text(name: str, path: Path, trouble: OSError) -> str:
    """Say what is wrong with a drop directory, as `root_trouble` found it."""
    return f"drop directory {name}: {path} {trouble.strerror}"


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Ask the disk in a thread, so that a dead share costs seconds and not for ever.

    Raises TimeoutError where it does not answer, and the OSError or WatcherError that `ask` raises.
    """
    answers: list[T] = []
    errors: list[OSError | WatcherError] = []

    def look() -> None:
        try:
            answers.append(ask())
        except (OSError, WatcherError) as error:
            errors.append(error)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:.0f} s")
    return answers[0]


def _answer(ask: Callable[[], T], *, otherwise: T) -> T:
    try:
        return within(ANSWER_WITHIN_S, ask)
    except OSError:
        return otherwise


def cross_warnings(settings: Settings) -> Found:
    """Find what is accepted but deserves a look."""
    found: Found = []
    for key, url in (("url", settings.cloud.url), ("s3_endpoint", settings.cloud.s3_endpoint)):
        if url and urlsplit(url).scheme == "http" and not is_loopback(url):
            what = "the client secret" if key == "url" else "every image"
            found.append((("cloud", key), f"is http, not https: {what} can be read on the way"))
    if settings.dashboard is not None:
        text = f"this version has no dashboard; nothing listens on {settings.dashboard}"
        found.append((("dashboard",), text))
    advanced = settings.advanced
    if advanced.doubt_wait < advanced.request_timeout:
        text = (
            f"{show_duration(advanced.doubt_wait)} is shorter than request_timeout "
            f"({show_duration(advanced.request_timeout)}): a call may still be on its way when its outcome is asked"
        )
        found.append((("advanced", "doubt_wait"), text))
    return found
