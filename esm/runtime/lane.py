"""Lane: the records of some keys of one shard, delivered in order, one batch at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from esm.model.clocks import Instant, UnixTime
from esm.model.mapping import Mapping
from esm.model.position import AfterSequence
from esm.model.record import StreamRecord
from esm.rules.batching import BatchLimits, Window
from esm.rules.delivery import Delivery, Done, GiveUp, Invoke, Reread, RetryRules, Step, Wait
from esm.rules.events import PAYLOAD_BYTES_MAX
from esm.runtime.surroundings import Signal

if TYPE_CHECKING:
    from esm.runtime.feed import Feed
    from esm.runtime.shard import ShardRunner

HOLDS_S = 5.0
"""A back-off longer than this gives the payloads back and reads them again when due."""

REREAD_LOOK_S = 30.0
"""How often a lane that waits for its records to be read again looks whether they have expired."""

LAST_START_S = 1.0
"""This long before the end of the grace period nothing is started any more."""


class Lane:
    """Runs until stopped, or until the shard has ended and everything is settled."""

    def __init__(self, shard: ShardRunner, index: int, skip_to: int) -> None:
        self._shard = shard
        self._held_bytes = 0
        self._is_rereading = False
        self._has_offered_window = False
        self.index = index
        self.skip_to = skip_to
        """Records up to this sequence number were taken; -1: none is known to be."""
        self.window: Window[StreamRecord] = Window()
        self.changed = Signal()
        self.feed: Feed | None = None
        self.is_fed_out = False
        """The end of the shard has been read for this lane."""
        self.has_finished = False
        """The shard has ended and everything of the lane is settled."""
        self.delivery: Delivery | None = None
        self.failing_since: Instant | None = None

    @property
    def is_full(self) -> bool:
        """Whether a batch more than the one on its way is waiting already."""
        if self._is_rereading or not self.window:
            return False
        return len(self.window) >= self._shard.mapping().batch_size or self.window.size_bytes >= PAYLOAD_BYTES_MAX

    @property
    def is_idle(self) -> bool:
        """Whether the lane has nothing to do."""
        return self.delivery is None and not self.window

    @property
    def oldest_arrival(self) -> UnixTime | None:
        """Arrival of the oldest record not taken; None when nothing waits here."""
        head = (self.delivery and self.delivery.head) or self.window.first
        return head.arrived_at if head else None

    @property
    def begun(self) -> frozenset[str]:
        """Sequence numbers of a batch whose payloads were given back: they are delivered whatever filters say now."""
        return self.delivery.lacking if self.delivery is not None else frozenset()

    def has_taken(self, record: StreamRecord) -> bool:
        """Whether the record was taken before this feed came by; cheap once the feed is past that place."""
        if self.skip_to < 0:
            return False
        if int(record.sequence) <= self.skip_to:
            return True
        self.skip_to = -1
        return False

    async def run(self) -> None:
        """Deliver batch after batch; raises nothing but cancellation and the store's LeaseLost from above."""
        try:
            while batch := await self._next_batch():
                if not await self._deliver(batch):
                    return
            self.has_finished = self.is_fed_out and not self.window
        finally:
            self._let_go(self._held_bytes + self.window.clear())
            self._held_bytes = 0

    async def _next_batch(self) -> list[StreamRecord]:
        """The next batch when it is due; empty when the lane's work is over."""
        clock = self._shard.around.clock
        while True:
            limits = self._limits()
            if self._shard.stop.is_set:
                return self._last_window(limits)
            due_at = self.window.due_at(limits)
            if due_at is None and self.is_fed_out:
                return []
            if due_at is not None and (clock.now() >= due_at or self.is_fed_out or self._shard.is_converting):
                return self._take(limits)
            if self.feed is None and not self.is_fed_out and not self._shard.is_converting:
                self._shard.feed_again(self)
            with self._shard.stop.interruptible():
                await self.changed.wait_until(clock, Instant(float("inf")) if due_at is None else due_at)

    def _last_window(self, limits: BatchLimits) -> list[StreamRecord]:
        late = self._shard.around.clock.now() >= self._shard.stop.deadline - LAST_START_S
        if limits.window_s <= 0 or self._has_offered_window or late or not self.window:
            return []
        self._has_offered_window = True
        return self._take(limits)

    def _take(self, limits: BatchLimits) -> list[StreamRecord]:
        before = self.window.size_bytes
        batch = self.window.take(limits)
        self._held_bytes += before - self.window.size_bytes
        self._shard.changed.notify()
        return batch

    def _limits(self) -> BatchLimits:
        mapping = self._shard.mapping()
        return BatchLimits(mapping.batch_size, mapping.window_s)

    async def _deliver(self, batch: list[StreamRecord]) -> bool:
        """Settle a batch; False: the stop came first, and what is not settled stays after the position."""
        clock = self._shard.around.clock
        mapping = self._shard.mapping()
        rules = RetryRules(mapping.retries_max, None, mapping.bisect_on_error)
        delivery = Delivery(batch, rules)
        self.delivery = delivery
        while step := self._step(delivery, mapping):
            match step:
                case Invoke():
                    is_going_on = await self._invoke(delivery)
                case Wait(until):
                    is_going_on = await self._wait(delivery, until)
                case Reread(records):
                    is_going_on = await self._reread(delivery, records[-1])
                case GiveUp():
                    is_going_on = await self._give_up(delivery, step)
                case Done(last):
                    self._settled(AfterSequence(last.sequence, last.arrived_at))
                    is_going_on = True
            if not is_going_on:
                return False
        self.delivery = None
        self._is_rereading = False
        self._let_go(self._held_bytes)
        self._held_bytes = 0
        self.window.settled(clock.now())
        self._shard.changed.notify()
        return True

    def _step(self, delivery: Delivery, mapping: Mapping) -> Step | None:
        """Ask the rule; the stream's retention may have been changed meanwhile to save a blocked shard."""
        clock = self._shard.around.clock
        limits_s = (mapping.record_age_max_s, self._shard.retention_s)
        age_max_s = min(limit for limit in limits_s if limit is not None)
        delivery.rules = replace(delivery.rules, age_max_s=age_max_s)
        return delivery.step(clock.now(), clock.wall())

    async def _invoke(self, delivery: Delivery) -> bool:
        shard = self._shard
        clock = shard.around.clock
        if shard.stop.is_set and (delivery.is_failing or clock.now() >= shard.stop.deadline - LAST_START_S):
            return False
        with shard.stop.interruptible() as waiting:
            await shard.gate.enter()
        if waiting.cancelled_caught and not self._has_offered_window:
            return False
        if waiting.cancelled_caught:
            await shard.gate.enter()
        try:
            step = delivery.step(clock.now(), clock.wall())
            if isinstance(step, Invoke):
                await self._invoke_now(delivery, step)
        finally:
            shard.gate.leave()
        return True

    async def _invoke_now(self, delivery: Delivery, step: Invoke) -> None:
        shard = self._shard
        clock = shard.around.clock
        shard.observation.telemetry.batch_aged(max(0.0, clock.wall() - step.records[-1].arrived_at))
        ids = [record.sequence for record in step.records]
        began_at = clock.now()
        outcome = await shard.invoker.invoke(shard.mapping(), step.records, ids, step.attempt, shard.id)
        delivery.invoked(outcome, clock.now(), shard.around.jitter())
        if not delivery.is_failing:
            self.failing_since = None
        elif self.failing_since is None:
            self.failing_since = began_at

    async def _wait(self, delivery: Delivery, until: Instant) -> bool:
        clock = self._shard.around.clock
        if until - clock.now() > HOLDS_S and not delivery.is_hollow:
            self._park(delivery)
        with self._shard.stop.interruptible():
            await clock.sleep_until(until)
        return not self._shard.stop.is_set

    async def _give_up(self, delivery: Delivery, step: GiveUp) -> bool:
        shard = self._shard
        if self.failing_since is None:
            self.failing_since = shard.around.clock.now()
        if not await shard.notifier.give_up(shard.mapping(), shard.id, step, shard.stop):
            return False
        delivery.given_up()
        self.failing_since = None
        self._settled(AfterSequence(step.span.last_sequence, step.span.last_arrived_at))
        return True

    async def _reread(self, delivery: Delivery, last: StreamRecord) -> bool:
        """Read the payloads of a parked batch again.

        When they do not come for long, what has come is given back, so that lanes which read at once do not starve
        each other of bytes; the rule is asked again, for the records may have expired.
        """
        shard = self._shard
        clock = shard.around.clock
        self._is_rereading = True
        shard.changed.notify()
        if self.feed is None and not self.is_fed_out:
            shard.feed_again(self)
        look_at = Instant(clock.now() + REREAD_LOOK_S * (0.5 + shard.around.jitter()))
        with shard.stop.interruptible():
            while not self._is_fed_to(last) and clock.now() < look_at:
                await self.changed.wait_until(clock, look_at)
        if shard.stop.is_set:
            return False
        if self._is_fed_to(last):
            before = self.window.size_bytes
            delivery.restore(self.window.take_while(lambda record: int(record.sequence) <= int(last.sequence)))
            self._held_bytes += before - self.window.size_bytes
        else:
            self._park(delivery)
        self._is_rereading = False
        return True

    def _is_fed_to(self, last: StreamRecord) -> bool:
        reached = self._shard.progress.frontier(self.index)
        if self.is_fed_out:
            return True
        return isinstance(reached, AfterSequence) and int(reached.sequence) >= int(last.sequence)

    def _park(self, delivery: Delivery) -> None:
        """Give all bytes back; the records are read again from the lane's position when they are due."""
        delivery.hollow()
        if self.feed is not None:
            self.feed.leave(self)
        self.is_fed_out = False
        self.skip_to = -1
        self._let_go(self._held_bytes + self.window.clear())
        self._held_bytes = 0
        self._shard.progress.dropped(self.index)

    def _settled(self, last: AfterSequence) -> None:
        if self.delivery is not None and self.delivery.is_hollow:
            self._skip_through(int(last.sequence))
        self._shard.progress.settled(self.index, last)
        self._shard.moved()

    def _skip_through(self, sequence: int) -> None:
        """Records up to here were settled without being read again: a feed that brings them is not listened to."""
        before = self.window.size_bytes
        self.window.take_while(lambda record: int(record.sequence) <= sequence)
        self._let_go(before - self.window.size_bytes)
        self.skip_to = max(self.skip_to, sequence)

    def _let_go(self, size_bytes: int) -> None:
        self._shard.around.budget.release(size_bytes)
