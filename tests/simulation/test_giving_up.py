"""Notices of streams: they carry what they should, once, however long their destination is away."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from esm.errors import NoticeTooLarge, Unavailable
from esm.model.arn import Arn
from esm.model.clocks import Instant
from esm.model.mapping import InvocationType, Mapping
from esm.model.notice import Condition, Notice
from esm.rules import notices
from esm.runtime.stream import StreamRunner
from tests.simulation.world import FakeStream, FakeTarget, World, stream_mapping

BUCKET = Arn.parse("arn:aws:s3:::b")
QUEUE = Arn.parse("arn:aws:sqs:us-east-1:000000000000:q")


class Bucket:
    """Keeps objects by id; broken until a time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.broken_until = 0.0
        self.takes_bytes_max = 1e9
        self.tries = 0
        self.objects: dict[str, tuple[Notice, Any]] = {}
        self.tried: set[str] = set()

    async def send(self, notice: Notice, document: bytes) -> None:
        self.tries += 1
        self.tried.add(notice.id)
        await self._world.takes_time()
        if anyio.current_time() < self.broken_until:
            raise Unavailable("bucket")
        if len(document) > self.takes_bytes_max:
            raise NoticeTooLarge("too large")
        assert document.startswith(notices.document(notice)[:-1])
        self.objects[notice.id] = (notice, json.loads(document))

    def payloads(self) -> list[Any]:
        found = [document.get("payload") for _, document in self.objects.values()]
        return [payload and json.loads(payload)["Records"] for payload in found]


class Play:
    def __init__(self, mapping: Mapping, *, faults: bool = False, seed: int = 1) -> None:
        self.world = World(seed, faults=faults)
        self.mapping = mapping
        self.stream = FakeStream(self.world, 1)
        self.target = FakeTarget(self.world)
        self.bucket = Bucket(self.world)
        self.held_bytes_max_late = 0

    async def work(self, for_s: float) -> None:
        around = self.world.around()
        self.around = around
        observation = self.observation = self.world.observation(self.mapping, around)
        runner = StreamRunner(around, self.mapping, self.stream, self.target, self.bucket, observation)
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await runner.run()
                tasks.cancel_scope.cancel()

            tasks.start_soon(run)
            await anyio.sleep(for_s)
            runner.stop.set(Instant(anyio.current_time() + 30))
        assert around.budget.used_bytes == 0

    def metric(self, name: str, **labels: str) -> float:
        found = self.around.telemetry.registry.get_sample_value
        where = {"mapping": "u", "function": str(self.mapping.function_arn), "source": str(self.mapping.source_arn)}
        return found(name, {**where, **labels}) or 0.0

    def poison(self, count: int) -> None:
        self.world.poison |= {self.stream.write("k").id for _ in range(count)}


def simulate(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def test_a_notice_carries_the_event_that_failed() -> None:
    play = Play(stream_mapping(retries_max=1, on_failure=BUCKET))

    async def main() -> None:
        play.poison(3)
        await play.work(60)

    simulate(main)
    ids = [record["id"] for records in play.bucket.payloads() for record in records]
    assert sorted(ids) == [0, 1, 2]


def test_records_whose_payloads_were_handed_back_are_read_again_for_their_notice() -> None:
    """Pauses beyond 5 s hand payloads back; the age then ends the tries while nothing is held."""
    play = Play(stream_mapping(record_age_max_s=60, on_failure=BUCKET))

    async def main() -> None:
        play.poison(3)
        await play.work(200)

    simulate(main)
    (notice, _), *_ = play.bucket.objects.values()
    assert notice.condition is Condition.AGE
    assert [record["id"] for records in play.bucket.payloads() for record in records] == [0, 1, 2]


def test_what_the_source_has_lost_is_told_without_its_payload() -> None:
    play = Play(stream_mapping(record_age_max_s=60, on_failure=BUCKET))

    async def main() -> None:
        play.poison(3)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work, 200)
            await anyio.sleep(45)
            play.stream.trimmed_before = play.world.clock.wall() - 1
            await anyio.sleep(5)
            play.stream.write("k")

    simulate(main)
    payloads = play.bucket.payloads()
    assert payloads == [None]
    assert next(iter(play.bucket.objects.values()))[0].span.count == 3
    assert play.world.taken() == {3}


