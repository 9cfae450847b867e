"""Interpreters for hosted functions, each with AWS's runtime client for it: Python here, Node.js in `node`.

Law: an interpreter is taken only after it has run and has imported the client. The daemon's own version is the
interpreter below its virtual environment; others are looked for on the PATH. The compiled parts of the client fit the
daemon's own version alone: others get `any_python` in their place.
"""

import asyncio
import compileall
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host.node import find_node
from esm.host.runtimes import Kind, Mapped, kind_of

_PACKAGES = ("awslambdaric", "simplejson", "snapshot_restore_py")
_COMPILED = "runtime_client"
_PURE = Path(__file__).parent / "any_python" / "runtime_client.py"
_CHECK_WITHIN_S = 30.0
_ISOLATED = ("-S", "-E", "-B")
_ASK = (
    "import sys, json; print(json.dumps(["
    "'python%d.%d' % sys.version_info[:2], getattr(sys, '_base_executable', '') or sys.executable]))"
)
_TRY = "import sys; sys.path.append(sys.argv[1]); import awslambdaric.__main__, runtime_client"
_NAME = re.compile(r"python3\.\d+")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """One that runs."""

    executable: str
    client: Path
    """Folder of the runtime client, made for it."""
    version: str = ""
    """Of Python, as its folders are named (`python3.11`); of Node.js, its major number."""


class Interpreters:
    """Finds each version once. `path` is where to look; None is the PATH of the daemon."""

    def __init__(self, directory: Path, path: str | None = None, mapped: Mapping[str, Mapped] | None = None) -> None:
        """`directory` holds the runtime clients; `mapped` says what to take for a Runtime, whatever it is called."""
        self._directory = directory
        self._path = path
        self._mapped = mapped or {}
        self._found: dict[str, Interpreter] = {}
        self._lock = asyncio.Lock()

    async def find(self, runtime: str) -> Interpreter:
        """The interpreter for `python3.N`, `nodejsN.x` or a name that is mapped.

        Raises: OperatorNeeded, naming what was found instead.
        """
        async with self._lock:
            found = self._found.get(runtime)
            if found is None or not found.client.exists():
                found = self._found[runtime] = await asyncio.to_thread(self._look, runtime)
            return found

    def _look(self, runtime: str) -> Interpreter:
        given = self._mapped.get(runtime)
        match kind_of(runtime):
            case Kind.PYTHON:
                return self._python(runtime, given)
            case Kind.NODE:
                return Interpreter(*find_node(runtime, self._path, given))
            case _:
                return _other(runtime, given)

    def _python(self, runtime: str, given: Mapped | None) -> Interpreter:
        own = _own_runtime()
        places = [own_executable()] if runtime == own else _on_path(runtime, self._path)
        tried: list[str] = []
        for place in [given.interpreter] if given else places:
            version, executable = _asked(place)
            if version and (given or version == runtime):
                is_own = version == own and Path(executable).resolve() == Path(own_executable()).resolve()
                return Interpreter(executable, self._client(version, executable, is_own=is_own), version)
            tried.append(f"{place} is {version}" if version else f"{place} does not run")
        others = sorted({own, *_names_on_path(self._path)} - {runtime})
        broken = f" ({'; '.join(tried)})" if tried else ""
        raise OperatorNeeded(
            f"Runtime {runtime}: no such interpreter runs here{broken}; found {', '.join(others)}:"
            f" install {runtime} on the PATH of esm, set Runtime to one that is there, or map it with"
            f" ESM_RUNTIMES={runtime}=/path/of/python"
        )

    def _client(self, runtime: str, executable: str, *, is_own: bool) -> Path:
        kind = str(sysconfig.get_config_var("SOABI")) if is_own else f"pure-{zlib.crc32(_PURE.read_bytes()):08x}"
        folder = self._directory / f"{runtime}-awslambdaric-{importlib.metadata.version('awslambdaric')}-{kind}"
        if folder.is_dir():
            return folder
        self._directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=".new-") as new:
            made = Path(new) / "client"
            _copy_client(made, with_compiled=is_own)
            _compile(made, executable, is_own=is_own)
            error = _run_error(executable, "-c", _TRY, str(made))
            if error:
                raise OperatorNeeded(
                    f"Runtime {runtime}: {executable} cannot run AWS's runtime client ({error}):"
                    " use a version that it supports, python3.10 or later"
                )
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another daemon was faster
                    raise
        return folder


