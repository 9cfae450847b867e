"""Supervisor: one bulkhead a mapping. What breaks inside one restarts that one alone, and disturbs no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from collections.abc import Mapping as Table
from dataclasses import dataclass
from typing import Protocol

import anyio

from esm.model.clocks import Instant
from esm.model.connection import DAEMONS, Ways
from esm.model.control import PAUSED, Pause
from esm.model.function import Function
from esm.model.mapping import Mapping, State
from esm.model.view import MappingView
from esm.rules import lifecycle
from esm.rules.backoff import pause_s
from esm.rules.lifecycle import Event
from esm.runtime.knowing import known
from esm.runtime.observation import Observation
from esm.runtime.surroundings import Signal, Stop, Surroundings

RESTART_BASE_S = 1.0
"""First pause before a crashed mapping starts again."""


class Runner(Protocol):
    """What runs one mapping: a stream's or a queue's."""

    stop: Stop

    def update(self, mapping: Mapping) -> bool:
        """Take over changed delivery parameters from the next batch on; False: a restart is needed."""
        ...

    async def run(self) -> None:
        """Run until `stop` is set and everything begun is settled."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """A mapping as it should run, with the function that it invokes and the ways it goes: a change of any counts."""

    mapping: Mapping
    function: Function
    ways: Ways = DAEMONS
    pause: Pause | None = None
    """An operator lets the mapping rest: it is not enabled, whatever the configuration says."""


Build = Callable[[Plan, Observation], Awaitable[Runner]]


class Ward:
    """One mapping under supervision: follows its plan until it is dismissed."""

    def __init__(self, around: Surroundings, plan: Plan, build: Build, state: State | None = None) -> None:
        self._around = around
        self._build = build
        self._plan: Plan | None = plan
        self._is_enabled = plan.mapping.enabled
        self._running: Plan | None = None
        self._function_arn = plan.mapping.function_arn
        self._runner: Runner | None = None
        self._changed = Signal()
        self._stop = Stop()
        self._waiting = Stop()
        self.observation = Observation(plan.mapping, around.telemetry.mapping(plan.mapping), state)
        self.has_ended = anyio.Event()
        self._show_pause(None)

    @property
    def plans(self) -> list[Plan]:
        """What it runs, and what it should: adapters of these are in use."""
        return [plan for plan in (self._running, self._plan) if plan is not None]

    def can_follow(self, plan: Plan | None) -> bool:
        """Whether the mapping goes on under this ward: it is wanted, and still invokes the function of its labels."""
        return plan is not None and plan.mapping.function_arn == self._function_arn

    def follow(self, plan: Plan) -> None:
        """Go over to a changed plan."""
        if plan == self._plan:
            return
        before, self._plan = self._plan, plan
        self.observation.follow(plan.mapping)
        self._show_pause(None if before is None else before.pause)
        is_same_function = before is not None and (before.function, before.ways) == (plan.function, plan.ways)
        is_same_state = plan.mapping.enabled == self._is_enabled
        if self._runner is not None and is_same_function and is_same_state and self._runner.update(plan.mapping):
            return
        self._ask(plan)
        self._end_runner(Instant(float("inf")))

    def _show_pause(self, before: Pause | None) -> None:
        pause = None if self._plan is None else self._plan.pause
        self.observation.reason = None if pause is None else PAUSED
        if pause != before:
            self.observation.telemetry.paused(pause)

    def leave(self, successor: Plan | None) -> None:
        """Drain and end, and show meanwhile where the mapping goes: to what `successor` wants, or away.

        May be called again with another successor.
        """
        if successor is None:
            self.observation.asked(Event.REMOVED)
        elif self.observation.state is not State.DELETING:
            self._ask(successor)
        self.dismiss(Instant(float("inf")))

    def dismiss(self, deadline: Instant) -> None:
        """Drain and end."""
        self._plan = None
        self._stop.set(deadline)
        self._end_runner(deadline)

    def _ask(self, plan: Plan) -> None:
        enabled = plan.mapping.enabled
        self.observation.asked(lifecycle.asked(was_enabled=self._is_enabled, enabled=enabled))
        self._is_enabled = enabled

    async def run(self) -> None:
        """Run the plan of the moment; survives every error of the mapping itself, with a pause."""
        crashes = 0
        try:
            while (plan := self._plan) is not None:
                if not plan.mapping.enabled:
                    await self._rest()
                    continue
                crashes = await self._run_once(plan, crashes)
        finally:
            self.observation.telemetry.ended("dismissed")
            self.observation.telemetry.close()
            self.has_ended.set()

    async def _run_once(self, plan: Plan, crashes: int) -> int:
        telemetry = self.observation.telemetry
        try:
            await self._run(plan)
        except Exception:  # noqa: BLE001 - the bulkhead: the one place that survives our own mistakes
            crashes += 1
            wait_s = pause_s(crashes, self._around.jitter(), RESTART_BASE_S)
            telemetry.crashed(wait_s)
            self.observation.problem("program", "an error of esm itself, see the log; the mapping starts again")
            with self._stop.interruptible():
                await self._changed.wait_until(self._around.clock, Instant(self._around.clock.now() + wait_s))
            return crashes
        finally:
            self._running = None
        return 0

    async def _run(self, plan: Plan) -> None:
        self._waiting = Stop()
        self._running = plan
        self.observation.identity = plan.ways.source.shown
        runner = await known(
            self._around, self._waiting, self.observation, "function", lambda: self._build(plan, self.observation)
        )
        if runner is None or self._plan != plan:
            return
        self._runner = runner
        self.observation.cleared()
        self.observation.telemetry.started(str(plan.mapping.source_arn), self.observation.state)
        try:
            await runner.run()
        finally:
            self._runner = None
            self.observation.rested()

    async def _rest(self) -> None:
        self.observation.rests()
        with self._stop.interruptible():
            await self._changed.wait()

    def _end_runner(self, deadline: Instant) -> None:
        self._waiting.set(deadline)
        if self._runner is not None:
            self._runner.stop.set(deadline)
        self._changed.notify()


async def bulkhead(
    around: Surroundings, stop: Stop, run: Callable[[], Awaitable[None]], crashed: Callable[[float], None]
) -> None:
    """Run to the end, again after a pause when an error of the program itself ended it, unless the stop came."""
    crashes = 0
    while not stop.is_set:
        try:
            await run()
        except Exception:  # noqa: BLE001 - the bulkhead, for what is no mapping
            crashes += 1
            wait_s = pause_s(crashes, around.jitter(), RESTART_BASE_S)
            crashed(wait_s)
            with stop.interruptible():
                await anyio.sleep(wait_s)
        else:
            return


class Supervisor:
    """All mappings of one worker."""

    def __init__(self, around: Surroundings, build: Build) -> None:
        self._around = around
        self._build = build
        self._wards: dict[str, Ward] = {}
        self._leaving: dict[str, Ward] = {}
        """Mappings that end, by UUID; a successor of the same UUID waits until they have."""
        self._tasks: anyio.abc.TaskGroup | None = None
        self._wanted: Table[str, Plan] = {}

    async def run(self) -> None:
        """Serve `apply` and `drain` until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self.apply(self._wanted)
            await anyio.sleep_forever()

    def apply(self, plans: Table[str, Plan]) -> None:
        """Run exactly these mappings, by UUID; those that did not change are not touched."""
        self._wanted = plans
        if self._tasks is None:
            return
        for uuid in [uuid for uuid, ward in self._wards.items() if not ward.can_follow(plans.get(uuid))]:
            self._leaving[uuid] = self._wards.pop(uuid)
        for uuid, ward in self._leaving.items():
            ward.leave(plans.get(uuid))
        for uuid, plan in plans.items():
            if uuid in self._wards:
                self._wards[uuid].follow(plan)
            elif uuid not in self._leaving:
                self._start(uuid, plan)

    async def drain(self, grace_s: float) -> bool:
        """End every mapping gracefully; False: the grace period ended first, the rest is to be cancelled."""
        deadline = Instant(self._around.clock.now() + grace_s)
        self._wanted = {}
        wards = self._all()
        for ward in wards:
            ward.dismiss(deadline)
        with anyio.move_on_after(grace_s) as scope:
            for ward in wards:
                await ward.has_ended.wait()
        return not scope.cancelled_caught

    def plans(self) -> list[Plan]:
        """Every plan that runs, ends or waits to run."""
        return [*self._wanted.values(), *(plan for ward in self._all() for plan in ward.plans)]

    def views(self) -> list[MappingView]:
        """Every mapping as status and metrics show it."""
        return [ward.observation.view() for ward in self._all()]

    def _all(self) -> list[Ward]:
        return [*self._wards.values(), *self._leaving.values()]

    def _start(self, uuid: str, plan: Plan, before: State | None = None) -> None:
        """Begin a mapping; `before` is the state of the ward whose place it takes."""
        assert self._tasks is not None
        ward = Ward(self._around, plan, self._build, None if before is State.DELETING else before)
        self._wards[uuid] = ward
        self._tasks.start_soon(self._watch, uuid, ward)

    async def _watch(self, uuid: str, ward: Ward) -> None:
        await ward.run()
        self._leaving.pop(uuid, None)
        if uuid in self._wanted and uuid not in self._wards:
            self._start(uuid, self._wanted[uuid], ward.observation.state)
