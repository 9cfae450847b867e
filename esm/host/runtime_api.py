"""The Runtime API of one environment, on a loopback port of its own: next, response, error, init error.

Source: lambda.md 7.1. One invocation at a time; an answer for another request id is refused.
"""

import asyncio
from dataclasses import dataclass

from esm.host import http
from esm.host.http import Malformed, Request

_PREFIX = "/2018-06-01/runtime/"
TOO_LARGE = (
    b'{"errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes).",'
    b'"errorType":"Function.ResponseSizeTooLarge"}'
)


@dataclass(frozen=True, slots=True)
class Event:
    """What `next` hands to the runtime."""

    request_id: str
    deadline_ms: int
    function_arn: str
    payload: bytes
    trace: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """What the runtime handed in."""

    payload: bytes
    is_error: bool
    is_last: bool = False
    """The runtime ends itself after it: it could not hand in what the function returned."""


class RuntimeApi:
    """Serves one runtime process."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._offered: Event | None = None
        """Waits for the runtime to ask."""
        self._asked: asyncio.Future[None] | None = None
        """The runtime waits for an event."""
        self._current: Event | None = None
        """The runtime has it."""
        self._result: asyncio.Future[Result] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.is_ready = asyncio.Event()
        """The runtime has asked for its first event: init has ended."""
        self.init_error: bytes | None = None
        """What the runtime said when init failed."""

    async def start(self) -> int:
        """Listen on a free loopback port and return it."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=http.HEAD_BYTES_MAX)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def offer(self, event: Event) -> "asyncio.Future[Result]":
        """Give the runtime an event; the future holds what it hands in."""
        self._offered = event
        self._result = asyncio.get_running_loop().create_future()
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)
        return self._result

    def close(self) -> None:
        """Stop listening and drop the connections."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await http.read(reader, writer)) is not None:
                writer.write(await self._answer(request))
                await writer.drain()
        except Malformed:
            writer.write(http.response("400 Bad Request", _error("BadRequest", "Not HTTP/1.1.")))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, request: Request) -> bytes:
        match request.method, request.path.removeprefix(_PREFIX).split("/"):
            case "GET", ["invocation", "next"]:
                return await self._next()
            case "POST", ["invocation", request_id, ("response" | "error") as kind]:
                return self._handed_in(request_id, request.body, is_error=kind == "error")
            case "POST", ["init", "error"]:
                self.init_error = request.body or b"{}"
                return http.response("202 Accepted")
            case _:
                return http.response("404 Not Found", _error("NotFound", "No such call of the Runtime API."))

    async def _next(self) -> bytes:
        if self._current is not None:
            self._fail_current()
        self.is_ready.set()
        if self._offered is None:
            self._asked = asyncio.get_running_loop().create_future()
            await self._asked
        assert self._offered is not None
        event, self._offered = self._offered, None
        self._current = event
        trace = (
            b"" if event.trace is None else b"Lambda-Runtime-Trace-Id: %s\r\n" % event.trace.encode("latin-1", "ignore")
        )
        headers = (
            b"Lambda-Runtime-Aws-Request-Id: %s\r\nLambda-Runtime-Deadline-Ms: %d\r\n"
            b"Lambda-Runtime-Invoked-Function-Arn: %s\r\n%s"
        ) % (event.request_id.encode(), event.deadline_ms, event.function_arn.encode(), trace)
        return http.response("200 OK", event.payload, headers)

    def _fail_current(self) -> None:
        """A runtime that asks for the next event before it answered gives the running one up."""
        if self._result is not None and not self._result.done():
            self._result.set_result(Result(_error("Runtime.Unknown", "The runtime gave no answer."), is_error=True))
        self._current = None

    def _handed_in(self, request_id: str, body: bytes | None, *, is_error: bool) -> bytes:
        current = self._current
        if current is None or self._result is None or self._result.done():
            return http.response("403 Forbidden", _error("InvalidStateTransition", "No invocation is running."))
        if request_id != current.request_id:
            return http.response("400 Bad Request", _error("InvalidRequestID", "Invalid request ID"))
        self._current = None
        if body is None:
            self._result.set_result(Result(TOO_LARGE, is_error=True, is_last=True))
            text = f"Exceeded maximum allowed payload size ({http.BODY_BYTES_MAX} bytes)."
            return http.response("413 Request Entity Too Large", _error("RequestEntityTooLarge", text))
        self._result.set_result(Result(body, is_error))
        return http.response("202 Accepted")


def _error(kind: str, text: str) -> bytes:
    return b'{"errorType":"%s","errorMessage":"%s"}' % (kind.encode(), text.encode())
