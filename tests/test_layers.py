"""Dependencies run one way: the table of pix4d_watcher/README.md, held by walking the imports."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pix4d_watcher"
FOUNDATION = {"core"}
MIDDLE = FOUNDATION | {"journal", "host", "config", "cloud"}
ROOMS = MIDDLE | {"intake", "web", "notify"}
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli"},
    "core": set(),
    "journal": FOUNDATION,
    "host": FOUNDATION,
    "config": FOUNDATION,
    "cloud": FOUNDATION,
    "intake": {"core", "host", "config"},
    "web": {"core", "journal"},
    "notify": {"core", "journal"},
    "engine": ROOMS,
    "service": ROOMS | {"engine"},
    "doctor": MIDDLE | {"intake", "engine"},
    "cli": ROOMS | {"engine", "service", "emulator", "doctor"},
    "emulator": set(),
}
# What has an effect or waits: core must be free of it. Enough to catch what would be reached for first.
NOT_PURE = {
    "asyncio",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "shutil",
    "socket",
    "sqlite3",
    "subprocess",
    "time",
} | {
    "multiprocessing",
    "tempfile",
    "threading",
    "urllib",
}


def rooms_and_files():
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file.relative_to(PACKAGE).parts[0].removesuffix(".py"), file


def imported(file):
    """Yield the full name of every module or name that a file imports, at the top or inside functions."""
    package = ("pix4d_watcher", *file.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("room", "file"), list(rooms_and_files()), ids=lambda value: str(getattr(value, "name", value))
)
def test_dependencies_run_one_way(room, file):
    """Each room imports only the rooms that the table allows it."""
    assert room in MAY_IMPORT, f"{room} has no place in the table: say what it may import"
    others = {name.split(".")[1] for name in imported(file) if name.startswith("pix4d_watcher.")}
    forbidden = others - MAY_IMPORT[room] - {room, "__version__"}
    assert not forbidden, f"{file.relative_to(PACKAGE)} imports {', '.join(sorted(forbidden))}"


def test_core_is_pure():
    """Core reads no disk, clock or network, starts no thread, and needs nothing but the standard library."""
    for room, file in rooms_and_files():
        if room != "core":
            continue
        foreign = {name.split(".")[0] for name in imported(file)} - {"pix4d_watcher", "__future__"}
        assert not foreign & NOT_PURE, f"{file.name} imports {foreign & NOT_PURE}"
        assert foreign <= sys.stdlib_module_names, f"{file.name} imports {foreign - sys.stdlib_module_names}"
