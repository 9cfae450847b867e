"""A stream: one body for Kinesis and DynamoDB Streams on every server that speaks them."""

import base64
import json
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import anyio
import pytest

from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded, PositionLost
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.position import AfterSequence, AtTimestamp, Position, TrimHorizon
from esm.model.record import StreamRecord
from esm.ports import ShardReader, StreamSource
from esm.sources import dynamodb, kinesis
from esm.sources.dynamodb import DynamoDBStream
from esm.sources.kinesis import KinesisStream

ROLE = "arn:aws:iam::123456789012:role/f"
SERVERS = {"moto_url": "123456789012", "ministack": "000000000000", "kinesalite": "000000000000"}
KINDS = [
    pytest.param(("kinesis", "moto_url"), id="kinesis-moto"),
    pytest.param(("kinesis", "ministack"), id="kinesis-ministack"),
    pytest.param(("kinesis", "kinesalite"), id="kinesis-kinesalite", marks=pytest.mark.node),
    pytest.param(("dynamodb", "moto_url"), id="dynamodb-moto"),
    pytest.param(("dynamodb", "ministack"), id="dynamodb-ministack"),
]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@dataclass
class World:
    """A stream on a real server, the source that reads it, and the hand that writes to it."""

    arn: str
    source: StreamSource
    again: Callable[[], StreamSource]
    """Another source of the same stream."""
    absent: Callable[[], StreamSource]
    """A source of a stream that is not there."""
    put: Callable[[str, str], Awaitable[object]]
    """Write a text under a key."""
    text: Callable[[StreamRecord], str]
    """The text of a record."""
    delete: Callable[[], Awaitable[object]]
    writer: object
    server: str

    async def record(self, position: Position | None = None, limit: int = 100) -> list[StreamRecord]:
        """What the first shard holds from a position on."""
        shards = await self.source.shards()
        return (await self.source.open(shards[0].id, position or TrimHorizon()).read(limit)).records


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    kind, server = request.param
    async with AsyncExitStack() as stack:
        make = kinesis_world if kind == "kinesis" else dynamodb_world
        yield await make(request.getfixturevalue(server), server, stack)


@pytest.fixture
async def lineage(kinesalite: str) -> AsyncIterator[World]:
    """A Kinesis stream whose shards can be split and end."""
    async with AsyncExitStack() as stack:
        yield await kinesis_world(kinesalite, "kinesalite", stack)


async def clients(endpoint: str, writes: str, actions: tuple[str, ...], stack: AsyncExitStack) -> tuple[object, ...]:
    """Sessions whose every call must be one that the README's policy allows, and a client that writes."""
    calls: set[str] = set()
    reading = Sessions("us-east-1", endpoint, {}, lambda _, operation, __: calls.add(operation))
    writing = Sessions("us-east-1", endpoint, {}, lambda *_: None)

    def check() -> None:
        assert calls <= {action.partition(":")[2] for action in actions}

    stack.callback(check)
    stack.push_async_callback(reading.aclose)
    stack.push_async_callback(writing.aclose)
    return reading, await writing.client(writes)


async def kinesis_world(endpoint: str, server: str, stack: AsyncExitStack) -> World:
    reading, writer = await clients(endpoint, "kinesis", kinesis.IAM_ACTIONS, stack)
    name = f"s-{uuid.uuid4()}"
    await writer.create_stream(StreamName=name, ShardCount=1)
    await writer.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0, "MaxAttempts": 1000})
    arn = Arn.parse(f"arn:aws:kinesis:us-east-1:{SERVERS[server]}:stream/{name}")

    def again() -> KinesisStream:
        return KinesisStream(arn, ROLE, reading)

    return World(
        arn=str(arn), source=again(), again=again, writer=writer, server=server,
        absent=lambda: KinesisStream(Arn.parse(f"{arn}-not"), ROLE, reading),
        put=lambda key, text: writer.put_record(StreamName=name, PartitionKey=key, Data=text.encode()),
        text=lambda record: decoded(json.loads(record.event)["kinesis"]["data"]),
        delete=lambda: writer.delete_stream(StreamName=name),
    )  # fmt: skip


