"""Log lines: one line per event, on stderr, in the form that fits who reads: a terminal, journald or a file.

Owns the form of log lines and what must never stand in them: secrets, and characters by which the name of a file could
forge a line. Decides nothing about what is worth a line.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TextIO
from urllib.parse import quote

from pix4d_watcher.core.model import printable

# structlog would bring Rich along for coloured tracebacks, which no line here ever shows: 4.5 MiB of an idle service.
_keep_away = "rich" not in sys.modules
if _keep_away:
    sys.modules["rich"] = None  # type: ignore[assignment]  # importing it raises ImportError, as if it were not there
import structlog  # noqa: E402

if _keep_away:
    del sys.modules["rich"]

Event = MutableMapping[str, Any]
Processor = Callable[[Any, str, Event], Event]

HIDDEN = "***"
SHORTEST_SECRET = 4  # characters: hiding less would blank innocent words everywhere
REPEAT_AFTER = 300.0  # seconds between two lines about the same lasting failure

# systemd's priorities (man sd-daemon(3)), which journald takes off the line again
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

_SECRET_KEY = re.compile(r"(?i)(^|_)(secret|secret_key|password|token|authorization)$")
_SECRET_TEXT = (
    re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]{8,}"),
    re.compile(r"(?i)(\bbasic\s+)[\w+/=-]{16,}"),
    re.compile(r"(?i)(\bx-amz-(?:signature|credential|security-token)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;}]+"),
    re.compile(r"(?i)(\bsignature=)[0-9a-f]{64}"),
    re.compile(
        r"(?i)(\b(?:access_?token|refresh_?token|session_?token|client_?secret|secret_?(?:access_?)?key)"
        r"[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;}]+"
    ),
    re.compile(r"()\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),  # JSON web tokens
    re.compile(r"()\b(?:IQoJ|FwoG|FQoG)[\w+/=]{40,}"),  # session tokens of AWS
    re.compile(r"(://)[^/\s@:]+:[^/\s@]+(?=@)"),  # name and password of a proxy
)

_hidden: list[str] = []


def hide(value: str) -> None:
    """Show `value` as `***` in every later line, also URL-encoded; for the few secrets that live as long as we do."""
    if len(value) >= SHORTEST_SECRET and value not in _hidden:
        _hidden.extend((value, quote(value, safe="")))


def redacted(text: str) -> str:
    """Replace hidden values, and what looks like a token or a signature, by `***`."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern in _SECRET_TEXT:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text


def configure(level: str = "info", *, stream: TextIO | None = None) -> None:
    """Send our log lines from `level` on, and other libraries' from WARNING on, to `stream` (default: stderr)."""
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    journald = is_journald(out)
    chain: list[Any] = [structlog.processors.add_log_level, structlog.processors.format_exc_info]
    if not journald:
        # journald keeps its own time of every line.
        chain.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    chain.append(_clean)
    if terminal:
        plain = structlog.dev.plain_traceback  # the pretty one shows local variables, and so secrets
        chain.append(structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ, exception_formatter=plain))
    else:
        chain.append(_Line(priority=journald))
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=_Lasting(out)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Foreign)]:
        root.removeHandler(handler)
    root.addHandler(_Foreign(logging.WARNING))
    root.setLevel(logging.WARNING)


def is_journald(stream: TextIO) -> bool:
    """Whether `stream` goes straight to journald: $JOURNAL_STREAM names its device and inode (man systemd.exec(5))."""
    try:
        facts = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{facts.st_dev}:{facts.st_ino}"


class Repeats:
    """Tells of a lasting failure at once, then every `every` seconds at most, and of its end with the count.

    Each `key` is one kind of failure; keys are few and fixed, what varies belongs into the facts.
    """

    def __init__(
        self, log: Any = None, *, every: float = REPEAT_AFTER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = structlog.get_logger() if log is None else log
        self._every = every
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Failure] = {}

    def failed(self, key: str, event: str, **facts: object) -> None:
        """Count one more failure of this kind; a warning with the count is written if it is time for one."""
        now = self._clock()
        with self._lock:
            failure = self._known.setdefault(key, _Failure(since=now))
            failure.count += 1
            due = failure.told is None or now - failure.told >= self._every
            if due:
                failure.told = now
            count = failure.count
        if due:
            self._log.warning(event, **facts, failures=count)

    def recovered(self, key: str, event: str, **facts: object) -> None:
        """Write one line with the count and the length of the trouble in seconds, if there was any."""
        with self._lock:
            failure = self._known.pop(key, None)
        if failure is not None:
            lasted = round(self._clock() - failure.since)
            self._log.info(event, **facts, failures=failure.count, lasted_seconds=lasted)


@dataclass(slots=True)
class _Failure:
    since: float
    count: int = 0
    told: float | None = None


class _Foreign(logging.Handler):
    """Lets the lines of other libraries take the same way as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            message = str(record.msg)  # wrong arguments for the format: the library's mistake must not stop us
        facts = {"exc_info": record.exc_info} if record.exc_info else {}
        method = "warning" if record.levelno < logging.ERROR else "error"
        getattr(structlog.get_logger(), method)(message, logger=record.name, **facts)


class _Lasting:
    """A stream that swallows its failures: a full disk or a closed terminal under stderr must not stop the service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write what can be written."""
        try:
            # A terminal or file that is not UTF-8 shows escapes instead of failing.
            encoding = self._stream.encoding or "utf-8"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):
            return

    def flush(self) -> None:
        """Flush what can be flushed."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


@dataclass(frozen=True, slots=True)
class _Line:
    """Renders `timestamp=… level=… event=… key=value …`; a value with spaces stands in double quotes."""

    priority: bool

    def __call__(self, _logger: Any, _method: str, event: Event) -> str:
        level = event.get("level", "info")
        first = [key for key in ("timestamp", "level", "event") if key in event]
        keys = first + [key for key in event if key not in first]
        line = " ".join(f"{key}={_quoted(event[key])}" for key in keys).replace("\n", r"\n")
        return f"<{_PRIORITY.get(level, 6)}>{line}" if self.priority else line


def _clean(_logger: Any, _method: str, event: Event) -> Event:
    for key, value in event.items():
        if _SECRET_KEY.search(key) and isinstance(value, str | bytes):
            event[key] = HIDDEN
        elif not isinstance(value, bool | int | float):
            text = redacted(_text(value))
            # A traceback keeps its lines until it is rendered; whatever else has a line break could forge a line.
            event[key] = "\n".join(map(_escaped, text.split("\n"))) if key == "exception" else _escaped(text)
    return event


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return printable(value)
    if isinstance(value, PurePath):
        return printable(os.fsencode(value))
    return str(value)


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    if char in "\n\r\t":
        return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}[char]
    # os.fsdecode shows a byte of a name that is not UTF-8 as one of these lone surrogates.
    errors = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", errors=errors))


def _quoted(value: object) -> str:
    text = str(value)
    if text and not any(char in text for char in ' ="'):
        return text
    # \x22 and not \": names can be copied from the log into a command, and no name ends the value early.
    text = text.replace('"', r"\x22")
    if (len(text) - len(text.rstrip("\\"))) % 2:
        text = text[:-1] + r"\x5c"  # else it would take our closing quote along
    return f'"{text}"'
