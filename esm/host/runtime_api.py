"""The Lambda Runtime API of one environment, on a loopback port of its own. Source: lambda.md 7.1.

Law: one runtime, one invocation at a time; what may be called when is the table `_ALLOWED`. The server is aiohttp's
low-level one, which is not ours to keep correct: 2,100 to 2,300 warm invocations a second on two quiet cores. It takes
0.4 ms of CPU an invocation more than a bare protocol, so on busy cores it reaches 0.35 of that one's rate
(`tests/bench/host.py`): if the Runtime API is ever what a daemon waits for, this is the module to replace.
"""

import asyncio
import json
import socket
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from aiohttp import web

from esm.host.endings import ANSWER_BYTES_MAX, TOO_LARGE

_PREFIX = "/2018-06-01/runtime/"
_HEADER_BYTES_MAX = 1024 * 1024 + 64 * 1024
"""awslambdaric sends the frames of an exception as one header of up to 1 MiB."""
_OK = b'{"status":"OK"}\n'


class Phase(Enum):
    """What the runtime does."""

    INIT = "init"
    """It loads the handler."""
    WAITING = "waiting"
    """It has asked for the next invocation."""
    RUNNING = "running"
    """It has been given one."""
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


class Listener(Protocol):
    """Who is told what the runtime says; called in the event loop, must not wait."""

    def asked(self) -> None:
        """It waits for an invocation: initialisation, or the one before, has ended."""

    def answered(self, payload: bytes, *, has_failed: bool) -> None:
        """The handler returned, or raised."""

    def answered_too_much(self) -> None:
        """The handler's answer is above Lambda's limit."""

    def init_failed(self, payload: bytes) -> None:
        """The handler could not be loaded."""


class RuntimeApi:
    """Serves one environment between `open` and `aclose`."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._phase = Phase.INIT
        self._event: Event | None = None
        """Given by `deliver` and not sent yet."""
        self._next: asyncio.Future[None] | None = None
        """Ends the call of `next` that is held open."""
        self._request_id = ""
        self._http = web.Server(
            self._serve, handler_cancellation=True, access_log=None, auto_decompress=False,
            max_line_size=_HEADER_BYTES_MAX, max_field_size=_HEADER_BYTES_MAX, lingering_time=5.0,
        )  # fmt: skip
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Listen; returns `host:port`. Raises: OSError."""
        own = socket.create_server(("127.0.0.1", 0))
        host, port = own.getsockname()
        # does not wait while it is not started: a cancelled start could not close what it has not been given
        self._server = await asyncio.get_running_loop().create_server(self._http, sock=own, start_serving=False)
        await self._server.start_serving()
        return f"{host}:{port}"

    def deliver(self, event: Event) -> None:
        """Give the runtime, which has asked, its next invocation."""
        assert self._phase is Phase.WAITING
        self._phase = Phase.RUNNING
        self._event, self._request_id = event, event.request_id
        if self._next is not None and not self._next.done():
            self._next.set_result(None)

    async def aclose(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        await self._http.shutdown(0)

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        method, path = request.method, request.path
        if not path.startswith(_PREFIX):
            return _refused(404, "NotFound", f"{path[:200]} is no path of the Runtime API")
        match method, path[len(_PREFIX) :].split("/"):
            case "GET", ["invocation", "next"]:
                return await self._serve_next()
            case "POST", ["invocation", request_id, "response" | "error" as call]:
                if request_id != self._request_id:
                    return _refused(400, "InvalidRequestID", "Invalid request ID")
                return await self._serve_answer(request, call)
            case "POST", ["init", "error"]:
                return await self._serve_answer(request, "init error")
            case _:
                return _refused(404, "NotFound", f"{method[:20]} {path[:200]} is no call of the Runtime API")

    async def _serve_next(self) -> web.Response:
        if self._event is None and (self._phase not in _ALLOWED["next"] or self._next is not None):
            return self._out_of_turn("next")
        if self._event is None:
            self._next = asyncio.get_running_loop().create_future()
            has_asked = self._phase is Phase.WAITING  # before its connection broke
            self._phase = Phase.WAITING
            try:
                if not has_asked:
                    self._listener.asked()
                await self._next
            finally:
                self._next = None
        event, self._event = self._event, None
        return self._out_of_turn("next") if event is None else _invocation(event)

    async def _serve_answer(self, request: web.BaseRequest, call: str) -> web.Response:
        if self._phase not in _ALLOWED[call]:
            return self._out_of_turn(call)
        payload = await _body(request)
        if self._phase not in _ALLOWED[call]:  # another answer was faster
            return self._out_of_turn(call)
        self._phase = Phase.FAILED if call == "init error" else Phase.ANSWERED
        if payload is None:
            self._listener.answered_too_much()
            return _refused(
                413, "RequestEntityTooLarge", TOO_LARGE.replace("Response payload size exceeded", "Exceeded")
            )
        if call == "init error":
            self._listener.init_failed(payload)
        else:
            self._listener.answered(payload, has_failed=call == "error")
        return web.Response(body=_OK, status=202, content_type="application/json")

    def _out_of_turn(self, call: str) -> web.Response:
        return _refused(
            403, "InvalidStateTransition", f"{call} is not allowed while the runtime is {self._phase.value}"
        )


def _invocation(event: Event) -> web.Response:
    headers = {
        "Content-Type": "application/json",
        "Lambda-Runtime-Aws-Request-Id": event.request_id,
        "Lambda-Runtime-Deadline-Ms": str(event.deadline_ms),
        "Lambda-Runtime-Invoked-Function-Arn": event.function_arn,
    }
    if event.trace is not None:
        headers["Lambda-Runtime-Trace-Id"] = event.trace
    return web.Response(body=event.payload, headers=headers)


async def _body(request: web.BaseRequest) -> bytes | None:
    """None when it is above the limit; the rest is not kept."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > ANSWER_BYTES_MAX:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _refused(status: int, error_type: str, text: str) -> web.Response:
    body = json.dumps({"errorMessage": text, "errorType": error_type}).encode()
    return web.Response(body=body, status=status, content_type="application/json")
