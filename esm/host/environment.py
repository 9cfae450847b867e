"""One environment: processes that run one function, one invocation at a time, behind their own Runtime API.

Law: STARTING -> FREE <-> BUSY, and from each of them -> ENDING -> ENDED. It is free when its runtime and every
extension have asked for the next event, so an answer is given when all are done with it, as Lambda ends its invoke
phase. Everything happens in callbacks of the event loop; `ended` is set last, once, in every case.
"""

import asyncio
import math
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Protocol

from esm.host import endings, leftovers
from esm.host.cell import Cell, Heard
from esm.host.extensions_api import Extensions, Facts
from esm.host.journal import Journal, Logged
from esm.host.logs import FunctionLogs
from esm.host.metrics import HostMetrics
from esm.host.runtime_api import Event, RuntimeApi
from esm.model.clocks import Instant
from esm.model.invocation import Answer, Invocation
from esm.telemetry import Telemetry

_DEATH_S = 5.0
"""How long a killed process may take to die (a write to a hung disk) before it is left to the kernel."""
_SHUTDOWN_S = 2.0
"""What extensions get to end by themselves. Source: lambda.md 7.2."""
_PEAK_EVERY_S = 1.0
RUNTIME = "/runtime"
"""Name of the runtime's process in its cell: no file of an extension can have it."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What every environment of a function is made of; every path as its processes see it."""

    function: str
    """Key of the function."""
    facts: Facts
    command: Sequence[str]
    folder: str
    variables: Mapping[str, str] = field(repr=False)
    """Those that are the same in each environment."""
    timeout_s: int
    logged: Logged
    cell: Callable[[Heard], Cell] = field(repr=False, compare=False)
    extensions: tuple[tuple[str, Sequence[str]], ...] = ()
    """Name and command of each external one."""
    can_freeze: bool = False
    """Whether its cells can stop the time of what is in them."""
    ground: tuple[object, ...] = ()
    """What else it stands on, as far as a change of it means other environments."""


@dataclass(frozen=True, slots=True)
class Ledgers:
    """Where environments write down what they do."""

    telemetry: Telemetry
    metrics: HostMetrics
    logs: FunctionLogs | None
    """None: no logs are kept in files."""


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
class Crashed:
    """Something beside the runtime ended while it loaded the handler: an extension."""

    error_type: str
    text: str


@dataclass(frozen=True, slots=True)
class TooSlow:
    """It was killed at its limit."""


Initialised = Ready | InitFailed | Exited | Crashed | TooSlow


class Owner(Protocol):
    """Who keeps environments; called in the event loop, before anyone who waits is told."""

    def is_ready(self, environment: "Environment") -> None:
        """It is initialised."""

    def has_ended(self, environment: "Environment") -> None:
        """It is gone."""


