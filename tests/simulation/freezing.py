"""Processes that stand still on the virtual clock, as SIGSTOP makes them: no task of theirs makes a step.

A process is a context variable, which every task that it starts inherits. Before a task of a frozen process would make
its next step, an instrument puts the step aside; thawing puts it back. Timers go on meanwhile, as they do for a real
process: what has expired is found so afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from random import Random
from typing import Any

import anyio
import trio
from trio._core import _run, _traps
from trio.testing import MockClock

_PROCESS: ContextVar[Process | None] = ContextVar("_PROCESS", default=None)


class Process:
    """Tasks that stand still together."""

    def __init__(self) -> None:
        self.is_frozen = False
        self._held: list[tuple[trio.lowlevel.Task, Any, Any]] = []

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        """Every task goes on with the step that it was to make."""
        self.is_frozen = False
        held, self._held = self._held, []
        for task, send, value in held:
            trio.lowlevel.reschedule(task)
            task._next_send_fn, task._next_send = send, value

    def hold(self, task: trio.lowlevel.Task) -> None:
        """Put the next step of a task aside: it waits, and cannot be cancelled."""
        self._held.append((task, task._next_send_fn, task._next_send))
        trap = _traps.WaitTaskRescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        task._next_send_fn, task._next_send = (lambda _: trap), None


class Freezer(trio.abc.Instrument):
    """Makes frozen processes stand still."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        process = task.context.get(_PROCESS)
        if process is not None and process.is_frozen:
            process.hold(task)


def start(tasks: anyio.abc.TaskGroup, process: Process | None, run: Callable[..., Any], *arguments: Any) -> None:
    """Run a task, and what it starts, in a process; None: in the world outside of all."""
    context = copy_context()
    context.run(_PROCESS.set, process)
    context.run(tasks.start_soon, run, *arguments)


def simulate(main: Callable[..., Any], *arguments: Any, seed: int = 0) -> Any:
    """Run on a virtual clock, the same way for the same seed, with processes that can be frozen."""
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r
    _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r = True, Random(seed)
    options = {"clock": MockClock(autojump_threshold=0), "instruments": [Freezer()]}
    try:
        return anyio.run(main, *arguments, backend="trio", backend_options=options)
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r = before
