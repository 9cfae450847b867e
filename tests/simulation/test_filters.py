"""Filters in the loops: what falls moves the position or leaves the queue, and the rest is taken as ever."""

from __future__ import annotations

import json
from dataclasses import replace

import anyio

from esm.model.clocks import Instant
from esm.model.position import AfterSequence
from esm.model.record import Message
from esm.rules import stored
from tests.simulation import test_queues as queues
from tests.simulation import test_streams as streams
from tests.simulation.world import queue_mapping, stream_mapping

NOTHING = '{"key": ["nobody"]}'


def only(*keys: str) -> tuple[str, ...]:
    return (json.dumps({"key": list(keys)}),)


def filtered_out(runner: object) -> float:
    telemetry = runner._observation.telemetry  # type: ignore[attr-defined]
    return telemetry._telemetry.filtered_out.labels(**telemetry._labels)._value.get()


def stored_positions(play: streams.Play) -> list[int]:
    """The last stored position of each shard."""
    leases = [
        stored.decode_lease(values[-1])
        for key, values in play.world.store.history.items()
        if key.kind == "lease" and not key.item.startswith("!")
    ]
    positions = [lease.positions[0] for lease in leases]
    return [int(position.sequence) for position in positions if isinstance(position, AfterSequence)]


async def stop(play: streams.Play | queues.Play) -> None:
    assert play.runner is not None
    play.runner.stop.set(Instant(anyio.current_time() + 30))


def test_a_stream_of_which_nothing_matches_moves_its_position_for_hours_and_has_no_lag() -> None:
    play = streams.Play(1, stream_mapping(filters=(NOTHING,), parallelization_factor=2), faults=False, shards=1)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            for _ in range(2 * 60):
                play.stream.write(f"k{play.world.random.randrange(5)}")
                await anyio.sleep(60)
            await anyio.sleep(10)
            assert stored_positions(play) == [len(play.stream.written)]
            assert play.lag() == 0
            assert play.runner is not None
            assert filtered_out(play.runner) == len(play.stream.written)
            await stop(play)

    streams.simulate(main)
    assert play.world.invocations == []


def test_what_matches_is_taken_in_order_whatever_falls_around_it(seed: int) -> None:
    mapping = stream_mapping(filters=only("k1", "k3"), parallelization_factor=1 + seed % 3)
    play = streams.Play(seed, mapping)

    def wanted() -> set[int]:
        return {one.id for one in play.stream.written if one.key in {"k1", "k3"}}

    async def write() -> None:
        for _ in range(150):
            play.stream.write(f"k{play.world.random.randrange(5)}")
            await anyio.sleep(play.world.random.random())

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            for _ in range(4):
                await play.work(play.world.random.random() * 40, graceful=play.world.random.random() < 0.5)
        play.world.faults = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(1)
            with anyio.fail_after(4000):
                while not wanted() <= play.settled() or play.lag():  # noqa: ASYNC110 - the virtual clock jumps
                    await anyio.sleep(5)
            await stop(play)

    streams.simulate(main)
    assert {identity for one in play.world.invocations for identity in one.ids} <= wanted()
    play.check_order()
    play.check_positions()


def test_a_changed_filter_holds_from_the_next_read_on_without_a_restart() -> None:
    play = streams.Play(3, stream_mapping(filters=only("old")), faults=False, shards=1)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            for key in ("old", "new"):
                play.stream.write(key)
            await anyio.sleep(20)
            assert play.world.taken() == {0}
            assert play.runner is not None
            assert play.runner.update(replace(play.mapping, filters=only("new")))
            for key in ("old", "new"):
                play.stream.write(key)
            await anyio.sleep(20)
            assert play.world.taken() == {0, 3}
            assert play.runner.update(replace(play.mapping, filters=()))
            play.stream.write("old")
            await anyio.sleep(20)
            await stop(play)

    streams.simulate(main)
    assert play.world.taken() == {0, 3, 4}


