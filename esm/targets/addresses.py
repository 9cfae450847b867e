"""The addresses behind a host name, lent to invocations within bounds: so many at once of each, and so many of all.

Law: first come, first served, at the address that serves the fewest; an address that left the name's answer is not
lent again. Addresses of one family only: a host that has both IPv4 and IPv6 addresses is the same servers twice.
"""

import asyncio
import socket
from collections import Counter, deque

from esm.errors import Unavailable
from esm.model.clocks import Instant

_RESOLVE_EVERY_S = 5.0
"""A container that was added or replaced is found within this time."""
_RESOLVE_WITHIN_S = 10.0
_RESOLVE_AGAIN_WITHIN_S = 1.0
"""While known addresses do, nobody waits long for a slow name server."""


_DOUBT_S = 5.0
"""How long an address that took no connection comes after all others: it would always serve the fewest."""


class Addresses:
    """Lends the addresses of `host`, re-resolved while anybody asks. Known ones outlive a failing name server."""

    def __init__(self, host: str, port: int, *, each_max: int | None = 1, all_max: int | None = None) -> None:
        """`each_max` invocations at once at one address, `all_max` at all of them; None: no bound."""
        self._host = host
        self._port = port
        self._each_max = each_max
        self._all_max = all_max
        self._known: tuple[str, ...] = ()
        self._lent: Counter[str] = Counter()
        self._turns = 0
        self._turn: dict[str, int] = {}
        self._doubted_until: dict[str, float] = {}
        self._waiting: deque[asyncio.Future[str]] = deque()
        self._resolving = asyncio.Lock()
        self._resolve_at = 0.0

    @property
    def known(self) -> tuple[str, ...]:
        """Those that the last `resolve` found."""
        return self._known

    @property
    def capacity(self) -> int | None:
        """The most that can be lent at once, at least 1; None without bounds. Grows with the first `resolve`."""
        each = None if self._each_max is None else self._each_max * max(1, len(self._known))
        return min((bound for bound in (each, self._all_max) if bound is not None), default=None)

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
            except (OSError, UnicodeError) as error:  # TimeoutError among them; a name that cannot be one
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
                if not mine.done():
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
        self._lent[address] -= 1
        if not self._lent[address]:
            del self._lent[address]
        self._lend()

    def doubt(self, address: str) -> None:
        """It did not take a connection: others are tried before it for a while, and the name is resolved again."""
        self._doubted_until[address] = asyncio.get_running_loop().time() + _DOUBT_S
        self._resolve_at = 0.0

    async def _look_up(self) -> list[str]:
        async with asyncio.timeout(_RESOLVE_AGAIN_WITHIN_S if self._known else _RESOLVE_WITHIN_S):
            entries = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        families = {family for family, *_ in entries}
        chosen = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
        return list(dict.fromkeys(str(place[0]) for family, _, _, _, place in entries if family == chosen))

    def _replace(self, found: list[str]) -> None:
        self._known = tuple(found)
        self._turn = {address: self._turn.get(address, 0) for address in found}
        self._doubted_until = {a: until for a, until in self._doubted_until.items() if a in self._turn}
        self._lend()

    def _lend(self) -> None:
        while self._waiting and (address := self._best()) is not None:
            self._turns += 1
            self._turn[address] = self._turns
            self._lent[address] += 1
            self._waiting.popleft().set_result(address)

    def _best(self) -> str | None:
        """The address to lend next; None where a bound is reached, or none is known."""
        if self._all_max is not None and self._lent.total() >= self._all_max:
            return None
        bound, now = self._each_max, asyncio.get_running_loop().time()
        free = [address for address in self._known if bound is None or self._lent[address] < bound]
        return min(free, key=lambda address: self._rank(address, now), default=None)

    def _rank(self, address: str, now: float) -> tuple[bool, int, int]:
        return self._doubted_until.get(address, 0.0) > now, self._lent[address], self._turn[address]

    def _withdraw(self, mine: asyncio.Future[str]) -> None:
        if mine.done():
            self.give_back(mine.result())
        else:
            self._waiting.remove(mine)
