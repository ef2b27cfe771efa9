"""The types of single settings: paths, URLs, durations, sizes, names.

Owns how one value is read, checked and shown in the JSON Schema; every refusal is a ValueError that says what to write.
"""

import os
import shlex
import string
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from pix4d_watcher.config.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size
from pix4d_watcher.core.model import Level, host_name

CHECK_NAMES = (
    "too_few_images",
    "too_many_images",
    "zero_bytes",
    "wrong_format",
    "truncated",
    "not_geotagged",
    "one_position",
    "duplicates",
    "sequence_gaps",
    "mixed_cameras",
    "mixed_resolutions",
    "several_missions",
    "thermal",
    "multispectral",
    "sent_before",
)

NAME_PLACEHOLDERS = ("folder", "root", "date")

_MIN_THRESHOLD = 8 * 2**20  # one hashed block is 8 MiB: a smaller file has nothing to split
_MAX_THRESHOLD = 5 * 2**30  # what S3 takes in one piece


def _located(value: Any, info: ValidationInfo) -> Path:
    """Make a path absolute: `~` is the user's home, relative paths start at the configuration file's directory."""
    if not isinstance(value, str | Path):
        raise ValueError("must be a path, written as text")  # noqa: TRY004  pydantic collects ValueError only
    text = os.path.expanduser(str(value))  # noqa: PTH111  Path.expanduser raises for an unknown user
    if not text or "\0" in text:
        raise ValueError("must be a path; it is empty or holds a NUL character")
    if text.startswith("~"):
        raise ValueError(f"the home directory of {text.split('/')[0]} is not known; write the whole path")
    base: Path = (info.context or {}).get("base", Path.cwd())
    return base / text


def _url(value: str) -> str:
    """Check an http(s) URL and write it in one way: scheme and host in small letters, no slash at its end.

    Its text is never repeated, it could hold a password.
    """
    try:
        parts = urlsplit(value)
        host, port = host_name(parts.hostname), parts.port
    except ValueError:  # its text, too, repeats what was found where host or port should be
        raise ValueError("host or port cannot be read; write a URL such as https://cloud.pix4d.com") from None
    if parts.scheme not in {"http", "https"} or any(char.isspace() for char in value) or not host:
        raise ValueError("must be a URL such as https://cloud.pix4d.com")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password: secrets never stand in URLs")
    if parts.query or parts.fragment:
        raise ValueError("must end with the host or path: no ? and no #")
    if port == 0:
        raise ValueError("port 0 is no address")
    return parts._replace(netloc=parts.netloc.lower()).geturl().rstrip("/")


def _address(value: str) -> str:
    """Check `host:port` with a port from 0 to 65535."""
    host, colon, port = value.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("must be host:port, such as 127.0.0.1:8470, or null")
    return value


def _name_template(value: str) -> str:
    """Check that a name template holds only the known placeholders, without conversions or formats."""
    known = ", ".join(f"{{{name}}}" for name in NAME_PLACEHOLDERS)
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError:
        raise ValueError(f"has a lone brace; placeholders are {known}; write {{{{ or }}}} for a brace") from None
    for _text, field, spec, conversion in parts:
        if field is not None and (field not in NAME_PLACEHOLDERS or spec or conversion):
            raise ValueError(f"unknown placeholder {{{field}}}; known are {known}")
    if not value.strip():
        raise ValueError("is empty: projects need a name")
    return value


def _output_choice(value: Any) -> Any:
    """Read `all`, `none` or a list of output types into `all` or a tuple."""
    if value == "all":
        return "all"
    if value == "none":
        return ()
    if isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value):
        return tuple(value)
    raise ValueError("must be all, none or a list of output types such as [ortho_rgb, quality_report]")


def _known_check(value: str) -> str:
    if value not in CHECK_NAMES:
        raise ValueError(f"unknown check; known are {', '.join(CHECK_NAMES)}")
    return value


def _plain_name(value: str) -> str:
    if "/" in value or "\0" in value or value in {"", ".", ".."}:
        raise ValueError("must be the name of a file directly in the folder, without a slash")
    return value


def _no_name(value: dict[str, Any]) -> dict[str, Any]:
    if "name" in value:
        raise ValueError("must not hold 'name': the name comes from project.name, its marker finds the project again")
    return value


def _join_pattern(value: str) -> str:
    """Check a pattern of folder names: {mission} and {part} once each, and something between them."""
    parts = value.replace("{mission}", "\0").replace("{part}", "\1")
    if value.count("{mission}") != 1 or value.count("{part}") != 1 or "\0\1" in parts or "\1\0" in parts:
        raise ValueError("must hold {mission} and {part} once each with something between, such as {mission}_{part}")
    if "{" in parts or "}" in parts or "/" in parts:
        raise ValueError("must hold no braces but {mission} and {part}, and no slash: it is the name of a folder")
    return value


def _command(value: Any) -> Any:
    """Read a command: a list of words, or text that is split as a shell would split it; no shell ever runs it."""
    words = value
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError:
            raise ValueError("has a lone quote; write the command as a list of words") from None
    if not isinstance(words, list | tuple) or not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError("must be a command, such as /usr/local/bin/tell or [/usr/bin/mail, -s, done, me]")
    if not words[0].startswith("/"):
        raise ValueError("must begin with the absolute path of a program: the service has no search path of yours")
    return tuple(words)


def _at_least(smallest: int, text: str) -> Callable[[int], int]:
    def check(value: int) -> int:
        if value < smallest:
            raise ValueError(f"must be at least {text}")
        return value

    return check


def _at_most(largest: int, text: str) -> Callable[[int], int]:
    def check(value: int) -> int:
        if value > largest:
            raise ValueError(f"must be at most {text}")
        return value

    return check


Location = Annotated[Path, PlainValidator(_located), WithJsonSchema({"type": "string", "minLength": 1})]
Url = Annotated[str, AfterValidator(_url), WithJsonSchema({"type": "string", "pattern": "^https?://[^?#@]+$"})]
Duration = Annotated[
    float, BeforeValidator(parse_duration), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE_PATTERN}]}),
]
Text = Annotated[str, Field(min_length=1)]
Credits = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Outputs = Annotated[
    Literal["all"] | tuple[str, ...],
    BeforeValidator(_output_choice),
    WithJsonSchema(
        {"anyOf": [{"enum": ["all", "none"]}, {"type": "array", "items": {"type": "string", "minLength": 1}}]}
    ),
]


ProjectName = Annotated[Text, AfterValidator(_name_template)]
FileName = Annotated[Text, AfterValidator(_plain_name)]
Address = Annotated[str, AfterValidator(_address)]
CreateFields = Annotated[dict[str, Any], AfterValidator(_no_name)]
PartSize = Annotated[
    Size,
    AfterValidator(_at_least(_MIN_THRESHOLD, "8MiB")),
    AfterValidator(_at_most(_MAX_THRESHOLD, "5GiB: S3 takes no larger file in one piece")),
]
CheckLevels = dict[Annotated[str, AfterValidator(_known_check)], Level]
JoinPattern = Annotated[Text, AfterValidator(_join_pattern)]
Command = Annotated[
    tuple[str, ...],
    BeforeValidator(_command),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
