"""A folder's pix4d.yaml: what it may set, every problem at once, and nothing that it holds does harm."""

import tracemalloc

import pytest

from pix4d_watcher.config import RootSettings
from pix4d_watcher.config.folderfile import LARGEST, LONGEST, MOST_TOLD, parse_folder_file
from pix4d_watcher.core.errors import ConfigError

ALL = ("name", "create", "processing")


def root(**more):
    return RootSettings(name="survey", path="/srv/drop", **{"folder_may": ALL, **more})


def read(text, **more):
    raw = text if isinstance(text, bytes) else text.encode()
    return parse_folder_file(raw, root(**more)).overrides()


def problems(text, **more):
    with pytest.raises(ConfigError) as refused:
        read(text, **more)
    assert all(len(line) <= LONGEST and line.isprintable() for line in refused.value.problems)
    assert len(refused.value.problems) <= MOST_TOLD + 1
    return refused.value.problems


def test_everything_that_can_be_set():
    """Each key comes back as it stands in the file; mappings are left as they are."""
    text = """
name: "{date} {folder} Süd"
create: {project_type: pro, billing_model: null}
processing:
  nested: {quality: [1, 2.5, true, off], text: "{prefix}/a"}
start: manual
approve_above: 12
join: [harbour_2, "harbour 3"]
"""
    assert read(text) == {
        "name": "{date} {folder} Süd",
        "create": {"project_type": "pro", "billing_model": None},
        "processing": {"nested": {"quality": [1, 2.5, True, "off"], "text": "{prefix}/a"}},
        "start": "manual",
        "approve_above": 12,
        "join": ["harbour_2", "harbour 3"],
    }


def test_what_is_always_allowed():
    """Tightening and joining need no permission of the administrator."""
    assert read("start: manual\napprove_above: 5\njoin: [b]", folder_may=()).keys() == {
        "start",
        "approve_above",
        "join",
    }
    assert read("approve_above: 5", approve_above=5, start="manual") == {"approve_above": 5}
    assert read("start: auto") == {"start": "auto"}


@pytest.mark.parametrize("key", ALL)
def test_what_needs_permission(key):
    """A key that the administrator did not allow is a problem that says who must allow it, and how."""
    value = "x" if key == "name" else "{a: 1}"
    (text,) = problems(f"\n{key}: {value}\n", folder_may=set(ALL) - {key})
    assert text.startswith(f"pix4d.yaml:2: {key}: is not allowed here")
    assert f"the administrator must allow it with folder_may: [{key}] of 'survey'" in text
    assert read(f"{key}: {value}", folder_may=[key]).keys() == {key}


def test_all_problems_at_once():
    """Every problem is told with its line, in the order of the lines."""
    text = """nme: harbour
name: 7
start: auto
approve_above: 30
create: {name: x}
join: harbour_2
after: delete
path: /etc
processing:
"""
    told = problems(text, start="manual", approve_above=10, folder_may=["name", "processing"])
    assert [line.split(": ")[:2] for line in told] == [
        ["pix4d.yaml:1", "nme"],
        ["pix4d.yaml:2", "name"],
        ["pix4d.yaml:3", "start"],
        ["pix4d.yaml:4", "approve_above"],
        ["pix4d.yaml:5", "create"],
        ["pix4d.yaml:5", "create"],
        ["pix4d.yaml:6", "join"],
        ["pix4d.yaml:7", "after"],
        ["pix4d.yaml:8", "path"],
        ["pix4d.yaml:9", "processing"],
    ]
    text = "\n".join(told)
    assert "did you mean 'name'?" in text
    assert text.count("can only be tightened") == 2
    assert text.count("cannot be set by a folder, only in the configuration") == 2
    assert "has no value" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("start: never", "must be 'auto' or 'manual'"),
        ("approve_above: -1", "must be at least 0"),
        ("approve_above: '3'", "must be a number"),
        ("approve_above: true", "must be a number"),
        ("approve_above: .inf", "must be a number"),
        ("approve_above: null", "has no value"),
        ("name: ''", "must not be empty"),
        ("name: '{pilot}'", "unknown placeholder {pilot}"),
        ('name: "a\\nb"', "cannot be shown"),
        ("join: []", "is empty"),
        ("join: [a, ../b]", "join[1]: must be the name of a folder"),
        ("processing: [1]", "must be a mapping"),
        ("- name", "must be a mapping"),
        ("", "the file is empty"),
        ("# name: harbour\n", "the file is empty"),
        ("name: a\nname: b", "given twice, first in line 1"),
        ("name: [a", "YAML error"),
    ],
)
def test_problems(text, said):
    """What is wrong is said in words that help."""
    assert said in "\n".join(problems(text))


def laughs():
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


def long_text_many_times():
    return f"processing:\n  a: &a {'x' * 30_000}\n  b: [{', '.join(['*a'] * 8000)}]"


def merges_of_merges():
    many = ", ".join(f"k{n}: 1" for n in range(2000))
    return f"a: &a {{{many}}}\nb: &b {{<<: [{', '.join(['*a'] * 2000)}]}}\nc: {{<<: [{', '.join(['*b'] * 2000)}]}}"


HOSTILE = {
    "a billion laughs": laughs(),
    "a long text many times": long_text_many_times(),
    "merges of merges": merges_of_merges(),
    "an alias of itself": "processing: &a {b: *a}",
    "a tag": "name: !!python/object/apply:os.system ['true']",
    "deep lists": "[" * 60_000,
    "deep mappings": "{a: " * 15_000,
    "deep body": "processing: " + "{a: " * 30 + "1" + "}" * 30,
    "deep blocks": "\n".join(" " * n + "a:" for n in range(340)),
    "too large": "# " + "x" * LARGEST,
    "binary": bytes(range(256)),
    "UTF-16": "name: a".encode("utf-16"),
    "zeros": bytes(1000),
    "an image": b"\xff\xd8\xff\xe0" + bytes(5000),
    "half of a pair": 'name: "\\ud800"',
    "half of a pair as a key": '"\\ud800": 1',
    "half of a pair in a body": 'processing: {a: {"\\udc00": 1}}',
    "a NUL in a body": 'processing: {a: ["\\0"]}',
    "an endless number": "processing: {a: 0x" + "f" * 50_000 + "}",
    "an endless number for a limit": "approve_above: 0x" + "f" * 50_000,
    "an endless number for a name": "name: " + "9" * 50_000,
    "an endless key": "k" * 900 + ": 1",
    "an unprintable key": '"\\e[31mred\\a": 1',
    "thousands of problems": "\n".join(f"k{n}: 1" for n in range(6000)),
    "an endless anchor": "name: *" + "a" * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_do_no_harm(name):
    """Whatever is dropped ends as a short list of problems."""
    assert problems(HOSTILE[name])


@pytest.mark.parametrize("name", ["a billion laughs", "a long text many times", "merges of merges"])
def test_little_text_stays_little(name):
    """What aliases multiply is never unfolded in memory."""
    tracemalloc.start()
    try:
        assert problems(HOSTILE[name])
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20
