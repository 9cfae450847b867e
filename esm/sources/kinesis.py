"""KinesisStream: one data stream, read shard by shard with GetRecords. `Data` stays the base64 text that came.

Source: wire-shapes.md 2.2; lambda.md 3.1, 3.2.
"""

import time
import zlib
from typing import Any

import msgspec

from esm.aws.failures import CredentialsMissing, code_behind, taking_apart
from esm.aws.raw import BODY
from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded, PositionLost, ShardGone
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.position import AfterSequence, AtSequence, AtTimestamp, Position, Shard, StreamFacts, TrimHorizon
from esm.model.record import ChildShard, Read, StreamRecord
from esm.sources.cursor import Cursor, Slice, first_record

IAM_ACTIONS = (
    "kinesis:DescribeStreamSummary",
    "kinesis:ListShards",
    "kinesis:GetShardIterator",
    "kinesis:GetRecords",
)

RECORDS_MAX = 10_000
"""Of one GetRecords."""

READ_BYTES_MAX = 10 * 1024 * 1024 * 4 // 3 + RECORDS_MAX * 512
"""10 MB of data in base64, and the envelope of each record."""

RETENTION_S = 86_400
"""Where the server does not say."""

_NO_SUCH_PARAMETER = frozenset(
    {"SerializationException", "ValidationException", "InvalidArgumentException", "InvalidParameterException"}
)
"""How servers that do not know `StreamARN` refuse it."""

_encode = msgspec.json.encode


class _Record(msgspec.Struct, gc=False):
    SequenceNumber: str
    PartitionKey: str
    Data: msgspec.Raw
    ApproximateArrivalTimestamp: float | None = None


class _Child(msgspec.Struct):
    ShardId: str
    ParentShards: list[str] | None = None


class _Records(msgspec.Struct):
    Records: list[_Record]
    NextShardIterator: str | None = None
    MillisBehindLatest: float | None = None
    ChildShards: list[_Child] | None = None


_records = msgspec.json.Decoder(_Records)


