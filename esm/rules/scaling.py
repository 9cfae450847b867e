"""Pressure: how many batches of a mapping may be on their way at once, as its target bears.

A throttled answer halves the concurrency (at least 1; plus 1 after each success). After three unreachable or
misconfigured answers in a row the target counts as broken: one batch at a time until one succeeds, so that a broken
target cannot drive a queue into its dead-letter queue. Source: design section 3.
"""

from esm.model.invocation import Misconfigured, Throttled, Unreachable
from esm.model.outcome import Outcome, Succeeded

BREAKS_AFTER = 3
"""Answers in a row that never reached the function."""


class Pressure:
    """Invariant: 1 <= limit <= limit_max, and limit is 1 while the target is broken."""

    def __init__(self, limit_max: int) -> None:
        self._limit_max = max(1, limit_max)
        self._limit = self._limit_max
        self._unreached = 0

    @property
    def limit(self) -> int:
        """Batches that may be on their way."""
        return 1 if self.is_broken else self._limit

    @property
    def is_broken(self) -> bool:
        """Whether the target could not be reached three times in a row."""
        return self._unreached >= BREAKS_AFTER

    def set_limit_max(self, limit_max: int) -> None:
        """The mapping's bound changed."""
        grows = self._limit == self._limit_max
        self._limit_max = max(1, limit_max)
        self._limit = self._limit_max if grows else min(self._limit, self._limit_max)

    def ended(self, outcome: Outcome, in_use: int) -> None:
        """An invocation ended while `in_use` batches were on their way."""
        match outcome:
            case Throttled():
                self._limit = max(1, min(self._limit, in_use) // 2)
            case Unreachable() | Misconfigured():
                self._unreached += 1
                if self.is_broken:
                    self._limit = 1
            case Succeeded():
                self._unreached = 0
                self._limit = min(self._limit_max, self._limit + 1)
            case _:
                self._unreached = 0
