"""A server that speaks AWS's JSON protocol and says what a test says: what no emulator does can be heard from it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from esm.aws.sessions import Sessions


@dataclass(frozen=True)
class Said:
    """One answer."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """One request as it came."""

    operation: str
    parameters: dict[str, object]
    headers: Mapping[str, str]


Script = Said | list[Said] | Callable[[Ask], Awaitable[Said]]
"""The same answer each time; one after the other, the last one again and again; or whatever the request deserves."""


@dataclass
class AwsServer:
    """What came in, and what is said to each operation."""

    script: dict[str, Script]
    asks: list[Ask] = field(default_factory=list)
    outcomes: list[tuple[str, str, str]] = field(default_factory=list)
    """Service, operation, outcome of each call, as the sessions have counted it."""
    url: str = ""

    def asked(self, operation: str) -> list[dict[str, object]]:
        """The parameters of each request for an operation."""
        return [ask.parameters for ask in self.asks if ask.operation == operation]

    async def answer(self, request: web.Request) -> web.Response:
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2] or "Other"
        body = await request.read()
        ask = Ask(operation, {} if operation == "Other" else json.loads(body), request.headers)
        self.asks.append(ask)
        script = self.script[operation]
        if callable(script):
            said = await script(ask)
        elif isinstance(script, list):
            said = script.pop(0) if len(script) > 1 else script[0]
        else:
            said = script
        return web.Response(status=said.status, body=said.body, headers=dict(said.headers))


def saying(answer: object, **headers: str) -> Said:
    """A success."""
    return Said(json.dumps(answer).encode(), 200, headers)


def refusing(code: str, message: str = "why", status: int = 400) -> Said:
    """An error as AWS's JSON services answer it."""
    return Said(json.dumps({"__type": f"com.amazonaws.x#{code}", "message": message}).encode(), status)


PAGE = Said(b"<html><h1>502 Bad Gateway</h1></html>", 502, {"Content-Type": "text/html"})
"""What a proxy says when nobody is behind it."""


@asynccontextmanager
async def aws_server(**script: Script) -> AsyncIterator[tuple[AwsServer, Sessions]]:
    """The server on a free port of 127.0.0.1, and sessions that call it. `Other`: requests in another protocol."""
    fake = AwsServer(dict(script))
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    sessions = Sessions("us-east-1", fake.url, {}, lambda *call: fake.outcomes.append(call))
    try:
        yield fake, sessions
    finally:
        await sessions.aclose()
        await runner.cleanup()
