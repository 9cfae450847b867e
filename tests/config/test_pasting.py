"""What people paste under `mappings:`: CloudFormation, and what the AWS command line prints."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esm.errors import ConfigurationRefused
from esm.model.mapping import Mapping
from esm.rules import validation
from tests.config.written import FIFO, NOW, QUEUE, STREAM, TABLE, load, mapped, unmapped, with_mapping, written

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
RESOURCE = f"""
Type: AWS::Lambda::EventSourceMapping
DependsOn: Policy
Properties:
  FunctionName: {FUNCTION}
  EventSourceArn: {STREAM}
  StartingPosition: AT_TIMESTAMP
  StartingPositionTimestamp: "1700000000.5"
  BatchSize: "25"
  Enabled: "true"
  BisectBatchOnFunctionError: "false"
  MaximumRetryAttempts: "-1"
  MaximumRecordAgeInSeconds: '3600'
  KmsKeyArn: arn:aws:kms:us-east-1:000000000000:key/k
  FunctionResponseTypes: [ReportBatchItemFailures]
  FilterCriteria:
    Filters:
    - Pattern: '{{"eventName": ["x"]}}'
    - Pattern: {{data: {{price: [{{numeric: [">", 10, "<=", 20.5]}}], "$or": [{{a: [null]}}, {{b: [true]}}]}}}}
  DestinationConfig: {{OnFailure: {{Destination: "arn:aws:s3:::failed-things"}}}}
  Tags:
  - {{Key: team, Value: billing}}
  - {{Key: version, Value: 1.10}}
