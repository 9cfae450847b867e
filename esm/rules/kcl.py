"""Lease tables of Amazon's Kinesis Client Library (KCL) <-> leases, for moving an application here or back.

Law: nothing is skipped. What a table does not say is delivered again, and every such decision is told in words.
A checkpoint is the last record that was taken. KCL looks at it again at its start and drops what it has taken of it,
user record by user record; here a record is one, so an aggregated record at a checkpoint is delivered again whole.

Source: awslabs/amazon-kinesis-client 3.5 (DynamoDBLeaseSerializer, DynamoDBMultiStreamLeaseSerializer, EntityType,
HierarchicalShardSyncer, ShutdownTask, AggregatorUtil) and 1.14 (KinesisClientLeaseSerializer);
awslabs/dynamodb-streams-kinesis-adapter 2.3 (KinesisMapperUtil).
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from esm.errors import RequestRefused
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import UnixTime
from esm.model.kcl import SENTINELS, SHARD_END, TRIM_HORIZON, Look, Row
from esm.model.lease import Lease
from esm.model.mapping import Mapping as EventSourceMapping
from esm.model.mapping import StartingPosition
from esm.model.position import AfterSequence, AtTimestamp, Position, Shard, TrimHorizon
from esm.model.record import StreamRecord
from esm.rules.starting import Start, first_position

AGGREGATED_MAGIC = b"\xf3\x89\x9a\xc2"
"""The first bytes of a record that the Kinesis Producer Library has aggregated."""

MULTI_STREAM_PARTS = 4
"""account, stream, creationEpoch, shard."""

LONG_AGO = UnixTime(0.0)
"""Arrival of a record that the shard does not show any more: older than any retention, so that the first read counts
the position as lost, says so, and goes on at the oldest record."""

NO_HASH_KEYS = ("0", "1")
"""What the DynamoDB Streams adapter writes for shards that have no hash keys."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes of one shard."""

    shard: str
    text: str
    lease: Lease | None = None
    """None: nothing is stored, and its records are read from the oldest on once its parents are finished."""
    item: dict[str, Any] | None = None
    """The other way: the row of the lease table, in DynamoDB's form; None: none is written."""


class _Data(msgspec.Struct):
    data: str


class _Event(msgspec.Struct):
    kinesis: _Data | None = None


def rows_of(items: Iterable[Mapping[str, Mapping[str, Any]]], table: str) -> list[Row]:
    """The leases among the items of a table, by key; those of a newer KCL's own bookkeeping are left out.

    Raises: RequestRefused where an item is neither.
    """
    rows = [_row(item, table) for item in items if item.get("entityType", {}).get("S", "LEASE") == "LEASE"]
    return sorted(rows, key=lambda row: row.key)


def of_stream(rows: Sequence[Row], arn: Arn, created_s: int | None, table: str) -> list[Row]:
    """The rows of a stream: all where the application reads one, else those with its name.

    `created_s`: when the stream was made, in seconds since 1970; decides between streams of the same name.
    Raises: RequestRefused.
    """
    if not rows:
        raise RequestRefused(f"The table {table} holds no lease: the application never ran, or it is another table.")
    plain = [row for row in rows if not row.stream]
    if plain:
        if len(plain) != len(rows):
            raise RequestRefused(f"The table {table} holds leases of one stream and of many: it is no lease table.")
        return plain
    wanted = f"{arn.account}:{_stream_name(arn)}:"
    found = [row for row in rows if row.stream.startswith(wanted)]
    streams = sorted({row.stream for row in found})
    if len(streams) > 1:
        streams = [stream for stream in streams if stream == f"{wanted}{created_s}"]
    if len(streams) != 1:
        known = ", ".join(sorted({row.stream for row in rows})[:10])
        raise RequestRefused(f"The table {table} has no leases of {arn}; it has those of {known}.")
    return [row for row in found if row.stream == streams[0]]


