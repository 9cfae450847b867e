"""QueueRunner: one SQS mapping. Receivers take a slot, receive, build a batch, invoke, and settle it.

Laws (design section 3): a receiver takes its slot before it receives and holds it until its batch is settled; an
outstanding receive is never cancelled; nothing is invoked after a message's visibility has ended; a broken target
gets one batch at a time, and the queue's receive counts rise for no other.
"""

import math

import anyio

from esm.errors import EsmError
from esm.model.clocks import Instant
from esm.model.mapping import InvocationType, Mapping
from esm.model.record import Message, QueueFacts
from esm.model.view import ShardView
from esm.ports import QueueSource, Target
from esm.rules.batching import fitting
from esm.rules.events import payload_bytes, payload_bytes_max
from esm.rules.scaling import Pressure
from esm.rules.settlement import Delete, Hold, LetGo, Offer, Settlement
from esm.rules.validation import check_timeout
from esm.runtime.deleter import Deleter
from esm.runtime.gate import Gate
from esm.runtime.invoker import Invoker
from esm.runtime.knowing import known, pause_after, report
from esm.runtime.observation import Observation
from esm.runtime.sieve import Sieve
from esm.runtime.surroundings import Signal, Stop, Surroundings

RECEIVERS = 5
"""Receivers at first. Source: lambda.md 2.1."""

IDLE_RECEIVERS = 2
"""Receivers that wait at a quiet queue: each long poll costs a request, and bytes that others could use."""

RECEIVE_COUNT_MAX = 10
"""Messages of one ReceiveMessage."""

FACTS_EVERY_S = 300
"""How often the queue's visibility is read again."""

WINDOW_MARGIN_S = 1.0
"""A window closes this long before the function could no longer end while its messages are hidden."""

EMPTY_S = 1.0
"""A receive that brought nothing lasts at least this long, whatever the server does with its wait."""

LAST_START_S = 1.0
"""This long before the end of the grace period nothing is started any more."""


