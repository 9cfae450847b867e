"""Gate: the slots of one mapping. Whoever holds one may have a batch on its way; the rule `Pressure` says how many."""

from collections import deque

import anyio

from esm.model.outcome import Outcome
from esm.rules.scaling import Pressure


class Gate:
    """Slots, first come, first served. Invariant: nobody enters while `in_use` is at the limit."""

    def __init__(self, pressure: Pressure) -> None:
        self._pressure = pressure
        self._waiting: deque[anyio.Event] = deque()
        self.in_use = 0
        self._is_shut = False
        self._prober: object | None = None

    @property
    def is_broken(self) -> bool:
        """Whether the target could not be reached three times in a row."""
        return self._pressure.is_broken

    @property
    def limit(self) -> int:
        """How many may be inside now."""
        return 0 if self._is_shut else self._pressure.limit

    async def enter(self) -> None:
        """Wait for a slot and take it."""
        if not self._waiting and self.in_use < self.limit:
            self.in_use += 1
            return
        admitted = anyio.Event()
        self._waiting.append(admitted)
        try:
            await admitted.wait()
        except BaseException:
            if admitted.is_set():
                self.leave()
            else:
                self._waiting.remove(admitted)
                self._admit()
            raise

    def leave(self) -> None:
        """Give a slot back."""
        self.in_use -= 1
        self._admit()

    def set_limit_max(self, limit_max: int) -> None:
        """The mapping's bound changed; 0: nobody enters for now."""
        self._is_shut = limit_max < 1
        self._pressure.set_limit_max(limit_max)
        self._admit()

    def ended(self, outcome: Outcome) -> None:
        """An invocation of this mapping ended."""
        self._pressure.ended(outcome, self.in_use)
        if not self.is_broken:
            self._prober = None
        self._admit()

    def may_try(self, batch: object) -> bool:
        """Whether this batch may be offered: always, but while the target is broken only one batch may."""
        if not self.is_broken:
            return True
        if self._prober is None:
            self._prober = batch
        return self._prober is batch

    def settled(self, batch: object) -> None:
        """The batch is off the table: another one may be tried on a broken target."""
        if self._prober is batch:
            self._prober = None
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self.in_use < self.limit:
            self.in_use += 1
            self._waiting.popleft().set()