def check_shards(rows: Sequence[Row], shards: Sequence[Shard], arn: Arn, table: str) -> None:
    """Whether the rows can be of this stream. Raises: RequestRefused, naming a shard that contradicts."""
    listed = {shard.id: shard for shard in shards}
    if not any(row.shard in listed for row in rows):
        raise RequestRefused(
            f"The stream {arn} has none of the shards of the table {table} ({rows[0].shard}, ...): it is another"
            " stream's table, or the stream was made again."
        )
    for row in rows:
        shard = listed.get(row.shard)
        why = None if shard is None else _contradiction(row, shard)
        if why is not None:
            raise RequestRefused(
                f"The table {table} is not of the stream {arn}, or the stream was made again: shard {row.shard} {why}."
            )


def is_foreign(row: Row, look: Look) -> bool:
    """Whether the checkpoint's record should be in the shard, and is not: it was never there."""
    if row.checkpoint in SENTINELS or look.oldest is None:
        return False
    is_there = look.found is not None and look.found.sequence == row.checkpoint
    return not is_there and int(look.oldest.sequence) < int(row.checkpoint)


def imported(
    mapping: EventSourceMapping, stream: str, rows: Sequence[Row], shards: Sequence[Shard], looks: Mapping[str, Look]
) -> tuple[Start, list[Entry]]:
    """The pinned beginning, and a lease for each shard of which the table says something.

    `looks`: for each row with a sequence number, what its shard holds there. The beginning is the oldest record for
    every shard without a lease, whatever the mapping says: such shards came after what the application knows.
    """
    by_shard = {row.shard: row for row in rows}
    entries = []
    for shard in sorted(shards, key=lambda one: one.id):
        row = by_shard.pop(shard.id, None)
        if row is None:
            entries.append(_unknown(mapping, stream, shard, rows, shards))
            continue
        position, text = _position(mapping, row, looks.get(shard.id, Look()))
        if row.has_pending:
            text += "; what follows its checkpoint, up to the one it had prepared, is delivered again"
        lease = _lease(mapping, stream, shard, position, is_finished=row.checkpoint == SHARD_END)
        entries.append(Entry(shard.id, text, lease))
    entries += [Entry(row.shard, _gone(row)) for row in by_shard.values()]
    position_name = mapping.starting_position or StartingPosition.TRIM_HORIZON
    return Start(stream, position_name.value), entries


def exported(
    mapping: EventSourceMapping, leases: Iterable[Lease], start: Start, shards: Sequence[Shard]
) -> list[Entry]:
    """A row for each shard that KCL has to know: its parents are finished, or not listed any more.

    Of several lanes the lowest position counts. Children of unfinished shards get none: KCL makes it at their end.
    """
    known = {lease.shard: lease for lease in leases}
    finished = {shard for shard, lease in known.items() if lease.is_finished} | set(start.skipped)
    listed = {shard.id for shard in shards}
    entries = []
    for shard in sorted(shards, key=lambda one: one.id):
        lease = known.get(shard.id)
        if lease is None and any(parent in listed and parent not in finished for parent in shard.parents):
            entries.append(Entry(shard.id, "no row: KCL makes it when the shard's parents have ended"))
            continue
        positions = (first_position(start, shard.id),) if lease is None else lease.positions
        checkpoint, text = (SHARD_END, "finished") if shard.id in finished else _checkpoint(positions)
        if lease is not None and lease.window is not None and not lease.is_finished:
            text += "; the state of its open tumbling window stays behind"
        children = [one.id for one in shards if shard.id in one.parents] if checkpoint == SHARD_END else []
        item = _item(shard, checkpoint, children, mapping.source_kind)
        entries.append(Entry(shard.id, text, item=item))
    return entries