"""


def test_a_whole_resource_of_cloudformation_is_taken(tmp_path: Path) -> None:
    mapping, warnings = mapped(tmp_path, RESOURCE)
    assert (mapping.batch_size, mapping.enabled, mapping.bisect_on_error) == (25, True, False)
    assert (mapping.starting_at, mapping.retries_max, mapping.record_age_max_s) == (1_700_000_000.5, None, 3600)
    assert (mapping.kms_key_arn, str(mapping.on_failure)) == (
        "arn:aws:kms:us-east-1:000000000000:key/k", "arn:aws:s3:::failed-things",
    )  # fmt: skip
    assert mapping.filters == (
        '{"eventName": ["x"]}',
        '{"data": {"price": [{"numeric": [">", 10, "<=", 20.5]}], "$or": [{"a": [null]}, {"b": [true]}]}}',
    )
    assert mapping.tags == (("team", "billing"), ("version", "1.10"))
    (note,) = [text for text in warnings if "ignored" in text]
    assert note.endswith(f"alone needs it: DependsOn (in {tmp_path / 'esm.yaml'}: mappings[0])")


def test_the_properties_alone_mean_the_same_as_the_resource(tmp_path: Path) -> None:
    properties = yaml.safe_load(RESOURCE)["Properties"]
    properties["Tags"][1]["Value"] = "1.10"
    assert mapped(tmp_path, properties)[0] == mapped(tmp_path, RESOURCE)[0]


LISTED: dict[str, dict[str, Any]] = {
    "queue": {
        "UUID": "12345678-1234-1234-1234-123456789012", "BatchSize": 10, "MaximumBatchingWindowInSeconds": 0,
        "EventSourceArn": QUEUE, "FunctionArn": FUNCTION, "LastModified": "2026-01-31T12:00:00.123000+00:00",
        "State": "Enabled", "StateTransitionReason": "USER_INITIATED", "FunctionResponseTypes": [],
        "EventSourceMappingArn": "arn:aws:lambda:us-east-1:000000000000:event-source-mapping:x",
    },
    "fifo": {
        "UUID": "12345678-1234-1234-1234-123456789012", "BatchSize": 10, "MaximumBatchingWindowInSeconds": 0,
        "EventSourceArn": FIFO, "FunctionArn": f"{FUNCTION}:$LATEST", "LastModified": 1_769_860_800.0,
        "State": "Enabled", "StateTransitionReason": "USER_INITIATED", "FunctionResponseTypes": [],
        "ScalingConfig": {"MaximumConcurrency": 2}, "DestinationConfig": {"OnFailure": {}}, "FilterCriteria": None,
    },
    "stream": {
        "UUID": "12345678-1234-1234-1234-123456789012", "StartingPosition": "AT_TIMESTAMP",
        "StartingPositionTimestamp": "2026-01-31T12:00:00+00:00", "BatchSize": 100, "ParallelizationFactor": 1,
        "MaximumBatchingWindowInSeconds": 0, "EventSourceArn": STREAM, "FunctionArn": FUNCTION,
        "LastModified": "2026-01-31T12:00:00+00:00", "LastProcessingResult": "OK", "State": "Enabled",
        "StateTransitionReason": "User action", "DestinationConfig": {"OnFailure": {}}, "Topics": [], "Queues": [],
        "SourceAccessConfigurations": [], "SelfManagedEventSource": None, "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False, "MaximumRetryAttempts": -1, "TumblingWindowInSeconds": 0,
        "FunctionResponseTypes": [],
    },
    "table": {
        "UUID": "12345678-1234-1234-1234-123456789012", "StartingPosition": "TRIM_HORIZON",
        "StartingPositionTimestamp": None, "BatchSize": 100, "ParallelizationFactor": 1, "EventSourceArn": TABLE,
        "FunctionArn": FUNCTION, "State": "Enabled", "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
        "ScalingConfig": {}, "MetricsConfig": {"Metrics": []}, "LoggingConfig": {}, "ProvisionedPollerConfig": {},
        "TumblingWindowInSeconds": 0, "MaximumRetryAttempts": -1, "FunctionResponseTypes": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("item", LISTED.values(), ids=LISTED)
def test_an_item_of_list_event_source_mappings_is_taken_with_one_note(tmp_path: Path, item: dict[str, Any]) -> None:
    mapping, warnings = mapped(tmp_path, item)
    assert mapping.uuid == item["UUID"]
    assert mapping.function_arn.name == "f"
    assert (mapping.retries_max, mapping.on_failure, mapping.filters, mapping.is_fifo) == (
        None, None, (), item["EventSourceArn"] == FIFO,
    )  # fmt: skip
    (note,) = [text for text in warnings if text.startswith("ignored")]
    assert "State" in note
    assert "FunctionArn" not in note


def test_the_notes_of_all_mappings_are_one(tmp_path: Path) -> None:
    items = [{**LISTED["queue"], "UUID": None}, {**LISTED["stream"], "UUID": None}]
    path = written(tmp_path, {**yaml.safe_load(with_mapping("x")), "mappings": items})
    (note,) = [text for text in load(path).warnings if text.startswith("ignored")]
    assert note.endswith(f"(in {path}: mappings[0], {path}: mappings[1])")


def test_a_function_name_wins_over_the_reported_arn(tmp_path: Path) -> None:
    other = "arn:aws:lambda:us-east-1:000000000000:function:g"
    mapping, warnings = mapped(tmp_path, {**LISTED["queue"], "FunctionName": other})
    assert mapping.function == other
    assert "FunctionArn" in warnings[-1] + warnings[0]


def test_a_mapping_that_was_disabled_stays_so(tmp_path: Path) -> None:
    mapping, warnings = mapped(tmp_path, {**LISTED["queue"], "State": "Disabled"})
    assert not mapping.enabled
    assert any("is taken as Enabled: false, since its State is Disabled" in text for text in warnings)
    assert mapped(tmp_path, {**LISTED["queue"], "State": "Disabled", "Enabled": True})[0].enabled


def test_filters_that_lambda_does_not_show_are_not_lost_in_silence(tmp_path: Path) -> None:
    key = {"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k"}
    assert any("Lambda does not list encrypted filters" in text for text in mapped(tmp_path, LISTED["queue"] | key)[1])
    (text,) = unmapped(tmp_path, {**LISTED["queue"], "FilterCriteriaError": {"ErrorCode": "x", "Message": "y"}})
    assert "mappings[0].FilterCriteriaError: says that Lambda could not decrypt the filters" in text


@pytest.mark.parametrize(
    ("member", "written_as"),
    [
        ("EventSourceArn", "!GetAtt Queue.Arn"), ("EventSourceArn", "{Fn::GetAtt: [Queue, Arn]}"),
        ("FunctionName", "!Ref Function"), ("FunctionName", "{Ref: Function}"),
        ("BatchSize", "!If [Big, 10, 1]"), ("DestinationConfig", "{OnFailure: {Destination: !Sub 'arn:${X}'}}"),
        ("DestinationConfig", "{OnFailure: {Destination: {'Fn::Sub': 'arn'}}}"), ("Tags", "[{Key: a, Value: !Ref B}]"),
        ("Tags", "[{Key: a, Value: {Ref: B}}]"), ("FilterCriteria", "{Filters: [{Pattern: {'Fn::Sub': 'x'}}]}"),
        ("FilterCriteria", "{Filters: !Ref Filters}"),
            ("EventSourceArn", "!Sub 'arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:q'"),
            ("EventSourceArn", "{'Fn::Sub': 'arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:q'}"),
            ("EventSourceArn", "{'Fn::Sub': ['${Q}', {Q: q}]}"),
    ],
)  # fmt: skip
def test_functions_of_cloudformation_are_refused_with_the_remedy(tmp_path: Path, member: str, written_as: str) -> None:
    item = {"FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "LATEST"}
    item.pop(member, None)
    texts = unmapped(tmp_path, yaml.safe_dump(item) + f"{member}: {written_as}")
    assert len(texts) == 1, texts
    assert f"mappings[0].{member}" in texts[0]
    assert "which only CloudFormation resolves: write the value that it stands for" in texts[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"Type": "AWS::SQS::Queue"}, "mappings[0].Type = 'AWS::SQS::Queue': is no AWS::Lambda::EventSourceMapping"),
        ({"Properties": None}, "mappings[0].Properties: must be the table of the properties"),
        ({"Condition": "Prod"}, "mappings[0].Condition: is no member of a pasted resource"),
    ],
)
def test_a_resource_of_another_kind_is_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    item = {"Type": "AWS::Lambda::EventSourceMapping", "Properties": {"FunctionName": "f", "EventSourceArn": QUEUE}}
    assert any(problem in text for text in unmapped(tmp_path, {**item, **change}))


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"BatchSize": "ten"}, "mappings[0].BatchSize = 'ten': BatchSize: 'ten' is a string; it must be a whole"),
        ({"BatchSize": "1e1"}, "mappings[0].BatchSize = '1e1'"), ({"BatchSize": "0"}, "mappings[0].BatchSize = '0'"),
        ({"Enabled": "yes"}, "mappings[0].Enabled = 'yes'"), ({"Enabled": 1}, "mappings[0].Enabled = 1"),
        ({"BatchSize": [1]}, "mappings[0].BatchSize = [1]: BatchSize: this is a list; it must be a whole number"),
        ({"BatchSize": {"a": 1}}, "BatchSize: this is a table; it must be"),
        ({"BatchSize": 1.5}, "BatchSize = 1.5: BatchSize: 1.5 is a decimal number; it must be"),
        ({"BatchSize": True}, "BatchSize = true: BatchSize: true is a boolean; it must be"),
        ({"KMSKeyArn": "a", "KmsKeyArn": "b"}, "mappings[0].KmsKeyArn: is another spelling of KMSKeyArn: keep one"),
        ({"Tags": [{"Key": "a", "Value": "b"}, {"Key": "a"}]}, "mappings[0].Tags[1].Key = 'a': stands twice"),
        ({"Tags": ["a"]}, "mappings[0].Tags[0]: must be a {Key, Value}"),
        ({"Tags": [{"Value": "a"}]}, "mappings[0].Tags[0]: must be a {Key, Value}"),
        ({"Tags": [{"Key": [], "Value": "a"}]}, "mappings[0].Tags[0].Key: must be a string"),
        ({"Tags": "a"}, "mappings[0].Tags = 'a': Tags: 'a' is a string; it must be a table of names and strings"),
        ({"BatchSiez": 5}, "mappings[0].BatchSiez: is unknown: did you mean BatchSize?"),
        (
            {"FilterCriteria": {"Filters": [{"Pattern": {"body": "x"}}]}},
            "mappings[0].FilterCriteria.Filters[0].Pattern = {'body': 'x'}: Invalid filter pattern definition. 'body'",
        ),
        ({"FilterCriteria": {"Filters": [{"Pattern": {"body": [float("inf")]}}]}}, "Pattern: holds .nan or .inf"),
        *[
            ({"FilterCriteria": {"Filters": [], name: 1}}, f"FilterCriteria has no member {name!r}; it takes Filters.")
            for name in ("Filters.7", "Filters[7]", "Filters.²", "Filters.x", "[", ".", "Filters.Filters.0.0")
        ],
        ({"Connection": "nobody"}, "Connection = 'nobody': is no key of connections: (there are: other)"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_where_it_stands(tmp_path: Path, more: dict[str, Any], problem: str) -> None:
    texts = unmapped(tmp_path, {"FunctionName": "f", "EventSourceArn": QUEUE, **more})
    assert any(problem in text for text in texts), texts


def test_a_pattern_is_looked_at_even_where_the_source_is_not_known(tmp_path: Path) -> None:
    item = "FunctionName: f\nEventSourceArn: !GetAtt Q.Arn\nFilterCriteria: {Filters: [{Pattern: 'x'}]}"
    assert len(unmapped(tmp_path, item)) == 2


def test_problems_of_a_resource_stand_at_their_place_and_line(tmp_path: Path) -> None:
    (text,) = unmapped(tmp_path, RESOURCE.replace('"25"', '"0"').replace("KmsKeyArn", "KMSKeyArn"))
    line = 1 + with_mapping(RESOURCE).splitlines().index('    BatchSize: "25"')
    assert text.startswith(f":{line}: mappings[0].Properties.BatchSize = '0': 1 validation error detected")


def test_a_secret_within_a_pattern_is_not_shown_in_any_form(tmp_path: Path) -> None:
    for secret in ('se"cr\\et-é', "short", "hush-hush-hush"):
        for pattern in ('{body: {a: "${SECRET}"}}', '{body: {"${SECRET}": [{prefix: "${SECRET}"}], b: [{"x": 1}]}}',
                        "'{\"body\": \"${SECRET}\"}'"):  # fmt: skip
            item = f"FunctionName: f\nEventSourceArn: {QUEUE}\nFilterCriteria: {{Filters: [{{Pattern: {pattern}}}]}}"
            (text,) = unmapped(tmp_path, item, SECRET=secret)
            assert "Invalid filter pattern definition. Its reason is not shown" in text
            assert secret not in text


def test_a_tag_that_is_substituted_is_not_shown(tmp_path: Path) -> None:
    item = f"FunctionName: f\nEventSourceArn: {QUEUE}\nTags: [{{Key: a, Value: '${{SECRET}}'}}]"
    (text,) = unmapped(tmp_path, item, SECRET="tok,en")
    assert "tok,en" not in text


requests = st.fixed_dictionaries(
    {"FunctionName": st.just(FUNCTION), "EventSourceArn": st.just(STREAM), "StartingPosition": st.just("LATEST")},
    optional={
        "BatchSize": st.integers(1, 10_000), "Enabled": st.booleans(), "MaximumRetryAttempts": st.integers(-1, 10_000),
        "ParallelizationFactor": st.integers(1, 10), "BisectBatchOnFunctionError": st.booleans(),
        "MaximumBatchingWindowInSeconds": st.integers(0, 300),
        "Tags": st.dictionaries(st.sampled_from(["a", "b", "c d"]), st.text("xyz", max_size=3)),
    },
)  # fmt: skip


def in_quotes(value: Any) -> Any:
    """As CloudFormation's people write it: every number and boolean in quotes, tags as a list."""
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, dict):
        return [{"Key": key, "Value": one} for key, one in value.items()]
    return value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(requests)
