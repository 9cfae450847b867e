"""The daemon and every command with their state in a DynamoDB table."""

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.end_to_end.test_kcl import Application
from tests.end_to_end.test_streams import Stream, mapping
from tests.end_to_end.world import ACCOUNT, CREDENTIALS, World, client, wait_for


@pytest.fixture
def table(ministack: str) -> Iterator[str]:
    """The name of a table that nobody has made."""
    name = f"esm-{uuid.uuid4().hex}"
    yield name
    dynamodb = client("dynamodb", ministack)
    if name in dynamodb.list_tables()["TableNames"]:
        dynamodb.delete_table(TableName=name)


def configure(world: World, stream: Stream, kinesalite: str, ministack: str, **more: str) -> None:
    world.configure(
        endpoint_url=ministack, endpoints={"kinesis": kinesalite, **more},
        connections={"state": {"EndpointUrl": ministack}}, functions={"clicks": world.function()},
        mappings=[mapping(stream.arn, BatchSize=10, ParallelizationFactor=2)],
    )  # fmt: skip


def test_a_daemon_that_is_killed_again_and_again_loses_nothing_and_stores_at_most_one_position_a_second(
    world: World, kinesalite: str, ministack: str, table: str
) -> None:
    world.environ |= {"ESM_STATE": f"dynamodb://{table}", "ESM_STATE_CONNECTION": "state"}
    stream = Stream(kinesalite, f"state-{uuid.uuid4().hex[:8]}", 2)
    configure(world, stream, kinesalite, ministack, dynamodb="http://127.0.0.1:9")  # the connection has its own
    has_ended = threading.Event()

    def write() -> None:
        number = 0
        while not has_ended.wait(0.02):
            stream.put(f"key{number % 7}")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            world.start()
            before = len(set(world.taken()))
            wait_for(lambda before=before: len(set(world.taken())) > before + 60, "the daemon takes records")
            world.stop(signal.SIGKILL)
        world.start()
        began_at, writes, reads = time.monotonic(), _calls(world, "PutItem"), _calls(world, "GetItem", "Query")
        time.sleep(4)
        took_s = time.monotonic() - began_at
        writes, reads = _calls(world, "PutItem") - writes, _calls(world, "GetItem", "Query") - reads
    finally:
        has_ended.set()
        writer.join()
    shards, status_items, heartbeats = 2, took_s / 5 + 1, took_s * 24 / 60 + 1
    assert 0 < writes <= (took_s + 1) * shards + status_items + heartbeats
    assert 0 < reads <= took_s + 3
    total = sum(len(ids) for ids in stream.sent.values())
    wait_for(lambda: len(set(world.taken())) == total, "every record is taken")
    assert world.first_orders() == stream.sent
    assert world.stop() == 0
    keys = client("dynamodb", ministack).describe_table(TableName=table)["Table"]["KeySchema"]
    assert [(key["AttributeName"], key["KeyType"]) for key in keys] == [("pk", "HASH"), ("sk", "RANGE")]


def _calls(world: World, *operations: str) -> float:
    """Calls of the table: nothing else in this world is one of DynamoDB."""
    return sum(world.metric("esm_aws_requests_total", service="dynamodb", operation=name) for name in operations)


def test_operators_commands_work_on_a_table(world: World, kinesalite: str, ministack: str, table: str) -> None:
    stream = _one_taken(world, kinesalite, ministack, table)
    (row,) = wait_for(
        lambda: [row for row in json.loads(world.command("status", "--json").stdout) if row["state"] == "Enabled"],
        "status says so",
    )
    wait_for(
        lambda: [lease for lease in _leases(world) if lease["arrived_at"] is not None], "the position is in the table"
    )
    assert row["source"] == stream.arn
    assert "paused" in world.command("pause", row["uuid"]).stdout
    wait_for(lambda: [view["state"] for view in world.status()] == ["Disabled"], "it rests", 5)
    assert "resumed" in world.command("resume", row["uuid"]).stdout
    assert "is stored" in world.command("rewind", row["uuid"], "--to", "trim-horizon", "--yes").stdout
    wait_for(lambda: world.taken() == ["key-0000", "key-0000"], "it is read again")
    assert world.stop() == 0


