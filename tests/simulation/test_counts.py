"""How much waits in a queue is asked often enough to scale by, and is unknown rather than old."""

from typing import Any

import anyio
from trio.testing import MockClock

from esm.model.clocks import Instant
from esm.runtime.queue import COUNTS_EVERY_S, FACTS_EVERY_S, QueueRunner
from tests.simulation.world import FakeQueue, FakeTarget, World, queue_mapping

A_MOMENT_S = 3.0


def simulate(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def test_a_running_queue_says_every_half_minute_how_many_messages_wait_and_are_on_their_way() -> None:
    world = World(1, faults=False)
    world.broken_until = 1_000.0
    queue = FakeQueue(world, visibility_s=2_000)

    async def main() -> None:
        mapping, around = queue_mapping(), world.around()
        observation = world.observation(mapping, around)
        runner = QueueRunner(around, mapping, queue, FakeTarget(world), observation)

        def counted() -> tuple[int | None, int | None]:
            view = observation.view()
            return view.backlog, view.not_visible

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await anyio.sleep(A_MOMENT_S)
            assert counted() == (0, 0)
            queue.send(100)
            await anyio.sleep(COUNTS_EVERY_S)
            waiting, with_somebody = counted()
            assert waiting is not None
            assert with_somebody
            assert waiting + with_somebody == 100
            world.answers_after_s = 1.0
            await anyio.sleep(COUNTS_EVERY_S + A_MOMENT_S)
            assert counted() == (None, None)
            world.answers_after_s = 0.0
            await anyio.sleep(FACTS_EVERY_S + A_MOMENT_S)
            waiting, with_somebody = counted()
            assert (waiting or 0) + (with_somebody or 0) == 100
            world.broken_until = 0.0
            runner.stop.set(Instant(anyio.current_time() + 60))

    simulate(main)