class Environment:
    """See the module. Made and used in the event loop's thread."""

    def __init__(
        self, blueprint: Blueprint, owner: Owner, register: Path, ledgers: Ledgers, *, is_provisioned: bool = False
    ) -> None:
        self._blueprint = blueprint
        self._owner = owner
        self._is_provisioned = is_provisioned
        self._register = register
        self._ledgers = ledgers
        self._token = leftovers.new_token()
        self._journal = Journal(blueprint.logged, self._token, ledgers.logs, ledgers.telemetry)
        self._loop = asyncio.get_running_loop()
        self._extensions = Extensions(blueprint.facts, [name for name, _ in blueprint.extensions], self)
        self._api = RuntimeApi(self, self._extensions)
        self._cell: Cell | None = None
        self._variables: Mapping[str, str] = {}
        self._entry: leftovers.Entry | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started_at = self._loop.time()
        self._reason = "exit"
        self._status: int | None = None
        """Of the runtime's process, once it has ended."""
        self._crash: Crashed | None = None
        self._has_runtime = False
        self._invocation: Invocation | None = None
        self._answer: Answer | None = None
        self._error_type: str | None = None
        self._peak_at = -math.inf
        self._peak: int | None = None
        self._result: asyncio.Future[Answer] = self._loop.create_future()
        self.state = State.STARTING
        self.initialised: asyncio.Future[Initialised] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    async def start(self, within_s: float) -> None:
        """Start the processes; `initialised` tells how that went, at the latest after `within_s`.

        Raises: OSError, ValueError (a process cannot be started); the environment has then ended.
        """
        try:
            self._cell = cell = self._blueprint.cell(Heard(self._line, self._exited, self._emptied))
            listening, address = await cell.open()
            if self.state is not State.STARTING:  # ended meanwhile
                listening.close()
                cell.kill()
                return
            await self._api.open(listening)
            self._variables = {
                **self._blueprint.variables,
                "AWS_LAMBDA_RUNTIME_API": address,
                "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency" if self._is_provisioned else "on-demand",
                "AWS_LAMBDA_LOG_STREAM_NAME": time.strftime("%Y/%m/%d/[$LATEST]", time.gmtime()) + self._token,
            }
            for name, command in self._blueprint.extensions:
                cell.start(name, command, self._blueprint.folder, self._variables)
            self._start_runtime()
            self._entry = leftovers.write(self._register, self._token, cell.pid)
        except (OSError, ValueError):
            self.kill("not started")
            raise
        self._timer = self._loop.call_later(within_s, self.kill, "initialisation time-out")

    @property
    def is_free(self) -> bool:
        """Whether an invocation can start at once."""
        return self.state is State.FREE and self._cell is not None and not self._cell.has_ended

    async def run(self, invocation: Invocation, deadline: Instant) -> Answer:
        """Run one invocation in a free environment until `deadline`. Cancelled: `kill` is the caller's duty."""
        assert self.state is State.FREE
        self.state = State.BUSY
        self._invocation, self._answer, self._error_type = invocation, None, None
        self._journal.began(invocation.request_id)
        self._result = self._loop.create_future()
        self._timer = self._loop.call_at(deadline, self._time_out)
        deadline_ms = int((time.time() + deadline - self._loop.time()) * 1000)
        arn, trace = str(invocation.function_arn), invocation.trace
        self._extensions.invoke(invocation.request_id, arn, deadline_ms, trace)
        self._api.deliver(
            Event(
                invocation.request_id, arn, deadline_ms, invocation.payload, trace, invocation.client_context,
                invocation.cognito_identity, str(uuid.uuid4()), invocation.stream,
            )
        )  # fmt: skip
        return await self._result

    def freeze(self) -> None:
        """Stop its time until `thaw`. It must be free."""
        if self._cell is not None and self.state is State.FREE:
            self._cell.freeze()

    def thaw(self) -> None:
        """Let its time go on."""
        if self._cell is not None:
            self._cell.thaw()

    def stop(self, reason: str) -> None:
        """End it; extensions that want to know are told, and have two seconds. Source: lambda.md 7.2."""
        if self.state is State.FREE and self._extensions.count:
            self._wind_down(reason, "SPINDOWN", signal.SIGTERM)
        else:
            self.kill(reason)

    def kill(self, reason: str) -> None:
        """End the processes at once, with their groups. Does nothing when it is ending already."""
        if self.state in {State.ENDING, State.ENDED}:
            return
        self.state, self._reason = State.ENDING, reason
        self._kill_cell()

    def end_kin(self) -> None:
        """End what the processes started in groups of their own, and take it off the register. Blocks; for a thread."""
        if self._entry is not None:
            leftovers.end(self._entry, is_fresh=True)
            leftovers.erase(self._register, self._entry.token)

    async def aclose(self) -> None:
        """After the end: close the port, end kin."""
        await self._api.aclose()
        await asyncio.to_thread(self.end_kin)
        if self._cell is not None:
            self._cell.close()

    def progressed(self) -> None:
        """See `runtime_api.Listener` and `extensions_api.Listener`."""
        if self.state is State.STARTING:
            self._start_runtime_later()
        if not (self._api.is_waiting and self._extensions.are_waiting):
            return
        if self.state is State.STARTING:
            self._stop_timer()
            self._become_free()
            self._extensions.close_registration()
            init_s = self._loop.time() - self._started_at
            self._ledgers.telemetry.environment_started(self._blueprint.function, self._pid, init_s)
            self._ledgers.metrics.initialised(self._blueprint.function, self._blueprint.facts.version, init_s)
            self._journal.initialised(init_s)
            self._owner.is_ready(self)
            self.initialised.set_result(Ready())
        elif self.state is State.BUSY and self._answer is not None:
            self._stop_timer()
            self._settle(self._answer)
            self._become_free()

    def answered(self, payload: bytes, error_type: str | None) -> None:
        """See `runtime_api.Listener`."""
        if self._invocation is not None:
            request_id = self._invocation.request_id
            self._take(
                Answer(request_id, payload) if error_type is None else endings.failed(request_id, payload), error_type
            )

    def answered_too_much(self) -> None:
        """See `runtime_api.Listener`: a client that is refused its answer ends, and the environment with it."""
        if self._invocation is not None:
            self._take(endings.too_large(self._invocation.request_id), "Function.ResponseSizeTooLarge")

    def answered_in_part(self) -> None:
        """See `runtime_api.Listener`: the environment serves nobody again."""
        if self._invocation is not None and self.state is State.BUSY:
            self._take(endings.truncated(self._invocation.request_id), "Runtime.TruncatedResponse")
            self.kill("truncated answer")

    def init_failed(self, payload: bytes, error_type: str) -> None:  # noqa: ARG002 - the payload names it too
        """See `runtime_api.Listener`."""
        if self.state is State.STARTING:
            self.initialised.set_result(InitFailed(payload))
            self.kill("initialisation failed")

    def extension_failed(self, name: str, error_type: str) -> None:
        """See `extensions_api.Listener`: the whole environment is given up."""
        if self.state not in {State.ENDING, State.ENDED}:
            self._crash = Crashed(error_type, f"extension {name[:64]} has failed")
            self.kill("extension failed")

    @property
    def _pid(self) -> int:
        return 0 if self._cell is None else self._cell.pid

    def _start_runtime(self) -> None:
        """As soon as every extension has registered."""
        if self._cell is not None and not self._has_runtime and self._extensions.are_registered:
            self._has_runtime = True
            self._cell.start(RUNTIME, self._blueprint.command, self._blueprint.folder, self._variables)

    def _start_runtime_later(self) -> None:
        try:
            self._start_runtime()
        except (OSError, ValueError) as error:
            self._crash = Crashed("Runtime.InvalidEntrypoint", str(error))
            self.kill("not started")

    def _take(self, answer: Answer, error_type: str | None) -> None:
        assert self._cell is not None
        self._answer, self._error_type = answer, error_type
        self._cell.drain()  # what was written before the answer carries its request's id

    def _become_free(self) -> None:
        self.state = State.FREE
        self._invocation = None

    def _settle(self, answer: Answer) -> None:
        blueprint, has_failed = self._blueprint, answer.function_error is not None
        status = "timeout" if self._answer is None and self._reason == "timeout" else "error"
        error_type = None if status == "timeout" else self._error_type
        duration_s, tail = self._journal.ended(status if has_failed else "success", error_type, self._memory_peak())
        self._ledgers.metrics.invoked(blueprint.function, blueprint.facts.version, duration_s, has_failed=has_failed)
        if not self._result.done():
            self._result.set_result(replace(answer, executed_version=blueprint.facts.version, log_tail=tail))

    def _memory_peak(self) -> int | None:
        """Asked for at most once a second: a peak never falls, and asking costs more than a short invocation."""
        now = self._loop.time()
        if self._cell is not None and now >= self._peak_at + _PEAK_EVERY_S:
            found = self._cell.memory_peak_bytes()
            self._peak_at, self._peak = now, self._peak if found is None else found
        return self._peak

    def _line(self, line: str) -> None:
        self._journal.line(line)

    def _exited(self, name: str, status: int) -> None:
        """A process has ended: so do the others, each in its time where the environment is stopped."""
        if name == RUNTIME:
            self._status = status
        if self.state in {State.ENDING, State.ENDED}:
            return
        if name == RUNTIME and self.initialised.done() and self._extensions.want_shutdown:
            self._settle_now(status)
            self._wind_down("exit", "FAILURE", signal.SIGKILL)
            return
        if name != RUNTIME:
            self._crash = Crashed("Extension.Crash", f"extension {name}: {endings.status_text(status)}")
        self.state = State.ENDING
        self._kill_cell()

    def _emptied(self) -> None:
        self._finish(-9 if self._status is None else self._status)

    def _time_out(self) -> None:
        """The caller is told at once; extensions that want to know have their two seconds."""
        if not self._extensions.want_shutdown:
            self.kill("timeout")
            return
        self._reason = "timeout"
        self._settle_now(-9)
        self._wind_down("timeout", "TIMEOUT", signal.SIGKILL)

    def _settle_now(self, status: int) -> None:
        if self._invocation is not None:
            self._settle(self._answer or self._own_ending(self._invocation.request_id, status))
            self._invocation = None

    def _wind_down(self, reason: str, shutdown_reason: str, number: int) -> None:
        """Tell extensions of the end and give them time; `number` is the signal for the runtime."""
        assert self._cell is not None
        self.state, self._reason = State.ENDING, reason
        self._stop_timer()
        self._cell.thaw()
        self._extensions.shut_down(shutdown_reason, int((time.time() + _SHUTDOWN_S) * 1000))
        self._cell.signal(RUNTIME, number)
        self._timer = self._loop.call_later(_SHUTDOWN_S, self._kill_cell)

    def _kill_cell(self) -> None:
        self._stop_timer()
        if self._cell is None or not self._pid:
            self._finish(0)
            return
        self._timer = self._loop.call_later(_DEATH_S, self._finish, -9)
        self._cell.kill()

    def _finish(self, status: int) -> None:
        if self.state is State.ENDED:
            return
        self._stop_timer()
        self.state = State.ENDED
        self._settle_now(status)
        if not self.initialised.done():
            how = self._how_it_did_not_start(status)
            init_s = self._loop.time() - self._started_at
            self._journal.init_failed(init_s, "timeout" if isinstance(how, TooSlow) else "error")
            self.initialised.set_result(how)
        self._ledgers.telemetry.environment_ended(self._blueprint.function, self._pid, self._reason)
        self._owner.has_ended(self)
        self.ended.set_result(None)

    def _how_it_did_not_start(self, status: int) -> Initialised:
        if self._crash is not None:
            return self._crash
        return Exited(status) if self._reason == "exit" else TooSlow()

    def _own_ending(self, request_id: str, status: int) -> Answer:
        if self._reason == "timeout":
            return endings.timed_out(request_id, self._blueprint.timeout_s)
        if self._crash is not None:
            self._error_type = self._crash.error_type
            return endings.crashed(request_id, self._crash.error_type, self._crash.text)
        self._error_type = "Runtime.ExitError"
        return endings.exited(request_id, status)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
