"""The house rules that no linter knows."""

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = sorted((ROOT / "pix4d_watcher").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BROAD = {"Exception", "BaseException"}

# Written in pieces, so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w<>{}.\])*~-])/(?:wo" + r"rk|ro" + r"ot|fa" + r"rm)(?=[/\s\"'`:,)]|$)")
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
SECRET = re.compile(
    r"\bA[KS]IA(?![A-Z0-9]*EXAMPLE)[A-Z0-9]{16}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----\n"
    r"|\bgh[pousr]_\w{30,}|\bxox[abpr]-[\w-]{10,}"
    r"|\beyJ[\w-]{20,}\.[\w-]{20,}\.[\w-]{20,}"
    r"|(?i:secret)\w*[\"']?\s*[:=]\s*[\"'](?![\w/+]*EXAMPLE)[\w/+]{40}[\"']"
)
REGISTRY = re.compile(r"(?:index|find)-(?:ur" + r"l|lin" + r"ks)\b")


@cache
def tree(file):
    return ast.parse(file.read_bytes(), str(file))


def name_of(file):
    return str(file.relative_to(ROOT))


def tracked():
    """List what git keeps or would keep; everything but hidden directories where there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True,
            capture_output=True,
            timeout=60,
        )
    except (OSError, subprocess.CalledProcessError):
        return [file for file in ROOT.rglob("*") if file.is_file() and "/." not in f"/{file.relative_to(ROOT)}"]
    names = filter(None, done.stdout.decode().split("\0"))
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def public_definitions(node, prefix=""):
    """Yield each public class, function and method with its dotted name; what is inside functions is private."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child, f"{prefix}{child.name}.")


@pytest.mark.parametrize("file", TESTS, ids=name_of)
def test_every_test_states_its_promise(file):
    """A test says in its docstring what it promises."""
    functions = [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    silent = [node.name for node in functions if node.name.startswith("test") and not ast.get_docstring(node)]
    assert not silent


@pytest.mark.parametrize("file", PRODUCT, ids=name_of)
def test_every_public_thing_is_explained(file):
    """Modules, public classes and public functions have docstrings."""
    assert ast.get_docstring(tree(file)), "the module"
    assert not [name for name, node in public_definitions(tree(file)) if not ast.get_docstring(node)]


@pytest.mark.parametrize("file", PRODUCT, ids=name_of)
def test_no_broad_except(file):
    """Only the top of a loop may catch everything, and says so on the line."""
    lines = file.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree(file)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)} if node.type else BROAD
        broad = caught & BROAD and "# loop top:" not in lines[node.lineno - 1]
        assert not broad, f"line {node.lineno}: {lines[node.lineno - 1].strip()}"


@pytest.mark.parametrize("file", [file for file in PRODUCT if "emulator" not in file.parts], ids=name_of)
def test_no_sleep(file):
    """Every wait can be woken: threading.Event().wait and not time.sleep."""
    for node in ast.walk(tree(file)):
        sleeps = (isinstance(node, ast.Attribute) and node.attr == "sleep") or (
            isinstance(node, ast.ImportFrom) and "sleep" in {alias.name for alias in node.names}
        )
        assert not sleeps, f"line {node.lineno}"


@pytest.mark.parametrize("file", PRODUCT, ids=name_of)
def test_modules_are_small(file):
    """No module is longer than 400 lines."""
    assert len(file.read_bytes().splitlines()) <= 400


@pytest.mark.parametrize(
    ("what", "pattern"),
    [("machine path", MACHINE_PATH), ("unfinished work", UNFINISHED), ("secret", SECRET), ("registry", REGISTRY)],
    ids=["machine path", "unfinished work", "secret", "registry"],
)
def test_no_file_holds(what, pattern):
    """No kept file shows where it was made, what is not finished, or a secret."""
    found = []
    for file in tracked():
        text = file.read_text(encoding="utf-8", errors="replace")
        found += [
            f"{name_of(file)}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}" for hit in pattern.finditer(text)
        ]
    assert not found, what


def test_rules_find_what_they_look_for():
    """The patterns above recognise the real thing."""
    assert MACHINE_PATH.search("see /wo" + "rk/x")
    assert MACHINE_PATH.search('HOME="/ro' + 'ot"')
    assert not MACHINE_PATH.search("results/<root>/<folder> and a/root/b and /rooted")
    assert UNFINISHED.search("# TO" + "DO: later")
    assert SECRET.search("AKIA" + "Q" * 16)
    assert SECRET.search("secret_key = '" + "a1B2" * 10 + "'")


def test_every_dependency_has_its_reason():
    """Each dependency stands on a line of its own with a comment that says what it is for."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    lines = text.splitlines()
    for dependency in wanted:
        (line,) = [line for line in lines if f'"{dependency}"' in line]
        assert re.search(r"# \w+", line), f"{dependency} has no reason"
