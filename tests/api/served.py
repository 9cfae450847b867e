"""The API on a port, before a store in memory and a world that does what a test says."""

import io
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Keys
from prometheus_client import CollectorRegistry

from esm.api import composition, server
from esm.api.behind import Behind
from esm.api.credentials import Credentials
from esm.catalogue import Catalogue
from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import Instant, UnixTime
from esm.model.desired import DesiredMapping
from esm.model.function import Function, FunctionFacts, HostedFunction, LambdaFunction, PulledFunction, UrlFunction
from esm.model.invocation import Answer, Ending, Invocation
from esm.model.mapping import Mapping, State
from esm.model.view import MappingView
from esm.rules.desired import shown_state
from esm.stores.memory import MemoryStore
from esm.telemetry import Telemetry

REGION, ACCOUNT = "us-east-1", "111111111111"
NOW = UnixTime(1_769_860_800.5)


def function_arn(name: str) -> Arn:
    return Arn("aws", "lambda", REGION, ACCOUNT, f"function:{name}")


def hosted(name: str, **more: Any) -> HostedFunction:
    made = {"role": "arn:aws:iam::111111111111:role/r", "runtime": "python3.11", "handler": "a.b", "code": "/c"}
    return HostedFunction(name, function_arn(name), **(made | more))


class Clock:
    """Stands still, or is right where signatures are looked at."""

    def __init__(self, *, is_still: bool) -> None:
        self._is_still = is_still

    def now(self) -> Instant:
        return Instant(0.0)

    def wall(self) -> UnixTime:
        return NOW if self._is_still else UnixTime(time.time())

    async def sleep_until(self, at: Instant) -> None:
        raise NotImplementedError


class Audit(Telemetry):
    """Remembers what was changed."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry())
        self.changes: list[dict[str, object]] = []

    def api_changed(self, **fields: object) -> None:
        self.changes.append(fields)


@dataclass
class World:
    """What stands behind the API: `functions` are known, `declared` stand in the file, `ending` ends an invocation."""

    known: dict[str, Function] = field(default_factory=lambda: {"f": hosted("f"), "g": hosted("g")})
    declared_mappings: tuple[Mapping, ...] = ()
    refusal: RequestRefused | None = None
    views: dict[str, MappingView] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    ending: Ending | None = None
    invocations: list[Invocation] = field(default_factory=list)
    taken: dict[str, int | None] = field(default_factory=dict)

    def functions(self) -> Sequence[Function]:
        return list(self.known.values())

    def modified_at(self) -> UnixTime:
        return NOW

    def resolved(self, name: str) -> tuple[Arn, Function]:
        text = name.removeprefix(f"arn:aws:lambda:{REGION}:{ACCOUNT}:").removeprefix(f"{ACCOUNT}:")
        key, _, qualifier = text.removeprefix("function:").partition(":")
        if key not in self.known or qualifier not in ("", "$LATEST", "1"):
            raise RequestRefused(f"Function not found: {name}", "ResourceNotFoundException", 404)
        arn = function_arn(f"{key}:{qualifier}" if qualifier else key)
        return arn, self.known[key]

    async def facts(self, function: Function) -> FunctionFacts:  # noqa: ARG002
        return FunctionFacts(3, "arn:aws:iam::111111111111:role/r")

    async def invoke(self, function: Function, invocation: Invocation) -> Ending:  # noqa: ARG002
        self.invocations.append(invocation)
        return self.ending or Answer(invocation.request_id, invocation.payload)

    def declared(self) -> Sequence[Mapping]:
        return self.declared_mappings

    def place(self, uuid: str) -> str:  # noqa: ARG002
        return "esm.yaml: mappings[0]"

    def view(self, uuid: str) -> MappingView | None:
        return self.views.get(uuid)

    def state(self, desired: DesiredMapping) -> State:
        return shown_state(desired, self.taken.get(desired.uuid), self.view(desired.uuid))

    def problem(self, uuid: str) -> str | None:
        return self.problems.get(uuid)

    async def check(self, mapping: Mapping) -> None:  # noqa: ARG002
        if self.refusal is not None:
            raise self.refusal


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes
    json: Any


@dataclass
class Served:
    """A running API."""

    world: World
    catalogue: Catalogue
    audit: Audit
    port: int
    session: aiohttp.ClientSession
    api: server.Api
    is_open: bool = True
    keys: tuple[str, str] | None = None
    """Access key and secret with which calls are signed."""

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> Answered:
        url = f"http://127.0.0.1:{self.port}{path}"
        if self.keys is not None:
            body = b"" if body is None else json.dumps(body).encode()
            request = AWSRequest(method, url, data=body)
            SigV4Auth(Keys(*self.keys), "lambda", REGION).add_auth(request)
            more["headers"] = dict(request.headers.items())
        given = {"data": io.BytesIO(body)} if isinstance(body, bytes) else {"json": body}
        async with self.session.request(method, url, **given, **more) as told:
            text = await told.read()
            is_json = told.headers.get("Content-Type") == "application/json" and text
            return Answered(told.status, dict(told.headers), text, await told.json() if is_json else None)

    async def runs(self, uuid: str, state: State = State.ENABLED, last_result: str = "OK", **more: Any) -> None:
        """As if a daemon had taken the stored mapping over."""
        stored = await self.catalogue.mapping(uuid)
        self.world.taken[uuid] = None if stored is None else stored.version
        has_problem = more.pop("has_problem", False)
        self.world.views[uuid] = MappingView(
            uuid, "f", "s", state, last_result, has_problem=has_problem, in_flight=0, backlog=None, shards=(), **more
        )


@asynccontextmanager
async def served(world: World | None = None, credentials: Credentials | None = None) -> AsyncIterator[Served]:
    world = world or World()
    audit, catalogue = Audit(), Catalogue(MemoryStore())
    ids = iter(f"00000000-0000-4000-8000-{number:012d}" for number in range(10**6))
    behind = Behind(catalogue, world, world, audit, lambda: next(ids))
    request_ids = iter(f"request-{number}" for number in range(10**6))
    around = server.Around(
        Clock(is_still=credentials is None), audit, lambda: next(request_ids), REGION, ACCOUNT,
        is_open=lambda: made.is_open,
    )  # fmt: skip
    api = server.Api(around, composition.handlers(behind), credentials)
    made = Served(world, catalogue, audit, 0, aiohttp.ClientSession(), api)
    async with made.session, server.serving(api, "127.0.0.1", 0, grace_s=1.0) as port:
        made.port = port
        yield made


def in_lambda(name: str) -> LambdaFunction:
    return LambdaFunction(name, function_arn(name))


def behind_url(name: str) -> UrlFunction:
    return UrlFunction(name, function_arn(name), "role", url="http://f", protocol="rie", timeout_s=5)


def pulling(name: str) -> PulledFunction:
    return PulledFunction(name, function_arn(name), "role", "127.0.0.1", 9001, timeout_s=5)
