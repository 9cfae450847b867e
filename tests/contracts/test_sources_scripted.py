"""Streams where only a scripted server says it: throttling, expiry, trimming, ends, pages, and what makes no sense."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from esm.aws.sessions import Sessions
from esm.errors import EsmError, OperatorNeeded, PositionLost, ShardGone, Unavailable
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.position import AfterSequence, AtTimestamp, Shard, TrimHorizon
from esm.model.record import ChildShard, StreamRecord
from esm.sources.cursor import FAILURES_MAX, FIRST_READS_MAX
from esm.sources.dynamodb import SKIPS_MAX, DynamoDBStream
from esm.sources.kinesis import KinesisStream
from tests.fakes.aws_server import PAGE, Ask, Said, Script, aws_server, refusing, saying

KINESIS = Arn.parse("arn:aws:kinesis:us-east-1:123456789012:stream/s")
DYNAMODB = Arn.parse("arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2026-01-01T00:00:00.000")
SHARD = "shardId-00000001573689847184-864758bb"
SEQUENCE = "335200000000005156412331"
ITERATOR = saying({"ShardIterator": "first"})
NO_RECORDS = saying({"Records": [], "NextShardIterator": "next"})
Make = Callable[[Sessions], KinesisStream | DynamoDBStream]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def kinesis(sessions: Sessions) -> KinesisStream:
    return KinesisStream(KINESIS, "arn:aws:iam::123456789012:role/f", sessions)


def dynamodb(sessions: Sessions) -> DynamoDBStream:
    return DynamoDBStream(DYNAMODB, sessions, reads_per_s_busy=10_000)


STREAMS = pytest.mark.parametrize("make", [kinesis, dynamodb])


def kinesis_record(sequence: str = SEQUENCE, at: float | None = 1545084650.987) -> dict[str, Any]:
    data = base64.b64encode(b"hello").decode()
    arrival = {} if at is None else {"ApproximateArrivalTimestamp": at}
    return {"SequenceNumber": sequence, "PartitionKey": "k", "Data": data, **arrival}


def dynamodb_record(sequence: str = SEQUENCE, at: float | None = 1663943957.0) -> dict[str, Any]:
    change: dict[str, Any] = {"Keys": {"key": {"S": "a"}}, "SequenceNumber": sequence, "SizeBytes": 1}
    if at is not None:
        change["ApproximateCreationDateTime"] = at
    return {"eventID": "e", "eventName": "INSERT", "dynamodb": change}


def page(*records: dict[str, Any], after: str | None = "next") -> Said:
    return saying({"Records": records, "NextShardIterator": after})


def after(sequence: str = SEQUENCE, age_s: float = 60) -> AfterSequence:
    return AfterSequence(sequence, UnixTime(time.time() - age_s))


def summary(hours: int = 24, status: str = "ACTIVE", **more: object) -> Said:
    described = {"RetentionPeriodHours": hours, "StreamStatus": status, "StreamCreationTimestamp": 1.5, **more}
    return saying({"StreamDescriptionSummary": described})


def described(*shards: dict[str, Any], last: str | None = None) -> Said:
    return saying({"StreamDescription": {"Shards": shards, "LastEvaluatedShardId": last}})


def shard(number: int, parent: int | None = None, *, is_closed: bool = False) -> dict[str, Any]:
    ending = {"EndingSequenceNumber": "2"} if is_closed else {}
    made = {"ShardId": name(number), "SequenceNumberRange": {"StartingSequenceNumber": "1", **ending}}
    return made if parent is None else {**made, "ParentShardId": name(parent)}


def name(number: int) -> str:
    return f"shardId-{number:020d}-00000000"


# Reading


@STREAMS
@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        (refusing("ProvisionedThroughputExceededException", "Rate exceeded"), Unavailable, "Rate exceeded"),
        (refusing("LimitExceededException"), Unavailable, "LimitExceeded"),
        (refusing("InternalFailure", status=500), Unavailable, "InternalFailure"),
        (PAGE, Unavailable, "GetRecords: 502"),
        (Said(b"<html>", 200), Unavailable, "the answer is not"),
        (Said(b'{"NextShardIterator": "no records"}'), Unavailable, "the answer is not"),
        (page({"SequenceNumber": "1"}), Unavailable, "the answer is not"),
        (refusing("KMSAccessDeniedException", "key is gone"), OperatorNeeded, "KMSAccessDeniedException: key is gone"),
        (refusing("AccessDeniedException"), OperatorNeeded, "AccessDenied"),
    ],
)
async def test_a_read_that_fails_says_who_must_act(make: Make, said: Said, kind: type[EsmError], text: str) -> None:
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=said) as (_, sessions):
        with pytest.raises(kind, match=text):
            await make(sessions).open(SHARD, TrimHorizon()).read(10)


@STREAMS
async def test_throttling_keeps_the_iterator(make: Make) -> None:
    script = [refusing("ProvisionedThroughputExceededException"), NO_RECORDS]
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=script) as (server, sessions):
        reader = make(sessions).open(SHARD, TrimHorizon())
        with pytest.raises(Unavailable):
            await reader.read(10)
        await reader.read(10)
        await reader.read(10)
        assert [asked["ShardIterator"] for asked in server.asked("GetRecords")] == ["first", "first", "next"]
        assert len(server.asked("GetShardIterator")) == 1


@STREAMS
async def test_an_iterator_that_fails_again_and_again_is_not_trusted_any_more(make: Make) -> None:
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=PAGE) as (server, sessions):
        reader = make(sessions).open(SHARD, TrimHorizon())
        for _ in range(FAILURES_MAX + 1):
            with pytest.raises(Unavailable):
                await reader.read(10)
        assert len(server.asked("GetShardIterator")) == 2


@STREAMS
@pytest.mark.parametrize("code", ["InvalidArgumentException", "ValidationException"])
async def test_an_iterator_that_is_refused_is_replaced_at_the_next_read(make: Make, code: str) -> None:
    script = [refusing(code, "Invalid ShardIterator."), NO_RECORDS]
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=script) as (server, sessions):
        reader = make(sessions).open(SHARD, TrimHorizon())
        with pytest.raises(OperatorNeeded):
            await reader.read(10)
        await reader.read(10)
        assert len(server.asked("GetShardIterator")) == 2


@STREAMS
async def test_an_expired_iterator_is_opened_again_where_the_reader_stands(make: Make) -> None:
    is_kinesis = make is kinesis
    record = kinesis_record(at=time.time()) if is_kinesis else dynamodb_record()
    script = [page(record), refusing("ExpiredIteratorException"), NO_RECORDS]
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=script) as (server, sessions):
        reader = make(sessions).open(SHARD, TrimHorizon())
        assert len((await reader.read(10)).records) == 1
        assert (await reader.read(10)).records == []
        first, second = server.asked("GetShardIterator")
    assert first["ShardIteratorType"] == "TRIM_HORIZON"
    assert second["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER"
    assert second["StartingSequenceNumber" if is_kinesis else "SequenceNumber"] == SEQUENCE


@STREAMS
async def test_an_iterator_that_expires_before_the_first_record_is_opened_where_it_was(make: Make) -> None:
    script = [refusing("ExpiredIteratorException"), NO_RECORDS]
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=script) as (server, sessions):
        await make(sessions).open(SHARD, after()).read(10)
        first, second = server.asked("GetShardIterator")
        assert first == second


@STREAMS
async def test_the_end_of_a_shard_is_said_with_its_last_records(make: Make) -> None:
    record = kinesis_record() if make is kinesis else dynamodb_record()
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=page(record, after=None)) as (_, sessions):
        read = await make(sessions).open(SHARD, TrimHorizon()).read(10)
    assert (len(read.records), read.has_ended) == (1, True)


@STREAMS
async def test_a_record_without_its_time_counts_as_new(make: Make) -> None:
    record = kinesis_record(at=None) if make is kinesis else dynamodb_record(at=None)
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=page(record)) as (_, sessions):
        (found,) = (await make(sessions).open(SHARD, TrimHorizon()).read(10)).records
    assert found.arrived_at == pytest.approx(time.time(), abs=5)


@STREAMS
async def test_a_sequence_number_that_is_none_is_refused(make: Make) -> None:
    record = kinesis_record('1","x":"') if make is kinesis else dynamodb_record('1","x":"')
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=page(record)) as (_, sessions):
        with pytest.raises(Unavailable, match="a sequence number is no number"):
            await make(sessions).open(SHARD, TrimHorizon()).read(10)


@pytest.mark.parametrize(("make", "most"), [(kinesis, 10_000), (dynamodb, 1_000)])
async def test_a_read_asks_for_no_more_than_the_service_gives(make: Make, most: int) -> None:
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=NO_RECORDS) as (server, sessions):
        reader = make(sessions).open(SHARD, TrimHorizon())
        await reader.read(50_000)
        await reader.read(7)
        assert [asked["Limit"] for asked in server.asked("GetRecords")] == [most, 7]


# What is gone


@STREAMS
async def test_a_shard_that_is_gone_is_not_a_stream_that_is_gone(make: Make) -> None:
    gone = refusing("ResourceNotFoundException", "Shard x in stream s under account 1 does not exist")
    there: dict[str, Script] = {"DescribeStreamSummary": summary(), "DescribeStream": described()}
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=gone, **there) as (_, sessions):
        with pytest.raises(ShardGone):
            await make(sessions).open(SHARD, TrimHorizon()).read(10)
    async with aws_server(GetShardIterator=gone, **there) as (_, sessions):
        assert not await make(sessions).exists(SHARD)
        with pytest.raises(ShardGone):
            await make(sessions).open(SHARD, TrimHorizon()).read(10)


@STREAMS
async def test_a_stream_that_is_gone_is_an_operators_matter(make: Make) -> None:
    gone = refusing("ResourceNotFoundException", "Shard x in stream s under account 1 does not exist")
    script = dict.fromkeys(("GetRecords", "DescribeStreamSummary", "DescribeStream", "ListShards"), gone)
    async with aws_server(GetShardIterator=ITERATOR, **script) as (_, sessions):
        with pytest.raises(OperatorNeeded, match=r"^Stream not found: arn:aws:"):
            await make(sessions).open(SHARD, TrimHorizon()).read(10)
        with pytest.raises(OperatorNeeded, match=r"^Stream not found: arn:aws:"):
            await make(sessions).shards()


async def test_a_stream_that_is_being_deleted_is_not_found_any_more() -> None:
    gone = refusing("ResourceNotFoundException")
    async with aws_server(GetShardIterator=gone, DescribeStreamSummary=summary(status="DELETING")) as (_, sessions):
        with pytest.raises(OperatorNeeded, match=f"^Stream not found: {KINESIS}$"):
            await kinesis(sessions).exists(SHARD)


@pytest.mark.parametrize(
    ("make", "actions"),
    [
        (kinesis, "GetRecords, GetShardIterator, DescribeStream, ListShards, and ListStreams"),
        (dynamodb, "GetRecords, GetShardIterator, DescribeStream, and ListStreams"),
    ],
)
async def test_a_stream_that_may_not_be_read_is_told_in_lambdas_words(make: Make, actions: str) -> None:
    denied = refusing("AccessDeniedException", "User: x")
    script = dict.fromkeys(("DescribeStreamSummary", "DescribeStream", "ListShards"), denied)
    async with aws_server(**script) as (_, sessions):
        for ask in (make(sessions).facts(), make(sessions).shards()):
            with pytest.raises(OperatorNeeded) as caught:
                await ask
            assert str(caught.value).startswith(f"Cannot access stream arn:aws:{make.__name__}")
            assert f"the role can perform the {actions} Actions on your stream in IAM. (" in str(caught.value)


@STREAMS
@pytest.mark.parametrize("operation", ["GetShardIterator", "GetRecords"])
async def test_a_position_that_was_trimmed_is_lost(make: Make, operation: str) -> None:
    trimmed = refusing("TrimmedDataAccessException", "beyond trim horizon")
    async with aws_server(**{"GetShardIterator": ITERATOR, operation: trimmed}) as (_, sessions):
        with pytest.raises(PositionLost, match="beyond trim horizon"):
            await make(sessions).open(SHARD, after()).read(10)


@STREAMS
async def test_the_oldest_record_that_leaves_while_it_is_pointed_at_is_nobodys_loss(make: Make) -> None:
    script = [refusing("TrimmedDataAccessException"), NO_RECORDS]
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=script) as (server, sessions):
        assert (await make(sessions).open(SHARD, TrimHorizon()).read(10)).records == []
        assert len(server.asked("GetShardIterator")) == 2


@pytest.mark.parametrize(("make", "code"), [(kinesis, "InvalidArgumentException"), (dynamodb, "ValidationException")])
async def test_a_sequence_number_that_the_stream_does_not_know_is_lost(make: Make, code: str) -> None:
    async with aws_server(GetShardIterator=refusing(code)) as (_, sessions):
        with pytest.raises(PositionLost, match=f"does not know the record {SEQUENCE}"):
            await make(sessions).open(SHARD, after()).read(10)
        with pytest.raises(OperatorNeeded, match=code):
            await make(sessions).open(SHARD, TrimHorizon()).read(10)


# Kinesis


async def test_a_kinesis_position_older_than_the_retention_is_lost_for_kinesis_does_not_say_so() -> None:
    async with aws_server(GetShardIterator=ITERATOR, DescribeStreamSummary=summary(24)) as (server, sessions):
        with pytest.raises(PositionLost, match="older than the stream's retention"):
            await kinesis(sessions).open(SHARD, after(age_s=25 * 3600)).read(10)
        assert server.asked("GetShardIterator") == []


async def test_a_retention_that_was_lengthened_meanwhile_keeps_the_position() -> None:
    script: dict[str, Script] = {"DescribeStreamSummary": [summary(24), summary(48)], "GetRecords": NO_RECORDS}
    async with aws_server(GetShardIterator=ITERATOR, **script) as (_, sessions):
        source = kinesis(sessions)
        assert (await source.facts()).retention_s == 24 * 3600
        assert (await source.open(SHARD, after(age_s=25 * 3600)).read(10)).records == []


async def test_a_kinesis_stream_made_again_has_another_identity() -> None:
    script = [summary(StreamCreationTimestamp=1.5), summary(StreamCreationTimestamp=2)]
    async with aws_server(DescribeStreamSummary=script) as (_, sessions):
        source = kinesis(sessions)
        assert [(await source.facts()).identity for _ in range(2)] == [f"{KINESIS}@1.500", f"{KINESIS}@2.000"]


async def test_children_and_lag_come_with_the_answer() -> None:
    answer = {
        "Records": [], "MillisBehindLatest": 1500,
        "ChildShards": [
            {"ShardId": "shardId-000000000001", "ParentShards": ["a"], "HashKeyRange": {}},
            {"ShardId": "shardId-000000000002", "ParentShards": ["a", "b"], "HashKeyRange": {}},
        ],
    }  # fmt: skip
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=saying(answer)) as (_, sessions):
        read = await kinesis(sessions).open("a", TrimHorizon()).read(10)
    assert (read.behind_s, read.has_ended) == (1.5, True)
    assert read.children == (
        ChildShard("shardId-000000000001", ("a",)),
        ChildShard("shardId-000000000002", ("a", "b")),
    )


async def test_all_pages_of_kinesis_shards_are_read_and_the_token_stands_alone() -> None:
    script = [
        saying({"Shards": [shard(0, is_closed=True)], "NextToken": "more"}),
        saying({"Shards": [{**shard(1, 0), "AdjacentParentShardId": name(7)}], "NextToken": "most"}),
        saying({"Shards": [shard(2)]}),
    ]
    async with aws_server(ListShards=script) as (server, sessions):
        assert await kinesis(sessions).shards() == [
            Shard(name(0), (), is_closed=True), Shard(name(1), (name(0), name(7))), Shard(name(2)),
        ]  # fmt: skip
        first, second, third = server.asked("ListShards")
    assert first == {"StreamName": "s", "StreamARN": str(KINESIS), "MaxResults": 1000}
    assert (second, third) == ({"NextToken": "more", "MaxResults": 1000}, {"NextToken": "most", "MaxResults": 1000})


async def test_a_server_that_does_not_know_the_arn_of_a_stream_is_asked_by_name_from_then_on() -> None:
    async def by_name(ask: Ask) -> Said:
        if "StreamARN" in ask.parameters:
            return refusing("SerializationException", "Unknown field StreamARN")
        return NO_RECORDS if ask.operation == "GetRecords" else ITERATOR

    async with aws_server(GetShardIterator=by_name, GetRecords=by_name) as (server, sessions):
        source = kinesis(sessions)
        for _ in range(2):
            await source.open(SHARD, TrimHorizon()).read(10)
        assert ["StreamARN" in asked for asked in server.asked("GetShardIterator")] == [True, False, False]
        assert ["StreamARN" in asked for asked in server.asked("GetRecords")] == [False, False]


async def test_calls_that_are_refused_for_the_arn_at_the_same_time_all_go_on_by_name() -> None:
    both_came = asyncio.Event()
    came = 0

    async def by_name(ask: Ask) -> Said:
        nonlocal came
        if "StreamARN" not in ask.parameters:
            return ITERATOR
        came += 1
        if came == 2:
            both_came.set()
        await both_came.wait()
        return refusing("ValidationException", "Unknown field streamARN")

    async with aws_server(GetShardIterator=by_name) as (_, sessions):
        source = kinesis(sessions)
        assert await asyncio.gather(source.exists(SHARD), source.exists(SHARD)) == [True, True]


async def test_an_instant_is_asked_for_in_seconds() -> None:
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=NO_RECORDS) as (server, sessions):
        await kinesis(sessions).open(SHARD, AtTimestamp(UnixTime(1545084650.0))).read(10)
        (asked,) = server.asked("GetShardIterator")
    assert (asked["ShardIteratorType"], asked["Timestamp"]) == ("AT_TIMESTAMP", 1545084650)


async def test_kinesis_is_asked_in_json_and_with_the_arn() -> None:
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=NO_RECORDS) as (server, sessions):
        await kinesis(sessions).open(SHARD, TrimHorizon()).read(10)
        assert server.asked("GetRecords")[0]["StreamARN"] == str(KINESIS)
        assert server.asks[-1].headers["Content-Type"] == "application/x-amz-json-1.1"


async def test_a_creation_time_that_is_none_and_other_nonsense_is_unavailable() -> None:
    nonsense = {
        "DescribeStreamSummary": summary(StreamCreationTimestamp=None, RetentionPeriodHours=24),
        "ListShards": saying({"Shards": [{"ParentShardId": name(1)}]}),
        "GetShardIterator": saying({}),
    }
    async with aws_server(**nonsense) as (_, sessions):
        assert (await kinesis(sessions).facts()).identity == f"{KINESIS}@"
        with pytest.raises(Unavailable, match="ListShards: the answer is not Kinesis's"):
            await kinesis(sessions).shards()
        with pytest.raises(Unavailable, match="GetShardIterator: the answer is not Kinesis's"):
            await kinesis(sessions).exists(SHARD)


# DynamoDB


async def test_more_than_a_hundred_dynamodb_shards_are_listed() -> None:
    async def pages(ask: Ask) -> Said:
        first = int(str(ask.parameters.get("ExclusiveStartShardId", name(-1)))[8:28]) + 1
        last = min(first + 100, 250)
        shards = [shard(number, number - 1, is_closed=number < 249) for number in range(first, last)]
        return described(*shards, last=name(last - 1) if last < 250 else None)

    async with aws_server(DescribeStream=pages) as (server, sessions):
        shards = await dynamodb(sessions).shards()
    assert [one.id for one in shards] == [name(number) for number in range(250)]
    assert [one.is_closed for one in shards] == [True] * 249 + [False]
    assert shards[7].parents == (name(6),)
    assert len(server.asked("DescribeStream")) == 3


async def test_children_are_asked_for_by_their_parent() -> None:
    async with aws_server(DescribeStream=described(shard(2, 1), shard(3, 1))) as (server, sessions):
        children = await dynamodb(sessions).children(name(1))
        (asked,) = server.asked("DescribeStream")
    assert children == [Shard(name(2), (name(1),)), Shard(name(3), (name(1),))]
    assert asked["ShardFilter"] == {"Type": "CHILD_SHARDS", "ShardId": name(1)}


async def test_a_shard_without_children_yet_has_none() -> None:
    async with aws_server(DescribeStream=described()) as (server, sessions):
        source = dynamodb(sessions)
        assert [await source.children(name(1)) for _ in range(2)] == [[], []]
        assert len(server.asked("DescribeStream")) == 2


@pytest.mark.parametrize(
    "said", [refusing("ValidationException", "Unknown parameter ShardFilter"), described(shard(1), shard(2, 1))]
)
async def test_a_server_that_refuses_or_ignores_the_filter_is_not_asked_again(said: Said) -> None:
    async with aws_server(DescribeStream=said) as (server, sessions):
        source = dynamodb(sessions)
        assert [await source.children(name(1)) for _ in range(2)] == [None, None]
        assert len(server.asked("DescribeStream")) == 1


async def test_a_permission_that_is_missing_for_a_while_does_not_end_the_asking_for_children() -> None:
    script = [refusing("AccessDeniedException"), described(shard(2, 1))]
    async with aws_server(DescribeStream=script) as (_, sessions):
        source = dynamodb(sessions)
        assert await source.children(name(1)) is None
        assert await source.children(name(1)) == [Shard(name(2), (name(1),))]


async def test_from_an_instant_on_the_reader_passes_over_what_is_older_without_a_pause_of_its_caller() -> None:
    old, new = dynamodb_record("1", at=1000.0), dynamodb_record("2", at=2000.0)
    script = [page(old, old, after="b"), page(old, after="c"), page(old, new, after="d")]
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=script) as (server, sessions):
        read = await dynamodb(sessions).open(SHARD, AtTimestamp(UnixTime(2000.7))).read(10)
        assert [record.sequence for record in read.records] == ["2"]  # times are whole seconds: 2000 may be 2000.9
        assert [asked["ShardIterator"] for asked in server.asked("GetRecords")] == ["first", "b", "c"]
        assert server.asked("GetShardIterator")[0]["ShardIteratorType"] == "TRIM_HORIZON"


async def test_passing_over_ends_with_an_empty_answer_and_after_some_reads() -> None:
    old = dynamodb_record("1", at=1000.0)
    position = AtTimestamp(UnixTime(2000.0))
    script: list[Said] = [page(old), NO_RECORDS]
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=script) as (server, sessions):
        assert (await dynamodb(sessions).open(SHARD, position).read(10)).records == []
        assert len(server.asked("GetRecords")) == 2
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=page(old)) as (server, sessions):
        assert (await dynamodb(sessions).open(SHARD, position).read(10)).records == []
        assert len(server.asked("GetRecords")) == 1 + SKIPS_MAX


async def test_passing_over_that_is_throttled_goes_on_from_where_it_was() -> None:
    old, new = dynamodb_record("1", at=1000.0), dynamodb_record("2", at=2000.0)
    script = [page(old, after="b"), refusing("LimitExceededException"), page(new, after="c")]
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=script) as (server, sessions):
        reader = dynamodb(sessions).open(SHARD, AtTimestamp(UnixTime(2000.0)))
        assert (await reader.read(10)).records == []
        assert [record.sequence for record in (await reader.read(10)).records] == ["2"]
        assert [asked["ShardIterator"] for asked in server.asked("GetRecords")] == ["first", "b", "b"]


async def test_keys_are_one_lane_whatever_the_order_of_their_attributes() -> None:
    def keyed(text: str) -> Said:
        return Said(
            b'{"Records":[{"eventID":"e","eventName":"INSERT","dynamodb":{"SequenceNumber":"1","Keys":%s}}]}'
            % text.encode()
        )

    keys = [
        '{"p":{"S":"a"},"s":{"N":"1"}}',
        '{ "s": {"N": "1"}, "p": {"S": "\\u0061"} }',
        '{"p":{"S":"1"},"s":{"N":"a"}}',
    ]
    async with aws_server(GetShardIterator=ITERATOR, GetRecords=[keyed(text) for text in keys]) as (_, sessions):
        reads = [await dynamodb(sessions).open(SHARD, TrimHorizon()).read(1) for _ in keys]
    lanes = [read.records[0].lane_hash for read in reads]
    assert lanes[0] == lanes[1] != lanes[2]
    assert json.loads(reads[1].records[0].event)["dynamodb"]["Keys"] == {"p": {"S": "a"}, "s": {"N": "1"}}


async def test_a_dynamodb_description_that_makes_no_sense_is_unavailable() -> None:
    async with aws_server(DescribeStream=saying({})) as (_, sessions):
        with pytest.raises(Unavailable, match="DescribeStream: the answer is not DynamoDB's"):
            await dynamodb(sessions).shards()


# The record at a sequence number


async def first_from(make: Make, iterator: Script, records: Script) -> tuple[StreamRecord | None, int]:
    """What a shard answers, and how often it was read for that."""
    async with aws_server(GetShardIterator=iterator, GetRecords=records) as (server, sessions):
        source = make(sessions)
        source.reads_per_s_busy = 1000
        return await source.first_from(SHARD, SEQUENCE), len(server.asked("GetRecords"))


@STREAMS
@pytest.mark.parametrize(
    ("records", "reads"),
    [(refusing("TrimmedDataAccessException"), 1), (page(after=None), 1), (NO_RECORDS, FIRST_READS_MAX)],
)  # fmt: skip
async def test_a_record_that_does_not_show_is_none(make: Make, records: Script, reads: int) -> None:
    assert await first_from(make, ITERATOR, records) == (None, reads)


@STREAMS
async def test_a_shard_that_is_throttled_for_once_is_read_again(make: Make) -> None:
    throttled = refusing("ProvisionedThroughputExceededException")
    assert await first_from(make, ITERATOR, [throttled, page(after=None)]) == (None, 2)


@STREAMS
async def test_a_shard_that_is_throttled_all_the_time_is_unavailable(make: Make) -> None:
    with pytest.raises(Unavailable):
        await first_from(make, ITERATOR, refusing("ProvisionedThroughputExceededException"))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (kinesis, "InvalidArgumentException"), (dynamodb, "ValidationException"),
        (dynamodb, "TrimmedDataAccessException"),
    ],
)  # fmt: skip
async def test_a_sequence_number_that_a_shard_does_not_know_has_no_record(make: Make, code: str) -> None:
    assert await first_from(make, refusing(code), NO_RECORDS) == (None, 0)


@STREAMS
async def test_a_shard_that_may_not_be_read_is_not_taken_for_one_without_the_record(make: Make) -> None:
    with pytest.raises(OperatorNeeded, match="AccessDenied"):
        await first_from(make, refusing("AccessDeniedException"), NO_RECORDS)
