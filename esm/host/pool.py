"""The environments of one function, as a `Target`.

Law: whoever holds one of the function's slots may use one environment; a free environment needs no slot, so there
are never more environments than slots. The one used last is used first, so that those not needed grow idle and end.
A slot comes back when its environment is free or dead, never before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host import endings
from esm.host.environment import Blueprint, Environment, Exited, InitFailed, Ready, State, TooSlow
from esm.model.clocks import Instant
from esm.model.function import FunctionFacts, HostedFunction
from esm.model.invocation import Ending, Invocation, Misconfigured, Throttled, Unreachable
from esm.telemetry import Telemetry

INIT_S = 10.0
"""Within it a handler must be loaded; a slower one is started again on the time of the invocation. lambda.md 7.7."""

_CONFIGURATION = (FileNotFoundError, NotADirectoryError, PermissionError, ValueError)
"""What starting a process raises when trying again will not help."""


class Pool:
    """See the module; `ports.Target` for a hosted function."""

    def __init__(
        self,
        function: HostedFunction,
        concurrency: int,
        idle_s: float,
        register: Path,
        telemetry: Telemetry,
        draw: Callable[[HostedFunction], Awaitable[Blueprint]],
    ) -> None:
        """`draw` makes the blueprint; raises OperatorNeeded while something that it needs is not there."""
        self._function = function
        self._concurrency = concurrency
        self._idle_s = idle_s
        self._register = register
        self._telemetry = telemetry
        self._draw = draw
        self._blueprint: Blueprint | None = None
        self._slots = asyncio.Semaphore(concurrency)
        self._alive: set[Environment] = set()
        self._free: list[Environment] = []
        """Used last at the end."""
        self._sweep: asyncio.TimerHandle | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self.is_closed = False

    @property
    def concurrency(self) -> int | None:
        """`ReservedConcurrentExecutions`, or the daemon's default; 0 blocks the function."""
        return self._concurrency

    async def facts(self) -> FunctionFacts:
        """As configured. Raises: OperatorNeeded where interpreter, folder or module is missing."""
        self._blueprint = await self._draw(self._function)
        return FunctionFacts(self._function.timeout_s, self._function.role)

    async def wait_free(self) -> None:
        """See `ports.Target`; does not return for a function that is blocked."""
        await self._slots.acquire()
        self._slots.release()

    async def invoke(self, invocation: Invocation) -> Ending:
        """See `ports.Target`. Waits for a slot until `start_by`; a cancelled invocation's environment is killed."""
        try:
            blueprint = self._blueprint = self._blueprint or await self._draw(self._function)
        except OperatorNeeded as error:
            return Misconfigured(invocation.request_id, str(error))
        if not await self._has_slot(invocation.start_by):
            return Throttled(invocation.request_id)
        return await self._serve(blueprint, invocation)

    async def aclose(self) -> None:
        """Kill every environment, running or not, and wait for the end of all that they started."""
        self.is_closed = True
        for environment in tuple(self._alive):
            environment.kill("stopped")
        if self._sweep is not None:
            self._sweep.cancel()
        while self._alive or self._closings:
            waiting = {environment.ended for environment in self._alive}
            await asyncio.wait(waiting | self._closings)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _has_slot(self, start_by: Instant | None) -> bool:
        if self._concurrency == 0 or self._is_too_late(start_by):
            return False
        try:
            async with asyncio.timeout_at(start_by):
                await self._slots.acquire()
        except TimeoutError:
            return False
        if self._is_too_late(start_by):
            self._slots.release()
            return False
        return True

    def _is_too_late(self, start_by: Instant | None) -> bool:
        return self.is_closed or (start_by is not None and start_by <= self._now())

    async def _serve(self, blueprint: Blueprint, invocation: Invocation) -> Ending:
        """Use an environment; a handler that loads too slowly gets a second one, and all of the function's time."""
        environment = self._take_free() or self._new(blueprint)
        timeout_s = self._function.timeout_s
        try:
            if environment.state is State.FREE:
                return await environment.run(invocation, Instant(self._now() + timeout_s))
            ending = await self._serve_cold(environment, invocation, INIT_S, None)
            if ending is None:
                environment = self._new(blueprint)
                ending = await self._serve_cold(environment, invocation, timeout_s, Instant(self._now() + timeout_s))
            return ending or endings.timed_out(invocation.request_id, timeout_s)
        except asyncio.CancelledError:
            environment.kill("cancelled")
            raise
        finally:
            self._give_back(environment)

    async def _serve_cold(  # noqa: PLR0911 - one for each way in which a start can end
        self, environment: Environment, invocation: Invocation, init_s: float, deadline: Instant | None
    ) -> Ending | None:
        """Start an environment and use it; None when it was not ready within `init_s`.

        `deadline` ends the invocation; None gives it the function's timeout once the handler is loaded. At `start_by`
        the invocation is off, and the environment goes on loading for the next one.
        """
        request_id, start_by = invocation.request_id, invocation.start_by
        try:
            await environment.start(init_s)
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
                return await environment.run(invocation, deadline or Instant(self._now() + self._function.timeout_s))
            case Exited(status):
                return endings.exited(request_id, status)
            case InitFailed(payload):
                await asyncio.wait({environment.ended})
                return endings.failed(request_id, payload)
            case TooSlow():
                await asyncio.wait({environment.ended})
                return None

    def _new(self, blueprint: Blueprint) -> Environment:
        environment = Environment(blueprint, self._register, self._telemetry)
        self._alive.add(environment)
        environment.ended.add_done_callback(lambda _: self._ended(environment))
        return environment

    def _take_free(self) -> Environment | None:
        while self._free:
            environment = self._free.pop()
            if environment.is_free:
                return environment
        return None

    def _give_back(self, environment: Environment) -> None:
        """Let the next one have the slot, as soon as nothing runs in it."""
        match environment.state:
            case State.FREE:
                self._free.append(environment)
                self._plan_sweep()
                self._slots.release()
            case State.STARTING:
                environment.initialised.add_done_callback(lambda _: self._give_back(environment))
            case State.ENDED:
                self._slots.release()
            case State.BUSY | State.ENDING:
                environment.kill("given up")
                environment.ended.add_done_callback(lambda _: self._slots.release())

    def _ended(self, environment: Environment) -> None:
        self._alive.discard(environment)
        if environment in self._free:
            self._free.remove(environment)
        closing = asyncio.get_running_loop().create_task(environment.aclose())
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)

    def _plan_sweep(self) -> None:
        if self._sweep is None and self._free and not self.is_closed:
            due = self._free[0].free_since + self._idle_s
            self._sweep = asyncio.get_running_loop().call_at(due, self._end_idle)

    def _end_idle(self) -> None:
        self._sweep = None
        while self._free and self._free[0].free_since + self._idle_s <= self._now():
            self._free.pop(0).kill("idle")
        self._plan_sweep()