def test_an_import_into_a_table_waits_for_its_workers_to_end(
    world: World, kinesalite: str, ministack: str, table: str
) -> None:
    stream = _one_taken(world, kinesalite, ministack, table)
    application = Application(ministack, f"app-{uuid.uuid4().hex[:8]}")
    application.consume(stream, 1)
    arguments = ("import-kcl", "--table", application.name, "--mapping", "clicks", "--look-s", "0.3", "--replace")
    wait_for(lambda: world.status()[0]["state"] == "Enabled", "it reads")
    assert "The state is in use by" in world.command(*arguments, "--yes").stderr
    assert world.stop() == 0
    (before,) = _leases(world)
    done = world.command(*arguments, "--yes")
    assert done.returncode == 0, done.stderr
    (lease,) = _leases(world)
    assert lease["generation"] > before["generation"]


def test_commands_make_no_table_and_take_none_of_another_program(world: World, ministack: str, table: str) -> None:
    one = {"FunctionName": "clicks", "EventSourceArn": f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/none"}
    world.configure(
        endpoint_url=ministack, functions={"clicks": world.function()},
        mappings=[{**one, "StartingPosition": "LATEST", "MaximumRetryAttempts": 1}],
    )  # fmt: skip
    world.settings = {
        "PATH": os.environ["PATH"], "HOME": str(world.folder), **CREDENTIALS, "ESM_STATE": f"dynamodb://{table}"
    }  # fmt: skip
    for command in (("status",), ("leases",), ("pause", "clicks")):
        assert "no daemon has run with it" in world.command(*command).stderr
    assert table not in client("dynamodb", ministack).list_tables()["TableNames"]
    application = Application(ministack, f"app-{uuid.uuid4().hex[:8]}")
    world.settings["ESM_STATE"] = f"dynamodb://{application.name}"
    assert "is another program's: its keys are leaseKey (HASH, S), and" in world.command("run").stderr


def _one_taken(world: World, kinesalite: str, ministack: str, table: str) -> Stream:
    world.environ["ESM_STATE"] = f"dynamodb://{table}"
    stream = Stream(kinesalite, f"commands-{uuid.uuid4().hex[:8]}", 1)
    configure(world, stream, kinesalite, ministack)
    world.start()
    stream.put("key")
    wait_for(lambda: world.taken() == ["key-0000"], "the record is taken")
    return stream


def _leases(world: World) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(world.command("leases", "--json").stdout)
    return found


def test_a_large_event_survives_a_kill_in_the_bucket_and_leaves_nothing(
    world: World, kinesalite: str, ministack: str, table: str
) -> None:
    s3, bucket = client("s3", ministack), f"blobs-{uuid.uuid4().hex}"
    world.environ |= {"ESM_STATE": f"dynamodb://{table}", "ESM_BLOBS": f"s3://{bucket}/esm"}
    stream = Stream(kinesalite, f"large-{uuid.uuid4().hex[:8]}", 1)
    one = {"FunctionName": "clicks", "EventSourceArn": stream.arn, "StartingPosition": "TRIM_HORIZON"}
    world.configure(
        endpoint_url=ministack, endpoints={"kinesis": kinesalite}, functions={"clicks": world.function(SLEEP_S="1")},
        mappings=[{**one, "InvocationType": "Event"}],
    )  # fmt: skip
    world.settings = {**world.environ, "PATH": os.environ["PATH"], "HOME": str(world.folder), **CREDENTIALS}
    refused = world.command("run")
    assert (refused.returncode, f"The bucket {bucket} cannot be used" in refused.stderr) == (2, True), refused.stderr
    s3.create_bucket(Bucket=bucket)

    def objects() -> list[str]:
        return [found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]

    world.start()
    data = json.dumps({"id": "large", "key": "k", "pad": "x" * 600_000}).encode()
    stream.kinesis.put_record(StreamName=stream.name, PartitionKey="k", Data=data)
    (key,) = wait_for(objects, "the event's body is in the bucket")
    assert key.startswith("esm/async/")
    items = client("dynamodb", ministack).scan(TableName=table)["Items"]
    assert max(len(item["val"]["B"]) for item in items) < 10_000
    world.stop(signal.SIGKILL)
    assert world.taken() == []
    world.start()
    wait_for(lambda: world.taken() == ["large"], "it is taken")
    wait_for(lambda: not objects(), "the bucket is empty")
    assert world.stop() == 0
