"""Find and load the configuration: every problem at once, each with file, line and what to write instead.

Owns the way from a file to `Settings`, and to all that is wrong with what the file names.
"""

from __future__ import annotations

import difflib
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from pix4d_watcher.config.crosscheck import cross_problems, cross_warnings, root_problems
from pix4d_watcher.config.fields import CHECK_NAMES
from pix4d_watcher.config.secrets import load_client
from pix4d_watcher.config.settings import CloudSettings, Settings
from pix4d_watcher.config.yamlfile import Document, Loc, Problem, read_yaml
from pix4d_watcher.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

    from pix4d_watcher.config.secrets import ClientCredentials

FILE_NAME = "pix4d-watcher.yaml"
FILE_VARIABLE = "PIX4D_WATCHER_CONFIG"
SYSTEM_DIRECTORY = Path("/etc/pix4d-watcher")

_SECRETS_BELONG = (
    "secrets do not belong in this file; put it alone in a file with mode 600 and name that file with "
    "cloud.client_secret_file, or use the environment variable PIX4D_CLIENT_SECRET, or the systemd credential "
    "client_secret (LoadCredential=client_secret:FILE). If this file was ever shared, make a new secret"
)


def find_config(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """Find the configuration: the named file, $PIX4D_WATCHER_CONFIG, ./, the user's directory, the system's.

    A file that was named is returned even if it does not exist, so that loading says so instead of taking another one.
    Raises ConfigError with the places that were looked at.
    """
    if explicit is not None:
        return explicit
    if environ.get(FILE_VARIABLE):
        return Path(environ[FILE_VARIABLE])
    user = [Path(environ["HOME"], ".config")] if environ.get("HOME") else []
    if environ.get("XDG_CONFIG_HOME"):
        user = [Path(environ["XDG_CONFIG_HOME"])]
    places = [Path(FILE_NAME), *(base / "pix4d-watcher" / FILE_NAME for base in user), SYSTEM_DIRECTORY / FILE_NAME]
    for place in places:
        try:
            if place.exists():
                return place
        except OSError:
            return place  # it cannot be looked at: loading says why
    looked = ", ".join(str(place if place.is_absolute() else f"./{place}") for place in places)
    raise ConfigError(
        [f"no configuration found; name it with --config FILE or ${FILE_VARIABLE}, or put it at one of: {looked}"]
    )


def load(path: Path) -> Settings:
    """Load and check a configuration file; raise ConfigError with all problems, in the order of their lines."""
    settings, problems = _understood(path, read_yaml(path))
    if settings is None:
        raise ConfigError(_told(path, problems))
    return settings


def examine(
    path: Path, environ: Mapping[str, str], *, roots: bool
) -> tuple[Settings | None, ClientCredentials | None, list[str]]:
    """Load a configuration and the client credentials, and look at the drop directories: what is good, what is wrong.

    A problem in one place hides none in another. Without `roots` the drop directories, whose media may be away, are
    looked at only where something else is wrong. Raises ConfigError where the file cannot be read at all.
    """
    document, base = read_yaml(path), path.absolute().parent
    settings, problems = _understood(path, document)
    client = None
    try:
        cloud = settings.cloud if settings else _client_keys(document.data, base)
        client = load_client(cloud, environ)
    except ValidationError:
        pass  # the keys themselves are wrong, which is told already
    except ConfigError as error:
        problems += [Problem(document.lines.get(_key_of(text), 0), (), text) for text in error.problems]
    if roots or problems:
        found = root_problems(document.data, base)
        problems += [Problem(document.line(loc), (), text) for loc, text in found]
    return settings, client, _told(path, problems)


def _client_keys(data: Any, base: Path) -> CloudSettings:
    given = data.get("cloud") if isinstance(data, dict) else None
    keys = given if isinstance(given, dict) else {}
    wanted = {key: keys[key] for key in ("client_id", "client_secret_file") if key in keys}
    return CloudSettings.model_validate(wanted, context={"base": base})


def _key_of(text: str) -> Loc:
    return tuple(text.partition(":")[0].split("."))


def _understood(path: Path, document: Document) -> tuple[Settings | None, list[Problem]]:
    base = path.absolute().parent
    problems = [*document.problems, *_line_up(document, cross_problems(document.data, base))]
    settings = None
    try:
        settings = Settings.model_validate(document.data, context={"base": base})
    except ValidationError as error:
        unread = {problem.loc for problem in document.problems}  # told already, not again as a wrong type
        wrong = [_explained(document, detail) for detail in error.errors(include_url=False)]
        problems += [problem for problem in wrong if problem.loc not in unread]
    if problems or settings is None:
        return None, problems
    warnings = _line_up(document, cross_warnings(settings))
    settings.keep_origin(path, tuple(_told(path, warnings)), document.lines)
    return settings, []


def _line_up(document: Document, found: list[tuple[Loc, str]]) -> list[Problem]:
    return [Problem(document.line(loc), loc, text) for loc, text in found]


def _told(path: Path, problems: list[Problem]) -> list[str]:
    """Say each problem once with its place, in the order of the lines; line 0 is what stands in no file."""
    unique = dict.fromkeys(sorted(problems, key=lambda problem: problem.line))
    return [_placed(path, problem) if problem.line else problem.text for problem in unique]


def _placed(path: Path, problem: Problem) -> str:
    dotted = dotted_name(problem.loc)
    return f"{path}:{problem.line}: {dotted + ': ' if dotted else ''}{problem.text}"


def dotted_name(loc: Loc) -> str:
    """Write keys as people do: `watch[0].settle`."""
    out = ""
    for part in loc:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def sections(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """List each mapping of the configuration with its dotted prefix: ``, `cloud`, `watch[]`, `watch[].project`..."""
    yield prefix, model
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                brackets = "" if kind is field.annotation else "[]"
                yield from sections(kind, f"{prefix}{'.' if prefix else ''}{name}{brackets}")


SECTIONS: dict[str, type[BaseModel]] = dict(sections())
SETTINGS_KEYS: tuple[str, ...] = tuple(
    f"{prefix}{'.' if prefix else ''}{name}" for prefix, model in SECTIONS.items() for name in model.model_fields
)


def _explained(document: Document, detail: ErrorDetails) -> Problem:
    """Turn one finding of pydantic into a sentence with a place; never shows what was typed where it may be secret."""
    loc: Loc = tuple(part for part in detail["loc"] if part != "[key]")
    return Problem(document.line(loc), loc, _sentence(loc, detail))


def _sentence(loc: Loc, detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return _unknown_key(loc)
    if detail["type"] == "missing":
        return f"is missing. {_description(loc)}".strip()
    return value_sentence(loc, detail)


def value_sentence(loc: Loc, detail: ErrorDetails) -> str:
    """Say what is wrong with a value that pydantic refused, without repeating it."""
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":
        text = _with_nearest_check(given, str(context["error"]))
    elif given is None and loc:
        text = "has no value; write one, or leave the key away for its default"
    elif kind in {"literal_error", "enum"}:
        text = f"must be {context['expected']}{_nearest_choice(given, str(context['expected']))}"
    elif kind == "string_type" and isinstance(given, int | float):
        text = "must be text; put it in quotes as it stands"  # what was read of it may be another: 7 for 007
    else:
        text = _PLAIN.get(kind, "{msg}").format(msg=detail["msg"], **context)
    return text


_PLAIN = {
    "string_type": "must be text",
    "string_unicode": "holds characters that are no text",
    "int_type": "must be a whole number, without a unit and without quotes",
    "float_type": "must be a number, without a unit and without quotes",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "may hold only letters, digits, - and _",
    "list_type": "must be a list: one entry a line, each behind '- '",
    "tuple_type": "must be a list: one entry a line, each behind '- '",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


def _section_of(loc: Loc) -> str:
    prefix = ""
    for part in loc:
        prefix += "[]" if isinstance(part, int) else f".{part}" if prefix else part
    return prefix


def _description(loc: Loc) -> str:
    model = SECTIONS.get(_section_of(loc[:-1]))
    field = model.model_fields.get(str(loc[-1])) if model else None
    return (field.description or "") if field else ""


def _unknown_key(loc: Loc) -> str:
    key = str(loc[-1])
    if key.lower().replace("-", "_") in {"client_secret", "secret", "password"}:
        return _SECRETS_BELONG
    section = _section_of(loc[:-1])
    known = list(SECTIONS[section].model_fields)
    elsewhere = [name for name in SETTINGS_KEYS if name.rpartition(".")[2] == key]
    if elsewhere:
        return f"unknown key here; it belongs to {' or '.join(repr(name) for name in elsewhere)}"
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.55)
    if near:
        return f"unknown key; did you mean '{near[0]}'?"
    return f"unknown key; known here are {', '.join(known)}"


def _with_nearest_check(given: Any, text: str) -> str:
    if text.startswith("unknown check") and isinstance(given, str):
        near = difflib.get_close_matches(given.lower(), CHECK_NAMES, n=1)
        return f"unknown check; did you mean '{near[0]}'?" if near else text
    return text


def _nearest_choice(given: Any, expected: str) -> str:
    choices = [choice for choice in expected.split("'")[1::2] if isinstance(given, str)]
    near = difflib.get_close_matches(str(given).lower(), choices, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
