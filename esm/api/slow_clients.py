"""A bound on what slow and many clients may hold: connections, and the time that one takes to say or to take something.

aiohttp knows a time-out between requests alone. This stands between the transport and its protocol and looks at when
bytes come; it changes none of them.
"""

import asyncio
from collections.abc import Callable
from typing import cast

CONNECTIONS_MAX = 1000
HEAD_S = 15.0
"""From the first byte of a request, or the beginning of a connection, until its headers are there."""
TAKE_S = 60.0
"""How long a client may leave an answer lying."""


class Connections:
    """Every connection of one server."""

    def __init__(
        self, protocol: Callable[[], asyncio.Protocol], on_accept: Callable[[], None] = lambda: None,
        connections_max: int = CONNECTIONS_MAX, head_s: float = HEAD_S, take_s: float = TAKE_S,
    ) -> None:  # fmt: skip
        """`on_accept` is called before a new connection is used."""
        self._protocol = protocol
        self._on_accept = on_accept
        self._connections_max = connections_max
        self.head_s = head_s
        self.take_s = take_s
        self._open: dict[int, _Guard] = {}

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        self._on_accept()
        return _Guard(self._protocol(), self)

    def begun(self, transport: asyncio.BaseTransport | None) -> None:
        """The headers of a request are there: its own time-out for the body goes on."""
        guard = self._open.get(id(transport))
        if guard is not None:
            guard.begun()

    def ended(self, transport: asyncio.BaseTransport | None) -> None:
        """The answer to a request is made."""
        guard = self._open.get(id(transport))
        if guard is not None:
            guard.is_busy = False

    def added(self, guard: "_Guard", transport: asyncio.Transport) -> bool:
        """Know a connection; False: there are too many."""
        if len(self._open) >= self._connections_max:
            return False
        self._open[id(transport)] = guard
        return True

    def removed(self, transport: asyncio.Transport) -> None:
        """Forget a connection."""
        self._open.pop(id(transport), None)


class _Guard(asyncio.Protocol):
    """Between the transport of one connection and its protocol."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._head: asyncio.TimerHandle | None = None
        self._take: asyncio.TimerHandle | None = None
        self.is_busy = False

    def begun(self) -> None:
        self.is_busy = True
        _cancel(self._head)
        self._head = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(transport)
        if not self._connections.added(self, self._transport):
            self._transport.abort()
            return
        self._head = self._after(self._connections.head_s)

    def data_received(self, data: bytes) -> None:
        if self._head is None and not self.is_busy:
            self._head = self._after(self._connections.head_s)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._take = self._after(self._connections.take_s)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        _cancel(self._take)
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head)
        _cancel(self._take)
        if self._transport is not None:
            self._connections.removed(self._transport)
        self._inner.connection_lost(exc)

    def _after(self, seconds: float) -> asyncio.TimerHandle:
        assert self._transport is not None
        return asyncio.get_running_loop().call_later(seconds, self._transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
