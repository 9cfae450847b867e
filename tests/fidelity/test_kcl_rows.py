"""Rows of lease tables as KCL 1, 2 and 3 and the DynamoDB Streams adapter write them.

Source: awslabs/amazon-kinesis-client 1.14.10 (KinesisClientLeaseSerializer), 3.5.1 (DynamoDBLeaseSerializer and the
tests of the multi-stream one, EntityType); awslabs/dynamodb-streams-kinesis-adapter 2.3.0 (KinesisMapperUtil).
"""

from typing import Any

import pytest

from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.model.kcl import Row
from esm.model.position import Shard
from esm.rules import kcl
from esm.rules.starting import Start
from tests.simulation.world import stream_mapping

SEQUENCE = "49590338271490256608559692538361571095921575989136588898"

VERSION_1: dict[str, Any] = {
    "leaseKey": {"S": "shardId-000000000001"}, "leaseCounter": {"N": "249"}, "leaseOwner": {"S": "host:8a5a-1"},
    "ownerSwitchesSinceCheckpoint": {"N": "2"}, "checkpoint": {"S": SEQUENCE},
    "checkpointSubSequenceNumber": {"N": "3"}, "parentShardId": {"SS": ["shardId-000000000000"]},
}  # fmt: skip

VERSION_2: dict[str, Any] = {
    **VERSION_1, "childShardIds": {"SS": ["shardId-000000000002", "shardId-000000000003"]},
    "startingHashKey": {"S": "0"}, "endingHashKey": {"S": "340282366920938463463374607431768211455"},
    "pendingCheckpoint": {"S": SEQUENCE[:-1] + "9"}, "pendingCheckpointSubSequenceNumber": {"N": "0"},
}  # fmt: skip

VERSION_3: dict[str, Any] = {
    **VERSION_2,
    "throughputKBps": {"N": "12.5"},
    "checkpointOwner": {"S": "host:8a5a-2"},
    "entityType": {"S": "LEASE"},
}

MULTI_STREAM: dict[str, Any] = {
    **VERSION_3, "leaseKey": {"S": "123456789012:test-stream:1:shardId-000000000000"},
    "streamName": {"S": "123456789012:test-stream:1"}, "shardId": {"S": "shardId-000000000000"},
}  # fmt: skip


def test_a_row_of_version_1() -> None:
    assert kcl.rows_of([VERSION_1], "app") == [
        Row(
            key="shardId-000000000001", stream="", shard="shardId-000000000001", checkpoint=SEQUENCE, sub_sequence=3,
            counter=249, owner="host:8a5a-1", parents=("shardId-000000000000",),
        )
    ]  # fmt: skip


def test_a_row_older_than_aggregated_records() -> None:
    item = {name: VERSION_1[name] for name in ("leaseKey", "leaseCounter", "checkpoint")}
    (row,) = kcl.rows_of([item], "app")
    assert (row.sub_sequence, row.owner, row.parents) == (0, "", ())


@pytest.mark.parametrize("item", [VERSION_2, VERSION_3])
def test_a_row_of_versions_2_and_3(item: dict[str, Any]) -> None:
    (row,) = kcl.rows_of([item], "app")
    assert row.hash_keys == ("0", "340282366920938463463374607431768211455")
    assert row.has_pending
    assert row.checkpoint == SEQUENCE


def test_a_row_of_an_application_with_many_streams() -> None:
    (row,) = kcl.rows_of([MULTI_STREAM], "app")
    assert (row.stream, row.shard) == ("123456789012:test-stream:1", "shardId-000000000000")


def test_a_row_of_the_dynamodb_streams_adapter_with_many_streams() -> None:
    name = "123456789012:us-west-2$123456789012$orders$2024-02-03T05_06_07.890:1"
    item = {**VERSION_3, "leaseKey": {"S": f"{name}:shardId-00000001706936767890-0a1b2c3d"}, "streamName": {"S": name}}
    arn = Arn.parse("arn:aws:dynamodb:us-west-2:123456789012:table/orders/stream/2024-02-03T05:06:07.890")
    rows = kcl.rows_of([item], "app")
    assert kcl.of_stream(rows, arn, None, "app") == rows
    assert rows[0].shard == "shardId-00000001706936767890-0a1b2c3d"


@pytest.mark.parametrize(
    "kind", ["STREAM", "LEADER", "CLIENT_VERSION_MIGRATION", "TABLE_MIGRATION", "WORKER_METRIC_STATS", "A_LATER_ONE"]
)
def test_version_3_keeps_other_things_in_the_same_table(kind: str) -> None:
    assert kcl.rows_of([{"leaseKey": {"S": "x"}, "entityType": {"S": kind}}], "app") == []


@pytest.mark.parametrize("sentinel", ["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END"])
def test_a_checkpoint_may_be_a_word(sentinel: str) -> None:
    assert kcl.rows_of([{**VERSION_1, "checkpoint": {"S": sentinel}}], "app")[0].checkpoint == sentinel


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": {"S": "NOWHERE"}}, {"checkpoint": {"N": "5"}}, {"leaseCounter": {"S": "5"}}, {"leaseKey": {}},
        {"checkpointSubSequenceNumber": {"N": "-1"}}, {"checkpoint": {}},
    ],
)  # fmt: skip
def test_what_kcl_would_not_write_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match="not a lease table"):
        kcl.rows_of([{**VERSION_1, **change}], "app")


def test_a_written_row_has_what_kcl_reads() -> None:
    shard = Shard("shardId-000000000001", (), hash_keys=("0", "9"))
    (entry,) = kcl.exported(stream_mapping(), [], Start("arn@1", ""), [shard])
    assert entry.item == {
        "leaseKey": {"S": "shardId-000000000001"}, "leaseCounter": {"N": "0"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"}, "checkpoint": {"S": "TRIM_HORIZON"},
        "checkpointSubSequenceNumber": {"N": "0"}, "startingHashKey": {"S": "0"}, "endingHashKey": {"S": "9"},
    }  # fmt: skip
