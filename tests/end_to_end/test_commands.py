"""What operators ask of a running daemon from another process."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_streams import Stream
from tests.end_to_end.world import Queue, World, drain_queue, wait_for


def shown(world: World) -> list[tuple[str, str | None]]:
    return [(view["state"], view["reason"]) for view in json.loads(world.command("status", "--json").stdout)]


def ran(world: World, *arguments: str) -> str:
    done = world.command(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(world: World, *arguments: str) -> str:
    done = world.command(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_paused_mapping_rests_over_reloads_and_restarts_until_it_is_resumed(world: World, ministack: str) -> None:
    queue, other = Queue(ministack, "pause-1"), Queue(ministack, "pause-2")
    functions = {"orders": world.function()}
    mappings: list[dict[str, Any]] = [
        {"FunctionName": "orders", "EventSourceArn": one.arn} for one in (queue, other)
    ]  # fmt: skip
    world.configure(endpoint_url=ministack, functions=functions, mappings=mappings)
    world.start()
    assert "means several mappings" in refused(world, "pause", "orders")
    assert "means no mapping" in refused(world, "pause", "nobody")
    assert "is a queue" in refused(world, "rewind", "pause-1", "--to", "latest")
    assert "is a queue" in refused(world, "skip", "pause-1", "shard", "--to", "1")
    assert "paused." in ran(world, "pause", "pause-1")
    assert "paused already" in ran(world, "pause", "pause-1")
    rests = [("Disabled", "paused by operator"), ("Enabled", None)]
    wait_for(lambda: shown(world) == rests, "it rests")
    assert "mapping paused by operator" in world.log()
    assert "paused by operator" in ran(world, "status")
    mappings[0]["BatchSize"] = 3
    world.configure(endpoint_url=ministack, functions=functions, mappings=mappings)
    wait_for(lambda: "configuration applied" in world.log(), "the change is applied")
    queue.send("waits")
    assert world.stop() == 0
    world.start()
    wait_for(lambda: shown(world) == rests, "the other one runs")
    assert world.taken() == []
    assert "resumed." in ran(world, "resume", "pause-1")
    wait_for(lambda: world.taken() == ["waits"], "it goes on")
    assert "was not paused" in ran(world, "resume", "pause-1")
    assert world.stop() == 0


@pytest.mark.node
def test_a_stream_is_rewound_and_skipped_while_it_runs_and_forgotten_when_it_is_gone(
    world: World, ministack: str, kinesalite: str
) -> None:
    stream, failed = Stream(kinesalite, "operated", shards=1), Queue(ministack, "operated-failed")
    mapping = {
        "FunctionName": "orders", "EventSourceArn": stream.arn, "StartingPosition": "TRIM_HORIZON", "BatchSize": 1,
        "DestinationConfig": {"OnFailure": {"Destination": failed.arn}},
    }  # fmt: skip
    functions = {"orders": world.function()}
    addresses = {"endpoint_url": ministack, "endpoints": {"kinesis": kinesalite}}
    world.configure(**addresses, functions=functions, mappings=[mapping])
    world.start()
    ids = [f"r{number}" for number in range(6)]
    for number, identity in enumerate(ids):
        if number == 3:
            stream.split()
        stream.put("k", identity)
    wait_for(lambda: world.taken() == ids, "everything is taken")
    wait_for(lambda: [one["is_finished"] for one in leases(world)].count(True) == 1, "the parent is finished")
    lease = max(leases(world), key=lambda one: one["arrived_at"] or 0)
    assert lease["shard"] in ran(world, "leases")
    dry = ran(world, "rewind", "orders", "--to", "trim-horizon")
    assert "trim-horizon" in dry
    assert "Nothing has been changed" in dry
    time.sleep(2)
    assert world.taken() == ids
    assert "is stored" in ran(world, "rewind", "operated", "--to", "trim-horizon", "--yes")
    wait_for(lambda: world.taken() == ids * 2, "everything is taken again")
    assert "shard rewound by operator" in world.log()
    ran(world, "rewind", "orders", "--to", f"{lease['shard']}:{lease['position']['after']}", "--yes")
    wait_for(lambda: world.taken() == [*ids * 2, "r5"], "the last one is taken once more")
    assert "in the future" in refused(world, "rewind", "orders", "--to", "2999-01-01T00:00:00Z")
    stream.put("k", "poison")
    stream.put("k", "after")
    wait_for(lambda: "invocation failed" in world.log(), "the shard is blocked")
    poison = wait_for(lambda: failing(world), "the log names the record")
    assert "leave a notice" in ran(world, "skip", "orders", lease["shard"], "--to", poison)
    ran(world, "skip", "orders", lease["shard"], "--to", poison, "--yes")
    wait_for(lambda: world.taken()[-1] == "after", "the shard goes on")
    (notice,) = drain_queue(failed.sqs, failed.url)
    assert notice["requestContext"]["condition"] == "SkippedByOperator"
    assert notice["KinesisBatchInfo"]["startSequenceNumber"] == poison
    assert "past" in refused(world, "skip", "orders", lease["shard"], "--to", poison)
    uuid = lease["mapping"]
    assert "in the configuration" in refused(world, "forget", uuid)
    assert world.stop() == 0
    ran(world, "rewind", "orders", "--to", f"{lease['shard']}:{poison}", "--yes")
    world.start()
    wait_for(lambda: world.log().count("shard rewound by operator") == 5, "it is carried out at the start")
    check_forgotten(world, uuid, {**addresses, "functions": functions})


def check_forgotten(world: World, uuid: str, without: dict[str, Any]) -> None:
    """A mapping is forgotten once neither the file names it nor a daemon runs it."""
    own = world.config_path
    world.config_path = Path(world.folder / "other.yaml")
    world.configure(**without)
    assert "runs in the daemon" in refused(world, "forget", uuid)
    world.config_path = own
    assert world.stop() == 0
    world.configure(**without)
    assert "would be removed" in ran(world, "forget", uuid)
    assert "forgotten" in ran(world, "forget", uuid, "--yes")
    assert "Nothing is stored" in refused(world, "forget", uuid)


def leases(world: World) -> list[dict[str, Any]]:
    return json.loads(ran(world, "leases", "orders", "--json"))


def failing(world: World) -> str | None:
    """The sequence number of the record whose invocation failed last."""
    for line in reversed(world.log().splitlines()):
        if "invocation failed" in line:
            return line.split("first=", 1)[1].split()[0] if "first=" in line else str(json.loads(line)["first"])
    return None
