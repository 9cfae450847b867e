"""Child processes of the demo: in a session of their own, so that Ctrl-C reaches the demo alone, and tied to it."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import anyio

from esm.errors import Unavailable

START_S = 30.0
"""How long a child may take until it answers."""
LOOK_EVERY_S = 0.05
"""How often it is looked whether a child has ended."""


class Child:
    """One child process. Invariant: at most one runs at a time; `stop` and `kill` leave none."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None where it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, in the folder of its log; what it says is added to the log."""
        assert self._process is None
        tied = [sys.executable, "-I", "-S", str(Path(__file__).with_name("tied.py")), str(os.getpid())]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the command is the demo's own
                [*tied, *self._command],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def status(self) -> int | None:
        """The status with which it ended by itself; None while it runs, or where it was ended by the demo."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """SIGKILL: no chance to save anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def stop(self, grace_s: float) -> int | None:
        """SIGTERM, and SIGKILL after `grace_s`. Returns its status; None where it did not run."""
        if (process := self._process) is None:
            return None
        self._process = None
        process.send_signal(signal.SIGTERM)
        try:
            with anyio.move_on_after(grace_s):
                while process.poll() is None:  # noqa: ASYNC110 - a process sets no event
                    await anyio.sleep(LOOK_EVERY_S)
        finally:
            process.kill()
            process.wait()
        return process.returncode

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


async def wait_started(child: Child, is_up: Callable[[], Awaitable[bool]]) -> None:
    """Return when a child answers. Raises: Unavailable when it has ended, or takes too long."""
    with anyio.move_on_after(START_S):
        while child.status() is None:
            if await is_up():
                return
            await anyio.sleep(LOOK_EVERY_S)
    how = "did not answer in time" if child.status() is None else f"ended with status {child.status()}"
    raise Unavailable(f"the demo's {child.name} {how}; the end of its log:\n{child.last_words()}")


def clean_environ(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """`variables` alone: nothing of the user's own settings of AWS may lead a child to a real account."""
    return {"PATH": sysconfig.get_path("scripts"), "HOME": str(folder), "TMPDIR": str(folder), **variables}


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def is_listening(port: int) -> bool:
    """Whether something accepts connections on a port of 127.0.0.1."""
    try:
        stream = await anyio.connect_tcp("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True
