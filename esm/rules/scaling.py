"""How many batches of a mapping may be on their way at once.

Pressure says what its target bears. A throttled answer halves the concurrency (at least 1; plus 1 after each success).
After three unreachable or misconfigured answers in a row the target counts as broken: one batch at a time until one
succeeds, so that a broken target cannot drive a queue into its dead-letter queue. Source: design section 3.

Scaling says what a queue needs: a few at first, more every second while messages wait, fewer while there are none or
the function fails. AWS publishes the bounds and the rate; the steps between are ours. Source: lambda.md 2.1, 2.3.
"""

from dataclasses import dataclass

from esm.model.clocks import Instant
from esm.model.invocation import Misconfigured, Throttled, Unreachable
from esm.model.mapping import Mapping
from esm.model.outcome import Failed, FailedItems, Outcome, Succeeded

BREAKS_AFTER = 3
"""Answers in a row that never reached the function."""

STARTS_WITH = 5
"""Concurrent batches of a queue at first, and what is left to one without traffic. Source: lambda.md 2.1."""

QUIET_FLOOR = 2
"""What is left without MaximumConcurrency when there has been no message for `QUIET_AFTER_S`. Source: lambda.md 2.1."""

CONCURRENCY_MAX = 1_250
"""Concurrent batches of one queue mapping. Source: lambda.md 2.1."""

ADDED_A_MINUTE = 300
"""Concurrency that a queue mapping may gain in a minute. Source: lambda.md 2.1."""

POLLER_CONCURRENCY = 10
"""Invocations at once of one provisioned poller. Source: lambda.md 2.1."""

POLLER_POLLS_A_SECOND = 10
"""Receives a second of one provisioned poller. Source: lambda.md 2.1."""

PROVISIONED_ADDED_A_MINUTE = 1_000
"""Concurrency that a mapping with provisioned pollers may gain in a minute. Source: lambda.md 2.1."""

POLLERS_MIN, POLLERS_MAX = 2, 200
"""Provisioned pollers where only the other bound was given. Source: lambda.md 1.2."""

IDLE_RECEIVERS = 2
"""Receivers that wait at a quiet queue: each long poll costs a request, and bytes that others could use."""

LOOK_EVERY_S = 1.0
"""How often the concurrency of a queue is decided anew."""

QUIET_AFTER_S = 60.0
"""A queue without a message for so long is very quiet."""

SHRINKS_BY = 0.1
"""The part of its concurrency that an idle mapping gives up at every look, at least one."""


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


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between what a queue mapping scales."""

    first: int
    floor: int
    quiet_floor: int
    most: int
    added_a_minute: int
    idle_receivers: int
    polls_a_second: int | None
    """Of each ten of concurrency; None: no bound."""

    @classmethod
    def of(cls, mapping: Mapping) -> "Bounds":
        """What AWS allows a mapping."""
        if mapping.pollers_min is None and mapping.pollers_max is None:
            most = min(mapping.concurrency_max or CONCURRENCY_MAX, CONCURRENCY_MAX)
            floor = min(STARTS_WITH, most)
            quiet = floor if mapping.concurrency_max is not None else QUIET_FLOOR
            return cls(floor, floor, quiet, most, ADDED_A_MINUTE, min(IDLE_RECEIVERS, most), None)
        fewest = mapping.pollers_min or min(POLLERS_MIN, mapping.pollers_max or POLLERS_MIN)
        most = max(fewest, mapping.pollers_max or POLLERS_MAX)
        ready = fewest * POLLER_CONCURRENCY
        return cls(
            ready, ready, ready, most * POLLER_CONCURRENCY, PROVISIONED_ADDED_A_MINUTE, fewest, POLLER_POLLS_A_SECOND
        )  # fmt: skip


class Scaling:
    """Invariants: quiet floor <= limit <= most; no minute adds more than its bound allows."""

    def __init__(self, bounds: Bounds, now: Instant) -> None:
        self._bounds = bounds
        self._limit = bounds.first
        self._credit = 0.0
        self._looked_at = now
        self._busy_at = now
        self._poll_at = now
        self._succeeded = 0
        self._failed = 0
        self.is_quiet = True
        """Whether the last receive brought nothing."""

    @property
    def limit(self) -> int:
        """Batches that may be on their way."""
        return self._limit

    @property
    def idle_receivers(self) -> int:
        """Receivers that wait at the queue while it is quiet."""
        return self._bounds.idle_receivers

    def change(self, bounds: Bounds) -> None:
        """The mapping's bounds changed."""
        self._bounds = bounds
        self._limit = max(bounds.quiet_floor, min(self._limit, bounds.most))

    def received(self, count: int, now: Instant) -> None:
        """A receive brought so many messages."""
        self.is_quiet = count == 0
        if count:
            self._busy_at = now

    def ended(self, outcome: Outcome, *, reports_item_failures: bool) -> None:
        """An invocation ended. Failures of a mapping with ReportBatchItemFailures slow nothing down."""
        match outcome:
            case Succeeded() | FailedItems():
                self._succeeded += 1
            case Failed() if not reports_item_failures:
                self._failed += 1
            case _:
                pass

    def look(self, in_use: int, now: Instant) -> None:
        """Decide the limit anew while `in_use` batches are on their way."""
        succeeded, failed = self._succeeded, self._failed
        self._succeeded = self._failed = 0
        passed_s = min(now - self._looked_at, LOOK_EVERY_S)
        self._looked_at = now
        if failed > succeeded:
            self._shrink(1, self._bounds.floor)
        elif in_use >= self._limit and not self.is_quiet and not failed:
            self._grow(passed_s)
            return
        elif in_use < self._limit and self.is_quiet:
            self._shrink(max(1, int(self._limit * SHRINKS_BY)), self._floor(now))
        self._credit = 0.0

    def poll_at(self, now: Instant) -> Instant:
        """When the next receive may be sent; it counts as sent then."""
        if self._bounds.polls_a_second is None:
            return now
        pollers = max(1, self._limit // POLLER_CONCURRENCY)
        at = max(now, self._poll_at)
        self._poll_at = Instant(at + 1 / (pollers * self._bounds.polls_a_second))
        return at

    def _floor(self, now: Instant) -> int:
        return self._bounds.quiet_floor if now - self._busy_at >= QUIET_AFTER_S else self._bounds.floor

    def _grow(self, passed_s: float) -> None:
        self._credit += passed_s * self._bounds.added_a_minute / 60
        more = int(self._credit)
        self._credit -= more
        self._limit = min(self._limit + more, self._bounds.most)

    def _shrink(self, by: int, floor: int) -> None:
        self._limit = max(min(self._limit, floor), self._limit - by)
