"""Where a stream mapping begins: resolved once, when the mapping is made, and stored.

LATEST and AT_TIMESTAMP hold for the shards that existed then; shards that appear later are read from their beginning,
so that nothing between is skipped. A stream made again under the same name holds only later records: it is read from
its beginning. Source: lambda.md 3.2, 11.9.
"""

from collections.abc import Iterable

import msgspec

from esm.errors import StoreTooNew
from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping, StartingPosition
from esm.model.position import AtTimestamp, Position, Shard, TrimHorizon

FORMAT = 1

START_ITEM = "!start"
"""Item that holds the pinned beginning; sorts before every shard id."""


class Start(msgspec.Struct, frozen=True):
    """The pinned beginning. Shards not named here are read from the trim horizon."""

    stream: str
    """Identity of the stream for which it was resolved."""
    starting_position: str
    at: float | None = None
    """Unix seconds; None: the trim horizon for all."""
    open: tuple[str, ...] = ()
    """Shards that are read from `at` on."""
    skipped: tuple[str, ...] = ()
    """Shards that had ended before LATEST was resolved: nothing in them is read."""
    format: int = FORMAT


def pin(mapping: Mapping, stream: str, shards: Iterable[Shard], wall: UnixTime, before: Start | None) -> Start:
    """Resolve the starting position; `before` is what was stored for a stream of the same name, if anything."""
    position = mapping.starting_position or StartingPosition.TRIM_HORIZON
    listing = sorted(shards, key=lambda shard: shard.id)
    match position:
        case StartingPosition.LATEST if before is None:
            still_open = tuple(shard.id for shard in listing if not shard.is_closed)
            closed = tuple(shard.id for shard in listing if shard.is_closed)
            return Start(stream, position.value, wall, still_open, closed)
        case StartingPosition.AT_TIMESTAMP:
            return Start(stream, position.value, mapping.starting_at, tuple(shard.id for shard in listing))
        case _:
            return Start(stream, position.value)


def first_position(start: Start, shard: str) -> Position:
    """Where a shard without a stored position begins."""
    if start.at is not None and shard in start.open:
        return AtTimestamp(UnixTime(start.at))
    return TrimHorizon()


def encode(start: Start) -> bytes:
    """The stored value."""
    return msgspec.json.encode(start)


def decode(value: bytes) -> Start:
    """Raises: StoreTooNew."""
    start = msgspec.json.decode(value, type=Start)
    if start.format > FORMAT:
        raise StoreTooNew(f"a starting position is stored in format {start.format}; this esm reads up to {FORMAT}")
    return start
