"""Requests of CreateEventSourceMapping: what they become, and what is refused by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import RequestRefused
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping, StartingPosition
from esm.rules import validation

FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f")
QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-01-01T00:00:00.000"
NOW = UnixTime(1_800_000_000)


def made(source: str, **request: Any) -> Mapping:
    if source != QUEUE:
        request.setdefault("StartingPosition", "LATEST")
    request = {"FunctionName": "f", "EventSourceArn": source, **request}
    return validation.mapping_of(request, uuid="u", function_arn=FUNCTION, wall=NOW)


def refusal(source: str, **request: Any) -> str:
    with pytest.raises(RequestRefused) as caught:
        made(source, **request)
    return str(caught.value)


def test_defaults_are_lambdas() -> None:
    queue, stream = made(QUEUE), made(STREAM)
    assert (queue.batch_size, queue.window_s, queue.starting_position) == (10, 0, None)
    assert (stream.batch_size, stream.parallelization_factor) == (100, 1)
    assert (stream.retries_max, stream.record_age_max_s, stream.bisect_on_error) == (None, None, False)


def test_every_parameter_is_taken_over() -> None:
    mapping = made(
        STREAM, BatchSize=7, MaximumBatchingWindowInSeconds=3, ParallelizationFactor=4, MaximumRetryAttempts=0,
        MaximumRecordAgeInSeconds=60, BisectBatchOnFunctionError=True, Enabled=False,
        FunctionResponseTypes=["ReportBatchItemFailures"], StartingPosition="AT_TIMESTAMP",
        StartingPositionTimestamp=5, DestinationConfig={"OnFailure": {"Destination": QUEUE}},
    )  # fmt: skip
    assert mapping == Mapping(
        uuid="u", function="f", function_arn=FUNCTION, source_arn=Arn.parse(STREAM), source_kind=SourceKind.KINESIS,
        enabled=False, batch_size=7, window_s=3, parallelization_factor=4,
        starting_position=StartingPosition.AT_TIMESTAMP, starting_at=UnixTime(5), retries_max=0, record_age_max_s=60,
        bisect_on_error=True, reports_item_failures=True, on_failure=Arn.parse(QUEUE),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["MaximumRetryAttempts", "MaximumRecordAgeInSeconds"])
def test_minus_one_is_no_limit(name: str) -> None:
    mapping = made(STREAM, **{name: -1})
    assert (mapping.retries_max, mapping.record_age_max_s) == (None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FilterCriteria", {"Filters": [{"Pattern": "{}"}]}), ("TumblingWindowInSeconds", 30), ("KMSKeyArn", "arn:x"),
        ("MetricsConfig", {"Metrics": ["EventCount"]}), ("ProvisionedPollerConfig", {"MinimumPollers": 2}),
        ("LoggingConfig", {"SystemLogLevel": "INFO"}), ("Tags", {"a": "b"}),
    ],
)  # fmt: skip
def test_what_is_not_implemented_is_refused_by_name_and_its_off_value_is_not(name: str, value: object) -> None:
    assert refusal(STREAM, **{name: value}) == f"{name} is not supported by this version of esm. Remove it."
    for off in validation.NOT_YET[name]:
        made(STREAM, **{name: off})


@pytest.mark.parametrize("name", validation.OTHER_SOURCES)
def test_parameters_of_other_sources_are_refused_by_name(name: str) -> None:
    assert refusal(QUEUE, **{name: ["x"]}).startswith(f"{name} belongs to Kafka, Amazon MQ or DocumentDB")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("arn:aws:kafka:us-east-1:000000000000:cluster/c/u", "esm polls SQS, Kinesis and DynamoDB Streams"),
        ("nonsense", "is not an ARN"), (QUEUE + ".fifo", "FIFO"),
        (STREAM + "/consumer/c:1", "the part before /consumer/"),
        ("arn:aws:dynamodb:us-east-1:000000000000:table/t", "LatestStreamArn"), ("arn:aws:sqs:::q", "lacks its region"),
        ("arn:aws:kinesis:us-east-1:000000000000:s", "names no stream"),
    ],
)  # fmt: skip
def test_sources_that_cannot_be_polled_are_refused(source: str, text: str) -> None:
    assert text in refusal(source)


@pytest.mark.parametrize(
    ("destination", "text"),
    [
        ("arn:aws:s3:::bucket", "use SQS or SNS"), (QUEUE + ".fifo", "FIFO"), ("nowhere", "is invalid"),
        ("arn:aws:sqs:::q", "is invalid"), ("arn:aws:lambda:us-east-1:000000000000:function:f", "use SQS or SNS"),
    ],
)  # fmt: skip
def test_destinations_that_cannot_be_reached_are_refused(destination: str, text: str) -> None:
    assert text in refusal(STREAM, DestinationConfig={"OnFailure": {"Destination": destination}})


def test_an_empty_destination_is_none() -> None:
    assert made(STREAM, DestinationConfig={"OnFailure": {"Destination": ""}}).on_failure is None


@pytest.mark.parametrize("age", [0, 59])
def test_a_record_age_below_a_minute_is_refused(age: int) -> None:
    assert "use -1, or 60 to 604800" in refusal(STREAM, MaximumRecordAgeInSeconds=age)


def test_a_timestamp_belongs_to_at_timestamp_and_to_the_past() -> None:
    assert "only with" in refusal(STREAM, StartingPositionTimestamp=5)
    assert "needs a StartingPositionTimestamp" in refusal(STREAM, StartingPosition="AT_TIMESTAMP")
    late = {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": NOW + 1}
    assert "lies in the future" in refusal(STREAM, **late)


destination = st.dictionaries(st.just("Destination"), st.sampled_from([QUEUE, "", 5, "x"]))
members = st.sampled_from(["OnFailure", "OnSuccess", "MaximumConcurrency", "x"])
anything = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 10_001), st.text(max_size=3),
    st.lists(st.sampled_from(["ReportBatchItemFailures", "x", 1]), max_size=2),
    st.dictionaries(members, st.integers(0, 3) | destination, max_size=2),
)  # fmt: skip


@given(
    st.sampled_from([QUEUE, STREAM, TABLE]),
    st.dictionaries(st.sampled_from(sorted(validation.PARAMETERS - {"EventSourceArn", "FunctionName"})), anything),
)
def test_a_request_becomes_a_mapping_in_range_or_is_refused(source: str, request: dict[str, Any]) -> None:
    try:
        mapping = made(source, **request)
    except RequestRefused:
        return
    assert 1 <= mapping.batch_size <= 10_000
    assert 0 <= mapping.window_s <= 300
    assert 1 <= mapping.parallelization_factor <= 10
    assert mapping.record_age_max_s is None or 60 <= mapping.record_age_max_s <= 604_800
    assert mapping.concurrency_max is None or 2 <= mapping.concurrency_max <= 1000
    assert (mapping.starting_position is None) == (mapping.source_kind is SourceKind.SQS)
