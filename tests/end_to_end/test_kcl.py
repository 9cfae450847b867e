"""An application of KCL stops in the middle of a stream; the daemon goes on from its lease table, and back."""

import json
import os
import re
import shlex
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.end_to_end.test_streams import Stream, Table, mapping
from tests.end_to_end.world import REGION, World, client, wait_for

LOOK = ("--look-s", "0.3")


class Application:
    """A lease table as KCL keeps it, and a consumer that takes so many records of each shard."""

    def __init__(self, url: str, name: str) -> None:
        self.dynamodb = client("dynamodb", url)
        self.name = name
        self.taken: list[str] = []
        self.dynamodb.create_table(
            TableName=name, KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
        )  # fmt: skip

    def put(self, key: str, checkpoint: str, *, sub_sequence: int = 0, **more: Any) -> None:
        """Write a row."""
        self.dynamodb.put_item(TableName=self.name, Item={
            "leaseKey": {"S": key}, "leaseCounter": {"N": "12"}, "leaseOwner": {"S": "worker-1"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"}, "checkpoint": {"S": checkpoint},
            "checkpointSubSequenceNumber": {"N": str(sub_sequence)}, **more,
        })  # fmt: skip

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every row by key."""
        return {item["leaseKey"]["S"]: item for item in self.dynamodb.scan(TableName=self.name)["Items"]}

    def consume(self, stream: Stream, count: int) -> None:
        """Take up to `count` records of each shard that the parents allow, from the row's checkpoint on."""
        shards = stream.kinesis.describe_stream(StreamName=stream.name)["StreamDescription"]["Shards"]
        for shard in shards:
            parents = [shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard]
            rows = self.rows()
            if any(rows.get(parent, {}).get("checkpoint") != {"S": "SHARD_END"} for parent in parents):
                continue
            taken, has_ended = self._read(stream, shard["ShardId"], rows.get(shard["ShardId"]), count)
            ids = [json.loads(record["Data"])["id"] for record in taken]
            self.taken += ids
            checkpoint = "SHARD_END" if has_ended else taken[-1]["SequenceNumber"] if taken else "TRIM_HORIZON"
            more = {"parentShardId": {"SS": parents}} if parents else {}
            hashes = shard["HashKeyRange"]
            self.put(
                shard["ShardId"], checkpoint, startingHashKey={"S": hashes["StartingHashKey"]},
                endingHashKey={"S": hashes["EndingHashKey"]}, **more,
            )  # fmt: skip

    def _read(
        self, stream: Stream, shard: str, row: dict[str, Any] | None, count: int
    ) -> tuple[list[dict[str, Any]], bool]:
        at: dict[str, str] = {"ShardIteratorType": "TRIM_HORIZON"}
        if row is not None and row["checkpoint"]["S"].isdecimal():
            at = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": row["checkpoint"]["S"]}
        iterator = stream.kinesis.get_shard_iterator(StreamName=stream.name, ShardId=shard, **at)["ShardIterator"]
        answer = stream.kinesis.get_records(ShardIterator=iterator, Limit=count)
        records = answer["Records"]
        following = answer.get("NextShardIterator")
        rest = stream.kinesis.get_records(ShardIterator=following, Limit=1)["Records"] if following else []
        is_closed = not following or (not rest and len(records) < count and self._is_closed(stream, shard))
        return records, is_closed

    @staticmethod
    def _is_closed(stream: Stream, shard: str) -> bool:
        shards = stream.kinesis.describe_stream(StreamName=stream.name)["StreamDescription"]["Shards"]
        (found,) = [one for one in shards if one["ShardId"] == shard]
        return "EndingSequenceNumber" in found["SequenceNumberRange"]


EVERYWHERE = pytest.mark.parametrize("dynamodb", ["ministack", "moto_url"], indirect=True)


@pytest.fixture
def dynamodb(request: pytest.FixtureRequest) -> str:
    """The endpoint of what serves DynamoDB: ministack where a test names none."""
    url: str = request.getfixturevalue(getattr(request, "param", "ministack"))
    return url


@pytest.fixture
def configured(world: World, kinesalite: str, dynamodb: str) -> Callable[[Stream], None]:
    """Writes the configuration of one mapping of a stream, with the leases' tables in `dynamodb`."""

    def configure(stream: Stream, **more: Any) -> None:
        world.configure(
            endpoint_url=dynamodb, endpoints={"kinesis": kinesalite}, functions={"clicks": world.function()},
            mappings=[mapping(stream.arn, **more)],
        )  # fmt: skip
        world.settings = settings(world.folder)

    return configure


def settings(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"], "HOME": str(folder), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION, "ESM_STATE": f"sqlite:///{folder}/state.db",
    }  # fmt: skip


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def kcl(world: World, verb: str, table: str, *more: str) -> Any:
    return world.command(f"{verb}-kcl", "--table", table, "--mapping", "clicks", *LOOK, *more)


@pytest.mark.parametrize("factor", [1, 3])
def test_the_daemon_takes_each_record_exactly_from_where_the_application_stopped(
    world: World, kinesalite: str, dynamodb: str, configured: Any, factor: int
) -> None:
    stream = Stream(kinesalite, unique("half"), 2)
    application = Application(dynamodb, unique("app"))
    for number in range(40):
        stream.put(f"key{number % 8}")
    application.consume(stream, 1000)
    stream.split()
    for number in range(40):
        stream.put(f"key{number % 8}")
    application.consume(stream, 3)
    configured(stream, ParallelizationFactor=factor, StartingPosition="LATEST")

    dry = kcl(world, "import", application.name)
    assert dry.returncode == 0, dry.stderr
    assert "dry run" in dry.stdout
    assert not (world.folder / "state.db").exists()
    done = kcl(world, "import", application.name, "--yes")
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout
    assert "the daemon goes on from there" in done.stdout

    again = kcl(world, "import", application.name, "--yes")
    assert again.returncode == 2
    assert "has positions already" in again.stderr
    assert kcl(world, "import", application.name, "--yes", "--replace").returncode == 0

    world.start()
    sent = {identity for ids in stream.sent.values() for identity in ids}
    rest = sent - set(application.taken)
    wait_for(lambda: set(world.taken()) >= rest, "the rest is taken")
    stream.put("key0", "last")
    wait_for(lambda: "last" in world.taken(), "what comes after is taken")
    assert sorted(world.taken()) == sorted([*rest, "last"])
    running = kcl(world, "import", application.name, "--yes", "--replace")
    assert running.returncode == 2
    assert "state.db" in running.stderr
    assert world.stop() == 0


@EVERYWHERE
def test_an_exported_table_leads_the_application_and_the_daemon_on(
    world: World, kinesalite: str, dynamodb: str, configured: Any
) -> None:
    stream = Stream(kinesalite, unique("back"), 1)
    for _ in range(10):
        stream.put("k")
    stream.split()
    for number in range(10):
        stream.put(f"key{number}")
    configured(stream, StartingPosition="TRIM_HORIZON")
    world.start()
    wait_for(lambda: len(world.taken()) == 20, "everything is taken")
    wait_for(lambda: world.metric("esm_lag_seconds") == 0, "the positions are stored")
    world.stop()
    for number in range(6):
        stream.put(f"key{number}")

    name = unique("app")
    dry = kcl(world, "export", name)
    assert dry.returncode == 0, dry.stderr
    assert name not in client("dynamodb", dynamodb).list_tables()["TableNames"]
    done = kcl(world, "export", name, "--yes")
    assert done.returncode == 0, done.stderr
    items = client("dynamodb", dynamodb).scan(TableName=name)["Items"]
    rows = {item["leaseKey"]["S"]: item for item in items}
    parent = rows["shardId-000000000000"]
    assert parent["checkpoint"] == {"S": "SHARD_END"}
    assert sorted(parent["childShardIds"]["SS"]) == ["shardId-000000000001", "shardId-000000000002"]
    assert "items already" in kcl(world, "export", name, "--yes").stderr
    assert kcl(world, "export", name, "--yes", "--replace").returncode == 0
    back = kcl(world, "import", name, "--yes", "--replace")
    assert back.returncode == 0, back.stderr
    world.start()
    wait_for(lambda: len(set(world.taken())) == 26, "the rest is taken")
    assert len(world.taken()) == 26
    world.stop()


def test_the_readme_shows_what_the_commands_print(
    world: World, kinesalite: str, dynamodb: str, configured: Any
) -> None:
    stream = Stream(kinesalite, unique("shown"), 1)
    stream.put("k")
    name = unique("app")
    application = Application(dynamodb, name)
    application.consume(stream, 10)
    stream.split()
    for number in range(16):
        stream.put(f"key{number}")
    application.consume(stream, 1)
    application.put(max(application.rows()), "TRIM_HORIZON")
    configured(stream)
    section = (servers.ROOT / "README.md").read_text().split("## Coming from the Kinesis Client Library")[1]
    shown = re.findall(r"```console\n\$ esm (.*)\n((?:[^`].*\n)*)```", section.split("\n## ")[0])
    assert len(shown) == 3
    for command, output in shown:
        done = world.command(*shlex.split(command.replace("clicks-app", name)), *LOOK)
        assert (done.returncode, without_numbers(done.stdout)) == (0, without_numbers(output)), done.stderr


def without_numbers(text: str) -> str:
    """Without the sequence numbers, which are others in every stream."""
    return re.sub(r"\d{40,}", "N", text)


def test_an_aggregated_record_is_delivered_again_whole(
    world: World, kinesalite: str, dynamodb: str, configured: Any
) -> None:
    stream = Stream(kinesalite, unique("aggregated"), 1)
    stream.put("k", "one")
    stream.put("k", "two")
    application = Application(dynamodb, unique("app"))
    application.consume(stream, 2)
    (row,) = application.rows().values()
    application.put(row["leaseKey"]["S"], row["checkpoint"]["S"], sub_sequence=5)
    configured(stream)
    done = kcl(world, "import", application.name, "--yes")
    assert done.returncode == 0, done.stderr
    assert "delivered again whole" in done.stdout
    world.start()
    wait_for(lambda: "two" in world.taken(), "the record comes again")
    world.stop()


def test_a_running_application_is_refused(world: World, kinesalite: str, dynamodb: str, configured: Any) -> None:
    stream = Stream(kinesalite, unique("runs"), 1)
    stream.put("k")
    application = Application(dynamodb, unique("app"))
    application.consume(stream, 10)
    configured(stream)
    is_over = threading.Event()

    def renew() -> None:
        while not is_over.wait(0.1):
            application.dynamodb.update_item(
                TableName=application.name, Key={"leaseKey": {"S": "shardId-000000000000"}},
                UpdateExpression="ADD leaseCounter :one", ExpressionAttributeValues={":one": {"N": "1"}},
            )  # fmt: skip

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        for verb in ("import", "export"):
            if verb == "export":
                world.start()
                wait_for(world.taken, "it is taken")
                world.stop()
            found = world.command(
                f"{verb}-kcl", "--table", application.name, "--mapping", "clicks", "--look-s", "2", "--yes", "--replace"
            )
            assert found.returncode == 2
            assert "still runs" in found.stderr
    finally:
        is_over.set()
        renewing.join()


def test_other_tables_are_refused(world: World, kinesalite: str, dynamodb: str, configured: Any) -> None:
    older = Stream(kinesalite, unique("older"), 1)
    second = int(time.time())
    wait_for(lambda: time.time() > second + 2, "the next stream's sequence numbers are others")
    newer = Stream(kinesalite, unique("newer"), 1)
    for stream in (older, newer):
        stream.put("k")
    for theirs, ours in ((older, newer), (newer, older)):
        application = Application(dynamodb, unique("app"))
        application.consume(theirs, 10)
        configured(ours)
        assert "not of the stream" in kcl(world, "import", application.name).stderr
    assert "There is no table" in kcl(world, "import", "nothing").stderr
    Table(dynamodb, name := unique("else"))
    assert "has the key" in kcl(world, "import", name).stderr
    assert (
        "means no mapping of the configuration"
        in world.command("import-kcl", "--table", application.name, "--mapping", "x").stderr
    )
    assert "no positions" in kcl(world, "export", application.name).stderr
    world.settings["ESM_STATE"] = "memory://"
    assert "ends with this command" in kcl(world, "import", application.name, "--yes").stderr


@EVERYWHERE
def test_an_application_of_the_dynamodb_streams_adapter(world: World, dynamodb: str) -> None:
    table = Table(dynamodb, unique("orders"))
    for number in range(6):
        table.put("k", f"r{number}")
    streams = client("dynamodbstreams", dynamodb)
    shards = streams.describe_stream(StreamArn=table.arn)["StreamDescription"]["Shards"]
    application = Application(dynamodb, unique("app"))
    for shard in shards:
        at = streams.get_shard_iterator(
            StreamArn=table.arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )  # fmt: skip
        records = streams.get_records(ShardIterator=at["ShardIterator"])["Records"][:3]
        application.taken += [record["dynamodb"]["NewImage"]["id"]["S"] for record in records]
        application.put(
            shard["ShardId"], records[-1]["dynamodb"]["SequenceNumber"] if records else "TRIM_HORIZON",
            startingHashKey={"S": "0"}, endingHashKey={"S": "1"},
        )  # fmt: skip
    world.configure(
        endpoint_url=dynamodb, functions={"clicks": world.function()}, mappings=[mapping(table.arn)]
    )  # fmt: skip
    world.settings = settings(world.folder)
    done = kcl(world, "import", application.name, "--yes")
    assert done.returncode == 0, done.stderr
    world.start()
    wait_for(lambda: len(world.taken()) >= 6 - len(application.taken), "the rest is taken")
    assert sorted([*world.taken(), *application.taken]) == [f"r{number}" for number in range(6)]
    world.stop()
