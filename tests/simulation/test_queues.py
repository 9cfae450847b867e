"""Queues keep the promises of the design's section 8 under any schedule and fault, with one worker."""

from __future__ import annotations

import itertools
import math
from typing import Any

import anyio
import anyio.lowlevel
from trio.testing import MockClock

from esm.errors import Unavailable
from esm.model.clocks import Instant
from esm.model.invocation import Answer
from esm.model.mapping import FailureBackoff, Mapping
from esm.rules import recursion
from esm.runtime.observation import Observation
from esm.runtime.queue import LAST_START_S, QueueRunner
from tests.simulation.world import FUNCTION, FakeQueue, FakeTarget, World, fifo_mapping, queue_mapping

LONGEST_S = 600
"""What draining a queue may take once faults have ended."""


def simulate(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


class Play:
    """One queue, one function, one worker at a time."""

    def __init__(
        self, seed: int, mapping: Mapping, *, faults: bool = True, allows_loops: bool = False, **queue: int
    ) -> None:
        self.world = World(seed, faults=faults)
        self.mapping = mapping
        self.queue = FakeQueue(self.world, **queue)
        self.target = FakeTarget(self.world)
        self.target.checks_keys = False
        self.allows_loops = allows_loops
        self.runner: QueueRunner | None = None

    async def work(self, for_s: float = math.inf, *, graceful: bool = True, grace_s: float = 30) -> None:
        around = self.world.around()
        observation = self.world.observation(self.mapping, around)
        runner = self.runner = QueueRunner(
            around, self.mapping, self.queue, self.target, observation, allows_loops=self.allows_loops
        )  # fmt: skip
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

    async def drain_queue(self, longest_s: float = LONGEST_S) -> None:
        """Wait until the worker has emptied the queue, and end it."""
        await anyio.sleep(1)
        with anyio.fail_after(longest_s):
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
        play.runner = None
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


# FIFO


def fifo_play(seed: int, **more: Any) -> tuple[Play, Any]:
    """A FIFO queue with a few groups, and chance."""
    chance = World(seed).random
    values = {"batch_size": chance.choice([1, 3, 10]), "concurrency_max": chance.choice([None, 2, 3]), **more}
    play = Play(seed, fifo_mapping(**values), groups=chance.choice([1, 3, 12]))
    play.target.checks_keys = True
    play.target._duration_s = chance.choice([0.2, 3, 14])
    play.queue.slow_s = chance.choice([0.05, 0.9])
    return play, chance


async def through_restarts(play: Play, chance: Any) -> None:
    for _ in range(chance.randint(1, 4)):
        play.queue.send(chance.randint(1, 40))
        await play.work(chance.random() * 30, graceful=chance.random() < 0.6)
    play.world.faults = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(play.work)
        await play.drain_queue(6 * LONGEST_S)


def out_of_order(play: Play) -> list[tuple[int, int]]:
    """Messages that were invoked while an earlier one of their group had not been taken: (later, earlier)."""
    invocations = play.world.invocations
    groups = {identity: key for one in invocations for identity, key in zip(one.ids, one.keys, strict=True)}
    first_taken = {
        identity: min(one.ended_at for one in invocations if identity in one.succeeded)
        for identity in play.world.taken()
    }
    return [
        (identity, earlier)
        for one in invocations
        for place, identity in enumerate(one.ids)
        for earlier in range(identity)
        if groups.get(earlier) == groups[identity]
        and first_taken[earlier] > one.started_at
        and earlier not in one.ids[:place]
    ]


def test_groups_are_taken_in_order_and_never_twice_at_once(seed: int) -> None:
    play, chance = fifo_play(seed)

    async def main() -> None:
        await through_restarts(play, chance)

    simulate(main)
    assert play.world.taken() == set(range(play.queue.sent))
    assert out_of_order(play) == []
    assert play.target.in_flight_max <= min(play.mapping.concurrency_max or 1000, play.queue._groups)


def test_a_failed_message_holds_its_group_where_that_is_asked_for(seed: int) -> None:
    more: dict[str, Any] = {"reports_item_failures": True, "holds_group_on_failure": True}
    backoff = FailureBackoff(2, 9) if seed % 2 else None
    play, chance = fifo_play(seed, **more, failure_backoff=backoff, extends_visibility=seed % 3 == 0)
    play.target.reports = True

    async def main() -> None:
        await through_restarts(play, chance)

    simulate(main)
    assert play.world.taken() == set(range(play.queue.sent))
    assert out_of_order(play) == []


def test_a_broken_target_leaves_the_dead_letter_queue_of_a_fifo_queue_empty() -> None:
    play = Play(5, fifo_mapping(), faults=False, visibility_s=5, receives_max=5, groups=8)

    async def main() -> None:
        play.world.broken_until = 25
        play.queue.send(100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await play.drain_queue()

    simulate(main)
    assert play.queue.dead == []
    assert play.world.taken() == set(range(100))
    assert out_of_order(play) == []


def test_a_stop_hands_groups_back_whole_and_the_last_message_first() -> None:
    play = Play(6, fifo_mapping(), faults=False, visibility_s=600, groups=2)

    async def main() -> None:
        play.world.broken_until = 1000
        play.queue.send(10)
        await play.work(2)

    simulate(main)
    calls = [
        [identity for _, identity, _ in call] for _, call in itertools.groupby(play.queue.hidden, lambda one: one[0])
    ]
    assert {identity for call in calls for identity in call} == set(range(10))
    assert all(call == sorted(call, reverse=True) for call in calls)
    assert all(message.visible_at <= 2 + LAST_START_S for message in play.queue.messages.values())


def test_what_a_lost_answer_brought_is_asked_for_again_at_once() -> None:
    play = Play(7, fifo_mapping(batch_size=5), faults=False, visibility_s=600, groups=3, receives_max=1)
    lost = 0
    receive = play.queue.receive

    async def losing(count: int, wait_s: int, attempt: str | None = None) -> list[Any]:
        nonlocal lost
        found = await receive(count, wait_s, attempt)
        if found and lost < 4:
            lost += 1
            raise Unavailable("the answer was lost")
        return found

    play.queue.receive = losing  # type: ignore[method-assign]

    async def main() -> None:
        play.queue.send(20)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await play.drain_queue(60)

    simulate(main)
    assert play.queue.repeated == 4
    assert play.world.taken() == set(range(20))
    assert play.queue.dead == []


def test_a_group_that_outlives_its_visibility_holds_up_no_other() -> None:
    play = Play(8, fifo_mapping(batch_size=1, concurrency_max=2), faults=False, visibility_s=10, groups=6)
    invoke = play.target.invoke
    is_running = False

    async def slow_for_one(invocation: Any) -> Any:
        nonlocal is_running
        if b'"g0"' not in invocation.payload:
            return await invoke(invocation)
        assert not is_running
        is_running = True
        await anyio.sleep(35)
        is_running = False
        return Answer(invocation.request_id, b"null")

    play.target.invoke = slow_for_one  # type: ignore[method-assign]

    async def main() -> None:
        play.queue.send(60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(34)
            others = {one.id for one in play.queue.messages.values() if one.key != "g0"}
            assert others == set()
            assert play.runner is not None
            play.runner.stop.set(Instant(anyio.current_time() + 60))

    simulate(main)


# Load


def test_concurrency_grows_while_messages_wait_and_shrinks_when_they_do_not() -> None:
    play = Play(9, queue_mapping(), faults=False, visibility_s=600)
    seen: list[int] = []

    async def invoke(invocation: Any) -> Any:
        play.target.in_flight += 1
        await anyio.sleep(30)
        play.target.in_flight -= 1
        return Answer(invocation.request_id, b"null")

    play.target.invoke = invoke  # type: ignore[method-assign]

    async def main() -> None:
        play.queue.send(12_000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            for _ in range(60):
                await anyio.sleep(1)
                seen.append(play.target.in_flight)
            await play.drain_queue()

    simulate(main)
    assert seen[0] <= 5 + 5
    assert 250 <= max(seen) <= 305 + 5
    assert all(later - earlier <= 5 + 1 for earlier, later in itertools.pairwise(seen[:30]))


def test_a_changed_bound_holds_at_once() -> None:
    play = Play(21, queue_mapping(), faults=False, visibility_s=600)
    play.target._duration_s = 1

    async def main() -> None:
        play.queue.send(1_000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(10)
            assert play.runner is not None
            assert play.target.in_flight_max > 5
            assert play.runner.update(queue_mapping(concurrency_max=2))
            assert not play.runner.update(queue_mapping(window_s=1))
            await anyio.sleep(5)
            play.target.in_flight_max = 0
            play.queue.send(100)
            await play.drain_queue()

    simulate(main)
    assert play.target.in_flight_max == 2


def test_an_idle_queue_goes_back_to_two_receivers_and_the_floor() -> None:
    play = Play(10, queue_mapping(), faults=False, visibility_s=600)
    play.target._duration_s = 5
    limits: list[tuple[int, int]] = []

    async def main() -> None:
        play.queue.send(5_000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            while play.queue.messages:  # noqa: ASYNC110 - the virtual clock jumps
                await anyio.sleep(1)
            runner = play.runner
            assert runner is not None
            for _ in range(4):
                limits.append((runner._scaling.limit, len(runner._receivers)))
                await anyio.sleep(30)
            runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    assert limits[0][0] > 20
    assert limits[1] == (5, 2)
    assert limits[3] == (2, 2)


def test_provisioned_pollers_are_ready_and_ask_ten_times_a_second_each_at_most() -> None:
    play = Play(11, queue_mapping(pollers_min=3, pollers_max=4, batch_size=1), faults=False, visibility_s=600)
    play.world.takes_time = lambda _=0: anyio.lowlevel.checkpoint()  # type: ignore[method-assign,assignment,misc]
    play.target._duration_s = 0.01
    idle: list[int] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(10)
            for _ in range(100):
                await anyio.sleep(0.1)
                idle.append(play.queue.receiving)
            began_at = anyio.current_time()
            play.queue.send(600)
            await play.drain_queue()
        polls = [at for at in play.queue.polls if at >= began_at]
        assert all(sum(at <= one < at + 1 for one in polls) <= 4 * 10 + 1 for at in polls)

    simulate(main)
    assert max(idle) == 3
    assert sum(idle) / len(idle) > 2
    assert play.target.in_flight_max <= 40


def test_many_receivers_of_one_queue_do_not_keep_another_from_the_memory() -> None:
    busy = Play(12, queue_mapping(pollers_min=100, pollers_max=100), faults=False, visibility_s=600)
    other = Play(13, queue_mapping(uuid="other"), faults=False, visibility_s=600)
    for play in (busy, other):
        play.queue.read_bytes_max = 10_000_000
    around = busy.world.around()
    taken_at: list[float] = []

    async def run(play: Play) -> None:
        observation = Observation(play.mapping, around.telemetry.mapping(play.mapping))
        play.runner = QueueRunner(around, play.mapping, play.queue, play.target, observation)
        await play.runner.run()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, busy)
            await anyio.sleep(30)
            began_at = anyio.current_time()
            other.queue.send(10)
            tasks.start_soon(run, other)
            while other.queue.messages:  # noqa: ASYNC110 - the virtual clock jumps
                await anyio.sleep(0.1)
            taken_at.append(anyio.current_time() - began_at)
            for play in (busy, other):
                assert play.runner is not None
                play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    assert taken_at[0] < 10
    assert around.budget.used_bytes == 0
    assert busy.queue.receiving_max <= 6


def test_quiet_queues_leave_memory_to_those_that_have_messages() -> None:
    """Two receivers wait at each of thirty quiet queues: all they may bring is ten times what the process may hold."""
    world = World(15, faults=False)
    around = world.around()
    plays = [Play(15, queue_mapping(uuid=f"quiet-{number}"), faults=False) for number in range(30)]
    taken_at: list[float] = []

    async def run(play: Play) -> None:
        play.queue.read_bytes_max = 10_000_000
        observation = Observation(play.mapping, around.telemetry.mapping(play.mapping))
        play.runner = QueueRunner(around, play.mapping, play.queue, play.target, observation)
        await play.runner.run()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for play in plays:
                tasks.start_soon(run, play)
            await anyio.sleep(60)
            for play in plays:
                began_at = anyio.current_time()
                play.queue.send(1)
                while play.queue.messages:  # noqa: ASYNC110 - the virtual clock jumps
                    await anyio.sleep(0.1)
                taken_at.append(anyio.current_time() - began_at)
                began_at = anyio.current_time()
                around.budget.release(await around.budget.reserve(20_000_000))
                taken_at.append(anyio.current_time() - began_at)
            for play in plays:
                assert play.runner is not None
                play.runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    assert max(taken_at) < 2.5
    assert around.budget.used_bytes == 0
    assert all(len(play.queue.polls) < 1.2 * max(play.queue.polls) for play in plays)


def test_receivers_that_take_turns_at_a_quiet_queue_all_come_with_its_first_message() -> None:
    play = Play(18, queue_mapping(pollers_min=20), faults=False, visibility_s=600)
    play.target._duration_s = 600

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await anyio.sleep(0.0001)
            play.world.budget.idle(play.world.budget.limit_bytes // 2)
            await anyio.sleep(60)
            polls = len(play.queue.polls)
            await anyio.sleep(60)
            assert len(play.queue.polls) - polls <= 61
            play.queue.send(1000)
            await anyio.sleep(3)
            assert len(play.world.invocations) >= 20
            play.world.may_cancel_receives = True
            tasks.cancel_scope.cancel()

    simulate(main)


def test_a_batch_that_is_filled_up_is_not_asked_for_without_a_pause() -> None:
    play = Play(16, queue_mapping(batch_size=100, window_s=1), faults=False, visibility_s=600)
    play.queue.slow_s = 0.001

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work, 60)
            for _ in range(10):
                await anyio.sleep(5)
                for _ in range(2):
                    play.queue.send(1)
                    await anyio.sleep(0.3)

    simulate(main)
    assert len(play.queue.polls) < 10 * 6 + 60


def test_a_queue_that_is_not_known_yet_shows_no_lag() -> None:
    play = Play(17, queue_mapping(), faults=False)
    observation = play.world.observation(play.mapping, around := play.world.around())

    async def main() -> None:
        for _ in range(2):
            runner = QueueRunner(around, play.mapping, play.queue, play.target, observation)
            assert observation.view().shards == ()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner.run)
                await anyio.sleep(1)
                assert [shard.lag_s for shard in observation.view().shards] == [0.0]
                runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)


def test_batches_that_wait_for_memory_go_when_their_window_ends() -> None:
    play = Play(14, queue_mapping(batch_size=100, window_s=3), faults=False, visibility_s=600)
    play.queue.read_bytes_max = 64 * 1024 * 1024

    async def main() -> None:
        play.queue.send(300)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await play.drain_queue()

    simulate(main)
    assert play.world.taken() == set(range(300))


# Beyond AWS


def test_a_function_that_runs_for_longer_than_visibility_keeps_its_messages_hidden() -> None:
    play = Play(15, queue_mapping(extends_visibility=True), faults=False, visibility_s=10, receives_max=1)
    play.target._duration_s = 300

    async def main() -> None:
        play.queue.send(25)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await play.drain_queue()

    simulate(main)
    assert play.queue.dead == []
    assert len([identity for one in play.world.invocations for identity in one.ids]) == 25


def test_what_cannot_be_kept_hidden_is_not_invoked_after_its_visibility() -> None:
    play = Play(16, fifo_mapping(extends_visibility=True), faults=False, visibility_s=10, groups=2)
    play.target._duration_s = 25
    play.queue.loses_extensions = True

    async def main() -> None:
        play.queue.send(20)
        await play.work(120)

    simulate(main)
    assert out_of_order(play) == []


def test_an_extension_that_fails_once_is_tried_again_in_time() -> None:
    play = Play(20, queue_mapping(extends_visibility=True), faults=False, visibility_s=10, receives_max=1)
    play.target._duration_s = 100
    extend = play.queue.extend
    calls = 0

    async def failing(messages: Any, seconds: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise Unavailable("throttled")
        return await extend(messages, seconds)

    play.queue.extend = failing  # type: ignore[method-assign]

    async def main() -> None:
        play.queue.send(5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work)
            await play.drain_queue()

    simulate(main)
    assert calls > 2
    assert play.queue.dead == []


def test_a_failed_message_comes_again_after_a_pause_that_doubles() -> None:
    play = Play(17, queue_mapping(failure_backoff=FailureBackoff(2, 9)), faults=False, visibility_s=600)
    play.world.poison = {0}

    async def main() -> None:
        play.queue.send(1)
        await play.work(60)

    simulate(main)
    delays = [delay_s for _, _, delay_s in play.queue.hidden]
    assert delays[:5] == [2, 4, 8, 9, 9]
    times = [one.started_at for one in play.world.invocations]
    assert all(later - earlier < 11 for earlier, later in itertools.pairwise(times))


# Loops


def test_a_loop_ends_in_the_dead_letter_queue_and_harms_no_other_message() -> None:
    play = Play(18, queue_mapping(), faults=False, visibility_s=5, receives_max=2)
    name = recursion.fingerprint(FUNCTION)

    async def main() -> None:
        play.queue.send(1, trace=f"Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=1:{name}:16")
        play.queue.send(1, trace=f"Root=1-5759e988-bd862e3fe1be46a994272793;Lineage={name}:15")
        play.queue.send(3)
        await play.work(60)

    simulate(main)
    assert play.queue.dead == [0]
    assert play.world.taken() == {1, 2, 3, 4}


def test_a_loop_goes_on_where_it_is_allowed() -> None:
    play = Play(19, queue_mapping(), faults=False, allows_loops=True)

    async def main() -> None:
        play.queue.send(
            1, trace=f"Root=1-5759e988-bd862e3fe1be46a994272793;Lineage={recursion.fingerprint(FUNCTION)}:99"
        )
        await play.work(10)

    simulate(main)
    assert play.world.taken() == {0}
