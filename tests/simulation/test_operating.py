"""Rewinds and skips under faults, crashes, splits, lanes and windows: carried out once, and nothing else moves."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import anyio
import pytest

from esm.catalogue import Catalogue
from esm.model.clocks import Instant, UnixTime
from esm.model.control import Caller, Order, Rewind, Skip
from esm.model.lease import Lease
from esm.model.mapping import Mapping, StartingPosition
from esm.model.notice import Condition
from esm.model.position import AfterSequence, AtSequence, AtTimestamp, TrimHorizon
from esm.model.stored import Key
from esm.rules import stored
from esm.runtime.orders import OrderBook
from esm.runtime.stream import StreamRunner
from esm.runtime.surroundings import Surroundings
from tests.simulation.test_streams import Play, simulate, write_for
from tests.simulation.test_windows import Aggregating, WindowPlay
from tests.simulation.world import WALL_AT_START, FakeDestination, stream_mapping

BY = Caller("host", "user")
STREAM = "stream@1"


class Operated(Play):
    """A play with an operator, whose wishes the worker sees within a second."""

    def __init__(self, seed: int, mapping: Mapping, *, faults: bool = True, shards: int = 2) -> None:
        super().__init__(seed, mapping, faults=faults, shards=shards)
        self.catalogue = Catalogue(self.world.store.inner)
        self.book = OrderBook()
        self.asked = 0

    def new_runner(self, around: Surroundings) -> StreamRunner:
        observation = self.world.observation(self.mapping, around)
        self.telemetry = around.telemetry
        destination = FakeDestination(self.world) if self.mapping.on_failure else None
        orders = self.book.of("u")
        return StreamRunner(around, self.mapping, self.stream, self.target, destination, observation, orders)

    async def work(self, *arguments: Any, **more: Any) -> None:
        """What the daemon does once a second, beside the worker."""
        async with anyio.create_task_group() as tasks:
            self.book.follow(await self.catalogue.controls())
            tasks.start_soon(self._follow)
            await super().work(*arguments, **more)
            tasks.cancel_scope.cancel()

    async def _follow(self) -> None:
        while True:
            await anyio.sleep(1)
            self.book.follow(await self.catalogue.controls())

    async def rewind(self, to: Any, shard: str | None = None, *, is_latest: bool = False) -> Order:
        order = Rewind(self._id(), 0, self.world.clock.wall(), BY, STREAM, to, shard, is_latest)
        return await self.catalogue.order("u", order)

    async def skip(self, shard: str, sequence: int) -> Order:
        order = Skip(self._id(), 0, self.world.clock.wall(), BY, STREAM, shard, str(sequence))
        return await self.catalogue.order("u", order)

    def _id(self) -> str:
        self.asked += 1
        return f"order-{self.asked}"

    def history(self) -> dict[str, list[Lease]]:
        """Leases of each shard, as they were stored one after the other."""
        found = self.world.store.history.items()
        return {
            key.item: [stored.decode_lease(value) for value in values]
            for key, values in found
            if key.kind == "lease" and key.item[0] != "!"
        }

    def times(self, identity: int) -> int:
        """How often a record was taken."""
        return sum(identity in one.succeeded for one in self.world.invocations)

    def check_positions(self) -> None:
        """Positions go back only in the write that says which order it follows, and no order is followed twice."""
        for shard, leases in self.history().items():
            for before, after in pairwise(leases):
                assert after.generation >= before.generation
                assert after.obeyed >= before.obeyed
                if (before.obeyed, before.factor) == (after.obeyed, after.factor):
                    for old, new in zip(before.positions, after.positions, strict=True):
                        assert place(new) >= place(old), f"{shard}: {old} -> {new}"

    def check_again(self, since: float, ids: set[int]) -> None:
        """Since an order was given, these records were delivered again, per key in order."""
        seen: dict[str, list[int]] = defaultdict(list)
        first = {key: min(i for i in ids if self.stream.written[i].key == key) for key in self._keys(ids)}
        for one in self.world.invocations:
            for identity, key in zip(one.ids, one.keys, strict=True):
                if one.started_at < since or identity in seen[key]:
                    continue
                if identity == first.get(key):
                    seen[key].clear()
                seen[key].append(identity)
        delivered = {identity for found in seen.values() for identity in found}
        assert ids <= delivered, f"not delivered again: {sorted(ids - delivered)}"
        for key in first:
            assert seen[key] == sorted(seen[key]), f"key {key} was delivered again as {seen[key]}"

    def _keys(self, ids: set[int]) -> set[str]:
        return {self.stream.written[identity].key for identity in ids}


def place(position: object) -> float:
    match position:
        case AfterSequence(sequence, _):
            return int(sequence)
        case AtSequence(sequence):
            return int(sequence) - 0.5
        case _:
            return -1


def stop(play: Play) -> None:
    assert play.runner is not None
    play.runner.stop.set(Instant(anyio.current_time() + 30))


def test_what_is_rewound_is_delivered_again_in_order_whatever_happens_meanwhile(seed: int) -> None:
    chance = Random(seed)
    mapping = stream_mapping(
        batch_size=chance.choice([1, 3, 10]), parallelization_factor=chance.choice([1, 2, 4]),
        retries_max=chance.choice([1, 3]), bisect_on_error=True,
    )  # fmt: skip
    play = Operated(seed, mapping)
    asked: list[tuple[float, set[int]]] = []

    async def ask() -> None:
        await anyio.sleep(chance.random() * 100)
        for _ in range(chance.choice([1, 1, 2])):
            if (await play.catalogue.held("u")).start is None:
                continue
            at = chance.choice([0.0, anyio.current_time() * chance.random()])
            wall = UnixTime(WALL_AT_START + at)
            ids = {one.id for one in play.stream.written if one.arrived_at >= wall}
            asked.append((anyio.current_time(), ids))
            await play.rewind(AtTimestamp(wall) if at else TrimHorizon())
            await anyio.sleep(chance.random() * 3)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_for, play, 120, 8)
            tasks.start_soon(ask)
            for _ in range(play.world.random.randint(1, 5)):
                lasts = play.world.random.random() * 40
                await play.work(lasts, graceful=play.world.random.random() < 0.5)
        play.world.faults = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(600)
            stop(play)
        await play.until_settled()

    simulate(main)
    play.check_positions()
    for since, ids in asked[-1:]:
        play.check_again(since, ids)
    for leases in play.history().values():
        assert leases[-1].obeyed == len(asked)


@pytest.mark.parametrize("factor", [1, 4])
def test_a_request_is_carried_out_once_also_across_restarts_and_finished_parents(factor: int) -> None:
    play = Operated(1, stream_mapping(batch_size=5, parallelization_factor=factor), faults=False)

    async def main() -> None:
        for generation in range(3):
            for number in range(60):
                play.stream.write(f"k{number % 9}")
            if generation < 2:
                play.stream.split()
                play.stream.merge()
        await play.work(200)
        assert len(play.world.taken()) == 180
        since = anyio.current_time()
        await play.rewind(TrimHorizon())
        for lasts in (0.4, 2, 0.7, 3, 200):
            await play.work(lasts)
        await play.work(60)
        play.check_again(since, set(range(180)))

    simulate(main)
    play.check_positions()
    assert {play.times(identity) for identity in range(180)} == {2}


def test_two_requests_are_two_and_both_are_carried_out_while_no_worker_ran() -> None:
    play = Operated(2, stream_mapping(batch_size=5), faults=False, shards=1)

    async def main() -> None:
        for number in range(20):
            play.stream.write(f"k{number % 3}")
        await play.work(30)
        await play.rewind(AtSequence("11"), "shard-0000")
        await play.rewind(AtSequence("16"), "shard-0000")
        await play.work(30)
        assert [play.times(identity) for identity in (9, 10, 15, 19)] == [1, 2, 2, 2]
        await play.rewind(AtSequence("16"), "shard-0000")
        await play.work(30)

    simulate(main)
    play.check_positions()
    assert [play.times(identity) for identity in (9, 10, 14, 15, 19)] == [1, 2, 2, 3, 3]
    assert play.history()["shard-0000"][-1].obeyed == 3


def test_a_rewound_shard_moves_no_other_shard_and_holds_up_its_children_alone() -> None:
    play = Operated(3, stream_mapping(batch_size=5), faults=False)

    async def main() -> None:
        for number in range(40):
            play.stream.write(f"k{number % 8}")
        parent = play.stream.shards_by_id["shard-0000"]
        play.stream._close("shard-0000", [play.stream._add(("shard-0000",))])
        for number in range(40):
            play.stream.write(f"k{number % 8}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(100)
            assert len(play.world.taken()) == 80
            since = anyio.current_time()
            await play.rewind(AtSequence(str(parent.records[0].sequence)), "shard-0000")
            await anyio.sleep(100)
            for number in range(40):
                play.stream.write(f"k{number % 8}")
            await anyio.sleep(100)
            play.check_again(since, {one.id for one in parent.records})
            stop(play)
        again = {identity for identity in range(80) if play.times(identity) == 2}
        assert again == {one.id for one in parent.records}
        assert len(play.world.taken()) == 120

    simulate(main)
    play.check_positions()


def test_latest_goes_on_with_what_comes_after_the_request() -> None:
    play = Operated(4, stream_mapping(batch_size=1, parallelization_factor=4, retries_max=None), faults=False)

    async def main() -> None:
        play.world.poison.update(range(8))
        for number in range(200):
            play.stream.write(f"k{number % 8}")
        await anyio.sleep(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(20)
            assert play.world.taken() == set()
            await play.rewind(AtTimestamp(play.world.clock.wall()), is_latest=True)
            await anyio.sleep(60)
            for number in range(16):
                play.stream.write(f"k{number % 8}")
            await anyio.sleep(60)
            stop(play)

    simulate(main)
    assert play.world.taken() == set(range(200, 216))


def test_a_mapping_that_began_at_latest_can_be_sent_before_its_beginning() -> None:
    play = Operated(5, stream_mapping(starting_position=StartingPosition.LATEST), faults=False)

    async def main() -> None:
        for number in range(10):
            play.stream.write(f"k{number}")
        play.stream.split()
        await anyio.sleep(1)
        await play.work(20)
        assert play.world.taken() == set()
        await play.rewind(TrimHorizon())
        await play.work(60)

    simulate(main)
    assert play.world.taken() == set(range(10))


@pytest.mark.parametrize("factor", [1, 4])
def test_a_skip_lets_a_blocked_shard_go_on_and_leaves_one_notice(factor: int) -> None:
    mapping = stream_mapping(batch_size=2, retries_max=None, parallelization_factor=factor)
    play = Operated(6, mapping, faults=False, shards=1)

    async def main() -> None:
        play.world.poison.add(10)
        for number in range(40):
            play.stream.write(f"k{number % 8}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(60)
            blocked = set(range(11)) - play.world.taken()
            order = await play.skip("shard-0000", 11)
            await anyio.sleep(60)
            (notice,) = play.world.notices
            assert notice.condition is Condition.SKIPPED
            assert (notice.request_id, notice.id, notice.invoke_count) == (order.id, order.id, 0)
            assert (notice.span.first_sequence, notice.span.last_sequence) == (str(min(blocked) + 1), "11")
            assert notice.span.count == len(blocked)
            assert play.world.taken() == set(range(40)) - blocked
            stop(play)

    simulate(main)
    play.check_positions()
    play.check_order()


def test_a_skip_under_faults_loses_nothing_and_moves_after_its_notice(seed: int) -> None:
    play = Operated(seed, stream_mapping(batch_size=3, retries_max=None, parallelization_factor=2), shards=1)
    sure: list[bool] = []

    async def main() -> None:
        for number in range(60):
            play.stream.write(f"k{number % 6}")
        play.world.poison.add(20)
        await play.work(30, graceful=False)
        if (await play.catalogue.held("u")).leases:
            order = await play.skip("shard-0000", 21)
            for _ in range(4):
                await play.work(play.world.random.random() * 20, graceful=play.world.random.random() < 0.5)
                (lease,) = (await play.catalogue.held("u")).leases
                has_notice = any(notice.id == order.id for notice in play.world.notices)
                sure.append(has_notice or not lease.obeyed or 20 in play.world.taken())
        else:
            play.world.poison.clear()
        await play.until_settled()

    simulate(main)
    assert all(sure)
    play.check_positions()
    assert {notice.span.last_sequence for notice in play.world.notices} <= {"21", "20", "19", "18", "17"}


def test_a_skip_to_a_record_that_does_not_exist_moves_nothing_and_is_over() -> None:
    play = Operated(7, stream_mapping(batch_size=2, retries_max=None), faults=False, shards=1)

    async def main() -> None:
        play.world.poison.add(4)
        for _ in range(10):
            play.stream.write("k")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(60)
            await play.skip("shard-0000", 900)
            await anyio.sleep(120)
            assert play.world.taken() < set(range(5))
            assert play.world.notices == []
            assert play.history()["shard-0000"][-1].obeyed == 1
            play.world.poison.clear()
            await anyio.sleep(600)
            stop(play)

    simulate(main)
    assert play.world.taken() == set(range(10))


def test_without_a_destination_what_is_skipped_is_counted() -> None:
    play = Operated(8, stream_mapping(batch_size=1, retries_max=None, on_failure=None), faults=False, shards=1)

    async def main() -> None:
        play.world.poison.add(1)
        for _ in range(5):
            play.stream.write("k")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(30)
            await play.skip("shard-0000", 3)
            await anyio.sleep(30)
            labels = {"mapping": "u", "reason": "skipped"}
            samples = [
                sample.value
                for metric in play.telemetry.registry.collect()
                for sample in metric.samples
                if sample.name == "esm_dropped_events_total" and labels.items() <= sample.labels.items()
            ]
            assert samples == [2]
            stop(play)

    simulate(main)
    assert play.world.taken() == {0, 3, 4}


class OperatedWindows(Operated, WindowPlay):
    """Both at once."""

    def __init__(self, seed: int, mapping: Mapping, *, faults: bool = True, shards: int = 2) -> None:
        super().__init__(seed, mapping, faults=faults, shards=shards)
        self.target = Aggregating(self.world, self.stream)


def test_a_rewind_drops_the_open_window_and_aggregates_again(seed: int) -> None:
    play = OperatedWindows(seed, stream_mapping(tumbling_window_s=10, batch_size=5, retries_max=None))
    moment: list[float] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_quietly, play, 40)
            await play.work(30, graceful=play.world.random.random() < 0.5)
            if (await play.catalogue.held("u")).start is not None:
                moment.append(anyio.current_time())
                await play.rewind(TrimHorizon())
            await play.work(play.world.random.random() * 20, graceful=False)
        play.world.faults = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(2000)
            stop(play)

    simulate(main)
    play.check_positions()
    assert play.open_windows() == 0
    finals = [final for final in play.target.finals if final.has_succeeded and final.at >= (moment or [0])[0]]
    assert {identity for final in finals for identity in final.ids} == {one.id for one in play.stream.written}
    assert [item for item in play.states() if item.key.item.split("!")[0] not in play.finished()] == []


async def write_quietly(play: Play, seconds: float) -> None:
    until = anyio.current_time() + seconds
    while anyio.current_time() < until:
        await anyio.sleep(play.world.random.random())
        play.stream.write(f"k{play.world.random.randrange(4)}")


def test_an_order_for_another_stream_of_the_name_is_left_alone() -> None:
    play = Operated(9, stream_mapping(), faults=False)

    async def main() -> None:
        play.stream.write("k")
        await play.work(10)
        order = Rewind("o", 0, play.world.clock.wall(), BY, "stream@0", TrimHorizon())
        await play.catalogue.order("u", order)
        await play.work(10)

    simulate(main)
    assert play.times(0) == 1


def test_orders_that_a_forgotten_mapping_had_are_gone() -> None:
    play = Operated(10, stream_mapping(), faults=False, shards=1)

    async def main() -> None:
        play.stream.write("k")
        await play.work(10)
        await play.rewind(TrimHorizon())
        await play.catalogue.pause("u", UnixTime(1.0), BY)
        assert await play.catalogue.forget("u", ["w"]) > 2
        assert await play.catalogue.controls() == []
        assert set((await play.catalogue.stands("u", ["w"])).values()) == {0}
        assert await play.world.store.inner.get(Key("lease", "u", "shard-0000")) is None
        await play.work(10)

    simulate(main)
    assert play.times(0) == 2


def test_a_changed_factor_after_a_rewind_keeps_what_was_sent_back() -> None:
    play = Operated(11, stream_mapping(batch_size=3, parallelization_factor=4), faults=False)

    async def main() -> None:
        for number in range(60):
            play.stream.write(f"k{number % 8}")
        await play.work(30)
        await play.rewind(AtTimestamp(UnixTime(WALL_AT_START)))
        play.mapping = replace(play.mapping, parallelization_factor=2)
        await play.work(60)

    simulate(main)
    play.check_positions()
    assert {play.times(identity) for identity in range(60)} == {2}
