"""Queues keep the promises of the design's section 8 under any schedule and fault, with one worker."""

from __future__ import annotations

import math
from typing import Any

import anyio
from trio.testing import MockClock

from esm.model.clocks import Instant
from esm.model.mapping import Mapping
from esm.runtime.queue import LAST_START_S, QueueRunner
from tests.simulation.world import FakeQueue, FakeTarget, World, queue_mapping


LONGEST_S = 600
"""What draining a queue may take once faults have ended."""


def simulate(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


class Play:
    """One queue, one function, one worker at a time."""

    def __init__(self, seed: int, mapping: Mapping, *, faults: bool = True, **queue: int) -> None:
        self.world = World(seed, faults=faults)
        self.mapping = mapping
        self.queue = FakeQueue(self.world, **queue)
        self.target = FakeTarget(self.world)
        self.target.checks_keys = False
        self.runner: QueueRunner | None = None

    async def work(self, for_s: float = math.inf, *, graceful: bool = True, grace_s: float = 30) -> None:
        around = self.world.around()
        observation = self.world.observation(self.mapping, around)
        runner = self.runner = QueueRunner(around, self.mapping, self.queue, self.target, observation)
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await runner.run()
                tasks.cancel_scope.cancel()

            tasks.start_soon(run)
            await anyio.sleep(for_s)
            if graceful:
                began_at = anyio.current_time()
                runner.stop.set(Instant(began_at + grace_s))
            else:
                self.world.may_cancel_receives = True
                tasks.cancel_scope.cancel()
        self.world.may_cancel_receives = False
        if graceful and not math.isinf(for_s):
            assert anyio.current_time() <= began_at + grace_s + LAST_START_S
        assert around.budget.used_bytes == 0
        assert self.target.in_flight == 0

    async def drain_queue(self) -> None:
        """Wait until the worker has emptied the queue, and end it."""
        await anyio.sleep(1)
        with anyio.fail_after(LONGEST_S):
            while self.queue.messages:  # noqa: ASYNC110 - the virtual clock jumps
                await anyio.sleep(1)
        assert self.runner is not None
        self.runner.stop.set(Instant(anyio.current_time() + 30))


def test_every_message_is_taken_and_deleted(seed: int) -> None:
    chance = World(seed).random
    more = {"batch_size": 25, "window_s": 2} if chance.random() < 0.3 else {"batch_size": chance.choice([1, 3, 10])}
    play = Play(seed, queue_mapping(**more, concurrency_max=chance.choice([None, 2, 3])))

    async def main() -> None:
        for _ in range(chance.randint(1, 4)):
            play.queue.send(chance.randint(1, 60))
            await play.work(chance.random() * 30, graceful=chance.random() < 0.6)
        play.world.faults = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await play.drain_queue()

    simulate(main)
    assert play.world.taken() == set(range(play.queue.sent))
    assert play.target.in_flight_max <= (play.mapping.concurrency_max or 5 + 5 * LONGEST_S)


def test_a_broken_target_leaves_the_dead_letter_queue_empty() -> None:
    play = Play(1, queue_mapping(), faults=False, visibility_s=5, receives_max=5)

    async def main() -> None:
        play.world.broken_until = 25
        play.queue.send(100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(20)
            counts = [message.receives for message in play.queue.messages.values()]
            assert sum(counts) <= 50 + 10 * 6
            await anyio.sleep(60)
            assert play.runner is not None
            play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    assert play.queue.dead == []
    assert play.world.taken() == set(range(100))


def test_a_stop_hides_no_message_and_counts_no_receive_in_vain() -> None:
    play = Play(2, queue_mapping(batch_size=3), faults=False, visibility_s=600, receives_max=1)

    async def main() -> None:
        for _ in range(20):
            play.queue.send(7)
            await play.work(0.3)
        await play.work(20)

    simulate(main)
    assert play.queue.dead == []
    assert play.world.taken() == set(range(140))


def test_an_empty_queue_is_asked_at_most_once_a_second_by_each_receiver() -> None:
    play = Play(3, queue_mapping(), faults=False)
    asked = 0
    receive = play.queue.receive

    async def counted(count: int, _: int, __: str | None = None) -> list[Any]:
        nonlocal asked
        asked += 1
        return await receive(count, 0)

    play.queue.receive = counted  # type: ignore[method-assign]

    async def main() -> None:
        await play.work(60)

    simulate(main)
    assert asked <= 60 * 2 + 10


def test_a_window_closes_before_visibility_ends() -> None:
    play = Play(4, queue_mapping(batch_size=50, window_s=30), faults=False, visibility_s=10, receives_max=1)

    async def main() -> None:
        play.queue.send(3)
        await play.work(40)

    simulate(main)
    assert play.world.taken() == {0, 1, 2}
