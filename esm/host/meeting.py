"""The calls of one function and the runtimes elsewhere that take them. Law: `rules/encounters` decides; this acts.

A call waits for a runtime until its `start_by`; from the moment in which a runtime has it, it runs, and ends in every
case: by an answer, at its deadline, or with its runtime. Everything happens in callbacks of the event loop.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from esm.host import endings
from esm.host.metrics import HostMetrics
from esm.host.runtime_api import Event
from esm.model.function import PulledFunction
from esm.model.invocation import Answer, Ending, Invocation, Misconfigured, Throttled, Unreachable
from esm.rules.encounters import Encounters

VERSION = "$LATEST"
REMEMBERED_MAX = 1000
"""Ids of ended invocations: what is answered a second time, or late, is told apart from what never was."""


@dataclass(eq=False, slots=True)
class Call:
    """An invocation that waits or runs."""

    invocation: Invocation = field(repr=False)
    ended: asyncio.Future[Ending]
    timer: asyncio.TimerHandle | None = None
    """Ends the wait, then the run."""
    running: "Running | None" = None


@dataclass(eq=False, slots=True)
class Poll:
    """A runtime that has asked for its next invocation, once."""

    given: asyncio.Future[Call]


class Holder(Protocol):
    """Over which connection a runtime has an invocation."""

    running: "Running | None"
    """What it was given and has not answered."""

    def abort(self) -> None:
        """End the connection."""
        ...


@dataclass(eq=False, slots=True)
class Running:
    """An invocation that a runtime has."""

    call: Call
    poll: Poll
    event: Event = field(repr=False)
    began_at: float
    holder: Holder
    is_repeated: bool = False
    """An earlier try of the same id did not end by an answer: one may still come."""
    is_streaming: bool = False
    """It hands in its answer piece by piece."""


class Meeting:
    """See the module. Made and used in the event loop's thread."""

    def __init__(self, function: PulledFunction, metrics: HostMetrics) -> None:
        self._metrics = metrics
        self._function = function
        self._rule: Encounters[Poll, Call] = Encounters(function.concurrency_max)
        self._running: dict[str, Running] = {}
        self._answered: dict[str, None] = {}
        self._unanswered: dict[str, None] = {}
        self._changes: list[asyncio.Future[None]] = []
        self._is_draining = False
        self.resting: Callable[[], int] = int
        """How many runtimes have answered and not asked again yet."""
        self.problem: str | None = None
        """Why the last runtime could not initialise, where none has asked for an invocation since."""

    def follow(self, function: PulledFunction) -> None:
        """The function is another one: for what starts from now on."""
        self._function = function
        self._meet(self._rule.bound(function.concurrency_max))

    @property
    def waiting(self) -> int:
        """Runtimes that wait for an invocation."""
        return self._rule.waiting

    @property
    def working(self) -> int:
        """Runtimes that have one."""
        return self._rule.working

    @property
    def can_start(self) -> bool:
        """Whether an invocation that came now would run at once."""
        return self._rule.can_start

    async def wait_change(self) -> None:
        """Return once `can_start` or `problem` may be another."""
        change = asyncio.get_running_loop().create_future()
        self._changes.append(change)
        try:
            await change
        finally:
            if change in self._changes:
                self._changes.remove(change)

    async def run(self, invocation: Invocation) -> Ending:
        """Hand an invocation to a runtime, waiting for one until `start_by`; cancelled, its runtime is let go."""
        loop = asyncio.get_running_loop()
        call = Call(invocation, loop.create_future())
        self._wait(call)
        self._meet(self._rule.called(call))
        try:
            return await call.ended
        finally:
            if not call.ended.done():
                call.ended.cancel()
            self._leave(call)

    def asked(self) -> Poll:
        """A runtime wants an invocation; `given` of the poll is set when there is one."""
        self.problem = None
        poll = Poll(asyncio.get_running_loop().create_future())
        self._meet(self._rule.asked(poll))
        return poll

    def lost(self, poll: Poll) -> None:
        """A runtime that has asked is not there any more. A call that was on its way to it waits again, first."""
        if not poll.given.done() or poll.given.cancelled():
            self._meet(self._rule.gone(poll))
            return
        call = poll.given.result()
        if call.ended.done() or call.running is not None:
            self._meet(self._rule.gone(poll))
            return
        self._wait(call)
        self._meet(self._rule.missed(poll))

    def begin(self, poll: Poll, holder: Holder) -> Running | None:
        """The call of a poll is with its runtime now: its time runs. None: nobody waits for it any more."""
        call = poll.given.result()
        if call.ended.done():
            self._meet(self._rule.gone(poll))
            return None
        loop, invocation, timeout_s = asyncio.get_running_loop(), call.invocation, self._function.timeout_s
        _cancel(call.timer)
        event = Event(
            invocation.request_id, str(invocation.function_arn), int((time.time() + timeout_s) * 1000),
            invocation.payload, invocation.trace, invocation.client_context, invocation.cognito_identity,
            str(uuid.uuid4()), invocation.stream,
        )  # fmt: skip
        is_repeated = invocation.request_id in self._unanswered
        running = call.running = Running(call, poll, event, loop.time(), holder, is_repeated)
        self._running[invocation.request_id] = holder.running = running
        call.timer = loop.call_later(timeout_s, self._time_out, running, timeout_s)
        return running

    def running(self, request_id: str) -> Running | None:
        """The invocation of this id that runs."""
        return self._running.get(request_id)

    def was_answered(self, request_id: str) -> bool:
        """Whether an invocation of this id has ended by an answer lately."""
        return request_id in self._answered

    def answered(self, running: Running, ending: Ending) -> None:
        """The runtime has answered."""
        self._end(running, ending, self._answered)

    def broke(self, running: Running, ending: Ending, reason: str) -> None:
        """The runtime is lost, and its invocation with it; `reason` counts it."""
        self._metrics.runtime_lost(self._function.key, reason)
        self._end(running, ending, self._unanswered)

    def init_failed(self, error_type: str, peer: str) -> None:
        """A runtime could not initialise. Where there is no other one, whoever waits is told so."""
        self._metrics.runtime_lost(self._function.key, "init")
        self.problem = (
            f"function {self._function.key}: its runtime at {peer} could not initialise ({error_type}):"
            " see the log of its container"
        )
        text = self.problem
        if not self.present:
            self._end_waiting(lambda call: Misconfigured(call.invocation.request_id, text))
        self.look()

    def drain(self) -> None:
        """From now on nobody waits where there is no runtime: one that comes goes elsewhere."""
        self._is_draining = True
        self.look()

    def close(self) -> None:
        """Nothing is handed out any more; what runs is lost."""
        for running in tuple(self._running.values()):
            self._end(running, endings.exited(running.event.request_id, 0), self._unanswered)
        self._end_waiting(lambda call: Unreachable(call.invocation.request_id, "The target was closed."))

    def _end_waiting(self, ending: Callable[[Call], Ending]) -> None:
        """Nobody waits for a runtime any more."""
        for call in self._rule.calls:
            self._rule.withdrawn(call)
            self._settle(call, ending(call))

    def _meet(self, pairs: list[tuple[Poll, Call]]) -> None:
        for poll, call in pairs:
            poll.given.set_result(call)
        self.look()

    @property
    def present(self) -> int:
        """Runtimes that are there."""
        return self.waiting + self.working + self.resting()

    def look(self) -> None:
        """Runtimes or calls have come or gone: tell whom it concerns."""
        if self._is_draining and not self.present:
            self._end_waiting(lambda call: Throttled(call.invocation.request_id))
        changes, self._changes = self._changes, []
        for change in changes:
            if not change.done():
                change.set_result(None)

    def _wait(self, call: Call) -> None:
        """A call that is not handed out by its `start_by` is off."""
        start_by = call.invocation.start_by
        _cancel(call.timer)
        if start_by is not None:
            call.timer = asyncio.get_running_loop().call_at(start_by, self._expire, call)

    def _expire(self, call: Call) -> None:
        if self._rule.withdrawn(call) or call.running is None:
            self._settle(call, Throttled(call.invocation.request_id))

    def _time_out(self, running: Running, timeout_s: int) -> None:
        self.broke(running, endings.timed_out(running.event.request_id, timeout_s), "timeout")
        running.holder.abort()

    def _leave(self, call: Call) -> None:
        """Nobody waits for a call any more: it ended, or was cancelled."""
        _cancel(call.timer)
        self._rule.withdrawn(call)
        if call.running is not None and self._running.get(call.invocation.request_id) is call.running:
            self._forget(call.running, self._unanswered)
            call.running.holder.abort()

    def _end(self, running: Running, ending: Ending, memory: dict[str, None]) -> None:
        self._forget(running, memory)
        has_failed = isinstance(ending, Answer) and ending.function_error is not None
        duration_s = asyncio.get_running_loop().time() - running.began_at
        self._metrics.invoked(self._function.key, VERSION, duration_s, has_failed=has_failed)
        self._settle(running.call, ending)

    def _forget(self, running: Running, memory: dict[str, None]) -> None:
        request_id = running.event.request_id
        del self._running[request_id]
        if running.holder.running is running:
            running.holder.running = None
        for one in (self._answered, self._unanswered):
            one.pop(request_id, None)
        memory[request_id] = None
        if len(memory) > REMEMBERED_MAX:
            del memory[next(iter(memory))]
        self._meet(self._rule.ended(running.poll))

    def _settle(self, call: Call, ending: Ending) -> None:
        _cancel(call.timer)
        if not call.ended.done():
            call.ended.set_result(ending)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
