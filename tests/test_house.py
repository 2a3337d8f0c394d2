"""The house rules of CONTRIBUTING.md that a machine can check."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# Imports go one way: a room may import its own group and the groups before it.
GROUPS = (
    ("workarounds", "notice"),
    ("missing", "support"),
    ("dataspec", "reach"),
    ("base", "batching", "devices", "disk", "fingerprint", "interop", "interrupt"),
    ("checkpoint",),
    ("latent", "priors", "recentred", "boxed", "simulate", "draws"),
    ("networks", "densities", "fields", "samplers", "noise", "tasks", "transforms"),
    ("methods",),
    ("splitting", "training", "windows", "loop", "online", "fit", "marginals", "importance"),
    (
        "emulators",
        "abc",
        "compression",
        "sequential",
        "comparison",
        "saving",
        "external",
        "store",
        "reading",
    ),
    ("diagnostics", "plots"),
)
RANK = {room: rank for rank, group in enumerate(GROUPS) for room in group}
ALLOWED = {"tasks": {"tasks", "base", "latent", "priors", "simulate"}}

FORBIDDEN = ("pypi" + ".org", "files.python" + "hosted", "/wo" + "rk/", ".lib" + "rary")
BINARY = {".png", ".jpg", ".npz", ".npy", ".bz2", ".gz", ".msgpack", ".pdf"}


def _tracked() -> list[Path]:
    """Return the files of the repository: tracked, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the house rules are checked in a git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def _python(*folders: str) -> list[Path]:
    """Return the Python files below the given top-level folders."""
    return [
        path
        for path in _tracked()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders
    ]


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines a function has, its docstring not counted."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _imported(tree: ast.AST) -> set[str]:
    """Return the dotted modules a file imports at run time, lazy imports included."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if _is_type_checking(node):
            names.update(*(_imported(branch) for branch in node.orelse))
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        else:
            names |= _imported(node)
    return names


def test_files_are_short():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _python("jaxsbi", "benchmarks", "examples", "tests")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }
    assert not long, f"files of more than {MAX_FILE_LINES} lines: split them by what they do"


def test_functions_are_short():
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": lines
        for path in _python("jaxsbi", "benchmarks", "examples", "tests")
        for node in ast.walk(_parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := _code_lines(node)) > MAX_FUNCTION_LINES
    }
    assert not long, f"functions of more than {MAX_FUNCTION_LINES} lines: split them"


def test_every_room_has_its_place():
    rooms = {path.relative_to(ROOT).parts[1].removesuffix(".py") for path in _python("jaxsbi")}
    assert rooms - {"__init__"} <= set(RANK), "give each new room its place in GROUPS"


def test_imports_go_one_way():
    wrong = []
    for path in _python("jaxsbi"):
        room = path.relative_to(ROOT).parts[1].removesuffix(".py")
        if room == "__init__":
            continue
        for name in sorted(_imported(_parse(path))):
            package, *rest = name.split(".")
            if package in ("benchmarks", "examples", "tests"):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if package != "jaxsbi":
                continue
            target = rest[0] if rest else "jaxsbi"
            fine = target in RANK and RANK[target] <= RANK.get(room, -1)
            if room in ALLOWED:
                fine = target in ALLOWED[room]
            if not fine:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "a room knows only the rooms before it (see GROUPS)"


def test_no_machine_is_named():
    found = []
    for path in _tracked():
        if path.suffix in BINARY:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN if word in text]
    assert not found, "no package host and no path of one machine in the repository"