def _own_runtime() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def own_executable() -> str:
    """The daemon's interpreter, below its virtual environment."""
    return str(getattr(sys, "_base_executable", "") or sys.executable)


def _folders(path: str | None) -> list[str]:
    # shutil.which would give the first alone, and that may be a version manager's shim of a version that is not there
    return (os.get_exec_path() if path is None else path.split(os.pathsep)) or []


def _on_path(runtime: str, path: str | None) -> list[str]:
    places = [shutil.which(runtime, path=folder) for folder in _folders(path) if folder]
    return list(dict.fromkeys(place for place in places if place))


def _names_on_path(path: str | None) -> set[str]:
    folders = [place for folder in _folders(path) if (place := Path(folder)).is_dir()]
    return {found.name for folder in folders for found in folder.iterdir() if _NAME.fullmatch(found.name)}


def _asked(place: str) -> tuple[str, str]:
    """Version and real path of the interpreter behind `place`; empty where it does not run."""
    try:
        answer = subprocess.run(  # noqa: S603
            [place, *_ISOLATED, "-c", _ASK], capture_output=True, timeout=_CHECK_WITHIN_S, check=True, text=True
        )
        version, executable = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return "", ""
    return str(version), str(executable)


def _other(runtime: str, given: Mapped | None) -> Interpreter:
    if given is None or given.client is None:
        raise OperatorNeeded(
            f"Runtime {runtime}: esm hosts python3.N, nodejsN.x and provided.*; map it with"
            f" ESM_RUNTIMES={runtime}=/path/of/interpreter:/path/of/client, or use provided.al2023 with a bootstrap"
        )
    for place in (given.interpreter, given.client):
        if not Path(place).exists():
            raise OperatorNeeded(f"Runtime {runtime}: {place} of ESM_RUNTIMES does not exist: correct the path")
    return Interpreter(given.interpreter, Path(given.client))


def _run_error(executable: str, *arguments: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603
            [executable, *_ISOLATED, *arguments], capture_output=True, timeout=_CHECK_WITHIN_S, check=False, text=True,
            env={},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)[:200]
    if answer.returncode == 0:
        return ""
    return (answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"])[-1][:200]


def _copy_client(folder: Path, *, with_compiled: bool) -> None:
    folder.mkdir()
    skipped = ["__pycache__", "tests"] if with_compiled else ["__pycache__", "tests", "*.so"]
    for name in _PACKAGES:
        _copy_module(name, folder, shutil.ignore_patterns(*skipped))
    if with_compiled and importlib.util.find_spec(_COMPILED) is not None:
        _copy_module(_COMPILED, folder, None)
    else:
        shutil.copyfile(_PURE, folder / f"{_COMPILED}.py")


def _copy_module(name: str, folder: Path, ignore: object) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise OperatorNeeded(f"the package that holds {name} is not installed beside esm: install awslambdaric again")
    origin = Path(spec.origin)
    if spec.submodule_search_locations:
        shutil.copytree(origin.parent, folder / name, ignore=ignore)  # type: ignore[arg-type]
    else:
        shutil.copyfile(origin, folder / origin.name)


def _compile(folder: Path, executable: str, *, is_own: bool) -> None:
    """Bytecode once, here: environments write none. Without it they only start slower."""
    if is_own:
        compileall.compile_dir(folder, quiet=2)
    else:
        _run_error(executable, "-m", "compileall", "-q", str(folder))
