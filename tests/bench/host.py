"""Warm invocations of a hosted no-op function: through `Target.invoke`, and beside it against a bare asyncio loop.

Run by hand: `.venv/bin/python -m tests.bench.host`. Prints medians over rounds and their ratio; the bare loop is what
any server of the Runtime API in this process could reach at most, because it neither parses nor checks.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from esm.host import Host
from esm.model.arn import Arn
from esm.model.function import HostedFunction
from esm.model.invocation import Answer, Invocation
from esm.telemetry import Telemetry

ROUNDS = 5
ARN = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:bench")
HANDLER = "def handler(event, context):\n    return {'batchItemFailures': []}\n"
EVENTS = {"1 record (0.7 KB)": (700, 1500), "100 records (163 KB)": (163_000, 500), "6 MB": (6_291_000, 10)}

Call = Callable[[bytes], Awaitable[object]]


class Bare(asyncio.Protocol):
    """Answers whatever comes: `next` with the event, anything else with 202."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.held = b""

    def data_received(self, data: bytes) -> None:
        self.held += data
        if self.held.startswith(b"GET"):
            self.held = b""
            self.asked.set()
        elif self.held.endswith(b"}"):
            self.held = b""
            self.transport.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    async def invoke(self, payload: bytes) -> None:
        self.asked.clear()
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: 1\r\n"
            b"Lambda-Runtime-Deadline-Ms: 1999999999999\r\nLambda-Runtime-Invoked-Function-Arn: arn\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(payload), payload)
        )
        await self.asked.wait()


async def timed(calls: list[Call], payload: bytes, count: int) -> tuple[float, float]:
    """Invocations a second, and the median milliseconds of one."""
    took: list[float] = []

    async def one(call: Call) -> None:
        for _ in range(count):
            begun = time.perf_counter()
            await call(payload)
            took.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*map(one, calls))
    return len(took) / (time.perf_counter() - begun), statistics.median(took) * 1000


async def bare(folder: Path, count: int) -> tuple[list[Bare], list[subprocess.Popen[bytes]]]:
    """`count` processes of the runtime client, each at a bare server."""
    servers, processes = [], []
    for _ in range(count):
        protocol = Bare()
        server = await asyncio.get_running_loop().create_server(lambda it=protocol: it, "127.0.0.1", 0)
        address = "{}:{}".format(*server.sockets[0].getsockname())
        command = [sys.executable, "-m", "awslambdaric", "app.handler"]
        processes.append(subprocess.Popen(command, cwd=folder, env={"AWS_LAMBDA_RUNTIME_API": address}))  # noqa: ASYNC220
        await protocol.asked.wait()
        servers.append(protocol)
    return servers, processes


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(HANDLER)
        host = Host(
            directory=folder / "host", concurrency_default=2, telemetry=Telemetry(CollectorRegistry()), idle_s=600
        )
        runtime = f"python3.{sys.version_info.minor}"
        target = host.target(HostedFunction("bench", ARN, "role", runtime, "app.handler", name, 60))

        async def hosted(payload: bytes) -> None:
            ending = await target.invoke(Invocation("7f0f1f0e-4d4c-4d7e-8f5e-0b1e2c3d4e5f", ARN, payload))
            assert isinstance(ending, Answer)
            assert ending.function_error is None

        servers, processes = await bare(folder, 2)
        try:
            for label, (size, count) in EVENTS.items():
                payload = b'{"Records":["' + b"x" * size + b'"]}'
                for width in (1, 2):
                    await timed([hosted] * width, payload, 5)
                    ours, theirs = [], []
                    for _ in range(ROUNDS):  # in turns: what else the machine does strikes both
                        ours.append(await timed([hosted] * width, payload, count))
                        theirs.append(await timed([it.invoke for it in servers[:width]], payload, count))
                    (rate, p50), (bare_rate, bare_p50) = (tuple(map(statistics.median, zip(*both, strict=True)))
                                                          for both in (ours, theirs))  # fmt: skip
                    print(
f"{label}, {width} environment(s): {rate:.0f}/s p50 {p50:.2f} ms; "
                          f"bare {bare_rate:.0f}/s p50 {bare_p50:.2f} ms; ratio {rate / bare_rate:.2f}")  # fmt: skip
        finally:
            for process in processes:
                process.kill()
                process.wait()
            await host.aclose()


if __name__ == "__main__":
    asyncio.run(main())
