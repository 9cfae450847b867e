"""AWS's runtime client in a folder of its own, apart from the daemon's libraries."""

import importlib.metadata
import shutil
from importlib.util import find_spec
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host import interpreters

_PACKAGES = ("awslambdaric", "simplejson", "snapshot_restore_py")
"""awslambdaric and what it imports."""


def make(folder: Path) -> None:
    """Copy the client below `folder`, once a version of it. Raises: OperatorNeeded."""
    stamp = folder / f"awslambdaric-{importlib.metadata.version('awslambdaric')}-{interpreters.own()}"
    if stamp.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "client").mkdir(parents=True, mode=0o700)
        (folder / "compiled").mkdir(mode=0o700)
        for name in _PACKAGES:
            _copy(name, folder / "client")
        _copy("runtime_client", folder / "compiled")
        stamp.touch()
    except OSError as error:
        raise OperatorNeeded(f"the runtime client cannot be copied to {folder}: {error}") from error


def path(folder: Path, runtime: str) -> list[str]:
    """What goes last on the path of an interpreter: the client, and its HTTP calls, compiled where they fit."""
    any_python = Path(__file__).parent / "any_python"
    calls = folder / "compiled" if runtime == interpreters.own() else any_python
    return [str(folder / "client"), str(calls)]


def _copy(name: str, folder: Path) -> None:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise OperatorNeeded(f"the Python package {name} is missing: install esm with its dependencies")
    origin = Path(spec.origin)
    if origin.name == "__init__.py":
        ignore = shutil.ignore_patterns("__pycache__", "tests")
        shutil.copytree(origin.parent, folder / name, ignore=ignore, dirs_exist_ok=True)
    else:
        shutil.copy2(origin, folder / origin.name)
