"""Mappings that are switched off and on, changed, given another function and removed while records flow."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from esm.model.arn import Arn, SourceKind
from esm.model.function import LambdaFunction
from esm.model.invocation import Ending, Invocation
from esm.model.mapping import Mapping, State
from esm.model.view import MappingView
from esm.runtime.observation import Observation
from esm.runtime.queue import QueueRunner
from esm.runtime.stream import StreamRunner
from esm.runtime.supervisor import Plan, Runner, Supervisor
from tests.simulation.world import (
    FUNCTION,
    FakeDestination,
    FakeQueue,
    FakeStream,
    FakeTarget,
    World,
    queue_mapping,
    stream_mapping,
)  # fmt: skip

OTHER = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:g")


def simulate(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


class NotingTarget(FakeTarget):
    """A function that notes when it was called."""

    def __init__(self, house: House, arn: Arn) -> None:
        super().__init__(house.world, duration_s=house.duration_s)
        self._house = house
        self._arn = arn
        self.busy = house.busy
        self.checks_keys = house.checks_keys

    async def invoke(self, invocation: Invocation) -> Ending:
        assert invocation.function_arn == self._arn
        self._house.calls.append(self._arn)
        return await super().invoke(invocation)


@dataclass
class House:
    """A supervisor over one stream and one queue, with a target for each function."""

    world: World
    checks_keys: bool = True
    duration_s: float = 0.2
    calls: list[Arn] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)
    states: list[State] = field(default_factory=list)
    targets: dict[Arn, NotingTarget] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stream = FakeStream(self.world, 2)
        self.queue = FakeQueue(self.world)
        self.around = self.world.around()
        self.supervisor = Supervisor(self.around, self._build)

    async def _build(self, plan: Plan, observation: Observation) -> Runner:
        await self.world.takes_time()
        mapping = plan.mapping
        target = self.targets.setdefault(mapping.function_arn, NotingTarget(self, mapping.function_arn))
        if mapping.source_kind is SourceKind.SQS:
            return QueueRunner(self.around, mapping, self.queue, target, observation)
        destination = FakeDestination(self.world)
        return StreamRunner(self.around, mapping, self.stream, target, destination, observation)

    def want(self, mapping: Mapping | None) -> None:
        function = mapping and LambdaFunction("f", mapping.function_arn)
        self.supervisor.apply({mapping.uuid: Plan(mapping, function)} if mapping and function else {})
        self._note()

    @property
    def view(self) -> MappingView | None:
        return next(iter(self.supervisor.views()), None)

    @property
    def in_flight(self) -> int:
        return sum(target.in_flight for target in self.targets.values())

    async def wait(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(300):
            while not condition():  # noqa: ASYNC110 - the virtual clock jumps
                await anyio.sleep(0.05)

    async def wait_state(self, state: State) -> None:
        await self.wait(lambda: self.view is not None and self.view.state is state)

    def simulate(self, play: Callable[[], Awaitable[None]]) -> None:
        """Play while a supervisor runs, and look at every moment at what is shown."""

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.supervisor.run)
                tasks.start_soon(self._look)
                await anyio.sleep(0.01)
                await play()
                assert await self.supervisor.drain(30)
                tasks.cancel_scope.cancel()
            assert self.around.budget.used_bytes == 0
            assert self.in_flight == 0
            assert self.around.telemetry.exposed.tags == {}

        simulate(main)

    async def _look(self) -> None:
        while True:
            self._note()
            await anyio.sleep(0.05)

    def _note(self) -> None:
        views = self.supervisor.views()
        assert len(views) <= 1
        for view in views:
            assert "error of esm" not in view.last_result
            if view.state is State.DISABLED:
                assert view.in_flight == self.in_flight == 0
            if not self.states or self.states[-1] is not view.state:
                self.states.append(view.state)


def a_mapping(kind: str) -> Mapping:
    return stream_mapping() if kind == "stream" else queue_mapping()


def a_house(kind: str, seed: int = 1, *, faults: bool = False, duration_s: float = 0.2) -> House:
    return House(World(seed, faults=faults), checks_keys=kind == "stream", duration_s=duration_s)


def write(house: House, count: int) -> None:
    for number in range(count):
        house.stream.write(f"k{number % 7}")
    house.queue.send(count)


both = pytest.mark.parametrize("kind", ["stream", "queue"])


@both
def test_a_mapping_is_creating_until_its_loops_read(kind: str) -> None:
    house = a_house(kind)

    async def play() -> None:
        house.want(a_mapping(kind))
        await house.wait_state(State.ENABLED)

    house.simulate(play)
    assert house.states == [State.CREATING, State.ENABLED]


@both
def test_disabled_is_shown_once_nothing_is_in_flight_and_the_position_is_kept(kind: str) -> None:
    house = a_house(kind, duration_s=5)

    async def play() -> None:
        write(house, 20)
        house.want(a_mapping(kind))
        await house.wait(lambda: house.in_flight > 0)
        house.want(replace(a_mapping(kind), enabled=False))
        await house.wait_state(State.DISABLED)
        calls = len(house.calls)
        write(house, 20)
        await anyio.sleep(60)
        assert len(house.calls) == calls
        house.want(a_mapping(kind))
        await house.wait(lambda: house.world.taken() == set(range(40)))

    house.simulate(play)
    assert house.states == [
        State.CREATING, State.ENABLED, State.DISABLING, State.DISABLED, State.ENABLING, State.ENABLED,
    ]  # fmt: skip
    if kind == "stream":
        ids = [identity for one in house.world.invocations for identity in one.ids]
        assert len(ids) == len(set(ids))


@both
def test_a_mapping_made_disabled_is_never_anything_else(kind: str) -> None:
    house = a_house(kind)

    async def play() -> None:
        write(house, 5)
        house.want(replace(a_mapping(kind), enabled=False))
        await anyio.sleep(30)
        house.want(replace(a_mapping(kind), enabled=False, batch_size=3))
        await anyio.sleep(30)

    house.simulate(play)
    assert house.calls == []
    assert set(house.states) <= {State.DISABLED, State.UPDATING}
    assert house.states[-1] is State.DISABLED


@both
def test_a_new_function_is_called_only_after_the_old_one_has_ended_and_goes_on_where_it_was(kind: str) -> None:
    house = a_house(kind, duration_s=3)

    async def play() -> None:
        write(house, 40)
        house.want(a_mapping(kind))
        await house.wait(lambda: house.in_flight > 0)
        house.want(replace(a_mapping(kind), function_arn=OTHER))
        write(house, 20)
        await house.wait(lambda: house.in_flight == 0)
        await house.wait(lambda: house.world.taken() == set(range(60)))

    house.simulate(play)
    changed_at = house.calls.index(OTHER)
    assert FUNCTION in house.calls[:changed_at]
    assert FUNCTION not in house.calls[changed_at:]
    ids = [identity for one in house.world.invocations for identity in one.ids]
    assert len(ids) == len(set(ids))
    assert house.states == [State.CREATING, State.ENABLED, State.UPDATING, State.ENABLED]


def test_a_removed_mapping_is_deleting_until_its_last_invocation_ends_and_comes_back_with_its_position() -> None:
    house = a_house("stream", duration_s=5)

    async def play() -> None:
        write(house, 20)
        house.want(stream_mapping())
        await house.wait(lambda: house.in_flight > 0)
        house.want(None)
        assert house.view is not None
        assert house.view.state is State.DELETING
        house.want(stream_mapping())
        house.want(replace(stream_mapping(), enabled=False))
        house.want(stream_mapping())
        await house.wait(lambda: house.world.taken() == set(range(20)))
        house.want(None)
        await house.wait(lambda: house.view is None)

    house.simulate(play)
    assert house.states == [
        State.CREATING,
        State.ENABLED,
        State.DELETING,
        State.CREATING,
        State.ENABLED,
        State.DELETING,
    ]
    ids = [identity for one in house.world.invocations for identity in one.ids]
    assert len(ids) == len(set(ids))


def test_a_problem_is_not_shown_of_a_mapping_that_is_switched_off() -> None:
    house = a_house("stream")
    house.stream.is_missing = True

    async def play() -> None:
        house.want(stream_mapping())
        await house.wait(lambda: house.view is not None and house.view.has_problem)
        house.want(replace(stream_mapping(), enabled=False))
        await house.wait_state(State.DISABLED)
        assert house.view is not None
        assert not house.view.has_problem
        house.want(stream_mapping())
        await house.wait(lambda: house.view is not None and house.view.has_problem)
        house.stream.is_missing = False
        await house.wait_state(State.ENABLED)

    house.simulate(play)


@both
def test_an_endpoint_that_is_down_is_a_problem_until_it_answers(kind: str) -> None:
    house = a_house(kind)

    async def play() -> None:
        house.world.answers_after_s = 8
        house.want(a_mapping(kind))
        await house.wait(lambda: house.view is not None and house.view.has_problem)
        assert house.view is not None
        assert house.view.last_result == "PROBLEM: out of reach"
        assert house.view.state is State.CREATING
        house.world.answers_after_s = 0
        await house.wait_state(State.ENABLED)
        await house.wait(lambda: house.view is not None and not house.view.has_problem)
        house.world.answers_after_s = 0.1
        await house.wait(lambda: house.view is not None and house.view.has_problem)
        house.world.answers_after_s = 0
        await house.wait(lambda: house.view is not None and not house.view.has_problem)

    house.simulate(play)


def test_a_position_that_a_newer_version_stored_is_a_problem_that_says_so() -> None:
    house = a_house("stream")

    async def play() -> None:
        write(house, 5)
        house.want(stream_mapping())
        await house.wait(lambda: house.world.taken() == set(range(5)))
        house.want(None)
        await house.wait(lambda: house.view is None)
        store = house.world.store.inner
        (lease, *_) = [item for item in (await store.scan("lease", "u")).items if not item.key.item.startswith("!")]
        newer = json.dumps({**json.loads(lease.value), "format": 99}).encode()
        await store.put(lease.key, newer, lease.version)
        house.want(stream_mapping())
        await house.wait(lambda: house.view is not None and house.view.has_problem)
        assert house.view is not None
        assert "has format 99" in house.view.last_result

    house.simulate(play)


@both
def test_a_stop_does_not_wait_for_a_server_that_does_not_answer(kind: str) -> None:
    house = a_house(kind)

    async def play() -> None:
        house.world.answers_after_s = 70
        house.want(a_mapping(kind))
        await anyio.sleep(5)
        began_at = anyio.current_time()
        house.want(None)
        await house.wait(lambda: house.view is None)
        assert anyio.current_time() - began_at < 1

    house.simulate(play)


def test_a_stop_does_not_wait_for_a_listing() -> None:
    house = a_house("stream")

    async def play() -> None:
        house.want(stream_mapping())
        await house.wait_state(State.ENABLED)
        house.world.answers_after_s = 70
        await anyio.sleep(40)
        began_at = anyio.current_time()
        house.want(replace(stream_mapping(), enabled=False))
        await house.wait_state(State.DISABLED)
        assert anyio.current_time() - began_at < 1

    house.simulate(play)


def test_whatever_is_wanted_in_whatever_order_nothing_is_lost_and_no_state_lies(seed: int) -> None:
    kind = ("stream", "queue")[seed % 2]
    house = a_house(kind, seed, faults=True, duration_s=1)
    chance = house.world.random

    async def play() -> None:
        for _ in range(chance.randint(3, 12)):
            write(house, chance.randint(0, 10))
            house.want(
                replace(
                    a_mapping(kind), enabled=chance.random() < 0.6, batch_size=chance.randint(3, 5),
                    function_arn=chance.choice([FUNCTION, OTHER]), tags=(("team", chance.choice("ab")),),
                ) if chance.random() < 0.9 else None
            )  # fmt: skip
            await anyio.sleep(chance.choice([0, 0.01, 0.5, 5]) * chance.random())
        house.world.faults = False
        house.want(a_mapping(kind))
        await house.wait_state(State.ENABLED)
        await house.wait(lambda: settled(house) == set(range(house.queue.sent)))

    house.simulate(play)


def settled(house: House) -> set[int]:
    spans = {
        identity
        for notice in house.world.notices
        for identity in range(int(notice.span.first_sequence) - 1, int(notice.span.last_sequence))
    }
    return house.world.taken() | spans


def test_a_crash_of_a_mapping_restarts_it_alone_and_a_change_ends_the_pause() -> None:
    house = a_house("queue")
    built = 0

    async def build(plan: Plan, observation: Observation) -> Runner:
        nonlocal built
        built += 1
        if built <= 3:
            raise ZeroDivisionError
        target = NotingTarget(house, plan.mapping.function_arn)
        return QueueRunner(house.around, plan.mapping, house.queue, target, observation)

    supervisor = Supervisor(house.around, build)

    def shown() -> MappingView:
        return supervisor.views()[0]

    def want(mapping: Mapping) -> None:
        supervisor.apply({mapping.uuid: Plan(mapping, LambdaFunction("f", mapping.function_arn))})

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run)
            want(queue_mapping())
            await house.wait(lambda: built == 3)
            assert shown().last_result.startswith("PROBLEM: an error of esm itself")
            began_at = anyio.current_time()
            want(replace(queue_mapping(), enabled=False))
            await house.wait(lambda: shown().state is State.DISABLED)
            assert anyio.current_time() - began_at < 1
            want(queue_mapping())
            await house.wait(lambda: shown().state is State.ENABLED)
            assert not shown().has_problem
            assert await supervisor.drain(math.inf)
            tasks.cancel_scope.cancel()

    simulate(main)
