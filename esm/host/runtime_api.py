"""The Lambda Runtime API of one environment, on a loopback port of its own. Source: lambda.md 7.1.

Law: one runtime, one invocation at a time; what may be called when is the table `_ALLOWED`. The server is aiohttp's
low-level one, which is not ours to keep correct: 2,100 to 2,300 warm invocations a second on two quiet cores. It takes
0.4 ms of CPU an invocation more than a bare protocol, so on busy cores it reaches 0.35 of that one's rate
(`tests/bench/host.py`): if the Runtime API is ever what a daemon waits for, this is the module to replace.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import aiohttp
from aiohttp import web

from esm.host.endings import ANSWER_BYTES_MAX
from esm.host.extensions_api import PREFIX as EXTENSIONS
from esm.host.extensions_api import Extensions, no_telemetry
from esm.host.wire import accepted, body_within, error_type, refused

PREFIX = "/2018-06-01/runtime/"
TELEMETRY = ("/2022-07-01/telemetry", "/2020-08-15/logs")
HEADER_BYTES_MAX = 1024 * 1024 + 64 * 1024
"""awslambdaric sends the frames of an exception as one header of up to 1 MiB."""
STREAM_BYTES_MAX = 200 * 1024 * 1024
"""Lambda's cap on a streamed answer. Source: lambda.md 6."""

Stream = Callable[[bytes], Awaitable[None]]


class Phase(Enum):
    """What the runtime does."""

    INIT = "init"
    """It loads the handler."""
    WAITING = "waiting"
    """It has asked for the next invocation."""
    RUNNING = "running"
    """It has been given one."""
    STREAMING = "streaming"
    """It hands in its answer piece by piece."""
    ANSWERED = "answered"
    """It has answered and not asked again yet."""
    FAILED = "failed"
    """It could not load the handler: it will end."""


_ALLOWED = {
    "next": (Phase.INIT, Phase.ANSWERED, Phase.WAITING),
    "init error": (Phase.INIT,),
    "response": (Phase.RUNNING,),
    "error": (Phase.RUNNING,),
}


@dataclass(frozen=True, slots=True)
class Event:
    """What `next` brings."""

    request_id: str
    function_arn: str
    deadline_ms: int
    """Unix time."""
    payload: bytes = field(repr=False)
    trace: str | None = None
    client_context: str | None = field(default=None, repr=False)
    cognito_identity: str | None = field(default=None, repr=False)
    invocation_id: str = ""
    """Names this attempt; a runtime may send it back, and what it sends must be it. lambda.md 7.1."""
    stream: Stream | None = field(default=None, repr=False)
    """Where the pieces of a streamed answer go; None: they are gathered into one answer."""


class Listener(Protocol):
    """Who is told what the runtime says; called in the event loop, must not wait."""

    def progressed(self) -> None:
        """It waits for an invocation: initialisation, or the one before, has ended."""

    def answered(self, payload: bytes, error_type: str | None) -> None:
        """The handler returned, or failed in the way that the runtime names."""

    def answered_too_much(self) -> None:
        """The handler's answer is above Lambda's limit."""

    def answered_in_part(self) -> None:
        """The connection broke before the answer's end."""

    def init_failed(self, payload: bytes, error_type: str) -> None:
        """The handler could not be loaded."""


