"""A cell of its own kind: the processes of one environment in a sandbox of bubblewrap, behind one first process.

Law: what `cell.Cell` promises. The first process (`cell_init`) starts the others, so that they share files, /tmp,
process space and network; when it is killed, the kernel kills them all, wherever they went.
"""

import asyncio
import marshal
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from esm.host.cell import Heard
from esm.host.cgroups import Group
from esm.host.process import Process
from esm.host.runtime_api import loopback

_BIND_WITHIN_S = 10.0
_MESSAGE_BYTES_MAX = 65536
_MESSAGES_MAX = 16
"""At one turn of the event loop: what is left is read at the next one."""


@dataclass(frozen=True, slots=True)
class Walls:
    """What a sandbox is made of."""

    command: Sequence[str]
    """Of bubblewrap, up to the first process's own arguments."""
    data_bytes_max: int | None
    """Of each process; None: a group limits the memory."""
    has_network: bool


class Sandbox:
    """See the module."""

    def __init__(self, heard: Heard, walls: Walls, group: Group | None) -> None:
        self._heard = heard
        self._walls = walls
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._control: socket.socket | None = None
        self._process: Process | None = None
        self._names: set[str] = set()
        self._rest = b""
        self._bound: asyncio.Future[socket.socket] = self._loop.create_future()
        self.pid = 0

    async def open(self) -> tuple[socket.socket, str]:
        """See `Cell`: starts the first process; without a network, the port is bound inside and handed out."""
        own, other = socket.socketpair()
        own.setblocking(False)
        self._control = own
        fd = other.fileno()
        limit = [] if self._walls.data_bytes_max is None else [str(self._walls.data_bytes_max)]
        command = [*(self._group.prefix if self._group else ()), *self._walls.command, str(fd), *limit]
        try:
            self._process = Process(command, Path("/"), {}, self._heard.line, self._ended, keep=(fd,))
        finally:
            other.close()
        self.pid = self._process.pid
        self._loop.add_reader(own, self._read)
        if self._walls.has_network:
            listening = loopback()
        else:
            self._tell("listen")
            listening = await self._handed_out()
        host, port = listening.getsockname()
        return listening, f"{host}:{port}"

    def start(self, name: str, command: Sequence[str], folder: str, variables: Mapping[str, str]) -> None:  # noqa: ARG002
        """See `Cell`; `folder` is the one that all of a sandbox's processes have."""
        self._names.add(name)
        self._tell("start", name, list(command), dict(variables))

    def drain(self) -> None:
        """See `Cell`."""
        if self._process is not None:
            self._process.output.drain()

    @property
    def has_ended(self) -> bool:
        """See `Cell`."""
        self._read()
        return self._process is None or self._process.has_ended or not self._names

    def signal(self, name: str, number: int) -> None:
        """See `Cell`."""
        self._tell("signal", name, int(number))

    def kill(self) -> None:
        """See `Cell`."""
        if self._group is not None:
            self._group.kill()
        if self._process is not None:
            self._process.kill()

    def freeze(self) -> None:
        """See `Cell`."""
        if self._group is not None:
            self._group.freeze(frozen=True)
        else:
            self._tell("all", int(signal.SIGSTOP))

    def thaw(self) -> None:
        """See `Cell`."""
        if self._group is not None:
            self._group.freeze(frozen=False)
        else:
            self._tell("all", int(signal.SIGCONT))

    def memory_peak_bytes(self) -> int | None:
        """See `Cell`."""
        return None if self._group is None else self._group.memory_peak_bytes()

    def close(self) -> None:
        """See `Cell`."""
        if self._group is not None:
            self._group.remove()

    async def _handed_out(self) -> socket.socket:
        try:
            async with asyncio.timeout(_BIND_WITHIN_S):
                return await self._bound
        except TimeoutError as error:
            self.kill()
            raise OSError("the sandbox did not start") from error

    def _tell(self, *order: str | int | list[str] | dict[str, str]) -> None:
        if self._control is None:
            return
        words = marshal.dumps(order)
        with suppress(ConnectionError, TimeoutError):
            self._control.settimeout(1.0)  # a start is some KB, which the first process reads at once
            try:
                self._control.sendall(len(words).to_bytes(4, "big") + words)
            finally:
                self._control.setblocking(False)

    def _read(self) -> None:
        for _ in range(_MESSAGES_MAX):
            if self._control is None:
                return
            try:
                data, handed, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES_MAX, 1)
            except (BlockingIOError, ConnectionError):
                return
            for fd in handed:
                self._take(socket.socket(fileno=fd))
            if not data:
                self._loop.remove_reader(self._control)
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._rest = self._rest[-_MESSAGE_BYTES_MAX:]
            for line in lines:
                self._hear(line.decode(errors="replace"))

    def _take(self, listening: socket.socket) -> None:
        if self._bound.done():
            listening.close()
        else:
            listening.setblocking(False)
            self._bound.set_result(listening)

    def _hear(self, line: str) -> None:
        """What the first process says; a function that has taken it over can lie about itself alone."""
        _, status, name = [*line.split(" ", 2), "", ""][:3]
        if name in self._names and status.removeprefix("-").isdecimal():
            self._names.discard(name)
            self.drain()
            self._heard.exited(name, int(status))
            if not self._names:
                self.kill()

    def _ended(self, status: int) -> None:
        """The first process is gone, and everything with it."""
        self._read()
        if self._control is not None:
            self._loop.remove_reader(self._control)
            self._control.close()
            self._control = None
        if not self._bound.done():
            self._bound.set_exception(OSError(f"the sandbox ended at once (status {status})"))
            self._bound.exception()  # nobody may wait for it
        names, self._names = self._names, set()
        for name in names:
            self._heard.exited(name, -9 if status == 0 else status)
        self._heard.emptied()
