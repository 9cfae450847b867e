"""The two times of the daemon: they never mix, and a signature shows which one a rule needs."""

from typing import NewType

Instant = NewType("Instant", float)
"""Seconds on this process's monotonic clock: back-off, windows, leases, visibility deadlines."""

UnixTime = NewType("UnixTime", float)
"""Seconds since 1970-01-01 UTC: record ages, deadlines that functions see, times in notices."""
