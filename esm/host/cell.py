"""Where the processes of one environment live: plainly beside the daemon, each in a session of its own.

Law: what is started is told of when it ends, and `on_empty` is called once, after the last one, in every case. Other
kinds of cell (`sandbox`) promise the same.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from esm.host.cgroups import Group
from esm.host.process import Process
from esm.host.runtime_api import loopback


@dataclass(frozen=True, slots=True)
class Heard:
    """Who is told what happens in a cell; called in the event loop, must not wait."""

    line: Callable[[str], None]
    """A line of output."""
    exited: Callable[[str, int], None]
    """A process has ended: its name, its status or minus the signal that killed it."""
    emptied: Callable[[], None]
    """No process is left."""


class Cell(Protocol):
    """The processes of one environment. Made and used in the event loop's thread."""

    pid: int
    """Of the first process, which leads a session; 0 before it."""

    async def open(self) -> tuple[socket.socket, str]:
        """A listening socket for the Runtime API, and its address as the processes see it. Raises: OSError."""
        ...

    def start(self, name: str, command: Sequence[str], folder: str, variables: Mapping[str, str]) -> None:
        """Start a process. Raises: OSError, ValueError."""
        ...

    def drain(self) -> None:
        """Take all output that has been written until now."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether one of its processes is dead, also when nobody has been told yet."""
        ...

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one process; SIGKILL to its group."""
        ...

    def kill(self) -> None:
        """SIGKILL to every process and what they started; `emptied` follows."""
        ...

    def freeze(self) -> None:
        """Let no process run until `thaw`. Only where the cell's kind can."""
        ...

    def thaw(self) -> None:
        """Let them run again."""
        ...

    def memory_peak_bytes(self) -> int | None:
        """The most memory that was used, where that is known."""
        ...

    def close(self) -> None:
        """Let go of what is held for a cell that is empty."""
        ...


class PlainCell:
    """See the module."""

    def __init__(self, heard: Heard, group: Group | None = None) -> None:
        self._heard = heard
        self._group = group
        self._processes: dict[str, Process] = {}
        self.pid = 0

    async def open(self) -> tuple[socket.socket, str]:
        """See `Cell`: a port of loopback."""
        listening = loopback()
        host, port = listening.getsockname()
        return listening, f"{host}:{port}"

    def start(self, name: str, command: Sequence[str], folder: str, variables: Mapping[str, str]) -> None:
        """See `Cell`."""
        prefix = self._group.prefix if self._group else ()
        process = Process(
            [*prefix, *command], Path(folder), variables, self._heard.line, lambda status: self._exited(name, status)
        )  # fmt: skip
        self._processes[name] = process
        self.pid = self.pid or process.pid

    def drain(self) -> None:
        """See `Cell`."""
        for process in self._processes.values():
            process.output.drain()

    @property
    def has_ended(self) -> bool:
        """See `Cell`."""
        return not self._processes or any(process.has_ended for process in self._processes.values())

    def signal(self, name: str, number: int) -> None:
        """See `Cell`."""
        if name in self._processes:
            self._processes[name].send(number)

    def kill(self) -> None:
        """See `Cell`: without a group, what left its session is ended by its token, later."""
        if self._group is not None:
            self._group.kill()
        for process in tuple(self._processes.values()):
            process.kill()

    def freeze(self) -> None:
        """See `Cell`: without a group it has no means."""
        if self._group is not None:
            self._group.freeze(frozen=True)

    def thaw(self) -> None:
        """See `Cell`."""
        if self._group is not None:
            self._group.freeze(frozen=False)

    def memory_peak_bytes(self) -> int | None:
        """See `Cell`: without a group, what the first process itself has used."""
        found = None if self._group is None else self._group.memory_peak_bytes()
        return _peak_bytes(self.pid) if found is None else found

    def close(self) -> None:
        """See `Cell`."""
        if self._group is not None:
            self._group.remove()

    def _exited(self, name: str, status: int) -> None:
        del self._processes[name]
        self._heard.exited(name, status)
        if not self._processes:
            self._heard.emptied()


def _peak_bytes(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None