class QueueRunner:
    """Runs one queue mapping until stopped or cancelled."""

    def __init__(
        self, around: Surroundings, mapping: Mapping, source: QueueSource, target: Target, observation: Observation
    ) -> None:
        self._around = around
        self._source = source
        self._target = target
        self._observation = observation
        self._gate = Gate(Pressure(self._concurrency(mapping)))
        self._invoker = Invoker(around, target, self._gate, observation)
        self._deleter = Deleter(around, source, observation)
        self._sieve = Sieve(observation.telemetry)
        self._receiving = 0
        self._is_quiet = False
        self._timeout_s = 0
        self._received = Signal()
        self._broke = Signal()
        self._oldest: dict[int, Instant] = {}
        self.mapping = mapping
        self.stop = Stop()
        observation.shards = self._views

    def update(self, mapping: Mapping) -> bool:
        """Take over changed delivery parameters from the next batch on; False: a restart is needed."""
        if (mapping.window_s > 0) != (self.mapping.window_s > 0) or mapping.function_arn != self.mapping.function_arn:
            return False
        if mapping.invocation_type is not self.mapping.invocation_type:
            return False
        self.mapping = mapping
        self._gate.set_limit_max(self._concurrency(mapping))
        return True

    async def run(self) -> None:
        """Receive and settle until `stop` is set and everything received is settled.

        Survives Unavailable and OperatorNeeded of source, target and store: they are shown and tried again.
        """
        if not await self._know():
            return
        if not self.stop.is_set:
            self._observation.runs()
        async with anyio.create_task_group() as background:
            background.start_soon(self._deleter.run)
            background.start_soon(self._watch_facts)
            async with anyio.create_task_group() as receivers:
                for number in range(RECEIVERS):
                    receivers.start_soon(self._receive_forever, number)
            with anyio.move_on_after(max(0.0, self.stop.deadline - LAST_START_S - self._around.clock.now())):
                await self._deleter.wait_discarded()
            background.cancel_scope.cancel()

    def _concurrency(self, mapping: Mapping) -> int:
        bounds = (RECEIVERS, mapping.concurrency_max, self._target.concurrency)
        return max(1, min(bound for bound in bounds if bound is not None))

    async def _know(self) -> bool:
        facts = await known(self._around, self.stop, self._observation, "queue", self._checked_facts)
        return facts is not None

    async def _checked_facts(self) -> QueueFacts:
        facts = await self._source.facts()
        function = await self._target.facts()
        is_event = self.mapping.invocation_type is InvocationType.EVENT
        if function.timeout_s is not None and not is_event:
            check_timeout(function.timeout_s, facts.visibility_s)
        self._timeout_s = 0 if is_event else function.timeout_s or 0
        self._observation.backlog = facts.backlog
        return facts

    async def _watch_facts(self) -> None:
        while True:
            await anyio.sleep(FACTS_EVERY_S)
            await self._know()

    async def _receive_forever(self, number: int) -> None:
        failures = 0
        while not self.stop.is_set:
            began_at = self._around.clock.now()
            with self.stop.interruptible() as waiting:
                await self._wait_traffic()
                await self._target.wait_free()
                self._gate.set_limit_max(self._concurrency(self.mapping))
                await self._gate.enter()
            if waiting.cancelled_caught:
                return
            if self.stop.is_set:
                self._gate.leave()
                return
            try:
                error = await self._receive_and_settle(number)
            finally:
                self._gate.leave()
            if error is not None:
                report(self._observation, "source", error, failures + 1)
            failures = await pause_after(self._around, self.stop, error, failures)
            if self._is_quiet:
                with self.stop.interruptible():
                    await self._around.clock.sleep_until(Instant(began_at + EMPTY_S))

    async def _wait_traffic(self) -> None:
        """Return when the queue has been busy, or few enough receivers wait at it."""
        while self._is_quiet and self._receiving >= IDLE_RECEIVERS:
            await self._received.wait()

    async def _receive_and_settle(self, number: int) -> EsmError | None:
        left: list[Message] = []
        held = 0
        try:
            batch, held, error = await self._gather()
            while batch:
                count = fitting(batch, self.mapping.batch_size, payload_bytes_max(self.mapping.invocation_type))
                batch, left = batch[:count], batch[count:]
                self._oldest[number] = Instant(min(message.sent_at for message in batch))
                await self._settle(batch)
                batch = left
        finally:
            self._oldest.pop(number, None)
            self._around.budget.release(held)
        return error

    async def _gather(self) -> tuple[list[Message], int, EsmError | None]:
        """Messages for one batch, the bytes held for them, and the error that ended the gathering early."""
        mapping, clock = self.mapping, self._around.clock
        batch: list[Message] = []
        held = 0
        due_at = Instant(clock.now() + mapping.window_s)
        while True:
            wait_s = self._around.sqs_wait_s
            if batch:
                wait_s = max(0, min(wait_s, math.floor(due_at - clock.now())))
            count = min(RECEIVE_COUNT_MAX, mapping.batch_size - len(batch))
            try:
                messages, size = await self._receive(count, wait_s)
            except EsmError as error:
                return batch, held, error
            except BaseException:
                self._around.budget.release(held)
                raise
            if messages and not batch:
                due_at = Instant(clock.now() + mapping.window_s)
            if messages:
                ends_at = min(message.visible_at for message in messages)
                due_at = Instant(min(due_at, ends_at - self._timeout_s - WINDOW_MARGIN_S))
            batch += messages
            held += size
            is_large = payload_bytes(batch) >= payload_bytes_max(mapping.invocation_type)
            if not batch or len(batch) >= mapping.batch_size or is_large:
                return batch, held, None
            if clock.now() >= due_at or self.stop.is_set or self._gate.is_broken:
                return batch, held, None

    async def _receive(self, count: int, wait_s: int) -> tuple[list[Message], int]:
        budget = self._around.budget
        with self.stop.interruptible() as waiting:
            reserved = await budget.reserve(self._source.read_bytes_max)
        if waiting.cancelled_caught:
            return [], 0
        if self.stop.is_set:
            budget.release(reserved)
            return [], 0
        size = 0
        self._receiving += 1
        try:
            received = await self._source.receive(count, max(0, wait_s))
            self._is_quiet = not received
            messages, unwanted = await self._sieve.sift(self.mapping, received)
            size = sum([len(message.event) for message in messages])
        finally:
            self._receiving -= 1
            self._received.notify()
            budget.release(reserved - size)
        self._observation.telemetry.polled(len(received))
        self._observation.mended("source")
        if unwanted:
            with self.stop.interruptible():
                await self._deleter.discard(unwanted)
        return messages, size

    async def _settle(self, batch: list[Message]) -> None:
        settlement = Settlement(batch)
        telemetry = self._observation.telemetry
        try:
            while step := settlement.step(self._around.clock.now()):
                match step:
                    case Offer(messages, start_by):
                        if not self._may_offer(settlement):
                            await self._release(settlement.open)
                            return
                        await self._offer(settlement, messages, start_by)
                    case Hold(until):
                        if self.stop.is_set or not self._gate.may_try(settlement):
                            await self._release(settlement.open)
                            return
                        await self._hold(until)
                    case Delete(messages):
                        await self._deleter.delete(messages)
                    case LetGo(messages):
                        telemetry.let_go(len(messages))
        finally:
            self._gate.settled(settlement)

    def _may_offer(self, settlement: Settlement) -> bool:
        if self._around.clock.now() >= self.stop.deadline - LAST_START_S:
            return False
        if self.stop.is_set and settlement.tries:
            return False
        return self._gate.may_try(settlement)

    async def _offer(self, settlement: Settlement, messages: tuple[Message, ...], start_by: Instant) -> None:
        was_broken = self._gate.is_broken
        ids = [message.message_id for message in messages]
        outcome = await self._invoker.invoke(
            self.mapping, messages, ids, settlement.tries + 1, start_by=start_by
        )  # fmt: skip
        settlement.invoked(outcome, self._around.clock.now(), self._around.jitter())
        if self._gate.is_broken and not was_broken:
            self._gate.may_try(settlement)
            self._broke.notify()

    async def _hold(self, until: Instant) -> None:
        with self.stop.interruptible():
            if self._gate.is_broken:
                await self._around.clock.sleep_until(until)
            else:
                await self._broke.wait_until(self._around.clock, until)

    async def _release(self, messages: tuple[Message, ...]) -> None:
        """Hand messages back at once; while the target is broken only after the receives that could take them again."""
        ends_at = max((message.visible_at for message in messages), default=Instant(0.0))
        while self._gate.is_broken and self._receiving and not self.stop.is_set:
            if self._around.clock.now() >= ends_at:
                return
            with self.stop.interruptible():
                await self._received.wait_until(self._around.clock, ends_at)
        for start in range(0, len(messages), RECEIVE_COUNT_MAX):
            part = messages[start : start + RECEIVE_COUNT_MAX]
            try:
                await self._source.release(part)
            except EsmError as error:
                self._observation.telemetry.poll_failed(None, str(error))
            else:
                self._observation.telemetry.released(len(part), "stop" if self.stop.is_set else "target broken")

    def _views(self) -> tuple[ShardView, ...]:
        wall = self._around.clock.wall()
        lag_s = max((wall - sent_at for sent_at in self._oldest.values()), default=0.0)
        return (ShardView("", max(0.0, lag_s), 0.0, None, 0.0),)
