"""What mappings show reaches the store, also one that fails now and then; and the real clock."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from esm.model.clocks import Instant
from esm.model.mapping import State
from esm.model.stored import Key
from esm.model.view import MappingView
from esm.rules import stored
from esm.runtime.reporting import Reporter
from esm.runtime.surroundings import ByteBudget, SystemClock
from tests.simulation.world import World


def simulate(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def view(uuid: str, state: State = State.ENABLED) -> MappingView:
    return MappingView(uuid, "f", "s", state, "OK", has_problem=False, in_flight=0, backlog=None, shards=())


class Showing:
    """A supervisor that shows what it is told to."""

    def __init__(self) -> None:
        self.shown = [view("u")]

    def views(self) -> list[MappingView]:
        return self.shown


async def reported(world: World) -> list[MappingView]:
    items = (await world.store.inner.scan("status", "w")).items
    return stored.merged_status([stored.decode_status(item.value) for item in items])


@pytest.mark.parametrize("faults", [False, True])
def test_a_change_is_reported_within_seconds_and_what_does_not_change_is_not_written_again(*, faults: bool) -> None:
    world = World(3, faults=faults)
    showing = Showing()
    key = Key("status", "w", "0000")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Reporter(world.around(), showing).run)  # type: ignore[arg-type]
            await anyio.sleep(60)
            assert await reported(world) == showing.shown
            writes = len(world.store.history[key])
            await anyio.sleep(60)
            assert len(world.store.history[key]) == writes
            showing.shown = [replace(view("u"), state=State.DISABLED), view("v")]
            await anyio.sleep(60)
            assert await reported(world) == showing.shown
            tasks.cancel_scope.cancel()

    simulate(main)


def test_a_report_goes_on_where_an_earlier_worker_of_the_name_has_written() -> None:
    world = World(4, faults=False)

    async def main() -> None:
        await Reporter(world.around(), Showing()).write([view("old")])  # type: ignore[arg-type]
        reporter = Reporter(world.around(), Showing())  # type: ignore[arg-type]
        await reporter.write([view("new")])
        await Reporter(world.around(), Showing()).write([view("other")])  # type: ignore[arg-type]
        await reporter.write([view("newest")])
        assert await reported(world) == [view("newest")]

    simulate(main)


def test_bytes_are_given_first_come_first_served_and_back_when_a_wait_is_cancelled() -> None:
    budget = ByteBudget(100)
    got: list[str] = []

    async def take(name: str, size: int) -> None:
        await budget.reserve(size)
        got.append(name)

    async def main() -> None:
        assert await budget.reserve(1000) == 100
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(1):
                await budget.reserve(90)
            tasks.start_soon(take, "big", 80)
            await anyio.sleep(1)
            tasks.start_soon(take, "small", 10)
            await anyio.sleep(1)
            budget.release(70)
            await anyio.sleep(1)
            assert got == []
            budget.release(10)
            await anyio.sleep(1)
            assert got == ["big"]
            budget.release(20)
        assert got == ["big", "small"]
        assert budget.used_bytes == 90

    simulate(main)


def test_a_reservation_that_comes_with_its_cancellation_is_given_back() -> None:
    budget = ByteBudget(100)

    async def main() -> None:
        await budget.reserve(100)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(budget.reserve, 50)
                await anyio.sleep(1)
                budget.release(100)
                scope.cancel()
        assert budget.used_bytes in {0, 50}

    simulate(main)


def test_the_real_clock_waits_until_an_instant_and_for_ever() -> None:
    async def main() -> None:
        clock = SystemClock()
        began_at = clock.now()
        await clock.sleep_until(Instant(began_at + 5))
        assert clock.now() >= began_at + 5
        await clock.sleep_until(began_at)
        with anyio.move_on_after(10) as scope:
            await clock.sleep_until(Instant(math.inf))
        assert scope.cancelled_caught
        assert clock.wall() > 1_700_000_000

    simulate(main)