def test_a_batch_begun_before_the_filter_changed_is_delivered_although_it_is_read_again() -> None:
    play = streams.Play(4, stream_mapping(filters=only("old"), retries_max=None), faults=False, shards=1)

    async def main() -> None:
        play.world.broken_until = 120
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            for _ in range(5):
                play.stream.write("old")
            await anyio.sleep(60)
            assert play.runner is not None
            assert play.runner.update(replace(play.mapping, filters=only("new")))
            play.stream.write("old")
            await anyio.sleep(200)
            await stop(play)

    streams.simulate(main)
    assert play.world.taken() == set(range(5))
    assert play.world.notices == []


def test_messages_that_do_not_match_leave_the_queue_and_the_rest_is_taken(seed: int) -> None:
    wanted = {number for number in range(300) if number % 3 == 0}
    play = queues.Play(seed, queue_mapping(filters=only(*[f"k{number}" for number in wanted]), batch_size=10))

    async def main() -> None:
        play.queue.send(150)
        await play.work(5, graceful=seed % 2 == 0)
        play.queue.send(150)
        play.world.faults = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(1)
            with anyio.fail_after(600):
                while play.queue.messages:  # noqa: ASYNC110 - the virtual clock jumps
                    await anyio.sleep(1)
            await stop(play)

    queues.simulate(main)
    assert play.world.taken() == wanted
    assert {identity for one in play.world.invocations for identity in one.ids} == wanted


def test_a_queue_of_which_nothing_matches_is_emptied_and_counts_nothing_as_taken() -> None:
    play = queues.Play(5, queue_mapping(filters=(NOTHING,)), faults=False, visibility_s=600, receives_max=1)

    async def main() -> None:
        play.queue.send(1000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            with anyio.fail_after(60):
                while play.queue.messages:  # noqa: ASYNC110 - the virtual clock jumps
                    await anyio.sleep(0.1)
            assert play.runner is not None
            assert filtered_out(play.runner) == 1000
            telemetry = play.runner._observation.telemetry
            assert telemetry._telemetry.deleted.labels(**telemetry._labels)._value.get() == 0
            await stop(play)

    queues.simulate(main)
    assert play.world.invocations == []
    assert play.queue.dead == []


def test_deletions_that_hang_bound_how_many_messages_are_discarded_at_once() -> None:
    play = queues.Play(6, queue_mapping(filters=(NOTHING,)), faults=False, visibility_s=600)
    hanging = anyio.Event()
    delete = play.queue.delete

    async def slow(messages: object) -> object:
        await hanging.wait()
        return await delete(messages)  # type: ignore[arg-type]

    play.queue.delete = slow  # type: ignore[method-assign, assignment]

    async def main() -> None:
        play.queue.send(2000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(60)
            received = sum(message.receives for message in play.queue.messages.values())
            assert 200 <= received <= 200 + 2 * 5 * 10
            assert play.world.budget.used_bytes == 0
            hanging.set()
            with anyio.fail_after(60):
                while play.queue.messages:  # noqa: ASYNC110 - the virtual clock jumps
                    await anyio.sleep(0.1)
            await stop(play)

    queues.simulate(main)


def test_wanted_messages_do_not_wait_for_the_deletion_of_those_received_with_them() -> None:
    wanted = set(range(0, 2000, 10))
    filters = only(*[f"k{number}" for number in wanted])
    play = queues.Play(8, queue_mapping(filters=filters, pollers_min=10), faults=False, visibility_s=600)

    async def hang(_: object) -> list[Message]:
        await anyio.sleep_forever()
        return []

    play.queue.delete = hang  # type: ignore[method-assign]

    async def main() -> None:
        play.queue.send(2000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(20)
            received = {message.id for message in play.queue.messages.values() if message.receives}
            assert len(received) >= 200
            assert play.world.taken() == received & wanted
            play.world.may_cancel_receives = True
            tasks.cancel_scope.cancel()

    queues.simulate(main)


def test_a_stop_lets_the_deletions_under_way_end() -> None:
    play = queues.Play(7, queue_mapping(filters=(NOTHING,)), faults=False, visibility_s=600)

    async def main() -> None:
        play.queue.send(30)
        await play.work(0.2)

    queues.simulate(main)
    assert not [message for message in play.queue.messages.values() if message.receives]
