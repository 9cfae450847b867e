"""QueueRunner: one SQS mapping. Receivers take a slot, receive, build a batch, invoke, and settle it.

Laws (design section 3): a receiver takes its slot before it receives and holds it until its batch is settled; an
outstanding receive is never cancelled; nothing is invoked after a message's visibility has ended; a broken target
gets one batch at a time, and the queue's receive counts rise for no other. The rule `Scaling` says how many receivers
there are: a receive that brought messages starts one more, and one that is not needed any more ends. On FIFO queues a
group is never with two batches.
"""

import math

import anyio

from esm.errors import EsmError, OperatorNeeded, Unavailable
from esm.model.clocks import Instant
from esm.model.mapping import InvocationType, Mapping
from esm.model.outcome import Outcome
from esm.model.record import Message, QueueFacts
from esm.model.view import ShardView
from esm.ports import QueueSource, Target
from esm.rules import recursion
from esm.rules.events import payload_bytes, payload_bytes_max
from esm.rules.scaling import LOOK_EVERY_S, Bounds, Scaling
from esm.rules.settlement import Delete, Hold, LetGo, Offer, Return, Settlement, Ways
from esm.rules.validation import check_timeout
from esm.runtime.deleter import Deleter
from esm.runtime.hiding import Hider
from esm.runtime.invoker import Invoker
from esm.runtime.knowing import known, pause_after, report
from esm.runtime.observation import Observation
from esm.runtime.queue_part import QueuePart
from esm.runtime.sieve import Sieve
from esm.runtime.surroundings import Signal, Stop, Surroundings
from esm.runtime.turns import Turns

LONG_POLLS = 2
"""Receives of one mapping that wait for as long as the setting says: each holds the bytes of ten large messages."""

SHORT_WAIT_S = 1
"""How long the others wait: asking all of SQS's servers, and giving the bytes back before others miss them."""

RECEIVE_COUNT_MAX = 10
"""Messages of one ReceiveMessage."""

FACTS_EVERY_S = 300
"""How often queue and function are asked for everything again, and compared."""

COUNTS_EVERY_S = 30
"""How often the queue is asked how much waits in it: two cheap calls."""

WINDOW_MARGIN_S = 1.0
"""A window closes this long before the function could no longer end while its messages are hidden."""

EMPTY_S = 1.0
"""A receive that brought nothing lasts at least this long, whatever the server does with its wait."""

REPOLL_S = 0.2
"""While a batch is filled up, an empty receive lasts at least this long, also one that does not wait."""

LAST_START_S = 1.0
"""This long before the end of the grace period nothing is started any more."""


class Receiver:
    """What one receiver remembers from one receive to the next."""

    def __init__(self) -> None:
        self.failures = 0
        self.attempt: str | None = None
        """The name of a receive on a FIFO queue whose answer was lost: the next one asks for the same messages."""
        self.has_received = False
        """Whether its last receives brought messages, also such as no filter pattern matches."""
        self.is_crowded = False
        """Its last receive did not wait for messages: others needed the bytes."""


