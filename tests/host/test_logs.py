import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from pix4d_watcher.core.model import unprintable
from pix4d_watcher.host import logs


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(logs, "_hidden", [])
    yield
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if isinstance(handler, logs._Foreign)]:
        root.removeHandler(handler)
    structlog.reset_defaults()


def _fail(text):
    raise ValueError(text)


@pytest.fixture
def lines():
    stream = io.StringIO()
    logs.configure("info", stream=stream)
    return lambda: stream.getvalue().splitlines()


def test_one_line_with_keys(lines):
    """An event is one line: time in UTC, level, event, then the facts in the order in which they were given."""
    structlog.get_logger().info("folder found", root="survey", images=12, ready=True)
    (line,) = lines()
    pattern = r'timestamp=\d{4}-\d\d-\d\dT[\d:.]+Z level=info event="folder found" root=survey images=12 ready=True'
    assert re.fullmatch(pattern, line)


def test_level(lines):
    """Lines below the configured level are not written."""
    structlog.get_logger().debug("detail")
    structlog.get_logger().warning("trouble")
    assert [line.split()[1] for line in lines()] == ["level=warning"]


@pytest.mark.parametrize(
    "name",
    [
        b"x\n<0>level=critical event=forged",
        b"x\r\x1b[2Jy",
        "x\x85y\u2028z".encode(),
        b"M\xe9moire \x00",
        b'a" level="b',
        b"end \\",
    ],
)
def test_names_cannot_forge(lines, name):
    """Whatever stands in a file name, the line stays one line with the same keys, and the name can be copied."""
    structlog.get_logger().info("image", path=name, as_text=os.fsdecode(name))
    (line,) = lines()
    assert line.isprintable()
    assert [match[1] for match in re.finditer(r'(\w+)=(?:"[^"]*"|[^ "]*)(?: |$)', line)] == [
        "timestamp",
        "level",
        "event",
        "path",
        "as_text",
    ]
    shown = re.search(r'path=("[^"]*"|\S*)', line)[1].strip('"')
    assert unprintable(shown) == name


def test_secrets_are_hidden(lines):
    """A registered secret never appears: not in texts, in values, in errors, URL-encoded, or in a traceback."""
    secret = "pa55/word+1="
    logs.hide(secret)
    log = structlog.get_logger()
    text = f"token for {secret}"
    log.info(text, nested={"a": [secret]}, url="x?s=pa55%2Fword%2B1%3D", data=secret.encode())
    try:
        _fail(secret)
    except ValueError as error:
        log.exception("failed", error=error)
    assert len(lines()) == 2
    assert "pa55" not in "".join(lines())
    assert "Traceback" in lines()[1]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abcdEFGH.1234-5678", "Authorization: Bearer ***"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZDEyMw==", "Authorization: Basic ***"),
        ("GET /k?X-Amz-Signature=0123abcd&X-Amz-Date=1", "GET /k?X-Amz-Signature=***&X-Amz-Date=1"),
        ("X-Amz-Security-Token: IQoJb3JpZ2luX2VjE", "X-Amz-Security-Token: ***"),
        ("SignedHeaders=host, Signature=" + "0af9" * 16, "SignedHeaders=host, Signature=***"),
        (json.dumps({"access_token": "abc.def", "expires_in": 3600}), '{"access_token": "***", "expires_in": 3600}'),
        ("{'secret_key': 'wJalr/K7', 'session_token': 'FwoG'}", "{'secret_key': '***', 'session_token': '***'}"),
        ("grant_type=client_credentials&client_secret=s3cr3t", "grant_type=client_credentials&client_secret=***"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "token ***"),
        ("proxy http://joe:pw@proxy:3128 refused", "proxy http://***@proxy:3128 refused"),
        ("FwoGZXIvYXdzE" + "a" * 60, "***"),
    ],
)
def test_what_looks_like_a_secret(text, left):
    """Tokens, signatures and passwords that nobody registered are recognised by their form."""
    assert logs.redacted(text) == left


@pytest.mark.parametrize(
    "text",
    ["the tree signature: unchanged", "a basic check of 12 images", "bearer of news", "https://cloud.pix4d.com/a@b"],
)
def test_innocent_text_stays(text):
    """Words that only remind of a secret are left alone."""
    assert logs.redacted(text) == text


def test_keys_that_name_secrets(lines):
    """A fact called token, secret or password is never shown; one that only starts so is."""
    structlog.get_logger().info("x", client_secret="a1", token="b2", session_token="c3", tokens=4, secret_file="/f")
    assert lines()[0].endswith("client_secret=*** token=*** session_token=*** tokens=4 secret_file=/f")


def test_short_values_are_not_hidden(lines):
    """Hiding a value of three characters would blank innocent words."""
    logs.hide("ing")
    structlog.get_logger().info("uploading")
    assert "event=uploading" in lines()[0]


