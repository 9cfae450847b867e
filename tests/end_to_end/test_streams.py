"""Kinesis (kinesalite, with resharding) and DynamoDB Streams (ministack) end to end."""

import json
import random
import signal
import time
from typing import Any

import pytest

from tests.end_to_end.world import ACCOUNT, REGION, Queue, World, client, drain_queue, wait_for


class Stream:
    """A Kinesis stream; counts the records of each key."""

    def __init__(self, url: str, name: str, shards: int) -> None:
        self.kinesis = client("kinesis", url)
        self.name = name
        self.arn = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}"
        self.sent: dict[str, list[str]] = {}
        self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        self._wait_active()

    def put(self, key: str, identity: str | None = None) -> None:
        """Write a record; after another of the same key it is later in its shard, or in a child of it."""
        identity = identity or f"{key}-{len(self.sent.get(key, [])):04d}"
        self.sent.setdefault(key, []).append(identity)
        data = json.dumps({"id": identity, "key": key}).encode()
        self.kinesis.put_record(StreamName=self.name, PartitionKey=key, Data=data)

    def split(self) -> None:
        """Split the widest open shard in the middle."""
        shard = max(self._open(), key=_width)
        first = int(shard["HashKeyRange"]["StartingHashKey"])
        middle = str(first + _width(shard) // 2)
        self.kinesis.split_shard(StreamName=self.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
        self._wait_active()

    def merge(self) -> None:
        """Merge two open shards that lie side by side."""
        shards = sorted(self._open(), key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
        left, right = shards[0]["ShardId"], shards[1]["ShardId"]
        self.kinesis.merge_shards(StreamName=self.name, ShardToMerge=left, AdjacentShardToMerge=right)
        self._wait_active()

    def _open(self) -> list[dict[str, Any]]:
        shards = self.kinesis.describe_stream(StreamName=self.name)["StreamDescription"]["Shards"]
        return [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]

    def _wait_active(self) -> None:
        def is_active() -> bool:
            described = self.kinesis.describe_stream(StreamName=self.name)["StreamDescription"]
            return described["StreamStatus"] == "ACTIVE"

        wait_for(is_active, f"the stream {self.name} is active")


def _width(shard: dict[str, Any]) -> int:
    return int(shard["HashKeyRange"]["EndingHashKey"]) - int(shard["HashKeyRange"]["StartingHashKey"])


class Table:
    """A DynamoDB table with a stream."""

    def __init__(self, url: str, name: str) -> None:
        self.dynamodb = client("dynamodb", url)
        self.name = name
        made = self.dynamodb.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}, {"AttributeName": "id", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "key", "AttributeType": "S"}, {"AttributeName": "id", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )  # fmt: skip
        self.arn = made["TableDescription"]["LatestStreamArn"]

    def put(self, key: str, identity: str) -> None:
        self.dynamodb.put_item(TableName=self.name, Item={"key": {"S": key}, "id": {"S": identity}})


def mapping(arn: str, **more: Any) -> dict[str, Any]:
    return {
        "FunctionName": "clicks", "EventSourceArn": arn, "StartingPosition": "TRIM_HORIZON",
        "MaximumRetryAttempts": 2, **more,
    }  # fmt: skip


@pytest.mark.parametrize("factor", [1, 3])
def test_order_per_key_holds_through_splits_and_merges(
    world: World, kinesalite: str, ministack: str, factor: int
) -> None:
    stream = Stream(kinesalite, f"reshard-{factor}", 2)
    world.configure(
        endpoint_url=ministack, endpoints={"kinesis": kinesalite}, functions={"clicks": world.function()},
        mappings=[mapping(stream.arn, BatchSize=20, ParallelizationFactor=factor)],
    )  # fmt: skip
    world.start()
    keys = [f"key{number}" for number in range(12)]
    chance = random.Random(5)
    for change in (stream.split, stream.merge, stream.split, lambda: None):
        for _ in range(40):
            stream.put(chance.choice(keys))
        change()
    total = sum(len(ids) for ids in stream.sent.values())
    wait_for(lambda: len(set(world.taken())) == total, "every record is taken", 60)
    assert world.first_orders() == stream.sent
    assert len(world.taken()) == total
    assert world.stop() == 0


def test_a_poisonous_record_goes_to_the_destination_and_its_shard_goes_on(
    world: World, kinesalite: str, ministack: str
) -> None:
    stream = Stream(kinesalite, "poison", 1)
    failed = Queue(ministack, "poison-failed")
    for number in range(8):
        stream.put("k", "poison-3" if number == 3 else f"r{number}")
    more = {
        "BisectBatchOnFunctionError": True, "MaximumRetryAttempts": 0,
        "DestinationConfig": {"OnFailure": {"Destination": failed.arn}},
    }  # fmt: skip
    world.configure(
        endpoint_url=ministack, endpoints={"kinesis": kinesalite}, functions={"clicks": world.function()},
        mappings=[mapping(stream.arn, **more)],
    )  # fmt: skip
    world.start()
    wait_for(lambda: failed.count() == 1, "the notice has arrived")
    wait_for(lambda: len(world.taken()) == 7, "the other seven are taken")
    assert world.taken() == [f"r{number}" for number in range(8) if number != 3]
    (notice,) = drain_queue(failed.sqs, failed.url)
    assert notice["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert notice["requestContext"]["approximateInvokeCount"] == 1
    assert notice["KinesisBatchInfo"]["batchSize"] == 1
    assert notice["KinesisBatchInfo"]["shardId"] == "shardId-000000000000"
    assert notice["responseContext"]["functionError"] == "Unhandled"
    wait_for(lambda: world.metric("esm_on_failure_delivered_events_total") == 1, "the delivery is counted")


def test_a_partial_answer_of_a_stream_retries_from_the_named_record(
    world: World, kinesalite: str, ministack: str
) -> None:
    stream = Stream(kinesalite, "partial", 1)
    for identity in ("r0", "poison-1", "r2"):
        stream.put("k", identity)
    more = {"FunctionResponseTypes": ["ReportBatchItemFailures"], "MaximumRetryAttempts": 1}
    world.configure(
        endpoint_url=ministack, endpoints={"kinesis": kinesalite}, functions={"clicks": world.function(MODE="report")},
        mappings=[mapping(stream.arn, **more)],
    )  # fmt: skip
    world.start()
    wait_for(lambda: world.metric("esm_dropped_events_total", reason="retries") == 2, "the rest is given up")
    taken = [[identity for _, identity in entry["taken"]] for entry in world.ledger()]
    assert taken == [["r0", "r2"], ["r2"], ["r2"]]


def test_a_killed_daemon_goes_on_where_it_was(world: World, ministack: str) -> None:
    table = Table(ministack, "killed")
    function = world.function(SLEEP_S="0.05")
    world.configure(
        endpoint_url=ministack, functions={"clicks": function}, mappings=[mapping(table.arn, BatchSize=5)]
    )  # fmt: skip
    ids = [f"{number:04d}" for number in range(150)]
    world.start()
    for number, identity in enumerate(ids):
        table.put(f"key{number % 7}", identity)
        if number in {50, 100}:
            wait_for(lambda: len(world.taken()) > 10, "some are taken")
            world.stop(signal.SIGKILL)
            wait_for(lambda: not _environments(world), "no environment outlives the daemon", 5)
            world.start()
    wait_for(lambda: set(world.taken()) == set(ids), "every record is taken")
    assert world.first_orders() == {f"key{k}": ids[k::7] for k in range(7)}
    # Each kill may repeat the batch whose position was not stored, no more than one batch a lane.
    assert len(world.taken()) - len(ids) <= 2 * 5
    assert world.stop() == 0


def test_latest_is_pinned_when_the_mapping_is_made(world: World, ministack: str) -> None:
    table = Table(ministack, "latest")
    table.put("k", "before")
    time.sleep(1.1)  # creation times of DynamoDB records count whole seconds
    world.configure(
        endpoint_url=ministack, functions={"clicks": world.function()},
        mappings=[mapping(table.arn, StartingPosition="LATEST")],
    )  # fmt: skip
    world.start()
    wait_for(lambda: world.status()[0]["shards"], "the shard is read")
    assert world.stop() == 0
    table.put("k", "while it was down")
    world.start()
    wait_for(lambda: world.taken() == ["while it was down"], "what was written meanwhile is taken")


def _environments(world: World) -> list[str]:
    folder = world.folder / "host" / "environments"
    return [entry.name for entry in folder.iterdir()]


def test_another_function_under_the_same_uuid_goes_on_at_the_position_and_so_does_a_mapping_switched_on_again(
    world: World, ministack: str
) -> None:
    table = Table(ministack, "renamed")
    functions = {"old": world.function(SLEEP_S="0.3"), "new": world.function(MODE="partial")}
    one = mapping(table.arn, UUID="6f1d8a4e-0000-4000-8000-00000000cafe", BatchSize=2)

    def configure(name: str, **more: Any) -> None:
        world.configure(endpoint_url=ministack, functions=functions, mappings=[{**one, "FunctionName": name, **more}])

    def is_shown(name: str, state: str) -> bool:
        (shown,) = world.status()
        return (shown["function"].rsplit(":", 1)[1], shown["state"], shown["in_flight"]) == (name, state, 0)

    ids = [f"{number:02d}" for number in range(12)]
    configure("old")
    world.start()
    for identity in ids:
        table.put("k", identity)
    wait_for(lambda: world.metric("esm_invocations_in_flight") == 1, "the old function runs")
    configure("new")
    wait_for(lambda: set(world.taken()) == set(ids), "the new function takes the rest")
    taken_by_old = world.metric("esm_invoked_events_total", function="function:old")
    assert taken_by_old == 0, "the series of the old function are gone"
    wait_for(lambda: is_shown("new", "Enabled"), "the new function is shown")
    configure("new", Enabled=False)
    wait_for(lambda: is_shown("new", "Disabled"), "the mapping is disabled")
    table.put("k", "while it was off")
    time.sleep(1)
    assert "while it was off" not in world.taken()
    configure("new")
    wait_for(lambda: "while it was off" in world.taken(), "what was written meanwhile is taken")
    assert world.taken() == [*ids, "while it was off"]
    assert world.stop() == 0
