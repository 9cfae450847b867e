"""What hosted functions log, as lines of JSON in files of their own, and the reading of them.

Law: a file never grows beyond its share; the oldest of `FILES` is then let go. A log that cannot be written loses its
lines, and is said once; it never holds a function up. Names of files are names of functions. Several daemons may write
the same files: each line is one write at the end, and who finds the file moved follows.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

FILES = 5
"""Of each function: the one that is written, and those before it."""


class FunctionLogs:
    """The log files below `folder`. Used by one event loop."""

    def __init__(self, folder: Path, bytes_max: int, warn: Callable[[str], None]) -> None:
        """`bytes_max` is what each function may keep; `warn` is told, once, that logs cannot be written."""
        self._folder = folder
        self._share = max(1, bytes_max // FILES)
        self._warn = warn
        self._files: dict[str, int] = {}
        """File descriptors."""
        self._has_warned = False

    def write(self, function: str, record: dict[str, Any]) -> None:
        """Append one record to a function's log."""
        line = msgspec.json.encode(record) + b"\n"
        try:
            fd = self._files.get(function)
            fd = self._opened(function) if fd is None else fd
            size = os.fstat(fd).st_size
            if size and size + len(line) > self._share:
                fd = self._rotated(function, fd)
            os.write(fd, line)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                self._warn(
                    f"logs of hosted functions cannot be written below {self._folder}: {error.strerror or error}"
                )

    def close(self) -> None:
        """Close every file."""
        for fd in self._files.values():
            with suppress(OSError):
                os.close(fd)
        self._files.clear()

    def _opened(self, function: str) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(_place(self._folder, function), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._files[function] = fd
        return fd

    def _rotated(self, function: str, fd: int) -> int:
        """The file to write into, a new one unless another daemon has just made that."""
        del self._files[function]
        lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held for a few renames
            place = _place(self._folder, function)
            if place.exists() and os.path.samestat(os.fstat(fd), place.stat()):
                for number in range(FILES - 1, 0, -1):
                    with suppress(FileNotFoundError):
                        _place(self._folder, function, number - 1).replace(_place(self._folder, function, number))
        finally:
            os.close(fd)
            os.close(lock)
        return self._opened(function)


def records(folder: Path, function: str) -> Iterator[dict[str, Any]]:
    """Everything that is kept of a function's log, oldest first. Raises: OSError."""
    for number in range(FILES - 1, -1, -1):
        with suppress(FileNotFoundError), _place(folder, function, number).open("rb") as file:
            yield from _parsed(file.read())


def followed(folder: Path, function: str, wait: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """What is logged from now on, without an end; `wait` is called while there is nothing new."""
    place, rest = _place(folder, function), b""
    file = place.open("rb") if place.exists() else None
    try:
        if file is not None:
            file.seek(0, os.SEEK_END)
        while True:
            data = file.read(1024 * 1024) if file is not None else b""
            *lines, rest = (rest + data).split(b"\n")
            yield from _parsed(b"\n".join(lines))
            if data:
                continue
            if place.exists() and (file is None or not os.path.samestat(os.fstat(file.fileno()), place.stat())):
                if file is not None:
                    file.close()
                file, rest = place.open("rb"), b""
                continue
            wait()
    finally:
        if file is not None:
            file.close()


def functions(folder: Path) -> list[str]:
    """Names of the functions that have logged something."""
    return sorted(path.name.removesuffix(".jsonl") for path in folder.glob("*.jsonl"))


def shown(record: dict[str, Any]) -> str:
    """A record for people: its time, and its line as Lambda writes it."""
    text = str(record.get("line", ""))
    own = record.get("requestId")
    request = f" {str(own)[:8]}" if own and record.get("type") == "function" else ""
    return f"{record.get('time', '')}{request} {text}"


def _parsed(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.split(b"\n"):
        with suppress(ValueError):  # the last line of a file whose disk was full
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def _place(folder: Path, function: str, number: int = 0) -> Path:
    return folder / (f"{function}.jsonl" + (f".{number}" if number else ""))