def test_other_libraries(lines):
    """Warnings of libraries come in the same form, their chatter does not."""
    library = logging.getLogger("urllib3.connectionpool")
    library.info("chatter")
    library.warning("Retrying %s", "a\nb")
    library.error("gave up")
    assert [line.split(" ", 1)[1] for line in lines()] == [
        r'level=warning event="Retrying a\nb" logger=urllib3.connectionpool',
        'level=error event="gave up" logger=urllib3.connectionpool',
    ]


def test_configured_twice(lines):
    """A second call replaces the first: no line comes twice."""
    stream = io.StringIO()
    logs.configure("warning", stream=stream)
    logging.getLogger("botocore").warning("once")
    assert lines() == []
    assert len(stream.getvalue().splitlines()) == 1


def test_paths_and_none(lines):
    """Paths that are not UTF-8 and missing values are shown, not refused."""
    structlog.get_logger().info("x", path=Path(os.fsdecode(b"/a/M\xe9")), gone=None, lone="\ud800", empty="")
    assert lines()[0].endswith(r'path=/a/M\xe9 gone=None lone=\xed\xa0\x80 empty=""')


def test_terminal():
    """On a terminal lines are for people: no key for the level, a traceback line by line, still nothing forged."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal, os.fdopen(master, "rb", buffering=0) as screen:
        logs.configure("info", stream=terminal)
        try:
            _fail("bad \x1b[2J name")
        except ValueError:
            structlog.get_logger().exception("step failed", path=b"a\x1b[2Jb")
        shown = ""
        # A terminal hands on what it has, piece by piece.
        while "\r\nValueError: " not in shown or not shown.endswith("\r\n"):
            shown += screen.read(20_000).decode()
    assert "level=" not in shown
    assert "\x1b[2J" not in shown
    assert "\r\nValueError: bad \\x1b[2J name\r\n" in shown


JOURNALD = """
import logging, os
from pix4d_watcher.host import logs
import structlog
facts = os.fstat(2)
os.environ["JOURNAL_STREAM"] = os.environ["FORM"].format(facts.st_dev, facts.st_ino)
logs.configure("debug")
log = structlog.get_logger()
for method in ("debug", "info", "warning", "error", "critical"):
    getattr(log, method)("x")
logging.getLogger("alembic").warning("wrong %d", "y")  # a mistake of the library does no harm
"""


def _stderr(form):
    done = subprocess.run(
        [sys.executable, "-c", JOURNALD],
        env={**os.environ, "FORM": form},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stderr.splitlines()


def test_journald():
    """Straight to journald a line starts with its priority and carries no time."""
    assert _stderr("{}:{}") == [
        "<7>level=debug event=x",
        "<6>level=info event=x",
        "<4>level=warning event=x",
        "<3>level=error event=x",
        "<2>level=critical event=x",
        '<4>level=warning event="wrong %d" logger=alembic',
    ]


def test_redirected_under_journald():
    """JOURNAL_STREAM of another stream (stderr was redirected to a file) is no reason for priorities."""
    assert all(line.startswith("timestamp=") for line in _stderr("{}:9{}"))


def test_broken_stream():
    """A full disk under stderr loses lines, nothing else."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        code = JOURNALD + "\nprint('still here', flush=True)\nos._exit(0)"
        command = [sys.executable, "-c", code]
        environment = {**os.environ, "FORM": ""}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=full, timeout=60)
    assert done.stdout == b"still here\n"


def test_stream_that_is_not_utf8():
    """A terminal in another encoding shows escapes."""
    raw = io.BytesIO()
    logs.configure("info", stream=io.TextIOWrapper(raw, encoding="ascii"))
    structlog.get_logger().info("gelöscht")
    assert rb"event=gel\xf6scht" in raw.getvalue()


def test_repeats(lines):
    """A lasting failure is told at once and then every five minutes; its end is one line with the count."""
    now = [1000.0]
    repeats = logs.Repeats(clock=lambda: now[0])
    for _ in range(100):
        repeats.failed("rest", "no answer", host="cloud")
        now[0] += 7
    repeats.failed("disk", "full")
    repeats.recovered("rest", "answers again", host="cloud")
    repeats.recovered("rest", "answers again", host="cloud")
    told = [line.split(" ", 1)[1] for line in lines()]
    assert told == [
        'level=warning event="no answer" host=cloud failures=1',
        'level=warning event="no answer" host=cloud failures=44',
        'level=warning event="no answer" host=cloud failures=87',
        "level=warning event=full failures=1",
        'level=info event="answers again" host=cloud failures=100 lasted_seconds=700',
    ]
    repeats.failed("rest", "no answer")
    assert lines()[-1].endswith("failures=1")