def _row(item: Mapping[str, Mapping[str, Any]], table: str) -> Row:
    key = str(item.get("leaseKey", {}).get("S", ""))
    checkpoint = str(item.get("checkpoint", {}).get("S", ""))
    counter, sub = item.get("leaseCounter", {}).get("N"), item.get("checkpointSubSequenceNumber", {}).get("N", "0")
    is_place = checkpoint in SENTINELS or _is_number(checkpoint)
    if not key or not is_place or counter is None or not _is_number(str(counter)) or not _is_number(str(sub)):
        raise RequestRefused(
            f"The table {table} is not a lease table of the Kinesis Client Library: its item {key!r:.200} has no"
            " checkpoint, leaseCounter or checkpointSubSequenceNumber as KCL writes them."
        )
    parts = key.rsplit(":", 1)
    stream = parts[0] if len(parts) > 1 and len(key.split(":")) == MULTI_STREAM_PARTS else ""
    hash_keys = (item.get("startingHashKey", {}).get("S"), item.get("endingHashKey", {}).get("S"))
    return Row(
        key=key, stream=stream, shard=parts[-1] if stream else key, checkpoint=checkpoint,
        sub_sequence=int(sub), counter=int(counter), owner=str(item.get("leaseOwner", {}).get("S", "")),
        parents=tuple(sorted(item.get("parentShardId", {}).get("SS", ()))),
        hash_keys=(hash_keys[0], hash_keys[1]) if hash_keys[0] and hash_keys[1] else None,
        has_pending=bool(item.get("pendingCheckpoint", {}).get("S")),
    )  # fmt: skip


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _stream_name(arn: Arn) -> str:
    """As multi-stream keys name it; the DynamoDB Streams adapter puts a whole ARN into a name."""
    if arn.service != "dynamodb":
        return arn.name
    label = arn.resource.rpartition("/stream/")[2].replace(":", "_")
    return f"{arn.region}${arn.account}${arn.name}${label}"


def _contradiction(row: Row, shard: Shard) -> str | None:
    is_sentinel = row.checkpoint in SENTINELS
    if not is_sentinel and shard.first_sequence and int(row.checkpoint) < int(shard.first_sequence):
        return f"begins at {shard.first_sequence}, after the checkpoint {row.checkpoint}"
    if row.checkpoint == SHARD_END and not shard.is_closed:
        return "is open, and the table says that it has ended"
    if row.hash_keys and shard.hash_keys and row.hash_keys != shard.hash_keys:
        return f"has the hash keys {'-'.join(shard.hash_keys)}, and in the table {'-'.join(row.hash_keys)}"
    if row.parents and shard.parents and not set(row.parents) & set(shard.parents):
        return f"has the parents {', '.join(shard.parents)}, and in the table {', '.join(row.parents)}"
    return None


def _position(mapping: EventSourceMapping, row: Row, look: Look) -> tuple[Position, str]:
    match row.checkpoint:
        case "SHARD_END":
            return TrimHorizon(), "finished"
        case "TRIM_HORIZON":
            return TrimHorizon(), "from the oldest record: the application had not begun"
        case "LATEST" | "AT_TIMESTAMP" as sentinel:
            return _unbegun(mapping, sentinel)
    found = look.found
    if found is None or found.sequence != row.checkpoint:
        return AfterSequence(row.checkpoint, LONG_AGO), (
            f"after {row.checkpoint}, which the shard does not show any more: records may be lost; the daemon says so"
            " and goes on at the oldest record"
        )
    if row.sub_sequence > 0 or _is_aggregated(found):
        return AtTimestamp(found.arrived_at), (
            f"at {row.checkpoint}, an aggregated record of which {row.sub_sequence + 1} user records are surely taken:"
            " it is delivered again whole, and with it what arrived before it in the same second"
        )
    return AfterSequence(row.checkpoint, found.arrived_at), f"after {row.checkpoint}"


