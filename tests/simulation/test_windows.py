"""Tumbling windows under any schedule, fault, crash, stop and change of owner: what a function aggregates is what was
written, once each.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import anyio
import pytest

from esm.model.clocks import Instant
from esm.model.invocation import Answer, Ending, Invocation
from esm.model.lease import Lease
from esm.model.mapping import Mapping
from esm.model.notice import Condition
from esm.model.stored import VALUE_BYTES_MAX
from esm.rules import stored
from esm.rules.notices import timestamp
from esm.rules.tumbling import QUIET_S, STATE_BYTES_MAX
from tests.simulation.test_streams import Play, simulate, write_for
from tests.simulation.world import WALL_AT_START, FakeBlobs, FakeTarget, World, stream_mapping


@dataclass
class Final:
    """One try of a final call."""

    shard: str
    start: str
    ids: tuple[int, ...]
    is_early: bool
    at: float
    has_succeeded: bool = False


class Aggregating(FakeTarget):
    """Collects the ids of each window in its state; stops at poison where it may report it."""

    def __init__(self, world: World, stream: Any, *, reports: bool = False) -> None:
        super().__init__(world)
        self._stream = stream
        self._reports = reports
        self.finals: list[Final] = []
        self.events: list[dict[str, Any]] = []
        self.pad_bytes = 0
        self.forgets_state = False
        self.fails_finals = False

    async def invoke(self, invocation: Invocation) -> Ending:
        event = json.loads(invocation.payload)
        self.events.append({**event, "bytes": len(invocation.payload)})
        self._check(event)
        seen = event["state"].get("ids", [])
        final = None
        if event["isFinalInvokeForWindow"]:
            final = Final(event["shardId"], event["window"]["start"], tuple(seen), event["isWindowTerminatedEarly"],
                          anyio.current_time())  # fmt: skip
            self.finals.append(final)
            if self.fails_finals:
                return Answer(invocation.request_id, b'{"errorType":"E"}', "Unhandled")
        ending = await super().invoke(invocation)
        if not isinstance(ending, Answer):
            return ending
        if ending.function_error is None and not self.forgets_state:
            if final is not None:
                final.has_succeeded = True
            return replace(ending, payload=self._answer(event))
        return self._partly(event, ending) if self._reports else ending

    def groups(self) -> dict[int, set[tuple[str, str, tuple[int, ...]]]]:
        """For each record the different states with which a final call was tried."""
        found: dict[int, set[tuple[str, str, tuple[int, ...]]]] = defaultdict(set)
        for final in self.finals:
            for identity in final.ids:
                found[identity].add((final.shard, final.start, final.ids))
        return found

    def _answer(self, event: dict[str, Any], failures: tuple[str, ...] = ()) -> bytes:
        ids = event["state"].get("ids", []) + [record["id"] for record in event["Records"]]
        answer: dict[str, Any] = {"state": {"ids": ids, "pad": "x" * self.pad_bytes}}
        if failures:
            answer["batchItemFailures"] = [{"itemIdentifier": name} for name in failures]
        return json.dumps(answer).encode()

    def _partly(self, event: dict[str, Any], ending: Answer) -> Answer:
        """What comes before the first poisonous record is taken, and stands in the state."""
        records = event["Records"]
        bad = [index for index, record in enumerate(records) if record["id"] in self._world.poison]
        if not bad or bad[0] == 0:
            return ending
        taken = {**event, "Records": records[: bad[0]]}
        ids = [record["id"] for record in records]
        one = next(one for one in reversed(self._world.invocations) if one.ids == ids)
        one.succeeded = frozenset(ids[: bad[0]])
        name = str(self._stream.written[records[bad[0]]["id"]].sequence)
        return Answer(ending.request_id, self._answer(taken, (name,)))

    def _check(self, event: dict[str, Any]) -> None:
        """State and batch belong together: no record is in both, or in the state twice, or out of order."""
        names = ["Records", "window", "state", "shardId", "eventSourceARN", "isFinalInvokeForWindow",
                 "isWindowTerminatedEarly"]  # fmt: skip
        assert list(event) == names
        ids = event["state"].get("ids", []) + [record["id"] for record in event["Records"]]
        sequences = [self._stream.written[identity].sequence for identity in ids]
        assert sequences == sorted(set(sequences)), f"state and position have drifted apart: {ids}"
        for record in event["Records"]:
            arrived_at = self._stream.written[record["id"]].arrived_at
            assert timestamp(arrived_at, milliseconds=False) < event["window"]["end"], "two windows are mixed"
        assert not (event["isFinalInvokeForWindow"] and event["Records"])


class WindowPlay(Play):
    """A play whose function aggregates."""

    def __init__(self, seed: int, mapping: Mapping, *, faults: bool = True, shards: int = 2) -> None:
        super().__init__(seed, mapping, faults=faults, shards=shards)
        self.target: Aggregating = Aggregating(self.world, self.stream, reports=mapping.reports_item_failures)

    def open_windows(self) -> int:
        """Stored windows that have not ended."""
        return sum(lease.window is not None for lease in self.leases())

    def leases(self) -> list[Lease]:
        """As they are stored now."""
        history = self.world.store.history.items()
        return [stored.decode_lease(found[-1]) for key, found in history if key.kind == "lease" and key.item[0] != "!"]

    def finished(self) -> set[str]:
        """Shards that nobody will claim again: what a crash left of them goes with their lease."""
        return {lease.shard for lease in self.leases() if lease.is_finished}

    def states(self) -> list[Any]:
        """Items of states that are in the store."""
        partition = self.world.store.inner._partitions.get(("window", "u"))
        return list(partition.held.values()) if partition else []

    async def until_closed(self) -> None:
        """Let everything be settled, and the last windows end by the clock."""
        await self.until_settled()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.work)
            with anyio.move_on_after(1000):
                await anyio.sleep(1)
                while self.open_windows():  # noqa: ASYNC110 - virtual
                    await anyio.sleep(5)
            assert self.runner is not None
            self.runner.stop.set(Instant(anyio.current_time() + 30))
        assert self.open_windows() == 0
        left = {item.key.item.split("!")[0] for item in self.states()}
        assert left <= self.finished(), "states are left over that no later claim would find"
        if self.world.blobs is not None:
            known = {blob for item in self.states() if (blob := stored.state_blob(item.value)) is not None}
            assert self.world.blobs.held <= known, "the bucket holds what the store does not know"

    def given_up(self) -> set[int]:
        found: set[int] = set()
        for notice in self.world.notices:
            if notice.span.count:
                first, last = int(notice.span.first_sequence), int(notice.span.last_sequence)
                found |= {one.id for one in self._of_shard(notice.shard) if first <= one.sequence <= last}
        return found

    def check_aggregates(self) -> None:
        """Every record is in one final state, or in a notice; in two different ones it is never."""
        groups = self.target.groups()
        for one in self.stream.written:
            assert len(groups[one.id]) <= 1, f"{one} was aggregated twice: {groups[one.id]}"
            assert groups[one.id] or one.id in self.given_up(), f"{one} is in no final state"


def windowed(**more: Any) -> Mapping:
    return stream_mapping(**{"tumbling_window_s": 30, **more})


def drawn(seed: int) -> Mapping:
    chance = Random(seed)
    return windowed(
        tumbling_window_s=chance.choice([5, 20, 60]),
        batch_size=chance.choice([1, 3, 10, 100]),
        window_s=chance.choice([0, 0, 1, 5]),
        parallelization_factor=chance.choice([1, 4]),
        retries_max=chance.choice([0, 1, 3]),
        bisect_on_error=chance.choice([True, False]),
        reports_item_failures=chance.choice([True, False]),
    )


def test_every_record_is_aggregated_once_or_given_up(seed: int) -> None:
    play = WindowPlay(seed, drawn(seed))
    if seed % 3 == 2:  # states that no item holds
        play.target.pad_bytes, play.world.blobs = 300_000, FakeBlobs(play.world)

    async def main() -> None:
        async with anyio.create_task_group() as writing:
            writing.start_soon(write_for, play, 120, 8)
            for _ in range(play.world.random.randint(1, 4)):
                lasts = play.world.random.random() * 60
                await play.work(lasts, graceful=play.world.random.random() < 0.5)
        await play.until_closed()

    simulate(main)
    play.check_order()
    play.check_positions()
    play.check_aggregates()


def test_without_a_crash_the_windows_count_exactly_what_was_written() -> None:
    play = WindowPlay(1, windowed(tumbling_window_s=10, batch_size=7), faults=False)

    async def main() -> None:
        async with anyio.create_task_group() as writing:
            writing.start_soon(write_for, play, 100, 5)
            await play.work(130)
        play.world.poison.clear()
        await play.until_closed()

    simulate(main)
    counts: dict[str, int] = defaultdict(int)
    for final in play.target.finals:
        if final.has_succeeded:
            counts[final.start] += len(final.ids)
    expected: dict[str, int] = defaultdict(int)
    for one in play.stream.written:
        if one.id not in play.given_up():
            expected[timestamp(one.arrived_at // 10 * 10, milliseconds=False)] += 1
    assert counts == expected
    assert not any(final.is_early for final in play.target.finals)


def test_late_and_disordered_arrival_times_are_aggregated_once(seed: int) -> None:
    play = WindowPlay(seed, windowed(tumbling_window_s=10, batch_size=4, retries_max=2), shards=1)

    async def main() -> None:
        chance = Random(seed)
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                for number in range(150):
                    await anyio.sleep(chance.random() * 0.5)
                    play.stream.write(f"k{number % 3}").arrived_at -= chance.choice([0, 0, 3, 25])

            tasks.start_soon(write)
            await play.work(40)
            await play.work(20)
        await play.until_closed()

    simulate(main)
    play.check_aggregates()


def one_window(play: WindowPlay, count: int = 5) -> float:
    """Write records of one window now; returns its end on the virtual clock."""
    for _ in range(count):
        play.stream.write("k")
    size_s = play.mapping.tumbling_window_s
    return (play.world.clock.wall() // size_s + 1) * size_s - WALL_AT_START


def test_a_quiet_window_ends_two_minutes_after_its_end() -> None:
    play = WindowPlay(2, windowed(), faults=False, shards=1)

    async def main() -> None:
        end = one_window(play)
        await play.work(end + QUIET_S - 0.1 - anyio.current_time())
        assert play.target.finals == []
        await play.work(5)
        (final,) = play.target.finals
        assert (final.ids, final.is_early) == (tuple(range(5)), False)
        assert end + QUIET_S <= final.at <= end + QUIET_S + 4
        assert (play.open_windows(), play.states()) == (0, [])

    simulate(main)


def test_the_first_record_of_a_later_window_ends_the_open_one_before_it_is_offered() -> None:
    play = WindowPlay(3, windowed(batch_size=100, window_s=60), faults=False, shards=1)

    async def main() -> None:
        end = one_window(play)
        await anyio.sleep(end + 1)
        play.stream.write("k")
        await play.work(5)

    simulate(main)
    kinds = [(len(event["Records"]), event["isFinalInvokeForWindow"]) for event in play.target.events]
    assert kinds == [(5, False), (0, True), (1, False)]


def test_the_end_of_a_shard_ends_its_window_and_the_children_begin_with_nothing() -> None:
    play = WindowPlay(4, windowed(tumbling_window_s=900), faults=False, shards=1)

    async def main() -> None:
        one_window(play)
        play.stream.split()
        play.stream.write("k")
        await play.work(20)

    simulate(main)
    first, final, child = play.target.events
    assert [len(event["Records"]) for event in (first, final, child)] == [5, 0, 1]
    assert (final["isFinalInvokeForWindow"], final["isWindowTerminatedEarly"]) == (True, False)
    assert child["shardId"] != first["shardId"]
    assert (child["state"], child["window"]) == ({}, first["window"])


@pytest.mark.parametrize("graceful", [True, False])
def test_a_large_state_survives_stops_and_crashes(*, graceful: bool) -> None:
    play = WindowPlay(5, windowed(tumbling_window_s=900, batch_size=1), faults=False, shards=1)
    play.target.pad_bytes = 3 * VALUE_BYTES_MAX - 50_000

    async def main() -> None:
        one_window(play, 40)
        for _ in range(5):
            await play.work(2.1, graceful=graceful)
            assert len(play.states()) <= 8
        play.stream.split()
        await play.until_closed()

    simulate(main)
    play.check_aggregates()
    assert {final.ids for final in play.target.finals} == {tuple(range(40))}
    again = len(play.target.events) - 40 - len(play.target.finals)
    assert again == 0 if graceful else again <= 5


def test_large_states_of_quiet_shards_take_no_bytes_from_those_that_are_read() -> None:
    play = WindowPlay(14, windowed(tumbling_window_s=900), faults=False, shards=8)
    play.target.pad_bytes = STATE_BYTES_MAX - 10_000
    play.world.buffer_bytes = 4 * 1024 * 1024

    async def main() -> None:
        for _ in range(2):
            for number in range(50):
                play.stream.write(f"k{number}")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(play.work)
                await anyio.sleep(50)
                assert play.world.budget.used_bytes == 0
                assert play.runner is not None
                play.runner.stop.set(Instant(anyio.current_time() + 30))
            assert len(play.world.taken()) == len(play.stream.written)
        await play.until_closed()

    simulate(main)
    play.check_aggregates()


def test_a_state_beyond_a_megabyte_ends_its_window_early_and_the_window_goes_on_empty() -> None:
    play = WindowPlay(6, windowed(tumbling_window_s=900, batch_size=2), faults=False, shards=1)
    play.target.pad_bytes = STATE_BYTES_MAX

    async def main() -> None:
        one_window(play, 4)
        await play.work(10)

    simulate(main)
    kinds = [(len(event["Records"]), event["isWindowTerminatedEarly"]) for event in play.target.events]
    assert kinds == [(2, False), (0, True), (2, False), (0, True)]
    assert [final.ids for final in play.target.finals] == [(0, 1), (2, 3)]
    assert len({event["window"]["start"] for event in play.target.events}) == 1


def test_a_state_that_leaves_no_room_for_the_next_record_halves_the_batch_or_ends_the_window() -> None:
    play = WindowPlay(7, windowed(tumbling_window_s=900, batch_size=3), faults=False, shards=1)
    play.target.pad_bytes = STATE_BYTES_MAX - 1000
    play.stream.pad_bytes = [100, 2_400_000, 2_400_000, 2_400_000, 5_500_000, 100]

    async def main() -> None:
        one_window(play, 6)
        await play.work(30)

    simulate(main)
    assert all(event["bytes"] <= 6_291_456 for event in play.target.events)
    kinds = [([record["id"] for record in event["Records"]], event["isWindowTerminatedEarly"])
             for event in play.target.events]  # fmt: skip
    assert kinds == [([0, 1, 2], False), ([3], False), ([], True), ([4], False), ([5], False)]


@pytest.mark.parametrize("size_s", [0, 60])
def test_a_changed_size_ends_the_open_window_early_and_loses_nothing(size_s: int) -> None:
    play = WindowPlay(8, windowed(tumbling_window_s=900, parallelization_factor=3), faults=False, shards=1)

    async def main() -> None:
        one_window(play)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(10)
            assert play.runner is not None
            assert play.runner.update(replace(play.mapping, tumbling_window_s=size_s, parallelization_factor=1))
            await anyio.sleep(10)
            (final,) = play.target.finals
            assert (final.ids, final.is_early) == (tuple(range(5)), True)
            assert play.states() == []
            play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)


def test_windows_begin_and_end_with_other_numbers_of_lanes() -> None:
    play = Play(9, stream_mapping(parallelization_factor=3), faults=False, shards=1)
    target = Aggregating(play.world, play.stream)
    plain = play.target

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_for_ever, play, tasks)
            await play.work(10)
            play.target = target
            play.mapping = windowed(parallelization_factor=3)
            with_lanes = anyio.current_time()
            target.invoke = lenient(target, plain)
            await play.work(100)
            assert target.finals
            assert target.finals[0].at - with_lanes < 80
            play.mapping = stream_mapping(parallelization_factor=3)
            await play.work(100)
            tasks.cancel_scope.cancel()

    simulate(main)
    leases = [values for key, values in play.world.store.history.items() if key.kind == "lease" and key.item[0] != "!"]
    assert [stored.decode_lease(values[-1]).factor for values in leases] == [3]
    assert target.finals[-1].is_early


async def write_for_ever(play: Play, tasks: Any) -> None:
    del tasks
    while True:
        await anyio.sleep(1)
        play.stream.write(f"k{len(play.stream.written) % 5}")


def lenient(target: Aggregating, plain: FakeTarget) -> Any:
    """Events of lanes that are not one yet carry no window."""
    windowed_invoke = target.invoke

    async def invoke(invocation: Invocation) -> Ending:
        is_windowed = b'"window"' in invocation.payload
        return await (windowed_invoke(invocation) if is_windowed else plain.invoke(invocation))

    return invoke


def test_what_a_crash_left_of_a_finished_shard_goes_with_its_lease() -> None:
    play = WindowPlay(13, windowed(tumbling_window_s=900), faults=False, shards=1)

    async def main() -> None:
        one_window(play)
        play.stream.split()
        await play.work(30)
        (key, value) = next(
            (key, values[-1]) for key, values in play.world.store.history.items() if key.kind == "window"
        )
        await play.world.store.inner.put(key, value, None)
        await play.work(100)
        assert len(play.states()) == 1
        play.stream.forget("shard-0000")
        await play.work(3700)
        assert play.states() == []

    simulate(main)
    assert "shard-0000" not in {lease.shard for lease in play.leases() if not lease.is_finished}


def test_an_answer_without_state_is_a_failure_and_leaves_the_state_as_it_was() -> None:
    play = WindowPlay(10, windowed(tumbling_window_s=900, retries_max=1, batch_size=5), faults=False, shards=1)

    async def main() -> None:
        one_window(play)
        await play.work(3)
        play.target.forgets_state = True
        one_window(play)
        await play.work(10)
        play.target.forgets_state = False
        one_window(play)
        await play.until_closed()

    simulate(main)
    (notice,) = play.world.notices
    assert (notice.condition, notice.span.count, notice.invoke_count) == (Condition.RETRIES, 5, 2)
    assert [final.ids for final in play.target.finals] == [(*range(5), *range(10, 15))]


@pytest.mark.parametrize(
    ("more", "condition", "calls"),
    [({"retries_max": 2}, Condition.RETRIES, 3), ({"record_age_max_s": 60}, Condition.AGE, 8)],
)
def test_a_final_call_given_up_leaves_a_notice_of_no_records_and_the_shard_goes_on(
    more: dict[str, Any], condition: Condition, calls: int
) -> None:
    play = WindowPlay(11, windowed(**more), faults=False, shards=1)
    play.target.fails_finals = True

    async def main() -> None:
        one_window(play)
        await play.work(300)
        play.stream.write("k")
        await play.work(10)

    simulate(main)
    (notice,) = play.world.notices
    assert (notice.condition, notice.span.count, notice.invoke_count) == (condition, 0, calls)
    assert notice.span.first_sequence == notice.span.last_sequence == "5"
    assert len(play.target.finals) == calls
    assert play.target.events[-1]["state"] == {}


@pytest.mark.parametrize("pad_bytes", [0, 500_000])
def test_a_blocked_final_call_gives_what_it_holds_back_and_reads_it_again(pad_bytes: int) -> None:
    play = WindowPlay(12, windowed(batch_size=10), faults=False, shards=1)
    play.target.fails_finals = True
    play.target.pad_bytes = pad_bytes

    async def main() -> None:
        end = one_window(play)
        await anyio.sleep(end)
        for _ in range(30):
            play.stream.write("k")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(200)
            small = len(json.dumps({"ids": list(range(5)), "pad": ""}))
            assert play.world.budget.used_bytes == (0 if pad_bytes else small)
            assert play.runner is not None
            assert play.runner._views()[0].blocked_s > 100
            play.target.fails_finals = False
            await anyio.sleep(100)
            play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    assert play.world.taken() == set(range(35))


def test_a_final_call_given_up_waits_for_its_destination_however_old_its_window_is() -> None:
    play = WindowPlay(15, windowed(record_age_max_s=60, retries_max=0), faults=False, shards=1)
    play.target.fails_finals = True
    play.world.destination_broken_until = 400.0

    async def main() -> None:
        one_window(play)
        await play.work(600)

    simulate(main)
    (notice,) = play.world.notices
    assert (notice.condition, notice.span.count) == (Condition.RETRIES, 0)
    assert notice.at < WALL_AT_START + 400


def test_a_batch_whose_back_off_is_long_gives_a_large_state_back_and_reads_it_again() -> None:
    play = WindowPlay(16, windowed(tumbling_window_s=900, batch_size=5), faults=False, shards=1)
    play.target.pad_bytes = 500_000

    async def main() -> None:
        one_window(play)
        await play.work(5)
        one_window(play)
        play.world.poison.add(5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(60)
            assert play.world.budget.used_bytes == 0
            play.world.poison.clear()
            await anyio.sleep(70)
            assert play.world.taken() == set(range(10))
            assert play.runner is not None
            play.runner.stop.set(Instant(anyio.current_time() + 30))
        play.stream.split()
        await play.until_closed()

    simulate(main)
    assert [final.ids for final in play.target.finals] == [tuple(range(10))]


def test_a_second_worker_takes_over_position_and_state(seed: int) -> None:
    play = WindowPlay(seed, windowed(tumbling_window_s=20, batch_size=3), faults=False, shards=1)
    play.target.checks_keys = False

    async def main() -> None:
        chance = Random(seed)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_for, play, 60, 4)
            async with anyio.create_task_group() as workers:
                for _ in range(3):
                    workers.start_soon(another, play)
                    await anyio.sleep(chance.random() * 20)
                workers.cancel_scope.cancel()
            play.world.poison.clear()
        play.world.poison.clear()
        await play.until_closed()

    async def another(play: WindowPlay) -> None:
        await play.new_runner(play.world.around()).run()

    simulate(main)
    play.check_positions()
    groups = play.target.groups()
    assert all(groups[one.id] or one.id in play.given_up() for one in play.stream.written)
    stored_states = [key.item for key in play.world.store.history if key.kind == "window"]
    assert len(stored_states) == len(set(stored_states))
    assert all(len(values) == 1 for key, values in play.world.store.history.items() if key.kind == "window")
