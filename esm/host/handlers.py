"""Whether a module binds the name that a Handler gives, as far as its text says. The module itself never runs.

Law: silence where the text does not decide it: what is not Python's text, or cannot be parsed, or may bind names in
ways that only running it shows.
"""

import ast
import warnings
from collections.abc import Iterator
from importlib.machinery import all_suffixes
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host.code import holds, roots
from esm.host.runtimes import Kind, kind_of
from esm.model.function import HostedFunction

_TEXT_BYTES_MAX = 1024 * 1024
"""A larger module is generated, and not worth the time."""
_SHOWN_MAX = 10
_BINDS_UNSEEN = {
    "__dict__", "__getattr__", "__import__", "eval", "exec", "globals", "import_module", "locals", "modules", "setattr",
    "vars",
}  # fmt: skip
"""Names whose use in a module may bind any other name."""


def check_handler(function: HostedFunction) -> None:
    """Return unless the handler's module is there and surely has no such function. Raises: OperatorNeeded."""
    if kind_of(function.runtime) is not Kind.PYTHON or not Path(function.code).is_dir():
        return
    module, _, name = function.handler.rpartition(".")
    path = _text_of(function, module.replace("/", ".").split("."))
    tree = None if path is None else _parsed(path)
    if path is None or tree is None:
        return
    bound = set(_names(tree))
    if name in bound or bound & _BINDS_UNSEEN or "*" in bound:
        return
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    more = f" and {len(defined) - _SHOWN_MAX} more" if len(defined) > _SHOWN_MAX else ""
    raise OperatorNeeded(
        f"function {function.key}: Handler {function.handler!r} needs {name!r} in {path}, which defines"
        f" {', '.join(defined[:_SHOWN_MAX]) or 'no function'}{more}: correct Handler or the module"
    )


def _text_of(function: HostedFunction, parts: list[str]) -> Path | None:
    """The one file that can be the module; None where there is none, several, or one that is no text."""
    found = [root for root in roots(function, Path(function.code)) if holds(root, parts)]
    if len(found) != 1 or found[0].is_file():
        return None
    place = found[0].joinpath(*parts)
    files = [place / "__init__.py", *(place.with_name(place.name + suffix) for suffix in all_suffixes())]
    files = [*filter(Path.is_file, files), *place.parent.glob(f"{parts[-1]}.*.so")]
    return files[0] if len(files) == 1 and files[0].suffix == ".py" else None


def _parsed(path: Path) -> ast.Module | None:
    try:
        if path.stat().st_size > _TEXT_BYTES_MAX:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # another Python's grammar, too
        return None


def _names(tree: ast.Module) -> Iterator[str]:
    """Every name that the text binds anywhere, and those that it uses."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                yield name
            case ast.Name(name) | ast.Attribute(attr=name):
                yield name
            case ast.alias(name, renamed):
                yield renamed or name.split(".")[0]
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.MatchMapping(rest=str(name)):
                yield name
            case ast.Global(names):
                yield from names
            case _:
                pass
