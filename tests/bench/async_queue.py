"""How fast asynchronous events are accepted and served, embedded store: `python -m tests.bench.async_queue`."""

import random
import tempfile
import time
import uuid

import anyio
from prometheus_client import CollectorRegistry

from esm.model.arn import Arn
from esm.model.function import AsyncRules, FunctionFacts
from esm.model.invocation import Answer, Ending, Invocation
from esm.runtime.async_events import AsyncEvents
from esm.runtime.async_function import AsyncFunction
from esm.runtime.surroundings import ByteBudget, Surroundings, SystemClock
from esm.stores import open_store
from esm.telemetry import Telemetry

ARN = Arn.parse("arn:aws:lambda:us-east-1:111111111111:function:f")
SMALL = b'{"Records":["' + b"x" * 5_000 + b'"]}'
LARGE = b'{"Records":["' + b"x" * 1_000_000 + b'"]}'


class Instantly:
    """A function that takes no time."""

    concurrency = 10
    served = 0

    async def facts(self) -> FunctionFacts:
        return FunctionFacts(3, "role")

    async def wait_free(self) -> None:
        return

    async def invoke(self, invocation: Invocation) -> Ending:
        self.served += 1
        return Answer(invocation.request_id, b"{}")

    async def aclose(self) -> None:
        return


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = await open_store(f"sqlite://{folder}/state.db", exclusive=True)
        around = Surroundings(
            clock=SystemClock(), telemetry=Telemetry(CollectorRegistry()), store=store,
            budget=ByteBudget(256 * 1024 * 1024), jitter=random.random, new_id=lambda: str(uuid.uuid4()), worker="w",
        )  # fmt: skip
        target = Instantly()
        function = AsyncFunction(target, AsyncRules(), is_blocked=False, destination=lambda _: None)
        events = AsyncEvents(around, lambda _: function)

        async def accept(count: int, payload: bytes) -> None:
            for _ in range(count):
                await events.accept(ARN, payload)

        await timed("accepted, one after the other", 200, accept, 200, SMALL)
        began_at = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(accept, 100, SMALL)
        shown("accepted, 20 callers", 2000, time.perf_counter() - began_at)
        began_at = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.run)
            while target.served < 2200:  # noqa: ASYNC110 - a benchmark
                await anyio.sleep(0.01)
            shown("served", 2200, time.perf_counter() - began_at)
            await timed("accepted, 1 MB each", 20, accept, 20, LARGE)
            tasks.cancel_scope.cancel()
        await store.aclose()


async def timed(what, count, run, *arguments) -> None:
    began_at = time.perf_counter()
    await run(*arguments)
    shown(what, count, time.perf_counter() - began_at)


def shown(what: str, count: int, took_s: float) -> None:
    print(f"{what:30} {took_s / count * 1000:7.2f} ms each {count / took_s:8.0f}/s")


if __name__ == "__main__":
    anyio.run(main)
