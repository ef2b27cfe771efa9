"""Make the example file and the JSON Schema from the models, so that neither can be out of date.

Owns those two texts. `python -m pix4d_watcher.config` writes them, a test compares them with the files.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

from pix4d_watcher.config.settings import Settings

EXAMPLE_NAME = "pix4d-watcher.example.yaml"
SCHEMA_NAME = "pix4d-watcher.schema.json"

_WIDTH = 100
_HEAD = f"""\
# yaml-language-server: $schema={SCHEMA_NAME}
#
# Configuration of pix4d-watcher. This file is made from the program: python -m pix4d_watcher.config
# Lines that start with # and a space explain; a # right before a key shows a key with its default: remove the # to
# change it. `pix4d-watcher check-config` shows what was understood.
"""


def json_schema() -> dict[str, Any]:
    """Build the JSON Schema (draft 2020-12) of the configuration, for editors and other programs."""
    schema = Settings.model_json_schema(mode="validation")
    for model in (schema, *schema["$defs"].values()):
        for field in model.get("properties", {}).values():
            if "$ref" in field:  # a section whose keys are all commented out reads as null, and is accepted
                field["anyOf"] = [{"$ref": field.pop("$ref")}, {"type": "null"}]
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | schema | {"title": "pix4d-watcher configuration"}


def example_yaml() -> str:
    """Build an example with every key: those that a small setup needs are set, the rest is commented with defaults."""
    schema = json_schema()
    lines = _HEAD.splitlines()
    for name, field in schema["properties"].items():
        lines += ["", *_entry(schema, name, field, indent="")]
    return "\n".join(lines) + "\n"


def settings_table() -> str:
    """Build the table of all settings for the README: dotted name, default, meaning."""
    schema = json_schema()
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        rows += _rows(schema, name, field)
    return "\n".join(rows) + "\n"


def _rows(schema: dict[str, Any], name: str, field: dict[str, Any]) -> list[str]:
    model, in_list = _model_of(schema, field)
    if model is None:
        default = f"`{_shown(field['default'])}`" if "default" in field else "required"
        text = field.get("description", "").replace("|", "\\|")
        return [f"| `{name}` | {default} | {text} |"]
    prefix = f"{name}[]" if in_list else name
    return [row for key, value in model["properties"].items() for row in _rows(schema, f"{prefix}.{key}", value)]


def _entry(schema: dict[str, Any], name: str, field: dict[str, Any], indent: str) -> list[str]:
    """Write one key with its explanation, and the keys below it."""
    model, in_list = _model_of(schema, field)
    # pydantic leaves out a description that says the same as the model's own.
    text = field.get("description") or (model or {})["description"]
    lines = textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    if model is None:
        return [*lines, f"{indent}{_key_line(name, field)}"]
    below: list[str] = []
    for key, value in model["properties"].items():
        below += _entry(schema, key, value, indent + ("    " if in_list else "  "))
    if in_list:
        # The first key of an entry carries the dash, so its explanation goes above the dash.
        first = next(i for i, line in enumerate(below) if not line.lstrip().startswith("#"))
        below = [line[2:] for line in below[:first]] + [f"{indent}  - {below[first].lstrip()}"] + below[first + 1 :]
    return [*lines, f"{indent}{name}:", *below]


def _model_of(schema: dict[str, Any], field: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    reference = next((way["$ref"] for way in field.get("anyOf", []) if "$ref" in way), None)
    reference = reference or field.get("items", {}).get("$ref")
    if reference is None:
        return None, False
    model: dict[str, Any] = schema["$defs"][reference.rpartition("/")[2]]
    return model, "items" in field


def _key_line(name: str, field: dict[str, Any]) -> str:
    if "examples" in field:
        return f"{name}: {_shown(field['examples'][0])}"
    return f"#{name}: {_shown(field['default'])}"


def _shown(value: Any) -> str:
    """Write a default in YAML's own short form; text only in quotes where it would be read as something else."""
    if isinstance(value, str) and value and not set(value) & set("{}[]#&*!|>'\"%@`,") and ": " not in value:
        return value
    return json.dumps(value)
