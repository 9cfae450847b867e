"""AsyncEvents: esm's own asynchronous queue for functions that run here or behind HTTP, as Lambda has one for its own.

Law: an event is accepted once it is stored; from then on it ends in success, at its destinations, or in a counted
drop. Order ends here. Each bucket is served by the worker that owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import anyio

from esm.errors import RequestRefused, Unavailable
from esm.model.arn import Arn
from esm.model.async_event import AsyncEvent
from esm.model.clocks import Instant
from esm.model.function import FunctionFacts
from esm.model.invocation import Answer, Ending, Invocation, Throttled, Unreachable
from esm.rules.events import ASYNC_PAYLOAD_BYTES_MAX
from esm.runtime.async_bucket import functions_with_events
from esm.runtime.async_function import AsyncFunction, AsyncFunctionRunner
from esm.runtime.async_owning import AllBuckets, BucketOwner, Ownership
from esm.runtime.knowing import pause_after
from esm.runtime.supervisor import bulkhead
from esm.runtime.surroundings import Signal, Stop, Surroundings

TRACE_MAX = 1024
"""Characters of a trace header that is kept."""

ACCEPTED = 202
"""Status of the answer to an asynchronous invocation."""


class AsyncEvents:
    """The queue. `accept` may be called at any time; `run` serves what is due until `drain` or cancellation."""

    def __init__(self, around: Surroundings, function: Callable[[Arn], AsyncFunction]) -> None:
        """`function` gives what the events of an unqualified ARN need, as configured at that moment."""
        self._around = around
        self._function = function
        self._stop = Stop()
        self._runners: dict[str, AsyncFunctionRunner] = {}
        self._starting: list[AsyncFunctionRunner] = []
        self._added = Signal()
        self._to_find = Signal()
        self._is_found = False
        self._owner: BucketOwner | None = None
        if not around.members.is_sole:
            self._owner = BucketOwner(around, self._stop, self._is_busy, self._look_into)
        self._ownership: Ownership = self._owner or AllBuckets()
        self._has_ended = anyio.Event()

    async def accept(
        self, function: Arn, payload: bytes, trace: str | None = None, request_id: str | None = None
    ) -> str:
        """Store an event for a function, qualifier included; returns the request id that all its tries will bear.

        Raises: RequestRefused (larger than 1 MB), Unavailable (the event may be stored or not).
        """
        if len(payload) > ASYNC_PAYLOAD_BYTES_MAX:
            raise RequestRefused(
                f"{len(payload)} byte payload is too large for the Event invocation type (limit"
                f" {ASYNC_PAYLOAD_BYTES_MAX} bytes)",
                "RequestTooLargeException", 413,
            )  # fmt: skip
        wall = self._around.clock.wall()
        event = AsyncEvent(
            request_id=request_id or self._around.new_id(), function_arn=function, payload=payload, accepted_at=wall,
            trace=trace if trace is None or len(trace) <= TRACE_MAX else None,
        )  # fmt: skip
        await self._runner(function.unqualified).add(event, wall)
        self._around.telemetry.asynchronous(str(function.unqualified)).received()
        return event.request_id

    def backlogs(self) -> dict[str, int]:
        """How many events each function has waiting, by unqualified ARN; approximate."""
        return {function: runner.backlog for function, runner in self._runners.items()}

    @property
    def has_ended(self) -> bool:
        """Whether `run` has ended: nothing is under way."""
        return self._has_ended.is_set()

    async def run(self) -> None:
        """Serve every function that has events."""
        try:
            async with anyio.create_task_group() as background:
                if self._owner is not None:
                    background.start_soon(self._owner.run)
                background.start_soon(self._find_stored)
                await self._run()
                background.cancel_scope.cancel()
            if self._owner is not None:
                await self._owner.look()
        finally:
            self._has_ended.set()

    async def _run(self) -> None:
        async with anyio.create_task_group() as tasks:
            while not self._stop.is_set:
                for runner in self._starting:
                    tasks.start_soon(bulkhead, self._around, self._stop, runner.run, runner.crashed)
                self._starting.clear()
                with self._stop.interruptible():
                    await self._added.wait()

    def _is_busy(self, bucket: int) -> bool:
        return any(runner.is_busy(bucket) for runner in self._runners.values())

    def _look_into(self, buckets: Collection[int]) -> None:
        """This worker has got buckets, or others have put events into its own, of functions that are new here."""
        self._is_found = False
        self._to_find.notify()
        for runner in self._runners.values():
            runner.look_into(buckets)

    async def drain(self, grace_s: float) -> None:
        """Take nothing more, and return when what runs has ended, at the latest after the grace period."""
        self._stop.set(Instant(self._around.clock.now() + grace_s))
        with anyio.move_on_after(grace_s):
            await self._has_ended.wait()

    async def _find_stored(self) -> None:
        """Serve what an earlier run of the program, or another worker, has accepted."""
        failures = 0
        while not self._stop.is_set:
            self._is_found = True
            try:
                for function in await functions_with_events(self._around):
                    self._runner(function)
            except Unavailable as error:
                self._around.telemetry.store_failed("async", str(error))
                failures = await pause_after(self._around, self._stop, error, failures)
            else:
                failures = 0
                with self._stop.interruptible():
                    if self._is_found:
                        await self._to_find.wait()

    def _runner(self, function: Arn) -> AsyncFunctionRunner:
        key = str(function)
        if key not in self._runners:
            runner = AsyncFunctionRunner(
                self._around, function, lambda: self._function(function),
                self._around.telemetry.asynchronous(key), self._stop, self._ownership,
            )  # fmt: skip
            self._runners[key] = runner
            self._starting.append(runner)
            self._added.notify()
        return self._runners[key]


class Accepting:
    """A `Target` for mappings of type Event: a batch is taken once the function's asynchronous queue has it."""

    concurrency: int | None = None

    def __init__(self, events: AsyncEvents, role: str, around: Surroundings) -> None:
        """`role` is the function's, as configured."""
        self._events = events
        self._role = role
        self._around = around

    async def facts(self) -> FunctionFacts:
        """What is configured. The function itself is not asked: its queue takes events while it is out of reach.

        Its timeout says nothing about how long a batch is held.
        """
        return FunctionFacts(None, self._role)

    async def wait_free(self) -> None:
        """Return at once: the queue takes what comes."""

    async def invoke(self, invocation: Invocation) -> Ending:
        """See `ports.Target`."""
        if invocation.start_by is not None and self._around.clock.now() >= invocation.start_by:
            return Throttled(invocation.request_id)
        try:
            request_id = await self._events.accept(
                invocation.function_arn, invocation.payload, invocation.trace, invocation.request_id
            )
        except Unavailable as error:
            return Unreachable(invocation.request_id, str(error))
        return Answer(request_id, b"", status=ACCEPTED)

    async def aclose(self) -> None:
        """Nothing: the function's own target is not this one's."""
