"""The example file and the JSON Schema are made from the code, and are right."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from pix4d_watcher.config import SETTINGS_KEYS, Settings, example_yaml, explain, json_schema, load

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLE = CONFIG / "pix4d-watcher.example.yaml"
SCHEMA = CONFIG / "pix4d-watcher.schema.json"


def is_valid(data):
    return jsonschema.Draft202012Validator(json_schema()).is_valid(data)


def test_both_files_are_current(tmp_path):
    """What the command writes is what lies in config/; if not, run python -m pix4d_watcher.config."""
    command = [sys.executable, "-m", "pix4d_watcher.config", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    for current in (EXAMPLE, SCHEMA):
        assert (tmp_path / current.name).read_text("utf-8") == current.read_text("utf-8"), current.name


def test_the_example_loads_and_is_silent():
    """The example needs no correction and earns no warning."""
    settings = load(EXAMPLE)
    assert settings.warnings == ()
    assert str(EXAMPLE) in explain(settings, None)


def test_the_example_names_every_key():
    """Each key that exists stands in the example, set or commented out."""
    keys = set(re.findall(r"^\s*(?:- )?#?([a-z0-9_]+):", example_yaml(), re.MULTILINE))
    assert keys == {name.rpartition(".")[2] for name in SETTINGS_KEYS}


def test_every_commented_default_can_be_uncommented(tmp_path):
    """Each # in front of a key, taken away alone or all together, leaves a file that means the same."""
    lines = example_yaml().splitlines()
    hidden = [index for index, line in enumerate(lines) if re.match(r"\s*#[a-z]", line)]
    path = tmp_path / "example.yaml"
    path.write_text(example_yaml())
    meant = load(path)
    assert len(hidden) > 20
    for chosen in [*([index] for index in hidden), hidden]:
        shown = [line.replace("#", "", 1) if index in chosen else line for index, line in enumerate(lines)]
        path.write_text("\n".join(shown))
        assert load(path).model_dump() == meant.model_dump()


def test_the_example_is_valid_by_the_schema():
    """Editors that use the schema find nothing wrong with the example, nor with all its defaults uncommented."""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    for text in (example_yaml(), re.sub(r"^(\s*)#([a-z])", r"\1\2", example_yaml(), flags=re.MULTILINE)):
        assert is_valid(yaml.safe_load(text))
    assert json.loads(SCHEMA.read_text("utf-8")) == json_schema()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("watch", []),
        ("cloud", {"client_secret": "x"}),
        ("cloud", {"url": "ftp://x"}),
        ("upload", {"connections": 65}),
        ("upload", {"multipart_threshold": "huge"}),
        ("advanced", {"doubt_wait": 60}),
        ("watch", [{"name": "a b", "path": "x"}]),
        ("watch", [{"name": "a"}]),
        ("watch", [{"name": "a", "path": "x", "checks": {"unknown": "off"}}]),
        ("watch", [{"name": "a", "path": "x", "checks": {"duplicates": "maybe"}}]),
        ("watch", [{"name": "a", "path": "x", "project": {"create": {"name": "n"}}}]),
        ("watch", [{"name": "a", "path": "x", "outputs": "some"}]),
        ("notify", {}),
    ],
)
def test_schema_and_program_refuse_the_same(key, value):
    """What an editor underlines is what check-config refuses."""
    data = {"watch": [{"name": "a", "path": "x"}]}
    assert is_valid(data)
    data[key] = value
    assert not is_valid(data)
    with pytest.raises(ValueError, match="validation error"):
        Settings.model_validate(data)
