"""DynamoDBStream: one table's stream, read shard by shard. Keys and images are spliced in as they came.

Source: wire-shapes.md 2.3; lambda.md 3.1, 3.2, 11.6.
"""

import math
import time
import zlib
from typing import Any

import anyio
import msgspec

from esm.aws.failures import CredentialsMissing, code_behind, taking_apart
from esm.aws.raw import BODY
from esm.aws.sessions import Sessions
from esm.errors import EsmError, OperatorNeeded, PositionLost, ShardGone
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.position import AfterSequence, AtSequence, AtTimestamp, Position, Shard, StreamFacts, TrimHorizon
from esm.model.record import Read, StreamRecord
from esm.sources.cursor import Cursor, Slice, first_record

IAM_ACTIONS = ("dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:GetRecords")

RECORDS_MAX = 1_000
"""Of one GetRecords."""

READ_BYTES_MAX = 4 * 1024 * 1024
"""1 MB of items in JSON, with both images and the envelope of each record."""

RETENTION_S = 86_400

SKIPS_MAX = 10
"""Reads in a row that may bring nothing but records from before the start, until the caller has its turn again."""

_NO_SUCH_PARAMETER = frozenset({"SerializationException", "ValidationException", "UnknownParameterException"})
"""How servers that do not know `ShardFilter` refuse it."""

_encode = msgspec.json.encode
_NONE = msgspec.Raw(b"")


class _Change(msgspec.Struct, gc=False):
    Keys: msgspec.Raw
    SequenceNumber: str
    ApproximateCreationDateTime: float | None = None
    NewImage: msgspec.Raw = _NONE
    OldImage: msgspec.Raw = _NONE
    SizeBytes: int = 0
    StreamViewType: str = ""


class _Record(msgspec.Struct, gc=False):
    eventID: str
    eventName: str
    dynamodb: _Change
    userIdentity: dict[str, str] | None = None


class _Records(msgspec.Struct):
    Records: list[_Record]
    NextShardIterator: str | None = None


_records = msgspec.json.Decoder(_Records)
_keys = msgspec.json.Decoder(dict[str, dict[str, str]])


