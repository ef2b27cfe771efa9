"""The `emulator` command: turns `--set NAME=VALUE` into settings and mistakes into readable errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pix4d_watcher.cli.exits import Misused
from pix4d_watcher.core.errors import HostError
from pix4d_watcher.emulator.server import serve

if TYPE_CHECKING:
    from pathlib import Path


def emulate(listen: str, data: Path | None, values: list[str]) -> None:
    """Serve until SIGTERM or SIGINT; raises Misused for a wrong address or setting, HostError for a taken address."""
    settings = dict(_setting(value) for value in values)
    try:
        serve(listen, data, **settings)
    except ValueError as error:
        raise Misused(str(error)) from error
    except OSError as error:
        raise HostError(f"cannot serve at {listen}: {error.strerror}. 127.0.0.1:0 takes a free port") from error


def _setting(text: str) -> tuple[str, object]:
    """Read `NAME=VALUE`: a value that is JSON (3, true, null) is taken as that, any other as text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise Misused(f"--set {text}: write NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
