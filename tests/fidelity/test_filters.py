"""Filters do to records what AWS does. Source: lambda.md 4; wire-shapes.md 6; the tables of AWS's guides."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from esm.model.arn import SourceKind
from esm.rules.patterns import compile_filter, reason_invalid

SQS, KINESIS, DYNAMODB = SourceKind.SQS, SourceKind.KINESIS, SourceKind.DYNAMODB


def message(body: object) -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    return json.dumps(
        {
            "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d", "receiptHandle": "AQEB", "body": text,
            "attributes": {"ApproximateReceiveCount": "1", "SenderId": "AIDA"},
            "messageAttributes": {"Author": {"stringValue": "Grisham", "dataType": "String"}},
            "md5OfBody": "e4e6", "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:us-east-2:1:q",
            "awsRegion": "us-east-2",
        }
    ).encode()  # fmt: skip


def kinesis(data: object) -> bytes:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return json.dumps(
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0", "partitionKey": "1", "sequenceNumber": "4959033827149025660855969253",
                "data": base64.b64encode(raw).decode(), "approximateArrivalTimestamp": 1545084650.987,
            },
            "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": "shardId-000000000006:4959",
            "eventName": "aws:kinesis:record", "awsRegion": "us-east-2",
        }
    ).encode()  # fmt: skip


def dynamodb(name: str = "INSERT", **image: object) -> bytes:
    return json.dumps(
        {
            "eventID": "1", "eventVersion": "1.0", "eventName": name, "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-2",
            "dynamodb": {
                "ApproximateCreationDateTime": 1664559083.0, "Keys": {"Id": {"N": "101"}}, "NewImage": image,
                "SequenceNumber": "111", "SizeBytes": 26, "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        }
    ).encode()  # fmt: skip


def matches(pattern: object, record: bytes, kind: SourceKind = SQS) -> bool:
    text = pattern if isinstance(pattern, str) else json.dumps(pattern)
    assert reason_invalid(text, kind) is None
    return compile_filter([text], kind).matches(record)


# What a mapping is refused for


@pytest.mark.parametrize("kind", list(SourceKind))
@pytest.mark.parametrize(
    "pattern",
    [
        "null", "simple string", '{"eventSource": "aws:sqs"}', '{"eventSource": []}', "single-string",
        '[{"eventName": ["INSERT"=123}]', "", "5", "[]", "{}", '{"a": {}}', '{"a": null}', '{"a": 5}', '{"a": [[1]]}',
        '{"a": [{}]}', '{"a": [{"prefix": "x", "suffix": "y"}]}', '{"a": [{"regex": "x"}]}', '{"a": [{"prefix": 5}]}',
        '{"a": [{"exists": "true"}]}', '{"a": [{"numeric": []}]}', '{"a": [{"numeric": [">", "5"]}]}',
        '{"a": [{"numeric": [">", 5, "<", 5]}]}', '{"a": [{"numeric": ["<", 5, ">", 1]}]}',
        '{"a": [{"numeric": ["=", 5, "<", 9]}]}', '{"a": [{"numeric": ["!=", 5]}]}',
        '{"a": [{"numeric": ["=", 0.10000000000000001]}]}', '{"a": [{"anything-but": []}]}',
        '{"a": [{"anything-but": [1, "a"]}]}', '{"a": [{"anything-but": null}]}', '{"a": [{"anything-but": [true]}]}',
        '{"a": [{"anything-but": {"prefix": ""}}]}', '{"a": [{"anything-but": {"prefix": ["a", 1]}}]}',
        '{"a": [{"anything-but": {"numeric": ["=", 1]}}]}', '{"a": [{"cidr": "10.0.0.0"}]}',
        '{"a": [{"cidr": "10.0.0.0/32"}]}', '{"a": [{"cidr": "::/128"}]}', '{"a": [{"cidr": "host/8"}]}',
        '{"a": [{"wildcard": "a**b"}]}', '{"a": [{"wildcard": "a\\\\b"}]}', '{"a": [{"equals-ignore-case": ["a"]}]}',
        '{"a": [{"prefix": {"suffix": "x"}}]}', '{"$or": []}', '{"$or": [{"a": [1]}]}', '{"$or": {"a": [1]}}',
        '{"$or": [{"a": [1]}, 5]}', '{"$or": [{"a": [1]}, {}]}', '{"$or": [{"prefix": ["x"]}, {"a": [1]}]}',
        '{"$or": [{"a": {"numeric": [1]}}, {"a": [1]}]}', '{"a": [1]} {"b": [1]}', '{"a": [NaN]}', '{"a": [01]}',
    ],
)  # fmt: skip
def test_a_pattern_that_the_language_does_not_have_is_refused_with_a_reason(kind: SourceKind, pattern: str) -> None:
    assert reason_invalid(pattern, kind)


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        (KINESIS, {"data": ["text"]}), (KINESIS, {"data": [{"exists": True}]}), (DYNAMODB, {"dynamodb": ["text"]}),
        (KINESIS, {"$or": [{"data": ["text"]}, {"partitionKey": ["1"]}]}),
    ],
)  # fmt: skip
def test_plain_text_on_the_data_key_of_a_stream_is_refused(kind: SourceKind, pattern: object) -> None:
    assert "plain text" in str(reason_invalid(json.dumps(pattern), kind))
    assert reason_invalid(json.dumps({"body": ["text"]}), SQS) is None


def test_reserved_words_are_names_like_others_outside_or() -> None:
    assert matches({"body": {"prefix": {"numeric": [1]}}}, message({"prefix": {"numeric": 1}}))


# Body and pattern that do not fit each other


@pytest.mark.parametrize(
    ("body", "pattern", "expected"),
    [
        ("hello", {"body": ["hello"]}, True),
        ("hello", {"body": ["bye"]}, False),
        ("hello", {"body": [{"prefix": "he"}]}, True),
        ('{"a": 1}', {"body": {"a": [1]}}, True),
        ("hello", {"body": {"a": [1]}}, False),
        ("hello", {"body": {"a": [{"exists": False}]}}, False),
        ("{not a json body", {"body": {"a": [{"exists": False}]}}, False),
        ("{not a json body", {"body": [{"prefix": "{not"}]}, True),
        ('{"a": 1}', {"body": ['{"a": 1}']}, False),
        ('{"a": 1}', {"body": [{"exists": True}]}, False),
        ('{"a": 1}', {"body": [{"exists": False}]}, False),
        ("[1, 2]", {"body": ["[1, 2]"]}, False),
        ('"text"', {"body": {"a": [{"exists": False}]}}, False),
        ("5", {"body": {"a": [{"exists": False}]}}, False),
        ("5", {"body": ["5"]}, True),
        ("5", {"body": [5]}, False),
        ("", {"body": [""]}, True),
        ("hello", {"awsRegion": ["us-east-2"]}, True),
        ('{"a": 1}', {"awsRegion": ["us-east-1"]}, False),
        ('{"a": 1}', {"body": {"a": [1]}, "messageAttributes": {"Author": {"stringValue": ["Grisham"]}}}, True),
        ("hello", {"$or": [{"body": {"a": [1]}}, {"attributes": {"SenderId": ["AIDA"]}}]}, True),
        ("hello", {"$or": [{"body": {"a": [1]}}, {"body": ["hello"]}]}, True),
        ('{"a": 1}', {"$or": [{"body": {"a": [1]}}, {"body": ["hello"]}]}, True),
        ("hello", {"body": ["hello"], "body.a": [{"exists": False}]}, False),
    ],
)
def test_a_message_is_compared_as_text_or_as_json_as_the_pattern_is(body: str, pattern: object, expected: bool) -> None:  # noqa: FBT001
    assert matches(pattern, message(body)) is expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"order": {"type": "buy", "quantity": 1000}}, True),
        ([{"order": {"type": "buy"}}], True),
        ({"order": {"type": "sell"}}, False),
        (b"plain", False), (b"\xff\xfe", False), (b"", False), (b'"buy"', False), (b"\xc3(", False),
        (b'\xef\xbb\xbf{"order":{"type":"buy"}}', False),
    ],
)  # fmt: skip
def test_the_data_of_a_kinesis_record_is_base64_of_json(data: object, expected: bool) -> None:  # noqa: FBT001
    assert matches({"data": {"order": {"type": ["buy"]}}}, kinesis(data), KINESIS) is expected


def test_data_of_a_kinesis_record_that_is_no_base64_does_not_match() -> None:
    record = kinesis({}).replace(base64.b64encode(b"{}"), b"!!!!")
    assert not matches({"data": {"a": [{"exists": False}]}}, record, KINESIS)


def test_the_metadata_of_a_kinesis_record_stands_inside_and_outside_kinesis() -> None:
    record = kinesis(b"plain")
    assert matches({"partitionKey": ["1"]}, record, KINESIS)
    assert matches({"kinesis": {"partitionKey": ["1"]}}, record, KINESIS)
    assert matches({"kinesis": {"partitionKey": ["1"]}, "eventName": [{"prefix": "aws:kinesis"}]}, record, KINESIS)
    assert matches({"approximateArrivalTimestamp": [{"numeric": [">", 1545084650]}]}, record, KINESIS)
    assert not matches({"kinesis": {"data": {"a": [1]}}}, kinesis({"a": 1}), KINESIS)
    assert matches({"kinesis": {"data": ["eyJhIjogMX0="]}}, kinesis({"a": 1}), KINESIS)


# DynamoDB


def test_a_dynamodb_record_keeps_the_types_of_its_values() -> None:
    record = dynamodb(Name={"S": "Any Company"}, Total={"N": "300"}, Lines={"L": [{"S": "a"}, {"S": "b"}]})
    assert matches({"eventName": ["INSERT", "MODIFY"]}, record, DYNAMODB)
    assert matches({"dynamodb": {"NewImage": {"Name": {"S": [{"prefix": "Any"}]}}}}, record, DYNAMODB)
    assert matches({"dynamodb": {"Keys": {"Id": {"N": ["101"]}}}}, record, DYNAMODB)
    assert matches({"dynamodb": {"NewImage": {"Total": {"N": ["300"]}}}}, record, DYNAMODB)
    assert not matches({"dynamodb": {"NewImage": {"Total": {"N": ["300.0"]}}}}, record, DYNAMODB)
    assert not matches({"dynamodb": {"NewImage": {"Total": {"N": [300]}}}}, record, DYNAMODB)
    assert not matches({"dynamodb": {"NewImage": {"Total": {"N": [{"numeric": [">", 1]}]}}}}, record, DYNAMODB)
    assert not matches({"dynamodb": {"NewImage": {"Name": ["Any Company"]}}}, record, DYNAMODB)
    assert matches({"dynamodb": {"NewImage": {"Lines": {"L": {"S": ["b"]}}}}}, record, DYNAMODB)
    assert matches({"dynamodb": {"ApproximateCreationDateTime": [1664559083]}}, record, DYNAMODB)


def test_existence_is_asked_of_leaves() -> None:
    record = dynamodb(Name={"S": "x"})
    assert matches({"dynamodb": {"NewImage": {"Name": {"S": [{"exists": True}]}}}}, record, DYNAMODB)
    assert not matches({"dynamodb": {"NewImage": {"Name": [{"exists": True}]}}}, record, DYNAMODB)
    assert matches({"dynamodb": {"NewImage": {"Name": [{"exists": False}]}}}, record, DYNAMODB)
    assert matches({"dynamodb": {"NewImage": {"Gone": {"S": [{"exists": False}]}}}}, record, DYNAMODB)
    assert matches({"dynamodb": {"OldImage": {"Name": {"S": [{"exists": False}]}}}}, record, DYNAMODB)


# The language


SAMPLE = {
    "city": "Seattle", "empty": "", "nothing": None, "temperature": 22.5, "count": 3, "flag": True,
    "file": "report.PNG", "path": "dir/bin/tool.jar", "source": "10.0.0.33", "v6": "2001:db8::5",
    "account": 12345678901234567890, "tags": ["red", "green"], "star": "a*b",
    "rows": [{"x": 1, "y": 2}, {"x": 2, "y": 1}], "order": {"item": {"id": 7}}, "a.b": "dotted",
}  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"city": ["Seattle"]}, True), ({"city": ["seattle"]}, False), ({"empty": [""]}, True),
        ({"nothing": [None]}, True), ({"empty": [None]}, False), ({"gone": [None]}, False),
        ({"flag": [True]}, True), ({"flag": ["true"]}, False), ({"flag": [1]}, False), ({"flag": [False]}, False),
        ({"city": ["Portland", "Seattle"], "count": [3]}, True), ({"city": ["Seattle"], "count": [4]}, False),
        ({"city": [{"equals-ignore-case": "sEATTLE"}]}, True), ({"city": [{"exactly": "Seattle"}]}, True),
        ({"city": [{"prefix": "Sea"}]}, True), ({"city": [{"prefix": {"equals-ignore-case": "sEA"}}]}, True),
        ({"file": [{"suffix": ".png"}]}, False), ({"file": [{"suffix": {"equals-ignore-case": ".png"}}]}, True),
        ({"file": [{"suffix": ".PNG"}]}, True), ({"count": [{"prefix": "3"}]}, False),
        ({"city": [{"anything-but": "Seattle"}]}, False), ({"city": [{"anything-but": ["Portland", "Boise"]}]}, True),
        ({"count": [{"anything-but": [1, 2]}]}, True), ({"count": [{"anything-but": 3.0}]}, False),
        ({"count": [{"anything-but": "3"}]}, True), ({"gone": [{"anything-but": "x"}]}, False),
        ({"nothing": [{"anything-but": "x"}]}, True), ({"tags": [{"anything-but": ["red"]}]}, True),
        ({"city": [{"anything-but": {"prefix": "Sea"}}]}, False),
        ({"city": [{"anything-but": {"suffix": ["x", "tle"]}}]}, False),
        ({"city": [{"anything-but": {"equals-ignore-case": ["seattle"]}}]}, False),
        ({"path": [{"anything-but": {"wildcard": "*/bin/*.jar"}}]}, False),
        ({"count": [{"anything-but": {"prefix": "3"}}]}, True),
        ({"temperature": [{"numeric": [">", 20, "<=", 22.5]}]}, True), ({"count": [{"numeric": ["=", 3.0]}]}, True),
        ({"temperature": [{"numeric": ["<", 22.5]}]}, False), ({"city": [{"numeric": [">", 0]}]}, False),
        ({"count": [{"exists": True}]}, True), ({"gone": [{"exists": False}]}, True),
        ({"nothing": [{"exists": True}]}, True), ({"order": [{"exists": True}]}, False),
        ({"order": {"item": {"id": [7]}}}, True), ({"order.item.id": [7]}, True), ({"order.item": {"id": [7]}}, True),
        ({"a": {"b": ["dotted"]}}, True), ({"a.b": ["dotted"]}, True),
        ({"source": [{"cidr": "10.0.0.0/24"}]}, True), ({"source": [{"cidr": "10.0.1.0/24"}]}, False),
        ({"source": ["010.0.0.33"]}, True), ({"v6": [{"cidr": "2001:db8::/32"}]}, True),
        ({"v6": ["2001:0db8:0:0:0:0:0:5"]}, True), ({"v6": [{"cidr": "0.0.0.0/0"}]}, False),
        ({"source": [{"anything-but": "010.0.0.33"}]}, True), ({"city": [{"cidr": "10.0.0.0/8"}]}, False),
        ({"path": [{"wildcard": "dir/*/*.jar"}]}, True), ({"star": [{"wildcard": "a\\*b"}]}, True),
        ({"city": [{"wildcard": "S\\*"}]}, False), ({"city": [{"wildcard": "Seattle*"}]}, True),
        ({"city": [{"wildcard": "*"}]}, True), ({"count": [{"wildcard": "*"}]}, False),
        ({"account": [12345678901234567890]}, True), ({"account": [12345678901234567891]}, False),
        ({"account": [{"numeric": [">", 1]}]}, False),
        ({"tags": ["green", "blue"]}, True), ({"tags": ["blue"]}, False),
        ({"rows": {"x": [1], "y": [2]}}, True), ({"rows": {"x": [1], "y": [1]}}, False),
        ({"rows": {"x": [1]}, "count": [3]}, True), ({"rows": {"x": [1], "z": [{"exists": False}]}}, True),
        ({"$or": [{"city": ["Boise"]}, {"count": [3]}]}, True), ({"$or": [{"city": ["Boise"]}, {"count": [4]}]}, False),
        ({"flag": [True], "$or": [{"city": ["Boise"]}, {"order": {"$or": [{"item": {"id": [7]}}, {"x": [1]}]}}]}, True),
        ({"flag": [False], "$or": [{"city": ["Seattle"]}, {"count": [3]}]}, False),
    ],
)  # fmt: skip
def test_each_form_of_the_language(pattern: Any, expected: bool) -> None:  # noqa: FBT001
    assert matches({"body": pattern}, message(SAMPLE)) is expected


@pytest.mark.parametrize("written", ["300", "300.0", "3.0e2", "3e2", "300.000"])
@pytest.mark.parametrize("wanted", ["300", "300.0", "3.0e2"])
def test_equal_numbers_are_equal_however_they_are_written(written: str, wanted: str) -> None:
    assert matches(f'{{"body":{{"n":[{wanted}]}}}}', message(f'{{"n":{written}}}'))
    assert not matches(f'{{"body":{{"n":[{{"anything-but":{wanted}}}]}}}}', message(f'{{"n":{written}}}'))


def test_equal_names_merge_where_they_hold_objects_and_the_last_wins_where_they_hold_lists() -> None:
    both = '{"dynamodb":{"NewImage":{"a":{"S":["1"]}}},"dynamodb":{"NewImage":{"b":{"S":["2"]}}}}'
    assert matches(both, dynamodb(a={"S": "1"}, b={"S": "2"}), DYNAMODB)
    assert not matches(both, dynamodb(b={"S": "2"}), DYNAMODB)
    assert not matches(both, dynamodb(a={"S": "1"}), DYNAMODB)
    assert matches('{"eventName":["INSERT"],"eventName":["MODIFY"]}', dynamodb("MODIFY"), DYNAMODB)
    assert not matches('{"eventName":["INSERT"],"eventName":["MODIFY"]}', dynamodb("INSERT"), DYNAMODB)


def test_a_list_beside_or_replaces_what_is_at_its_path_from_there_on() -> None:
    assert matches('{"body":{"$or":[{"a":[1]},{"b":[1]}],"a":[2]}}', message({"a": 2}))
    assert not matches('{"body":{"a":[2],"$or":[{"a":[1]},{"b":[1]}]}}', message({"a": 2}))
    assert matches('{"body":{"a":[2],"$or":[{"a":[1]},{"b":[1]}]}}', message({"a": 1}))
