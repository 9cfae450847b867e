"""Records are, byte for byte, what AWS was recorded to hand to functions. Source: wire-shapes.md 2."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esm.aws.sessions import Sessions
from esm.model.arn import Arn
from esm.model.position import TrimHorizon
from esm.sources.dynamodb import DynamoDBStream
from esm.sources.kinesis import KinesisStream
from esm.sources.sqs import SqsQueue
from tests.fakes.aws_server import Said, aws_server, saying

QUEUE = "arn:aws:sqs:us-east-1:111111111111:my-queue"
STREAM = "arn:aws:kinesis:us-east-1:111111111111:stream/lambda-stream"
TABLE = "arn:aws:dynamodb:us-east-1:111111111111:table/t/stream/2025-11-25T15:47:03.123"
ROLE = "arn:aws:iam::111111111111:role/lambda-role"
SHARD = "shardId-000000000000"
LONG_SHARD = "shardId-00000001573689847184-864758bb"

SYSTEM = {
    "ApproximateReceiveCount": "1",
    "SentTimestamp": "1545082649183",
    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
    "ApproximateFirstReceiveTimestamp": "1545082649185",
}
BODY = '{"destination": "https://sqs.us-east-1.amazonaws.com/111111111111/q", "fail_attempts": 0}'
MESSAGE = {
    "MessageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
    "ReceiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
    "MD5OfBody": "098f6bcd4621d373cade4e832627b4f6",
    "Body": BODY,
    "Attributes": SYSTEM,
}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


class Wire:
    """Sources before a server whose next hot answer is given as it goes over the wire."""

    def __init__(self, runner: asyncio.Runner, answers: list[Said], sessions: Sessions) -> None:
        self._runner = runner
        self._answers = answers
        self._sessions = sessions

    def queue(self, answer: bytes, window_s: int = 0, arn: str = QUEUE) -> bytes:
        """The events of the messages of an answer."""

        async def events() -> bytes:
            source = SqsQueue(Arn.parse(arn), self._sessions, says_null_md5=window_s > 0)
            await source.facts()
            return b",".join([message.event for message in await source.receive(10, 0)])

        return self._given(answer, events)

    def kinesis(self, answer: bytes) -> bytes:
        """The events of the records of an answer."""

        async def events() -> bytes:
            reader = KinesisStream(Arn.parse(STREAM), ROLE, self._sessions).open(SHARD, TrimHorizon())
            return b",".join([record.event for record in (await reader.read(10)).records])

        return self._given(answer, events)

    def dynamodb(self, answer: bytes) -> bytes:
        """The events of the records of an answer."""

        async def events() -> bytes:
            reader = DynamoDBStream(Arn.parse(TABLE), self._sessions).open(LONG_SHARD, TrimHorizon())
            return b",".join([record.event for record in (await reader.read(10)).records])

        return self._given(answer, events)

    def _given(self, answer: bytes, events: object) -> bytes:
        self._answers[:] = [Said(answer)]
        return self._runner.run(events())  # type: ignore[operator]


@pytest.fixture
def wire() -> Iterator[Wire]:
    answers = [Said(b"{}")]
    with asyncio.Runner() as runner:
        context = aws_server(
            GetQueueUrl=saying({"QueueUrl": "http://q"}), GetQueueAttributes=saying({"Attributes": {}}),
            GetShardIterator=saying({"ShardIterator": "i"}), GetRecords=answers, ReceiveMessage=answers,
        )  # fmt: skip
        _, sessions = runner.run(context.__aenter__())
        yield Wire(runner, answers, sessions)
        runner.run(context.__aexit__(None, None, None))


def compact(value: object) -> bytes:
    """As our own part of an event is written."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def message(*without: str, **more: object) -> bytes:
    kept = {key: value for key, value in MESSAGE.items() if key not in without}
    return json.dumps({"Messages": [{**kept, **more}]}).encode()


# SQS