class KinesisStream:
    """Implements `ports.StreamSource`."""

    read_bytes_max = READ_BYTES_MAX

    def __init__(
        self, arn: Arn, role: str, sessions: Sessions, *, reads_per_s_busy: float = 2, reads_per_s_idle: float = 1
    ) -> None:
        """`role`: the function's, for `invokeIdentityArn`."""
        self._arn = arn
        self._sessions = sessions
        self._retention_s: float = RETENTION_S
        self._names: dict[str, str] = {"StreamName": arn.name, "StreamARN": str(arn)}
        self._before_id = b'},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"'
        self._after_id = b"".join([
            b'","eventName":"aws:kinesis:record","invokeIdentityArn":', _encode(role),
            b',"awsRegion":', _encode(arn.region), b',"eventSourceARN":', _encode(str(arn)), b"}",
        ])  # fmt: skip
        self.reads_per_s_busy = reads_per_s_busy
        self.reads_per_s_idle = reads_per_s_idle

    async def facts(self) -> StreamFacts:
        """DescribeStreamSummary. A stream that is being deleted is not found any more."""
        answer = await self._stream_call("describe_stream_summary")
        with taking_apart("DescribeStreamSummary", "Kinesis"):
            summary = answer["StreamDescriptionSummary"]
            self._retention_s = float(summary.get("RetentionPeriodHours", 24)) * 3600
            created = summary.get("StreamCreationTimestamp")
            stamp = f"{created.timestamp():.3f}" if created is not None else ""
        if summary.get("StreamStatus") == "DELETING":
            raise OperatorNeeded(f"Stream not found: {self._arn}")
        return StreamFacts(f"{self._arn}@{stamp}", self._retention_s)

    async def shards(self) -> list[Shard]:
        """ListShards, all pages."""
        found: list[Shard] = []
        answer = await self._stream_call("list_shards", MaxResults=1000)
        while True:
            with taking_apart("ListShards", "Kinesis"):
                found += [_shard(shard) for shard in answer.get("Shards", [])]
            token = answer.get("NextToken")
            if not token:
                return found
            answer = await self._stream_call("list_shards", {}, NextToken=token, MaxResults=1000)

    async def exists(self, shard_id: str) -> bool:
        """GetShardIterator."""
        try:
            await self._iterator(shard_id, TrimHorizon())
        except ShardGone:
            return False
        return True

    async def children(self, shard_id: str) -> list[Shard] | None:
        """None: GetRecords names them at a shard's end, and listing is cheap."""
        del shard_id
        return None

    async def first_from(self, shard_id: str, sequence: str) -> StreamRecord | None:
        """GetShardIterator AT_SEQUENCE_NUMBER, and the first record that it brings."""
        try:
            answer = await self._named_call(
                "get_shard_iterator", ShardId=shard_id, ShardIteratorType="AT_SEQUENCE_NUMBER",
                StartingSequenceNumber=sequence,
            )  # fmt: skip
        except OperatorNeeded as error:
            if code_behind(error) != "InvalidArgumentException":
                raise
            return None
        with taking_apart("GetShardIterator", "Kinesis"):
            iterator = str(answer["ShardIterator"])

        async def fetch(at: str) -> Slice:
            return await self._get_records(shard_id, at, 1)

        return await first_record(iterator, fetch, 1 / self.reads_per_s_busy)

    def open(self, shard_id: str, position: Position) -> Cursor:
        """A reader from `position` on."""

        async def locate(at: Position) -> str:
            return await self._iterator(shard_id, at)

        async def fetch(iterator: str, limit: int) -> Slice:
            return await self._get_records(shard_id, iterator, limit)

        return Cursor(position, locate, fetch)

    async def _iterator(self, shard_id: str, position: Position) -> str:
        """Raises: ShardGone, PositionLost, OperatorNeeded, Unavailable."""
        match position:
            case AfterSequence(sequence, arrived_at):
                if await self._has_expired(arrived_at):
                    raise PositionLost(f"shard {shard_id}: the record {sequence} is older than the stream's retention")
                where: dict[str, object] = {
                    "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence,
                }  # fmt: skip
            case AtSequence(sequence):
                where = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence}
            case AtTimestamp(at):  # the SDK sends whole seconds, rounded down: up to a second more is read
                where = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": at}
            case _:
                where = {"ShardIteratorType": "TRIM_HORIZON"}
        try:
            answer = await self._named_call("get_shard_iterator", ShardId=shard_id, **where)
        except ShardGone:
            await self.facts()  # says so if it is the whole stream that is gone: the code is the same
            raise
        except OperatorNeeded as error:
            if isinstance(position, AfterSequence | AtSequence) and code_behind(error) == "InvalidArgumentException":
                raise PositionLost(f"shard {shard_id} does not know the record {position.sequence}") from error
            raise
        with taking_apart("GetShardIterator", "Kinesis"):
            return str(answer["ShardIterator"])

    async def _has_expired(self, arrived_at: UnixTime) -> bool:
        """Whether a record is older than the retention, which may have been lengthened since it was last asked for."""
        if time.time() - arrived_at <= self._retention_s:
            return False
        await self.facts()
        return time.time() - arrived_at > self._retention_s

    async def _get_records(self, shard_id: str, iterator: str, limit: int) -> Slice:
        parameters: dict[str, object] = {"ShardIterator": iterator, "Limit": min(limit, RECORDS_MAX)}
        if "StreamARN" in self._names:
            parameters["StreamARN"] = self._names["StreamARN"]
        client = await self._sessions.client("kinesis", self._arn.region)
        try:
            answer = await self._sessions.call(client, "get_records", **parameters)
        except ShardGone:
            await self.facts()
            raise
        with taking_apart("GetRecords", "Kinesis"):
            found = _records.decode(answer[BODY])
            before_id = b"".join([self._before_id, shard_id.encode(), b":"])
            records = [self._record(before_id, record) for record in found.Records]
        behind_ms = found.MillisBehindLatest
        children = tuple(
            ChildShard(child.ShardId, tuple(child.ParentShards or ())) for child in found.ChildShards or ()
        )
        read = Read(
            records, sum([len(record.event) for record in records]), None if behind_ms is None else behind_ms / 1000,
            found.NextShardIterator is None, children,
        )  # fmt: skip
        return Slice(read, found.NextShardIterator)

    def _record(self, before_id: bytes, record: _Record) -> StreamRecord:
        if not record.SequenceNumber.isdecimal():
            raise ValueError("a sequence number is no number")
        arrived_at = record.ApproximateArrivalTimestamp
        if arrived_at is None:
            arrived_at = time.time()  # or the record would count as too old from the first
        sequence = record.SequenceNumber.encode()
        event = b"".join([
            b'{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":', _encode(record.PartitionKey),
            b',"sequenceNumber":"', sequence, b'","data":', record.Data, b',"approximateArrivalTimestamp":',
            _encode(arrived_at), before_id, sequence, self._after_id,
        ])  # fmt: skip
        return StreamRecord(
            event, record.SequenceNumber, zlib.crc32(record.PartitionKey.encode()), UnixTime(arrived_at)
        )

    async def _stream_call(
        self, operation: str, names: dict[str, str] | None = None, /, **parameters: object
    ) -> dict[str, Any]:
        """A call about the stream as a whole. Raises: OperatorNeeded, Unavailable."""
        try:
            return await self._named_call(operation, names, **parameters)
        except ShardGone as error:
            raise OperatorNeeded(f"Stream not found: {self._arn}") from error.__cause__

    async def _named_call(
        self, operation: str, names: dict[str, str] | None = None, /, **parameters: object
    ) -> dict[str, Any]:
        """A control call that names the stream, by ARN too where the server takes one; `names` replaces the names."""
        sent = self._names if names is None else names
        client = await self._sessions.client("kinesis", self._arn.region)
        try:
            return await self._sessions.control(client, operation, **sent, **parameters)
        except OperatorNeeded as error:
            if "StreamARN" not in sent or not _refuses_arn(error):
                raise _spoken(error, self._arn) from error.__cause__
        self._names = {"StreamName": self._arn.name}
        return await self._named_call(operation, **parameters)


def _shard(listed: dict[str, Any]) -> Shard:
    parents = tuple(listed[name] for name in ("ParentShardId", "AdjacentParentShardId") if listed.get(name))
    span, keys = listed.get("SequenceNumberRange", {}), listed.get("HashKeyRange", {})
    hash_keys = (keys["StartingHashKey"], keys["EndingHashKey"]) if keys else None
    is_closed = bool(span.get("EndingSequenceNumber"))
    return Shard(listed["ShardId"], parents, is_closed, span.get("StartingSequenceNumber", ""), hash_keys)


def _refuses_arn(error: OperatorNeeded) -> bool:
    return code_behind(error) in _NO_SUCH_PARAMETER and "streamarn" in str(error).lower()


def _spoken(error: OperatorNeeded, arn: Arn) -> OperatorNeeded:
    """The text that Lambda shows for a stream it may not read. Source: lambda.md 11.11."""
    if isinstance(error, CredentialsMissing) or "AccessDenied" not in str(error):
        return error
    return OperatorNeeded(
        f"Cannot access stream {arn}. Please ensure the role can perform the GetRecords, GetShardIterator,"
        f" DescribeStream, ListShards, and ListStreams Actions on your stream in IAM. ({error})"
    )
