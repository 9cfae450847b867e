"""One worker process, what it writes, and its end. Law: no thread; whoever started it has ended it when it leaves.

The worker is watched through a pidfd. It stands in a session of its own: Ctrl-C in a terminal goes to the supervisor
alone, which passes on what it means.
"""

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import anyio

LINE_BYTES_MAX = 2 * 1024 * 1024
"""A longer line is cut there and goes on as the next one: the longest that a function may log, escaped for JSON."""
_TURN_BYTES = 65_536
_PIPE_BYTES_MAX = 1024 * 1024
"""As much as a pipe can hold: a worker waits where its log is full."""


class WorkerProcess:
    """Runs from construction on. Start it from the thread of the event loop: it dies with the thread that forked."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], inherits: Sequence[int]) -> None:
        """Start `command` with the descriptors `inherits`. Raises: OSError."""
        reader, writer = os.pipe()
        try:
            self._child = subprocess.Popen(  # noqa: S603 - this very program
                command, env=environ, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, pass_fds=inherits,
                start_new_session=True,
            )  # fmt: skip
            self._pidfd = self._watched()
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        with suppress(OSError):  # the user's pipes hold too much already: it stays as it is
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, _PIPE_BYTES_MAX)
        self._pipe = reader
        self._partial = bytearray()
        self.pid = self._child.pid

    def send(self, number: int) -> None:
        """A signal to the process, unless it has ended."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def run(self, emit: Callable[[bytes], None]) -> int:
        """Pass every line, without its end, to `emit` until the process has ended; returns its status (minus the
        signal that killed it). Cancelled: it is killed.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow, emit)
                await anyio.wait_readable(self._pidfd)
                tasks.cancel_scope.cancel()
            for _ in range(_PIPE_BYTES_MAX // _TURN_BYTES + 1):
                if not self._read(emit):
                    break
            return self._child.wait()
        finally:
            self._end(emit)

    def _watched(self) -> int:
        try:
            return os.pidfd_open(self._child.pid)
        except OSError:  # Linux before 5.3, or no file descriptor left
            self._child.kill()
            self._child.wait()
            raise

    async def _follow(self, emit: Callable[[bytes], None]) -> None:
        await anyio.wait_readable(self._pipe)
        while self._read(emit):
            await anyio.wait_readable(self._pipe)

    def _read(self, emit: Callable[[bytes], None]) -> bool:
        """Pass on what has come; False: nothing will come any more."""
        try:
            data = os.read(self._pipe, _TURN_BYTES)
        except BlockingIOError:
            return True
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._partial += line
            self._pass_on(emit)
        self._partial += rest
        if len(self._partial) >= LINE_BYTES_MAX:
            self._pass_on(emit)
        return bool(data)

    def _pass_on(self, emit: Callable[[bytes], None]) -> None:
        line, self._partial = bytes(self._partial), bytearray()
        emit(line)

    def _end(self, emit: Callable[[bytes], None]) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        if self._partial:
            self._pass_on(emit)
        os.close(self._pidfd)
        os.close(self._pipe)
        self._pidfd = -1
