"""The YAML dialect: strict, bounded, with places."""

import pytest

from pix4d_watcher.config.yamlfile import LARGEST_FILE, read_yaml
from pix4d_watcher.core.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yaml(path)

    return read_text


@pytest.fixture
def refused(read):
    def refuse(text):
        with pytest.raises(ConfigError) as caught:
            read(text)
        (problem,) = caught.value.problems
        return problem.partition("c.yaml")[2]

    return refuse


def test_scalars_are_those_of_yaml_1_2(read):
    """Only true and false are booleans; on, off, no, dates, times and version-like words stay text."""
    document = read(
        "{a: off, b: on, c: no, d: yes, e: y, f: true, g: False, h: 2024-05-17, i: 12:30:45, j: 010, k: 0o17,"
        " l: 0x1f, m: 1e3, n: .5, o: ~, p: null, q: , r: 1_000, s: .inf, t: -7}"
    )
    assert not document.problems
    assert document.data == {
        "a": "off", "b": "on", "c": "no", "d": "yes", "e": "y", "f": True, "g": False, "h": "2024-05-17",
        "i": "12:30:45", "j": 10, "k": 15, "l": 31, "m": 1000.0, "n": 0.5, "o": None, "p": None, "q": None,
        "r": "1_000", "s": ".inf", "t": -7,
    }  # fmt: skip


def test_every_key_and_entry_has_its_line(read):
    """Lines count from 1; what is not in the file has the line of what is around it."""
    document = read("a:\n  - b: 1\n    c: [x,\n      y]\n\nd: 2\n")
    assert document.lines[("a",)] == 1
    assert document.lines[("a", 0, "c")] == 3
    assert document.lines[("a", 0, "c", 1)] == 4
    assert document.line(("a", 0, "missing", "below")) == 2
    assert document.line(("d",)) == 6


def test_double_keys_are_told_with_both_lines(read):
    """The second of two equal keys is a problem that names the first, and reading goes on."""
    document = read("a:\n  b: 1\n  b: 2\na: 3\n")
    assert [(p.line, p.loc, p.text) for p in document.problems] == [
        (3, ("a", "b"), "given twice, first in line 2"),
        (4, ("a",), "given twice, first in line 1"),
    ]


def test_aliases_and_merges_work(read):
    """Aliases repeat a value; << fills in what an entry does not say itself, the first source first."""
    document = read("x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], a: 9}\nw: *x\n")
    assert not document.problems
    assert document.data["z"] == {"a": 9, "b": 2, "c": 4}
    assert document.data["w"] == {"a": 1, "b": 2}
    assert read("z: {<<: 5}").problems[0].text == "'<<' needs a mapping, such as *name"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1: a", "keys are text"),
        ("{[a]: b}", "keys are text"),
        ("a: !!python/object/apply:os.getcwd []", None),
        ("a: !secret x", "has a tag that has no meaning here"),
        ("a: 1e999", "too large for a number"),
        ("a: " + "9" * 5000, "no number that can be read"),
        ("a: !!int x", "no number that can be read"),
    ],
)
def test_what_is_no_plain_value_is_a_problem(read, text, problem):
    """Odd keys, tags and numbers are told with their line, and no tag ever makes an object."""
    document = read(text)
    if problem is None:
        assert document.data == {"a": []}
    else:
        assert problem in document.problems[0].text
        assert document.problems[0].line == 1


def test_syntax_errors_have_line_and_column_and_show_no_content(refused):
    """A YAML error names its place; the line itself is not repeated, it could hold a secret."""
    text = refused("a: 1\nclient_secret: hush: hush\n")
    assert text.startswith(":2:20: YAML error: mapping values are not allowed here")
    assert "hush" not in text
    assert "spaces, not with tabs" in refused("a:\n\tb: 1\n")
    assert refused("a: *nobody\n").startswith(":1:4: YAML error: found undefined alias")
    assert "YAML error" in refused("a: 1\n---\nb: 2\n")


def test_unbounded_files_end_with_a_text(refused, tmp_path):
    """Aliases of aliases, aliases of themselves, deep nesting and huge files are refused, not suffered."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    assert "unfold to too many values" in refused(bomb)
    merges = "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10)
    )
    assert "unfold to too many values" in refused(merges)
    assert "an alias holds itself" in refused("a: &a [*a]\n")
    assert "an alias holds itself" in refused("a: &a {<<: *a}\n")
    assert "nested too deeply" in refused("[" * 5000)
    assert "larger than 1 MiB" in refused(b"#" * (LARGEST_FILE + 1))


def test_files_that_cannot_be_read_are_told(refused, tmp_path):
    """Missing, a directory, empty, not UTF-8, with control characters: each has its text."""
    for path, text in ((tmp_path / "none", "no such file"), (tmp_path, "cannot be read: Is a directory")):
        with pytest.raises(ConfigError, match=text):
            read_yaml(path)
    assert refused("").startswith(":1: the file is empty")
    assert refused("# only a comment\n").startswith(":1: the file is empty")
    assert refused(b"a: 1\nb: M\xe9moire\n").startswith(":2: not UTF-8")
    assert refused("a: 1\n\nb: \x07\n").startswith(":3: a control character (#x07)")


def test_a_byte_order_mark_does_no_harm(read):
    """Files from Windows editors, with a byte order mark and CRLF, are read."""
    assert read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n").data == {"a": 1, "b": 2}