def test_a_message_with_attributes(wire: Wire) -> None:
    attributes = {
        "WeeksOn": {"StringValue": "6", "DataType": "Number"},
        "Author": {"StringValue": "John Grisham", "DataType": "String"},
        "Title": {"DataType": "String", "StringValue": "The Whistler"},
    }
    md5 = "d25a6aea97eb8f585bfa92d314504a92"
    event = wire.queue(message(MessageAttributes=attributes, MD5OfMessageAttributes=md5))
    assert event == compact(
        {
            "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
            "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
            "body": BODY,
            "attributes": SYSTEM,
            "messageAttributes": {
                "WeeksOn": {"stringValue": "6", "stringListValues": [], "binaryListValues": [], "dataType": "Number"},
                "Author": {
                    "stringValue": "John Grisham", "stringListValues": [], "binaryListValues": [], "dataType": "String",
                },
                "Title": {
                    "stringValue": "The Whistler", "stringListValues": [], "binaryListValues": [], "dataType": "String",
                },
            },
            "md5OfMessageAttributes": "d25a6aea97eb8f585bfa92d314504a92",
            "md5OfBody": "098f6bcd4621d373cade4e832627b4f6",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:111111111111:my-queue",
            "awsRegion": "us-east-1",
        }
    )  # fmt: skip


@pytest.mark.parametrize("told", [{}, {"MessageAttributes": {}}, {"MD5OfMessageAttributes": None}])
def test_without_attributes_their_digest_is_absent_or_with_a_window_null(wire: Wire, told: dict[str, object]) -> None:
    assert b',"messageAttributes":{},"md5OfBody":' in wire.queue(message(**told))
    assert b',"messageAttributes":{},"md5OfMessageAttributes":null,"md5OfBody":' in wire.queue(message(**told), 1)


def test_a_digest_of_no_attributes_that_a_server_sends_all_the_same_is_left_out(wire: Wire) -> None:
    told = message(MD5OfMessageAttributes="d41d8cd98f00b204e9800998ecf8427e", MessageAttributes={})
    assert b"md5OfMessageAttributes" not in wire.queue(told)


def test_a_binary_attribute_has_its_base64_and_an_empty_string_stays(wire: Wire) -> None:
    attributes = {
        "b": {"BinaryValue": "AP8=", "DataType": "Binary"},
        "e": {"StringValue": "", "DataType": "String", "BinaryValue": None},
    }
    assert (
        b'"messageAttributes":{"b":{"binaryValue":"AP8=","stringListValues":[],"binaryListValues":[],'
        b'"dataType":"Binary"},"e":{"stringValue":"","stringListValues":[],"binaryListValues":[],"dataType":"String"}}'
    ) in wire.queue(message(MessageAttributes=attributes))


def test_a_fifo_message_keeps_all_system_attributes_in_their_order(wire: Wire) -> None:
    attributes = {
        "ApproximateReceiveCount": "1",
        "SentTimestamp": "1573251510774",
        "SequenceNumber": "18849496460467696128",
        "MessageGroupId": "1",
        "SenderId": "AIDAIO23YVJENQZJOL4VO",
        "MessageDeduplicationId": "dedup-1",
        "ApproximateFirstReceiveTimestamp": "1573251510774",
    }
    arn = "arn:aws:sqs:us-east-1:111111111111:fifo.fifo"
    event = wire.queue(message(Attributes=attributes), arn=arn)
    assert b',"attributes":' + compact(attributes) + b',"messageAttributes":{},"md5OfBody":' in event
    assert event.endswith(b',"eventSource":"aws:sqs","eventSourceARN":"' + arn.encode() + b'","awsRegion":"us-east-1"}')


def test_system_attributes_are_strings_also_where_a_server_sends_numbers(wire: Wire) -> None:
    event = wire.queue(message(Attributes={"ApproximateReceiveCount": 2, "SentTimestamp": 1545082649183}))
    assert b'"attributes":{"ApproximateReceiveCount":"2","SentTimestamp":"1545082649183"}' in event


def test_no_messages_are_no_messages_however_they_are_said(wire: Wire) -> None:
    for answer in (b"", b"{}", b'{"Messages":[]}', b'{"Messages":null}'):
        assert wire.queue(answer) == b""


# Kinesis


