"""What a changed configuration restarts: whom a mapping polls as counts, and nobody else notices."""

import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from esm.model.connection import Connection, Way, Ways
from esm.model.function import LambdaFunction
from esm.model.mapping import Mapping
from esm.runtime.observation import Observation
from esm.runtime.supervisor import Plan, Supervisor
from esm.runtime.surroundings import Stop
from tests.simulation.world import FUNCTION, World, queue_mapping

IN_LAMBDA = LambdaFunction("f", FUNCTION)
GATE = Connection("gate", role_arn="arn:aws:iam::444455556666:role/gate")


@dataclass
class Running:
    """A runner that takes over whatever it may, and takes a second to end."""

    plan: Plan
    stop: Stop = field(default_factory=Stop)
    has_ended: bool = False

    def update(self, mapping: Mapping) -> bool:
        del mapping
        return True

    async def run(self) -> None:
        with self.stop.interruptible():
            await anyio.sleep_forever()
        await anyio.sleep(1)
        self.has_ended = True


def plan(name: str, ways: Ways = Ways(), **more: Any) -> Plan:  # noqa: B008 - frozen
    return Plan(queue_mapping(uuid=name, **more), IN_LAMBDA, ways)


def run(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


@pytest.mark.parametrize("which", ["source", "destination", "target", "asynchronous"])
def test_a_changed_way_restarts_the_mappings_that_go_it_and_no_other(which: str) -> None:
    async def main() -> None:
        built: list[Running] = []

        async def build(wanted: Plan, _: Observation) -> Running:
            built.append(Running(wanted))
            return built[-1]

        supervisor = Supervisor(World(1).around(), build)
        before = Ways(**{which: Way(GATE)})
        after = Ways(**{which: Way(replace(GATE, external_id=str(uuid.uuid4())))})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run)
            supervisor.apply({"a": plan("a", before), "b": plan("b")})
            await anyio.sleep(1)
            supervisor.apply({"a": plan("a", after), "b": plan("b", batch_size=1)})
            await anyio.sleep(0.5)
            assert sorted(one.plan.mapping.uuid for one in built) == ["a", "b"]
            assert {one.ways for one in supervisor.plans()} == {before, after, Ways()}
            await anyio.sleep(1)
            assert [one.plan.mapping.uuid for one in built[2:]] == ["a"]
            assert [one.plan.ways for one in built if one.has_ended] == [before]
            assert {one.ways for one in supervisor.plans()} == {after, Ways()}
            tasks.cancel_scope.cancel()

    run(main)


def test_a_mapping_that_is_gone_uses_its_ways_until_it_has_ended() -> None:
    async def main() -> None:
        async def build(wanted: Plan, _: Observation) -> Running:
            return Running(wanted)

        supervisor = Supervisor(World(1).around(), build)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run)
            supervisor.apply({"a": plan("a", Ways(source=Way(GATE)))})
            await anyio.sleep(1)
            supervisor.apply({})
            await anyio.sleep(0.5)
            assert [one.mapping.uuid for one in supervisor.plans()] == ["a"]
            await anyio.sleep(1)
            assert supervisor.plans() == []
            tasks.cancel_scope.cancel()

    run(main)


def test_a_mapping_shows_who_polls_it() -> None:
    async def main() -> None:
        async def build(wanted: Plan, _: Observation) -> Running:
            return Running(wanted)

        supervisor = Supervisor(World(1).around(), build)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run)
            supervisor.apply({"a": plan("a", Ways(source=Way(GATE))), "b": plan("b")})
            await anyio.sleep(1)
            assert [view.identity for view in supervisor.views()] == ["connection gate", "daemon"]
            supervisor.apply({"a": plan("a"), "b": plan("b")})
            await anyio.sleep(2)
            assert [view.identity for view in supervisor.views()] == ["daemon", "daemon"]
            tasks.cancel_scope.cancel()

    run(main)
