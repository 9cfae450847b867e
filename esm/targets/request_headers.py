"""The headers that a function's configuration adds to its requests: fixed ones, and those whose values are in files.

Law: values never leave this module but in a request. A file's value is its text without white space around it.
"""

from collections.abc import Callable, Mapping

from esm.errors import OperatorNeeded, RequestRefused
from esm.model.function import UrlFunction
from esm.rules import http_headers
from esm.watched import Watched, read_file

_AUTHORIZATION = "Authorization"


class ConfiguredHeaders:
    """`headers`, `header_files` and `bearer_token_file` of one function; a file wins over a fixed value."""

    def __init__(self, function: UrlFunction) -> None:
        """Raises: RequestRefused for what may not be set, or cannot stand in a header."""
        for name, value in function.headers:
            _check(function, name, http_headers.value_problem(value))
        for name, _ in function.header_files:
            _check(function, name, None)
        self._fixed = {name.lower(): (name, value) for name, value in function.headers}
        self._files = {name.lower(): (name, _watched(name, path)) for name, path in function.header_files}
        if function.bearer_token_file is not None:
            token = _watched(_AUTHORIZATION, function.bearer_token_file, "Bearer ")
            self._files[_AUTHORIZATION.lower()] = (_AUTHORIZATION, token)

    def value(self) -> Mapping[str, str]:
        """Name and value of each, as of now. Raises: OperatorNeeded, naming the file that cannot be used."""
        read = {lower: (name, watched.value()) for lower, (name, watched) in self._files.items()}
        return dict((self._fixed | read).values())


def _check(function: UrlFunction, name: str, problem: str | None) -> None:
    if (problem := http_headers.name_problem(name) or problem) is not None:
        raise RequestRefused(f"The header {name!r:.100} of the function {function.key!r} {problem}.")


def _watched(name: str, path: str, prefix: str = "") -> Watched[str]:
    return Watched((path,), _reading(name, path, prefix))


def _reading(name: str, path: str, prefix: str) -> Callable[[], str]:
    def read() -> str:
        try:
            text = read_file(path).decode().strip()
        except UnicodeDecodeError:
            text, problem = "", "is not text in UTF-8"
        else:
            problem = http_headers.value_problem(text) or ""
        if problem:
            raise OperatorNeeded(f"What the file {path} holds for the header {name} {problem}.")
        return prefix + text

    return read
