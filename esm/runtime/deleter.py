"""Deleter: messages that were taken leave the queue, in calls of ten, from whichever receivers they come.

On a FIFO queue each batch is deleted by calls of its own, one after the other, so that a group is deleted in order.
"""

from collections.abc import Sequence

import anyio
import msgspec

from esm.errors import EsmError
from esm.model.clocks import Instant
from esm.model.record import Message
from esm.ports import QueueSource
from esm.rules.backoff import pause_s
from esm.runtime.observation import Observation
from esm.runtime.surroundings import Signal, Surroundings

CALL_SIZE = 10
"""Entries of one DeleteMessageBatch. Source: lambda.md 2.6."""

LINGER_S = 0.005
"""How long a call that is not full waits for messages of other receivers."""

TRIES_MIN = 3
"""Tries before a message is given up whose visibility has ended."""


DISCARDS_MAX = 200
"""Messages that nobody took and that are on their way out of the queue: while there are as many, none is received."""


class _Request:
    """Messages of one receiver, and whether they are all settled."""

    def __init__(self, messages: Sequence[Message], *, were_taken: bool) -> None:
        self.open = len(messages)
        self.were_taken = were_taken
        self.done = anyio.Event()
        self.undeleted: list[Message] = []

    def settled(self, message: Message, *, is_deleted: bool) -> None:
        """A message is deleted, or given up."""
        self.open -= 1
        if not is_deleted:
            self.undeleted.append(message)
        if self.open == 0:
            self.done.set()


class Deleter:
    """Runs inside the mapping's task group; survives Unavailable and OperatorNeeded, ends by cancellation."""

    def __init__(
        self, around: Surroundings, source: QueueSource, observation: Observation, *, is_fifo: bool = False
    ) -> None:
        self._around = around
        self._source = source
        self._observation = observation
        self._is_fifo = is_fifo
        self._waiting: list[tuple[Message, _Request]] = []
        self._calls: anyio.abc.TaskGroup | None = None
        self._is_collecting = False
        self._discards = 0
        self._discarded = Signal()

    @property
    def is_full(self) -> bool:
        """Whether so much is on its way out that receiving would only bring more of it."""
        return self._discards >= DISCARDS_MAX

    async def run(self) -> None:
        """Serve `delete` until cancelled."""
        async with anyio.create_task_group() as calls:
            self._calls = calls
            await anyio.sleep_forever()

    async def delete(self, messages: tuple[Message, ...]) -> list[Message]:
        """Return once each message is deleted or given up; returns the latter: the queue delivers them again."""
        request = _Request(messages, were_taken=True)
        if self._is_fifo:
            for start in range(0, len(messages), CALL_SIZE):
                await self._settle([(message, request) for message in messages[start : start + CALL_SIZE]])
            return request.undeleted
        await self._delete(request, messages)
        return request.undeleted

    def discard(self, messages: Sequence[Message]) -> None:
        """Delete messages that no filter pattern matches, in the background: those received with them do not wait.

        Only what identifies them is kept meanwhile. Wait for `wait_room` before each receive.
        """
        assert self._calls is not None
        self._discards += len(messages)
        self._calls.start_soon(self._discard, [msgspec.structs.replace(message, event=b"") for message in messages])

    async def wait_room(self) -> None:
        """Return when few enough of what was discarded is on its way."""
        while self.is_full:
            await self._discarded.wait()

    async def wait_discarded(self) -> None:
        """Return when nothing that was discarded is on its way any more."""
        while self._discards:
            await self._discarded.wait()

    async def _discard(self, messages: Sequence[Message]) -> None:
        await self._delete(_Request(messages, were_taken=False), messages)
        self._discards -= len(messages)
        self._discarded.notify()

    async def _delete(self, request: _Request, messages: Sequence[Message]) -> None:
        self._waiting.extend((message, request) for message in messages)
        assert self._calls is not None
        while len(self._waiting) >= CALL_SIZE:
            self._start_call()
        if self._waiting and not self._is_collecting:
            self._is_collecting = True
            self._calls.start_soon(self._collect)
        await request.done.wait()

    async def _collect(self) -> None:
        await anyio.sleep(LINGER_S)
        self._is_collecting = False
        if self._waiting:
            self._start_call()

    def _start_call(self) -> None:
        assert self._calls is not None
        call, self._waiting = self._waiting[:CALL_SIZE], self._waiting[CALL_SIZE:]
        self._calls.start_soon(self._settle, call)

    async def _settle(self, call: list[tuple[Message, _Request]]) -> None:
        left = call
        tries = 0
        while left:
            tries += 1
            failed = await self._try([message for message, _ in left])
            not_deleted = {id(message) for message in failed}
            deleted = [request for message, request in left if id(message) not in not_deleted]
            self._observation.telemetry.deleted(sum([request.were_taken for request in deleted]))
            worth = [message for message in failed if self._is_worth_a_try(message, tries)]
            if len(worth) < len(failed):
                self._observation.telemetry.delete_given_up(len(failed) - len(worth))
            lost, again = {id(message) for message in failed}, {id(message) for message in worth}
            for message, request in left:
                if id(message) not in again:
                    request.settled(message, is_deleted=id(message) not in lost)
            left = [(message, request) for message, request in left if id(message) in again]
            if left:
                pause = pause_s(tries, self._around.jitter())
                await self._around.clock.sleep_until(Instant(self._around.clock.now() + pause))

    async def _try(self, messages: list[Message]) -> list[Message]:
        try:
            failed = await self._source.delete(messages)
        except EsmError as error:
            self._observation.telemetry.delete_failed(len(messages), str(error))
            return messages
        if failed:
            self._observation.telemetry.delete_failed(len(failed), "entries failed")
        return failed

    def _is_worth_a_try(self, message: Message, tries: int) -> bool:
        return tries < TRIES_MIN or self._around.clock.now() < message.visible_at
