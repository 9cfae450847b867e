"""The Runtime API of one function at an address of its own, for runtimes that run elsewhere. Source: lambda.md 7.1.

Law: many runtimes ask here, one invocation at a time each; an answer is known by its request id, a runtime by the
connection over which it asked. Nothing is told to whom the function's tokens do not let in.

A runtime's death is its connection's end, where its client keeps connections, as AWS's do; others (curl in a shell, or
Ruby's) close theirs as soon as they have their invocation, and only the deadline ends that. Which kind a client is
shows in what comes over its connections.

A long poll stays open. Where other workers serve the function too, runtimes have to come round: an answer over an old
connection is the last one over it; and a runtime that waits over a connection that it has used before loses it after
a minute, which libcurl, and so AWS's clients, takes for a reason to connect again. A connection on which nothing came
but that one question lasts much longer: to lose it ends the client.
"""

import asyncio
import hmac
import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from esm.errors import OperatorNeeded
from esm.host import endings
from esm.host.connections import Connection, Connections
from esm.host.endings import ANSWER_BYTES_MAX
from esm.host.extensions_api import no_telemetry
from esm.host.meeting import Meeting, Running
from esm.host.runtime_api import HEADER_BYTES_MAX, PREFIX, STREAM_BYTES_MAX, TELEMETRY, Stream, as_response, too_large
from esm.host.wire import accepted, body_within, error_type, refused
from esm.model.function import PulledFunction
from esm.model.invocation import Answer
from esm.rules.addresses import is_address, is_loopback
from esm.telemetry import Telemetry

KEEPING = ("aws-lambda-python/", "aws-lambda-nodejs/", "AWS_Lambda_Cpp/")
"""Clients that keep a connection, and connect again where a used one is closed while they wait (libcurl)."""
AGENTS_MAX = 100
AGENT_LENGTH_MAX = 200
IDLE_S = 3600.0
"""How long a connection may do nothing between two requests: a function runs for 900 s at most."""
REFUSAL_EVERY_S = 60.0


class Guard(Protocol):
    """A bound on what slow and many clients may hold; see `api/slow_clients`."""

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        ...

    def begun(self, transport: asyncio.BaseTransport | None) -> None:
        """The headers of a request are there."""
        ...

    def ended(self, transport: asyncio.BaseTransport | None) -> None:
        """The answer to a request is made."""
        ...


Guarding = Callable[[Callable[[], asyncio.Protocol]], Guard]
Tokens = Callable[[], Sequence[bytes]]
Tls = Callable[[], ssl.SSLContext | None]


@dataclass(frozen=True, slots=True)
class Rounds:
    """How runtimes come round to the other workers that serve their function."""

    old_s: float = 60.0
    """Age at which a connection is used for the last time, and how long a runtime waits over a used one."""
    unused_s: float = 900.0
    """How long it waits over a connection on which nothing else came. Kubernetes forgets restarts in 600 s."""
    jitter: Callable[[], float] = random.random


_BROKEN = (ConnectionError, aiohttp.ClientPayloadError, web.RequestPayloadError, web.HTTPException, HttpProcessingError)
"""What reading a request raises where its client is at fault, or gone."""


