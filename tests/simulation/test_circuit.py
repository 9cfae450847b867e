"""A broken target shows: in status, in metrics, and in the log when it begins and ends."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from esm.model.clocks import Instant, UnixTime
from esm.model.view import MappingView
from esm.rules.kinds import OLDEST
from esm.rules.stored import decode_status, encode_status
from esm.runtime.observation import Observation
from esm.runtime.queue import QueueRunner
from tests.simulation.world import FakeQueue, FakeTarget, World, queue_mapping


def simulate(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def gauge(world: World, view: MappingView) -> float | None:
    world.telemetry.live.views = lambda: [view]
    labels = {"mapping": view.uuid, "function": view.function, "source": view.source}
    return world.telemetry.registry.get_sample_value("esm_target_circuit_open", labels)


def test_the_circuit_is_open_while_the_target_is_broken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "esm")
    world = World(1, faults=False)
    mapping = queue_mapping()
    queue, target = FakeQueue(world, visibility_s=5, receives_max=50), FakeTarget(world)
    target.checks_keys = False
    shown: list[tuple[bool, float | None]] = []

    async def main() -> None:
        around = world.around()
        observation = world.observation(mapping, around)
        runner = QueueRunner(around, mapping, queue, target, observation)
        world.broken_until = 25
        queue.send(100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            for until in (0, 20, 80):
                await anyio.sleep_until(until)
                view = observation.view()
                shown.append((view.circuit_open, gauge(world, view)))
            runner.stop.set(Instant(anyio.current_time() + 30))

    simulate(main)
    assert shown == [(False, 0.0), (True, 1.0), (False, 0.0)]
    events = [record.getMessage() for record in caplog.records]
    assert [event for event in events if event.startswith("target circuit")] == [
        "target circuit opened",
        "target circuit closed",
    ]


def test_a_mapping_that_rests_has_no_broken_target() -> None:
    world = World(1)
    observation: Observation = world.observation(queue_mapping(), world.around())
    observation.circuit(is_open=True)
    assert observation.view().circuit_open
    observation.rested()
    assert not observation.view().circuit_open


def test_a_report_of_an_earlier_version_is_read_as_a_closed_circuit() -> None:
    world = World(1)
    observation: Observation = world.observation(queue_mapping(), world.around())
    observation.circuit(is_open=True)
    (part,) = encode_status("w", UnixTime(1), [observation.view()], OLDEST)
    assert decode_status(part).views[0].circuit_open
    document = json.loads(part)
    del document["views"][0]["circuit_open"]
    assert not decode_status(json.dumps(document).encode()).views[0].circuit_open
