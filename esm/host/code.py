"""Whether a function's code is there: the folder or zip, and in it the handler's module or the bootstrap."""

import os
from importlib.machinery import all_suffixes
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host.runtimes import Kind
from esm.model.function import HostedFunction

_SHOWN_MAX = 10
_NODE_SUFFIXES = ("", ".js", ".mjs", ".cjs")


def check_source(function: HostedFunction) -> None:
    """Return when the code can be read. Raises: OperatorNeeded."""
    source = Path(function.code)
    where = f"function {function.key}: CodeUri {source}"
    if not source.exists():
        raise OperatorNeeded(f"{where} does not exist: make the folder or correct CodeUri")
    if not os.access(source, os.R_OK | os.X_OK if source.is_dir() else os.R_OK):
        raise OperatorNeeded(f"{where} may not be read by the user that runs esm: give it the permission")


def check_start(function: HostedFunction, kind: Kind, folder: Path, layers: Path | None) -> None:
    """Return when what the runtime starts can be found. Raises: OperatorNeeded, naming what is there instead.

    `folder` and `layers` are where code and layers lie here.
    """
    match kind:
        case Kind.PYTHON:
            _check_python(function, folder, layers)
        case Kind.NODE:
            _check_node(function, folder)
        case Kind.PROVIDED:
            bootstrap(function, folder, layers)
        case Kind.OTHER:
            pass


def bootstrap(function: HostedFunction, folder: Path, layers: Path | None) -> Path:
    """The bootstrap of the code, else of the layers. Raises: OperatorNeeded. Source: lambda.md 7.6."""
    places = [folder / "bootstrap", *([layers / "bootstrap"] if layers else [])]
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return place
    because = " (not executable: chmod +x)" if any(place.is_file() for place in places) else ""
    raise OperatorNeeded(
        f"function {function.key}: Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]{because};"
        f" {folder} holds {_shown(folder)}"
    )


def _check_python(function: HostedFunction, folder: Path, layers: Path | None) -> None:
    module, dot, _ = function.handler.rpartition(".")
    if not dot or not module:
        raise OperatorNeeded(
            f"function {function.key}: Handler {function.handler!r} is not of the form module.function"
        )
    parts = module.replace("/", ".").split(".")
    if not any(holds(root, parts) for root in roots(function, folder, layers)):
        path = "/".join(parts)
        raise OperatorNeeded(
            f"function {function.key}: Handler {function.handler!r} needs {path}.py in {folder}, which holds"
            f" {_shown(folder)}: correct Handler or CodeUri"
        )


def _check_node(function: HostedFunction, folder: Path) -> None:
    path, _, name = function.handler.rpartition("/")
    module, dot, _ = name.partition(".")
    place = folder / path / module
    if not dot or not module:
        raise OperatorNeeded(f"function {function.key}: Handler {function.handler!r} is not of the form file.export")
    if not any(place.with_name(place.name + suffix).is_file() for suffix in _NODE_SUFFIXES):
        raise OperatorNeeded(
            f"function {function.key}: Handler {function.handler!r} needs {Path(path, module)}.js, .mjs or .cjs in"
            f" {folder}, which holds {_shown(folder)}: correct Handler or CodeUri"
        )


def roots(function: HostedFunction, folder: Path, layers: Path | None = None) -> list[Path]:
    """Where the function's own modules are looked for, in order."""
    extra = dict(function.environment).get("PYTHONPATH", "")
    shared = [layers / "python", *layers.glob("python/lib/python3.*/site-packages")] if layers else []
    return [folder, *shared, *(folder / entry for entry in extra.split(os.pathsep) if entry)]


def holds(root: Path, parts: list[str]) -> bool:
    """Whether a module, by the parts of its name, is in a folder, or may be in a zip."""
    if root.is_file():  # a zip: only the interpreter can look inside
        return True
    place = root.joinpath(*parts)
    return (
        (place / "__init__.py").is_file()
        or any(place.with_name(place.name + suffix).is_file() for suffix in all_suffixes())
        or bool(list(place.parent.glob(f"{parts[-1]}.*.so")))
    )


def _shown(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    return ", ".join(names[:_SHOWN_MAX]) + more if names else "nothing"
