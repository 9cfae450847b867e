"""Whether a function's code is there: the folder, and in it the handler's module."""

import os
from importlib.machinery import all_suffixes
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.model.function import HostedFunction

_SHOWN_MAX = 10


def check_code(function: HostedFunction) -> None:
    """Return when the handler's module can be found. Raises: OperatorNeeded, naming what is there instead."""
    folder = Path(function.code)
    where = f"function {function.key}: CodeUri {folder}"
    if not folder.exists():
        raise OperatorNeeded(f"{where} does not exist: make the folder or correct CodeUri")
    if not folder.is_dir():
        raise OperatorNeeded(f"{where} is no folder: give the folder that holds the handler's module")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise OperatorNeeded(f"{where} may not be read by the user that runs esm: give it the permission")
    module, dot, _ = function.handler.rpartition(".")
    if not dot or not module:
        raise OperatorNeeded(
            f"function {function.key}: Handler {function.handler!r} is not of the form module.function"
        )
    parts = module.replace("/", ".").split(".")
    if not any(holds(root, parts) for root in roots(function, folder)):
        path = "/".join(parts)
        raise OperatorNeeded(
            f"function {function.key}: Handler {function.handler!r} needs {path}.py in {folder}, which holds"
            f" {_shown(folder)}: correct Handler or CodeUri"
        )


def roots(function: HostedFunction, folder: Path) -> list[Path]:
    """Where the function's own modules are looked for, in order."""
    extra = dict(function.environment).get("PYTHONPATH", "")
    return [folder, *(folder / entry for entry in extra.split(os.pathsep) if entry)]


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
