"""Queues with several workers: bounds hold over all of them, at every moment."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import anyio

from esm.model.clocks import Instant
from esm.model.mapping import Mapping
from esm.runtime.fleet import Fleet, Identity
from esm.runtime.queue import QueueRunner
from tests.simulation.fleet import FAILOVER_S, Line, LineStore, LineTarget
from tests.simulation.test_queues import simulate
from tests.simulation.world import FakeQueue, FakeTarget, World, fifo_mapping, queue_mapping


class Worker:
    def __init__(self, play: FleetPlay, name: str) -> None:
        world = play.world
        self.line = Line(world)
        base = world.around()
        store = LineStore(world, self.line)
        identity = Identity(name, world.new_id(), 1, failover_s=FAILOVER_S)
        self.fleet = Fleet(identity, world.clock, store, base.telemetry)
        around = replace(base, store=store, worker=name, members=self.fleet)
        observation = world.observation(play.mapping, around)
        self.runner = QueueRunner(around, play.mapping, play.queue, LineTarget(play.target, self.line), observation)
        self.scope = anyio.CancelScope()
        self.has_ended = anyio.Event()

    async def run(self) -> None:
        with self.scope:
            async with anyio.create_task_group() as background:
                background.start_soon(self.fleet.run)
                await self.runner.run()
                await self.fleet.release()
                background.cancel_scope.cancel()
        self.has_ended.set()

    def stop(self) -> None:
        self.fleet.leave()
        self.runner.stop.set(Instant(anyio.current_time() + 30))


class FleetPlay:
    """One queue, one function, several workers."""

    def __init__(self, seed: int, mapping: Mapping, *, faults: bool = True, **queue: int) -> None:
        self.world = World(seed, faults=faults)
        self.mapping = mapping
        self.queue = FakeQueue(self.world, **queue)
        self.target = FakeTarget(self.world)
        self.target.checks_keys = bool(queue.get("groups"))
        self.workers: list[Worker] = []
        self.names = 0
        self.tasks: anyio.abc.TaskGroup | None = None

    def join(self) -> Worker:
        assert self.tasks is not None
        self.names += 1
        worker = Worker(self, f"w{self.names}")
        self.workers.append(worker)
        self.tasks.start_soon(worker.run)
        return worker

    async def leave(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.stop()
        await worker.has_ended.wait()

    def kill(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.line.is_cut = True
        self.world.may_cancel_receives = True
        worker.scope.cancel()

    async def drained(self) -> None:
        self.world.faults = False
        with anyio.fail_after(1000):
            while self.queue.messages:  # noqa: ASYNC110 - the virtual clock jumps
                await anyio.sleep(1)

    async def end(self) -> None:
        for worker in list(self.workers):
            await self.leave(worker)


def test_maximum_concurrency_holds_over_all_workers_and_everything_is_taken(seed: int) -> None:
    chance = Random(seed)
    limit = chance.choice([2, 3, 5])
    groups = chance.choice([0, 0, 4])
    mapping = (fifo_mapping if groups else queue_mapping)(concurrency_max=limit, batch_size=3)
    play = FleetPlay(seed, mapping, **({"groups": groups} if groups else {}))

    async def main() -> None:
        async with anyio.create_task_group() as play.tasks:
            play.join()
            for _ in range(10):
                play.queue.send(chance.randint(0, 40))
                await anyio.sleep(chance.random() * 25)
                what = chance.choice(["join", "leave", "kill"])
                if what == "join" or not play.workers:
                    play.join()
                elif what == "leave":
                    await play.leave(chance.choice(play.workers))
                else:
                    play.kill(chance.choice(play.workers))
            if not play.workers:
                play.join()
            await play.drained()
            await play.end()

    simulate(main)
    assert play.world.taken() == set(range(play.queue.sent))
    assert play.target.in_flight_max <= limit


def test_a_quiet_queue_has_two_receivers_over_all_workers_and_a_busy_one_those_of_each() -> None:
    play = FleetPlay(1, queue_mapping(batch_size=1), faults=False)

    async def main() -> None:
        async with anyio.create_task_group() as play.tasks:
            for _ in range(3):
                play.join()
            await anyio.sleep(40)
            play.queue.receiving_max = 0
            await anyio.sleep(60)
            assert play.queue.receiving_max == 2
            play.target._duration_s = 20
            play.queue.send(400)
            await anyio.sleep(25)
            assert all(worker.runner._gate.in_use > 1 for worker in play.workers)
            play.target._duration_s = 0.01
            await play.drained()
            await play.end()

    simulate(main)


def test_one_worker_alone_tries_a_broken_target() -> None:
    play = FleetPlay(1, queue_mapping(batch_size=1), faults=False, visibility_s=10, receives_max=20)

    async def main() -> None:
        async with anyio.create_task_group() as play.tasks:
            for _ in range(3):
                play.join()
            await anyio.sleep(5)
            play.world.broken_until = math.inf
            play.queue.send(60)
            await anyio.sleep(30)
            before = sum(message.receives for message in play.queue.messages.values())
            await anyio.sleep(100)
            after = sum(message.receives for message in play.queue.messages.values())
            assert 5 <= after - before <= 12, "one batch per visibility time-out, whoever tries it"
            play.world.broken_until = 0
            await play.drained()
            await play.end()

    simulate(main)
    assert not play.queue.dead
