"""Hider: messages stay hidden while their function runs, for mappings that ask for it. Beyond AWS."""

import anyio

from esm.errors import EsmError
from esm.model.clocks import Instant
from esm.model.record import Message
from esm.ports import QueueSource
from esm.rules.settlement import Settlement
from esm.rules.visibility import again_s, extend_at, extended_s
from esm.runtime.observation import Observation
from esm.runtime.surroundings import Surroundings

CALL_SIZE = 10
"""Entries of one ChangeMessageVisibilityBatch. Source: lambda.md 2.6."""

CALLS_AT_ONCE = 8
"""Calls under way for one batch: one of 10,000 messages takes a thousand."""


class Hider:
    """Extends the visibility of batches. A failed extension leaves a message's deadline as it was."""

    def __init__(self, around: Surroundings, source: QueueSource, observation: Observation) -> None:
        self._around = around
        self._source = source
        self._observation = observation

    async def run(self, settlement: Settlement, visibility_s: int) -> None:
        """Extend what is open of a batch, in time, until cancelled. Survives Unavailable and OperatorNeeded."""
        clock = self._around.clock
        while (at := extend_at(settlement.open, visibility_s, clock.now())) is not None:
            await clock.sleep_until(at)
            await self._beat(settlement, visibility_s)
            await clock.sleep_until(Instant(clock.now() + again_s(visibility_s)))

    async def _beat(self, settlement: Settlement, visibility_s: int) -> None:
        now = self._around.clock.now()
        wanted = [(one, seconds) for one in settlement.open if (seconds := extended_s(one, visibility_s, now))]
        at_once = anyio.Semaphore(CALLS_AT_ONCE)
        async with anyio.create_task_group() as calls:
            for start in range(0, len(wanted), CALL_SIZE):
                await at_once.acquire()
                calls.start_soon(self._extend, settlement, wanted[start : start + CALL_SIZE], at_once)

    async def _extend(
        self, settlement: Settlement, wanted: list[tuple[Message, int]], at_once: anyio.Semaphore
    ) -> None:
        now = self._around.clock.now()
        try:
            failed = await self._source.extend([one for one, _ in wanted], [seconds for _, seconds in wanted])
        except EsmError as error:
            self._observation.telemetry.extension_failed(len(wanted), str(error))
            return
        finally:
            at_once.release()
        if failed:
            self._observation.telemetry.extension_failed(len(failed), "entries failed")
        lost = {message.receipt_handle for message in failed}
        ends = {one.receipt_handle: Instant(now + seconds) for one, seconds in wanted}
        settlement.extended({handle: at for handle, at in ends.items() if handle not in lost})