class Gathered:
    """What one receiver holds: the messages of its next batch, and their bytes of the budget."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.size_bytes = 0


class QueueRunner:
    """Runs one queue mapping until stopped or cancelled."""

    def __init__(
        self, around: Surroundings, mapping: Mapping, source: QueueSource, target: Target, observation: Observation,
        *, allows_loops: bool = False,
    ) -> None:  # fmt: skip
        self._around = around
        self._source = source
        self._target = target
        self._observation = observation
        self._allows_loops = allows_loops
        self._scaling = Scaling(Bounds.of(mapping), around.clock.now())
        self.mapping = mapping
        self._part = QueuePart(around, lambda: self.mapping, self._scaling, target)
        self._gate = self._part.gate
        self._invoker = Invoker(around, target, self._gate, observation)
        self._deleter = Deleter(around, source, observation, is_fifo=mapping.is_fifo)
        self._sieve = Sieve(observation.telemetry)
        self._hider = Hider(around, source, observation)
        self._receivers: set[Receiver] = set()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._reserving = anyio.Lock(fast_acquire=True)
        self._receiving = 0
        self._settling = 0
        self._timeout_s = 0
        self._visibility_s = 0
        self._received = Signal()
        self._broke = Signal()
        self._arrived = Signal()
        self._look_at = Instant(-math.inf)
        """When a receiver that may not wait for messages looks for them next."""
        self._oldest: dict[Settlement, Instant] = {}
        self.stop = Stop()
        self._turns = Turns(around, self.stop, self._gate, observation, settle=self._settle, release=self._release)
        observation.shards = tuple

    def update(self, mapping: Mapping) -> bool:
        """Take over changed delivery parameters from the next batch on; False: a restart is needed."""
        if (mapping.window_s > 0) != (self.mapping.window_s > 0) or mapping.function_arn != self.mapping.function_arn:
            return False
        if mapping.invocation_type is not self.mapping.invocation_type:
            return False
        self.mapping = mapping
        self._scaling.change(Bounds.of(mapping))
        self._part.refresh()
        return True

    async def run(self) -> None:
        """Receive and settle until `stop` is set and everything received is settled.

        Survives Unavailable and OperatorNeeded of source, target and store: they are shown and tried again.
        """
        if not await self._know():
            return
        with self._part.taken():
            await self._run()

    async def _run(self) -> None:
        self._observation.shards = self._views
        if not self.stop.is_set:
            self._observation.runs()
        async with anyio.create_task_group() as background:
            background.start_soon(self._deleter.run)
            background.start_soon(self._watch_facts)
            background.start_soon(self._watch_load)
            async with anyio.create_task_group() as self._tasks:
                self._start_receivers()
                with self.stop.interruptible():
                    await anyio.sleep_forever()
            with anyio.move_on_after(max(0.0, self.stop.deadline - LAST_START_S - self._around.clock.now())):
                await self._deleter.wait_discarded()
            background.cancel_scope.cancel()

    async def _know(self) -> bool:
        facts = await known(self._around, self.stop, self._observation, "queue", self._checked_facts)
        return facts is not None

    async def _checked_facts(self) -> QueueFacts:
        facts = await self._source.facts()
        function = await self._target.facts()
        is_bound = self.mapping.invocation_type is not InvocationType.EVENT and not self.mapping.extends_visibility
        if function.timeout_s is not None and is_bound:
            check_timeout(function.timeout_s, facts.visibility_s)
        self._timeout_s = function.timeout_s or 0 if is_bound else 0
        self._learnt(facts)
        return facts

    def _learnt(self, facts: QueueFacts) -> None:
        self._visibility_s = facts.visibility_s
        self._observation.counted(facts.backlog, facts.not_visible)

    async def _watch_facts(self) -> None:
        while True:
            for _ in range(FACTS_EVERY_S // COUNTS_EVERY_S - 1):
                await anyio.sleep(COUNTS_EVERY_S)
                await self._count()
            await anyio.sleep(COUNTS_EVERY_S)
            await self._know()

    async def _count(self) -> None:
        """How much waits now. What cannot be asked is unknown, and no problem yet: receives and `_know` say that."""
        try:
            self._learnt(await self._source.facts())
        except (OperatorNeeded, Unavailable):
            self._observation.counted(None, None)

    async def _watch_load(self) -> None:
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            self._scaling.look(self._gate.in_use, self._around.clock.now())
            self._part.tell()
            self._part.refresh()
            self._start_receivers()

    def _start_receivers(self) -> None:
        """As many as wait at a quiet queue; a busy one gets one more, and that one's messages the next."""
        if self._deleter.is_full:
            return
        while not self.stop.is_set and len(self._receivers) < self._gate.limit:
            if self._waiting >= self._part.idle_receivers:
                if not self._scaling.is_quiet:
                    self._start_receiver()
                return
            self._start_receiver()

    def _start_receiver(self) -> None:
        assert self._tasks is not None
        receiver = Receiver()
        self._receivers.add(receiver)
        self._tasks.start_soon(self._receive_forever, receiver)

    @property
    def _waiting(self) -> int:
        """Receivers that wait for messages, or will at once."""
        return len(self._receivers) - self._settling

    def _is_needed(self, receiver: Receiver) -> bool:
        if receiver.attempt is not None:
            return True
        if len(self._receivers) > self._gate.limit:
            return False
        return not self._scaling.is_quiet or self._waiting <= self._part.idle_receivers

    async def _receive_forever(self, receiver: Receiver) -> None:
        try:
            while not self.stop.is_set and self._is_needed(receiver):
                await self._take_turn(receiver)
        finally:
            self._receivers.discard(receiver)

    async def _take_turn(self, receiver: Receiver) -> None:
        began_at = self._around.clock.now()
        with self.stop.interruptible() as waiting:
            await self._target.wait_free()
            self._part.refresh()
            await self._gate.enter()
        if waiting.cancelled_caught:
            return
        if self.stop.is_set:
            self._gate.leave()
            return
        try:
            receiver.has_received = False
            error = await self._receive_and_settle(receiver)
        finally:
            self._gate.leave()
        if error is not None:
            report(self._observation, "source", error, receiver.failures + 1)
        receiver.failures = await pause_after(self._around, self.stop, error, receiver.failures)
        if not receiver.has_received:
            with self.stop.interruptible():
                await self._rest(receiver, Instant(began_at + EMPTY_S))

    async def _rest(self, receiver: Receiver, until: Instant) -> None:
        """After a receive in vain. Receivers that may not wait for messages take turns to look for them."""
        clock = self._around.clock
        if receiver.is_crowded:
            until = self._look_at = Instant(max(until, self._look_at + EMPTY_S))
            await self._arrived.wait_until(clock, until)
        else:
            await clock.sleep_until(until)

    async def _receive_and_settle(self, receiver: Receiver) -> EsmError | None:
        gathered = Gathered()
        try:
            error = await self._gather(receiver, gathered)
            if gathered.messages:
                self._settling += 1
                try:
                    await self._settle_in_turn(tuple(gathered.messages))
                finally:
                    self._settling -= 1
        finally:
            self._around.budget.release(gathered.size_bytes)
        return error

    async def _settle_in_turn(self, batch: tuple[Message, ...]) -> None:
        if self.mapping.is_fifo:
            assert self._tasks is not None
            await self._turns.settle(batch, self._tasks)
        else:
            await self._settle(batch)

    async def _gather(self, receiver: Receiver, gathered: Gathered) -> EsmError | None:
        """Receive messages for one batch; returns the error that ended this early."""
        mapping, clock, batch = self.mapping, self._around.clock, gathered.messages
        due_at = Instant(math.inf)
        while True:
            wait_s = self._around.sqs_wait_s
            if self._receiving >= LONG_POLLS:
                wait_s = min(wait_s, SHORT_WAIT_S)
            if batch:
                wait_s = max(0, min(wait_s, math.floor(due_at - clock.now())))
            count = min(RECEIVE_COUNT_MAX, mapping.batch_size - len(batch))
            began_at = clock.now()
            try:
                messages, size = await self._receive(receiver, count, wait_s, due_at)
            except EsmError as error:
                return error
            if messages and not batch:
                due_at = Instant(clock.now() + (0 if mapping.is_fifo else mapping.window_s))
            if messages:
                ends_at = min(message.visible_at for message in messages)
                due_at = Instant(min(due_at, ends_at - self._timeout_s - WINDOW_MARGIN_S))
            batch += messages
            gathered.size_bytes += size
            is_large = payload_bytes(batch) >= payload_bytes_max(mapping.invocation_type)
            if not batch or len(batch) >= mapping.batch_size or is_large:
                return None
            if clock.now() >= due_at or self.stop.is_set or self._gate.is_broken:
                return None
            if not receiver.has_received:
                with self.stop.interruptible():
                    await clock.sleep_until(Instant(min(due_at, began_at + REPOLL_S)))

    async def _receive(self, receiver: Receiver, count: int, wait_s: int, due_at: Instant) -> tuple[list[Message], int]:
        reserved = await self._reserve(due_at)
        if self.stop.is_set or not reserved:
            self._around.budget.release(reserved)
            return [], 0
        size = 0
        self._receiving += 1
        if self.mapping.is_fifo and receiver.attempt is None:
            receiver.attempt = self._around.new_id()
        try:
            received = await self._poll(receiver, count, wait_s, reserved)
            receiver.attempt = None
            receiver.has_received = bool(received)
            messages, unwanted = await self._sieve.sift(self.mapping, received)
            size = sum([len(message.event) for message in messages])
        except EsmError as error:
            if not isinstance(error, Unavailable):
                receiver.attempt = None
            raise
        finally:
            self._receiving -= 1
            self._received.notify()
            self._around.budget.release(reserved - size)
        self._scaling.received(len(received), self._around.clock.now())
        if received:
            self._look_at = self._around.clock.now()
            self._arrived.notify()
        if messages:
            self._start_receivers()
        self._observation.telemetry.polled(len(received))
        self._observation.mended("source")
        if unwanted:
            self._deleter.discard(unwanted)
        return messages, size

    async def _poll(self, receiver: Receiver, count: int, wait_s: int, reserved: int) -> list[Message]:
        """One receive. It waits for messages only where enough bytes are left to those who need no waiting."""
        budget = self._around.budget
        receiver.is_crowded = wait_s > 0 and not budget.idle(reserved)
        if wait_s <= 0 or receiver.is_crowded:
            return await self._source.receive(count, 0, receiver.attempt)
        try:
            return await self._source.receive(count, wait_s, receiver.attempt)
        finally:
            budget.busy(reserved)

    async def _reserve(self, until: Instant) -> int:
        """Bytes for one receive, its place among the polls, and room for what no filter lets through.

        Returns 0 when `until` or the stop came first.

        One receiver of a mapping waits for bytes at a time, so that each mapping is as near to them as any other.
        """
        clock, budget = self._around.clock, self._around.budget
        with self.stop.interruptible(), anyio.move_on_after(max(0.0, until - clock.now())):
            await self._deleter.wait_room()
            if (at := self._scaling.poll_at(clock.now())) > clock.now():
                await clock.sleep_until(at)
            async with self._reserving:
                return await budget.reserve(self._source.read_bytes_max)
        return 0

    async def _settle(self, batch: tuple[Message, ...]) -> None:
        mapping = self.mapping
        ways = Ways(
            mapping.is_fifo, mapping.holds_group_on_failure, mapping.failure_backoff,
            payload_bytes_max(mapping.invocation_type),
        )  # fmt: skip
        settlement = Settlement(batch, ways)
        telemetry = self._observation.telemetry
        self._oldest[settlement] = Instant(min(message.sent_at for message in batch))
        self._withhold(settlement)
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
                        settlement.undeleted(await self._deleter.delete(messages))
                    case Return(messages, delay_s):
                        await self._return(messages, delay_s)
                    case LetGo(messages):
                        telemetry.let_go(len(messages))
        finally:
            del self._oldest[settlement]
            self._gate.settled(settlement)

    def _withhold(self, settlement: Settlement) -> None:
        """Leave messages to the queue that have been through the function too often."""
        traced = [message for message in settlement.open if message.trace]
        if self._allows_loops or not traced:
            return
        name = recursion.fingerprint(self.mapping.function_arn)
        hops = {message.receipt_handle: recursion.hops(message.trace, name) for message in traced}
        looping = [message for message in traced if hops[message.receipt_handle] >= recursion.HOPS_MAX]
        if looping:
            settlement.leave(looping)
            self._observation.telemetry.loop_stopped(len(looping), max(hops.values()))

    def _may_offer(self, settlement: Settlement) -> bool:
        if self._around.clock.now() >= self.stop.deadline - LAST_START_S:
            return False
        if self.stop.is_set and settlement.tries:
            return False
        return self._gate.may_try(settlement)

    async def _offer(self, settlement: Settlement, messages: tuple[Message, ...], start_by: Instant) -> None:
        was_broken = self._gate.is_broken
        if self.mapping.extends_visibility:
            async with anyio.create_task_group() as hiding:
                hiding.start_soon(self._hider.run, settlement, self._visibility_s)
                outcome = await self._invoke(settlement, messages, start_by)
                hiding.cancel_scope.cancel()
        else:
            outcome = await self._invoke(settlement, messages, start_by)
        self._scaling.ended(outcome, reports_item_failures=self.mapping.reports_item_failures)
        settlement.invoked(outcome, self._around.clock.now(), self._around.jitter())
        if self._gate.is_broken and not was_broken:
            self._gate.may_try(settlement)
            self._broke.notify()
            self._turns.look_again()
            self._part.tell()

    async def _invoke(self, settlement: Settlement, messages: tuple[Message, ...], start_by: Instant) -> Outcome:
        ids, headers = [message.message_id for message in messages], [message.trace for message in messages]
        return await self._invoker.invoke(
            self.mapping, messages, ids, settlement.tries + 1, start_by=start_by, headers=headers
        )  # fmt: skip

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
        if count := await self._hand_back(messages, 0):
            self._observation.telemetry.released(count, "stop" if self.stop.is_set else "target broken")

    async def _return(self, messages: tuple[Message, ...], delay_s: int) -> None:
        """Hand failed messages back for later; while the target is broken the queue's own visibility decides."""
        if not self._gate.is_broken and (count := await self._hand_back(messages, delay_s)):
            self._observation.telemetry.returned(count, delay_s)

    async def _hand_back(self, messages: tuple[Message, ...], delay_s: int) -> int:
        """Of a FIFO group the last message first, so that none is seen without those before it; returns how many."""
        order = messages[::-1] if self.mapping.is_fifo else messages
        count = 0
        for start in range(0, len(order), RECEIVE_COUNT_MAX):
            part = order[start : start + RECEIVE_COUNT_MAX]
            try:
                await self._source.release(part, delay_s)
            except EsmError as error:
                self._observation.telemetry.poll_failed(None, str(error))
            else:
                count += len(part)
        return count

    def _views(self) -> tuple[ShardView, ...]:
        wall = self._around.clock.wall()
        lag_s = max((wall - sent_at for sent_at in self._oldest.values()), default=0.0)
        return (ShardView("", max(0.0, lag_s), 0.0, None, 0.0),)