def test_a_kinesis_record(wire: Wire) -> None:
    answer = (
        b'{"MillisBehindLatest":0,"NextShardIterator":"n","Records":[{"ApproximateArrivalTimestamp":1.545084650987E9,'
        b'"Data":"aGVsbG8=","EncryptionType":"KMS","PartitionKey":"test_0",'
        b'"SequenceNumber":"49590338271490256608559692538361571095921575989136588898"}]}'
    )
    assert wire.kinesis(answer) == compact(
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": "test_0",
                "sequenceNumber": "49590338271490256608559692538361571095921575989136588898",
                "data": "aGVsbG8=",
                "approximateArrivalTimestamp": 1545084650.987,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": "shardId-000000000000:49590338271490256608559692538361571095921575989136588898",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:aws:iam::111111111111:role/lambda-role",
            "awsRegion": "us-east-1",
            "eventSourceARN": "arn:aws:kinesis:us-east-1:111111111111:stream/lambda-stream",
        }
    )


@pytest.mark.parametrize(("told", "seen"), [(b"1545084650", b"1545084650.0"), (b"1545084650.5", b"1545084650.5")])
def test_times_are_numbers_with_a_fraction_also_where_a_server_sends_whole_ones(
    wire: Wire, told: bytes, seen: bytes
) -> None:
    record = b'{"Records":[{"Data":"","PartitionKey":"k","SequenceNumber":"1","ApproximateArrivalTimestamp":%s}]}'
    assert b'"approximateArrivalTimestamp":%s}' % seen in wire.kinesis(record % told)
    change = b'{"Keys":{},"SequenceNumber":"1","ApproximateCreationDateTime":%s}' % told
    answer = b'{"Records":[{"eventID":"e","eventName":"INSERT","dynamodb":%s}]}' % change
    assert b'{"ApproximateCreationDateTime":%s,"Keys"' % seen in wire.dynamodb(answer)


# DynamoDB


def change(record: str = "", more: str = "") -> bytes:
    return (
        '{"Records":[{"awsRegion":"us-east-1","dynamodb":{"ApproximateCreationDateTime":1663943957.0,'
        f'"Keys":{{"my_partition_key":{{"S":"hello world"}}}},{more}'
        '"SequenceNumber":"335200000000005156412331","SizeBytes":70,"StreamViewType":"NEW_IMAGE"},'
        f'"eventID":"07784002bf31b2ea2c0ec0d3d2d6d5b7","eventName":"INSERT","eventSource":"aws:dynamodb",{record}'
        '"eventVersion":"1.1"}],"NextShardIterator":"n"}'
    ).encode()


def test_a_dynamodb_record(wire: Wire) -> None:
    image = '"NewImage":{"binary_key":{"B":"Zm9vYmFy"},"my_partition_key":{"S":"hello world"}},'
    assert wire.dynamodb(change(more=image)) == compact(
        {
            "eventID": "07784002bf31b2ea2c0ec0d3d2d6d5b7",
            "eventName": "INSERT",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1663943957.0,
                "Keys": {"my_partition_key": {"S": "hello world"}},
                "NewImage": {"binary_key": {"B": "Zm9vYmFy"}, "my_partition_key": {"S": "hello world"}},
                "SequenceNumber": "335200000000005156412331",
                "SizeBytes": 70,
                "StreamViewType": "NEW_IMAGE",
            },
            "eventSourceARN": "arn:aws:dynamodb:us-east-1:111111111111:table/t/stream/2025-11-25T15:47:03.123",
        }
    )


def test_images_that_are_not_there_are_absent_and_both_stand_in_order(wire: Wire) -> None:
    assert b'"hello world"}},"SequenceNumber"' in wire.dynamodb(change())
    assert b'"hello world"}},"SequenceNumber"' in wire.dynamodb(change(more='"NewImage":null,'))
    both = '"OldImage":{"n":{"N":"1"}},"NewImage":{"n":{"N":"2.50"}},'
    assert b',"NewImage":{"n":{"N":"2.50"}},"OldImage":{"n":{"N":"1"}},"SequenceNumber"' in wire.dynamodb(
        change(more=both)
    )


def test_a_version_of_the_server_is_not_awss(wire: Wire) -> None:
    assert b'"eventVersion":"1.1"' in wire.dynamodb(change().replace(b'"eventVersion":"1.1"', b'"eventVersion":"1.0"'))


