"""Workers that share the work keep the promises of the design's section 8."""

from __future__ import annotations

from random import Random

import anyio

from esm.model.arn import Arn
from esm.model.mapping import Mapping
from tests.simulation import promises
from tests.simulation.freezing import simulate
from tests.simulation.replicas import FAILOVER_S, FleetPlay, Worker
from tests.simulation.world import stream_mapping


def mapping(number: int, **more: object) -> Mapping:
    arn = Arn.parse(f"arn:aws:kinesis:us-east-1:000000000000:stream/s{number}")
    return stream_mapping(uuid=f"u{number}", source_arn=arn, **more)


def drawn(seed: int) -> list[Mapping]:
    """Several mappings, alike in nothing."""
    chance = Random(seed)
    return [
        mapping(
            number,
            batch_size=chance.choice([1, 3, 10, 100]),
            window_s=chance.choice([0, 0, 1, 5]),
            parallelization_factor=chance.choice([1, 1, 2, 5]),
            retries_max=chance.choice([0, 1, 3]),
            bisect_on_error=chance.choice([True, False]),
            tumbling_window_s=chance.choice([0, 0, 20]),
        )
        for number in range(chance.choice([1, 2, 3]))
    ]


def test_shards_are_spread_and_a_worker_that_joins_gets_its_part_at_once() -> None:
    async def main() -> None:
        play = FleetPlay(1, [mapping(1)], faults=False, shards=9)
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
        play = FleetPlay(1, [mapping(1)], faults=False, shards=4)
        async with anyio.create_task_group() as play.tasks:
            play.join()
            play.join()
            await anyio.sleep(12)
            play.kill(play.workers[0])
            await anyio.sleep(FAILOVER_S + 3)
            assert len(play.workers[0].owned) == 4
            await play.end()

    simulate(main)


def test_on_one_host_the_death_of_a_worker_is_seen_at_once() -> None:
    async def main() -> None:
        play = FleetPlay(1, [mapping(1)], faults=False, shards=4, has_locks=True)
        async with anyio.create_task_group() as play.tasks:
            play.join()
            play.join()
            await anyio.sleep(12)
            play.kill(play.workers[0])
            await anyio.sleep(3)
            assert len(play.workers[0].owned) == 4
            await play.end()

    simulate(main)


def test_a_shard_is_taken_over_as_soon_as_it_is_let_go_while_its_worker_still_drains_others() -> None:
    async def main() -> None:
        play = FleetPlay(1, [mapping(1)], faults=False, shards=3)
        async with anyio.create_task_group() as play.tasks:
            first = play.join()
            await anyio.sleep(5)
            stream = play.streams["u1"]
            stream.owners = {"a": "shard-0000", "b": "shard-0001"}
            play.slow_s = {("u1", "shard-0000"): 12, ("u1", "shard-0001"): 100}
            stream.write("a"), stream.write("b")
            await anyio.sleep(2)
            second = play.join()
            first.stop()
            play.workers.remove(first)
            await anyio.sleep(3)
            assert len(second.owned) == 1
            await anyio.sleep(10)
            assert not first.has_ended.is_set()
            assert len(second.owned) == 2, play.told()
            await first.has_ended.wait()
            await anyio.sleep(3)
            assert len(second.owned) == 3
            await play.end()
        assert not promises.taken_again(play, "u1")

    simulate(main)


def test_joins_and_leaves_deliver_nothing_again_and_lose_nothing() -> None:
    async def main() -> None:
        play = FleetPlay(2, [mapping(1, parallelization_factor=2), mapping(2)], faults=False)
        async with anyio.create_task_group() as play.tasks:
            play.join()
            async with anyio.create_task_group() as writing:
                writing.start_soon(play.write_for, 120, 8)
                for _ in range(6):
                    play.join()
                    await anyio.sleep(10)
                    await play.leave(play.workers[0])
                    await anyio.sleep(10)
            await play.settle()
            await play.check_quiet()
            await play.end()
        promises.check(play)
        assert not promises.taken_again(play, "u1") + promises.taken_again(play, "u2")

    simulate(main)


def test_nothing_is_lost_whatever_happens_to_workers(seed: int) -> None:
    async def main() -> None:
        chance = Random(seed)
        play = FleetPlay(
            seed, drawn(seed), shards=chance.choice([1, 3]), has_locks=chance.random() < 0.3,
            checkpoint_interval_s=chance.choice([0.0, 1.0]),
        )  # fmt: skip
        play.target._duration_s = chance.choice([0.2, 0.2, 15])
        async with anyio.create_task_group() as play.tasks:
            play.join()
            async with anyio.create_task_group() as writing:
                writing.start_soon(play.write_for, 150, 8)
                for _ in range(10):
                    await anyio.sleep(chance.random() * 20)
                    await _happen(play, chance)
            if not play.workers:
                play.join()
            await play.settle()
            await play.check_quiet()
            await play.end()
        promises.check(play)

    simulate(main, seed=seed)


async def _happen(play: FleetPlay, chance: Random) -> None:
    what = chance.choice(["join", "leave", "kill", "freeze", "cut", "slow", "jump", "mend"])
    worker = chance.choice(play.workers) if play.workers else None
    match what:
        case "join" if len(play.workers) < 4:
            play.join()
        case "leave" if worker is not None:
            await play.leave(worker)
        case "kill" if worker is not None:
            play.kill(worker)
        case "freeze" if worker is not None:
            assert play.tasks is not None
            play.tasks.start_soon(_freeze, worker, chance.random() * 30)
        case "cut" if worker is not None:
            worker.line.is_cut = True
        case "slow" if worker is not None:
            worker.line.slow_s = chance.choice([0.5, 1.5, 4])
        case "jump" if worker is not None:
            worker.clock.skew_s = chance.uniform(-600, 600)
        case _:
            for one in play.workers:
                one.line.is_cut, one.line.slow_s = False, 0.0


async def _freeze(worker: Worker, seconds: float) -> None:
    worker.process.freeze()
    await anyio.sleep(seconds)
    if not worker.has_died:
        worker.process.thaw()
