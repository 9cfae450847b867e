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
        ("kafka://topic", "use SQS or SNS"),
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


def test_every_finding_has_its_place() -> None:
    request = {
        "FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "SOMEWHERE", "BatchSize": 0,
        "MaximumRetryAttempts": "3", "ScalingConfig": {"MaximumConcurrency": 1}, "MaximumRecordAgeInSeconds": 5,
        "DestinationConfig": {"OnFailure": {"Destination": "x", "Topic": "y"}}, "Tags": {"a": "b"},
    }  # fmt: skip
    assert [one.member for one in validation.findings(request, NOW)] == [
        "MaximumRetryAttempts", "DestinationConfig.OnFailure.Topic", "BatchSize", "StartingPosition",
        "ScalingConfig.MaximumConcurrency", "MaximumRecordAgeInSeconds", "Tags",
    ]  # fmt: skip


@pytest.mark.parametrize("off", [None, {}, {"MaximumConcurrency": None}])
def test_a_streams_mapping_takes_no_scaling_config_but_an_empty_one(off: object) -> None:
    text = "Unsupported ScalingConfig parameter for given event source mapping type."
    assert refusal(STREAM, ScalingConfig={"MaximumConcurrency": 2}) == text
    assert made(STREAM, ScalingConfig=off).concurrency_max is None
    assert made(QUEUE, ScalingConfig={"MaximumConcurrency": 2}).concurrency_max == 2


@pytest.mark.parametrize(
    ("given_at", "at"),
    [
        (0, 0), (1.5, 1.5), ("1970-01-01T00:00:01Z", 1), ("1970-01-01T02:00:01.25+02:00", 1.25),
        ("2026-01-31T12:00:00Z", 1_769_860_800),
    ],
)  # fmt: skip
def test_a_timestamp_is_unix_seconds_or_a_time_with_its_zone(given_at: object, at: float) -> None:
    mapping = made(STREAM, StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=given_at)
    assert mapping.starting_at == at


@pytest.mark.parametrize(
    "given_at",
    [
        "2026-01-31T12:00:00",
        "2026-01-31",
        "soon",
        "5",
        "",
        True,
        [],
        float("nan"),
        float("inf"),
        -1,
        -(10**400),
        10**400,
    ],
)
def test_a_timestamp_of_another_form_is_refused(given_at: object) -> None:
    text = refusal(STREAM, StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=given_at)
    assert text.endswith("it must be Unix seconds, or a time with its zone such as 2026-01-31T12:00:00Z.")


@pytest.mark.parametrize(
    "source",
    [
        QUEUE + " ", QUEUE + "/x", "arn:aws:sqs:us-east-1:0000:q", "arn:aws:sqs::000000000000:q", STREAM + "/x",
        "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/", TABLE + " ", "arn:aws:sqs:us-east-1:000000000000:",
    ],
)  # fmt: skip
def test_an_arn_that_names_no_source_is_unrecognized(source: str) -> None:
    assert refusal(source).startswith("Unrecognized event source. ")


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov", "aws-eusc"])
def test_sources_of_every_partition_and_of_emulators_regions_are_taken(partition: str) -> None:
    assert made(f"arn:{partition}:sqs:elasticmq:000000000000:q", StartingPosition=None).source_arn.region == "elasticmq"


@pytest.mark.parametrize("destination", ["arn:aws:sqs:x", "arn:aws:sqs:", "arn:aws:sqs:us-east-1:000000000000:a b"])
def test_a_destination_that_is_half_an_arn_is_invalid(destination: str) -> None:
    text = refusal(STREAM, DestinationConfig={"OnFailure": {"Destination": destination}})
    assert text == f"The destination ARN {destination} is invalid."


def test_a_null_parameter_is_one_left_out() -> None:
    for source in (QUEUE, STREAM):
        names = validation.PARAMETERS - {"EventSourceArn", "FunctionName", "StartingPosition"}
        assert made(source, **dict.fromkeys(names)) == made(source)


def test_only_delivery_may_change_under_one_uuid() -> None:
    before = made(STREAM)
    validation.check_change(before, made(STREAM, BatchSize=5, Enabled=False, ParallelizationFactor=3))
    for after in (made(STREAM + "2"), made(STREAM, StartingPosition="TRIM_HORIZON")):
        with pytest.raises(RequestRefused, match="cannot change"):
            validation.check_change(before, after)
    at = {"StartingPosition": "AT_TIMESTAMP"}
    with pytest.raises(RequestRefused, match="a new UUID"):
        validation.check_change(
            made(STREAM, **at, StartingPositionTimestamp=1), made(STREAM, **at, StartingPositionTimestamp=2)
        )


def test_a_uuid_belongs_to_one_mapping() -> None:
    ((index, error),) = validation.check_unique([made(QUEUE), made(STREAM)])
    assert (index, str(error)) == (1, "UUID u stands on two mappings. Give each one its own.")


common = st.fixed_dictionaries(
    {"MaximumBatchingWindowInSeconds": st.integers(1, 300)},
    optional={
        "BatchSize": st.integers(1, 10_000), "Enabled": st.booleans(),
        "FunctionResponseTypes": st.sampled_from([[], ["ReportBatchItemFailures"]]),
        **{name: st.sampled_from(off) for name, off in validation.NOT_YET.items()},
    },
)  # fmt: skip
on_queue = st.fixed_dictionaries(
    {"EventSourceArn": st.just(QUEUE)},
    optional={"ScalingConfig": st.just({}) | st.fixed_dictionaries({"MaximumConcurrency": st.integers(2, 1000)})},
)
on_stream = st.fixed_dictionaries(
    {
        "EventSourceArn": st.sampled_from([STREAM, TABLE]),
        "StartingPosition": st.sampled_from(["LATEST", "TRIM_HORIZON"]),
    },
    optional={
        "ParallelizationFactor": st.integers(1, 10), "MaximumRetryAttempts": st.integers(-1, 10_000),
        "MaximumRecordAgeInSeconds": st.just(-1) | st.integers(60, 604_800),
        "BisectBatchOnFunctionError": st.booleans(),
        "DestinationConfig": st.sampled_from([{}, {"OnFailure": {}}, {"OnFailure": {"Destination": QUEUE}}]),
    },
)  # fmt: skip


@given(common, on_queue | on_stream)
def test_a_valid_request_is_never_refused_and_loses_nothing(shared: dict[str, Any], own: dict[str, Any]) -> None:
    request = {"FunctionName": "f", **shared, **own}
    mapping = validation.mapping_of(request, uuid="u", function_arn=FUNCTION, wall=NOW)
    size = 10 if mapping.source_kind is SourceKind.SQS else 100
    assert str(mapping.source_arn) == request["EventSourceArn"]
    assert mapping.batch_size == request.get("BatchSize", size)
    assert mapping.window_s == request["MaximumBatchingWindowInSeconds"]
    assert mapping.enabled == request.get("Enabled", True)
    assert mapping.parallelization_factor == request.get("ParallelizationFactor", 1)
    limits = [-1 if limit is None else limit for limit in (mapping.retries_max, mapping.record_age_max_s)]
    assert limits == [request.get("MaximumRetryAttempts", -1), request.get("MaximumRecordAgeInSeconds", -1)]
    assert mapping.reports_item_failures == bool(request.get("FunctionResponseTypes"))
    assert mapping.concurrency_max == request.get("ScalingConfig", {}).get("MaximumConcurrency")
    destination = request.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    assert mapping.on_failure == (Arn.parse(destination) if destination else None)
