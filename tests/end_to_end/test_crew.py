"""One supervisor and its workers, as processes: started, killed, drained, and refused where they make no sense."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request

from tests.end_to_end.world import Queue, World, wait_for


def workers(world: World) -> dict[str, int]:
    """The process of each worker, the one that was started last."""
    return {name: int(pid) for name, pid in re.findall(r"worker started worker=(\S+) pid=(\d+)", world.log())}


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def readiness(world: World) -> int:
    try:
        with urllib.request.urlopen(f"{world.metrics_url}/readyz", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def configured(world: World, ministack: str, name: str, **variables: str) -> Queue:
    queue = Queue(ministack, name)
    mapping = {"FunctionName": "orders", "EventSourceArn": queue.arn, "BatchSize": 1}
    world.configure(endpoint_url=ministack, functions={"orders": world.function(**variables)}, mappings=[mapping])
    return queue


def test_two_workers_are_started_restarted_and_drained_as_one(world: World, ministack: str) -> None:
    queue = configured(world, ministack, "crew")
    world.start("--workers", "2", ESM_WORKER_ID="w")
    first = workers(world)
    assert first.keys() == {"w-1", "w-2"}
    assert all(is_alive(pid) for pid in first.values())
    queue.send(*[f"a{n}" for n in range(20)])
    wait_for(lambda: len(set(world.taken())) == 20, "both take what is sent")
    by_hand = world.command("run")
    assert by_hand.returncode == 2
    assert f"in use by process {world.process and world.process.pid}" in by_hand.stderr

    wait_for(lambda: world.metric("esm_deleted_events_total") == 20, "all is deleted, and counted")
    invoked = world.metric("esm_invoked_events_total")
    assert invoked >= 20
    os.kill(first["w-1"], signal.SIGKILL)
    wait_for(lambda: readiness(world) == 503, "the loss is seen")
    assert world.metric("esm_invoked_events_total") >= invoked
    wait_for(lambda: readiness(world) == 200, "another takes its place")
    second = workers(world)
    assert second["w-1"] != first["w-1"]
    assert second["w-2"] == first["w-2"]
    assert world.metric("esm_invoked_events_total") >= invoked
    assert world.metric("esm_worker_restarts_total", worker="w-1") == 1
    queue.send(*[f"b{n}" for n in range(20)])
    wait_for(lambda: len(set(world.taken())) == 40, "the crew goes on")
    wait_for(lambda: world.metric("esm_deleted_events_total") >= 40, "and all is counted")

    environments = {entry["pid"] for entry in world.ledger()}
    assert world.stop() == 0
    assert world.log().count("drained=True") == 2
    assert not any(is_alive(pid) for pid in {*first.values(), *second.values(), *environments})


def test_no_worker_outlives_its_supervisor_and_every_line_names_its_worker(world: World, ministack: str) -> None:
    queue = configured(world, ministack, "crew-orphans")
    world.start("--workers", "2", ESM_WORKER_ID="w", ESM_LOG_FORMAT="json")
    queue.send("one")
    wait_for(lambda: world.taken() == ["one"], "it works")
    events = [json.loads(line) for line in world.log().splitlines()]
    pids = [event["pid"] for event in events if event["event"] == "worker started"]
    assert len(pids) == 2
    assert {event["worker"] for event in events if event["event"] == "daemon started"} == {"w-1", "w-2"}
    assert all("worker" in event for event in events)
    assert world.process is not None
    world.process.kill()
    world.process.wait()
    pids += [entry["pid"] for entry in world.ledger()]
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "workers and their functions die with it", 10)
    world.start("--workers", "2", ESM_WORKER_ID="w")
    assert world.stop(signal.SIGINT) == 0


def test_a_stop_that_is_told_to_every_process_of_a_service_lets_work_end(world: World, ministack: str) -> None:
    queue = configured(world, ministack, "crew-service", SLEEP_S="1.5")
    world.start("--workers", "2", ESM_WORKER_ID="w")
    queue.send("one", "two")
    wait_for(lambda: world.metric("esm_invocations_in_flight") == 2, "both are on their way")
    pids = workers(world).values()
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    assert world.stop() == 0
    assert sorted(world.taken()) == ["one", "two"]
    assert queue.count() == 0


def test_workers_that_would_share_nothing_are_refused_with_what_to_do(world: World) -> None:
    world.configure()
    world.settings = {"PATH": os.environ["PATH"], "ESM_STATE": "memory://", "ESM_METRICS_ADDRESS": "127.0.0.1:0"}
    refused = world.command("run", "--workers", "2")
    assert refused.returncode == 2
    assert "Name a file (ESM_STATE=sqlite:///absolute/path), or leave out --workers." in refused.stderr


def test_a_worker_started_by_hand_beside_them_is_refused(world: World) -> None:
    world.configure()
    refused = world.command("run", "--member", f"1:3:{world.folder}/socket")
    assert refused.returncode == 2
    assert "start workers by `esm run --workers N`" in refused.stderr
    assert subprocess.run(["test", "-e", f"{world.folder}/socket"], check=False).returncode == 1
