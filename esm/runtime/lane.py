"""Lane: the records of some keys of one shard, delivered in order, one batch at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from esm.model.clocks import Instant, UnixTime
from esm.model.mapping import Mapping
from esm.model.position import AfterSequence
from esm.model.record import Read, StreamRecord
from esm.model.window import OpenWindow
from esm.rules import tumbling
from esm.rules.batching import BatchLimits, Window
from esm.rules.delivery import Delivery, Done, GiveUp, Invoke, Records, Reread, RetryRules, Step, Wait
from esm.rules.events import PAYLOAD_BYTES_MAX, payload_bytes, payload_bytes_max
from esm.rules.notices import carries_payload
from esm.rules.tumbling import QUIET_S, End, FinalCall, Tip, Tumbling
from esm.runtime.surroundings import Signal

if TYPE_CHECKING:
    from esm.runtime.feed import Feed
    from esm.runtime.shard import ShardRunner

HOLDS_S = 5.0
"""A back-off longer than this gives the payloads back and reads them again when due."""

REREAD_LOOK_S = 30.0
"""How often a lane that waits for its records to be read again looks whether they have expired."""

STATE_BYTES_KEPT = 16 * 1024
"""A state up to this stays in memory: it weighs no more than what runs a shard."""

HELD_LOOK_S = 0.25
"""How often a lane looks whether its shard is this worker's again, or the stop has come."""

LAST_START_S = 1.0
"""This long before the end of the grace period nothing is started any more."""


