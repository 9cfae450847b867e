"""A hosted function's reserved concurrency holds over all workers, and each of them has its turn."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from esm.model.invocation import Answer, Ending, Invocation, Throttled
from esm.runtime.bounded import Bounded
from esm.runtime.fleet import Fleet, Identity
from esm.runtime.surroundings import Formats
from tests.simulation.test_queues import simulate
from tests.simulation.world import FUNCTION, FakeTarget, World


class Counting(FakeTarget):
    """A function that takes a second; how many of all workers run at once is the world's to count."""

    def __init__(self, world: World, running: list[int]) -> None:
        super().__init__(world)
        self._running = running

    async def invoke(self, invocation: Invocation) -> Ending:
        self._running[0] += 1
        self._running[1] = max(self._running)
        await anyio.sleep(1)
        self._running[0] -= 1
        return Answer(invocation.request_id, b"")


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_bound_holds_over_three_workers_and_each_gets_on(limit: int) -> None:
    world = World(1, faults=False)
    running = [0, 0]
    done = [0, 0, 0]

    async def call(bounded: Bounded, number: int) -> None:
        while True:
            await bounded.wait_free()
            ending = await bounded.invoke(Invocation("r", FUNCTION, b"{}"))
            done[number] += not isinstance(ending, Throttled)

    async def main() -> None:
        made: list[Bounded] = []
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                base = world.around()
                identity = Identity(f"w{number}", f"r{number}", 1)
                fleet = Fleet(identity, world.clock, world.store, base.telemetry, Formats())
                around = replace(base, members=fleet)
                tasks.start_soon(fleet.run)
                bounded = Bounded(around.members, "function:f", limit, Counting(world, running))
                made.append(bounded)
                for _ in range(4):
                    tasks.start_soon(call, bounded, number)
            await anyio.sleep(120)
            tasks.cancel_scope.cancel()
        for bounded in made:
            await bounded.aclose()

    simulate(main)
    assert running[1] <= limit
    assert min(done) >= 10
    assert sum(done) >= 120 * limit * 0.4


def test_a_changed_function_and_its_old_self_keep_the_bound_together() -> None:
    world = World(1, faults=False)
    running = [0, 0]
    done = [0, 0]

    async def call(bounded: Bounded, number: int) -> None:
        while True:
            await bounded.wait_free()
            ending = await bounded.invoke(Invocation("r", FUNCTION, b"{}"))
            done[number] += not isinstance(ending, Throttled)

    async def main() -> None:
        made: list[Bounded] = []
        async with anyio.create_task_group() as tasks:
            base = world.around()
            fleet = Fleet(Identity("w", "r", 1), world.clock, world.store, base.telemetry, Formats())
            tasks.start_soon(fleet.run)
            for number, limit in enumerate((4, 2)):
                made.append(Bounded(fleet, "function:f", limit, Counting(world, running)))
                for _ in range(4):
                    tasks.start_soon(call, made[number], number)
                await anyio.sleep(20)
            assert running[1] <= 4
            await anyio.sleep(2)
            running[1] = 0
            await anyio.sleep(40)
            tasks.cancel_scope.cancel()
        for bounded in made:
            await bounded.aclose()

    simulate(main)
    assert running[1] <= 2
    assert min(done) > 10


def test_a_worker_that_leaves_runs_what_it_has_received_within_its_part() -> None:
    world = World(1, faults=False)
    running = [0, 0]
    done = [0, 0]

    async def call(bounded: Bounded, number: int) -> None:
        while True:
            await bounded.wait_free()
            ending = await bounded.invoke(Invocation("r", FUNCTION, b"{}"))
            done[number] += not isinstance(ending, Throttled)

    async def main() -> None:
        made: list[Bounded] = []
        fleets: list[Fleet] = []
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                base = world.around()
                identity = Identity(f"w{number}", f"r{number}", 1)
                fleets.append(Fleet(identity, world.clock, world.store, base.telemetry, Formats()))
                tasks.start_soon(fleets[number].run)
                made.append(Bounded(fleets[number], "function:f", 4, Counting(world, running)))
                for _ in range(4):
                    tasks.start_soon(call, made[number], number)
            await anyio.sleep(20)
            fleets[0].leave()
            before = done[0]
            await anyio.sleep(20)
            assert done[0] >= before + 20
            await made[0].aclose()
            await fleets[0].release()
            before = done[1]
            await anyio.sleep(20)
            assert done[1] >= before + 50
            tasks.cancel_scope.cancel()
        await made[1].aclose()

    simulate(main)
    assert running[1] <= 4
