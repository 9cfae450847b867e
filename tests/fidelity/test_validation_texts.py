"""AWS's literal texts and exception names. Source: wire-shapes.md 4.7, lambda.md 11.11."""

from typing import Any

import botocore.session
import pytest

from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping
from esm.rules import validation
from esm.rules.parameters import PARAMETERS, STREAMS

FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:111111111111:function:f")
QUEUE = "arn:aws:sqs:us-east-1:111111111111:q"
STREAM = "arn:aws:kinesis:us-east-1:111111111111:stream/s"
TABLE = "arn:aws:dynamodb:us-east-1:111111111111:table/t/stream/2025-11-25T15:47:03.123"
INVALID, FAILED = "InvalidParameterValueException", "ValidationException"
FIELD = "1 validation error detected: Value '{}' at '{}' failed to satisfy constraint: Member must {}"


def made(uuid: str = "u", **request: Any) -> Mapping:
    request = {"FunctionName": "f", **request}
    return validation.mapping_of(request, uuid=uuid, function_arn=FUNCTION, wall=UnixTime(1_800_000_000))


@pytest.mark.parametrize(
    ("request_", "exception", "text"),
    [
        ({}, INVALID, "Unrecognized event source."),
        (
            {"EventSourceArn": QUEUE, "BatchSize": 11}, INVALID,
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        (
            {"EventSourceArn": STREAM}, INVALID,
            FIELD.format("null", "startingPosition", "not be null.").replace("'null'", "null"),
        ),
        (
            {"EventSourceArn": STREAM, "StartingPosition": "invalid"}, FAILED,
            FIELD.format("invalid", "startingPosition", "satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"),
        ),
        (
            {"EventSourceArn": TABLE, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1}, INVALID,
            f"Unsupported starting position for arn type: {TABLE}",
        ),
        (
            {"EventSourceArn": QUEUE, "DestinationConfig": {"OnFailure": {"Destination": QUEUE}}}, INVALID,
            "Unsupported DestinationConfig parameter for given event source mapping type.",
        ),
        (
            {
                "EventSourceArn": STREAM, "StartingPosition": "LATEST",
                "DestinationConfig": {"OnSuccess": {"Destination": QUEUE}},
            }, INVALID,
            "Unsupported DestinationConfig parameter for given event source mapping type.",
        ),
        (
            {"EventSourceArn": QUEUE, "BatchSize": 0}, FAILED,
            FIELD.format(0, "batchSize", "have value greater than or equal to 1"),
        ),
        (
            {"EventSourceArn": STREAM, "ParallelizationFactor": 11}, FAILED,
            FIELD.format(11, "parallelizationFactor", "have value less than or equal to 10"),
        ),
    ],
)  # fmt: skip
def test_a_refusal_is_worded_as_on_aws(request_: dict[str, Any], exception: str, text: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        made(**request_)
    assert (caught.value.exception, caught.value.status, str(caught.value)) == (exception, 400, text)


def test_a_queue_that_hides_messages_too_briefly_is_refused_as_on_aws() -> None:
    with pytest.raises(RequestRefused) as caught:
        validation.check_timeout(60, 30)
    assert str(caught.value) == "Queue visibility timeout: 30 seconds is less than Function timeout: 60 seconds"
    validation.check_timeout(30, 30)


def test_duplicates_are_refused_as_on_aws() -> None:
    queue, stream = made(EventSourceArn=QUEUE), made("v", EventSourceArn=STREAM, StartingPosition="LATEST")
    found = validation.check_unique([queue, queue, stream, stream])
    assert [index for index, _ in found] == [1, 3]
    errors = [error for _, error in found]
    assert [(error.exception, error.status) for error in errors] == [("ResourceConflictException", 409)] * 2
    update = "Please update or delete the existing mapping with UUID"
    assert [str(error) for error in errors] == [
        f'An event source mapping with SQS arn (" {QUEUE} ") and function (" f ") already exists. {update} u',
        f'The event source arn (" {STREAM} ") and function (" f ") provided mapping already exists. {update} v',
    ]


def test_several_functions_may_read_one_stream() -> None:
    other = Arn.parse("arn:aws:lambda:us-east-1:111111111111:function:g")
    request = {"FunctionName": "g", "EventSourceArn": STREAM, "StartingPosition": "LATEST"}
    second = validation.mapping_of(request, uuid="w", function_arn=other, wall=UnixTime(0))
    assert not validation.check_unique([made(EventSourceArn=STREAM, StartingPosition="LATEST"), second])


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("BatchSize", 1, 10_000), ("MaximumBatchingWindowInSeconds", 0, 300), ("ParallelizationFactor", 1, 10),
        ("MaximumRecordAgeInSeconds", -1, 604_800), ("MaximumRetryAttempts", -1, 10_000),
        ("TumblingWindowInSeconds", 0, 900),
    ],
)  # fmt: skip
def test_both_ends_of_every_range_are_those_of_the_service_model(name: str, least: int, most: int) -> None:
    shape = botocore.session.get_session().get_service_model("lambda").shape_for("CreateEventSourceMappingRequest")
    assert shape.members[name].metadata == {"min": least, "max": most}
    where = name[0].lower() + name[1:]
    for value, text in ((least - 1, f"greater than or equal to {least}"), (most + 1, f"less than or equal to {most}")):
        with pytest.raises(RequestRefused) as caught:
            made(EventSourceArn=STREAM, StartingPosition="LATEST", **{name: value})
        assert str(caught.value) == FIELD.format(value, where, f"have value {text}")
        assert (caught.value.exception, caught.value.status) == (FAILED, 400)


