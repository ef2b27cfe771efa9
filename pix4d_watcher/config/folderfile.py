"""What a dropped folder says about itself: `pix4d.yaml`, read strictly and bounded by what the administrator allows.

Whoever drops a folder is not the administrator: everything in the file is hostile until it was checked here. It sets
what `folder_may` of the drop directory names, and tightens `start` and `approve_above`, never loosens them. Opens no
file and applies nothing.
"""

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from pix4d_watcher.config.fields import CreateFields, Credits, ProjectName
from pix4d_watcher.config.loader import SETTINGS_KEYS, dotted_name, value_sentence
from pix4d_watcher.config.settings import RootSettings
from pix4d_watcher.config.yamlfile import Document, Loc, Problem, parse_yaml
from pix4d_watcher.core.errors import ConfigError

FOLDER_FILE = "pix4d.yaml"
"""The name of the file, directly in the folder."""

LARGEST = 64 << 10
"""Bytes of the largest file that is read; a name and a processing body are a hundredth of it."""

DEEPEST = 20
"""Levels of lists and mappings inside each other that a body may have; the service's own have three."""

MOST_TOLD = 30
"""Problems that are told; nobody mends more at a time."""

LONGEST = 300
"""Characters of one told problem: what the file says itself may be of any length."""


_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that YAML can write with a backslash and that neither a database nor UTF-8 takes."""

_IS_NO_TEXT = "holds characters that are no text, such as \\0 or half of a pair (\\ud800)"


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds characters that cannot be shown; write it in plain text on one line")
    return value


def _folder(value: str) -> str:
    if "/" in value or "\0" in value or value in {"", ".", ".."}:
        raise ValueError("must be the name of a folder beside this one, without a slash")
    return _printable(value)


def _not_empty(value: Any) -> Any:
    if value == []:
        raise ValueError("is empty; name the other folders, or leave the key away")
    return value


FolderName = Annotated[str, AfterValidator(_folder)]


class FolderFile(BaseModel):
    """The keys of the file; what it does not name is None."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[ProjectName, AfterValidator(_printable)] | None = Field(
        default=None, description="Name of the project in the cloud, a template as in the configuration."
    )
    create: CreateFields | None = Field(
        default=None, description="Extra fields for the creation; each replaces the field of that name."
    )
    processing: dict[str, Any] | None = Field(
        default=None, description="Body of the start; each key replaces the key of that name."
    )
    start: Literal["auto", "manual"] | None = Field(
        default=None, description="manual: wait for a person before processing. auto only where that is so anyway."
    )
    approve_above: Credits | None = Field(
        default=None, description="Credits above which a person is asked; at most what the configuration says."
    )
    join: Annotated[tuple[FolderName, ...], BeforeValidator(_not_empty)] | None = Field(
        default=None, description="Names of the folders that are one mission together with this one."
    )

    def overrides(self) -> dict[str, Any]:
        """Return what the file sets, as plain values that JSON can hold."""
        return self.model_dump(mode="json", exclude_none=True)


def parse_folder_file(raw: bytes, root: RootSettings) -> FolderFile:
    """Check the bytes of a folder's file; raises ConfigError with all problems, one text each with its line."""
    if len(raw) > LARGEST:
        raise ConfigError([f"{FOLDER_FILE}: larger than {LARGEST >> 10} KiB; is this really the folder's file?"])
    try:
        document = parse_yaml(raw, FOLDER_FILE, empty="write what it is to set, or remove it")
    except ConfigError as error:
        raise ConfigError([_shown(text) for text in error.problems]) from None
    found, wrong = None, []
    try:
        found = FolderFile.model_validate(document.data)
    except ValidationError as error:
        wrong = [_explained(document, detail) for detail in error.errors(include_url=False)]
    if isinstance(document.data, dict):
        wrong += [Problem(document.line(loc), loc, text) for loc, text in _forbidden(document.data, root)]
    unread = {problem.loc for problem in document.problems}  # told already, not again as a wrong type
    problems = [*document.problems, *(problem for problem in wrong if problem.loc not in unread)]
    if problems or found is None:
        raise ConfigError(_told(problems))
    return found


def _forbidden(data: dict[str, Any], root: RootSettings) -> list[tuple[Loc, str]]:
    """Say what the drop directory does not allow its folders, and what no folder may hold."""
    out: list[tuple[Loc, str]] = [
        ((key,), "has no value; write one, or leave the key away")
        for key in FolderFile.model_fields
        if key in data and data[key] is None
    ]
    for key in ("name", "create", "processing"):
        if key in data and key not in root.folder_may:
            text = f"is not allowed here; the administrator must allow it with folder_may: [{key}] of {root.name!r}"
            out.append(((key,), text))
        if wrong := _unfit(data.get(key)):
            out.append(((key,), wrong))
    if data.get("start") == "auto" and root.start == "manual":
        out.append((("start",), f"can only be tightened: {root.name!r} says manual, leave this key away"))
    limit, wanted = root.approve_above, data.get("approve_above")
    if limit is not None and isinstance(wanted, int | float) and wanted > limit:
        out.append(
            (("approve_above",), f"can only be tightened: {root.name!r} says {limit:g}, write no more than that")
        )
    return out


def _unfit(value: Any) -> str:
    """Say what keeps a value from being sent; counted without writing it out, since aliases make much of little."""
    size, left = 0, [(value, 0)]
    while left:
        item, depth = left.pop()
        texts = [item]
        if isinstance(item, dict):
            texts = list(item)
            left += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            texts = []
            left += [(inner, depth + 1) for inner in item]
        size += sum(len(str(text)) for text in texts) + 1
        if size > LARGEST or depth > DEEPEST:
            return f"unfolds to more than {LARGEST >> 10} KiB or nests deeper than {DEEPEST} levels"
        if any(isinstance(text, str) and _NO_TEXT.search(text) for text in texts):
            return _IS_NO_TEXT
    return ""


def _explained(document: Document, detail: ErrorDetails) -> Problem:
    loc: Loc = detail["loc"]
    if detail["type"] == "extra_forbidden":
        return Problem(document.line(loc), loc, _unknown(loc))
    text = _IS_NO_TEXT if detail["type"] == "string_unicode" else value_sentence(loc, detail)
    return Problem(document.line(loc), loc, text)


def _unknown(loc: Loc) -> str:
    known, key = list(FolderFile.model_fields), str(loc[-1])
    near = difflib.get_close_matches(key[:40].lower().replace("-", "_"), known, n=1, cutoff=0.55)
    if f"watch[].{key}" in SETTINGS_KEYS:
        return f"cannot be set by a folder, only in the configuration; known here are {', '.join(known)}"
    return f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; known here are {', '.join(known)}"


def _told(problems: list[Problem]) -> list[str]:
    unique = dict.fromkeys(sorted(problems, key=lambda problem: problem.line))
    texts = [_shown(f"{FOLDER_FILE}:{line}: {_dotted(loc)}{text}") for line, loc, text in unique]
    more = [f"and {len(texts) - MOST_TOLD} more"] if len(texts) > MOST_TOLD else []
    return texts[:MOST_TOLD] + more


def _dotted(loc: Loc) -> str:
    name = dotted_name(tuple(part if isinstance(part, int) else part[:60] for part in loc[:4]))
    return f"{name}: " if name else ""


def _shown(text: str) -> str:
    """Make a text that repeats parts of the file fit for people, logs and the journal, whatever the file holds."""
    plain = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"
