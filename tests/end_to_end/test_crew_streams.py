"""Workers of one supervisor share the shards of a stream, and take them over from one that is killed."""

import json
import os
import signal

from tests.end_to_end.test_crew import workers
from tests.end_to_end.test_streams import Stream
from tests.end_to_end.world import World, wait_for


def owners(world: World) -> list[str]:
    return [(lease["owner"] or "").partition("/")[0] for lease in json.loads(world.command("leases", "--json").stdout)]


def test_two_workers_share_the_shards_and_one_takes_over_when_the_other_is_killed(
    world: World, kinesalite: str
) -> None:
    stream = Stream(kinesalite, "crew", 4)
    mapping = {"FunctionName": "orders", "EventSourceArn": stream.arn, "StartingPosition": "TRIM_HORIZON"}
    world.configure(endpoint_url=kinesalite, functions={"orders": world.function()}, mappings=[mapping])
    world.start("--workers", "2", ESM_WORKER_ID="w", ESM_FAILOVER_S="4")
    wait_for(lambda: sorted(owners(world)) == ["w-1", "w-1", "w-2", "w-2"], "each has two")
    assert world.metric("esm_shards_owned") == 4
    assert world.metric("esm_workers") == 2
    for number in range(40):
        stream.put(f"key-{number % 8}")
    wait_for(lambda: world.first_orders() == stream.sent, "all is taken in order")
    os.kill(workers(world)["w-1"], signal.SIGKILL)
    for number in range(40):
        stream.put(f"key-{number % 8}")
    wait_for(lambda: world.first_orders() == stream.sent, "all is taken in order after the kill")
    wait_for(lambda: sorted(owners(world)) == ["w-1", "w-1", "w-2", "w-2"], "the new one has its share")
    assert world.metric("esm_takeover_seconds_count") >= 2
    assert world.stop() == 0
