"""The addresses behind a host name, each lent to one invocation at a time.

Law: first come, first served; an address that left the name's answer is not lent again. Addresses of one family only:
a host that has both IPv4 and IPv6 addresses is the same servers twice, and each serves one invocation.
"""

import asyncio
import socket
from collections import deque

from esm.errors import Unavailable
from esm.model.clocks import Instant

_RESOLVE_EVERY_S = 5.0
"""A container that was added or replaced is found within this time."""
_RESOLVE_WITHIN_S = 10.0
_RESOLVE_AGAIN_WITHIN_S = 1.0
"""While known addresses do, nobody waits long for a slow name server."""


class Addresses:
    """Lends the addresses of `host`, re-resolved while anybody asks. Known ones outlive a failing name server."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._known: frozenset[str] = frozenset()
        self._free: deque[str] = deque()
        self._lent: set[str] = set()
        self._waiting: deque[asyncio.Future[str]] = deque()
        self._resolving = asyncio.Lock()
        self._resolve_at = 0.0

    @property
    def count(self) -> int:
        """How many addresses the name has; 0 before the first `resolve`."""
        return len(self._known)

    @property
    def has_free(self) -> bool:
        """Whether `take` would return at once."""
        return bool(self._free) and not self._waiting

    async def resolve(self) -> None:
        """Ask for the addresses if that is due. Raises: Unavailable where none are known."""
        if self._known and self._resolving.locked():
            return
        async with self._resolving:
            loop = asyncio.get_running_loop()
            if loop.time() < self._resolve_at:
                return
            try:
                found = await self._look_up()
            except OSError as error:  # TimeoutError among them
                if not self._known:
                    reason = str(error) or "no answer"
                    raise Unavailable(f"The host {self._host!r} of the function has no address: {reason}.") from error
            else:
                self._replace(found)
            self._resolve_at = loop.time() + _RESOLVE_EVERY_S

    async def take(self, until: Instant | None) -> str | None:
        """A free address, to be given back; None when `until` has passed. Raises: Unavailable."""
        loop = asyncio.get_running_loop()
        await self.resolve()
        mine: asyncio.Future[str] = loop.create_future()
        self._waiting.append(mine)
        self._lend()
        try:
            while not mine.done() and (until is None or loop.time() < until):
                left_s = _RESOLVE_EVERY_S if until is None else min(_RESOLVE_EVERY_S, until - loop.time())
                await asyncio.wait({mine}, timeout=left_s)
                await self.resolve()
            if mine.done() and (until is None or loop.time() < until):
                return mine.result()
        except BaseException:
            self._withdraw(mine)
            raise
        self._withdraw(mine)
        return None

    def give_back(self, address: str) -> None:
        """Let the next one have it."""
        self._lent.discard(address)
        if address in self._known:
            self._free.append(address)
        self._lend()

    def doubt(self) -> None:
        """Resolve at the next question: an address did not take a connection."""
        self._resolve_at = 0.0

    async def _look_up(self) -> list[str]:
        async with asyncio.timeout(_RESOLVE_AGAIN_WITHIN_S if self._known else _RESOLVE_WITHIN_S):
            entries = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        families = {family for family, *_ in entries}
        chosen = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
        return list(dict.fromkeys(str(place[0]) for family, _, _, _, place in entries if family == chosen))

    def _replace(self, found: list[str]) -> None:
        self._known = frozenset(found)
        kept = [address for address in self._free if address in self._known]
        added = [address for address in found if address not in self._lent and address not in kept]
        self._free = deque(kept + added)
        self._lend()

    def _lend(self) -> None:
        while self._free and self._waiting:
            waiting = self._waiting.popleft()
            address = self._free.popleft()
            self._lent.add(address)
            waiting.set_result(address)

    def _withdraw(self, mine: asyncio.Future[str]) -> None:
        if mine.done():
            self.give_back(mine.result())
        else:
            self._waiting.remove(mine)
