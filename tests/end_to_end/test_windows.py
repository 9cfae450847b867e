"""Tumbling windows end to end: Kinesis (kinesalite), a function hosted here, SQLite, and a worker that starts anew."""

import asyncio
import json
import random
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry

from esm.aws.sessions import Sessions
from esm.host import Host
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import Instant
from esm.model.function import HostedFunction
from esm.model.mapping import Mapping, StartingPosition
from esm.runtime.observation import Observation
from esm.runtime.stream import StreamRunner
from esm.runtime.surroundings import ByteBudget, Surroundings, SystemClock
from esm.sources import open_stream
from esm.stores import open_store
from esm.telemetry import Telemetry
from tests.end_to_end.test_streams import Stream
from tests.end_to_end.world import ACCOUNT, REGION

FUNCTION = Arn.parse(f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:sums")

HANDLER = '''
import json

def handler(event, context):
    """Counts the records of each key in a window, as AWS's own example does."""
    state = event["state"]
    for record in event["Records"]:
        key = record["kinesis"]["partitionKey"]
        state[key] = state.get(key, 0) + 1
    if event["isFinalInvokeForWindow"]:
        with open({ledger!r}, "a") as ledger:
            line = {{"window": event["window"], "shard": event["shardId"], "early": event["isWindowTerminatedEarly"],
                    "counts": state}}
            ledger.write(json.dumps(line) + "\\n")
    return {{"state": state}}
'''


class Windows:
    """A mapping with windows of two seconds, its function's ledger, and the worker that runs it."""

    def __init__(self, folder: Path, stream: Stream, url: str) -> None:
        self._folder = folder
        self._url = url
        self._ledger = folder / "ledger"
        code = folder / "code"
        code.mkdir()
        (code / "app.py").write_text(HANDLER.format(ledger=str(self._ledger)))
        runtime = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self._function = HostedFunction("sums", FUNCTION, "role", runtime, "app.handler", str(code), timeout_s=5)
        self._mapping = Mapping(
            "u", "sums", FUNCTION, Arn.parse(stream.arn), SourceKind.KINESIS, batch_size=20, tumbling_window_s=2,
            starting_position=StartingPosition.TRIM_HORIZON,
        )  # fmt: skip

    def finals(self) -> list[dict[str, Any]]:
        """What the function wrote at the end of each window."""
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        return [json.loads(line) for line in lines]

    def counted(self) -> Counter[str]:
        """Records of each key over all windows."""
        counts: Counter[str] = Counter()
        for final in self.finals():
            counts.update(final["counts"])
        return counts

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker, from its start to its graceful stop."""
        telemetry = Telemetry(CollectorRegistry())
        store = await open_store(f"sqlite://{self._folder}/state.db", exclusive=True)
        around = Surroundings(
            clock=SystemClock(), telemetry=telemetry, store=store, budget=ByteBudget(1 << 26), jitter=random.random,
            new_id=lambda: str(uuid.uuid4()), worker="w",
        )  # fmt: skip
        sessions = Sessions(REGION, None, {"kinesis": self._url}, telemetry.aws_request)
        host = Host(directory=self._folder / "host", concurrency_default=2, telemetry=telemetry, idle_s=60)
        source = open_stream(self._mapping, "role", sessions, kinesis_reads_per_s=(10, 10))
        observation = Observation(self._mapping, telemetry.mapping(self._mapping))
        runner = StreamRunner(around, self._mapping, source, host.target(self._function), None, observation)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner.run)
                yield
                runner.stop.set(Instant(anyio.current_time() + 10))
        finally:
            await host.aclose()
            await sessions.aclose()
            await store.aclose()


async def until(what: Any, text: str) -> None:
    with anyio.move_on_after(40):
        while not what():  # noqa: ASYNC110 - another process acts
            await anyio.sleep(0.05)
        return
    pytest.fail(f"not within 40 s: {text}")


async def test_counts_per_window_survive_a_restart_and_are_exact(
    tmp_path: Path, kinesalite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    stream = await asyncio.to_thread(Stream, kinesalite, "windows", 1)
    windows = Windows(tmp_path, stream, kinesalite)
    keys = [f"key{number}" for number in range(5)]

    async def write_until(ended: int) -> None:
        """Go on writing until so many windows have ended, each with the first record of a later one."""
        with anyio.fail_after(40):
            while len(windows.finals()) < ended:
                await asyncio.to_thread(stream.put, random.choice(keys))

    async with windows.working():
        await write_until(2)
    async with windows.working():
        await write_until(4)
        await asyncio.to_thread(stream.split)
        total = sum(len(ids) for ids in stream.sent.values())
        await until(lambda: windows.counted().total() >= total, "the end of the shard has ended the last window")
    assert windows.counted() == {key: len(ids) for key, ids in stream.sent.items()}
    finals = windows.finals()
    assert {final["shard"] for final in finals} == {"shardId-000000000000"}
    assert not any(final["early"] for final in finals)
    starts = [final["window"]["start"] for final in finals]
    assert starts == sorted(set(starts)), "a window had two final calls"
