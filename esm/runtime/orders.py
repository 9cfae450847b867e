"""What operators want, as the loops of one worker see it, and how one claimed shard follows it.

Law: an order is carried out by the write of the lease that names it, so once, and by the shard's owner alone. The
notice of a skip is delivered before that write.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from esm.errors import OperatorNeeded, PositionLost, ShardGone, Unavailable
from esm.model.control import Control, Order, Rewind, Skip
from esm.model.lease import Lease
from esm.model.mapping import Mapping
from esm.model.notice import Condition, Span
from esm.model.position import AfterSequence, TrimHorizon
from esm.model.record import Read, StreamRecord
from esm.ports import ShardReader, StreamSource
from esm.rules import operating
from esm.rules.delivery import GiveUp
from esm.rules.progress import is_at_or_before, lowest, was_taken
from esm.runtime.feed import READ_LIMIT, Pace
from esm.runtime.giving_up import Notifier
from esm.runtime.knowing import known, pause_after, report
from esm.runtime.leasing import ShardLease
from esm.runtime.observation import Observation
from esm.runtime.sieve import Sieve
from esm.runtime.surroundings import Signal, Stop, Surroundings

EMPTY_READS_MAX = 10
"""Reads in a row that bring nothing, from a source that does not say it is behind: the record is not there."""


class Orders:
    """The standing orders of one mapping."""

    def __init__(self) -> None:
        self.standing: tuple[Order, ...] = ()
        self.changed = Signal()

    def follow(self, orders: tuple[Order, ...]) -> None:
        """There are other orders now."""
        if orders != self.standing:
            self.standing = orders
            self.changed.notify()


class OrderBook:
    """The standing orders of every mapping, by UUID."""

    def __init__(self) -> None:
        self._orders: defaultdict[str, Orders] = defaultdict(Orders)

    def of(self, uuid: str) -> Orders:
        """Those of one mapping: the same object for as long as the worker runs."""
        return self._orders[uuid]

    def follow(self, controls: Iterable[Control]) -> None:
        """Take over what the store says of all mappings."""
        found = {control.mapping: control.orders for control in controls}
        for uuid in self._orders.keys() | found.keys():
            self._orders[uuid].follow(found.get(uuid, ()))


@dataclass
class _Passed:
    """What a skip passes, as far as it was read."""

    count: int = 0
    first: StreamRecord | None = None
    last: StreamRecord | None = None
    end: StreamRecord | None = None
    """The record that was named."""

    def add(self, records: Iterable[StreamRecord]) -> None:
        """Untaken records, in order."""
        for record in records:
            self.count += 1
            self.first = self.first or record
            self.last = record

    @property
    def span(self) -> Span | None:
        """What the notice says; None where everything was taken already."""
        if self.first is None or self.last is None:
            return None
        return Span(
            self.first.sequence, self.last.sequence, self.count, self.first.arrived_at, self.last.arrived_at
        )  # fmt: skip


@dataclass
class Following:
    """How one shard follows orders between its claim and its first read."""

    around: Surroundings
    mapping: Callable[[], Mapping]
    source: StreamSource
    notifier: Notifier
    observation: Observation
    stop: Stop
    _pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self._pace = Pace(self.source.reads_per_s_busy, self.source.reads_per_s_idle)

    async def follow(self, lease: ShardLease, orders: tuple[Order, ...]) -> bool:
        """Carry out what the lease has not followed yet; False: the stop came first. Raises: LeaseLost."""
        for order in operating.pending(lease.lease, orders):
            is_done = await (self._rewind(lease, order) if isinstance(order, Rewind) else self._skip(lease, order))
            if not is_done:
                return False
        return not self.stop.is_set

    async def _rewind(self, lease: ShardLease, order: Rewind) -> bool:
        before, after = lease.lease, operating.rewound(lease.lease, order)
        if not await self._store(lease, after):
            return False
        self.observation.telemetry.rewound(
            before.shard, order, before.positions, after.positions, window_dropped=before.window != after.window
        )
        return True

    async def _skip(self, lease: ShardLease, order: Skip) -> bool:
        passed = await self._find(lease.lease, order)
        if passed is None:
            return False
        span = passed.span if passed.end is not None else None
        if span is not None:
            step = GiveUp(span, Condition.SKIPPED, 0, order.id, None)
            while put_off := await self.notifier.give_up(self.mapping(), order.shard, step, self.stop):
                with self.stop.interruptible():
                    await self.around.clock.sleep_until(put_off.until)
                if self.stop.is_set:
                    return False
        last = None if passed.end is None else AfterSequence(passed.end.sequence, passed.end.arrived_at)
        if not await self._store(lease, operating.skipped(lease.lease, order, last)):
            return False
        self.observation.telemetry.skipped(order, span)
        return True

    async def _store(self, lease: ShardLease, changed: Lease) -> bool:
        async def store() -> bool:
            await lease.replace(changed)
            return True

        return bool(await known(self.around, self.stop, self.observation, "store", store))

    async def _find(self, lease: Lease, order: Skip) -> _Passed | None:
        """Read from the lowest position to the record that is named; None: the stop came first."""
        passed = _Passed()
        if all(is_at_or_before(order.sequence, position) for position in lease.positions):
            return passed
        where = f"shard {lease.shard}"
        reader = self.source.open(lease.shard, lowest(lease.positions))
        sieve = Sieve(self.observation.telemetry)
        failures = empty = 0
        while not self.stop.is_set:
            error: Unavailable | OperatorNeeded | None = None
            try:
                read = await self._read(reader)
            except ShardGone:
                return passed
            except PositionLost:
                reader = self.source.open(lease.shard, TrimHorizon())
            except (Unavailable, OperatorNeeded) as caught:
                error = caught
                report(self.observation, where, caught, failures + 1)
            else:
                self.observation.mended(where)
                if read is None:
                    return None
                empty = 0 if read.records or read.behind_s else empty + 1
                if await self._pass(read, lease, order, sieve, passed) or read.has_ended or empty >= EMPTY_READS_MAX:
                    return passed
            failures = await pause_after(self.around, self.stop, error, failures)
        return None

    async def _read(self, reader: ShardReader) -> Read | None:
        """One read within the budget of bytes, of which nothing is kept; None: the stop came first."""
        reserved = 0
        try:
            with self.stop.interruptible():
                await self._pace.wait(self.around.clock)
                reserved = await self.around.budget.reserve(self.source.read_bytes_max)
                return await reader.read(READ_LIMIT)
        finally:
            self.around.budget.release(reserved)
        return None

    async def _pass(self, read: Read, lease: Lease, order: Skip, sieve: Sieve, passed: _Passed) -> bool:
        """Count what a read brought up to the record that is named; True: that record, or a later one, was met."""
        end = int(order.sequence)
        before = [record for record in read.records if int(record.sequence) <= end]
        untaken = [
            record
            for record in before
            if not was_taken(record.sequence, record.lane_hash, (lease.positions, *lease.done))
        ]
        kept, _ = await sieve.sift(self.mapping(), untaken)
        passed.add(kept)
        if before and int(before[-1].sequence) == end:
            passed.end = before[-1]
        return passed.end is not None or len(before) < len(read.records)
