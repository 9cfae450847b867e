"""One record or message, its element of `"Records"` serialised once by its source and never edited."""

import msgspec

from esm.model.clocks import Instant, UnixTime


class StreamRecord(msgspec.Struct, frozen=True, gc=False):
    """A record of a Kinesis or DynamoDB shard."""

    event: bytes
    """The JSON object that the function sees inside `"Records"`."""
    sequence: str
    """Decimal digits; grows within a shard."""
    lane_hash: int
    """crc32 of the partition key, or of the DynamoDB Keys with attribute names sorted."""
    arrived_at: UnixTime


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message of an SQS queue, as one receive brought it."""

    event: bytes
    """The JSON object that the function sees inside `"Records"`."""
    message_id: str
    receipt_handle: str
    visible_at: Instant
    """When its visibility ends: nothing is invoked with it after that."""
    sent_at: UnixTime
    group: str | None = None
    """`MessageGroupId`; orders messages on FIFO queues only."""
    receives: int = 1
    """`ApproximateReceiveCount`: this receive included."""
    received_at: Instant = Instant(0.0)
    """When it was received, at the latest; a queue hides a message for 12 hours from then at most."""
    trace: str | None = None
    """`AWSTraceHeader`, as its sender wrote it."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """What one read of a shard brought."""

    records: list[StreamRecord]
    size_bytes: int
    """Sum of the records' event lengths."""
    behind_s: float | None
    """How far the reader is behind the tip: MillisBehindLatest / 1000; None where the source does not say."""
    has_ended: bool
    """The shard is closed and this was its last record."""
    children: tuple["ChildShard", ...] = ()
    """Shards that begin where this one ended, where the source names them."""


class ChildShard(msgspec.Struct, frozen=True, gc=False):
    """A child that the end of a shard announced."""

    id: str
    parents: tuple[str, ...]


class QueueFacts(msgspec.Struct, frozen=True, gc=False):
    """What a queue says of itself."""

    visibility_s: int
    message_bytes_max: int
    is_fifo: bool
    backlog: int
    """ApproximateNumberOfMessages."""
    not_visible: int = 0
    """ApproximateNumberOfMessagesNotVisible: received by somebody, and neither deleted nor visible again."""
