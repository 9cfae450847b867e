"""Functions behind HTTP: invocations a second and median latency through each protocol, beside a bare aiohttp loop.

    .venv/bin/python -m tests.bench.http

The server is a bare asyncio protocol in a process of its own: it answers `null` to every request. The bare loops do
what a target does and nothing else: POST, read the answer; once with a connection for each (as esm, on purpose), once
with kept connections.
"""

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp

from esm.model.invocation import Answer
from tests.fakes.url_functions import invocation, target_for

PAYLOAD = b'{"Records":[' + b",".join([b'{"body":"' + b"x" * 1600 + b'"}'] * 10) + b"]}"
"""Ten records, 16 KB."""
ROUND_S = 2.0
ROUNDS = 3

Task = Callable[[], Awaitable[object]]


class Canned(asyncio.Protocol):
    """Answers as soon as the whole request is there; closes if the request says so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        self._received += data
        head, gap, body = self._received.partition(b"\r\n\r\n")
        if not gap:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) < length:
            return
        self._received = b""
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull")  # type: ignore[attr-defined]
        if b"connection: close" in head.lower():
            self._transport.close()


async def serve(port: int) -> None:
    """The server process."""
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", port)
    await server.serve_forever()


async def measured(task: Task, at_once: int) -> tuple[float, float, float]:
    """Tasks a second, the median of their milliseconds, and the CPU of one, in ms, while so many run at once."""
    took: list[float] = []
    ends_at = time.perf_counter() + ROUND_S
    cpu_s = time.process_time()

    async def worker() -> None:
        while (began_at := time.perf_counter()) < ends_at:
            await task()
            took.append((time.perf_counter() - began_at) * 1000)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return len(took) / ROUND_S, statistics.median(took), (time.process_time() - cpu_s) / len(took) * 1000


async def contest(url: str) -> None:
    """Every way in turn, some rounds; the medians of the rounds."""

    def bare(session: aiohttp.ClientSession) -> Task:
        async def post() -> None:
            async with session.post(url, data=PAYLOAD) as response:
                await response.read()

        return post

    def through(target: object) -> Task:
        async def invoke() -> None:
            assert isinstance(await target.invoke(invocation(PAYLOAD)), Answer)  # type: ignore[attr-defined]

        return invoke

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0)) as fresh,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as kept,
        target_for(url, "rie") as rie,
        target_for(url, "web-adapter") as adapter,
        target_for(url, "http") as plain,
    ):
        ways = [
            ("bare aiohttp, a connection each", bare(fresh), (1, 8)),
            ("bare aiohttp, kept connections", bare(kept), (1, 8)),
            ("rie", through(rie), (1,)),
            ("web-adapter", through(adapter), (1, 8)),
            ("http", through(plain), (1, 8)),
        ]
        rates: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        for _ in range(ROUNDS):
            for name, task, counts in ways:
                for count in counts:
                    rates.setdefault((name, count), []).append(await measured(task, count))
    report({key: tuple(map(statistics.median, zip(*values, strict=True))) for key, values in rates.items()})


def report(found: dict[tuple[str, int], tuple[float, ...]]) -> None:
    """Print the table; ratios are to the bare loop with a connection each and as many at once."""
    print(f"{'way':<34}{'at once':>8}{'per second':>12}{'ratio':>8}{'median':>11}{'CPU of one':>13}{'ratio':>8}")
    for (name, count), (rate, median_ms, cpu_ms) in found.items():
        bare_rate, _, bare_cpu_ms = found["bare aiohttp, a connection each", count]
        print(f"{name:<34}{count:>8}{rate:>12.0f}{rate / bare_rate:>8.2f}{median_ms:>8.2f} ms", end="")
        print(f"{cpu_ms:>10.2f} ms{cpu_ms / bare_cpu_ms:>8.2f}")


def main() -> None:
    """Start the server, run, end the server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "tests.bench.http", str(port)])
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        asyncio.run(contest(f"http://127.0.0.1:{port}"))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(serve(int(sys.argv[1])))
    else:
        main()
