"""Rewriter: after a worker of an older version has joined, what the store holds is written again so that it reads it.

Laws: a value is exchanged by compare-and-swap and means the same as before, so it never matters who does it, how often,
or that its owner writes meanwhile. When the format rises nothing is done: every value is written newer at its next
change.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import anyio

from esm.errors import Conflict, OperatorNeeded, StoreTooNew, Unavailable, ValueTooLarge
from esm.model.clocks import Instant
from esm.model.stored import VALUE_BYTES_MAX, Stored
from esm.model.worker import ASYNC
from esm.rules import formats, heartbeats, shares
from esm.rules.controls import CONTROLS
from esm.rules.desired import MAPPINGS
from esm.runtime.async_bucket import functions_with_events, partitions
from esm.runtime.knowing import pause_after
from esm.runtime.surroundings import Stop, Surroundings

T = TypeVar("T")

SETTLE_S = 5.0
"""Pause before another sweep: by then every worker has heard of the older one, and what was on its way has arrived."""

AT_ONCE = 16
"""Values that are exchanged at once."""

_SMALL_PAGE = 1000
_LARGE_PAGE = 8
"""Values of up to 350 KB that are looked at in one go."""


class Rewriter:
    """Sweeps the store whenever something newer may stand there than is to be written. Ends by cancellation.

    Survives Unavailable; what cannot be read or does not fit is reported and left.
    """

    def __init__(self, around: Surroundings, mappings: Callable[[], Iterable[str]]) -> None:
        """`mappings`: UUIDs of those that this worker knows."""
        self._around = around
        self._mappings = mappings
        self._clean = formats.newest()
        """Nothing newer stands in the store, as far as this worker knows."""

    async def run(self) -> None:
        """Sweep until a second sweep has found nothing, each time that the format falls."""
        around = self._around
        is_second = False
        while True:
            write = around.formats.write
            if write >= self._clean:
                self._clean = write
                is_second = False
                await around.formats.changed.wait()
                continue
            found = await self._sweep()
            if is_second and not found and around.formats.write >= write:
                self._clean = write
                around.telemetry.rewritten(write)
                continue
            is_second = True
            await around.formats.changed.wait_until(around.clock, Instant(around.clock.now() + SETTLE_S))

    async def finish(self) -> None:
        """One sweep more at the end, when nothing else here writes any more, if any is due."""
        if self._around.formats.write < self._clean:
            await self._sweep()

    async def _sweep(self) -> int:
        """Look at everything once, first at what others wait for; returns how many values were written again."""
        count = 0
        mappings = list(self._mappings())
        workers = {item.key.item async for page in self._pages(*heartbeats.PARTITION) for item in page}
        small = [heartbeats.PARTITION, CONTROLS, MAPPINGS, shares.PARTITION, ("lease", ASYNC)]
        small += [(kind, mapping) for mapping in mappings for kind in ("listing", "lease")]
        small += [("status", worker) for worker in sorted(workers | {self._around.worker})]
        for kind, owner in self._affected(small):
            count += await self._sweep_partition(kind, owner)
        large = [("window", mapping) for mapping in mappings]
        functions = await self._asked(lambda: functions_with_events(self._around))
        large += [place for function in functions for place in partitions(function)]
        for kind, owner in self._affected(large):
            reserved = await self._around.budget.reserve(_LARGE_PAGE * VALUE_BYTES_MAX)
            try:
                count += await self._sweep_partition(kind, owner, _LARGE_PAGE)
            finally:
                self._around.budget.release(reserved)
        return count

    def _affected(self, places: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(kind, owner) for kind, owner in places if formats.may_be_newer(kind, self._around.formats.write)]

    async def _sweep_partition(self, kind: str, owner: str, limit: int = _SMALL_PAGE) -> int:
        count = 0
        async for page in self._pages(kind, owner, limit):
            newer = [item for item in page if self._again(item) is not None]
            for start in range(0, len(newer), AT_ONCE):
                count += await self._exchange(newer[start : start + AT_ONCE])
        return count

    async def _pages(self, kind: str, owner: str, limit: int = _SMALL_PAGE) -> AsyncIterator[tuple[Stored, ...]]:
        store = self._around.store
        page = await self._asked(lambda: store.scan(kind, owner, None, limit))
        yield page.items
        while page.after is not None:
            page = await self._asked(partial(store.scan, kind, owner, page.after, limit))
            yield page.items

    async def _exchange(self, items: Sequence[Stored]) -> int:
        done: list[bool] = []

        async def exchange(item: Stored) -> None:
            done.append(await self._asked(lambda: self._rewrite(item)))

        async with anyio.create_task_group() as tasks:
            for item in items:
                tasks.start_soon(exchange, item)
        return sum(done)

    async def _rewrite(self, item: Stored) -> bool:
        """Exchange one value; False: there is nothing to do any more, or nothing can be done. Raises: Unavailable."""
        found: Stored | None = item
        while found is not None:
            value = self._again(found)
            if value is None:
                return False
            try:
                await self._around.store.put(found.key, value, found.version)
            except Conflict:
                found = await self._around.store.get(found.key)
            except ValueTooLarge as error:
                self._around.telemetry.unreadable("rewrite", str(error))
                return False
            else:
                return True
        return False

    def _again(self, item: Stored) -> bytes | None:
        try:
            return formats.rewritten(item.key, item.value, self._around.formats.write)
        except (OperatorNeeded, StoreTooNew) as error:
            self._around.telemetry.unreadable("rewrite", f"{item.key.kind} {item.key.item}: {error}")
            return None

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of the store, however long it takes."""
        failures = 0
        while True:
            try:
                return await ask()
            except Unavailable as error:
                self._around.telemetry.store_failed("rewrite", str(error))
                failures = await pause_after(self._around, Stop(), error, failures)
