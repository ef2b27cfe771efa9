"""Standard output that may be closed before we are done: `| head` is no failure."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from pix4d_watcher.core.errors import HostError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def prepare() -> None:
    """Make both outputs accept every name, whatever the locale, and be there even where the caller closed them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  (lives as long as we do)
        else:
            stream.reconfigure(errors="backslashreplace")


def write(text: str) -> bool:
    """Write text to stdout at once; False when nobody reads it any more. Raises HostError where it takes nothing."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        return _lost(error)
    return True


def say(console: Console, *things: RenderableType) -> bool:
    """Print lines as a console lays them out; False when nobody reads them any more. Raises what `write` raises."""
    try:
        with console.capture() as captured:
            for thing in things:
                console.print(thing)
    except OSError as error:  # Rich flushes stdout while it captures, too
        return _lost(error)
    text = captured.get()
    # A line that was cut into columns ends in blanks, which only a terminal's colours need.
    return write(text if console.is_terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines()))


def finish() -> None:
    """Let go of log lines that stderr never took: Python would end with 120 for them, whatever came of the command."""
    try:
        sys.stderr.flush()
    except OSError:
        _let_go(sys.stderr)


def _lost(error: OSError) -> bool:
    _let_go(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return False
    raise HostError(f"what was to be shown cannot be written: {error.strerror}") from error


def _let_go(stream: TextIO) -> None:
    # What is still buffered must go somewhere, or Python complains about it at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), stream.fileno())