def test_a_bucket_that_was_away_gets_one_whole_object_for_each_failure_and_no_memory_is_held_meanwhile() -> None:
    play = Play(stream_mapping(retries_max=0, on_failure=BUCKET))

    async def main() -> None:
        play.poison(3)
        play.bucket.broken_until = 900.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work, 1200)
            await anyio.sleep(600)
            assert play.observation.view().has_problem
            assert play.observation.view().last_result == "PROBLEM: bucket"
            held = [play.around.budget.used_bytes == 0]
            for _ in range(200):
                await anyio.sleep(1)
                held.append(play.around.budget.used_bytes == 0)
            assert sum(held) > 150
            play.stream.write("k")

    simulate(main)
    ids = [record["id"] for records in play.bucket.payloads() for record in records]
    assert sorted(ids) == [0, 1, 2]
    assert len(play.bucket.tried) == len(play.bucket.objects)
    assert play.world.taken() == {3}
    assert not play.observation.view().has_problem


def test_a_mapping_that_drops_loses_the_notice_counts_it_and_goes_on() -> None:
    play = Play(stream_mapping(retries_max=0, on_failure=QUEUE, on_failure_drops=True))

    async def main() -> None:
        play.poison(3)
        play.bucket.broken_until = 30.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work, 60)
            await anyio.sleep(20)
            assert not play.observation.view().has_problem
            play.stream.write("k")
        assert play.metric("esm_dropped_events_total", reason="destination") == 3
        assert play.metric("esm_destination_errors_total") == play.bucket.tries

    simulate(main)
    assert play.bucket.objects == {}
    assert play.world.taken() == {3}


def test_a_queue_that_cannot_hold_the_event_gets_the_ordinary_notice() -> None:
    play = Play(stream_mapping(retries_max=0, on_failure=QUEUE, on_failure_has_payload=True))

    async def main() -> None:
        play.poison(1)
        await play.work(30)
        play.bucket.takes_bytes_max = 700
        play.poison(2)
        await play.work(30)

    simulate(main)
    with_payload, *others = [document for _, document in play.bucket.objects.values()]
    assert json.loads(with_payload["payload"])["Records"][0]["id"] == 0
    assert others
    assert all("payload" not in one for one in others)


def test_a_record_beyond_the_asynchronous_limit_is_given_up_and_batches_close_before_it() -> None:
    play = Play(stream_mapping(batch_size=100, invocation_type=InvocationType.EVENT, on_failure=BUCKET, retries_max=0))
    sizes: list[int] = []
    original = play.target.invoke

    async def invoke(invocation: Any) -> Any:
        sizes.append(len(invocation.payload))
        assert invocation.is_async
        return await original(invocation)

    play.target.invoke = invoke  # type: ignore[method-assign]

    async def main() -> None:
        for size in [300_000] * 8 + [1_100_000] + [1000] * 3:
            play.stream.write("k" * size)
        await play.work(60)

    simulate(main)
    assert max(sizes) <= 1_048_576
    ((notice, _),) = play.bucket.objects.values()
    assert notice.condition is Condition.PAYLOAD
    assert notice.span.count == 1
    assert len(play.world.taken()) == 11


@pytest.mark.parametrize("retries_max", [0, None])
def test_what_is_handed_back_to_the_budget_is_not_kept_in_memory_either(retries_max: int | None) -> None:
    """In the pause of a bucket that is away, and in that of a function that fails."""
    play = Play(stream_mapping(batch_size=5, retries_max=retries_max, on_failure=BUCKET))
    record_bytes = 600_000  # more than a run keeps that measures coverage meanwhile
    play.stream.pad_bytes = [record_bytes] * 5
    kept_bytes: list[int] = []

    async def main() -> None:
        play.bucket.broken_until = 1e9
        play.poison(5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work, 500)
            await anyio.sleep(200)
            for _ in range(100):
                await anyio.sleep(2)
                if play.around.budget.used_bytes == 0:
                    gc.collect()
                    kept_bytes.append(tracemalloc.get_traced_memory()[0])

    gc.freeze()  # what earlier tests left is not looked at a hundred times
    tracemalloc.start()
    try:
        simulate(main)
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    assert len(kept_bytes) > 50
    assert max(kept_bytes) < record_bytes


def test_records_that_a_filter_lets_fall_are_not_kept_in_memory_while_the_next_ones_are_waited_for() -> None:
    play = Play(stream_mapping(filters=('{"nothing": ["has this"]}',)))
    play.stream.pad_bytes = [200_000] * 5

    async def main() -> None:
        for _ in range(5):
            play.stream.write("k")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work, 20)
            await anyio.sleep(0.01)
            while play.metric("esm_filtered_out_events_total") < 5:  # noqa: ASYNC110
                await anyio.sleep(0.05)
            reserved = await play.around.budget.reserve(play.around.budget.limit_bytes)
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 500_000
            play.around.budget.release(reserved)

    tracemalloc.start()
    try:
        simulate(main)
    finally:
        tracemalloc.stop()
