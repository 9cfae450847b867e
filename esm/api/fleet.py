"""What `/status` and `/lag` of any worker say of all workers: its own mappings as they are now, the others' from the
store.

The store is read only when somebody asks, and at most once a second however many do. Where it does not answer, what it
said last is told again, with its age: who asks for a number every few seconds must not be left without one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from esm.catalogue.workers import words
from esm.errors import EsmError, Unavailable
from esm.model.clocks import Instant
from esm.model.view import MappingView
from esm.ports import Clock, Store
from esm.rules.fleet_views import FleetView, Life, Report, combined
from esm.rules.sightings import Sightings
from esm.telemetry import Telemetry

LOOK_EVERY_S = 1.0
"""At most this often is the store read."""

ANSWERS_WITHIN_S = 2.0
"""So long is it waited for: scrapers give up after a few seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the fleet does."""

    views: tuple[FleetView, ...]
    known_age_s: float | None
    """Since the store said what the others do; None: it never has, and only this worker's part is there."""


class FleetStatus:
    """The answers of one worker. Survives every error of the store, which is counted."""

    def __init__(
        self, store: Store, clock: Clock, telemetry: Telemetry, worker: str, views: Callable[[], Sequence[MappingView]],
        sightings: Sightings,
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._worker = worker
        self._views = views
        self._sightings = sightings
        self._others: list[Report] = []
        self._asked_at: Instant | None = None
        """When the last look ended, whatever came of it: who waited for it does not look again."""
        self._known_at: Instant | None = None
        self._asking = anyio.Lock()

    async def answer(self) -> Answer:
        """Every mapping that a worker runs which lives, as far as can be known now."""
        async with self._asking:
            if self._asked_at is None or self._clock.now() - self._asked_at >= LOOK_EVERY_S:
                await self._look()
                self._asked_at = self._clock.now()
        own = Report(self._worker, Life.LIVE, self._clock.wall(), tuple(self._views()))
        age_s = None if self._known_at is None else self._clock.now() - self._known_at
        return Answer(tuple(combined([own, *self._others])), age_s)

    async def _look(self) -> None:
        now = self._clock.now()
        with anyio.move_on_after(ANSWERS_WITHIN_S) as waiting:
            try:
                found = await words(self._store, with_released=False, unreadable=self._unreadable)
            except Unavailable as error:
                self._telemetry.store_failed("workers", str(error))
                return
        if waiting.cancelled_caught:
            self._telemetry.store_failed("workers", f"no answer within {ANSWERS_WITHIN_S:g} s")
            return
        self._known_at, wall = now, self._clock.wall()
        self._sightings.looked(found, now)
        reports = [self._sightings.report(word, now, wall) for word in found if word.worker != self._worker]
        self._others = [report for report in reports if report.life.speaks]

    def _unreadable(self, worker: str, error: EsmError) -> None:
        self._telemetry.store_failed("workers", f"worker {worker}: {error}")
