"""What the mappings show goes into the store, so that status answers from any process that can open it."""

import anyio

from esm.errors import Conflict, Unavailable
from esm.model.stored import Key
from esm.model.view import MappingView
from esm.rules import stored
from esm.runtime.supervisor import Supervisor
from esm.runtime.surroundings import Surroundings

REPORT_EVERY_S = 5.0
"""At most this often is a change written."""

LOOK_EVERY_S = 1.0
"""How often the first report, and one after a change of state, is looked for."""


class Reporter:
    """Writes the status items of one worker. Survives Unavailable; ends by cancellation."""

    def __init__(self, around: Surroundings, supervisor: Supervisor) -> None:
        self._around = around
        self._supervisor = supervisor
        self._written: list[MappingView] | None = None
        self._versions: dict[int, int | None] = {}

    async def run(self) -> None:
        """Write what changed, at most every 5 s."""
        while True:
            views = self._supervisor.views()
            if views != self._written:
                await self.write(views)
                await anyio.sleep(REPORT_EVERY_S)
            else:
                await anyio.sleep(LOOK_EVERY_S)

    async def write(self, views: list[MappingView]) -> None:
        """Write now; a failure is counted and the next round tries again."""
        try:
            write = self._around.formats.write
            parts = stored.encode_status(self._around.worker, self._around.clock.wall(), views, write)
            for number, value in enumerate(parts):
                await self._put(number, value)
        except Unavailable as error:
            self._around.telemetry.store_failed("status", str(error))
        else:
            self._written = views

    async def _put(self, number: int, value: bytes) -> None:
        key = Key("status", self._around.worker, f"{number:04d}")
        while True:
            if number not in self._versions:
                item = await self._around.store.get(key)
                self._versions[number] = item.version if item else None
            try:
                self._versions[number] = await self._around.store.put(key, value, self._versions[number])
            except Conflict:
                self._versions.pop(number, None)
            else:
                return
