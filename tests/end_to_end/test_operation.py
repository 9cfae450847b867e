"""Configuration, commands and state of a running daemon, end to end."""

import json
import subprocess
import sys
import time
import urllib.request

from tests import servers
from tests.end_to_end.world import Queue, World, wait_for


def test_a_changed_file_is_applied_within_a_second_and_leaves_other_mappings_alone(
    world: World, ministack: str
) -> None:
    first, second = Queue(ministack, "reload-1"), Queue(ministack, "reload-2")
    functions = {"orders": world.function()}
    one = {"FunctionName": "orders", "EventSourceArn": first.arn}
    two = {"FunctionName": "orders", "EventSourceArn": second.arn}
    world.configure(endpoint_url=ministack, functions=functions, mappings=[one])
    world.start()
    world.configure(endpoint_url=ministack, functions=functions, mappings=[one, two])
    wait_for(lambda: len(world.status()) == 2, "the second mapping runs", 1.5)
    second.send("hello")
    wait_for(lambda: world.taken() == ["hello"], "its message is taken")
    world.configure(endpoint_url=ministack, functions=functions, mappings=[{**one, "BatchSize": 0}, two])
    wait_for(lambda: "configuration refused" in world.log(), "a wrong file is refused")
    assert "Member must have value greater than or equal to 1" in world.log()
    assert len(world.status()) == 2
    world.configure(endpoint_url=ministack, functions=functions, mappings=[{**one, "Enabled": False}])
    wait_for(lambda: [view["state"] for view in world.status()] == ["Disabled"], "one is off, the other is gone")
    first.send("waits")
    time.sleep(1.5)
    assert world.taken() == ["hello"]
    world.configure(endpoint_url=ministack, functions=functions, mappings=[one])
    wait_for(lambda: world.taken() == ["hello", "waits"], "it goes on when enabled")
    assert 'mapping="' + world.status()[0]["uuid"] in _metrics(world)
    assert _metrics(world).count("esm_mapping_problem{") == 1
    assert world.stop() == 0


def test_files_that_come_and_go_in_a_folder_are_followed(world: World, ministack: str) -> None:
    first, second = Queue(ministack, "folder-1"), Queue(ministack, "folder-2")
    world.configure(endpoint_url=ministack, functions={"orders": world.function(CodeUri="../code")})
    folder = world.config_path.parent / "conf"
    folder.mkdir()
    world.config_path.rename(folder / "basics.yaml")
    world.config_path = folder
    for name, queue in (("one", first), ("two", second)):
        mapping = {"FunctionName": "orders", "EventSourceArn": queue.arn, "Tags": {"of": name}}
        (folder / f"{name}.off").write_text(json.dumps({"mappings": [mapping]}))
    (folder / "one.off").rename(folder / "one.yaml")
    world.start()
    assert len(world.status()) == 1
    (folder / "two.off").rename(folder / "two.yaml")
    wait_for(lambda: len(world.status()) == 2, "the second file's mapping runs", 3)
    second.send("hello")
    wait_for(lambda: world.taken() == ["hello"], "its message is taken")
    (folder / "one.yaml").rename(folder / ".one.yaml")
    wait_for(lambda: len(world.status()) == 1, "the first file's mapping is gone", 3)
    assert "conf: 1 functions, 1 mappings, OK" in world.command("validate").stdout
    assert world.stop() == 0


def test_a_second_daemon_on_the_same_state_is_refused_by_the_name_of_the_first(world: World, ministack: str) -> None:
    world.configure(endpoint_url=ministack)
    world.start()
    assert world.process is not None
    refused = world.command("run")
    assert refused.returncode == 2
    assert str(world.process.pid) in refused.stderr


def test_status_shows_what_the_daemon_does_from_another_process(world: World, ministack: str) -> None:
    queue = Queue(ministack, "status")
    one = {"FunctionName": "orders", "EventSourceArn": queue.arn}
    world.configure(endpoint_url=ministack, functions={"orders": world.function()}, mappings=[one])
    world.start()
    queue.send("seen")

    def has_worked() -> bool:
        shown = json.loads(world.command("status", "--json").stdout)
        return [view.get("last_result") for view in shown] == ["OK"]

    wait_for(has_worked, "the result is shown")
    table = world.command("status").stdout
    assert "Enabled" in table
    assert "orders" in table
    assert world.stop() == 0
    assert "Enabled" in world.command("status").stdout


def test_a_wrong_file_refuses_the_start_with_every_problem(world: World, ministack: str) -> None:
    world.configure(
        endpoint_url=ministack,
        functions={"orders": world.function(Timeout=0, Handlr="app.handler")},
        mappings=[{
            "FunctionName": "nobody", "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:q.fifo",
            "MaximumBatchingWindowInSeconds": 5,
        }],
    )  # fmt: skip
    refused = world.command("run")
    assert refused.returncode == 2
    for text in ("functions.orders.Timeout", "did you mean Handler?", "FIFO", "mappings[0].FunctionName = 'nobody'"):
        assert text in refused.stderr


def test_an_unknown_setting_refuses_the_start(world: World) -> None:
    world.configure()
    done = subprocess.run(
        [sys.executable, "-m", "esm", "run", "-c", str(world.config_path)], cwd=servers.ROOT, check=False,
        capture_output=True, text=True, env={"ESM_SQS_WAIT": "1", "PATH": "/usr/bin"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "did you mean ESM_SQS_WAIT_S?" in done.stderr


def _metrics(world: World) -> str:
    with urllib.request.urlopen(f"{world.metrics_url}/metrics", timeout=5) as answer:
        return answer.read().decode()
