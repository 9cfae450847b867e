"""The README's table of parameters, proved: each is taken or refused, for each source, as the table says.

The list of parameters is that of botocore's model of CreateEventSourceMapping; ours beyond it are marked so.
"""

from pathlib import Path
from typing import Any

import botocore.session
import pytest

from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping
from esm.rules import validation
from esm.rules.parameters import PARAMETERS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:111111111111:function:f")
QUEUE = "arn:aws:sqs:us-east-1:111111111111:q"
SOURCES = {
    "SQS": QUEUE, "FIFO": QUEUE + ".fifo", "Kinesis": "arn:aws:kinesis:us-east-1:111111111111:stream/s",
    "DynamoDB": "arn:aws:dynamodb:us-east-1:111111111111:table/t/stream/2025-11-25T15:47:03.123",
}  # fmt: skip

UNSUPPORTED = "Unsupported {} parameter for given event source mapping type."
OF_OTHERS = "{} belongs to Kafka, Amazon MQ or DocumentDB event sources"
OF_OURS = "{} is for SQS"
VALUES: dict[str, tuple[Any, str]] = {
    "FunctionName": ("f", ""), "EventSourceArn": (None, ""), "Enabled": (False, ""), "BatchSize": (7, ""),
    "FilterCriteria": ({"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}]}, ""),
    "KMSKeyArn": ("arn:aws:kms:us-east-1:111111111111:key/k", ""), "MetricsConfig": ({"Metrics": ["EventCount"]}, ""),
    "LoggingConfig": ({"SystemLogLevel": "INFO"}, UNSUPPORTED), "Tags": ({"team": "x"}, ""),
    "ScalingConfig": ({"MaximumConcurrency": 2}, UNSUPPORTED),
    "MaximumBatchingWindowInSeconds": (1, "Batching window is not supported for FIFO queues"),
    "ParallelizationFactor": (2, UNSUPPORTED), "StartingPosition": ("TRIM_HORIZON", UNSUPPORTED),
    "StartingPositionTimestamp": (1_700_000_000, UNSUPPORTED),
    "DestinationConfig": ({"OnFailure": {"Destination": QUEUE}}, UNSUPPORTED),
    "MaximumRecordAgeInSeconds": (60, UNSUPPORTED), "MaximumRetryAttempts": (1, UNSUPPORTED),
    "BisectBatchOnFunctionError": (True, UNSUPPORTED), "TumblingWindowInSeconds": (60, UNSUPPORTED),
    "FunctionResponseTypes": (["ReportBatchItemFailures"], ""),
    "ProvisionedPollerConfig": ({"MinimumPollers": 3, "MaximumPollers": 4}, UNSUPPORTED),
    "Topics": (["t"], OF_OTHERS), "Queues": (["q"], OF_OTHERS),
    "SourceAccessConfigurations": ([{"Type": "BASIC_AUTH", "URI": "x"}], OF_OTHERS),
    "SelfManagedEventSource": ({"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["h:1"]}}, OF_OTHERS),
    "AmazonManagedKafkaEventSourceConfig": ({"ConsumerGroupId": "g"}, OF_OTHERS),
    "SelfManagedKafkaEventSourceConfig": ({"ConsumerGroupId": "g"}, OF_OTHERS),
    "DocumentDBEventSourceConfig": ({"DatabaseName": "d"}, OF_OTHERS),
    "InvocationType": ("Event", ""), "HoldGroupOnFailure": (True, OF_OURS), "VisibilityHeartbeat": (True, OF_OURS),
    "FailureBackoff": ({"MinimumDelayInSeconds": 1, "MaximumDelayInSeconds": 2}, OF_OURS),
    "RoleArn": ("arn:aws:iam::111111111111:role/r", ""), "Connection": ("c", ""),
}  # fmt: skip
"""A value that differs from the default, and the text where a source does not take the parameter."""


def table() -> dict[str, dict[str, str]]:
    """The README's rows by parameter, each cell by its column."""
    text = README.split("<!-- parameters:", 1)[1].split("<!-- end of parameters -->", 1)[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    columns = [cell.strip() for cell in lines[0]]
    rows = [dict(zip(columns, (cell.strip() for cell in line), strict=True)) for line in lines[2:]]
    return {row["parameter"].strip("`"): row for row in rows}


def of_the_model() -> set[str]:
    model = botocore.session.get_session().get_service_model("lambda")
    return set(model.shape_for("CreateEventSourceMappingRequest").members)


def made(source: str, request: dict[str, Any]) -> Mapping:
    whole: dict[str, Any] = {"FunctionName": "f", "EventSourceArn": source}
    if ":sqs:" not in source:
        whole["StartingPosition"] = "LATEST"
    whole |= request
    return validation.mapping_of(whole, uuid="u", function_arn=FUNCTION, wall=UnixTime(1_800_000_000))


def test_the_table_has_every_parameter_of_the_service_model_and_ours_are_marked() -> None:
    rows = table()
    ours = {name for name, row in rows.items() if row["here"].startswith("beyond AWS: ")}
    assert rows.keys() - ours == of_the_model()
    assert rows.keys() == PARAMETERS.keys() == VALUES.keys()
    assert ours == {name for name, one in PARAMETERS.items() if one.is_ours}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("column", SOURCES)
def test_a_parameter_is_taken_or_refused_as_the_table_says(name: str, column: str) -> None:
    value, text = VALUES[name]
    source, cell = SOURCES[column], table()[name][column]
    request = {} if name == "EventSourceArn" else {name: value}
    if name == "StartingPositionTimestamp" and cell == "yes":
        request["StartingPosition"] = "AT_TIMESTAMP"
    if name == "HoldGroupOnFailure":
        request["FunctionResponseTypes"] = ["ReportBatchItemFailures"]
    if cell == "yes":
        mapping, plain = made(source, request), made(source, {})
        assert (mapping == plain) == (name in {"FunctionName", "EventSourceArn"})
        return
    assert cell == "\N{EN DASH}"
    if name == "StartingPositionTimestamp" and column == "DynamoDB":
        text = "StartingPositionTimestamp is valid only with StartingPosition AT_TIMESTAMP."
    with pytest.raises(RequestRefused) as caught:
        made(source, request)
    assert caught.value.exception == "InvalidParameterValueException"
    assert text
    assert str(caught.value).startswith(text.format(name))


@pytest.mark.parametrize("column", SOURCES)
def test_every_value_that_lambda_prints_of_an_unset_parameter_is_taken_everywhere(column: str) -> None:
    plain = made(SOURCES[column], {})
    for name, parameter in PARAMETERS.items():
        for off in parameter.off if name not in {"FunctionName", "EventSourceArn", "StartingPosition"} else ():
            assert made(SOURCES[column], {name: off}) == plain, (name, off)


FIXED = {"EventSourceArn", "StartingPosition", "StartingPositionTimestamp"}


def test_what_an_update_does_not_take_cannot_change_under_one_uuid() -> None:
    model = botocore.session.get_session().get_service_model("lambda")
    not_updatable = of_the_model() - set(model.shape_for("UpdateEventSourceMappingRequest").members)
    of_others = {name for name in not_updatable if not PARAMETERS[name].takes}
    assert not_updatable - of_others == {*FIXED, "Tags"}
    at = {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1}
    for source, before, after in (
        ("Kinesis", {}, {"EventSourceArn": SOURCES["Kinesis"] + "2"}),
        ("Kinesis", {}, {"StartingPosition": "TRIM_HORIZON"}),
        ("Kinesis", at, {**at, "StartingPositionTimestamp": 2}),
    ):
        with pytest.raises(RequestRefused, match=r"cannot change.* a (new )?UUID"):
            validation.check_change(made(SOURCES[source], before), made(SOURCES[source], after))


@pytest.mark.parametrize("column", SOURCES)
def test_everything_else_is_applied_while_running(column: str) -> None:
    before = made(SOURCES[column], {})
    for name, (value, _) in VALUES.items():
        if table()[name][column] == "yes" and name not in FIXED:
            more = {"FunctionResponseTypes": ["ReportBatchItemFailures"]} if name == "HoldGroupOnFailure" else {}
            validation.check_change(before, made(SOURCES[column], {name: value, **more}))


@pytest.mark.parametrize(
    ("member", "request_"),
    [
        ("MinimumPollers", {"ProvisionedPollerConfig": {"MinimumPollers": 200}}),
        ("MaximumPollers", {"ProvisionedPollerConfig": {"MaximumPollers": 10_000}}),
        ("MaximumConcurrency", {"ScalingConfig": {"MaximumConcurrency": 1000}}),
    ],
)
def test_the_upper_ends_within_objects_are_those_of_the_service_model(member: str, request_: dict[str, Any]) -> None:
    ((name, inner),) = request_.items()
    model = botocore.session.get_session().get_service_model("lambda")
    limits = model.shape_for("CreateEventSourceMappingRequest").members[name].members[member].metadata
    assert limits["max"] == inner[member]
    made(QUEUE, request_)
    with pytest.raises(RequestRefused) as caught:
        made(QUEUE, {name: {member: inner[member] + 1}})
    where = f"{name[0].lower()}{name[1:]}.{member[0].lower()}{member[1:]}"
    assert str(caught.value) == (
        f"1 validation error detected: Value '{inner[member] + 1}' at '{where}' failed to satisfy constraint: Member"
        f" must have value less than or equal to {inner[member]}"
    )
    assert caught.value.exception == "ValidationException"


@pytest.mark.parametrize(
    ("pattern", "column"),
    [
        ("null", "SQS"), ("simple string", "SQS"), ('{"eventSource": "aws:sqs"}', "SQS"),
        ('{"eventSource": []}', "SQS"),
        ("single-string", "DynamoDB"), ('[{"eventName": ["INSERT"=123}]', "DynamoDB"), ('{"data": ["x"]}', "Kinesis"),
    ],
)  # fmt: skip
def test_a_bad_pattern_is_refused_with_the_recorded_text(pattern: str, column: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        made(SOURCES[column], {"FilterCriteria": {"Filters": [{"Pattern": pattern}]}})
    assert (caught.value.exception, caught.value.status) == ("InvalidParameterValueException", 400)
    assert str(caught.value) == "Invalid filter pattern definition."


def test_a_pattern_that_is_too_long_is_refused_at_its_place_in_the_list() -> None:
    filters = [{"Pattern": '{"body": ["x"]}'}, {"Pattern": "x" * 4097}]
    with pytest.raises(RequestRefused) as caught:
        made(QUEUE, {"FilterCriteria": {"Filters": filters}})
    assert str(caught.value) == (
        f"1 validation error detected: Value '{'x' * 4097}' at 'filterCriteria.filters.2.member.pattern' failed to"
        " satisfy constraint: Member must have length less than or equal to 4096"
    )


@pytest.mark.parametrize("column", SOURCES)
def test_consumers_are_refused_by_name_and_fifo_destinations_too(column: str) -> None:
    with pytest.raises(RequestRefused, match="is a consumer"):
        made(SOURCES["Kinesis"] + "/consumer/c:1", {})
    if column in {"Kinesis", "DynamoDB"}:
        for destination in (QUEUE + ".fifo", "kafka://topic"):
            with pytest.raises(RequestRefused, match=r"FIFO|Kafka"):
                made(SOURCES[column], {"DestinationConfig": {"OnFailure": {"Destination": destination}}})
