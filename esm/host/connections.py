"""The connections of one address at which runtimes that run elsewhere ask for work: who is on which, and when one ends.

aiohttp tells a handler that its connection is lost, but nobody between two requests; and a runtime that runs an
invocation is between two requests. This stands between the transport and aiohttp's protocol, and changes no byte.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from esm.host.meeting import Running

KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_TRIES = 15, 5, 3
"""A machine that is gone says nothing: the kernel finds out within 30 s."""


@dataclass(eq=False, slots=True)
class Connection:
    """One connection, and what is known of who is on it."""

    transport: asyncio.Transport
    since: float
    """Of the event loop's clock."""
    requests: int = 0
    """That have come over it."""
    agent: str = ""
    """`User-Agent` of the last one."""
    keeps_alive: bool = True
    """What the last one said of it: a proxy may open one for each request."""
    has_asked: bool = False
    """Whether it is a runtime's: some clients answer over another one."""
    is_waiting: bool = False
    """It waits for an invocation."""
    running: Running | None = field(default=None, repr=False)
    """What it was given and has not answered."""

    def abort(self) -> None:
        """End it, whatever is under way."""
        self.transport.abort()

    @property
    def peer(self) -> str:
        """Address of the other end."""
        name = self.transport.get_extra_info("peername")
        return str(name[0]) if name else "unknown"


class Connections:
    """All of them; `lost` is called for each that has ended, in the event loop."""

    def __init__(self, protocol: Callable[[], asyncio.Protocol], lost: Callable[[Connection], None]) -> None:
        self._protocol = protocol
        self._lost = lost
        self._open: dict[int, Connection] = {}

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Tap(self._protocol(), self)

    def of(self, transport: asyncio.BaseTransport | None) -> Connection | None:
        """The connection of a request; None where it is lost already."""
        return self._open.get(id(transport))

    @property
    def runtimes(self) -> list[Connection]:
        """Those over which a runtime has asked for invocations."""
        return [one for one in self._open.values() if one.has_asked and not one.transport.is_closing()]

    def abort(self) -> None:
        """End all of them."""
        for one in tuple(self._open.values()):
            one.abort()

    def added(self, transport: asyncio.Transport) -> None:
        """One begins."""
        _keep_alive(transport)
        self._open[id(transport)] = Connection(transport, asyncio.get_running_loop().time())

    def removed(self, transport: asyncio.Transport) -> None:
        """One has ended."""
        found = self._open.pop(id(transport), None)
        if found is not None:
            self._lost(found)


class _Tap(asyncio.Protocol):
    """Between the transport of one connection and its protocol."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.added(self._transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)
        if self._transport is not None:
            self._connections.removed(self._transport)


def _keep_alive(transport: asyncio.Transport) -> None:
    found = transport.get_extra_info("socket")
    if found is None:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_TRIES)
