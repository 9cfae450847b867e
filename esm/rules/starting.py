"""Where a stream mapping begins: resolved once, when the mapping is made, and stored.

LATEST and AT_TIMESTAMP hold for the shards that existed then; shards that appear later are read from their beginning,
so that nothing between is skipped. A stream made again under the same name holds only later records: it is read from
its beginning. Source: lambda.md 3.2, 11.9.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping, StartingPosition
from esm.model.position import AtTimestamp, Position, Shard, TrimHorizon
from esm.rules.kinds import Kind, Shape

START_ITEM = "!start"
"""Item that holds the pinned beginning; sorts before every shard id."""


@dataclass(frozen=True, slots=True)
class Start:
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
    extra: dict[str, object] = field(default_factory=dict)
    """Attributes of a newer version, kept and written back."""


class _Document(msgspec.Struct):
    stream: str
    starting_position: str
    at: float | None = None
    open: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    format: int = 1


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


def encode(start: Start, write: int) -> bytes:
    """The stored value, in a format that readers of `write` know."""
    return START.encode(start, write)


def decode(value: bytes) -> Start:
    """What `encode` wrote. Raises: StoreTooNew; OperatorNeeded where the value is none of ours."""
    return START.decode(value)


def _value(start: Start) -> bytes:
    document = _Document(start.stream, start.starting_position, start.at, start.open, start.skipped)
    return msgspec.json.encode({**start.extra, **msgspec.to_builtins(document)})


def _start_of(value: bytes) -> Start:
    attributes = msgspec.json.decode(value, type=dict[str, Any])
    known = msgspec.convert(attributes, _Document)
    extra = {name: entry for name, entry in attributes.items() if name not in _Document.__struct_fields__}
    return Start(known.stream, known.starting_position, known.at, known.open, known.skipped, extra)


START = Kind("starting position", {1: Shape(_value, _start_of)})
