"""Requests of CreateEventSourceMapping: what they become, and what is refused by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import RequestRefused
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import UnixTime
from esm.model.mapping import FailureBackoff, InvocationType, Mapping, StartingPosition
from esm.rules import validation
from esm.rules.cautions import cautions
from esm.rules.parameters import OTHER_SOURCES, PARAMETERS, QUEUES, STREAMS

FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f")
QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
FIFO = QUEUE + ".fifo"
TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-01-01T00:00:00.000"
NOW = UnixTime(1_800_000_000)
REQUIRED = {"FunctionName", "EventSourceArn", "StartingPosition"}


def made(source: str, **request: Any) -> Mapping:
    if not source.startswith("arn:aws:sqs"):
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


@pytest.mark.parametrize("source", [QUEUE, FIFO, STREAM, TABLE])
def test_values_that_switch_a_parameter_off_stand_on_every_mapping(source: str) -> None:
    for name, parameter in PARAMETERS.items():
        for off in parameter.off if name not in REQUIRED else ():
            assert made(source, **{name: off}) == made(source), (name, off)


OURS = {"HoldGroupOnFailure": True, "VisibilityHeartbeat": True,
        "FailureBackoff": {"MinimumDelayInSeconds": 1, "MaximumDelayInSeconds": 2}}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "name", "kinds"),
    [
        (STREAM, "VisibilityHeartbeat", "SQS and SQS FIFO"), (TABLE, "FailureBackoff", "SQS and SQS FIFO"),
        (QUEUE, "HoldGroupOnFailure", "SQS FIFO"), (STREAM, "HoldGroupOnFailure", "SQS FIFO"),
    ],
)  # fmt: skip
def test_what_is_beyond_aws_says_for_which_sources_it_is(source: str, name: str, kinds: str) -> None:
    assert refusal(source, **{name: OURS[name]}).startswith(f"{name} is for {kinds} only: {source} is ")


def test_everything_of_a_queue_is_taken_over() -> None:
    role = "arn:aws:iam::000000000000:role/poller"
    mapping = made(
        FIFO, BatchSize=10, FunctionResponseTypes=["ReportBatchItemFailures"], ScalingConfig={"MaximumConcurrency": 2},
        FilterCriteria={"Filters": [{"Pattern": '{"body": {"a": [1]}}'}, {"Pattern": '{"body": ["x"]}'}]},
        KMSKeyArn="arn:aws:kms:us-east-1:000000000000:key/k", MetricsConfig={"Metrics": ["EventCount"]},
        Tags={"team": "b", "a": None}, HoldGroupOnFailure=True, VisibilityHeartbeat=True, RoleArn=role,
        FailureBackoff={"MinimumDelayInSeconds": 0, "MaximumDelayInSeconds": 43_200}, Connection="other",
    )  # fmt: skip
    assert mapping == Mapping(
        uuid="u", function="f", function_arn=FUNCTION, source_arn=Arn.parse(FIFO), source_kind=SourceKind.SQS,
        reports_item_failures=True, concurrency_max=2, filters=('{"body": {"a": [1]}}', '{"body": ["x"]}'),
        kms_key_arn="arn:aws:kms:us-east-1:000000000000:key/k", metrics=("EventCount",),
        tags=(("a", ""), ("team", "b")), holds_group_on_failure=True, extends_visibility=True,
        failure_backoff=FailureBackoff(0, 43_200), role_arn=role, connection="other",
    )  # fmt: skip
    assert mapping.is_fifo


def test_what_a_stream_gives_up_goes_where_and_as_the_mapping_says() -> None:
    to = {"Destination": "arn:aws:s3:::a-bucket", "IncludePayload": True, "WhenUnreachable": "drop", "Connection": "c"}
    mapping = made(STREAM, DestinationConfig={"OnFailure": to})
    assert (str(mapping.on_failure), mapping.on_failure_connection) == ("arn:aws:s3:::a-bucket", "c")
    assert (mapping.on_failure_has_payload, mapping.on_failure_drops) == (True, True)
    plain = made(STREAM, DestinationConfig={"OnFailure": {"Destination": QUEUE, "WhenUnreachable": "hold"}})
    assert (plain.on_failure_has_payload, plain.on_failure_drops, plain.on_failure_connection) == (False, False, None)


@pytest.mark.parametrize("name", ["IncludePayload", "WhenUnreachable", "Connection"])
def test_what_belongs_to_a_destination_needs_one(name: str) -> None:
    value = {"IncludePayload": True, "WhenUnreachable": "hold", "Connection": "c"}[name]
    text = refusal(STREAM, DestinationConfig={"OnFailure": {name: value}})
    assert text == f"{name} needs a Destination beside it, or be removed."


def test_a_tumbling_window_forces_one_lane_a_shard() -> None:
    mapping = made(STREAM, TumblingWindowInSeconds=30, ParallelizationFactor=4)
    assert (mapping.tumbling_window_s, mapping.parallelization_factor) == (30, 1)
    (text,) = cautions(mapping, {"ParallelizationFactor": 4, "MaximumRetryAttempts": 1})[1:]
    assert "ParallelizationFactor 4 is taken as 1" in text
    assert made(STREAM, ParallelizationFactor=4).parallelization_factor == 4


@pytest.mark.parametrize(
    ("config", "bounds"),
    [
        ({"MinimumPollers": 3, "MaximumPollers": 5}, (3, 5)), ({"MinimumPollers": 7}, (7, 200)),
        ({"MaximumPollers": 10_000}, (2, 10_000)), ({}, (None, None)), (None, (None, None)),
    ],
)  # fmt: skip
def test_pollers_have_lambdas_defaults(config: object, bounds: tuple[int, int]) -> None:
    mapping = made(QUEUE, ProvisionedPollerConfig=config)
    assert (mapping.pollers_min, mapping.pollers_max) == bounds


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"ProvisionedPollerConfig": {"MinimumPollers": 1}}, "at least 2 pollers"),
        ({"ProvisionedPollerConfig": {"MaximumPollers": 1}}, "at least 2 pollers"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 201}}, "less than or equal to 200"),
        ({"ProvisionedPollerConfig": {"MaximumPollers": 10_001}}, "less than or equal to 10000"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 9, "MaximumPollers": 8}}, "is less than MinimumPollers 9"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 2, "PollerGroupName": "g"}}, "belongs to Kafka"),
        (
            {"ProvisionedPollerConfig": {"MinimumPollers": 2}, "ScalingConfig": {"MaximumConcurrency": 2}},
            "exclude each other",
        ),
    ],
)
def test_pollers_out_of_range_are_refused(request_: dict[str, Any], text: str) -> None:
    assert text in refusal(QUEUE, **request_)


@pytest.mark.parametrize("source", [FIFO, STREAM, TABLE])
def test_pollers_are_for_standard_queues(source: str) -> None:
    text = "Unsupported ProvisionedPollerConfig parameter for given event source mapping type."
    assert refusal(source, ProvisionedPollerConfig={"MinimumPollers": 2}) == text


def test_a_fifo_queue_takes_ten_messages_and_no_window() -> None:
    assert made(FIFO, BatchSize=10, MaximumBatchingWindowInSeconds=0).batch_size == 10
    assert refusal(FIFO, BatchSize=11).startswith("BatchSize 11 is not possible: a FIFO queue gives at most 10")
    assert refusal(FIFO, MaximumBatchingWindowInSeconds=1) == "Batching window is not supported for FIFO queues"


@pytest.mark.parametrize(
    ("source", "name", "value"),
    [
        (QUEUE, "FunctionResponseTypes", ["ReportBatchItemFailures"]), (STREAM, "TumblingWindowInSeconds", 1),
        (STREAM, "BisectBatchOnFunctionError", True), (STREAM, "MaximumRetryAttempts", 0),
        (FIFO, "HoldGroupOnFailure", True), (QUEUE, "VisibilityHeartbeat", True),
        (QUEUE, "FailureBackoff", OURS["FailureBackoff"]),
    ],
)  # fmt: skip
def test_an_event_mapping_refuses_what_waits_for_the_functions_answer(source: str, name: str, value: object) -> None:
    text = refusal(source, InvocationType="Event", **{name: value})
    assert text.startswith(f"{name} cannot be used with InvocationType Event: ")
    for off in PARAMETERS[name].off:
        assert made(source, InvocationType="Event", **{name: off}).invocation_type is InvocationType.EVENT


def test_an_event_mapping_keeps_its_age_its_destination_and_its_filters() -> None:
    mapping = made(STREAM, InvocationType="Event", MaximumRecordAgeInSeconds=60, ParallelizationFactor=2,
                   DestinationConfig={"OnFailure": {"Destination": QUEUE}})  # fmt: skip
    assert (mapping.record_age_max_s, mapping.parallelization_factor) == (60, 2)


def test_holding_a_group_needs_reports_of_single_messages() -> None:
    assert refusal(FIFO, HoldGroupOnFailure=True).startswith("HoldGroupOnFailure needs FunctionResponseTypes")


@pytest.mark.parametrize(
    ("backoff", "text"),
    [
        ({"MinimumDelayInSeconds": 5, "MaximumDelayInSeconds": 4}, "is less than MinimumDelayInSeconds 5"),
        ({"MinimumDelayInSeconds": 5}, "needs MinimumDelayInSeconds and MaximumDelayInSeconds"),
        ({"MinimumDelayInSeconds": 0, "MaximumDelayInSeconds": 43_201}, "less than or equal to 43200"),
        ({"MinimumDelayInSeconds": -1, "MaximumDelayInSeconds": 1}, "greater than or equal to 0"),
    ],
)
def test_a_failure_backoff_out_of_range_is_refused(backoff: dict[str, int], text: str) -> None:
    assert text in refusal(QUEUE, FailureBackoff=backoff)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_up_to_five_filters_are_taken_as_they_are(count: int) -> None:
    pattern = '{"body": {"a": [ "x" ]}}'
    assert made(QUEUE, FilterCriteria={"Filters": [{"Pattern": pattern}] * count}).filters == (pattern,) * count


def test_a_sixth_filter_and_a_filter_without_pattern_are_refused() -> None:
    one = {"Pattern": '{"body": ["x"]}'}
    assert "has 6 filters: at most 5" in refusal(QUEUE, FilterCriteria={"Filters": [one] * 6})
    for filters in ([{}], [None], [one, {"Pattern": None}]):
        assert refusal(QUEUE, FilterCriteria={"Filters": filters}) == "Invalid filter pattern definition."


def test_the_reason_of_an_invalid_pattern_is_kept_beside_the_apis_text() -> None:
    request = {"FunctionName": "f", "EventSourceArn": QUEUE, "FilterCriteria": {"Filters": [{"Pattern": "null"}]}}
    (finding,) = validation.findings(request, NOW)
    assert finding.member == "FilterCriteria.Filters[0].Pattern"
    assert (str(finding.error), finding.constraint) == ("Invalid filter pattern definition.", None)
    assert finding.reason


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"": "x"}, "a key has 1 to 128"), ({"k" * 129: "x"}, "a key has 1 to 128"), ({"k": "v" * 257}, "at most 256"),
        ({"k": "a,b"}, "holds ','"), ({"k": 5}, "numbers in quotes"), ({str(n): "" for n in range(51)}, "at most 50"),
        (["k"], "a table of names and strings"),
    ],
)  # fmt: skip
def test_tags_out_of_range_are_refused(tags: object, text: str) -> None:
    assert text in refusal(QUEUE, Tags=tags)


def test_tags_are_kept_sorted() -> None:
    tags = {"z": "1", "k" * 128: "v" * 256, "Größe": "a b_.:/=+-@"}
    assert made(QUEUE, Tags=tags).tags == tuple(sorted(tags.items()))


@pytest.mark.parametrize("metric", ["ErrorCount", "KafkaMetrics"])
def test_metrics_of_kafka_are_refused_by_name(metric: str) -> None:
    assert refusal(QUEUE, MetricsConfig={"Metrics": ["EventCount", metric]}).startswith(f"MetricsConfig: {metric} is")


def test_what_has_no_effect_is_said_once_a_mapping() -> None:
    request = {"KMSKeyArn": "arn:aws:kms:x", "MetricsConfig": {"Metrics": ["EventCount"]}}
    (text,) = cautions(made(QUEUE, **request), request)
    assert "KMSKeyArn and MetricsConfig is kept and shown, and has no effect here" in text
    (text,) = cautions(made(FIFO, InvocationType="Event"), {})
    assert "order of its groups ends" in text
    assert not cautions(made(QUEUE), {})


@pytest.mark.parametrize(
    ("source", "pattern", "unknown", "key"),
    [
        (STREAM, '{"body": {"kind": ["a"]}}', "body", "data"), (QUEUE, '{"data": {"kind": ["a"]}}', "data", "body"),
        (TABLE, '{"NewImage": {"x": {"S": ["v"]}}}', "NewImage", "dynamodb"),
        (STREAM, '{"kinesis": {"data": {"kind": ["a"]}}}', "kinesis.data", "data"),
        (QUEUE, '{"$or": [{"body": ["a"]}, {"Body": ["b"]}, {"value": ["c"]}]}', "Body and value", "body"),
    ],
)  # fmt: skip
def test_a_filter_that_names_what_no_record_has_is_worth_a_word(
    source: str, pattern: str, unknown: str, key: str
) -> None:
    mapping = made(source, FilterCriteria={"Filters": [{"Pattern": pattern}]}, MaximumRetryAttempts=_retries(source))
    (text,) = cautions(mapping, {})
    assert f": a filter names {unknown}, which no record of this source has" in text
    assert f"stands under {key!r}" in text


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        (QUEUE, '{"body": {"deep.er": ["a"]}, "attributes": {"MessageGroupId": ["g"]}}'),
        (STREAM, '{"data": {"kind": ["a"]}, "partitionKey": ["k"], "kinesis": {"sequenceNumber": ["1"]}}'),
        (TABLE, '{"eventName": ["INSERT"], "dynamodb": {"Keys": {"id": {"S": ["v"]}}}}'),
    ],
)  # fmt: skip
def test_a_filter_on_what_records_have_is_not(source: str, pattern: str) -> None:
    mapping = made(source, FilterCriteria={"Filters": [{"Pattern": pattern}]}, MaximumRetryAttempts=_retries(source))
    assert not cautions(mapping, {})


def _retries(source: str) -> int | None:
    return None if source == QUEUE else 1


@pytest.mark.parametrize("role", ["me", "arn:aws:iam::1:role/x", "arn:aws:iam::000000000000:user/x"])
def test_a_role_is_a_roles_arn(role: str) -> None:
    assert "is no role's ARN" in refusal(QUEUE, RoleArn=role)


@pytest.mark.parametrize("name", OTHER_SOURCES)
def test_parameters_of_other_sources_are_refused_by_name(name: str) -> None:
    assert refusal(QUEUE, **{name: ["x"]}).startswith(f"{name} belongs to Kafka, Amazon MQ or DocumentDB")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("arn:aws:kafka:us-east-1:000000000000:cluster/c/u", "esm polls SQS, Kinesis and DynamoDB Streams"),
        ("nonsense", "is not an ARN"), (QUEUE + ".x", "names no queue"),
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
        ("kafka://topic", "use SQS, SNS or S3"), ("arn:aws:s3:::b/key", "is invalid"),
        ("arn:aws:s3:us-east-1:000000000000:bucket", "is invalid"), (QUEUE + ".fifo", "FIFO"),
        ("nowhere", "is invalid"),
        ("arn:aws:sqs:::q", "is invalid"), ("arn:aws:lambda:us-east-1:000000000000:function:f", "use SQS, SNS or S3"),
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
    st.dictionaries(st.sampled_from(sorted(PARAMETERS.keys() - {"EventSourceArn", "FunctionName"})), anything),
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
        "DestinationConfig": {"OnFailure": {"Destination": "x", "Topic": "y"}}, "Tags": {"": "b"},
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
        names = PARAMETERS.keys() - {"EventSourceArn", "FunctionName", "StartingPosition"}
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


def off_values(names: set[str]) -> dict[str, st.SearchStrategy[Any]]:
    return {name: st.sampled_from(PARAMETERS[name].off) for name in names}


tag = st.text(st.characters(categories=["L", "N", "Zs"], include_characters="_.:/=+-@"), max_size=20)
pattern = st.sampled_from(
    ['{"eventName": ["INSERT"]}', '{"a": [{"prefix": "b"}, 1, null]}', '{"$or": [{"a": [1]}, {"b": [2]}]}']
)
common = st.fixed_dictionaries(
    {},
    optional={
        "BatchSize": st.integers(1, 10), "Enabled": st.booleans(),
        "RoleArn": st.just("arn:aws:iam::000000000000:role/r"),
        "FunctionResponseTypes": st.sampled_from([[], ["ReportBatchItemFailures"]]), "Connection": st.just("c"),
        "FilterCriteria": st.fixed_dictionaries({
            "Filters": st.lists(st.fixed_dictionaries({"Pattern": pattern}), max_size=5),
        }),
        "KMSKeyArn": st.just("arn:aws:kms:us-east-1:000000000000:key/k"),
        "MetricsConfig": st.just({"Metrics": ["EventCount"]}),
        "Tags": st.dictionaries(tag.filter(bool), st.none() | tag, max_size=5),
        "InvocationType": st.just("RequestResponse"),
        **off_values({"LoggingConfig", *OTHER_SOURCES}),
    },
)  # fmt: skip
of_queues = {
    "ScalingConfig": st.just({}) | st.fixed_dictionaries({"MaximumConcurrency": st.integers(2, 1000)}),
    "VisibilityHeartbeat": st.booleans(),
    "FailureBackoff": st.tuples(st.integers(0, 43_200), st.integers(0, 43_200)).map(
        lambda two: {"MinimumDelayInSeconds": min(two), "MaximumDelayInSeconds": max(two)}
    ),
    **off_values({name for name, one in PARAMETERS.items() if one.takes and one.takes <= STREAMS}),
}
on_queue = st.fixed_dictionaries(
    {
        "EventSourceArn": st.just(QUEUE), "BatchSize": st.integers(1, 10_000),
        "MaximumBatchingWindowInSeconds": st.integers(1, 300),
    },
    optional={**of_queues, "HoldGroupOnFailure": st.none() | st.just(value=False)},
)  # fmt: skip
provisioned = st.fixed_dictionaries(
    {"EventSourceArn": st.just(QUEUE)},
    optional={
        "ProvisionedPollerConfig": st.fixed_dictionaries(
            {}, optional={"MinimumPollers": st.integers(2, 200), "MaximumPollers": st.integers(200, 10_000)}
        ),
    },
)
on_fifo = st.fixed_dictionaries(
    {"EventSourceArn": st.just(FIFO), "FunctionResponseTypes": st.just(["ReportBatchItemFailures"])},
    optional={
        **of_queues, "HoldGroupOnFailure": st.booleans(),
        **off_values({"ProvisionedPollerConfig", "MaximumBatchingWindowInSeconds"}),
    },
)  # fmt: skip
on_failure = st.fixed_dictionaries(
    {"Destination": st.sampled_from([QUEUE, "arn:aws:sns:us-east-1:000000000000:t", "arn:aws:s3:::some.bucket-1"])},
    optional={
        "IncludePayload": st.booleans(), "WhenUnreachable": st.sampled_from(["hold", "drop"]),
        "Connection": st.just("c"),
    },
)  # fmt: skip
on_stream = st.fixed_dictionaries(
    {
        "EventSourceArn": st.sampled_from([STREAM, TABLE]), "BatchSize": st.integers(1, 10_000),
        "StartingPosition": st.sampled_from(["LATEST", "TRIM_HORIZON"]),
    },
    optional={
        "ParallelizationFactor": st.integers(1, 10), "MaximumRetryAttempts": st.integers(-1, 10_000),
        "MaximumBatchingWindowInSeconds": st.integers(0, 300),
        "MaximumRecordAgeInSeconds": st.just(-1) | st.integers(60, 604_800),
        "BisectBatchOnFunctionError": st.booleans(), "TumblingWindowInSeconds": st.integers(0, 900),
        "DestinationConfig": st.sampled_from(PARAMETERS["DestinationConfig"].off) | on_failure.map(
            lambda one: {"OnFailure": one}
        ),
        **off_values({name for name, one in PARAMETERS.items() if one.takes and one.takes <= QUEUES}),
    },
)  # fmt: skip


@given(common, on_queue | provisioned | on_fifo | on_stream)
def test_a_valid_request_is_never_refused_and_loses_nothing(shared: dict[str, Any], own: dict[str, Any]) -> None:
    request = {"FunctionName": "f", **shared, **own}
    mapping = validation.mapping_of(request, uuid="u", function_arn=FUNCTION, wall=NOW)
    size = 10 if mapping.source_kind is SourceKind.SQS else 100
    assert str(mapping.source_arn) == request["EventSourceArn"]
    assert mapping.batch_size == request.get("BatchSize", size)
    assert mapping.window_s == (request.get("MaximumBatchingWindowInSeconds") or 0)
    assert mapping.enabled == request.get("Enabled", True)
    window_s = request.get("TumblingWindowInSeconds") or 0
    assert mapping.parallelization_factor == (1 if window_s else request.get("ParallelizationFactor") or 1)
    limits = [-1 if limit is None else limit for limit in (mapping.retries_max, mapping.record_age_max_s)]
    asked = [request.get("MaximumRetryAttempts"), request.get("MaximumRecordAgeInSeconds")]
    assert limits == [-1 if limit is None else limit for limit in asked]
    assert mapping.reports_item_failures == bool(request.get("FunctionResponseTypes"))
    assert mapping.concurrency_max == (request.get("ScalingConfig") or {}).get("MaximumConcurrency")
    assert mapping.tumbling_window_s == window_s
    assert list(mapping.filters) == [one["Pattern"] for one in request.get("FilterCriteria", {}).get("Filters", [])]
    assert dict(mapping.tags) == {key: value or "" for key, value in request.get("Tags", {}).items()}
    backoff = mapping.failure_backoff
    given_backoff = request.get("FailureBackoff") or None
    assert (None if backoff is None else [backoff.delay_min_s, backoff.delay_max_s]) == (
        None if given_backoff is None else list(given_backoff.values())
    )
    destination = ((request.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    assert mapping.on_failure == (Arn.parse(destination) if destination else None)
