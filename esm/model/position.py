"""Places in a shard, and shards themselves."""

from dataclasses import dataclass, field

from esm.model.clocks import UnixTime


@dataclass(frozen=True, slots=True)
class TrimHorizon:
    """The oldest record that the source still has."""


@dataclass(frozen=True, slots=True)
class AtTimestamp:
    """The first record that arrived at or after an instant.

    Sources without timestamps in their iterators (DynamoDB) read from the trim horizon and skip earlier records.
    """

    at: UnixTime


@dataclass(frozen=True, slots=True)
class AfterSequence:
    """The record that follows a sequence number."""

    sequence: str
    arrived_at: UnixTime
    """Arrival time of that record: says, once it is trimmed, whether records may have been lost."""


@dataclass(frozen=True, slots=True)
class AtSequence:
    """The record with a sequence number itself: where an operator sends a shard back to."""

    sequence: str


Position = TrimHorizon | AtTimestamp | AfterSequence | AtSequence


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard as the source lists it."""

    id: str
    parents: tuple[str, ...] = ()
    """None, one, or (after a merge) two shard ids; they may have left the listing."""
    is_closed: bool = False
    """Whether the listing shows an ending sequence number."""
    first_sequence: str = field(default="", compare=False)
    """Below every sequence number in it; empty where the listing does not say."""
    hash_keys: tuple[str, str] | None = field(default=None, compare=False)
    """First and last hash key, in decimal; None: not known, or no such thing (DynamoDB)."""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a stream source says of itself."""

    identity: str
    """ARN plus creation time or stream label: a stream deleted and made again is a new stream."""
    retention_s: float