def _unbegun(mapping: EventSourceMapping, sentinel: str) -> tuple[Position, str]:
    """The table says neither when the application began, nor the time that it was told."""
    if mapping.starting_position is StartingPosition.AT_TIMESTAMP and mapping.starting_at is not None:
        return AtTimestamp(mapping.starting_at), f"from the mapping's StartingPositionTimestamp on, for {sentinel}"
    return TrimHorizon(), (
        f"from the oldest record: the table has {sentinel} and no time; to begin later, give the mapping the"
        " StartingPosition AT_TIMESTAMP and a time before the application began"
    )


def _is_aggregated(record: StreamRecord) -> bool:
    event = msgspec.json.decode(record.event, type=_Event)
    if event.kinesis is None:
        return False
    try:
        return base64.b64decode(event.kinesis.data[:8]).startswith(AGGREGATED_MAGIC)
    except binascii.Error:
        return False


def _unknown(
    mapping: EventSourceMapping, stream: str, shard: Shard, rows: Sequence[Row], shards: Sequence[Shard]
) -> Entry:
    """A listed shard without a row: KCL has removed it, or does not know it yet.

    KCL makes a shard's row after its ancestors', and removes that of an ended shard once its children are read. So a
    shard was finished where a descendant has a row and nothing before that descendant is unfinished.
    """
    states = {row.shard: row.checkpoint == SHARD_END for row in rows}
    parents = {one.id: one.parents for one in shards}
    for known in states:
        before = _ancestors(known, parents)
        if shard.id in before and shard.is_closed and all(states.get(one, True) for one in before):
            lease = _lease(mapping, stream, shard, TrimHorizon(), is_finished=True)
            return Entry(shard.id, "finished: the application has gone on to its children", lease)
    return Entry(shard.id, "from the oldest record, after its parents: the application does not know it")


def _ancestors(shard: str, parents: Mapping[str, tuple[str, ...]]) -> set[str]:
    found: set[str] = set()
    ahead = list(parents.get(shard, ()))
    while ahead:
        one = ahead.pop()
        if one not in found:
            found.add(one)
            ahead += parents.get(one, ())
    return found


def _gone(row: Row) -> str:
    if row.checkpoint == SHARD_END:
        return "finished, and not listed any more: nothing is stored"
    return "not listed any more: what the application had not read in it has expired"


def _lease(mapping: EventSourceMapping, stream: str, shard: Shard, position: Position, *, is_finished: bool) -> Lease:
    return Lease(
        mapping=mapping.uuid, shard=shard.id, stream=stream, owner="", generation=1, factor=mapping.lanes,
        positions=(position,) * mapping.lanes, parents=shard.parents, is_finished=is_finished,
    )  # fmt: skip


def _checkpoint(positions: Sequence[Position]) -> tuple[str, str]:
    sequences = [position.sequence for position in positions if isinstance(position, AfterSequence)]
    if len(sequences) == len(positions):
        lowest = min(sequences, key=int)
        more = "" if len(set(sequences)) == 1 else ", the lowest of its lanes: what the others did is delivered again"
        return lowest, f"after {lowest}{more}"
    if any(isinstance(position, AtTimestamp) for position in positions):
        return TRIM_HORIZON, "from the oldest record: KCL's tables hold no time"
    return TRIM_HORIZON, "from the oldest record"


def _item(shard: Shard, checkpoint: str, children: Sequence[str], kind: SourceKind) -> dict[str, Any]:
    item: dict[str, Any] = {
        "leaseKey": {"S": shard.id}, "leaseCounter": {"N": "0"}, "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "checkpoint": {"S": checkpoint}, "checkpointSubSequenceNumber": {"N": "0"},
    }  # fmt: skip
    if shard.parents:
        item["parentShardId"] = {"SS": sorted(shard.parents)}
    if children:
        item["childShardIds"] = {"SS": sorted(children)}
    hash_keys = NO_HASH_KEYS if kind is SourceKind.DYNAMODB else shard.hash_keys
    if hash_keys is not None:
        item["startingHashKey"], item["endingHashKey"] = {"S": hash_keys[0]}, {"S": hash_keys[1]}
    return item
