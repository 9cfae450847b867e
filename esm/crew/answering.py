"""What the supervisor answers at ESM_METRICS_ADDRESS, and how it asks its workers.

`/metrics` is all workers' in one; `/healthz` says 503 when a worker could not be brought to answer for a while;
`/readyz` says 503 until all are ready, and while stopping; `/status` and `/lag` are any worker's, which knows of all.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from yarl import URL

from esm.api.operations import HEADER_BYTES_MAX

ANSWER_S = 4.0
"""How long a worker may take to answer: less than a scraper's patience."""
_WORKER = URL("http://worker")
_FAILED = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker said."""

    status: int
    body: bytes
    content_type: str


Ask = Callable[[str], Awaitable[Answer | None]]
"""The answer to a GET of a path with its query; None: there is none within `ANSWER_S`."""


@asynccontextmanager
async def asking(socket: Path) -> AsyncIterator[Ask]:
    """Ask the worker that listens at `socket`, or will."""
    timeout = ClientTimeout(total=ANSWER_S)
    connector = UnixConnector(path=str(socket), force_close=True)  # a worker that ends would wait for an open one
    async with ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:

        async def ask(path: str) -> Answer | None:
            if session.closed:  # the worker has ended between being named and being asked
                return None
            try:
                async with session.get(_WORKER.join(URL(path, encoded=True))) as answer:
                    return Answer(answer.status, await answer.read(), answer.headers.get("Content-Type", ""))
            except (ClientError, OSError, TimeoutError):
                return None

        yield ask


class Workers(Protocol):
    """Who is asked."""

    def silent(self) -> str | None:
        """Which worker has not answered for too long, in words; None: none."""
        ...

    def are_ready(self) -> bool:
        """Whether every worker is, and may stay so."""
        ...

    def asked(self) -> Iterable[Ask]:
        """The workers that run, the best to ask first."""
        ...

    async def metrics(self) -> Collector:
        """Those of all workers."""
        ...


def application(workers: Workers) -> web.Application:
    """The routes."""

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(await workers.metrics())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        silent = workers.silent()
        return web.Response(text="ok\n") if silent is None else web.Response(text=f"{silent}\n", status=503)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if workers.are_ready() else web.Response(text="not ready\n", status=503)

    async def passed_on(request: web.Request) -> web.Response:
        for ask in workers.asked():
            answer = await ask(request.raw_path)
            if answer is not None and answer.status < _FAILED:
                headers = {"Content-Type": answer.content_type}
                return web.Response(status=answer.status, body=answer.body, headers=headers)
        return web.Response(text="no worker answers\n", status=503)

    limits = {"max_line_size": HEADER_BYTES_MAX, "max_field_size": HEADER_BYTES_MAX}
    app = web.Application(client_max_size=0, handler_args=limits)
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    app.add_routes([web.get("/status", passed_on), web.get("/lag", passed_on)])
    return app
