"""Workers that share the work keep the promises of the design's section 8."""

from __future__ import annotations

from functools import partial
from random import Random

import anyio
import anyio.lowlevel

from esm.model.arn import Arn
from esm.model.clocks import Instant
from esm.model.mapping import Mapping
from esm.model.position import TrimHorizon
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


def test_a_worker_that_joins_leaves_nothing_to_one_that_has_died_long_ago() -> None:
    async def main() -> None:
        play = FleetPlay(1, [mapping(1)], faults=False, shards=9)
        async with anyio.create_task_group() as play.tasks:
            play.join(), play.join()
            await anyio.sleep(12)
            play.kill(play.workers[1])
            await anyio.sleep(30)
            play.join()
            await anyio.sleep(5)
            assert sorted(len(worker.owned) for worker in play.workers) == [4, 5], play.told()
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


def test_a_frozen_worker_stores_nothing_and_starts_nothing_after_its_trust_has_ended() -> None:
    async def main() -> None:
        play = FleetPlay(3, [mapping(1, batch_size=1)], faults=False)
        play.target._duration_s = 8
        async with anyio.create_task_group() as play.tasks:
            frozen = play.join()
            other = play.join()
            await anyio.sleep(15)
            play.tasks.start_soon(partial(play.write_for, 120, 12, reshards=False))
            for _ in range(3):
                await anyio.sleep(10)
                frozen.process.freeze()
                since = anyio.current_time()
                await anyio.sleep(25)
                assert len(other.owned) == 4
                term, stored = frozen.fleet.term, len(play.world.store.history)
                frozen.process.thaw()
                await anyio.lowlevel.checkpoint()
                late = [call for call in play.calls if call.worker is frozen and call.started_at > since]
                assert not late
                assert len(play.world.store.history) == stored
                await anyio.sleep(5)
                assert frozen.fleet.term == term + 1
            await play.settle()
            await play.check_quiet()
            assert sorted(len(worker.owned) for worker in play.workers) == [2, 2]
            await play.end()
        promises.check(play)

    simulate(main)


def test_a_worker_without_the_store_ends_what_it_had_begun_and_begins_nothing_until_it_is_back() -> None:
    async def main() -> None:
        play = FleetPlay(4, [mapping(1, batch_size=2)], faults=False)
        async with anyio.create_task_group() as play.tasks:
            cut, other = play.join(), play.join()
            await anyio.sleep(15)
            play.tasks.start_soon(partial(play.write_for, 100, 12, reshards=False))
            await anyio.sleep(10)
            cut.line.is_cut = True
            since = anyio.current_time()
            await anyio.sleep(FAILOVER_S + 4)
            assert len(other.owned) == 4
            await anyio.sleep(30)
            starts = [call.started_at for call in play.calls if call.worker is cut]
            assert since < max(starts) < since + FAILOVER_S - 1
            cut.line.is_cut = False
            await anyio.sleep(10)
            assert len(cut.owned) == 2
            await play.settle()
            await play.check_quiet()
            await play.end()
        promises.check(play)

    simulate(main)


def test_a_store_that_is_away_for_all_takes_no_shard_from_anybody() -> None:
    async def main() -> None:
        play = FleetPlay(5, [mapping(1)], faults=False)
        async with anyio.create_task_group() as play.tasks:
            play.join(), play.join()
            await anyio.sleep(15)
            owners, claims = play.owners(), play.claims()
            for seconds in (3, 5):
                for worker in play.workers:
                    worker.line.is_cut = True
                await anyio.sleep(seconds)
                for worker in play.workers:
                    worker.line.is_cut = False
                await anyio.sleep(20)
                assert play.owners() == owners
                assert play.claims() == claims
            await play.end()

    simulate(main)


