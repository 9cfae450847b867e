"""What an operator's tools ask the daemon: /metrics, /healthz, /readyz, /status, /lag.

`/healthz` answers while the event loop turns; `/readyz` says 503 until every mapping has begun, and while draining.
`/lag` is made for autoscalers that read one number out of JSON: `desired_replicas` is one already, so that its target
value is 1. What one replica is meant to bear stands in the query, beside the scaler's other numbers, and not in the
daemon's settings: several scalers may ask, and a change restarts nothing.
`/status` and `/lag` speak of all workers, the others of this one alone.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from esm.api.fleet import Answer
from esm.errors import OperatorNeeded
from esm.rules import replicas
from esm.rules.fleet_views import FleetView

HEADER_BYTES_MAX = 16_384
"""Longest line and field of a request that is read."""

TARGETS = {"messages_per_replica": "messages", "lag_s_per_replica": "lag_s"}
"""The parameters of `/lag`, and what they set of `replicas.Target`."""

AnswerOf = Callable[[], Awaitable[Answer]]


def application(metrics_of: Collector, fleet: AnswerOf, is_ready: Callable[[], bool]) -> web.Application:
    """The routes; `fleet` says what all workers do."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics_of), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if is_ready() else web.Response(text="not ready\n", status=503)

    async def status(_: web.Request) -> web.Response:
        found = await fleet()
        return _json([_shown(one, found.known_age_s) for one in found.views])

    async def lag(request: web.Request) -> web.Response:
        try:
            target = _target(request.query)
        except ValueError as error:
            return web.Response(text=f"{error}\n", status=400)
        found = await fleet()
        shown = replicas.lag([one.view for one in found.views], target)
        return _json({**msgspec.to_builtins(shown), "known_age_s": _seconds(found.known_age_s)})

    app = web.Application(
        client_max_size=0,
        handler_args={"max_line_size": HEADER_BYTES_MAX, "max_field_size": HEADER_BYTES_MAX},
    )
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    app.add_routes([web.get("/status", status), web.get("/lag", lag)])
    return app


def _json(document: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


def _shown(one: FleetView, known_age_s: float | None) -> dict[str, object]:
    """A mapping as `/status` shows it: the view's members, whose words they are, and how old those of others are."""
    return {**msgspec.to_builtins(one.view), "workers": one.workers, "known_age_s": _seconds(known_age_s)}


def _seconds(age_s: float | None) -> float | None:
    return None if age_s is None else round(age_s, 3)


def _target(query: Mapping[str, str]) -> replicas.Target:
    """What the query says of a replica. Raises: ValueError, naming the parameter, its value and the remedy."""
    given: dict[str, float] = {}
    for name, value in query.items():
        if name not in TARGETS:
            msg = f"{name}: no such parameter; use {' or '.join(TARGETS)}"
            raise ValueError(msg)
        try:
            given[TARGETS[name]] = float(value)
        except ValueError:
            given[TARGETS[name]] = math.nan
        if not 0 < given[TARGETS[name]] < math.inf:
            msg = f"{name}={value[:20]}: it must be a number above 0, such as {name}=100"
            raise ValueError(msg)
    return replicas.Target(**given)


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int, socket: Path | None = None) -> AsyncIterator[int]:
    """Serve while the body runs; yields the port (a free one where `port` is 0).

    `socket`: serve there alone, for a supervisor that serves at the address.
    Raises: OperatorNeeded when the address or the socket cannot be had.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await (web.TCPSite(runner, host, port) if socket is None else web.UnixSite(runner, socket)).start()
        except OSError as error:
            where = f"{host}:{port}" if socket is None else str(socket)
            raise OperatorNeeded(
                f"ESM_METRICS_ADDRESS: cannot listen on {where} ({error.strerror}). Choose another address."
            ) from error
        yield runner.addresses[0][1] if socket is None else port
    finally:
        await runner.cleanup()
