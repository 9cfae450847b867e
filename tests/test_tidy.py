"""The rules of the house, as far as a program can check them: who imports whom, sizes, names, and what is forbidden."""

import ast
import io
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from esm.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "esm").rglob("*.py"))

FUNCTION_LINES_MAX = 40
MODULE_LINES_MAX = 400

ADAPTERS = {"sources", "targets", "destinations", "stores", "host"}
MAY_SEE = {
    "model": set(),
    "errors": {"model"},
    "rules": {"model", "errors"},
    "ports": {"model", "errors"},
    "aws": {"model", "errors"},
    "exposition": {"model"},
    "telemetry": {"model", "errors", "exposition"},
    "watched": {"errors"},
    **{room: {"model", "rules", "ports", "errors", "telemetry", "aws", "watched"} for room in ADAPTERS},
    "catalogue": {"model", "rules", "ports", "errors", "telemetry"},
    "runtime": {"model", "rules", "ports", "errors", "telemetry"},
    "api": {"model", "rules", "ports", "errors", "telemetry", "catalogue"},
    "settings": {"errors"},
    "config": {"model", "rules", "errors", "settings"},
    "crew": {"model", "rules", "errors", "settings", "stores", "api"},
    "demo": {"errors"},
    "state": {"model", "ports", "settings", "config", "aws", "stores"},
    "filtering": {"model", "rules", "errors"},
}
"""Which rooms of ours a room may import, besides itself."""
SEES_EVERYTHING = {
    "backing", "calling", "daemon", "cli", "forgetting", "hosting", "inspection", "joining", "migration", "operating",
    "status", "wishes", "__main__",
}  # fmt: skip
"""What composes the program, and the commands."""

IMPURE = {"anyio", "asyncio", "time", "random", "uuid", "os", "logging", "botocore", "aiobotocore", "aiohttp", "socket"}
FORBIDDEN = {"model": IMPURE, "rules": IMPURE, "runtime": {"asyncio", "sqlite3", "aiohttp", "botocore", "aiobotocore"}}
"""What a room may not import of others'. In `runtime` that is what lets the real loops run on a virtual clock."""

NAMELESS = {"utils", "util", "helpers", "common", "base", "manager", "handler", "service", "factory", "misc"}
"""A module is named for what it knows."""

TOP = {
    ".ci", ".dockerignore", ".gitignore", "Dockerfile", "LICENSE", "Makefile", "README.md",
    "config", "constraints.txt", "deploy", "esm", "pyproject.toml", "tests",
}  # fmt: skip
"""Everything that stands at the top of the repository."""

READS_THE_ENVIRONMENT = {
    "esm/cli.py",
    "esm/settings.py",
    "esm/host/launcher.py",  # these two run in a function's own process, and read the function's environment
    "esm/host/any_python/runtime_client.py",
}
SURVIVES_EVERYTHING = {"esm/runtime/supervisor.py"}
"""The one bulkhead."""


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "esm").with_suffix("").parts
    return parts[0]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """The full names that a module imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}:{node.lineno}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_seen(path: Path) -> set[str]:
    """Rooms of ours that a module imports; `esm` itself holds but the version."""
    found = {name.split(".")[1] for name in imports(path) if name.startswith("esm.")}
    return {name for name in found if (ROOT / "esm" / name).is_dir() or (ROOT / "esm" / f"{name}.py").is_file()}


@cache
def repository() -> list[Path]:
    """Every file that is, or could be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@cache
def texts() -> list[tuple[Path, str]]:
    return [(path, path.read_text(encoding="utf-8")) for path in repository()]


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_module_sees_only_the_rooms_that_it_may_see(path):
    own = room(path)
    if path == ROOT / "esm" / "__init__.py" or own in SEES_EVERYTHING:
        return

    assert rooms_seen(path) - {own} <= MAY_SEE[own]


