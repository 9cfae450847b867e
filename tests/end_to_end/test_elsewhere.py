"""A function whose runtimes are processes of their own: AWS's client asks the daemon for its invocations."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.end_to_end.world import Queue, World, wait_for

TOKEN = "a-token-of-an-end-to-end-test"


class Runtimes:
    """Processes that run the world's handler as an image's entry point does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.port = servers.free_port()
        self.all: list[subprocess.Popen[bytes]] = []

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        code = self._world.folder / "code"
        environ = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(code), "PYTHONWARNINGS": "ignore",
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.port}/{TOKEN}", "LAMBDA_TASK_ROOT": str(code),
            "LEDGER": str(self._world.ledger_path), **variables,
        }  # fmt: skip
        with (self._world.folder / "runtimes.log").open("ab") as log:
            self.all.append(subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", "app.handler"], env=environ, cwd=code, stdout=log, stderr=log,
                start_new_session=True,
            ))  # fmt: skip
        return self.all[-1]


@pytest.fixture
def runtimes(world: World) -> Iterator[Runtimes]:
    made = Runtimes(world)
    try:
        yield made
    finally:
        for process in made.all:
            process.kill()
            process.wait()


def test_runtimes_elsewhere_share_a_queue_and_lose_nothing_when_one_dies_or_the_daemon_drains(
    world: World, runtimes: Runtimes, ministack: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    queue = Queue(ministack, "elsewhere", visibility_s=4)
    function = {"Listen": runtimes.port, "Protocol": "runtime-api", "Timeout": 3, "TokenFile": str(tmp_path / "token")}
    mapping = {"FunctionName": "orders", "EventSourceArn": queue.arn, "BatchSize": 1}
    world.configure(endpoint_url=ministack, functions={"orders": function}, mappings=[mapping])
    world.start()
    ids = [f"m{number:02}" for number in range(12)]
    queue.send(*ids)
    first, _ = runtimes.start(SLEEP_S="0.3"), runtimes.start(SLEEP_S="0.3")
    wait_for(lambda: len(world.taken()) >= 4, "some messages are taken")
    assert {entry["pid"] for entry in world.ledger()} == {process.pid for process in runtimes.all}
    wait_for(lambda: world.metric("esm_function_runtimes", phase="working") == 2, "both work")
    first.kill()
    wait_for(lambda: set(world.taken()) == set(ids), "all are taken, also what the dead one had")
    assert world.metric("esm_function_runtimes_lost_total", function="orders", reason="exit") == 1
    assert "runtime lost while it ran" in world.log()
    wait_for(lambda: "orders: 1 runtime is there." in world.command("status").stdout, "status names it")
    runtimes.all[1].terminate()
    wait_for(lambda: world.status()[0]["runtimes"] == 0, "nobody is there")
    runtimes.start(SLEEP_S="2")
    wait_for(lambda: world.status()[0]["runtimes"] == 1, "a slow one is there")
    queue.send("last")
    wait_for(lambda: world.metric("esm_function_runtimes", phase="working") == 1, "it works")
    assert world.stop(signal.SIGTERM) == 0
    assert world.taken()[-1] == "last"
    wait_for(lambda: queue.count() == 0, "everything is deleted", 10)
