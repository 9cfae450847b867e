"""Slots over all functions that are hosted here, for tasks that wait for one. Law: `rules/slots` decides."""

import asyncio
from collections.abc import Hashable, Iterable

from esm.model.clocks import Instant
from esm.rules.slots import Refusal, Slots


class Admission:
    """See the module. Used in one event loop; a function is named by whatever the caller likes."""

    def __init__(self, overall: int) -> None:
        """`overall` bounds what runs at once, of all functions together."""
        self.overall = overall
        self._slots = Slots(overall)
        self._waiting: dict[Hashable, set[asyncio.Future[bool]]] = {}
        self._closing: set[Hashable] = set()

    def join(self, function: Hashable, bound: int, *, is_reserved: bool) -> None:
        """Let a function have up to `bound` slots; nobody else can have reserved ones."""
        self._slots.join(function, bound, is_reserved=is_reserved)
        self._waiting[function] = set()

    def close(self, function: Hashable) -> None:
        """Let nobody wait for a slot of this function any more, and forget it once it holds none."""
        if function not in self._waiting:
            return
        for future in tuple(self._waiting[function]):
            self._slots.give_up(function, future)
            if not future.done():
                future.set_result(False)
        self._closing.add(function)
        self._part(function)

    def used(self, function: Hashable) -> int:
        """How many slots a function holds."""
        return self._slots.used(function)

    def is_starved(self, function: Hashable) -> bool:
        """Whether a function can never have a slot: what others reserve takes the whole overall bound."""
        return self._slots.why_not(function) is Refusal.OVERALL and self._slots.shared == 0

    async def enter(self, function: Hashable, start_by: Instant | None, *, waits: bool) -> Refusal | None:
        """Take a slot, waiting for it until `start_by` where `waits`; returns why there is none."""
        if function not in self._waiting:
            return Refusal.RESERVED
        refusal = self._slots.take(function)
        if refusal is None or not waits:
            return refusal
        return None if await self._wait(function, start_by) else refusal

    def leave(self, function: Hashable) -> None:
        """Give a slot back."""
        self._grant(self._slots.give(function))
        self._part(function)

    async def _wait(self, function: Hashable, start_by: Instant | None) -> bool:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiting[function].add(future)
        self._slots.wait(function, future)
        try:
            await asyncio.wait({future}, timeout=None if start_by is None else max(0.0, start_by - loop.time()))
        except asyncio.CancelledError:
            if future.done() and future.result():
                self.leave(function)
            raise
        finally:
            if not future.done():
                self._slots.give_up(function, future)
            self._waiting.get(function, set()).discard(future)
        return future.done() and future.result()

    def _part(self, function: Hashable) -> None:
        if function in self._closing and self._slots.used(function) == 0:
            self._closing.discard(function)
            self._waiting.pop(function, None)
            self._grant(self._slots.leave(function))

    def _grant(self, callers: Iterable[Hashable]) -> None:
        for future in callers:
            assert isinstance(future, asyncio.Future)
            future.set_result(True)