def test_quotes_and_lists_change_nothing(tmp_path: Path, request: dict[str, Any]) -> None:
    quoted = {name: in_quotes(value) for name, value in request.items()}
    properties, _ = mapped(tmp_path, quoted)
    assert isinstance(properties, Mapping)
    assert properties == validation.mapping_of(
        request, uuid=properties.uuid, function_arn=properties.function_arn, wall=NOW
    )  # fmt: skip


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["x", "${X}", "$${", "1", "true", "Ref", "Fn::Sub"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["Ref", "Fn::Sub", "Key", "Value", "Pattern", "Filters", "OnFailure"]), inner),
    max_leaves=4,
)  # fmt: skip
MEMBERS = st.sampled_from([
    "Type", "Properties", "Tags", "FilterCriteria", "DestinationConfig", "KmsKeyArn", "State", "FunctionArn",
    "FilterCriteriaError", "MetricsConfig", "ProvisionedPollerConfig", "FailureBackoff", "InvocationType", "Connection",
    "EventSourceArn", "StartingPositionTimestamp", "UUID", "Topics", "RoleArn", "FunctionName",
])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.dictionaries(MEMBERS, anything, max_size=3))
def test_nothing_that_is_pasted_brings_anything_but_a_refusal(tmp_path: Path, more: dict[str, Any]) -> None:
    item = {"FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "LATEST", **more}
    path = written(tmp_path, yaml.safe_dump({**yaml.safe_load(with_mapping("x")), "mappings": [item]}))
    try:
        load(path, X="y")
    except ConfigurationRefused as refused:
        assert refused.problems