class DynamoDBStream:
    """Implements `ports.StreamSource`."""

    read_bytes_max = READ_BYTES_MAX

    def __init__(
        self, arn: Arn, sessions: Sessions, *, reads_per_s_busy: float = 4, reads_per_s_idle: float = 1
    ) -> None:
        self._arn = arn
        self._sessions = sessions
        self._serves_children = True
        self._tail = b"".join([b'},"eventSourceARN":', _encode(str(arn)), b"}"])
        self._source = b',"eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":' + _encode(arn.region)
        self.reads_per_s_busy = reads_per_s_busy
        self.reads_per_s_idle = reads_per_s_idle

    async def facts(self) -> StreamFacts:
        """DescribeStream; the ARN's label is the identity."""
        await self._describe(Limit=1)
        return StreamFacts(str(self._arn), RETENTION_S)

    async def shards(self) -> list[Shard]:
        """DescribeStream, all pages of at most 100."""
        found: list[Shard] = []
        after: dict[str, str] = {}
        while True:
            description = await self._describe(**after)
            found += _shards(description)
            last = description.get("LastEvaluatedShardId")
            if not last:
                return found
            after = {"ExclusiveStartShardId": last}

    async def exists(self, shard_id: str) -> bool:
        """GetShardIterator."""
        try:
            await self._iterator(shard_id, TrimHorizon())
        except ShardGone:
            return False
        return True

    async def children(self, shard_id: str) -> list[Shard] | None:
        """DescribeStream with the CHILD_SHARDS filter; None where it is refused, or ignored."""
        if not self._serves_children:
            return None
        try:
            description = await self._describe(ShardFilter={"Type": "CHILD_SHARDS", "ShardId": shard_id})
        except OperatorNeeded as error:
            self._serves_children = code_behind(error) not in _NO_SUCH_PARAMETER
            return None
        found = _shards(description)
        self._serves_children = all(shard_id in shard.parents for shard in found)
        return found if self._serves_children else None

    async def first_from(self, shard_id: str, sequence: str) -> StreamRecord | None:
        """GetShardIterator AT_SEQUENCE_NUMBER, and the first record that it brings."""
        client = await self._sessions.client("dynamodbstreams", self._arn.region)
        try:
            answer = await self._sessions.control(
                client, "get_shard_iterator", StreamArn=str(self._arn), ShardId=shard_id,
                ShardIteratorType="AT_SEQUENCE_NUMBER", SequenceNumber=sequence,
            )  # fmt: skip
        except PositionLost:
            return None
        except OperatorNeeded as error:
            if code_behind(error) != "ValidationException":
                raise _spoken(error, self._arn) from error.__cause__
            return None
        with taking_apart("GetShardIterator", "DynamoDB"):
            iterator = str(answer["ShardIterator"])

        async def fetch(at: str) -> Slice:
            return (await self._get_records(at, 1, 0.0))[0]

        return await first_record(iterator, fetch, 1 / self.reads_per_s_busy)

    def open(self, shard_id: str, position: Position) -> Cursor:
        """A reader from `position` on; from a timestamp: from the oldest record, without those created before."""
        created_from = float(math.floor(position.at)) if isinstance(position, AtTimestamp) else 0.0

        async def locate(at: Position) -> str:
            return await self._iterator(shard_id, at)

        async def fetch(iterator: str, limit: int) -> Slice:
            return await self._past_start(iterator, limit, created_from)

        return Cursor(position, locate, fetch)

    async def _past_start(self, iterator: str, limit: int, created_from: float) -> Slice:
        """One answer; several while all their records are from before the start: a caller would take them for idle."""
        found, skipped = await self._get_records(iterator, limit, created_from)
        for _ in range(SKIPS_MAX):
            if found.read.records or not skipped or found.iterator is None:
                break
            await anyio.sleep(1 / self.reads_per_s_busy)
            try:
                found, skipped = await self._get_records(found.iterator, limit, created_from)
            except EsmError:
                break  # the next read meets it again, from here
        return found

    async def _iterator(self, shard_id: str, position: Position) -> str:
        """Raises: ShardGone, PositionLost, OperatorNeeded, Unavailable."""
        where: dict[str, object] = {"ShardIteratorType": "TRIM_HORIZON"}
        if isinstance(position, AfterSequence):
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": position.sequence}
        if isinstance(position, AtSequence):
            where = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "SequenceNumber": position.sequence}
        client = await self._sessions.client("dynamodbstreams", self._arn.region)
        try:
            answer = await self._sessions.control(
                client, "get_shard_iterator", StreamArn=str(self._arn), ShardId=shard_id, **where
            )
        except ShardGone:
            await self.facts()  # says so if it is the whole stream that is gone: the code is the same
            raise
        except OperatorNeeded as error:
            if isinstance(position, AfterSequence | AtSequence) and code_behind(error) == "ValidationException":
                raise PositionLost(f"shard {shard_id} does not know the record {position.sequence}") from error
            raise _spoken(error, self._arn) from error.__cause__
        with taking_apart("GetShardIterator", "DynamoDB"):
            return str(answer["ShardIterator"])

    async def _get_records(self, iterator: str, limit: int, created_from: float) -> tuple[Slice, int]:
        """One answer without the records created before, and how many these were."""
        client = await self._sessions.client("dynamodbstreams", self._arn.region)
        try:
            answer = await self._sessions.call(
                client, "get_records", ShardIterator=iterator, Limit=min(limit, RECORDS_MAX)
            )  # fmt: skip
        except ShardGone:
            await self.facts()
            raise
        with taking_apart("GetRecords", "DynamoDB"):
            found = _records.decode(answer[BODY])
            records = [record for record in map(self._record, found.Records) if record.arrived_at >= created_from]
        read = Read(records, sum([len(record.event) for record in records]), None, found.NextShardIterator is None)
        return Slice(read, found.NextShardIterator), len(found.Records) - len(records)

    def _record(self, record: _Record) -> StreamRecord:
        change = record.dynamodb
        if not change.SequenceNumber.isdecimal():
            raise ValueError("a sequence number is no number")
        created_at = change.ApproximateCreationDateTime
        if created_at is None:
            created_at = time.time()  # or the record would count as too old from the first
        parts: list[bytes | msgspec.Raw] = [
            b'{"eventID":', _encode(record.eventID), b',"eventName":', _encode(record.eventName), self._source,
            b',"dynamodb":{"ApproximateCreationDateTime":', _encode(created_at), b',"Keys":', change.Keys,
        ]  # fmt: skip
        for name, image in ((b',"NewImage":', change.NewImage), (b',"OldImage":', change.OldImage)):
            if memoryview(image).nbytes > len(b"null"):  # there, and not null; bytes() would copy it
                parts += [name, image]
        parts += [
            b',"SequenceNumber":"', change.SequenceNumber.encode(), b'","SizeBytes":', _encode(change.SizeBytes),
            b',"StreamViewType":', _encode(change.StreamViewType),
        ]  # fmt: skip
        if record.userIdentity:
            parts += [self._tail[:-1], b',"userIdentity":', _encode(_identity(record.userIdentity)), b"}"]
        else:
            parts.append(self._tail)
        return StreamRecord(b"".join(parts), change.SequenceNumber, _lane_hash(change.Keys), UnixTime(created_at))

    async def _describe(self, **parameters: object) -> dict[str, Any]:
        client = await self._sessions.client("dynamodbstreams", self._arn.region)
        try:
            answer = await self._sessions.control(
                client, "describe_stream", StreamArn=str(self._arn), **parameters
            )  # fmt: skip
        except ShardGone as error:
            raise OperatorNeeded(f"Stream not found: {self._arn}") from error.__cause__
        except OperatorNeeded as error:
            raise _spoken(error, self._arn) from error.__cause__
        with taking_apart("DescribeStream", "DynamoDB"):
            return dict(answer["StreamDescription"])


def _lane_hash(keys: msgspec.Raw) -> int:
    named = _keys.decode(keys)
    return zlib.crc32(_encode(sorted((name, *value.items()) for name, value in named.items())))


def _identity(told: dict[str, str]) -> dict[str, str]:
    """As functions see it: the wire has `Type` and `PrincipalId`."""
    lower = {name[:1].lower() + name[1:]: value for name, value in told.items()}
    return {name: lower[name] for name in ("type", "principalId") if name in lower}


def _shards(description: dict[str, Any]) -> list[Shard]:
    with taking_apart("DescribeStream", "DynamoDB"):
        return [_shard(listed) for listed in description.get("Shards", [])]


def _shard(listed: dict[str, Any]) -> Shard:
    parent = listed.get("ParentShardId")
    span = listed.get("SequenceNumberRange", {})
    is_closed = bool(span.get("EndingSequenceNumber"))
    return Shard(listed["ShardId"], (parent,) if parent else (), is_closed, span.get("StartingSequenceNumber", ""))


def _spoken(error: OperatorNeeded, arn: Arn) -> OperatorNeeded:
    """The text that Lambda shows for a stream it may not read. Source: lambda.md 11.11."""
    if isinstance(error, CredentialsMissing) or "AccessDenied" not in str(error):
        return error
    return OperatorNeeded(
        f"Cannot access stream {arn}. Please ensure the role can perform the GetRecords, GetShardIterator,"
        f" DescribeStream, and ListStreams Actions on your stream in IAM. ({error})"
    )