class RuntimeApi:
    """Serves one environment between `open` and `aclose`."""

    def __init__(self, listener: Listener, extensions: Extensions) -> None:
        self._listener = listener
        self._extensions = extensions
        self._phase = Phase.INIT
        self._event: Event | None = None
        """Given by `deliver` and not sent yet."""
        self._next: asyncio.Future[None] | None = None
        """Ends the call of `next` that is held open."""
        self._current: Event | None = None
        self._http = web.Server(
            self._serve, handler_cancellation=True, access_log=None, auto_decompress=False,
            max_line_size=HEADER_BYTES_MAX, max_field_size=HEADER_BYTES_MAX, lingering_time=5.0,
        )  # fmt: skip
        self._server: asyncio.Server | None = None

    async def open(self, listening: socket.socket) -> None:
        """Serve what comes to a socket, and own it. Raises: OSError."""
        # does not wait while it is not started: a cancelled start could not close what it has not been given
        self._server = await asyncio.get_running_loop().create_server(self._http, sock=listening, start_serving=False)
        await self._server.start_serving()

    @property
    def is_waiting(self) -> bool:
        """Whether the runtime has asked for the next invocation and has none."""
        return self._phase is Phase.WAITING

    def deliver(self, event: Event) -> None:
        """Give the runtime, which has asked, its next invocation."""
        assert self._phase is Phase.WAITING
        self._phase = Phase.RUNNING
        self._event = self._current = event
        if self._next is not None and not self._next.done():
            self._next.set_result(None)

    async def aclose(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        await self._http.shutdown(0)

    async def _serve(self, request: web.BaseRequest) -> web.Response:  # noqa: PLR0911 - one for each call
        method, path = request.method, request.path
        if path.startswith(EXTENSIONS):
            return await self._extensions.serve(request)
        if method == "PUT" and path in TELEMETRY:
            await body_within(request.content.iter_any(), ANSWER_BYTES_MAX)
            return no_telemetry(path)
        if not path.startswith(PREFIX):
            return refused(404, "NotFound", f"{path[:200]} is no path of the Runtime API")
        match method, path[len(PREFIX) :].split("/"):
            case "GET", ["invocation", "next"]:
                return await self._serve_next()
            case "POST", ["invocation", request_id, "response" | "error" as call]:
                return await self._serve_of(request_id, request, call)
            case "POST", ["init", "error"]:
                return await self._serve_answer(request, "init error")
            case _:
                return refused(404, "NotFound", f"{method[:20]} {path[:200]} is no call of the Runtime API")

    async def _serve_next(self) -> web.Response:
        if self._event is None and (self._phase not in _ALLOWED["next"] or self._next is not None):
            return self._out_of_turn("next")
        if self._event is None:
            self._next = asyncio.get_running_loop().create_future()
            has_asked = self._phase is Phase.WAITING  # before its connection broke
            self._phase = Phase.WAITING
            try:
                if not has_asked:
                    self._listener.progressed()
                await self._next
            finally:
                self._next = None
        event, self._event = self._event, None
        return self._out_of_turn("next") if event is None else as_response(event)

    async def _serve_of(self, request_id: str, request: web.BaseRequest, call: str) -> web.Response:
        current = self._current
        if current is None or request_id != current.request_id:
            return refused(400, "InvalidRequestID", "Invalid request ID")
        if request.headers.get("Lambda-Runtime-Invocation-Id", current.invocation_id) != current.invocation_id:
            return refused(400, "InvalidInvocationId", "Invalid invocation ID")
        is_stream = request.headers.get("Lambda-Runtime-Function-Response-Mode", "").lower() == "streaming"
        if call == "response" and is_stream and current.stream is not None:
            return await self._serve_stream(request, current.stream)
        return await self._serve_answer(request, call)

    async def _serve_answer(self, request: web.BaseRequest, call: str) -> web.Response:
        if self._phase not in _ALLOWED[call]:
            return self._out_of_turn(call)
        payload = await body_within(request.content.iter_any(), ANSWER_BYTES_MAX)
        if self._phase not in _ALLOWED[call]:  # another answer was faster
            return self._out_of_turn(call)
        self._phase = Phase.FAILED if call == "init error" else Phase.ANSWERED
        if payload is None:
            self._listener.answered_too_much()
            return too_large()
        given = request.headers.get("Lambda-Runtime-Function-Error-Type")
        match call:
            case "init error":
                self._listener.init_failed(payload, error_type(given, "Runtime"))
            case "error":
                self._listener.answered(payload, error_type(given, "Function"))
            case _:
                self._listener.answered(payload, None)
        return accepted()

    async def _serve_stream(self, request: web.BaseRequest, stream: Stream) -> web.Response:
        """Pass the pieces on as they come: the caller's pace is the function's."""
        if self._phase is not Phase.RUNNING:
            return self._out_of_turn("response")
        self._phase, size = Phase.STREAMING, 0
        try:
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > STREAM_BYTES_MAX:
                    self._phase = Phase.ANSWERED
                    self._listener.answered_too_much()
                    return too_large(STREAM_BYTES_MAX)
                await stream(chunk)
        except (ConnectionError, asyncio.CancelledError, web.HTTPException, aiohttp.ClientPayloadError):
            self._phase = Phase.ANSWERED
            self._listener.answered_in_part()
            raise
        self._phase = Phase.ANSWERED
        self._listener.answered(b"", None)
        return accepted()

    def _out_of_turn(self, call: str) -> web.Response:
        return refused(403, "InvalidStateTransition", f"{call} is not allowed while the runtime is {self._phase.value}")


def loopback() -> socket.socket:
    """A listening socket of this machine. Raises: OSError."""
    return socket.create_server(("127.0.0.1", 0))


def too_large(limit: int = ANSWER_BYTES_MAX) -> web.Response:
    """413: an answer is above its limit."""
    return refused(413, "RequestEntityTooLarge", f"Exceeded maximum allowed payload size ({limit} bytes).")


def as_response(event: Event) -> web.Response:
    """What `next` is answered."""
    headers = {
        "Content-Type": "application/json",
        "Lambda-Runtime-Aws-Request-Id": event.request_id,
        "Lambda-Runtime-Deadline-Ms": str(event.deadline_ms),
        "Lambda-Runtime-Invoked-Function-Arn": event.function_arn,
        "Lambda-Runtime-Trace-Id": event.trace,
        "Lambda-Runtime-Client-Context": event.client_context,
        "Lambda-Runtime-Cognito-Identity": event.cognito_identity,
        "Lambda-Runtime-Invocation-Id": event.invocation_id,
    }
    given = {name: text for name, text in headers.items() if text and _is_clean(text)}
    return web.Response(body=event.payload, headers=given)


def _is_clean(text: str) -> bool:
    """Whether it can stand in a header: what cannot is left out, and splits no answer."""
    return text.isascii() and text.isprintable()
