"""The environments of one function, as a `Target`. Law: `rules/environments` and `rules/slots` decide; this acts.

Whoever holds one of the function's slots has one environment. A slot comes back when nothing runs in it any more:
its environment is free, still starts (for the next one), or is dead; never before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host import endings
from esm.host.admission import Admission
from esm.host.environment import Blueprint, Crashed, Environment, Exited, InitFailed, Ledgers, Ready, State, TooSlow
from esm.host.metrics import Use
from esm.model.clocks import Instant
from esm.model.function import FunctionFacts, HostedFunction
from esm.model.invocation import Ending, Invocation, Misconfigured, Throttled, Unreachable
from esm.rules.environments import Environments, Freeze, Phase, Start, Step, Stop, Upkeep, init_s

_CONFIGURATION = (FileNotFoundError, NotADirectoryError, PermissionError, ValueError)
"""What starting a process raises when trying again will not help."""


@dataclass(frozen=True, slots=True)
class _Seat:
    """An environment that a call has, and what is to be done before it runs."""

    number: int
    environment: Environment
    phase: Phase | None
    """As in `environments.Taken`."""
    is_spill_over: bool


class Pool:
    """See the module; `ports.Target` for a hosted function."""

    def __init__(
        self,
        function: HostedFunction,
        upkeep: Upkeep,
        admission: Admission,
        register: Path,
        ledgers: Ledgers,
        draw: Callable[[HostedFunction], Awaitable[Blueprint]],
    ) -> None:
        """`draw` makes the blueprint; raises OperatorNeeded while something that it needs is not there."""
        self._function = function
        self._upkeep = upkeep
        self._admission = admission
        self._register = register
        self._ledgers = ledgers
        self._draw = draw
        self._blueprint: Blueprint | None = None
        self._rules = Environments(upkeep)
        self._alive: dict[int, Environment] = {}
        self._numbers: dict[Environment, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_closed = False
        admission.join(self, upkeep.concurrency, is_reserved=function.reserved_concurrency is not None)

    @property
    def concurrency(self) -> int | None:
        """`ReservedConcurrentExecutions`, or the daemon's default; 0 blocks the function."""
        return min(self._upkeep.concurrency, self._admission.overall)

    async def facts(self) -> FunctionFacts:
        """As configured; from then on provisioned environments are kept.

        Raises: OperatorNeeded where interpreter, code or a slot is missing.
        """
        await self._adopt()
        if self._upkeep.concurrency and self._admission.is_starved(self):
            raise OperatorNeeded(
                f"function {self._function.key}: ReservedConcurrentExecutions of other functions take all of"
                f" ESM_HOST_CONCURRENCY_TOTAL ({self._admission.overall}): raise it, or reserve less"
            )
        return FunctionFacts(self._function.timeout_s, self._function.role)

    async def wait_free(self) -> None:
        """See `ports.Target`; does not return for a function that is blocked."""
        if await self._admission.enter(self, None, waits=True) is None:
            self._admission.leave(self)

    async def invoke(self, invocation: Invocation) -> Ending:
        """See `ports.Target`. Waits for a slot until `start_by`; a cancelled invocation's environment is killed."""
        if self._blueprint is None:
            try:
                await self._adopt()
            except OperatorNeeded as error:
                return Misconfigured(invocation.request_id, str(error))
        if self._is_too_late(invocation.start_by):
            return Throttled(invocation.request_id)
        waits = invocation.waits and self._upkeep.concurrency > 0
        refusal = await self._admission.enter(self, invocation.start_by, waits=waits)
        if refusal is not None:
            self._ledgers.metrics.throttled(self._function.key, self._function.version)
            return Throttled(invocation.request_id, reason=refusal.value)
        if self._is_too_late(invocation.start_by):
            self._admission.leave(self)
            return Throttled(invocation.request_id)
        return await self._serve(invocation)

    def use(self) -> Use:
        """What its environments do now."""
        rules = self._rules
        return Use(
            self._function.key, self._function.version, self._admission.used(self), rules.count(Phase.STARTING),
            rules.count(Phase.FREE), rules.count(Phase.BUSY), self._upkeep.provisioned, rules.provisioned_ready,
            rules.provisioned_busy,
        )  # fmt: skip

    async def aclose(self) -> None:
        """End every environment, running or not, and wait for the end of all that they started."""
        self.is_closed = True
        self._admission.close(self)
        for environment in tuple(self._alive.values()):
            environment.stop("stopped")
        if self._timer is not None:
            self._timer.cancel()
        while self._numbers or self._tasks:
            waiting = {environment.ended for environment in self._numbers}
            await asyncio.wait(waiting | self._tasks)

    def is_ready(self, environment: Environment) -> None:
        """See `environment.Owner`."""
        number = self._numbers[environment]
        self._rules.ready(number, self._now())
        self._plan(self._rules.due(number))

    def has_ended(self, environment: Environment) -> None:
        """See `environment.Owner`."""
        number = self._numbers.pop(environment)
        self._alive.pop(number, None)
        self._rules.gone(number, self._now())
        self._run_aside(environment.aclose())
        self._plan(self._rules.next_at())

    def _now(self) -> Instant:
        return Instant(asyncio.get_running_loop().time())

    def _is_too_late(self, start_by: Instant | None) -> bool:
        return self.is_closed or (start_by is not None and start_by <= self._now())

    async def _adopt(self) -> None:
        """Draw the blueprint; another one than before means other code."""
        blueprint = await self._draw(self._function)
        before, self._blueprint = self._blueprint, blueprint
        self._rules.follow(replace(self._upkeep, freezes=blueprint.can_freeze))
        if before is not None and before != blueprint:
            self._act(self._rules.renew(self._now()))
        self._plan(self._rules.next_at())

    async def _serve(self, invocation: Invocation) -> Ending:
        """Use an environment; a handler that loads too slowly gets a second one, and all of the function's time."""
        seat = self._seat()
        timeout_s = self._function.timeout_s
        self._ledgers.metrics.seated(
            self._function.key, self._function.version,
            is_provisioned=self._rules.is_provisioned(seat.number), is_spill_over=seat.is_spill_over,
        )  # fmt: skip
        try:
            ending = await self._use(seat, invocation, None)
            if ending is None:
                seat = self._seat()
                ending = await self._use(seat, invocation, Instant(self._now() + timeout_s))
            return ending or endings.timed_out(invocation.request_id, timeout_s)
        except asyncio.CancelledError:
            seat.environment.kill("cancelled")
            raise
        finally:
            self._give_back(seat)

    def _seat(self) -> _Seat:
        while True:
            taken = self._rules.take(self._now())
            if taken.phase is None:
                return _Seat(taken.number, self._new(taken.number), None, taken.is_spill_over)
            environment = self._alive[taken.number]
            if taken.is_frozen:
                environment.thaw()
            if taken.phase is Phase.STARTING or environment.is_free:
                return _Seat(taken.number, environment, taken.phase, taken.is_spill_over)
            self._rules.gone(taken.number, self._now())  # it died while it was free, and nobody has told us yet

    async def _use(self, seat: _Seat, invocation: Invocation, deadline: Instant | None) -> Ending | None:
        """Run the invocation; None when the environment was not ready in time.

        `deadline` ends the invocation; None gives it the function's timeout once the handler is loaded. At `start_by`
        the invocation is off, and the environment goes on loading for the next one.
        """
        timeout_s, environment = self._function.timeout_s, seat.environment
        if seat.phase is not Phase.FREE:
            is_retry = deadline is not None
            ending = await self._ready(seat, invocation, timeout_s if is_retry else init_s(0, is_provisioned=False))
            if not isinstance(ending, Ready):
                return ending
        return await environment.run(invocation, deadline or Instant(self._now() + timeout_s))

    async def _ready(  # noqa: PLR0911 - one for each way in which a start can end
        self, seat: _Seat, invocation: Invocation, within_s: float
    ) -> Ready | Ending | None:
        environment, request_id, start_by = seat.environment, invocation.request_id, invocation.start_by
        try:
            if seat.phase is None:
                await environment.start(within_s)
        except _CONFIGURATION as error:
            return Misconfigured(request_id, f"function {self._function.key} cannot be started: {error}")
        except OSError as error:
            return Unreachable(request_id, f"function {self._function.key} cannot be started now: {error}")
        left_s = None if start_by is None else max(0.0, start_by - self._now())
        await asyncio.wait({environment.initialised}, timeout=left_s)
        if self._is_too_late(start_by) or not environment.initialised.done():
            return Throttled(request_id)
        match environment.initialised.result():
            case Ready():
                return Ready()
            case Exited(status):
                return endings.exited(request_id, status)
            case Crashed(error_type, text):
                return endings.crashed(request_id, error_type, text)
            case InitFailed(payload):
                await asyncio.wait({environment.ended})
                return endings.failed(request_id, payload)
            case TooSlow():
                await asyncio.wait({environment.ended})
                return None

    def _new(self, number: int) -> Environment:
        assert self._blueprint is not None
        is_provisioned = self._rules.is_provisioned(number)
        environment = Environment(
            self._blueprint, self, self._register, self._ledgers, is_provisioned=is_provisioned
        )  # fmt: skip
        self._alive[number] = environment
        self._numbers[environment] = number
        return environment

    def _give_back(self, seat: _Seat) -> None:
        """Let the next one have the slot, as soon as nothing runs in it."""
        environment = seat.environment
        match environment.state:
            case State.FREE | State.STARTING:
                stop = self._rules.give(seat.number, self._now())
                if stop is not None:
                    self._act([stop])
                self._plan(self._rules.due(seat.number))
                self._admission.leave(self)
            case State.ENDED:
                self._admission.leave(self)
            case State.BUSY | State.ENDING:
                environment.kill("given up")
                environment.ended.add_done_callback(lambda _: self._admission.leave(self))

    def _act(self, steps: list[Step] | list[Stop]) -> None:
        for step in steps:
            match step:
                case Start(number):
                    self._run_aside(self._provision(number))
                case Stop(number, reason):
                    self._alive.pop(number).stop(reason.value)
                case Freeze(number):
                    self._alive[number].freeze()

    async def _provision(self, number: int) -> None:
        environment, why = self._new(number), "it was not initialised"
        try:
            await environment.start(init_s(self._function.timeout_s, is_provisioned=True))
        except (OSError, ValueError) as error:
            why = str(error)
        await asyncio.wait({environment.initialised})
        if not isinstance(environment.initialised.result(), Ready) and not self.is_closed:
            self._ledgers.telemetry.provisioning_failed(self._function.key, why)

    def _run_aside(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _plan(self, due: Instant | None) -> None:
        """Look again at `due`, unless that happens earlier anyway."""
        if due is None or self.is_closed or self._blueprint is None:
            return
        if self._timer is None or self._timer.when() > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        self._act(self._rules.step(self._now()))
        self._plan(self._rules.next_at())