@pytest.mark.parametrize(
    "told",
    [
        '{"PrincipalId":"dynamodb.amazonaws.com","Type":"Service"}',
        '{"type":"Service","principalId":"dynamodb.amazonaws.com"}',
    ],
)
def test_a_delete_by_time_to_live_says_who_did_it(wire: Wire, told: str) -> None:
    event = wire.dynamodb(change(record=f'"userIdentity":{told},'))
    assert event.endswith(b'.123","userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"}}')


@pytest.mark.parametrize("told", ["null", "{}"])
def test_any_other_change_does_not(wire: Wire, told: str) -> None:
    assert wire.dynamodb(change(record=f'"userIdentity":{told},')).endswith(b'.123"}')


# Byte for byte

PROPERTY = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@st.composite
def tokens(draw: st.DrawFn) -> bytes:
    """A JSON string in one of the many ways in which it may be written."""
    text = draw(TEXTS)
    token = json.dumps(text, ensure_ascii=draw(st.booleans()))
    return token.replace("/", draw(st.sampled_from(["/", "\\/"]))).encode()


@PROPERTY
@given(body=tokens(), value=tokens(), name=TEXTS)
def test_bodies_and_values_of_attributes_arrive_as_they_were_written(
    wire: Wire, body: bytes, value: bytes, name: str
) -> None:
    answer = (
        b'{"Messages":[{"MessageId":"m","ReceiptHandle":"r","Body":%s,"MD5OfBody":"5","Attributes":{},'
        b'"MessageAttributes":{%s:{"StringValue":%s,"DataType":"String"}}}]}'
    ) % (body, json.dumps(name).encode(), value)
    event = wire.queue(answer)
    assert b',"body":%s,"attributes":{}' % body in event
    assert b'{"stringValue":%s,"stringListValues":[]' % value in event
    read = json.loads(event)
    assert read["body"] == json.loads(body)
    assert list(read["messageAttributes"]) == [name]


@PROPERTY
@given(data=tokens(), key=TEXTS)
def test_data_arrives_as_it_was_written_and_keys_as_they_were_meant(wire: Wire, data: bytes, key: str) -> None:
    record = b'{"Data":%s,"PartitionKey":%s,"SequenceNumber":"1","ApproximateArrivalTimestamp":1.5}'
    event = wire.kinesis(b'{"Records":[%s]}' % (record % (data, json.dumps(key).encode())))
    assert b',"data":%s,"approximateArrivalTimestamp":1.5}' % data in event
    assert json.loads(event)["kinesis"]["partitionKey"] == key


VALUES = st.recursive(
    tokens().map(lambda token: b'{"S":%s}' % token) | st.just(b'{"NULL": true}') | st.just(b'{ "N" : "1.50" }'),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: b'{"L":[%s]}' % b" , ".join(items)),
    max_leaves=5,
)


@PROPERTY
@given(new=VALUES, old=VALUES, key=tokens())
def test_keys_and_images_arrive_as_they_were_written(wire: Wire, new: bytes, old: bytes, key: bytes) -> None:
    keys, images = b'{ "p":{"S":%s}}' % key, (b'{"a": %s}' % new, b'{"a":%s }' % old)
    answer = b'{"Records":[{"eventID":"e","eventName":"MODIFY","dynamodb":{"NewImage":%s,"OldImage":%s,"Keys":%s,' % (
        *images,
        keys,
    )
    event = wire.dynamodb(answer + b'"ApproximateCreationDateTime":1,"SequenceNumber":"1"}}]}')
    assert b',"Keys":%s,"NewImage":%s,"OldImage":%s,"SequenceNumber":"1"' % (keys, *images) in event
    json.loads(event)


def test_many_records_are_each_their_own(wire: Wire) -> None:
    records = b",".join([b'{"Data":"%d","PartitionKey":"k","SequenceNumber":"%d"}' % (n, n) for n in range(10)])
    events = json.loads(b"[%s]" % wire.kinesis(b'{"Records":[%s]}' % records))
    assert [event["kinesis"]["data"] for event in events] == [str(n) for n in range(10)]