class _Silent:
    """The log of aiohttp: it would quote heads that cannot be read, tokens included."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


_SILENT: Any = _Silent()


class _Nothing:
    """There is nothing to do for a runtime here now, or it is gone."""


class Doorway:
    """Serves one address from `open` to `aclose`."""

    def __init__(
        self, function: PulledFunction, meeting: Meeting, telemetry: Telemetry, guarding: Guarding,
        *, shares_port: bool, rounds: Rounds | None,
    ) -> None:  # fmt: skip
        """`shares_port`: other processes listen at the address, too; `rounds` None: no other worker serves the
        function.
        """
        self._function = function
        self._meeting = meeting
        self._telemetry = telemetry
        self._shares_port = shares_port
        self._rounds = rounds
        self._http = web.Server(
            self._serve, handler_cancellation=True, access_log=None, auto_decompress=False,
            max_line_size=HEADER_BYTES_MAX, max_field_size=HEADER_BYTES_MAX, lingering_time=5.0,
            keepalive_timeout=IDLE_S, logger=_SILENT,
        )  # fmt: skip
        self._connections = Connections(self._http, self._lost)
        self._guard = guarding(self._connections)
        meeting.resting = self._resting
        self._tokens: Tokens = tuple
        self._agents: set[str] = set()
        self._server: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None
        self._refused_at = -REFUSAL_EVERY_S

    async def open(self, tokens: Tokens, context: ssl.SSLContext | None) -> None:
        """Listen, or go on listening; from now on with these. Raises: OperatorNeeded where the address is not free."""
        self._tokens = tokens
        if self._server is not None and context is self._context:
            return
        if self._server is not None:
            self._server.close()
            self._server = None
        function = self._function
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._guard, function.host, function.port, ssl=context, reuse_port=self._shares_port or None
            )
        except OSError as error:
            shown = f"[{function.host}]" if ":" in function.host else function.host
            raise OperatorNeeded(
                f"function {function.key}: its Runtime API cannot listen on {shown}:{function.port}"
                f" ({error.strerror}). Choose another Listen."
            ) from error
        self._context = context

    def follow(self, function: PulledFunction) -> None:
        """The function is another one at the same address."""
        self._function = function

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    @property
    def port(self) -> int:
        """That it listens on: the kernel's choice where 0 was configured."""
        assert self._server is not None
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    def _resting(self) -> int:
        return sum(not one.is_waiting and one.running is None for one in self._connections.runtimes)

    async def aclose(self) -> None:
        """Close the port and every connection; runtimes that wait are told nothing, and ask elsewhere."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._connections.abort()
        await self._http.shutdown(0)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        self._guard.begun(transport)
        try:
            connection = self._connections.of(transport)
            if connection is None:
                return refused(400, "ConnectionLost", "The connection is lost")
            self._note(connection, request)
            return await self._answer(connection, request)
        except _BROKEN:
            return refused(400, "InvalidRequest", "The request broke off, or is malformed")
        except Exception:
            self._telemetry.runtime_api_crashed(self._function.key)
            raise
        finally:
            self._guard.ended(transport)

    async def _answer(self, connection: Connection, request: web.BaseRequest) -> web.Response:
        path = self._let_in(connection, request)
        if path is None:
            await body_within(request.content.iter_any(), 0)
            return refused(403, "AccessDenied", "The Runtime API takes calls of the function's own runtimes only")
        if request.method == "PUT" and path in TELEMETRY:
            await body_within(request.content.iter_any(), ANSWER_BYTES_MAX)
            return no_telemetry(path)
        called = path[len(PREFIX) :].split("/") if path.startswith(PREFIX) else []
        match request.method, called:
            case "GET", ["invocation", "next"]:
                return await self._serve_next(connection)
            case "POST", ["invocation", request_id, "response" | "error" as call]:
                made = await self._serve_of(request_id, connection, request, call)
                return self._last(connection, made)
            case "POST", ["init", "error"]:
                return await self._serve_init_error(connection, request)
            case _:
                text = f"{request.method[:20]} {path[:200]} is no call of the Runtime API"
                return refused(404, "NotFound", text)

    def _note(self, connection: Connection, request: web.BaseRequest) -> None:
        connection.requests += 1
        connection.agent = request.headers.get("User-Agent", "")[:AGENT_LENGTH_MAX]
        connection.keeps_alive = request.keep_alive
        if connection.has_asked and len(self._agents) < AGENTS_MAX:
            self._agents.add(connection.agent)

    def _keeps(self, connection: Connection) -> bool:
        """Whether a client keeps its connection while it runs an invocation."""
        is_known = connection.agent.startswith(KEEPING) or connection.agent in self._agents
        return connection.keeps_alive and is_known

    def _let_in(self, connection: Connection, request: web.BaseRequest) -> str | None:
        """The path of a call, without its token; None where it is not let in."""
        path = request.path
        if self._function.token_file is None:
            return None if self._is_of_a_page(request) else path
        given, _, rest = path[1:].partition("/")
        bearer = request.headers.get("Authorization", "")
        if bearer.startswith("Bearer "):
            given, rest = bearer.removeprefix("Bearer "), path[1:]
        try:
            known, why = self._tokens(), "its token is not in the TokenFile"
        except OperatorNeeded as error:
            known, why = (), str(error)
        matches = [hmac.compare_digest(token, given.encode(errors="replace")) for token in known]
        if any(matches):
            return f"/{rest}"
        now = asyncio.get_running_loop().time()
        if now - self._refused_at >= REFUSAL_EVERY_S:
            self._refused_at = now
            self._telemetry.warned("runtime refused", function=self._function.key, peer=connection.peer, problem=why)
        return None

    def _is_of_a_page(self, request: web.BaseRequest) -> bool:
        """Whether a browser sends it: web pages reach loopback, too, some by a name that is made to lead here."""
        if any(name in request.headers for name in ("Origin", "Sec-Fetch-Mode")):
            return True
        host = request.headers.get("Host", "")
        named = host.rpartition(":")[0] or host
        return is_loopback(self._function.host) and not is_address(named.strip("[]"))

    async def _serve_next(self, connection: Connection) -> web.Response:
        if connection.is_waiting or connection.running is not None:
            return refused(403, "InvalidStateTransition", "next is not allowed while the runtime is running")
        connection.has_asked = connection.is_waiting = True
        try:
            while (running := await self._wait_next(connection)) is None:
                pass
        finally:
            connection.is_waiting = False
        if isinstance(running, Running):
            return as_response(running.event)
        connection.abort()
        return refused(503, "ServiceException", "Nothing to do: ask again")

    async def _wait_next(self, connection: Connection) -> Running | _Nothing | None:
        """What a runtime has to do next; None where that has ended before it came here."""
        poll = self._meeting.asked()
        try:
            await asyncio.wait({poll.given}, timeout=self._patience_s(connection))
        except asyncio.CancelledError:
            self._meeting.lost(poll)
            raise
        if poll.given.done() and not connection.transport.is_closing():
            return self._meeting.begin(poll, connection)
        self._meeting.lost(poll)
        return _Nothing()

    def _patience_s(self, connection: Connection) -> float | None:
        """How long a runtime waits before it is to ask elsewhere; None: as long as it likes."""
        rounds = self._rounds
        if rounds is None:
            return None
        is_used = connection.requests > 1 and connection.agent.startswith(KEEPING)
        return (rounds.old_s if is_used else rounds.unused_s) * (0.8 + 0.4 * rounds.jitter())

    def _last(self, connection: Connection, response: web.Response) -> web.Response:
        """Let a runtime connect anew after its answer, where its connection is old."""
        age_s = asyncio.get_running_loop().time() - connection.since
        if self._rounds is not None and connection.running is None and age_s > self._rounds.old_s:
            response.force_close()
        return response

    async def _serve_of(
        self, request_id: str, connection: Connection, request: web.BaseRequest, call: str
    ) -> web.Response:
        running = self._named(request_id, connection, request, call)
        if isinstance(running, web.Response):
            return running
        is_stream = request.headers.get("Lambda-Runtime-Function-Response-Mode", "").lower() == "streaming"
        if call == "response" and is_stream and running.event.stream is not None:
            return await self._serve_stream(running, request, running.event.stream)
        payload = await body_within(request.content.iter_any(), ANSWER_BYTES_MAX)
        if self._meeting.running(request_id) is not running:  # another answer was faster, or its time is over
            return _out_of_turn(call)
        if payload is None:
            self._meeting.answered(running, endings.too_large(request_id))
            return too_large()
        is_failure = call == "error"
        self._meeting.answered(
            running, endings.failed(request_id, payload) if is_failure else Answer(request_id, payload)
        )
        return accepted()

    def _named(
        self, request_id: str, connection: Connection, request: web.BaseRequest, call: str
    ) -> Running | web.Response:
        """The invocation that an answer is for, or why it cannot be one."""
        running = self._meeting.running(request_id)
        if running is None:
            has_ended = self._meeting.was_answered(request_id)
            return _out_of_turn(call) if has_ended else refused(400, "InvalidRequestID", "Invalid request ID")
        attempt = request.headers.get("Lambda-Runtime-Invocation-Id")
        is_of_another = attempt is None and running.is_repeated and connection.running is not running
        if is_of_another or attempt not in {None, running.event.invocation_id}:
            return refused(400, "InvalidInvocationId", "Invalid invocation ID")
        return _out_of_turn(call) if running.is_streaming else running

    async def _serve_stream(self, running: Running, request: web.BaseRequest, stream: Stream) -> web.Response:
        """Pass the pieces on as they come: the caller's pace is the function's."""
        request_id, size = running.event.request_id, 0
        running.is_streaming = True
        try:
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if self._meeting.running(request_id) is not running:
                    return _out_of_turn("response")
                if size > STREAM_BYTES_MAX:
                    self._meeting.answered(running, endings.too_large(request_id))
                    return too_large(STREAM_BYTES_MAX)
                await stream(chunk)
        except (asyncio.CancelledError, *_BROKEN):
            if self._meeting.running(request_id) is running:
                self._meeting.broke(running, endings.truncated(request_id), "exit")
            raise
        if self._meeting.running(request_id) is not running:
            return _out_of_turn("response")
        self._meeting.answered(running, Answer(request_id, b""))
        return accepted()

    async def _serve_init_error(self, connection: Connection, request: web.BaseRequest) -> web.Response:
        if connection.has_asked:
            return refused(403, "InvalidStateTransition", "init error is not allowed once the runtime is initialised")
        payload = await body_within(request.content.iter_any(), ANSWER_BYTES_MAX)
        if payload is None:
            return too_large()
        kind = error_type(request.headers.get("Lambda-Runtime-Function-Error-Type"), "Runtime")
        self._telemetry.warned(
            "runtime could not initialise", function=self._function.key, peer=connection.peer, error_type=kind
        )
        self._meeting.init_failed(kind, connection.peer)
        return accepted()

    def _lost(self, connection: Connection) -> None:
        """A connection has ended: with it the runtime, if its client keeps connections."""
        running = connection.running
        if running is None:
            self._meeting.look()
        elif not running.is_streaming and self._keeps(connection):  # who reads a stream learns of its end
            self._telemetry.warned("runtime lost while it ran", function=self._function.key, peer=connection.peer)
            self._meeting.broke(running, endings.exited(running.event.request_id, 0), "exit")


def _out_of_turn(call: str) -> web.Response:
    return refused(403, "InvalidStateTransition", f"{call} is not allowed: the invocation has its answer")
