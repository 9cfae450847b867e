"""AsyncFunctionRunner: tries the due events of one function, as many at once as it bears, and tells their recipients.

Laws: an event leaves the store only when everybody who is to be told knows, or is counted as not told. A function, its
target and its destinations hold up nobody else: every function has a runner, slots and partitions of its own. A
target that cannot be reached gets one event at a time, with a pause.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

import anyio

from esm.errors import NoticeTooLarge, OperatorNeeded, Unavailable
from esm.model.arn import Arn
from esm.model.async_event import AsyncCondition, AsyncEvent, Recipient
from esm.model.clocks import Instant, UnixTime
from esm.model.function import AsyncRules
from esm.model.invocation import Ending, Invocation, Misconfigured, Throttled, Unreachable
from esm.model.stored import VALUE_BYTES_MAX, Stored
from esm.ports import Destination, Target
from esm.rules import async_documents, asynchronous, responses
from esm.rules.asynchronous import Later, Lost, Settled
from esm.rules.backoff import pause_s
from esm.rules.buckets import BUCKETS
from esm.rules.scaling import Pressure
from esm.runtime.async_bucket import LOOK_VALUES_MAX, AsyncBuckets, Held, PartsMissing
from esm.runtime.async_owning import Ownership
from esm.runtime.knowing import pause_after
from esm.runtime.surroundings import Signal, Stop, Surroundings
from esm.telemetry import AsyncTelemetry

T = TypeVar("T")

CONCURRENCY = 10
"""Events of a function at once where its target sets no bound."""

LOOK_EVERY_S = 300.0
"""How often a bucket is looked at that is not known to hold anything due: whatever else has put it there."""

LOOK_AFTER_EVERY_S = 3600.0
"""How often what a crash may have left is looked for."""

OWNED_LOOK_S = 1.0
"""How often a worker without a bucket looks whether it has one."""

TAKE_MAX = LOOK_VALUES_MAX - 1
"""Events taken from a bucket in one go."""


@dataclass(frozen=True, slots=True)
class AsyncFunction:
    """What a function's events need, as the configuration has it now."""

    target: Target | None
    """None: the function is not configured; its events wait for it until their age ends."""
    rules: AsyncRules
    is_blocked: bool
    """Its reserved concurrency is 0."""
    destination: Callable[[Recipient], Destination | None]


