"""Several workers on one state, as any of them and the commands show them. The others are but what they would write."""

import json
import subprocess
import sys
import time
import urllib.request
from typing import Any

import anyio

from esm.model.clocks import UnixTime
from esm.model.lease import Lease
from esm.model.mapping import OK, State
from esm.model.position import TrimHorizon
from esm.model.stored import Key
from esm.model.view import MappingView, ShardView
from esm.model.worker import Heartbeat, Known
from esm.rules import heartbeats, starting, stored
from esm.stores import open_store
from tests import servers
from tests.end_to_end.world import Queue, World, wait_for

STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
GONE = "0a0a0a0a-0000-4000-8000-000000000000"


class Others:
    """Workers that are but their items in the state of a world."""

    def __init__(self, world: World) -> None:
        self._url = f"sqlite:///{world.folder}/state.db"
        self._beat = 0

    def put(self, items: dict[Key, bytes]) -> None:
        """Write items, whatever stands there."""

        async def put() -> None:
            store = await open_store(self._url, exclusive=False)
            try:
                for key, value in items.items():
                    item = await store.get(key)
                    await store.put(key, value, item.version if item else None)
            finally:
                await store.aclose()

        anyio.run(put)

    def beat(self, worker: str, *mappings: str, **more: bool) -> None:
        """A heartbeat of now."""
        self._beat += 1
        known = {uuid: Known("another", 0) for uuid in mappings}
        beat = Heartbeat(worker, "r", self._beat, 1, at=UnixTime(time.time()), mappings=known, **more)
        self.put({heartbeats.key(worker): heartbeats.encode(beat)})

    def report(self, worker: str, *views: MappingView) -> None:
        """A status of now."""
        (part,) = stored.encode_status(worker, UnixTime(time.time()), views)
        self.put({Key("status", worker, "0000"): part})


def view(uuid: str, source: str, *shards: str, in_flight: int = 0, result: str = OK) -> MappingView:
    held = tuple([ShardView(shard, 0.0, 0.0, None, 0.0) for shard in shards])
    return MappingView(uuid, "orders", source, State.ENABLED, result, has_problem=result != OK, in_flight=in_flight,
                       backlog=7, shards=held, batches_max=10)  # fmt: skip


def asked(world: World, path: str) -> Any:
    with urllib.request.urlopen(f"{world.metrics_url}{path}", timeout=5) as answer:
        return json.loads(answer.read())


def test_any_worker_and_the_commands_show_all_workers(world: World, ministack: str) -> None:
    queue, others = Queue(ministack, "fleet"), Others(world)
    mapping = {"FunctionName": "orders", "EventSourceArn": queue.arn}
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[mapping])
    world.start(ESM_WORKER_ID="here")
    uuid = world.status()[0]["uuid"]
    assert world.status()[0]["workers"] == ["here"]
    others.beat("there", uuid)
    others.report("there", view(uuid, queue.arn, "", in_flight=2, result="PROBLEM: no way"))
    others.beat("late", uuid, is_released=True)
    others.report("late", view(uuid, queue.arn, "", in_flight=90))
    (shown,) = wait_for(lambda: [one for one in world.status() if len(one["workers"]) > 1], "both are shown", 10)
    assert (shown["workers"], shown["in_flight"], shown["has_problem"]) == (["here", "there"], 2, True)
    assert shown["last_result"] == "PROBLEM: no way (at worker there)"
    assert asked(world, "/lag")["known_age_s"] < 5
    others.beat("there", uuid)
    wait_for(lambda: "here" in world.command("status").stdout.split("WORKER")[-1], "it has reported")
    others.beat("there", uuid)
    lines = [" ".join(line.split()) for line in world.command("status").stdout.splitlines()]
    assert lines[1].endswith("Enabled PROBLEM: no way (at worker there) 0.0 s 2 -")
    assert [line.split()[:2] for line in lines[-4:] if line.split()[0] != "Mapping"][-3:] == [
        ["here", "live"], ["there", "live"], ["late", "stopped"],
    ]  # fmt: skip
    (document,) = json.loads(world.command("status", "--json").stdout)
    assert [(share["worker"], share["state"]) for share in document["workers"]] == [("here", "live"), ("there", "live")]
    assert world.stop() == 0


def test_a_mapping_is_not_forgotten_while_any_worker_beats_that_names_it(world: World) -> None:
    others = Others(world)
    world.configure(functions={"orders": world.function()})
    world.settings = {"ESM_STATE": f"sqlite:///{world.folder}/state.db", "ESM_WORKER_ID": "laptop"}
    others.put({Key("lease", GONE, "shard-1"): lease(GONE, "there/r")})
    others.beat("there", GONE)
    process = subprocess.Popen(
        [sys.executable, "-m", "esm", "forget", GONE, "--yes", "-c", str(world.config_path)], env=world.settings,
        cwd=servers.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: process.poll() is not None or others.beat("there", GONE), "it has looked twice")
    assert "runs in the daemon there" in process.communicate()[1]
    assert process.returncode == 2
    done = world.command("forget", GONE, "--yes")
    assert "forgotten (1 of lease)" in done.stdout
    assert "Waiting up to 11 s for a sign of life of there" in done.stderr


def lease(mapping: str, owner: str, shard: str = "shard-1") -> bytes:
    return stored.encode_lease(Lease(mapping, shard, f"{STREAM}|1", owner, 1, 1, (TrimHorizon(),)))


def test_leases_name_their_workers_and_say_whether_they_live(world: World) -> None:
    others = Others(world)
    mapping = {"FunctionName": "orders", "EventSourceArn": STREAM, "StartingPosition": "TRIM_HORIZON"}
    world.configure(functions={"orders": world.function()}, mappings=[mapping])
    world.settings = {"ESM_STATE": f"sqlite:///{world.folder}/state.db", "ESM_WORKER_ID": "laptop"}
    others.beat("there")
    uuid = json.loads(world.command("status", "--json").stdout)[0]["uuid"]
    owners = ["there/r", "there/earlier", "nobody/r", ""]
    items = {
        Key("lease", uuid, f"s{number}"): lease(uuid, owner, f"s{number}") for number, owner in enumerate(owners)
    }  # fmt: skip
    start = starting.encode(starting.Start(f"{STREAM}|1", "TRIM_HORIZON"))
    others.put({**items, Key("lease", uuid, starting.START_ITEM): start})
    found = json.loads(world.command("leases", "--json").stdout)
    assert [(one["owner"], one["owner_run"], one["owner_state"]) for one in found] == [
        ("there", "r", "live"), ("there", "earlier", "stopped"), ("nobody", "r", "silent"), (None, None, None),
    ]  # fmt: skip
    table = [line.split() for line in world.command("leases").stdout.splitlines()]
    assert [row[2:4] for row in table[1:]] == [
        ["there", "live"], ["there", "stopped"], ["nobody", "silent"], ["-", "-"],
    ]  # fmt: skip
