"""Cursor: reads one shard through iterators, whichever service has made them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from esm.aws.failures import IteratorExpired
from esm.errors import EsmError, PositionLost, Unavailable
from esm.model.position import AfterSequence, AtSequence, Position
from esm.model.record import Read, StreamRecord

FIRST_READS_MAX = 10
"""Reads in which the first record from a place must show: answers may be empty in between."""

FAILURES_MAX = 3
"""Failures in a row after which an iterator is not trusted any more: some servers answer 500 for a bad one."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One answer to GetRecords."""

    read: Read
    iterator: str | None
    """Where to go on; None at the end of the shard."""


class Cursor:
    """Implements `ports.ShardReader`: holds the iterator, and opens another one where it stands."""

    def __init__(
        self,
        position: Position,
        locate: Callable[[Position], Awaitable[str]],
        fetch: Callable[[str, int], Awaitable[Slice]],
    ) -> None:
        self._position = position
        self._locate = locate
        self._fetch = fetch
        self._iterator: str | None = None
        self._failures = 0

    async def read(self, limit: int) -> Read:
        """The next records. Raises as `locate` and `fetch` do."""
        try:
            found = await self._read(limit)
        except IteratorExpired:
            found = await self._reopened(limit)
        except PositionLost:
            if isinstance(self._position, AfterSequence | AtSequence):
                raise
            found = await self._reopened(
                limit
            )  # the oldest record left while we pointed at it: nothing of ours is lost
        except Unavailable:
            self._failures += 1
            if self._failures >= FAILURES_MAX:
                self._iterator = None
            raise
        except EsmError:
            self._iterator = None  # it may be what was refused; the position decides at the next read
            raise
        self._failures = 0
        self._iterator = found.iterator
        records = found.read.records
        if records:
            self._position = AfterSequence(records[-1].sequence, records[-1].arrived_at)
        return found.read

    async def _reopened(self, limit: int) -> Slice:
        self._iterator = None
        return await self._read(limit)

    async def _read(self, limit: int) -> Slice:
        if self._iterator is None:
            self._iterator = await self._locate(self._position)
        return await self._fetch(self._iterator, limit)


async def first_record(iterator: str, fetch: Callable[[str], Awaitable[Slice]], pause_s: float) -> StreamRecord | None:
    """The first record from an iterator on; None where a few reads bring none, or it was trimmed.

    Raises as `fetch` does; Unavailable, such as another reader's throttling, only from the last read.
    """
    following = iterator
    for number in range(FIRST_READS_MAX):
        if number:
            await anyio.sleep(pause_s)
        try:
            found = await fetch(following)
        except PositionLost:
            return None
        except Unavailable:
            if number == FIRST_READS_MAX - 1:
                raise
            continue
        if found.read.records:
            first: StreamRecord = found.read.records[0]
            return first
        if found.iterator is None:
            return None
        following = found.iterator
    return None