class AsyncFunctionRunner:
    """Runs until stopped or cancelled. Survives Unavailable and OperatorNeeded of store, target and destinations."""

    def __init__(
        self, around: Surroundings, arn: Arn, function: Callable[[], AsyncFunction], telemetry: AsyncTelemetry,
        stop: Stop, ownership: Ownership,
    ) -> None:  # fmt: skip
        self._around = around
        self._arn = arn
        self._function = function
        self._telemetry = telemetry
        self._stop = stop
        self._ownership = ownership
        self._buckets = AsyncBuckets(around, arn)
        self._next_at = [UnixTime(0.0)] * BUCKETS
        self._busy: list[set[str]] = [set() for _ in range(BUCKETS)]
        self._pressure = Pressure(CONCURRENCY)
        self._unreached = 0
        self._resume_at = Instant(0.0)
        self._changed = Signal()
        self.running = 0
        self._stored_in = [0] * BUCKETS
        """Events of each bucket, as far as is known: counted again from time to time."""
        self._changes = [0] * BUCKETS
        self._uncounted = set(range(BUCKETS))
        self._to_count = Signal()

    @property
    def backlog(self) -> int:
        """Events that are stored in this worker's buckets, as far as is known."""
        return sum([self._stored_in[bucket] for bucket in self._ownership.owned()])

    def is_busy(self, bucket: int) -> bool:
        """Whether an event of a bucket is being tried."""
        return bool(self._busy[bucket])

    def look_into(self, buckets: Collection[int]) -> None:
        """Others may have put events into these buckets."""
        for bucket in buckets:
            self._next_at[bucket] = UnixTime(0.0)
        self._uncounted.update(buckets)
        self._to_count.notify()
        self._changed.notify()

    async def add(self, event: AsyncEvent, due_at: UnixTime) -> None:
        """Store an event, and look at it when it is due. Raises: Unavailable."""
        await self._add(event, due_at, self._ownership.pick(event.request_id))

    async def _add(self, event: AsyncEvent, due_at: UnixTime, bucket: int) -> None:
        await self._buckets.add(event, due_at, bucket)
        self._count(bucket, self._stored_in[bucket] + 1)
        self._next_at[bucket] = min(self._next_at[bucket], due_at)
        self._changed.notify()

    def crashed(self, restart_s: float) -> None:
        """An error of the program itself (call inside `except`): `run` is called again after a pause."""
        self._telemetry.crashed(restart_s)

    async def run(self) -> None:
        """Take what is due until `stop`, then let what runs end."""
        failures = 0
        self._next_at = [UnixTime(0.0)] * BUCKETS
        async with anyio.create_task_group() as background:
            background.start_soon(self._look_after_forever)
            async with anyio.create_task_group() as tries:
                while not self._stop.is_set:
                    error: Unavailable | OperatorNeeded | None = None
                    try:
                        until = await self._take(tries)
                    except (Unavailable, OperatorNeeded) as caught:
                        error = caught
                        self._around.telemetry.store_failed("async", str(caught))
                    else:
                        with self._stop.interruptible():
                            await self._changed.wait_until(self._around.clock, until)
                    failures = await pause_after(self._around, self._stop, error, failures)
            background.cancel_scope.cancel()

    async def _take(self, tries: anyio.abc.TaskGroup) -> Instant:
        """Start what is due and has a slot; returns when to look again, also without being woken."""
        clock = self._around.clock
        target = self._function().target
        bound = CONCURRENCY if target is None else target.concurrency
        self._pressure.set_limit_max(CONCURRENCY if bound is None else bound)
        while not self._stop.is_set:
            if self.running >= self._pressure.limit:
                return Instant(float("inf"))
            if clock.now() < self._resume_at:
                return self._resume_at
            bucket = min(self._ownership.owned(), key=self._next_at.__getitem__, default=None)
            if bucket is None:
                return Instant(clock.now() + OWNED_LOOK_S)
            wait_s = self._next_at[bucket] - clock.wall()
            if wait_s > 0:
                return Instant(clock.now() + wait_s)
            await self._take_from(bucket, tries)
        return Instant(float("inf"))

    async def _take_from(self, bucket: int, tries: anyio.abc.TaskGroup) -> None:
        most = min(TAKE_MAX, self._pressure.limit - self.running)
        busy = self._busy[bucket]
        budget = self._around.budget
        reserved = held = 0
        try:
            with self._stop.interruptible():
                reserved = await budget.reserve(LOOK_VALUES_MAX * VALUE_BYTES_MAX)
            if not reserved or self._stop.is_set:
                return
            self._next_at[bucket] = UnixTime(float("inf"))
            wall = self._around.clock.wall()
            try:
                look = await self._buckets.due(bucket, wall, busy, most)
            except BaseException:
                self._next_at[bucket] = UnixTime(0.0)
                raise
            later = UnixTime(wall + LOOK_EVERY_S)
            next_at = later if look.next_at is None else min(later, look.next_at)
            self._next_at[bucket] = min(self._next_at[bucket], next_at)
            for one in look.due:
                held += len(one.stored.value)
                busy.add(one.item)
                self.running += 1
                tries.start_soon(self._serve, one)
        finally:
            budget.release(reserved - held)

    async def _serve(self, held: Held) -> None:
        """One event that is due: try it or tell of it, then put it back or forget it."""
        size_bytes = len(held.stored.value)
        reserved = 0
        try:
            if held.found.is_apart:
                with self._stop.interruptible():
                    reserved = await self._around.budget.reserve(held.found.body_bytes)
            if not self._stop.is_set:
                await self._settle(held)
        finally:
            self._around.budget.release(size_bytes + reserved)
            self._busy[held.bucket].discard(held.item)
            self.running -= 1
            self._changed.notify()

    async def _settle(self, held: Held) -> None:
        try:
            event, parts = await self._stored(lambda: self._buckets.load(held))
        except PartsMissing as missing:
            self._telemetry.dropped("payload", held.found.head.request_id, str(missing))
            await self._remove(held, ())
            return
        function = self._function()
        decision: Later | Settled | None = Settled(event) if event.verdict else await self._try(event, function)
        if isinstance(decision, Settled):
            decision = await self._tell(decision.event, function)
        if decision is not None:
            event, due_at = decision.event, decision.due_at
            await self._stored(lambda: self._add(event, due_at, held.bucket))
        await self._remove(held, parts)

    async def _try(self, event: AsyncEvent, function: AsyncFunction) -> Later | Settled:
        around = self._around
        rules, wall, notice_id = function.rules, around.clock.wall(), around.new_id()
        self._telemetry.aged(max(0.0, wall - event.accepted_at))
        settled = asynchronous.before(event, rules, wall, notice_id, is_blocked=function.is_blocked)
        if settled is None:
            ending = await self._invoke(event, function.target)
            decision = asynchronous.after(event, ending, rules, around.clock.wall(), notice_id)
        else:
            decision = settled
        if isinstance(decision, Settled) and decision.event.verdict is not None:
            verdict = decision.event.verdict
            is_failure = verdict.condition is not AsyncCondition.SUCCESS
            if is_failure:
                self._telemetry.given_up(event.request_id, verdict.condition.value, decision.event.tries)
            if is_failure and not verdict.pending:
                self._telemetry.dropped(verdict.condition.value, event.request_id)
        return decision

    async def _invoke(self, event: AsyncEvent, target: Target | None) -> Ending:
        clock = self._around.clock
        if target is None:
            return Misconfigured(event.request_id, f"The function {self._arn} is not configured.")
        began_at = clock.now()
        ending = await target.invoke(
            Invocation(event.request_id, event.function_arn, event.payload, trace=event.trace)
        )  # fmt: skip
        outcome = responses.read(ending, (), reports_item_failures=False)
        self._pressure.ended(outcome, self.running)
        has_run = not isinstance(outcome, (Throttled, Unreachable, Misconfigured))
        self._unreached = 0 if has_run else self._unreached + 1
        if isinstance(outcome, Throttled) or self._pressure.is_broken:
            self._resume_at = Instant(clock.now() + pause_s(self._unreached, self._around.jitter()))
        name = responses.outcome_name(outcome)
        self._telemetry.invocation_ended(event.request_id, name, event.tries + 1, clock.now() - began_at)
        return ending

    async def _tell(self, event: AsyncEvent, function: AsyncFunction) -> Later | None:
        """Tell everybody who is pending; None: everybody knows, or is counted as not told."""
        assert event.verdict is not None
        for recipient in event.verdict.pending:
            error = await self._send(event, recipient, function)
            if error is None or isinstance(error, NoticeTooLarge):
                event = asynchronous.told(event, recipient)
        assert event.verdict is not None
        if not event.verdict.pending:
            return None
        decision = asynchronous.not_told(event, function.rules, self._around.clock.wall())
        if isinstance(decision, Lost):
            for recipient in decision.pending:
                self._telemetry.dropped("destination", event.request_id, f"{recipient.value} could not be reached")
            return None
        return decision

    async def _send(
        self, event: AsyncEvent, recipient: Recipient, function: AsyncFunction
    ) -> Unavailable | OperatorNeeded | None:
        """Tell one recipient; what can never be told is counted as dropped."""
        destination = function.destination(recipient)
        if destination is None:
            self._telemetry.dropped("destination", event.request_id, f"{recipient.value} is not configured any more")
            return None
        is_dead_letter = recipient is Recipient.DEAD_LETTER
        try:
            await destination.send(async_documents.notice(event, recipient), async_documents.body(event, recipient))
        except (Unavailable, OperatorNeeded) as error:
            self._telemetry.delivery_failed(event.request_id, str(error), is_dead_letter=is_dead_letter)
            if isinstance(error, NoticeTooLarge):
                self._telemetry.dropped("destination", event.request_id, str(error))
            return error
        return None

    async def _stored(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of the store, however long it takes."""
        failures = 0
        while True:
            try:
                return await ask()
            except Unavailable as error:
                self._around.telemetry.store_failed("async", str(error))
                failures = await pause_after(self._around, Stop(), error, failures)

    async def _remove(self, held: Held, parts: tuple[Stored, ...]) -> None:
        await self._stored(lambda: self._buckets.remove(held, parts))
        self._count(held.bucket, max(0, self._stored_in[held.bucket] - 1))

    def _count(self, bucket: int, stored: int) -> None:
        self._stored_in[bucket] = stored
        self._changes[bucket] += 1

    async def _look_after_forever(self) -> None:
        """Count what is stored, and clean up what a crash has left."""
        while True:
            try:
                for bucket in sorted(self._uncounted & {*self._ownership.owned()}):
                    self._uncounted.discard(bucket)
                    changes = self._changes[bucket]
                    found = await self._buckets.count(bucket)
                    if self._changes[bucket] == changes:
                        self._count(bucket, found)
                    await self._buckets.clean(bucket)
            except (Unavailable, OperatorNeeded) as error:
                self._around.telemetry.store_failed("async", str(error))
            with anyio.move_on_after(LOOK_AFTER_EVERY_S) as waiting:
                await self._to_count.wait()
            if waiting.cancelled_caught:
                self._uncounted.update(range(BUCKETS))
