"""Notices of stream mappings, byte for byte as recorded, with and without the event."""

import json

from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.notice import Condition, Notice, Span
from esm.model.outcome import Ran
from esm.rules import notices
from tests.simulation.world import stream_mapping

FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:111111111111:function:f")
STREAM = Arn.parse("arn:aws:kinesis:us-east-1:111111111111:stream/s")
BUCKET = Arn.parse("arn:aws:s3:::b")
QUEUE = Arn.parse("arn:aws:sqs:us-east-1:111111111111:q")
SPAN = Span("49601", "49602", 2, UnixTime(1764089368.835), UnixTime(1764089368.9))
NOTICE = Notice(
    "uuid", FUNCTION, STREAM, "shardId-000000000000", Condition.RETRIES, SPAN, 2, "r",
    Ran("r", 200, "$LATEST", "Unhandled"), UnixTime(1764089411.101), "n",
)  # fmt: skip
ORDINARY = (
    b'{"requestContext":{"requestId":"r","functionArn":"arn:aws:lambda:us-east-1:111111111111:function:f",'
    b'"condition":"RetryAttemptsExhausted","approximateInvokeCount":2},'
    b'"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},'
    b'"version":"1.0","timestamp":"2025-11-25T16:50:11.101Z","KinesisBatchInfo":{"shardId":"shardId-000000000000",'
    b'"startSequenceNumber":"49601","endSequenceNumber":"49602",'
    b'"approximateArrivalOfFirstRecord":"2025-11-25T16:49:28.835Z",'
    b'"approximateArrivalOfLastRecord":"2025-11-25T16:49:28.900Z","batchSize":2,'
    b'"streamArn":"arn:aws:kinesis:us-east-1:111111111111:stream/s"}}'
)
EVENT = '{"Records":[{"kinesis":{"data":"aGVsbG8=","partitionKey":"ä\\n"}}]}'.encode()
ESCAPED = rb'"{\"Records\":[{\"kinesis\":{\"data\":\"aGVsbG8=\",\"partitionKey\":\"' + "ä".encode() + rb'\\n\"}}]}"'


def test_the_ordinary_notice() -> None:
    assert notices.document(NOTICE) == ORDINARY


def test_an_object_holds_the_event_as_an_escaped_string_at_its_end() -> None:
    assert notices.document_for("s3", NOTICE, EVENT) == ORDINARY[:-1] + b',"payload":' + ESCAPED + b"}"
    assert json.loads(notices.document_for("s3", NOTICE, EVENT))["payload"].encode() == EVENT


def test_an_object_says_that_the_source_had_lost_the_records() -> None:
    assert notices.document_for("s3", NOTICE, None) == ORDINARY[:-1] + b',"payload":null}'


def test_a_message_holds_the_event_where_it_fits() -> None:
    for service, limit in (("sqs", 1_048_576), ("sns", 262_144)):
        assert notices.document_for(service, NOTICE, EVENT) == notices.document_for("s3", NOTICE, EVENT)
        assert notices.document_for(service, NOTICE, None) == ORDINARY
        room = limit - len(ORDINARY) - len(',"payload":""')
        assert len(notices.document_for(service, NOTICE, b"x" * room)) == limit
        assert notices.document_for(service, NOTICE, b"x" * (room + 1)) == ORDINARY


def test_only_s3_and_those_that_ask_get_the_event() -> None:
    assert notices.carries_payload(stream_mapping(on_failure=BUCKET))
    assert not notices.carries_payload(stream_mapping(on_failure=QUEUE))
    assert notices.carries_payload(stream_mapping(on_failure=QUEUE, on_failure_has_payload=True))
    assert not notices.carries_payload(stream_mapping(on_failure=None, on_failure_has_payload=True))


def test_the_key_of_an_object_begins_with_mapping_and_shard() -> None:
    assert NOTICE.folder == "aws/lambda/uuid/shardId-000000000000"
    assert NOTICE.trace is None
    assert NOTICE.attributes == ()
