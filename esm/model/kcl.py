"""What Amazon's Kinesis Client Library keeps of a shard, and what a stream says of a place in it."""

from dataclasses import dataclass

from esm.model.record import StreamRecord

TRIM_HORIZON, LATEST, AT_TIMESTAMP, SHARD_END = "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END"
"""Checkpoints that are no sequence numbers."""

SENTINELS = frozenset({TRIM_HORIZON, LATEST, AT_TIMESTAMP, SHARD_END})


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a lease table."""

    key: str
    """`leaseKey`: the shard, or `account:stream:creationEpoch:shard` where one application reads many streams."""
    stream: str
    """`account:stream:creationEpoch`; empty where the application reads one stream."""
    shard: str
    checkpoint: str
    """Sequence number of the last record that was taken, or a sentinel."""
    sub_sequence: int = 0
    """Which of the user records inside an aggregated record, from 0."""
    counter: int = 0
    """Grows with every renewal."""
    owner: str = ""
    parents: tuple[str, ...] = ()
    hash_keys: tuple[str, str] | None = None
    """First and last, in decimal; None in the tables of older versions."""
    has_pending: bool = False
    """The application had prepared a later checkpoint, and not made it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a shard holds at a checkpoint."""

    found: StreamRecord | None = None
    """The first record at or after it; None where none came."""
    oldest: StreamRecord | None = None
    """The oldest of the shard; asked for only where `found` is not the checkpoint's own record."""