def decoded(data: str) -> str:
    return base64.b64decode(data).decode()


async def dynamodb_world(endpoint: str, server: str, stack: AsyncExitStack) -> World:
    reading, writer = await clients(endpoint, "dynamodb", dynamodb.IAM_ACTIONS, stack)
    name = f"t-{uuid.uuid4()}"
    made = await writer.create_table(
        TableName=name, KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}], BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )  # fmt: skip
    arn = Arn.parse(made["TableDescription"]["LatestStreamArn"])

    def again() -> DynamoDBStream:
        return DynamoDBStream(arn, reading)

    return World(
        arn=str(arn), source=again(), again=again, writer=writer, server=server,
        absent=lambda: DynamoDBStream(Arn.parse(str(arn).replace(name, f"{name}-not")), reading),
        put=lambda key, text: writer.put_item(TableName=name, Item={"key": {"S": key}, "text": {"S": text}}),
        text=lambda record: json.loads(record.event)["dynamodb"]["NewImage"]["text"]["S"],
        delete=lambda: writer.delete_table(TableName=name),
    )  # fmt: skip


async def test_a_stream_says_who_it_is_the_same_each_time(world: World) -> None:
    facts = await world.source.facts()
    assert facts.identity.startswith(world.arn)
    assert facts.retention_s == 86_400
    assert (await world.again().facts()) == facts


async def test_records_come_in_order_with_their_arrival(world: World) -> None:
    before = time.time()
    for number in range(5):
        await world.put("k", f"text {number} ä")
    records = await world.record()
    assert [world.text(record) for record in records] == [f"text {number} ä" for number in range(5)]
    sequences = [int(record.sequence) for record in records]
    assert sequences == sorted(set(sequences))
    for record in records:
        assert before - 2 < record.arrived_at < time.time() + 2
        assert json.loads(record.event)["eventSourceARN"] == world.arn


async def test_a_record_is_found_by_its_sequence_number(world: World) -> None:
    for number in range(3):
        await world.put("k", f"text {number}")
    (shard,) = await world.source.shards()
    for record in await world.record():
        found = await world.source.first_from(shard.id, record.sequence)
        assert found == record
    assert shard.first_sequence == "" or int(shard.first_sequence) <= int((await world.record())[0].sequence)
    if ":kinesis:" in world.arn:  # moto answers 500 for a sequence number that a DynamoDB stream does not have
        assert await world.source.first_from(shard.id, "1") in [None, *await world.record()]


async def test_a_read_says_how_large_it_is_and_that_the_shard_goes_on(world: World) -> None:
    await world.put("k", "text")
    (shard,) = await world.source.shards()
    read = await world.source.open(shard.id, TrimHorizon()).read(100)
    assert read.size_bytes == sum(len(record.event) for record in read.records) > 0
    assert not read.has_ended
    assert read.size_bytes < world.source.read_bytes_max


async def test_a_reader_goes_on_where_it_was_and_brings_no_more_than_asked(world: World) -> None:
    for number in range(3):
        await world.put("k", str(number))
    (shard,) = await world.source.shards()
    reader = world.source.open(shard.id, TrimHorizon())
    found = [[world.text(record) for record in (await reader.read(2)).records] for _ in range(3)]
    assert found == [["0", "1"], ["2"], []]
    await world.put("k", "late")
    assert [world.text(record) for record in (await reader.read(2)).records] == ["late"]


async def test_a_stored_position_is_the_record_before_the_next_one(world: World) -> None:
    for number in range(3):
        await world.put("k", str(number))
    first = (await world.record())[0]
    position = AfterSequence(first.sequence, first.arrived_at)
    assert [world.text(record) for record in await world.record(position)] == ["1", "2"]


