"""Feed: reads one shard from one place on and hands the records to the lanes that it serves.

A shard begins with one feed for all lanes. A lane that falls behind (a long back-off, a slow function) leaves its feed
so that it does not hold up the others, gets a feed of its own when it wants records again, and joins the first one
when both have come to the same place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from esm.errors import EsmError, OperatorNeeded, PositionLost, ShardGone, Unavailable
from esm.model.clocks import Instant, UnixTime
from esm.model.position import AfterSequence, Position, TrimHorizon
from esm.model.record import Read, StreamRecord
from esm.ports import Clock, ShardReader
from esm.rules.progress import last_before
from esm.runtime.knowing import pause_after, report

if TYPE_CHECKING:
    from esm.runtime.lane import Lane
    from esm.runtime.shard import ShardRunner

READ_LIMIT = 10_000
"""Records asked for at once; sources with a lower bound apply it. Source: lambda.md 3.1."""

HOLD_S = 1.0
"""How long a full lane may keep a feed from lanes that have nothing to do."""


class Pace:
    """The reads of one shard, all its feeds together: a token bucket of one."""

    def __init__(self, busy_per_s: float, idle_per_s: float) -> None:
        self._busy_s = 1 / busy_per_s
        self._idle_s = 1 / idle_per_s
        self._next_at = Instant(0.0)
        self._last_at = Instant(0.0)

    async def wait(self, clock: Clock) -> None:
        """Return when the next read may start."""
        self._last_at = Instant(max(clock.now(), self._next_at))
        self._next_at = Instant(self._last_at + self._busy_s)
        await clock.sleep_until(self._last_at)

    def was_empty(self) -> None:
        """The last read brought nothing: the next one may wait longer."""
        self._next_at = Instant(max(self._next_at, self._last_at + self._idle_s))


class Feed:
    """Reads until its lanes have left, the shard has ended, or the stop comes."""

    def __init__(self, shard: ShardRunner, lanes: list[Lane], position: Position) -> None:
        self._shard = shard
        self.lanes = lanes
        self.position = position
        self._read_at = UnixTime(0.0)
        """When this feed last read, also when it read nothing."""
        for lane in lanes:
            lane.feed = self

    async def run(self) -> None:
        """Survives Unavailable, OperatorNeeded (shown, tried slowly) and PositionLost (counted, goes on)."""
        shard = self._shard
        reader = shard.source.open(shard.id, self.position)
        failures = 0
        while self.lanes and not shard.stop.is_set:
            error: EsmError | None = None
            try:
                last = await self._read(reader)
            except ShardGone:
                shard.observation.mended(f"shard {shard.id}")
                self._end()
                break
            except PositionLost as lost:
                reader = self._restarted()
                error = Unavailable(str(lost))
            except (Unavailable, OperatorNeeded) as caught:
                error = caught
                report(shard.observation, f"shard {shard.id}", caught, failures + 1)
            else:
                shard.observation.mended(f"shard {shard.id}")
                if last is not None:
                    shard.announce(last.children)
                    self._end()
            failures = await pause_after(shard.around, shard.stop, error, failures)
        shard.feeds.discard(self)

    async def _read(self, reader: ShardReader) -> Read | None:
        """One read, spread over the lanes. Returns it at the end of the shard alone: nothing else holds its records."""
        shard = self._shard
        around = shard.around
        reserved = kept = 0
        try:
            with shard.stop.interruptible():
                await self._wait_room()
                if not self.lanes:
                    return None
                await shard.pace.wait(around.clock)
                reserved = await around.budget.reserve(shard.source.read_bytes_max)
                began_at = around.clock.wall()
                read = await reader.read(READ_LIMIT)
                records = await self._sifted(read.records)
                for lane in self.lanes:
                    lane.was_read(read, began_at)
                kept = self._spread(read, records)
                return read if read.has_ended else None
        finally:
            around.budget.release(reserved - kept)
        return None

    async def _sifted(self, records: list[StreamRecord]) -> list[StreamRecord]:
        """The records that the filter lets through, and those that a lane began to deliver when another one did.

        Of any lane: one may join this feed while it reads.
        """
        begun = frozenset[str]().union(*[lane.begun for lane in self._shard.lanes])
        kept, _ = await self._shard.sieve.sift(
            self._shard.mapping(), records, lambda record: record.sequence in begun
        )  # fmt: skip
        return kept

    def _spread(self, read: Read, records: list[StreamRecord]) -> int:
        """Give each lane its part of the records that were kept; returns the bytes that lanes hold now."""
        shard = self._shard
        shard.observation.telemetry.polled(len(read.records))
        shard.has_read(read)
        self._read_at = shard.around.clock.wall()
        if not read.records:
            shard.pace.was_empty()
            self._join()
            return 0
        now = shard.around.clock.now()
        kept = 0
        for lane, chosen in self._sorted(records):
            before = lane.window.size_bytes
            lane.window.add(chosen, now)
            kept += lane.window.size_bytes - before
            shard.progress.opened(lane.index, chosen[-1].sequence)
        last = read.records[-1]
        before_position, self.position = self.position, AfterSequence(last.sequence, last.arrived_at)
        for lane in self.lanes:
            shard.progress.reached(lane.index, self.position)
            lane.changed.notify()
        shard.moved()
        self._join(before_position)
        return kept

    def _sorted(self, records: list[StreamRecord]) -> list[tuple[Lane, list[StreamRecord]]]:
        """The records of the lanes that this feed serves, without those that a lane has taken already."""
        all_lanes = self._shard.lanes
        mine: dict[int, list[StreamRecord]] = {lane.index: [] for lane in self.lanes}
        for record in records:
            index = record.lane_hash % len(all_lanes)
            chosen = mine.get(index)
            if chosen is not None and not all_lanes[index].has_taken(record) and not self._shard.has_taken(record):
                chosen.append(record)
        return [(all_lanes[index], chosen) for index, chosen in mine.items() if chosen]

    async def _wait_room(self) -> None:
        """Return when no lane of this feed is full; lanes that hold up idle ones for long leave the feed."""
        clock = self._shard.around.clock
        began_at = clock.now()
        while self._shard.is_converting:
            await self._shard.changed.wait()
        while full := [lane for lane in self.lanes if lane.is_full]:
            if not any(lane.is_idle for lane in self.lanes):
                began_at = clock.now()
                await self._shard.changed.wait()
            elif clock.now() >= began_at + HOLD_S:
                for lane in full:
                    self.leave(lane)
            else:
                await self._shard.changed.wait_until(clock, Instant(began_at + HOLD_S))

    def leave(self, lane: Lane) -> None:
        """Stop serving a lane."""
        self.lanes.remove(lane)
        lane.feed = None
        lane.changed.notify()
        self._shard.changed.notify()

    def _join(self, before: Position | None = None) -> None:
        """Hand the lanes over to a feed that stands where this one has just come to."""
        if not isinstance(self.position, AfterSequence):
            return
        here = int(self.position.sequence)
        behind = int(before.sequence) if isinstance(before, AfterSequence) else -1 if before else here
        for other in self._shard.feeds:
            if other is self or not isinstance(other.position, AfterSequence) or not other.lanes:
                continue
            there = int(other.position.sequence)
            if here == there or behind < there <= here:
                for lane in self.lanes:
                    lane.feed = other
                    lane.skip_to = here
                other.lanes += self.lanes
                self.lanes = []
                return

    def _end(self) -> None:
        for lane in self.lanes:
            lane.feed = None
            lane.is_fed_out = True
            lane.changed.notify()
        self.lanes = []

    def _restarted(self) -> ShardReader:
        shard = self._shard
        at = self.position.arrived_at if isinstance(self.position, AfterSequence) else UnixTime(0.0)
        for lane in self.lanes:
            lane.skip_to = max(lane.skip_to, last_before(shard.progress.frontier(lane.index)))
        seen_at = max(at, self._read_at)
        is_lost = isinstance(self.position, AfterSequence) and shard.around.clock.wall() - seen_at >= shard.retention_s
        shard.observation.telemetry.position_trimmed(shard.id, None, at, lost=is_lost)
        return shard.source.open(shard.id, TrimHorizon())
