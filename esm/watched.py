"""Something made of files, made again when one of them has changed: tokens and certificates are rotated under us.

Law: a file is looked at (its stat) before every use and read only when that differs from the last time; a failure is
remembered like a success, so that a broken file costs no more than a good one. No text holds what a file holds.
"""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from esm.errors import OperatorNeeded

T = TypeVar("T")

_Mark = tuple[int, ...]

FILE_BYTES_MAX = 1024 * 1024
"""Of a token or a bundle of certificates: a larger file is a mistake."""


class Watched(Generic[T]):
    """What `make` makes of the files at `paths`, as they are now."""

    def __init__(self, paths: Sequence[str], make: Callable[[], T]) -> None:
        self._paths = tuple(paths)
        self._make = make
        self._marks: tuple[_Mark, ...] | None = None
        self._made: T | OperatorNeeded | None = None

    def value(self) -> T:
        """The thing, made again if a file has changed. Raises: OperatorNeeded, naming the file."""
        marks = tuple([_mark(path) for path in self._paths])
        if self._made is None or marks != self._marks:
            self._marks = marks
            try:
                self._made = self._make()
            except OperatorNeeded as error:
                self._made = error
        if isinstance(self._made, OperatorNeeded):
            raise OperatorNeeded(str(self._made))
        return self._made


def read_file(path: str) -> bytes:
    """All of a file. Raises: OperatorNeeded, naming it."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > FILE_BYTES_MAX:
        raise OperatorNeeded(f"The file {path} is larger than {FILE_BYTES_MAX} bytes: see that it is the right one.")
    return content


def _mark(path: str) -> _Mark:
    """What changes with a file's content, through links too."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise OperatorNeeded(f"{path} is not a file: name the file itself.")
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _unreadable(path: str, error: OSError) -> OperatorNeeded:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return OperatorNeeded(f"The file {path} cannot be read: {reason}. Mount it where esm may read it.")
