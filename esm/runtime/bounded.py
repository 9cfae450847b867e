"""Bounded: a hosted function's reserved concurrency, kept over all workers that host it."""

from contextlib import ExitStack

import anyio

from esm.model.clocks import Instant
from esm.model.function import FunctionFacts
from esm.model.invocation import Ending, Invocation, Throttled
from esm.ports import Target
from esm.rules.slots import Refusal
from esm.runtime.membership import Membership

LOOK_EVERY_S = 0.1
"""How often whoever waits looks whether a place is free: others give theirs back through the store."""

WAIT_S = 1.0
"""How long an invocation waits for a place before it is throttled."""


class Bounded:
    """A `Target` before another one, which runs no more at once than this worker's part of `limit`."""

    def __init__(self, members: Membership, subject: str, limit: int, target: Target) -> None:
        self._target = target
        self._in_flight = 0
        self._stack = ExitStack()
        self._stack.enter_context(members.offering(subject))
        self._share = self._stack.enter_context(members.sharing(subject, lambda: limit, lambda: self._in_flight))

    @property
    def concurrency(self) -> int | None:
        """What this worker may run at once now."""
        most = self._target.concurrency
        return self._share.usable if most is None else min(most, self._share.usable)

    async def facts(self) -> FunctionFacts:
        """The target's."""
        return await self._target.facts()

    async def wait_free(self) -> None:
        """Return once this worker has a place and the target is free."""
        while not self._has_place:
            self._share.starved()
            await anyio.sleep(LOOK_EVERY_S)
        await self._target.wait_free()

    async def invoke(self, invocation: Invocation) -> Ending:
        """As the target does; throttled where there is no place for this worker, which is no attempt."""
        waits = invocation.waits or not self._share.usable  # the places go round where workers are many
        until = anyio.current_time() + (WAIT_S if waits else 0)
        if invocation.start_by is not None:
            until = min(until, invocation.start_by)
        while not self._has_place:
            if Instant(anyio.current_time()) >= until:
                return Throttled(invocation.request_id, reason=Refusal.RESERVED.value)
            self._share.starved()
            await anyio.sleep(LOOK_EVERY_S)
        self._in_flight += 1
        try:
            return await self._target.invoke(invocation)
        finally:
            self._in_flight -= 1

    async def aclose(self) -> None:
        """Give the part back, and close the target."""
        self._stack.close()
        await self._target.aclose()

    @property
    def _has_place(self) -> bool:
        return self._in_flight < self._share.usable
