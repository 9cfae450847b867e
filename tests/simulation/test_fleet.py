"""Workers that share the work keep the promises of the design's section 8."""

from __future__ import annotations

from random import Random

import anyio

from tests.simulation.fleet import FleetPlay
from tests.simulation.test_streams import simulate, write_for
from tests.simulation.world import stream_mapping


def test_shards_are_spread_and_a_worker_that_joins_gets_its_part_at_once() -> None:
    async def main() -> None:
        play = FleetPlay(1, [stream_mapping()], faults=False, shards=9)
        async with anyio.create_task_group() as play.tasks:
            play.join()
            await anyio.sleep(10)
            assert len(play.workers[0].owned) == 9
            play.join()
            await anyio.sleep(5)
            assert sorted(len(worker.owned) for worker in play.workers) == [4, 5]
            held = [worker.owned for worker in play.workers]
            play.join()
            await anyio.sleep(5)
            assert [len(worker.owned) for worker in play.workers] == [3, 3, 3]
            assert all(worker.owned <= before for worker, before in zip(play.workers[:2], held, strict=True))
            await play.leave(play.workers[0])
            await anyio.sleep(3)
            assert sorted(len(worker.owned) for worker in play.workers) == [4, 5]
            await play.end()

    simulate(main)


def test_what_a_killed_worker_had_is_taken_over_after_the_failover_time() -> None:
    async def main() -> None:
        play = FleetPlay(1, [stream_mapping()], faults=False, shards=4)
        async with anyio.create_task_group() as play.tasks:
            play.join()
            play.join()
            await anyio.sleep(12)
            play.kill(play.workers[0])
            await anyio.sleep(13)
            assert len(play.workers[0].owned) == 4
            await play.end()

    simulate(main)


def test_nothing_is_lost_whatever_happens_to_workers(seed: int) -> None:
    async def main() -> None:
        play = FleetPlay(seed, [stream_mapping(retries_max=2, bisect_on_error=True)])
        chance = Random(seed)
        async with anyio.create_task_group() as play.tasks:
            play.join()
            async with anyio.create_task_group() as writing:
                writing.start_soon(write_for, play, 200, 8)
                for _ in range(12):
                    await anyio.sleep(chance.random() * 30)
                    await _happen(play, chance)
            if not play.workers:
                play.join()
            await play.settle()
            play.check_order()
            play.check_positions()
            await play.end()

    simulate(main)


async def _happen(play: FleetPlay, chance: Random) -> None:
    what = chance.choice(["join", "leave", "kill", "freeze", "cut", "mend"])
    worker = chance.choice(play.workers) if play.workers else None
    match what:
        case "join" if len(play.workers) < 4:
            play.join()
        case "leave" if worker is not None:
            worker.line.thaw()
            worker.line.is_cut = False
            await play.leave(worker)
        case "kill" if worker is not None:
            play.kill(worker)
        case "freeze" if worker is not None:
            worker.line.freeze()
            await anyio.sleep(chance.random() * 25)
            worker.line.thaw()
        case "cut" if worker is not None:
            worker.line.is_cut = True
        case _:
            for one in play.workers:
                one.line.is_cut = False
