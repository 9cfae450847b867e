"""Pool: the environments of one function, as a Target. Cold start on demand, warm reuse, replaced after a failure.

Source: lambda.md 6 (payloads of failures), 7.7 (init and its limit).
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec

from esm.errors import OperatorNeeded
from esm.host import interpreters
from esm.host.environment import Died, Environment, Surplus
from esm.host.runtime_api import Event, Result
from esm.model.function import FunctionFacts, HostedFunction
from esm.model.invocation import Answer, Ending, Invocation, Misconfigured, Throttled

INIT_S = 10.0
"""How long init may take before it is tried again inside the invocation."""


class Pool:
    """Implements `ports.Target`. Invariant: at most `concurrency` environments exist."""

    def __init__(self, function: HostedFunction, concurrency: int, idle_s: float, surplus: Surplus) -> None:
        self.concurrency: int | None = concurrency
        self._function = function
        self._idle_s = idle_s
        self._surplus = surplus
        self._idle: list[Environment] = []
        self._busy: set[Environment] = set()
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._freed = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    async def facts(self) -> FunctionFacts:
        """Looks for interpreter, folder and module. Raises: OperatorNeeded."""
        function = self._function
        await asyncio.get_running_loop().run_in_executor(None, interpreters.interpreter, function.runtime)
        _check_code(function)
        return FunctionFacts(function.timeout_s, function.role)

    async def wait_free(self) -> None:
        """Return once an environment is free or may be started; never, while the concurrency is 0."""
        while self._taken >= (self.concurrency or 0):
            self._freed.clear()
            await self._freed.wait()

    async def invoke(self, invocation: Invocation) -> Ending:
        """Run the function once. Cancelled: its environment is killed."""
        if not await self._take(invocation.start_by):
            return Throttled(invocation.request_id)
        try:
            return await self._invoke(invocation)
        finally:
            self._give()

    async def aclose(self) -> None:
        """End every environment."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        for environment in [*self._idle, *self._busy]:
            environment.end("stopped")
        self._idle.clear()

    async def _take(self, start_by: float | None) -> bool:
        """Take one of the places, first come, first served, until `start_by`."""
        loop = asyncio.get_running_loop()
        if not self.concurrency:
            return False
        if self._taken < self.concurrency and not self._waiting:
            self._taken += 1
            return True
        place = loop.create_future()
        self._waiting.append(place)
        try:
            timeout_s = None if start_by is None else max(0.0, start_by - loop.time())
            await asyncio.wait({place}, timeout=timeout_s)
        except asyncio.CancelledError:
            if place.done():
                self._give()
            raise
        finally:
            if not place.done():
                self._waiting.remove(place)
        return place.done()

    def _give(self) -> None:
        """Give the place to who waits longest, or back."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._taken -= 1
            self._freed.set()

    async def _invoke(self, invocation: Invocation) -> Ending:
        environment, left_s, failed = await self._environment(invocation)
        if failed is not None or environment is None:
            return failed or _died(invocation, Died(0))
        is_reusable = False
        try:
            event = Event(
                invocation.request_id, int((time.time() + left_s) * 1000), str(invocation.function_arn),
                invocation.payload, invocation.trace,
            )  # fmt: skip
            result = await environment.run(event, left_s)
            is_reusable = isinstance(result, Result) and not result.is_last and environment.is_alive
            return self._ending(invocation, result)
        finally:
            self._busy.discard(environment)
            if is_reusable:
                self._idle.append(environment)
                self._sweep_later()
            else:
                environment.end("replaced")

    async def _environment(self, invocation: Invocation) -> tuple[Environment | None, float, Ending | None]:
        """A ready environment and the time left for the function, or how the start failed."""
        timeout_s = float(self._function.timeout_s)
        while self._idle:
            environment = self._idle.pop()
            if environment.is_alive:
                self._busy.add(environment)
                return environment, timeout_s, None
            environment.end("died")
        started, failed = await self._started(invocation, INIT_S)
        if started is not None or failed is not None:
            return started, timeout_s, failed
        began_at = time.monotonic()
        started, failed = await self._started(invocation, timeout_s)
        if started is None and failed is None:
            failed = self._timed_out(invocation)
        return started, max(0.001, timeout_s - (time.monotonic() - began_at)), failed

    async def _started(self, invocation: Invocation, init_s: float) -> tuple[Environment | None, Ending | None]:
        """A new environment, or how its init failed; neither after `init_s`."""
        environment = Environment(self._function, self._surplus)
        self._busy.add(environment)
        is_ready: Died | bool = False
        try:
            await environment.start(invocation.request_id)
            is_ready = await environment.ready(init_s)
        except (OSError, OperatorNeeded) as error:
            return None, Misconfigured(invocation.request_id, f"function {self._function.key} cannot start: {error}")
        finally:
            if is_ready is not True:
                self._busy.discard(environment)
                environment.end("init failed")
        if is_ready is True:
            return environment, None
        if environment.init_error is not None:
            return None, Answer(invocation.request_id, environment.init_error, "Unhandled")
        return None, _died(invocation, is_ready) if isinstance(is_ready, Died) else None

    def _ending(self, invocation: Invocation, result: Result | Died | None) -> Ending:
        match result:
            case Result(payload, is_error):
                return Answer(invocation.request_id, payload, "Unhandled" if is_error else None)
            case Died():
                return _died(invocation, result)
            case None:
                return self._timed_out(invocation)

    def _timed_out(self, invocation: Invocation) -> Answer:
        text = f"Task timed out after {self._function.timeout_s:.2f} seconds"
        return _failure(invocation, "Sandbox.Timedout", text)

    def _sweep_later(self) -> None:
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        """End environments that have been idle for long; ends with the last one."""
        while self._idle:
            await asyncio.sleep(max(0.05, self._idle[0].idle_since + self._idle_s - time.monotonic()))
            due = time.monotonic() - self._idle_s
            for environment in [one for one in self._idle if one.idle_since <= due or not one.is_alive]:
                self._idle.remove(environment)
                environment.end("idle")


def _check_code(function: HostedFunction) -> None:
    """Raises: OperatorNeeded where the folder or the handler's module is missing."""
    folder = Path(function.code)
    if not folder.is_dir():
        raise OperatorNeeded(f"function {function.key}: there is no folder {folder}: CodeUri must name one")
    module = function.handler.rpartition(".")[0].replace(".", "/")
    names = (f"{module}.py", f"{module}/__init__.py", f"{module}.pyc")
    if not module or not any((folder / name).exists() for name in names):
        raise OperatorNeeded(
            f"function {function.key}: Handler {function.handler} needs {folder / module}.py, which is not there"
        )


def _died(invocation: Invocation, died: Died) -> Answer:
    return _failure(invocation, "Runtime.ExitError", died.text)


def _failure(invocation: Invocation, kind: str, text: str) -> Answer:
    document = {"errorType": kind, "errorMessage": f"RequestId: {invocation.request_id} Error: {text}"}
    return Answer(invocation.request_id, msgspec.json.encode(document), "Unhandled")
