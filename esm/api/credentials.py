"""`ESM_API_CREDENTIALS_FILE`: who may call the API, and what each may do.

A YAML (or JSON) file, read again when it changes:

    credentials:
      - AccessKeyId: ci-deploys
        SecretAccessKey: "..."
        Actions: ["lambda:*EventSourceMapping*", lambda:GetFunction]
        Functions: ["orders", "billing-*"]

Law: a file that is wrong at start stops the start; one that becomes wrong later is reported, and nobody new is let in
by it: those of the last right one go on. Secrets are never shown.
"""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from esm.errors import ConfigurationRefused, Problem

FILE_BYTES_MAX = 1024 * 1024
SECRET_LENGTH_MIN = 16
"""A shorter one could be guessed: the signature does not slow anybody down."""
_MEMBERS = ("AccessKeyId", "SecretAccessKey", "Actions", "Functions")
_KEY_ID = re.compile(r"[A-Za-z0-9_.@-]{3,128}")
_ACTION = re.compile(r"\*|lambda:[A-Za-z*?]+")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what that one may do."""

    name: str
    """The access key, or `anonymous`."""
    actions: tuple[str, ...] = ("*",)
    """IAM's names, `*` and `?` within."""
    functions: tuple[str, ...] = ("*",)
    """Names of functions, `*` and `?` within."""
    secret: str = field(default="", repr=False)

    def may(self, action: str) -> bool:
        """Whether an action (`lambda:GetFunction`) is allowed on some function at least."""
        return any(fnmatch.fnmatchcase(action.lower(), one.lower()) for one in self.actions)

    def may_on(self, function: str) -> bool:
        """Whether the actions are allowed on a function, by its name."""
        return any(fnmatch.fnmatchcase(function, one) for one in self.functions)


ANYBODY = Caller("anonymous")
"""Whoever calls where no credentials are configured: loopback only, unless the operator says otherwise."""


class Credentials:
    """The callers of a file."""

    def __init__(self, path: Path, on_problem: Callable[[str], None]) -> None:
        """Raises: ConfigurationRefused, with every problem of the file."""
        self._path = path
        self._on_problem = on_problem
        self._seen = self._stamp()
        self._callers = read(path)

    def caller(self, access_key: str) -> Caller | None:
        """Who has an access key, as the file says now."""
        self._look()
        return self._callers.get(access_key)

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._callers = read(self._path)
        except ConfigurationRefused as refused:
            for problem in refused.problems:
                self._on_problem(str(problem))

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def read(path: Path) -> dict[str, Caller]:
    """The callers of a file, by access key. Raises: ConfigurationRefused."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise _refused(path, "", f"is larger than {FILE_BYTES_MAX} bytes")
        document = yaml.safe_load(text)
    except OSError as error:
        remedy = "name the file of credentials with ESM_API_CREDENTIALS_FILE"
        raise _refused(path, "", f"cannot be read ({error.strerror}): {remedy}") from error
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _refused(path, "", "is not YAML") from None  # the parser's words quote the file, secrets included
    entries = document.get("credentials") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise _refused(path, "credentials", f"must be a list of {', '.join(_MEMBERS)}")
    problems: list[Problem] = []
    found: dict[str, Caller] = {}
    for index, entry in enumerate(entries):
        caller = _caller(path, f"credentials[{index}]", entry, problems)
        if caller is not None and caller.name in found:
            problems.append(_problem(path, f"credentials[{index}].AccessKeyId", "stands twice: keep one"))
        elif caller is not None:
            found[caller.name] = caller
    if problems:
        raise ConfigurationRefused(problems)
    return found


def _caller(path: Path, place: str, entry: object, problems: list[Problem]) -> Caller | None:
    if not isinstance(entry, dict):
        problems.append(_problem(path, place, f"must be a table with {', '.join(_MEMBERS)}"))
        return None
    before = len(problems)
    unknown = sorted(str(name) for name in entry if name not in _MEMBERS)
    if unknown:
        problems.append(_problem(path, place, f"has unknown members: {', '.join(unknown)}; use {', '.join(_MEMBERS)}"))
    key, secret = entry.get("AccessKeyId"), entry.get("SecretAccessKey")
    if not isinstance(key, str) or not _KEY_ID.fullmatch(key):
        problems.append(_problem(path, f"{place}.AccessKeyId", "must be 3 to 128 letters, digits and _.@-"))
    if not isinstance(secret, str) or len(secret) < SECRET_LENGTH_MIN:
        text = f"must be a text of {SECRET_LENGTH_MIN} characters or more: `openssl rand -hex 20` makes one"
        problems.append(_problem(path, f"{place}.SecretAccessKey", text))
    actions = _texts(path, f"{place}.Actions", entry.get("Actions"), problems)
    problems += [
        _problem(path, f"{place}.Actions", f"{action[:80]!r} must be such as lambda:GetFunction")
        for action in actions
        if not _ACTION.fullmatch(action)
    ]
    functions = _texts(path, f"{place}.Functions", entry.get("Functions", ["*"]), problems)
    return None if len(problems) > before else Caller(str(key), actions, functions, str(secret))


def _texts(path: Path, place: str, value: Any, problems: list[Problem]) -> tuple[str, ...]:  # noqa: ANN401 - YAML
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return tuple(value)
    problems.append(_problem(path, place, 'must be a list of texts, such as ["*"]'))
    return ()


def _problem(path: Path, place: str, text: str) -> Problem:
    return Problem(str(path), place, None, text)


def _refused(path: Path, place: str, text: str) -> ConfigurationRefused:
    return ConfigurationRefused([_problem(path, place, text)])
