"""Accounts with roles: an STS and a queue service that say who called them, and hand out credentials that end soon."""

import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

from aiohttp import web

_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")


@dataclass(frozen=True)
class Ask:
    """One request: what, as whom, signed for which region. A REST call's operation is its method."""

    operation: str
    caller: str
    """The access key; a role's name once it was assumed; empty where the request is not signed."""
    region: str
    parameters: dict[str, str] = field(default_factory=dict)
    host: str = ""


@dataclass
class Accounts:
    """What was asked, and what is to be said."""

    url: str = ""
    asks: list[Ask] = field(default_factory=list)
    lifetime_s: float = 3600
    refusal: tuple[str, int, str] | None = None
    """Code, status and text of STS's answer to everything; None: it gives the role."""
    pod_tokens: list[str] = field(default_factory=list)
    """The Authorization headers of the requests for a pod's credentials."""
    _roles: dict[str, str] = field(default_factory=dict)
    _given_before: int = 0

    def asked(self, operation: str) -> list[Ask]:
        return [ask for ask in self.asks if ask.operation == operation]

    def callers(self, operation: str) -> list[str]:
        return [ask.caller for ask in self.asked(operation)]

    def revoke(self) -> None:
        """Take back every credential that was given."""
        self._roles.clear()
        self._given_before += 1000

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/pod":
            self.pod_tokens.append(request.headers.get("Authorization", ""))
            return web.json_response(self._given("pod"))
        body = await request.read()
        scope = _SCOPE.search(request.headers.get("Authorization", ""))
        key, region, _ = scope.groups() if scope else ("", "", "")
        target = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        parameters = {} if target else dict(parse_qsl(body.decode()))
        operation = target or parameters.get("Action", request.method)
        self.asks.append(Ask(operation, self._roles.get(key, key), region, parameters, request.host))
        if key.startswith("ASIA") and key not in self._roles:
            return web.json_response({"__type": "ExpiredTokenException", "message": "ended"}, status=400)
        if target:
            said = {"GetQueueUrl": {"QueueUrl": f"{self.url}/q"}, "GetQueueAttributes": {"Attributes": {}}}
            return web.Response(body=json.dumps(said.get(target, {})))
        return self._sts(operation, parameters) if "Action" in parameters else web.json_response({})

    def _sts(self, operation: str, parameters: dict[str, str]) -> web.Response:
        if self.refusal is not None:
            code, status, text = self.refusal
            error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message></Error>"
            return web.Response(status=status, text=f"<ErrorResponse>{error}</ErrorResponse>")
        given = self._given(parameters["RoleArn"].rpartition("/")[2])
        fields = {"AccessKeyId": given["AccessKeyId"], "SecretAccessKey": "s", "SessionToken": "t"}
        fields["Expiration"] = given["Expiration"]
        inside = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
        result = f"<{operation}Result><Credentials>{inside}</Credentials></{operation}Result>"
        return web.Response(text=f"<{operation}Response>{result}</{operation}Response>")

    def _given(self, role: str) -> dict[str, str]:
        key = f"ASIA{self._given_before + len(self._roles):016d}"
        self._roles[key] = role
        until = datetime.now(UTC) + timedelta(seconds=self.lifetime_s)
        return {
            "AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": f"{until:%Y-%m-%dT%H:%M:%S}Z",
        }  # fmt: skip


@asynccontextmanager
async def accounts(host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> AsyncIterator[Accounts]:
    """The server on a free port of `host`; with `context` it speaks TLS."""
    fake = Accounts()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, host, 0, ssl_context=context).start()
    literal = f"[{host}]" if ":" in host else host
    fake.url = f"{'http' if context is None else 'https'}://{literal}:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()