def test_every_parameter_of_the_service_model_is_known_here() -> None:
    shape = botocore.session.get_session().get_service_model("lambda").shape_for("CreateEventSourceMappingRequest")
    assert set(shape.members) <= PARAMETERS.keys()


TWO = (
    "2 validation errors detected: Value '0' at 'batchSize' failed to satisfy constraint: Member must have value"
    " greater than or equal to 1; Value '-2' at 'maximumRetryAttempts' failed to satisfy constraint: Member must have"
    " value greater than or equal to -1"
)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            {"FunctionResponseTypes": ["Other"]},
            FIELD.format(
                "[Other]", "functionResponseTypes",
                "satisfy constraint: [Member must satisfy enum value set: [ReportBatchItemFailures]]",
            ),
        ),
        (
            {"FunctionResponseTypes": ["ReportBatchItemFailures"] * 2},
            FIELD.format(
                "[ReportBatchItemFailures, ReportBatchItemFailures]", "functionResponseTypes",
                "have length less than or equal to 1",
            ),
        ),
        (
            {"FunctionName": None},
            FIELD.format("null", "functionName", "not be null").replace("'null'", "null"),
        ),
        ({"FunctionName": ""}, FIELD.format("", "functionName", "have length greater than or equal to 1")),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": "x" * 351}}},
            FIELD.format("x" * 351, "destinationConfig.onFailure.destination", "have length less than or equal to 350"),
        ),
        (
            {"BatchSize": 0, "MaximumRetryAttempts": -2},
            TWO,
        ),
    ],
)  # fmt: skip
def test_broken_constraints_are_worded_and_counted_together(request_: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        made(EventSourceArn=STREAM, StartingPosition="LATEST", **request_)
    assert (caught.value.exception, str(caught.value)) == (FAILED, text)


@pytest.mark.parametrize("name", [name for name, one in PARAMETERS.items() if one.takes and one.takes <= STREAMS])
def test_a_queue_takes_no_parameter_of_streams(name: str) -> None:
    values: dict[str, Any] = {
        "StartingPosition": "LATEST", "StartingPositionTimestamp": 1, "ParallelizationFactor": 1,
        "MaximumRecordAgeInSeconds": 60, "MaximumRetryAttempts": 1, "BisectBatchOnFunctionError": True,
        "DestinationConfig": {"OnFailure": {"Destination": QUEUE}}, "TumblingWindowInSeconds": 1,
    }  # fmt: skip
    with pytest.raises(RequestRefused) as caught:
        made(EventSourceArn=QUEUE, **{name: values[name]})
    assert str(caught.value) == f"Unsupported {name} parameter for given event source mapping type."
    assert caught.value.exception == INVALID


ON_SUCCESS = {"DestinationConfig": {"OnSuccess": {"Destination": QUEUE}}}


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({**ON_SUCCESS}, "Unsupported DestinationConfig parameter for given event source mapping type."),
        ({"BatchSize": 11, "RoleArn": "x"}, "Unrecognized event source."),
        (
            {"EventSourceArn": STREAM, "RoleArn": "x"},
            "1 validation error detected: Value null at 'startingPosition'",
        ),
        ({"EventSourceArn": QUEUE, "BatchSize": 11, "RoleArn": "x"}, "Maximum batch window in seconds must be"),
    ],
)
def test_what_aws_looks_at_first_is_said_first(request_: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        made(**request_)
    assert str(caught.value).startswith(text)
