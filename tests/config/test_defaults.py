"""`defaults:`: what mappings have unless they say otherwise, and which of them."""

from pathlib import Path
from typing import Any

import pytest

from esm.model.mapping import InvocationType, Mapping
from tests.config.written import BASE, FIFO, QUEUE, STREAM, TABLE, load, refusal, written

LATEST = {"StartingPosition": "LATEST"}


def made(folder: Path, defaults: object, *items: dict[str, Any]) -> list[Mapping]:
    every = [{"FunctionName": "f", **item} for item in items]
    return list(load(written(folder, {**BASE, "defaults": defaults, "mappings": every})).mappings)


def refused(folder: Path, defaults: object, *items: dict[str, Any]) -> list[str]:
    every = [{"FunctionName": "f", **item} for item in items]
    path = written(folder, {**BASE, "defaults": defaults, "mappings": every})
    return [text.removeprefix(str(path)).split(": ", 1)[1] for text in refusal(path)]


def test_a_general_default_is_used_by_the_mappings_that_take_it(tmp_path: Path) -> None:
    defaults = {**LATEST, "MaximumRetryAttempts": 3, "MaximumBatchingWindowInSeconds": 2, "VisibilityHeartbeat": True}
    queue, fifo, stream = made(
        tmp_path, defaults, {"EventSourceArn": QUEUE}, {"EventSourceArn": FIFO}, {"EventSourceArn": STREAM}
    )
    assert (queue.retries_max, queue.window_s, queue.extends_visibility, queue.starting_position) == (
        None,
        2,
        True,
        None,
    )
    assert (fifo.window_s, fifo.extends_visibility) == (0, True)
    assert (stream.retries_max, stream.window_s, stream.extends_visibility) == (3, 2, False)


def test_a_default_of_the_source_type_wins_over_a_general_one_and_the_mapping_over_both(tmp_path: Path) -> None:
    defaults = {**LATEST, "BatchSize": 5, "kinesis": {"BatchSize": 6}, "dynamodb": {"BatchSize": 7}, "sqs": None}
    sizes = [one.batch_size for one in made(
        tmp_path, defaults, {"EventSourceArn": QUEUE}, {"EventSourceArn": STREAM}, {"EventSourceArn": TABLE},
        {"EventSourceArn": STREAM + "2", "BatchSize": 8}, {"EventSourceArn": STREAM + "3", "BatchSize": None},
    )]  # fmt: skip
    assert sizes == [5, 6, 7, 8, 100]


def test_a_value_of_the_mapping_replaces_the_default_as_a_whole(tmp_path: Path) -> None:
    defaults = {**LATEST, "DestinationConfig": {"OnFailure": {"Destination": QUEUE, "IncludePayload": True}}}
    own = {"DestinationConfig": {"OnFailure": {"Destination": QUEUE + "2"}}}
    first, second = made(tmp_path, defaults, {"EventSourceArn": STREAM}, {"EventSourceArn": STREAM + "2", **own})
    assert (first.on_failure_has_payload, second.on_failure_has_payload) == (True, False)


def test_defaults_may_be_written_as_they_are_pasted(tmp_path: Path) -> None:
    defaults = {"BatchSize": "5", "Tags": [{"Key": "a", "Value": "b"}],
                "FilterCriteria": {"Filters": [{"Pattern": {"body": ["x"]}}]}}  # fmt: skip
    (queue,) = made(tmp_path, defaults, {"EventSourceArn": QUEUE})
    assert (queue.batch_size, queue.tags, queue.filters) == (5, (("a", "b"),), ('{"body": ["x"]}',))


def test_an_event_mapping_does_not_get_what_waits_for_an_answer(tmp_path: Path) -> None:
    defaults = {**LATEST, "MaximumRetryAttempts": 3, "FunctionResponseTypes": ["ReportBatchItemFailures"],
                "kinesis": {"InvocationType": "Event"}}  # fmt: skip
    stream, table = made(tmp_path, defaults, {"EventSourceArn": STREAM}, {"EventSourceArn": TABLE})
    assert (stream.invocation_type, stream.retries_max, stream.reports_item_failures) == (
        InvocationType.EVENT, None, False,
    )  # fmt: skip
    assert (table.retries_max, table.reports_item_failures) == (3, True)


@pytest.mark.parametrize(
    ("defaults", "problem"),
    [
        ({"EventSourceArn": QUEUE}, "defaults.EventSourceArn: cannot be a default"),
        ({"FunctionName": "f"}, "defaults.FunctionName: cannot be a default"),
        ({"Topics": ["x"]}, "defaults.Topics: cannot be a default"),
        ({"UUID": "x"}, "defaults.UUID: is unknown"), ({"BatchSiez": 5}, "did you mean BatchSize?"),
        ({"kinesis": {"": "${"}}, "defaults.kinesis."),
        ({"sqz": {}}, "defaults.sqz: is unknown: did you mean sqs?"),
        ({"sqs": {"ParallelizationFactor": 2}}, "defaults.sqs.ParallelizationFactor: is taken by no mapping of sqs"),
        ({"kinesis": {"ScalingConfig": {"MaximumConcurrency": 2}}}, "is taken by no mapping of kinesis"),
        ({"sqs": 5}, "defaults.sqs = 5: must be a table of parameters"),
        ({"BatchSize": 0}, "defaults.BatchSize = 0: 1 validation error"),
        ({"kinesis": {"BatchSize": "x"}}, "defaults.kinesis.BatchSize = 'x'"),
        ({"DestinationConfig": {"OnFailure": {"Topic": "x"}}}, "defaults.DestinationConfig.OnFailure.Topic"),
        ({"BatchSize": {"Ref": "Size"}}, "defaults.BatchSize: is CloudFormation's Ref"),
    ],
)  # fmt: skip
def test_a_wrong_default_is_named_even_if_no_mapping_uses_it(
    tmp_path: Path, defaults: dict[str, Any], problem: str
) -> None:
    (text,) = refused(tmp_path, defaults)
    assert problem in text


def test_a_default_that_does_not_suit_a_mapping_is_named_once_with_the_first_that_uses_it(tmp_path: Path) -> None:
    (text,) = refused(tmp_path, {"BatchSize": 50}, {"EventSourceArn": FIFO}, {"EventSourceArn": QUEUE + "2.fifo"})
    assert text.startswith("defaults.BatchSize: BatchSize 50 is not possible: a FIFO queue gives at most 10")
    assert "mappings[0]" in text


def test_a_connection_among_the_defaults_must_exist(tmp_path: Path) -> None:
    (text,) = refused(tmp_path, {"Connection": "nobody"}, {"EventSourceArn": QUEUE}, {"EventSourceArn": QUEUE + "2"})
    assert text.startswith("defaults.Connection: is no key of connections: (there are: none)")
