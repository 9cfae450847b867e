"""One child process in a session of its own, its output and its end. Law: its whole group dies with it.

The child is watched through a pidfd: no thread, no SIGCHLD. Start it from the event loop's thread: PR_SET_PDEATHSIG
means the thread that forked.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from esm.host.output import Output


class Process:
    """Runs from construction until `on_exit` is called with its status (minus the signal that killed it)."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        on_line: Callable[[str], None],
        on_exit: Callable[[int], None],
        keep: Sequence[int] = (),
    ) -> None:
        """Start `command`, which keeps the file descriptors `keep`.

        Raises: OSError, ValueError (a NUL in a variable).
        """
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        try:
            self._child = subprocess.Popen(  # noqa: S603 - what runs is the operator's own function
                command,
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                start_new_session=True,
                pass_fds=keep,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self.pid = self._child.pid
        self.output = Output(reader, on_line)
        self._pidfd = self._watched()
        self._loop.add_reader(self._pidfd, self._exited)

    def _watched(self) -> int:
        try:
            return os.pidfd_open(self.pid)
        except OSError:  # Linux before 5.3, or no file descriptor left
            os.killpg(self.pid, signal.SIGKILL)
            self._child.wait()
            self.output.close()
            raise

    @property
    def has_ended(self) -> bool:
        """Whether the process is dead, also when `on_exit` has not been called yet."""
        return self._pidfd < 0 or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        """SIGKILL to the process and its group; `on_exit` follows."""
        if self._pidfd >= 0:  # not reaped yet: the number is still its own
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def send(self, number: int) -> None:
        """A signal to the process itself; SIGKILL goes to its group."""
        if number == signal.SIGKILL:
            self.kill()
        elif self._pidfd >= 0:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def _exited(self) -> None:
        self.kill()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        status = self._child.wait()
        self.output.close()
        self._on_exit(status)
