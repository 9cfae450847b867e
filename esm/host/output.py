"""What a function writes to stdout and stderr, as lines: bounded, and never in the way of the function."""

import asyncio
import os
from collections.abc import Callable

LINE_BYTES_MAX = 262_144
"""A longer line is logged in parts. Source: CloudWatch's largest event."""


class Output:
    """Reads one pipe until its last writer is gone."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)

    def start(self) -> None:
        """Begin to read; the parent's copy of the writing end is closed."""
        os.close(self.write_fd)
        asyncio.get_running_loop().add_reader(self._read_fd, self._read)

    def close(self) -> None:
        """Take what is left and stop reading."""
        if self._read_fd >= 0:
            self._read()
        self._end()

    def _read(self) -> None:
        try:
            data = os.read(self._read_fd, 65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        while len(self._rest) > LINE_BYTES_MAX:
            self._say(self._rest[:LINE_BYTES_MAX])
            self._rest = self._rest[LINE_BYTES_MAX:]

    def _say(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        if text:
            self._on_line(text)

    def _end(self) -> None:
        if self._read_fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._read_fd)
        os.close(self._read_fd)
        self._read_fd = -1
        if self._rest:
            self._say(self._rest)
            self._rest = b""