async def test_from_an_instant_on_nothing_earlier_comes(world: World) -> None:
    await world.put("k", "early")
    assert [world.text(record) for record in await world.record(AtTimestamp(UnixTime(time.time() - 60)))] == ["early"]
    if world.server != "kinesalite":  # it refuses an instant in the future
        assert await world.record(AtTimestamp(UnixTime(time.time() + 60))) == []


async def test_the_same_key_has_the_same_lane_on_every_server(world: World) -> None:
    for number, key in enumerate(("a", "b", "a")):
        await world.put(key, str(number))
    records = await world.record()
    lanes = [record.lane_hash for record in records]
    assert lanes[0] == lanes[2] != lanes[1]
    hashed = b"a" if isinstance(world.source, KinesisStream) else b'[["key",["S","a"]]]'
    assert lanes[0] == zlib.crc32(hashed)


async def test_a_shard_that_is_listed_exists_and_another_does_not(world: World) -> None:
    (shard,) = await world.source.shards()
    assert (shard.parents, shard.is_closed) == ((), False)
    assert await world.source.exists(shard.id)
    if not (world.server == "moto_url" and isinstance(world.source, DynamoDBStream)):  # it answers 500 there
        assert not await world.source.exists(shard.id[:-1] + "7")


async def test_a_stream_that_does_not_exist_is_told_in_lambdas_words(world: World) -> None:
    absent = world.absent()
    for ask in (absent.facts(), absent.shards(), absent.exists("shardId-00000000000000000000-00000000")):
        with pytest.raises(OperatorNeeded, match=r"^Stream not found: arn:aws:"):
            await ask


@pytest.mark.parametrize("world", [kind for kind in KINDS if kind.id != "dynamodb-ministack"], indirect=True)
async def test_a_stream_that_is_deleted_is_not_taken_for_shards_that_have_ended(world: World) -> None:
    """On ministack a stream stays readable when its table has gone, as on AWS for a day."""
    await world.put("k", "text")
    (shard,) = await world.source.shards()
    reader: ShardReader = world.source.open(shard.id, TrimHorizon())
    await reader.read(1)
    await world.delete()
    with anyio.fail_after(5):
        while True:
            try:
                await reader.read(1)
                await world.source.open(shard.id, TrimHorizon()).read(1)
            except OperatorNeeded as error:
                assert str(error) == f"Stream not found: {world.arn}"
                break
            await anyio.sleep(0.02)
    with pytest.raises(OperatorNeeded, match=r"^Stream not found: "):
        await world.source.exists(shard.id)


async def reshaped(world: World) -> None:
    """Return once a split or a merge is over."""
    name = world.arn.rpartition("/")[2]
    await world.writer.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0, "MaxAttempts": 1000})


async def test_a_split_shard_ends_and_its_children_name_it(lineage: World) -> None:
    await lineage.put("k", "before")
    (parent,) = await lineage.source.shards()
    reader = lineage.source.open(parent.id, TrimHorizon())
    await lineage.writer.split_shard(
        StreamName=lineage.arn.rpartition("/")[2], ShardToSplit=parent.id, NewStartingHashKey=str(2**127)
    )
    await reshaped(lineage)
    shards = await lineage.source.shards()
    assert [shard.is_closed for shard in shards] == [True, False, False]
    assert [shard.parents for shard in shards] == [(), (parent.id,), (parent.id,)]
    texts: list[str] = []
    with anyio.fail_after(5):
        while True:
            read = await reader.read(100)
            texts += [lineage.text(record) for record in read.records]
            if read.has_ended:
                break
    assert texts == ["before"]
    await lineage.writer.merge_shards(
        StreamName=lineage.arn.rpartition("/")[2], ShardToMerge=shards[1].id, AdjacentShardToMerge=shards[2].id
    )
    await reshaped(lineage)
    assert (await lineage.source.shards())[3].parents == (shards[1].id, shards[2].id)


async def test_a_position_of_another_stream_is_lost(lineage: World) -> None:
    foreign = AfterSequence("49590338271490256608559692538361571095921575989136588898", UnixTime(time.time()))
    with pytest.raises(PositionLost, match="does not know the record"):
        await lineage.record(foreign)