def test_every_room_has_its_law():
    rooms = {room(path) for path in MODULES} - {"__init__"}

    assert rooms - MAY_SEE.keys() - SEES_EVERYTHING == set()


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) in FORBIDDEN], ids=shown)
def test_rules_have_no_world_and_the_loops_no_event_loop_of_their_own(path):
    used = {name.split(".")[0] for name in imports(path)}

    assert used & FORBIDDEN[room(path)] == set()


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) in {"model", "rules"}], ids=shown)
def test_nothing_that_is_decided_rests_on_hash(path):
    calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]

    assert [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "hash"] == []


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) == "rules"], ids=shown)
def test_a_rule_never_waits(path):
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    assert [node.lineno for node in ast.walk(tree(path)) if isinstance(node, waiting)] == []


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) == "runtime"], ids=shown)
def test_the_loops_start_no_thread(path):
    names = {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}

    assert not names & {"to_thread", "run_sync", "Thread", "ThreadPoolExecutor"}
    assert [name for name in imports(path) if "to_thread" in name or name.startswith(("threading", "concurrent"))] == []


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_functions_are_at_most_40_lines_and_modules_400(path):
    code = code_lines(path)
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    too_long = {
        f"{node.name}: {count}"
        for node in functions
        if (count := len([line for line in code if node.lineno <= line <= (node.end_lineno or 0)])) > FUNCTION_LINES_MAX
    }

    assert too_long == set()
    assert len(code) <= MODULE_LINES_MAX


def code_lines(path: Path) -> set[int]:
    """The numbers of the lines that hold code: not blank, not a comment, not within a docstring."""
    lines: set[int] = set()
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type not in ignored:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_module_says_what_it_is(path):
    docstring = ast.get_docstring(tree(path))

    assert docstring
    assert path.stem not in NAMELESS
    assert path.parent.name not in NAMELESS


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_only_the_bulkhead_catches_everything(path):
    handlers = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ExceptHandler)]
    broad = [node.lineno for node in handlers if catches_everything(node)]

    assert broad == [] or shown(path) in SURVIVES_EVERYTHING


def catches_everything(node: ast.ExceptHandler) -> bool:
    """Whether errors of any kind end here; those that only pass by (the handler ends in a bare raise) do not."""
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    is_broad = any(one is None or (isinstance(one, ast.Name) and one.id.endswith("Exception")) for one in caught)
    last = node.body[-1]
    return is_broad and not (isinstance(last, ast.Raise) and last.exc is None)


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_only_settings_and_the_command_read_the_environment(path):
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }

    assert not used & {"os.environ", "os.getenv", "os.environb"} or shown(path) in READS_THE_ENVIRONMENT


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_only_telemetry_writes_logs(path):
    tellers = {"esm/telemetry.py", "esm/crew/telling.py", "esm/demo/embedded.py"}

    assert "logging" not in imports(path) or shown(path) in tellers


def test_the_top_of_the_repository_is_what_the_design_says():
    assert {path.relative_to(ROOT).parts[0] for path in repository()} - TOP == set()


def test_no_file_is_empty():
    assert [shown(path) for path in repository() if path.stat().st_size == 0] == []


def test_nothing_is_left_for_later():
    marks = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")

    assert [shown(path) for path, text in texts() if marks.search(text) and path != Path(__file__)] == []


def test_comments_are_neither_banners_nor_code():
    banner = re.compile(r"(?m)^\s*#\s*[-=#*~]{4,}")
    code = re.compile(r"(?m)^\s*# ?(?:def |class |import |from \w+ import |if .*:$|return\b.*[()\[\]]|\w+ = .*\($)")
    python = [(path, text) for path, text in texts() if path.suffix == ".py"]

    assert [shown(path) for path, text in python if banner.search(text)] == []
    assert [shown(path) for path, text in python if code.search(text)] == []


def test_no_file_names_a_machine_or_a_registry():
    places = re.compile(r"/(?:home/\w\w+|root|Users|work)/\w|https?://(?:[\w.-]+\.)?(?:pypi|pythonhosted|npmjs)\.\w+")

    assert [shown(path) for path, text in texts() if places.search(text) and path != Path(__file__)] == []


def test_every_setting_that_a_file_names_is_known():
    known = {f"ESM_{name.upper()}" for name in Settings.model_fields}
    folders = {"config", "deploy", "Dockerfile", "README.md", "Makefile", ".ci"}
    named = {
        name
        for path, text in texts()
        if path.relative_to(ROOT).parts[0] in folders
        for name in re.findall(r"\bESM_[A-Z0-9_]*[A-Z0-9]\b(?!_)", text)
    }

    assert named - known == set()


def test_every_package_is_in_the_wheel():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in MODULES}

    assert folders == set(setuptools["packages"]) - set(setuptools["package-dir"])


def test_the_licence_is_apache_2():
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text(encoding="utf-8")
