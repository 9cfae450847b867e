"""One environment: a process that runs one function, one invocation at a time, behind its own Runtime API.

Law: STARTING -> FREE <-> BUSY, and from each of them -> ENDING -> ENDED. It is free when its runtime has asked for the
next invocation, so an answer is given when the runtime is done with it, as Lambda ends its invoke phase. Everything
happens in callbacks of the event loop; `ended` is set last, once, in every case.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from esm.host import endings, leftovers
from esm.host.process import Process
from esm.host.runtime_api import Event, RuntimeApi
from esm.model.clocks import Instant
from esm.model.invocation import Answer, Invocation
from esm.telemetry import Telemetry

_DEATH_S = 5.0
"""How long a killed process may take to die (a write to a hung disk) before it is left to the kernel."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What every environment of a function is made of."""

    function: str
    """Key of the function."""
    command: Sequence[str]
    folder: Path
    variables: Mapping[str, str] = field(repr=False)
    """Those that are the same in each environment."""
    timeout_s: int


class State(Enum):
    """What an environment is good for."""

    STARTING = "starting"
    FREE = "free"
    BUSY = "busy"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Ready:
    """The handler is loaded."""


@dataclass(frozen=True, slots=True)
class InitFailed:
    """The handler cannot be loaded: what the runtime client said of it."""

    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended by itself while it loaded the handler."""

    status: int


@dataclass(frozen=True, slots=True)
class TooSlow:
    """It was killed at its limit."""


Initialised = Ready | InitFailed | Exited | TooSlow


class Owner(Protocol):
    """Who keeps environments; called in the event loop, before anyone who waits is told."""

    def is_ready(self, environment: "Environment") -> None:
        """It is initialised."""

    def has_ended(self, environment: "Environment") -> None:
        """It is gone."""


class Environment:
    """See the module. Made and used in the event loop's thread."""

    def __init__(
        self, blueprint: Blueprint, owner: Owner, register: Path, telemetry: Telemetry, *, is_provisioned: bool = False
    ) -> None:
        self._blueprint = blueprint
        self._owner = owner
        self._is_provisioned = is_provisioned
        self._register = register
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._api = RuntimeApi(self)
        self._process: Process | None = None
        self._entry: leftovers.Entry | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started_at = self._loop.time()
        self._reason = "exit"
        self._invocation: Invocation | None = None
        self._answer: Answer | None = None
        self._result: asyncio.Future[Answer] = self._loop.create_future()
        self.state = State.STARTING
        self.initialised: asyncio.Future[Initialised] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    async def start(self, within_s: float) -> None:
        """Start the process; `initialised` tells how that went, at the latest after `within_s`.

        Raises: OSError, ValueError (the process cannot be started); the environment has then ended.
        """
        blueprint = self._blueprint
        token = leftovers.new_token()
        try:
            variables = {
                **blueprint.variables,
                "AWS_LAMBDA_RUNTIME_API": await self._api.open(),
                "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency" if self._is_provisioned else "on-demand",
                "AWS_LAMBDA_LOG_STREAM_NAME": time.strftime("%Y/%m/%d/[$LATEST]", time.gmtime()) + token,
            }
            if self.state is not State.STARTING:  # ended while the port was opened
                return
            self._process = Process(blueprint.command, blueprint.folder, variables, self._line, self._exited)
            self._entry = leftovers.write(self._register, token, self._process.pid)
        except (OSError, ValueError):
            self.kill("not started")
            raise
        self._timer = self._loop.call_later(within_s, self.kill, "initialisation time-out")

    @property
    def is_free(self) -> bool:
        """Whether an invocation can start at once."""
        return self.state is State.FREE and self._process is not None and not self._process.has_ended

    async def run(self, invocation: Invocation, deadline: Instant) -> Answer:
        """Run one invocation in a free environment until `deadline`. Cancelled: `kill` is the caller's duty."""
        assert self.state is State.FREE
        self.state = State.BUSY
        self._invocation, self._answer = invocation, None
        self._result = self._loop.create_future()
        self._timer = self._loop.call_at(deadline, self.kill, "timeout")
        deadline_ms = int((time.time() + deadline - self._loop.time()) * 1000)
        arn, trace = str(invocation.function_arn), invocation.trace
        is_clean = trace is not None and trace.isascii() and trace.isprintable()
        self._api.deliver(
            Event(invocation.request_id, arn, deadline_ms, invocation.payload, trace if is_clean else None)
        )
        return await self._result

    def kill(self, reason: str) -> None:
        """End the process at once, with its group. Does nothing when it is ending already."""
        if self.state in {State.ENDING, State.ENDED}:
            return
        self.state, self._reason = State.ENDING, reason
        self._stop_timer()
        if self._process is None:
            self._finish(0)
            return
        self._process.kill()
        self._timer = self._loop.call_later(_DEATH_S, self._finish, -9)

    def freeze(self) -> None:
        """Stop its time until `run`, or its end. It must be free."""

    def end_kin(self) -> None:
        """End what the process started in groups of its own, and take it off the register. Blocks; for a thread."""
        if self._entry is not None:
            leftovers.end(self._entry, is_fresh=True)
            leftovers.erase(self._register, self._entry.token)

    async def aclose(self) -> None:
        """After the end: close the port, end kin."""
        await self._api.aclose()
        await asyncio.to_thread(self.end_kin)

    def asked(self) -> None:
        """See `runtime_api.Listener`."""
        if self.state is State.STARTING:
            self._stop_timer()
            self._become_free()
            init_s = self._loop.time() - self._started_at
            self._telemetry.environment_started(self._blueprint.function, self._pid, init_s)
            self._owner.is_ready(self)
            self.initialised.set_result(Ready())
        elif self.state is State.BUSY and self._answer is not None:
            self._stop_timer()
            self._become_free()
            self._settle(self._answer)

    def answered(self, payload: bytes, *, has_failed: bool) -> None:
        """See `runtime_api.Listener`."""
        if self._invocation is not None:
            request_id = self._invocation.request_id
            self._take(endings.failed(request_id, payload) if has_failed else Answer(request_id, payload))

    def answered_too_much(self) -> None:
        """See `runtime_api.Listener`: a client that is refused its answer ends, and the environment with it."""
        if self._invocation is not None:
            self._take(endings.too_large(self._invocation.request_id))

    def init_failed(self, payload: bytes) -> None:
        """See `runtime_api.Listener`."""
        if self.state is State.STARTING:
            self.initialised.set_result(InitFailed(payload))
            self.kill("initialisation failed")

    @property
    def _pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def _take(self, answer: Answer) -> None:
        assert self._process is not None
        self._answer = answer
        self._process.output.drain()  # what was written before the answer carries its request's id

    def _become_free(self) -> None:
        self.state = State.FREE
        self._invocation = None

    def _settle(self, answer: Answer) -> None:
        if not self._result.done():
            self._result.set_result(answer)

    def _line(self, line: str) -> None:
        request_id = self._invocation.request_id if self._invocation else None
        self._telemetry.function_output(self._blueprint.function, request_id, line)

    def _exited(self, status: int) -> None:
        self._finish(status)

    def _finish(self, status: int) -> None:
        if self.state is State.ENDED:
            return
        self._stop_timer()
        self.state = State.ENDED
        if self._invocation is not None:
            self._settle(self._answer or self._own_ending(self._invocation.request_id, status))
        if not self.initialised.done():
            self.initialised.set_result(Exited(status) if self._reason == "exit" else TooSlow())
        self._telemetry.environment_ended(self._blueprint.function, self._pid, self._reason)
        self._owner.has_ended(self)
        self.ended.set_result(None)

    def _own_ending(self, request_id: str, status: int) -> Answer:
        if self._reason == "timeout":
            return endings.timed_out(request_id, self._blueprint.timeout_s)
        return endings.exited(request_id, status)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
