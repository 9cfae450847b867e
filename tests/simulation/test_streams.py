"""Streams keep the promises of the design's section 8 under any schedule, fault, crash and stop, with one worker."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from esm.model.clocks import Instant
from esm.model.lease import Lease
from esm.model.mapping import Mapping, StartingPosition
from esm.model.notice import Condition
from esm.model.position import AfterSequence
from esm.rules import stored
from esm.runtime.stream import StreamRunner
from esm.runtime.surroundings import Surroundings
from tests.simulation.world import (
    WALL_AT_START,
    FakeDestination,
    FakeStream,
    FakeTarget,
    World,
    hash_of,
    stream_mapping,
)


def simulate(main: Any, *arguments: Any) -> Any:
    clock = MockClock(autojump_threshold=0)
    return anyio.run(main, *arguments, backend="trio", backend_options={"clock": clock})


class Play:
    """One stream, one function, and a worker that is killed, stopped and started again."""

    def __init__(self, seed: int, mapping: Mapping, *, faults: bool = True, shards: int = 2) -> None:
        self.world = World(seed, faults=faults)
        self.mapping = mapping
        self.stream = FakeStream(self.world, shards)
        self.target = FakeTarget(self.world)
        self.runner: StreamRunner | None = None
        self.crashes = 0

    async def work(self, for_s: float = math.inf, *, graceful: bool = True) -> None:
        """Run a worker for some time; then stop it, or kill it."""
        world = self.world
        around = world.around()
        self.target.busy.clear()
        self.target.in_flight = 0
        runner = self.runner = self.new_runner(around)
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await runner.run()
                tasks.cancel_scope.cancel()

            tasks.start_soon(run)
            await anyio.sleep(for_s)
            if graceful:
                runner.stop.set(Instant(anyio.current_time() + 30))
            else:
                self.crashes += 1
                tasks.cancel_scope.cancel()
        assert around.budget.used_bytes == 0
        assert self.target.in_flight == 0

    def new_runner(self, around: Surroundings) -> StreamRunner:
        """What a worker runs."""
        observation = self.world.observation(self.mapping, around)
        destination = FakeDestination(self.world) if self.mapping.on_failure else None
        return StreamRunner(around, self.mapping, self.stream, self.target, destination, observation)

    def settled(self) -> set[int]:
        """Ids that were taken, or stand in a notice."""
        spans: set[int] = set()
        for notice in self.world.notices:
            first, last = int(notice.span.first_sequence), int(notice.span.last_sequence)
            spans |= {one.id for one in self._of_shard(notice.shard) if first <= one.sequence <= last}
        return self.world.taken() | spans

    async def until_settled(self, timeout_s: float = 4000) -> None:
        """Let a worker without faults finish everything."""
        self.world.faults = False
        self.runner = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.work)
            with anyio.move_on_after(timeout_s):
                await anyio.sleep(1)
                while len(self.settled()) < len(self.stream.written) or self.lag():  # noqa: ASYNC110 - virtual
                    await anyio.sleep(5)
            missing = {one.id for one in self.stream.written} - self.settled()
            assert not missing, f"lost: {sorted(missing)}"
            assert self.lag() == 0, "the lag has not returned to zero"
            assert self.runner is not None
            began_at = anyio.current_time()
            self.runner.stop.set(Instant(began_at + 30))

    def lag(self) -> float:
        shards = self.runner._views() if self.runner else ()
        return max((shard.lag_s or 0.0 for shard in shards), default=0.0)

    def _of_shard(self, shard: str) -> list[Any]:
        return self.stream.shards_by_id[shard].records

    def check_order(self) -> None:
        """Per key, records are first delivered in order."""
        seen: dict[str, list[int]] = defaultdict(list)
        for one in self.world.invocations:
            for identity, key in zip(one.ids, one.keys, strict=True):
                if identity not in seen[key]:
                    seen[key].append(identity)
        for key, ids in seen.items():
            assert ids == sorted(ids), f"key {key} was delivered as {ids}"

    def check_positions(self) -> None:
        """Stored positions never go back, and generations only grow."""
        for key, values in self.world.store.history.items():
            if key.kind != "lease" or key.item.startswith("!"):
                continue
            leases = [stored.decode_lease(value) for value in values]
            for before, after in pairwise(leases):
                assert after.generation >= before.generation
                if before.factor == after.factor:
                    for old, new in zip(before.positions, after.positions, strict=True):
                        assert _place(new) >= _place(old), f"{key}: {old} -> {new}"


def _place(position: object) -> int:
    return int(position.sequence) if isinstance(position, AfterSequence) else -1


async def write_for(play: Play, seconds: float, keys: int, *, reshards: bool = True) -> None:
    chance = Random(play.world.random.random())
    until = anyio.current_time() + seconds
    while anyio.current_time() < until:
        await anyio.sleep(chance.random() * 0.5)
        written = play.stream.write(f"k{chance.randrange(keys)}")
        if chance.random() < 0.02:
            play.world.poison.add(written.id)
        if reshards and chance.random() < 0.02:
            chance.choice([play.stream.split, play.stream.merge])()


def drawn(seed: int) -> Mapping:
    chance = Random(seed)
    return stream_mapping(
        batch_size=chance.choice([1, 3, 10, 100]),
        window_s=chance.choice([0, 0, 1, 5]),
        parallelization_factor=chance.choice([1, 1, 2, 5]),
        retries_max=chance.choice([0, 1, 3]),
        bisect_on_error=chance.choice([True, False]),
        on_failure=stream_mapping().on_failure,
    )


def test_nothing_is_lost_reordered_or_stuck(seed: int) -> None:
    play = Play(seed, drawn(seed))

    async def main() -> None:
        async with anyio.create_task_group() as writing:
            writing.start_soon(write_for, play, 120, 8)
            for _ in range(play.world.random.randint(1, 4)):
                lasts = play.world.random.random() * 60
                await play.work(lasts, graceful=play.world.random.random() < 0.5)
        await play.until_settled()

    simulate(main)
    play.check_order()
    play.check_positions()


def test_changes_of_the_factor_lose_and_reorder_nothing(seed: int) -> None:
    play = Play(seed, drawn(seed))
    chance = Random(seed)

    async def change() -> None:
        while True:
            await anyio.sleep(chance.random() * 30)
            play.mapping = replace(play.mapping, parallelization_factor=chance.randint(1, 6))
            if play.runner is not None:
                assert play.runner.update(play.mapping)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(change)
            async with anyio.create_task_group() as writing:
                writing.start_soon(write_for, play, 120, 8)
                for _ in range(3):
                    await play.work(chance.random() * 60, graceful=chance.random() < 0.5)
            tasks.cancel_scope.cancel()
        await play.until_settled()

    simulate(main)
    play.check_order()
    play.check_positions()


def test_after_a_crash_only_what_was_open_is_delivered_again() -> None:
    play = Play(1, stream_mapping(batch_size=5), faults=False, shards=1)

    async def main() -> None:
        for number in range(200):
            play.stream.write(f"k{number % 3}")
        for _ in range(3):
            await play.work(2.3, graceful=False)
        await play.until_settled()

    simulate(main)
    again = sum(len(one.succeeded) for one in play.world.invocations) - len(play.world.taken())
    assert again <= play.crashes * 5


def test_a_graceful_stop_delivers_nothing_again() -> None:
    play = Play(2, stream_mapping(batch_size=5, parallelization_factor=3), faults=False)

    async def main() -> None:
        for number in range(300):
            play.stream.write(f"k{number % 9}")
        for _ in range(5):
            await play.work(1.7)
        await play.until_settled()

    simulate(main)
    assert sum(len(one.succeeded) for one in play.world.invocations) == 300


def test_a_blocked_key_holds_up_no_other_lane_and_no_other_shard() -> None:
    play = Play(3, stream_mapping(batch_size=5, parallelization_factor=4), faults=False)

    async def main() -> None:
        play.world.poison.add(play.stream.write("k0").id)
        for number in range(2000):
            play.stream.write(f"k{number % 16}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(900)
            blocked = {one.id for one in play.stream.written} - play.world.taken()
            keys = {play.stream.written[identity].key for identity in blocked}
            assert len(blocked) < 1000
            assert {"k0"} <= keys < {f"k{number}" for number in range(16)}
            lane = {key for key in keys if play.stream.owners[key] == play.stream.owners["k0"]}
            assert lane == keys, "another shard was held up"
            assert play.runner is not None
            (shard,) = [view for view in play.runner._views() if view.blocked_s > 0]
            assert shard.blocked_s > 800
            assert (shard.lag_s or 0) > 800
            play.world.poison.clear()
            await anyio.sleep(400)
            assert len(play.world.taken()) == len(play.stream.written)
            play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    play.check_order()


def test_a_long_back_off_gives_its_bytes_back_and_reads_again() -> None:
    play = Play(4, stream_mapping(batch_size=10), faults=False, shards=1)

    async def main() -> None:
        play.world.poison.add(0)
        for _ in range(50):
            play.stream.write("k")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(200)
            assert play.world.budget.used_bytes == 0
            play.world.poison.clear()
            await anyio.sleep(120)
            assert play.runner is not None
            play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    assert sorted(play.world.taken()) == list(range(50))
    assert next(one.ids for one in play.world.invocations if one.succeeded) == list(range(10))


def test_records_that_are_too_old_are_given_up_and_the_rest_goes_on() -> None:
    play = Play(5, stream_mapping(batch_size=6, record_age_max_s=60), faults=False, shards=1)

    async def main() -> None:
        play.world.poison.add(play.stream.write("k").id)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(70)
            for _ in range(5):
                play.stream.write("k")
            await anyio.sleep(30)
            assert play.runner is not None
            play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    (notice,) = play.world.notices
    assert (notice.condition, notice.span.count, notice.ran) == (Condition.AGE, 1, None)
    assert notice.invoke_count == 8
    assert sorted(play.world.taken()) == [1, 2, 3, 4, 5]


def test_latest_skips_what_was_there_and_nothing_later() -> None:
    play = Play(6, stream_mapping(starting_position=StartingPosition.LATEST), faults=False)

    async def main() -> None:
        for number in range(10):
            play.stream.write(f"k{number}")
        play.stream.split()
        await anyio.sleep(1)
        await play.work(0.5, graceful=False)
        before = len(play.stream.written)
        play.stream.split()
        for number in range(30):
            play.stream.write(f"k{number % 10}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(120)
            assert play.world.taken() == set(range(before, before + 30))
            assert play.runner is not None
            play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)


def test_a_changed_factor_is_taken_over_while_running_and_across_restarts() -> None:
    play = Play(7, stream_mapping(batch_size=3, parallelization_factor=3), faults=False)

    async def main() -> None:
        async with anyio.create_task_group() as writing:
            writing.start_soon(write_for, play, 200, 12)
            await play.work(20)
            play.mapping = replace(play.mapping, parallelization_factor=5)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(play.work)
                await anyio.sleep(60)
                assert play.runner is not None
                assert play.runner.update(replace(play.mapping, parallelization_factor=1))
                await anyio.sleep(90)
                play.runner.stop.set(Instant(anyio.current_time() + 30))
            play.mapping = replace(play.mapping, parallelization_factor=1)
        play.world.poison.clear()
        await play.until_settled()

    simulate(main)
    play.check_order()
    leases = [stored.decode_lease(values[-1]) for key, values in play.world.store.history.items() if key.item[0] != "!"]
    assert {len(lease.positions) for lease in leases if not lease.is_finished} == {1}


def test_lanes_at_different_places_are_changed_between_two_batches_and_nothing_is_delivered_again() -> None:
    play = Play(7, stream_mapping(batch_size=1, parallelization_factor=2), faults=False, shards=1)
    hot = next(key for key in map(str, range(9)) if hash_of(key) % 2 == 0)
    others = [key for key in map(str, range(9)) if hash_of(key) % 2 == 1]
    invoke = play.target.invoke

    async def slow(invocation: Any) -> Any:
        if json.loads(invocation.payload)["Records"][0]["key"] == hot:
            await anyio.sleep(2)
        return await invoke(invocation)

    play.target.invoke = slow  # type: ignore[method-assign]

    async def write() -> None:
        while True:
            await anyio.sleep(0.5)
            for key in (hot, *others):
                play.stream.write(key)

    def lease() -> Lease:
        key = next(key for key in play.world.store.history if key.kind == "lease" and not key.item.startswith("!"))
        return stored.decode_lease(play.world.store.history[key][-1])

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            tasks.start_soon(play.work)
            for factor in (5, 1, 3):
                await anyio.sleep(60)
                assert play.runner is not None
                assert play.runner.update(replace(play.mapping, parallelization_factor=factor))
                await anyio.sleep(10)
                assert lease().factor == factor
                assert lease().done, "the lanes were at one place"
            play.runner.stop.set(Instant(anyio.current_time() + 30))
            tasks.cancel_scope.cancel()
        play.mapping = replace(play.mapping, parallelization_factor=3)
        play.target.invoke = invoke  # type: ignore[method-assign]
        await play.until_settled()

    simulate(main)
    play.check_order()
    play.check_positions()
    taken = [identity for one in play.world.invocations for identity in one.succeeded]
    assert len(taken) == len(set(taken))
    assert lease().done == ()


def test_a_trimmed_position_goes_on_at_the_oldest_record() -> None:
    play = Play(8, stream_mapping(), faults=False, shards=1)

    async def main() -> None:
        for _ in range(10):
            play.stream.write("k")
        await play.work(5)
        for _ in range(10):
            play.stream.write("k")
        await anyio.sleep(90_000)  # noqa: ASYNC116 - virtual
        play.stream.trimmed_before = WALL_AT_START + anyio.current_time() - 10
        for _ in range(5):
            play.stream.write("k")
        await play.work(30)

    simulate(main)
    assert play.world.taken() == set(range(10)) | set(range(20, 25))


def test_a_stream_that_is_missing_for_a_while_is_a_problem_for_a_while() -> None:
    play = Play(9, stream_mapping(), faults=False)

    async def main() -> None:
        play.stream.is_missing = True
        play.stream.write("k")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(30)
            assert play.runner is not None
            assert play.runner._observation.view().last_result == "PROBLEM: Stream not found"
            play.stream.is_missing = False
            await anyio.sleep(120)
            assert not play.runner._observation.view().has_problem
            play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    assert play.world.taken() == {0}


@pytest.mark.parametrize("window_s", [0, 20])
def test_a_stop_offers_an_open_window_at_once_and_ends_within_its_grace(window_s: int) -> None:
    play = Play(10, stream_mapping(batch_size=100, window_s=window_s), faults=False, shards=1)

    async def main() -> None:
        for _ in range(5):
            play.stream.write("k")
        await play.work(3)
        assert anyio.current_time() < 5

    simulate(main)
    assert play.world.taken() == set(range(5))


def test_without_a_destination_what_is_given_up_is_counted_as_dropped() -> None:
    play = Play(11, stream_mapping(on_failure=None, retries_max=0, batch_size=1), faults=False, shards=1)
    play.world.poison.add(0)

    async def main() -> None:
        play.stream.write("k")
        play.stream.write("k")
        await play.work(10)

    simulate(main)
    assert play.world.taken() == {1}