def test_in_a_rollout_a_mapping_that_only_new_workers_know_is_theirs_and_no_shard_is_without_an_owner() -> None:
    old, new = [mapping(1), mapping(2)], [mapping(1), mapping(2), mapping(3)]

    async def main() -> None:
        play = FleetPlay(6, new, faults=False, shards=[4, 2, 6])
        async with anyio.create_task_group() as play.tasks:
            play.join(old), play.join(old)
            play.tasks.start_soon(partial(play.write_for, 150, 8, reshards=False))
            await anyio.sleep(15)
            play.join(new)
            await anyio.sleep(10)
            assert play.open_shards() <= play.owners().keys()
            assert {name for (uuid, _), names in play.owners().items() for name in names if uuid == "u3"} == {"w3"}
            await play.check_quiet()
            await play.leave(play.workers[0])
            play.join(new)
            await play.check_quiet()
            await play.leave(play.workers[0])
            await play.settle()
            await play.check_quiet()
            await play.end()
        promises.check(play)
        assert not any(promises.taken_again(play, uuid) for uuid in play.streams)

    simulate(main)


def test_a_mapping_that_one_file_has_switched_off_goes_on_where_another_file_has_it_on() -> None:
    async def main() -> None:
        play = FleetPlay(7, [mapping(1), mapping(2)], faults=False)
        async with anyio.create_task_group() as play.tasks:
            first, second = play.join(), play.join()
            play.tasks.start_soon(partial(play.write_for, 60, 8))
            await anyio.sleep(15)
            first.runners["u1"].stop.set(Instant(float("inf")))
            await anyio.sleep(4)
            assert {shard for uuid, shard in second.owned if uuid == "u1"} >= set(play.streams["u1"]._open())
            await play.settle()
            await play.check_quiet(lambda worker: ["u2"] if worker is first else ["u1", "u2"])
            await play.leave(second)
            await anyio.sleep(5)
            assert {uuid for uuid, _ in first.owned} == {"u2"}
            play.join()
            await anyio.sleep(5)
            assert {shard for uuid, shard in play.workers[-1].owned if uuid == "u1"} >= set(play.streams["u1"]._open())
            await play.end()
        promises.check(play)
        assert not any(promises.taken_again(play, uuid) for uuid in play.streams)

    simulate(main)


def test_a_running_fleet_is_sent_back_across_finished_parents() -> None:
    async def main() -> None:
        play = FleetPlay(8, [mapping(1, batch_size=5)], faults=False, shards=2)
        stream = play.streams["u1"]
        async with anyio.create_task_group() as play.tasks:
            for _ in range(3):
                play.join()
            await anyio.sleep(15)
            for number in range(90):
                if number % 30 == 29:
                    stream.split()
                stream.write(f"k{number % 9}")
                await anyio.sleep(0.2)
            await play.settle()
            await play.rewind("u1", TrimHorizon())
            since = anyio.current_time()
            async with anyio.create_task_group() as writing:
                writing.start_soon(play.write_for, 40, 9)
                await anyio.sleep(5)
                play.kill(play.workers[0])
                await anyio.sleep(15)
                play.join()
            await play.settle()
            await play.check_quiet()
            again = {one for call in play.calls if call.started_at > since for one in call.succeeded}
            assert again >= set(range(90))
            assert {lease.obeyed for found in promises.leases(play).values() for lease in found[-1:]} == {1}
            await play.end()
        promises.check(play)

    simulate(main)


def test_a_worker_that_may_not_list_leaves_it_to_another_and_all_know_the_shards() -> None:
    async def main() -> None:
        play = FleetPlay(9, [mapping(1)], faults=False, shards=2)
        async with anyio.create_task_group() as play.tasks:
            play.join(), play.join(), play.join()
            await play.check_quiet()
            lister = next(worker for worker in play.workers if worker.fleet.lists("u1"))
            lister.streams["u1"].is_forbidden = True
            await anyio.sleep(70)
            assert not lister.fleet.lists("u1")
            play.streams["u1"].split()
            await anyio.sleep(40)
            assert play.open_shards() <= play.owners().keys()
            lister.streams["u1"].is_forbidden = False
            await anyio.sleep(400)
            await play.check_quiet()
            assert lister.fleet.lists("u1")
            await play.end()

    simulate(main)


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
