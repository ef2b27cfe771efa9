"""`status --watch`: the table again and again, in place at a terminal, one after the other in a pipe."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live

from pix4d_watcher.cli import journals, out, picture, show
from pix4d_watcher.journal import listing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from pix4d_watcher.config import Settings
    from pix4d_watcher.journal.listing import Wanted

REFRESH = 1.0
"""Seconds between two looks at a terminal; the journal and the service's vitals hardly change faster."""

REFRESH_PIPE = 5.0
"""Seconds between two tables in a pipe, which keeps all of them."""


def watch(settings: Settings, wanted: Wanted, most: int | None) -> None:
    """Show the table until Ctrl-C, or until nobody reads it any more."""
    console = show.console()
    # A shell that starts it in the background has it ignore Ctrl-C, and it would go on after the shell brought it back.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if console.is_terminal:
            _in_place(settings, wanted, most, console)
        else:
            _one_after_the_other(settings, wanted, most, console)
    except KeyboardInterrupt:
        return


def _in_place(settings: Settings, wanted: Wanted, most: int | None, console: Console) -> None:
    never = threading.Event()
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            live.update(Group(*_lines(settings, wanted, most, console)), refresh=True)
            never.wait(REFRESH)


def _one_after_the_other(settings: Settings, wanted: Wanted, most: int | None, console: Console) -> None:
    never = threading.Event()
    while out.say(console, *_lines(settings, wanted, most, console), ""):
        never.wait(REFRESH_PIPE)


def _lines(settings: Settings, wanted: Wanted, most: int | None, console: Console) -> list[Text]:
    # Opened anew each time: the first run of the service makes the journal, and a writer finds no reader in its way.
    with journals.journal_to_read(settings) as journal:
        selection = listing.select_shown(journal, wanted, most) if journal else None
        return show.lines(picture.look(settings, journal, selection=selection), console, sums=True)
