"""What an operator's tools ask the daemon: /metrics, /healthz, /readyz, /status.

`/healthz` answers as long as the event loop turns; `/readyz` says 503 until the mappings run and again while draining.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from esm.errors import OperatorNeeded
from esm.model.view import MappingView

HEADER_BYTES_MAX = 16_384
"""Longest line and field of a request that is read."""

ViewsOf = Callable[[], Sequence[MappingView]]


def application(metrics_of: Collector, views: ViewsOf, is_ready: Callable[[], bool]) -> web.Application:
    """The routes."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics_of), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if is_ready() else web.Response(text="not ready\n", status=503)

    async def status(_: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(list(views())), content_type="application/json")

    app = web.Application(
        client_max_size=0,
        handler_args={"max_line_size": HEADER_BYTES_MAX, "max_field_size": HEADER_BYTES_MAX},
    )
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    app.add_routes([web.get("/status", status)])
    return app


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the body runs; yields the port (a free one where `port` is 0).

    Raises: OperatorNeeded when the address cannot be had.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise OperatorNeeded(
                f"ESM_METRICS_ADDRESS: cannot listen on {host}:{port} ({error.strerror}). Choose another address."
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
