"""Read one YAML file strictly: plain data, and the line of every key.

Owns the YAML dialect: booleans are true and false only (`off`, `no` and `on` stay text), dates stay text, keys are text
and unique, tags make no objects, sizes are bounded. Knows nothing of what the keys mean.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from pix4d_watcher.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_FILE = 2**20  # bytes; a configuration of a thousand drop directories is a tenth of it
MOST_VALUES = 100_000  # aliases of aliases can make a small file unfold without end
LONGEST_NUMBER = 100  # characters of a whole number; Python refuses to write out what is much longer

_TAGS = "tag:yaml.org,2002:"

# What no name on disk can be; the rest of the half characters stand for the bytes of names that are not UTF-8.
_NO_NAME = re.compile("[\ud800-\udc7f\udd00-\udfff]")

_NO_TAGS = "has a tag that has no meaning here; leave the !tag away"
_WRONG = {
    "str": "holds characters that are no text, such as half of a pair (\\ud800)",
    "float": "is too large for a number; put it in quotes if it is text",
}

Loc = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing that is wrong: where (line from 1, 0 for the whole file; keys that lead there) and what."""

    line: int
    loc: Loc
    text: str


class Document(NamedTuple):
    """What a file said: plain data, the line of each key and list entry, and what was wrong already while reading."""

    data: Any
    lines: dict[Loc, int]
    problems: list[Problem]

    def line(self, loc: Loc) -> int:
        """Find the line of a key, or of the nearest key around it where it is not in the file."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)


class _Composer(yaml.SafeLoader):
    """PyYAML's parser with the scalar types of YAML 1.2; used to compose nodes only, never to construct objects."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML copies it on the first add


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Composer.add_implicit_resolver(_TAGS + _tag, re.compile(rf"^(?:{_pattern})$"), _first)


def read_yaml(path: Path) -> Document:
    """Read a file into plain data; raise ConfigError, with line and column, where it cannot be read at all."""
    return parse_yaml(_read(path), str(path), empty="at least 'watch' with one drop directory is needed")


def parse_yaml(raw: bytes, shown: str, *, empty: str) -> Document:
    """Turn the bytes of a file into plain data; raise ConfigError, each text with the name `shown` and the line.

    `empty` is what to say of a file that holds nothing.
    """
    text = _decoded(raw, shown)
    try:
        node = _Composer(text).get_single_node()
        if node is None:
            raise ConfigError([f"{shown}:1: the file is empty; {empty}"])
        return _Unfolding().document(node)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(shown, error)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"{shown}:{line}: a control character (#x{error.character:02x}); remove it"]) from None
    except RecursionError:
        raise ConfigError([f"{shown}: lists and mappings are nested too deeply"]) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; --config FILE names another one"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(raw) > LARGEST_FILE:
        raise ConfigError([f"{path}: larger than 1 MiB; is this really the configuration?"])
    return raw


def _decoded(raw: bytes, shown: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{shown}:{line}: not UTF-8; save the file as UTF-8"]) from None


def _syntax_problem(shown: str, error: yaml.MarkedYAMLError) -> str:
    """Say what PyYAML found, without the snippet of the file that it would show: it could hold a secret."""
    mark = error.problem_mark or error.context_mark
    place = f"{shown}:{mark.line + 1}:{mark.column + 1}" if mark else shown
    text = ", ".join(part for part in (error.context, error.problem) if part)
    if "'\\t'" in text:
        text += "; YAML is indented with spaces, not with tabs"
    elif "mapping values are not allowed" in text:
        text += "; check the indentation, and put text that holds ': ' in quotes"
    return f"{place}: YAML error: {text}"


class _Unfolding:
    """Turns composed nodes into plain data and notes lines and problems on the way."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.lines: dict[Loc, int] = {}
        self.problems: list[Problem] = []
        self.values = 0
        self.around: set[int] = set()

    def document(self, node: yaml.Node) -> Document:
        """Unfold the whole document."""
        return Document(self.value(node, ()), self.lines, self.problems)

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        """Unfold one node; a node inside itself, or too many of them, end the reading."""
        self.lines.setdefault(loc, node.start_mark.line + 1)
        self.count(node)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, loc)
        self.around.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, loc)
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        finally:
            self.around.discard(id(node))

    def count(self, node: yaml.Node, values: int = 1) -> None:
        """End the reading at a node inside itself, or at too many of them; `values` is how many it stands for."""
        self.values += values
        if id(node) in self.around or self.values > MOST_VALUES:
            why = "an alias holds itself" if id(node) in self.around else "the aliases unfold to too many values"
            raise yaml.MarkedYAMLError(None, None, why, node.start_mark)

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        """Unfold a mapping; a key that is not text or comes twice is a problem."""
        out: dict[str, Any] = {}
        for key_node, value_node, own in self.pairs(node, loc):
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAGS + "str":
                self.problems.append(Problem(line, loc, "keys are text; put a key that looks like a number in quotes"))
                continue
            here = (*loc, key_node.value)
            if key_node.value not in out:
                self.lines[here] = line
                out[key_node.value] = self.value(value_node, here)
            elif own:
                self.problems.append(Problem(line, here, f"given twice, first in line {self.lines[here]}"))
        return out

    def pairs(self, node: yaml.MappingNode, loc: Loc) -> list[tuple[yaml.Node, yaml.Node, bool]]:
        """List keys and values of a mapping: its own first (True), then those that `<<` names (False)."""
        own: list[tuple[yaml.Node, yaml.Node, bool]] = []
        merged: list[tuple[yaml.Node, yaml.Node, bool]] = []
        for key, value in node.value:
            if key.tag != _TAGS + "merge":
                own.append((key, value, True))
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                self.count(source)
                if isinstance(source, yaml.MappingNode):
                    inner = self.pairs(source, loc)
                    self.count(source, len(inner))
                    merged += [(key, value, False) for key, value, _own in inner]
                else:
                    text = "'<<' needs a mapping, such as *name"
                    self.problems.append(Problem(source.start_mark.line + 1, loc, text))
        return own + merged

    def scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        """Read one scalar by its tag; half a character, a number that does not fit, and a foreign tag are problems."""
        text: str = node.value
        kind = node.tag.removeprefix(_TAGS)
        try:
            if kind == "str" and not _NO_NAME.search(text):
                return text
            if kind == "null":
                return None
            if kind == "bool" and text.lower() in {"true", "false"}:
                return text.lower() == "true"
            if kind == "int":
                return _whole(text)
            if kind == "float" and math.isfinite(float(text)):
                return float(text)
            why = _WRONG.get(kind, _NO_TAGS)
        except ValueError:
            why = "is no number that can be read; put it in quotes if it is text"
        self.problems.append(Problem(node.start_mark.line + 1, loc, why))
        return None


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(text[:LONGEST_NUMBER])
    return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