class Lane:
    """Runs until stopped, or until the shard has ended and everything is settled."""

    def __init__(self, shard: ShardRunner, index: int, skip_to: int, window: OpenWindow | None) -> None:
        self._shard = shard
        self._held_bytes = 0
        self._state_bytes = 0
        self._tip = Tip()
        self._final: End | None = None
        """Why the open tumbling window is getting its final call just now; None: it is not."""
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
        self.tumbling = Tumbling(window)
        self.failing_since: Instant | None = None

    @property
    def is_full(self) -> bool:
        """Whether a batch more than the one on its way is waiting already."""
        if self._is_rereading or not self.window:
            return False
        limits = self._limits()
        return len(self.window) >= limits.batch_size or self.window.size_bytes >= limits.payload_bytes_max

    @property
    def is_idle(self) -> bool:
        """Whether the lane has nothing to do."""
        return self.delivery is None and not self.window and self._final is None

    @property
    def is_between_batches(self) -> bool:
        """Whether nothing of the lane is on its way; records may wait."""
        return self.delivery is None and self._final is None

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

    def was_read(self, read: Read, began_at: UnixTime) -> None:
        """The feed of this lane has read, whatever the lane gets of it."""
        if self.tumbling.open is not None:
            self._tip.read(read, began_at)
            self.changed.notify()

    async def run(self) -> None:
        """Deliver batch after batch; raises nothing but cancellation and the store's LeaseLost from above."""
        try:
            self._count_state()
            while (delivery := self._begun(await self._next_batch())) is not None:
                if not await self._deliver(delivery):
                    return
            self.has_finished = self.is_fed_out and not self.window and self.tumbling.open is None
        finally:
            self.clear()

    def clear(self) -> None:
        """Give back everything that the lane holds."""
        self._let_go(self._held_bytes + self._state_bytes + self.window.clear())
        self._held_bytes = self._state_bytes = 0

    async def _next_batch(self) -> list[StreamRecord]:
        """The next batch when it is due; empty when the lane's work is over."""
        clock = self._shard.around.clock
        while True:
            limits = self._limits()
            if self._shard.stop.is_set:
                return self._last_window(limits)
            if end := self._end():
                await self._close(end, goes_on=False)
                continue
            due_at = self._due_at(limits)
            if due_at is None and self.is_fed_out:
                return []
            if self._shard.is_converting:
                due_at = None
            if due_at is not None and (clock.now() >= due_at or self.is_fed_out):
                return self._take(limits)
            if self.feed is None and not self.is_fed_out and not self._shard.is_converting:
                self._shard.feed_again(self)
            self._hollow_window()
            with self._shard.stop.interruptible():
                await self.changed.wait_until(clock, self._look_at() if due_at is None else due_at)

    def _due_at(self, limits: BatchLimits) -> Instant | None:
        """When a batch is due; one that a tumbling window cuts, or whose window is over, waits for nothing more."""
        due_at = self.window.due_at(limits)
        first, last = self.window.first, self.window.last
        size_s = self._size_s()
        if due_at is None or first is None or last is None or not size_s:
            return due_at
        if self.tumbling.is_cut(first, last, size_s):
            return self._shard.around.clock.now()
        return due_at if self.tumbling.open is None else min(due_at, self._quiet_at(self.tumbling.open))

    def _look_at(self) -> Instant:
        """When a lane without records looks again; once the window was quiet for long, reads wake it up."""
        never = Instant(float("inf"))
        if self.tumbling.open is None:
            return never
        quiet_at = self._quiet_at(self.tumbling.open)
        return quiet_at if quiet_at > self._shard.around.clock.now() else never

    def _quiet_at(self, window: OpenWindow) -> Instant:
        clock = self._shard.around.clock
        return Instant(clock.now() + max(0.0, window.end_s + QUIET_S - clock.wall()))

    def _last_window(self, limits: BatchLimits) -> list[StreamRecord]:
        late = self._shard.around.clock.now() >= self._shard.stop.deadline - LAST_START_S
        if limits.window_s <= 0 or self._has_offered_window or late or not self.window or self._end():
            return []
        self._has_offered_window = True
        return self._take(limits)

    def _take(self, limits: BatchLimits) -> list[StreamRecord]:
        before = self.window.size_bytes
        size_s, head = self._size_s(), self.window.first
        if size_s and head is not None:
            self.tumbling.begin(head, size_s)
            self._count_state()
            batch = self.window.take(limits, self.tumbling.holds)
        else:
            batch = self.window.take(limits)
        self._held_bytes += before - self.window.size_bytes
        self._shard.changed.notify()
        return batch

    def _limits(self) -> BatchLimits:
        mapping = self._shard.mapping()
        most = payload_bytes_max(mapping.invocation_type)
        if not self._size_s():
            return BatchLimits(mapping.batch_size, mapping.window_s, most)
        state_bytes = self.tumbling.open.state_bytes if self.tumbling.open else len(tumbling.EMPTY_STATE)
        return BatchLimits(mapping.batch_size, mapping.window_s, most - self._frame_bytes() - state_bytes)

    def _size_s(self) -> int:
        """`TumblingWindowInSeconds`; 0 as long as the shard still has the lanes of a time without windows."""
        return self._shard.mapping().tumbling_window_s if len(self._shard.lanes) == 1 else 0

    def _frame_bytes(self) -> int:
        return tumbling.frame_bytes(self._shard.id, str(self._shard.mapping().source_arn))

    def _end(self) -> End | None:
        """Whether the open tumbling window gets its final call now, between two batches."""
        if self.tumbling.open is None:
            return None
        reached = self._shard.progress.frontier(self.index)
        return self.tumbling.end(self._size_s(), self.window.first, reached, self._tip, is_over=self.is_fed_out)

    def _begun(self, batch: list[StreamRecord]) -> Delivery | None:
        """The delivery of a batch, None without one. Nothing else holds its records, so that it can give them back."""
        if not batch:
            return None
        mapping = self._shard.mapping()
        members_bytes = self._frame_bytes() + len(tumbling.EMPTY_STATE) if self.tumbling.open else 0
        rules = RetryRules(mapping.retries_max, None, mapping.bisect_on_error, members_bytes=members_bytes)
        return Delivery(batch, rules)

    async def _deliver(self, delivery: Delivery) -> bool:
        """Settle a batch; False: the stop came first, and what is not settled stays after the position.

        No step outlives what is done about it: a pause that gives the payloads back would keep them with it.
        """
        mapping = self._shard.mapping()
        self.delivery = delivery
        while step := self._step(delivery, mapping):
            if isinstance(step, Invoke) and self._ends_early(step.records):
                step = None
                is_going_on = await self._close(End.EARLY, goes_on=True)
            else:
                is_going_on = await self._act(delivery, step)
            if not is_going_on:
                return False
        self.delivery = None
        self._is_rereading = False
        self._let_go(self._held_bytes)
        self._held_bytes = 0
        self.window.settled(self._shard.around.clock.now())
        self._shard.changed.notify()
        return True

    async def _act(self, delivery: Delivery, step: Step) -> bool:
        match step:
            case Invoke():
                if len(step.records) > 1 and not self._fits(step.records):
                    delivery.halve()
                    return True
                return await self._invoke(delivery)
            case Wait(until):
                return await self._wait(until)
            case Reread(records):
                return await self._reread(delivery, records[-1])
            case GiveUp():
                return await self._give_up(delivery, step)
            case Done(last, state):
                self._settled(AfterSequence(last.sequence, last.arrived_at), state)
                return True

    def _ends_early(self, records: Records) -> bool:
        """Whether the state of the open window leaves no room for the next record, or is too large by itself."""
        window = self.tumbling.open
        if window is None:
            return False
        return tumbling.is_too_large(window) or (len(records) == 1 and not self._fits(records))

    def _fits(self, records: Records) -> bool:
        """Whether records and the state of the open window fit an event; outside of windows batches are cut to fit."""
        window = self.tumbling.open
        return window is None or payload_bytes(records) + self._frame_bytes() + window.state_bytes <= PAYLOAD_BYTES_MAX

    async def _close(self, end: End, *, goes_on: bool) -> bool:
        """The final call of the open window, as often as it takes; False: the stop came first, and it stays open."""
        shard = self._shard
        mapping = shard.mapping()
        assert self.tumbling.settled is not None
        rules = RetryRules(mapping.retries_max, None, bisect=False)
        call = FinalCall(self.tumbling.settled, rules, shard.around.clock.wall())
        outcome = end.value
        self._final = end
        try:
            while step := self._step(call, mapping):
                match step:
                    case Wait(until):
                        is_going_on = await self._wait(until)
                    case GiveUp():
                        outcome = "given_up"
                        is_going_on = await self._give_up(call, step)
                    case _:
                        is_going_on = await self._invoke(call)
                if not is_going_on:
                    return False
        finally:
            self._final = None
        self.tumbling.closed(goes_on=goes_on)
        self._count_state()
        shard.observation.telemetry.window_closed(shard.id, outcome)
        shard.moved()
        shard.changed.notify()
        return True

    def _hollow_window(self) -> None:
        """A large state of a lane that does nothing for now is not held: the bytes would be missing for reading."""
        window = self.tumbling.open
        if window is not None and len(window.state) > STATE_BYTES_KEPT and self._shard.hollow_window(self.tumbling):
            self._count_state()

    def _count_state(self) -> None:
        """The state is part of what the process holds."""
        size_bytes = len(self.tumbling.open.state) if self.tumbling.open is not None else 0
        self._let_go(self._state_bytes - size_bytes)
        self._state_bytes = size_bytes

    def _step(self, delivery: Delivery | FinalCall, mapping: Mapping) -> Step | None:
        """Ask the rule; the stream's retention may have been changed meanwhile to save a blocked shard."""
        clock = self._shard.around.clock
        limits_s = (mapping.record_age_max_s, self._shard.retention_s)
        age_max_s = min(limit for limit in limits_s if limit is not None)
        delivery.rules = replace(
            delivery.rules, age_max_s=age_max_s, payload_bytes_max=payload_bytes_max(mapping.invocation_type),
            kept_s=self._shard.retention_s if carries_payload(mapping) else None,
        )  # fmt: skip
        return delivery.step(clock.now(), clock.wall())

    async def _invoke(self, delivery: Delivery | FinalCall) -> bool:
        shard = self._shard
        clock = shard.around.clock
        is_held = True
        if shard.stop.is_set and (delivery.is_failing or clock.now() >= shard.stop.deadline - LAST_START_S):
            return False
        if not await self._has_state():
            return False
        with shard.stop.interruptible() as waiting:
            await shard.gate.enter()
        if waiting.cancelled_caught and not self._has_offered_window:
            return False
        if waiting.cancelled_caught:
            await shard.gate.enter()
        try:
            step = delivery.step(clock.now(), clock.wall())
            if isinstance(step, Invoke) and (is_held := shard.is_held):
                await self._invoke_now(delivery, step)
        finally:
            shard.gate.leave()
        return is_held or await self._wait_held()

    async def _wait_held(self) -> bool:
        """The shard may have another owner by now: nothing is begun until that is sure not to be; False: the stop."""
        shard = self._shard
        while not shard.is_held:
            with shard.stop.interruptible() as waiting:
                await shard.around.clock.sleep_until(Instant(shard.around.clock.now() + HELD_LOOK_S))
            if waiting.cancelled_caught:
                return False
        return True

    async def _has_state(self) -> bool:
        """Have the state of the open window at hand; False: the stop came first."""
        window = self.tumbling.open
        if window is None or not window.is_hollow:
            return True
        if not await self._shard.fill_window(self.tumbling):
            return False
        self._count_state()
        return True

    async def _invoke_now(self, delivery: Delivery | FinalCall, step: Invoke) -> None:
        shard = self._shard
        clock = shard.around.clock
        if step.records:
            shard.observation.telemetry.batch_aged(max(0.0, clock.wall() - step.records[-1].arrived_at))
        ids = [record.sequence for record in step.records]
        mapping = shard.mapping()
        members = self._members(mapping)
        began_at = clock.now()
        outcome = await shard.invoker.invoke(
            mapping, step.records, ids, step.attempt, shard.id, start_by=shard.start_by, members=members
        )
        delivery.invoked(outcome, clock.now(), shard.around.jitter())
        if not delivery.is_failing:
            self.failing_since = None
        elif self.failing_since is None:
            self.failing_since = began_at

    def _members(self, mapping: Mapping) -> bytes:
        """What the event carries beside its records; nothing outside of windows."""
        window = self.tumbling.open
        if window is None:
            return b""
        return tumbling.members(window, self._shard.id, str(mapping.source_arn), self._final)

    async def _wait(self, until: Instant) -> bool:
        clock = self._shard.around.clock
        holds = bool(self.window) if self.delivery is None else not self.delivery.is_hollow
        if until - clock.now() > HOLDS_S:
            if holds:
                self._park()
            self._hollow_window()
        with self._shard.stop.interruptible():
            await clock.sleep_until(until)
        return not self._shard.stop.is_set

    async def _give_up(self, delivery: Delivery | FinalCall, step: GiveUp) -> bool:
        shard = self._shard
        if self.failing_since is None:
            self.failing_since = shard.around.clock.now()
        mapping = shard.mapping()
        if carries_payload(mapping) and not await self._has_state():
            return False
        members = self._members(mapping) if carries_payload(mapping) else b""
        put_off = await shard.notifier.give_up(mapping, shard.id, step, shard.stop, members)
        if put_off is not None:
            delivery.put_off(put_off.until, needs_payload=put_off.needs_payload)
            return not shard.stop.is_set
        delivery.given_up()
        self.failing_since = None
        if isinstance(delivery, Delivery):
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
            self._park()
        self._is_rereading = False
        return True

    def _is_fed_to(self, last: StreamRecord) -> bool:
        reached = self._shard.progress.frontier(self.index)
        if self.is_fed_out:
            return True
        return isinstance(reached, AfterSequence) and int(reached.sequence) >= int(last.sequence)

    def _park(self) -> None:
        """Give all bytes back; the records are read again from the lane's position when they are due."""
        if self.delivery is not None:
            self.delivery.hollow()
        if self.feed is not None:
            self.feed.leave(self)
        self.is_fed_out = False
        self.skip_to = -1
        self._tip = Tip()
        self._let_go(self._held_bytes + self.window.clear())
        self._held_bytes = 0
        self._shard.progress.dropped(self.index)

    def _settled(self, last: AfterSequence, state: bytes | None = None) -> None:
        """Position and state of the window move in one step: whoever stores them in between sees both or neither."""
        if self.tumbling.open is not None:
            self.tumbling.took(last, state)
            self._count_state()
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
