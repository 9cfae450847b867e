"""Turns: the messages of a FIFO group wait for their turn while the group is with another batch.

A batch whose groups are all free goes on whole; it waits a moment for that, because deletions whose answers are under
way free groups all the time. What is busy for longer waits apart, a task a group and without a slot, so that it holds
up no other group; it is bounded by visibility, because the queue gives out a group once a visibility time-out.
"""

from collections.abc import Awaitable, Callable

import anyio

from esm.model.clocks import Instant
from esm.rules.groups import Groups, Messages
from esm.runtime.gate import Gate
from esm.runtime.observation import Observation
from esm.runtime.surroundings import Signal, Stop, Surroundings

SOON_S = 0.25
"""How long a whole batch waits for groups of it."""

Act = Callable[[Messages], Awaitable[None]]


class Turns:
    """The groups of one FIFO queue; `settle` and `release` are what the runner does with messages."""

    def __init__(
        self, around: Surroundings, stop: Stop, gate: Gate, observation: Observation, *, settle: Act, release: Act
    ) -> None:
        self._around = around
        self._stop = stop
        self._gate = gate
        self._observation = observation
        self._settle = settle
        self._release = release
        self._groups = Groups()
        self._freed = Signal()

    def look_again(self) -> None:
        """The target broke: whoever waits for a turn gives its messages back."""
        self._freed.notify()

    async def settle(self, batch: Messages, tasks: anyio.abc.TaskGroup) -> None:
        """Settle what is free of a batch; what is not goes on in `tasks` when its turn comes."""
        await self._wait_free(batch, Instant(self._around.clock.now() + SOON_S))
        mine, busy = self._groups.claim(batch)
        for group in busy:
            held = sum([len(message.event) for message in group])
            self._around.budget.release(-held)
            tasks.start_soon(self._settle_later, group, held)
        if not mine:
            return
        try:
            await self._settle(mine)
        finally:
            self._groups.leave(mine)
            self._freed.notify()

    async def _settle_later(self, group: Messages, held: int) -> None:
        try:
            ends_at = min(message.visible_at for message in group)
            await self._wait_free(group, ends_at)
            if self._stop.is_set or self._gate.is_broken:
                await self._release(group)
            elif self._groups.are_free(group) and self._around.clock.now() < ends_at:
                await self._settle_in_slot(group, ends_at)
            else:
                self._observation.telemetry.let_go(len(group))
        finally:
            self._around.budget.release(held)

    async def _settle_in_slot(self, group: Messages, ends_at: Instant) -> None:
        mine, _ = self._groups.claim(group)
        has_entered = False
        try:
            with self._stop.interruptible(), anyio.move_on_after(max(0.0, ends_at - self._around.clock.now())):
                await self._gate.enter()
                has_entered = True
            if has_entered:
                await self._settle(mine)
            elif self._around.clock.now() < ends_at:
                await self._release(mine)
            else:
                self._observation.telemetry.let_go(len(mine))
        finally:
            self._groups.leave(mine)
            self._freed.notify()
            if has_entered:
                self._gate.leave()

    async def _wait_free(self, messages: Messages, until: Instant) -> None:
        """Return when the groups are free, at `until`, at a stop, or when the target breaks."""
        with self._stop.interruptible():
            while not self._groups.are_free(messages) and not self._gate.is_broken:
                if self._around.clock.now() >= until:
                    return
                await self._freed.wait_until(self._around.clock, until)
