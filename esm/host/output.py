"""What a function's process writes to standard output and error, as lines. Law: memory and work are bounded.

A little is read at each turn of the event loop, so a function that floods its log waits for its own lines, and
nobody else does.
"""

import asyncio
import os
from collections.abc import Callable

LINE_BYTES_MAX = 256 * 1024
"""CloudWatch's largest log event: a longer line is cut there and goes on as the next one."""
_TURN_BYTES = 8192
_PIPE_BYTES_MAX = 1024 * 1024
"""As much as a pipe can hold."""


class Output:
    """One pipe, from the first byte to `close`."""

    def __init__(self, pipe: int, emit: Callable[[str], None]) -> None:
        """Read `pipe` from now on, and own it; `emit` is given each line without its end."""
        self._pipe = pipe
        self._emit = emit
        self._partial = bytearray()
        os.set_blocking(pipe, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pipe, self._read)

    def drain(self) -> None:
        """Take everything that has been written until now, an unfinished line too."""
        for _ in range(_PIPE_BYTES_MAX // _TURN_BYTES):
            if self._pipe < 0 or not self._read():
                break
        if self._partial:
            self._line(self._partial)
            self._partial = bytearray()

    def close(self) -> None:
        """Take the rest and close the pipe; a process that still writes to it is told so by SIGPIPE."""
        self.drain()
        self._end()

    def _read(self) -> bool:
        try:
            data = os.read(self._pipe, _TURN_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._partial += line
            self._line(self._partial)
            self._partial = bytearray()
        self._partial += rest
        if len(self._partial) >= LINE_BYTES_MAX:
            self._line(self._partial[:LINE_BYTES_MAX])
            del self._partial[:LINE_BYTES_MAX]
        return True

    def _line(self, line: bytearray) -> None:
        self._emit(line.decode(errors="replace"))

    def _end(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
