"""Three daemons on one table: a rollout stops nothing, the killed are replaced, and the frozen store nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests import servers
from tests.end_to_end.test_streams import Stream
from tests.end_to_end.world import CREDENTIALS, World, wait_for

FAILOVER_S = 5.0
BATCH = 10


class Replica:
    """One daemon of several."""

    def __init__(self, world: World, name: str, state: dict[str, str]) -> None:
        port = servers.free_port()
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = world.folder / f"{name}.log"
        environ = {
            "PATH": os.environ["PATH"], "HOME": str(world.folder), **CREDENTIALS, "ESM_LOG_LEVEL": "DEBUG",
            "ESM_WORKER_ID": name, "ESM_FAILOVER_S": f"{FAILOVER_S:g}", "ESM_METRICS_ADDRESS": f"127.0.0.1:{port}",
            "ESM_SQS_WAIT_S": "1", "ESM_SHUTDOWN_GRACE_S": "15", "ESM_KINESIS_READS_PER_S": "5",
            "ESM_API_ADDRESS": f"127.0.0.1:{servers.free_port()}", "ESM_HOST_ISOLATION": "none",
            "ESM_KINESIS_IDLE_READS_PER_S": "5", "ESM_HOST_DIRECTORY": str(world.folder / f"host-{name}"), **state,
        }  # fmt: skip
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "esm", "run", "-c", str(world.config_path)],
                env=environ, stdout=log, stderr=log, cwd=servers.ROOT, start_new_session=True,
            )  # fmt: skip

    def wait_ready(self) -> None:
        wait_for(self._is_ready, f"{self.name} is ready")

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"{self.name} ended with {self.process.returncode}:\n{self.log_path.read_text()}")
        try:
            return bool(self.get("readyz"))
        except OSError:
            return False

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=5) as answer:
            return answer.read().decode()

    def owned(self) -> int:
        lines = self.get("metrics").splitlines()
        return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("esm_shards_owned{")))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


class Fleet:
    """Daemons that share a table, and a stream that is written to all the time."""

    def __init__(self, world: World, stream: Stream, state: dict[str, str]) -> None:
        self.world = world
        self.stream = stream
        self.state = state
        self.replicas: dict[str, Replica] = {}
        self.pauses_s: list[float] = []
        self._stop = threading.Event()
        self._writer = threading.Thread(target=self._write)

    def _write(self) -> None:
        chance = random.Random(3)
        keys = [f"key{number}" for number in range(16)]
        while not self._stop.is_set():
            self.stream.put(chance.choice(keys))
            time.sleep(0.03)

    def start(self, name: str) -> Replica:
        replica = self.replicas[name] = Replica(self.world, name, self.state)
        return replica

    def begin(self, *names: str) -> None:
        for name in names:
            self.start(name)
        for replica in self.replicas.values():
            replica.wait_ready()
        self._writer.start()
        self.wait_balanced()

    def wait_balanced(self) -> None:
        def is_balanced() -> bool:
            counts = [replica.owned() for replica in self.replicas.values()]
            total = len(self.stream._open())
            return sum(counts) >= total and max(counts) <= -(-sum(counts) // len(counts))

        wait_for(is_balanced, "every shard has an owner, and every daemon its part")

    def end_writing(self) -> None:
        self._stop.set()
        self._writer.join()

    def check(self, twice_max: int) -> None:
        """Everything is taken, in order per key, and no more than so many records twice."""
        total = sum(len(ids) for ids in self.stream.sent.values())
        wait_for(lambda: len(set(self.world.taken())) == total, "every record is taken", 60)
        assert self.world.first_orders() == self.stream.sent
        twice = [identity for identity, count in Counter(self.world.taken()).items() if count > 1]
        assert len(twice) <= twice_max, f"{len(twice)} records were taken twice"

    def close(self) -> None:
        self._stop.set()
        if self._writer.is_alive():
            self._writer.join()
        for replica in self.replicas.values():
            if replica.process.poll() is None:
                replica.process.send_signal(signal.SIGCONT)
                replica.kill()


@pytest.fixture
def fleet(world: World, kinesalite: str, ministack: str) -> Iterator[Fleet]:
    name = f"replicas-{random.randrange(10**9)}"
    stream = Stream(kinesalite, name, 6)
    mapping = {
        "FunctionName": "clicks", "EventSourceArn": stream.arn, "StartingPosition": "TRIM_HORIZON", "BatchSize": BATCH,
    }  # fmt: skip
    world.configure(
        endpoint_url=ministack, endpoints={"kinesis": kinesalite}, functions={"clicks": world.function()},
        mappings=[mapping],
    )  # fmt: skip
    found = Fleet(world, stream, {"ESM_STATE": f"dynamodb://{name}", "ESM_ENDPOINT_URL": ministack})
    yield found
    found.close()


def takeovers(replicas: Iterator[Replica] | list[Replica], kind: str) -> list[float]:
    """Upper bounds of the buckets in which the takeovers of a kind lie."""
    found: list[float] = []
    for replica in replicas:
        before = 0
        for line in replica.get("metrics").splitlines():
            if line.startswith("esm_takeover_seconds_bucket{") and f'kind="{kind}"' in line:
                bound, count = float(line.split('le="')[1].split('"')[0]), round(float(line.rsplit(" ", 1)[1]))
                found += [bound] * (count - before)
                before = count
    return found


def test_a_rolling_restart_loses_nothing_repeats_nothing_and_hands_over_at_once(fleet: Fleet) -> None:
    fleet.begin("a1", "b1", "c1")
    handed: list[float] = []
    for old, new in (("a1", "a2"), ("b1", "b2"), ("c1", "c2")):
        fleet.start(new).wait_ready()
        assert fleet.replicas.pop(old).stop() == 0
        fleet.wait_balanced()
        if old == "b1":
            fleet.stream.split()
    handed = takeovers(list(fleet.replicas.values()), "planned")
    assert handed
    assert statistics.median(handed) <= 2
    fleet.end_writing()
    fleet.check(twice_max=0)
    for replica in fleet.replicas.values():
        assert replica.stop() == 0


def test_whoever_is_killed_is_replaced_at_once_on_one_host(fleet: Fleet) -> None:
    fleet.begin("a1", "b1", "c1")
    for old, new in (("a1", "a2"), ("b1", "b2"), ("c1", "c2")):
        fleet.replicas.pop(old).kill()
        fleet.wait_balanced()
        fleet.start(new).wait_ready()
        fleet.wait_balanced()
    crashes = takeovers(list(fleet.replicas.values()), "crash")
    assert crashes
    assert statistics.median(crashes) <= FAILOVER_S + 3
    fleet.end_writing()
    fleet.check(twice_max=3 * 6 * BATCH * 2)


def test_a_frozen_daemon_is_replaced_and_stores_nothing_when_it_goes_on(fleet: Fleet) -> None:
    fleet.begin("a1", "b1")
    frozen = fleet.replicas.pop("a1")
    frozen.process.send_signal(signal.SIGSTOP)
    fleet.wait_balanced()
    before = leases(fleet)
    frozen.process.send_signal(signal.SIGCONT)
    fleet.replicas["a1"] = frozen
    fleet.wait_balanced()
    after = leases(fleet)
    assert all(after[shard]["generation"] >= one["generation"] for shard, one in before.items())
    fleet.end_writing()
    fleet.check(twice_max=6 * BATCH * 2)


def leases(fleet: Fleet) -> dict[str, Any]:
    environ = {"PATH": os.environ["PATH"], **CREDENTIALS, **fleet.state}
    shown = subprocess.run(
        [sys.executable, "-m", "esm", "leases", "--json", "-c", str(fleet.world.config_path)],
        env=environ, cwd=servers.ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {lease["shard"]: lease for lease in json.loads(shown.stdout)}
