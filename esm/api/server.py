"""Lambda's API over HTTP: who calls is checked, requests are read and answered, whatever the operation does.

Law: nothing of a request is believed before its signature is. What is refused is refused in Lambda's words, with a
request id; an error of the program itself shows nothing of itself to the client.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from collections.abc import Mapping as Table
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from botocore.model import OperationModel

from esm.api import answers, constraints, offered, requests, signatures
from esm.api.answers import Answer
from esm.api.calls import Call, Handler, Throttling
from esm.api.credentials import ANYBODY, Caller, Credentials
from esm.api.event_streams import EventStream
from esm.api.lambda_model import routed
from esm.api.signatures import Sent
from esm.api.slow_clients import Connections
from esm.api.tls import Certificate
from esm.errors import Conflict, OperatorNeeded, RequestRefused, StoreTooNew, Unavailable, ValueTooLarge
from esm.ports import Clock
from esm.telemetry import Telemetry

HEADER_BYTES_MAX = 16_384
"""Longest line and field of a request that is read."""
BODY_BYTES_MAX = 6_291_456
"""Of every operation but those that bring code. Source: Lambda's text about Invoke."""
CODE_BYTES_MAX = 70_167_211
"""Of an operation that brings a zip of 50 MB in base64. Source: Lambda's text about CreateFunction."""
BODIES_BYTES_MAX = 256 * 1024 * 1024
"""Of all bodies that are read at once: what is above is told to come again."""
BODY_S = 60.0
"""From the headers of a request until its body is there."""
HANDSHAKE_S = 10.0
_WITH_CODE = frozenset({"CreateFunction", "UpdateFunctionCode", "PublishLayerVersion"})
_INVOKING = frozenset({"Invoke", "InvokeWithResponseStream"})
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Around:
    """What the server has from the daemon."""

    clock: Clock
    telemetry: Telemetry
    new_id: Callable[[], str]
    region: str
    account: str
    takes_any_host: bool = False
    """Without credentials: whether a request may name any host (`ESM_API_INSECURE`)."""
    is_open: Callable[[], bool] = lambda: True
    """False: the daemon stops, and takes nothing new."""


class _Silent:
    """The log of aiohttp: it would quote heads that cannot be read, secrets included. Our own errors are told apart."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


_SILENT: Any = _Silent()


class Api:
    """Answers requests. `serving` makes a server of it."""

    def __init__(self, around: Around, handlers: Table[str, Handler], credentials: Credentials | None = None) -> None:
        """`handlers` by operation; without `credentials` everybody may do everything."""
        self._around = around
        self._handlers = handlers
        self._credentials = credentials
        self._reading_bytes = 0
        self._answering = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.connections: Connections | None = None
        """Those of the server."""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        if self.connections is not None:
            self.connections.begun(request.transport)
        self._answering += 1
        self._idle.clear()
        try:
            return await self._served(request)
        finally:
            self._answering -= 1
            if not self._answering:
                self._idle.set()
            if self.connections is not None:
                self.connections.ended(request.transport)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self._idle.is_set()

    async def wait_idle(self) -> None:
        """Return once no request is being answered."""
        await self._idle.wait()

    async def _served(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = self._around.new_id()
        own = {"x-amzn-RequestId": request_id, "Server": "esm"}
        stream = EventStream(request, own)
        try:
            made = await self._answer(request, request_id, stream)
        except RequestRefused as error:
            made = answers.refusal(error, error.more if isinstance(error, Throttling) else None)
        except Conflict:
            text = "The resource has changed meanwhile: look at it, and try again."
            made = answers.refusal(RequestRefused(text, "ResourceConflictException", 409))
        except ValueTooLarge as error:
            made = answers.refusal(RequestRefused(f"The request is too large to be kept: {error}"))
        except (Unavailable, OperatorNeeded, StoreTooNew) as error:
            made = answers.refusal(RequestRefused(str(error), "ServiceException", 500))
        except Exception:
            self._around.telemetry.api_crashed(request_id)
            raise
        if stream.response is not None:
            await stream.end()
            return stream.response
        response = web.Response(status=made.status, body=made.body, headers=made.headers | own)
        if not request.content.is_eof() or not self._around.is_open():
            response.force_close()  # what was not read is no next request, and who stops takes none
        return response

    async def _answer(self, request: web.BaseRequest, request_id: str, stream: EventStream) -> Answer:
        if not request.raw_path.isascii():
            raise RequestRefused("The path must be percent-encoded.", "UnknownOperationException", 400)
        path, _, query = request.raw_path.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        found = routed(request.method, path, dict(pairs))
        operation = found.operation
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        body = await self._body(request, operation)
        try:
            caller = self._caller(Sent(request.method, path, query, headers, body))
            by_name = {name.lower(): value for name, value in headers}
            given = requests.parsed(operation, found.labels, pairs, by_name, body)
            call = Call(
                operation.name, given, caller, request_id, self._around.clock.wall(), self._around.account, stream,
                request.headers.get("X-Amzn-Trace-Id"),
            )  # fmt: skip
            call.check_allowed()
            handler = self._handlers.get(operation.name)
            if handler is None:
                raise offered.refused(operation.name)
            constraints.check(operation, given)
            if not self._around.is_open():
                raise Unavailable("esm is stopping: try again in a moment, or at another replica.")
            return answers.answer(operation, await handler(call))
        finally:
            self._reading_bytes -= len(body)

    def _caller(self, sent: Sent) -> Caller:
        credentials = self._credentials
        if credentials is None:
            self._check_no_page(sent)
            return ANYBODY
        found: dict[str, Caller] = {}

        def secret(key: str) -> str | None:
            caller = credentials.caller(key)
            if caller is None:
                return None
            found[key] = caller
            return caller.secret

        return found[signatures.signer(sent, secret, self._around.region, self._around.clock.wall())]

    def _check_no_page(self, sent: Sent) -> None:
        """Without credentials, what a page in a browser sends is refused: loopback is open to it, too."""
        headers = {name.lower(): value for name, value in sent.headers}
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if "origin" in headers or not (self._around.takes_any_host or _is_address(host.strip("[]"))):
            text = (
                "esm takes no requests of web pages, and none for another host than localhost or an address, while it"
                " asks for no credentials. Set ESM_API_CREDENTIALS_FILE to call it by name."
            )
            raise RequestRefused(text, "AccessDeniedException", 403)

    async def _body(self, request: web.BaseRequest, operation: OperationModel) -> bytes:
        """The body, as it came; its bytes stay counted until the request is answered."""
        most = CODE_BYTES_MAX if operation.name in _WITH_CODE else BODY_BYTES_MAX
        if (request.content_length or 0) > most:
            raise _too_large(operation.name, most)
        chunks: list[bytes] = []
        size, is_whole = 0, False
        try:
            async with asyncio.timeout(BODY_S):
                while chunk := await request.content.read(_CHUNK_BYTES):
                    chunks.append(chunk)
                    self._reading_bytes += len(chunk)
                    size += len(chunk)
                    self._check_room(operation.name, size, most)
            is_whole = True
        except TimeoutError as error:
            raise RequestRefused(
                f"The body did not come within {BODY_S:g} s.", "RequestTimeoutException", 408
            ) from error
        finally:
            if not is_whole:
                self._reading_bytes -= size
        return b"".join(chunks)

    def _check_room(self, operation: str, size: int, most: int) -> None:
        """Raises: RequestRefused where a body is too large, or all of them are."""
        if size > most:
            raise _too_large(operation, most)
        if self._reading_bytes > BODIES_BYTES_MAX:
            raise Throttling("CallerRateLimitExceeded", 1.0)


def _too_large(operation: str, most: int) -> RequestRefused:
    if operation in _INVOKING:
        text = f"Request must be smaller than {most} bytes for the InvokeFunction operation"
        return RequestRefused(text, "RequestTooLargeException", 413)
    text = f"Request must be smaller than {most} bytes for the {operation} operation"
    return RequestRefused(text, "RequestEntityTooLargeException", 413)


def _is_address(host: str) -> bool:
    """Whether a host is localhost or an address: a name could be made to lead here (DNS rebinding)."""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@asynccontextmanager
async def serving(
    api: Api, host: str, port: int, tls: Certificate | None = None, grace_s: float = 5.0, *, shares_port: bool = False
) -> AsyncIterator[int]:
    """Serve while the body runs; yields the port (a free one where `port` is 0). What is under way then has `grace_s`.

    `shares_port`: several processes listen, and the kernel gives each connection to one of them.
    Raises: OperatorNeeded when the address cannot be had.
    """
    runner = web.ServerRunner(
        web.Server(
            api.serve, access_log=None, auto_decompress=False, max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX, lingering_time=2.0, keepalive_timeout=75.0, logger=_SILENT,
        ), shutdown_timeout=grace_s,
    )  # fmt: skip
    await runner.setup()
    made = runner.server
    assert made is not None
    api.connections = Connections(made, (lambda: None) if tls is None else tls.look)
    try:
        try:
            server = await asyncio.get_running_loop().create_server(
                api.connections,
                host,
                port,
                ssl=None if tls is None else tls.context,
                ssl_handshake_timeout=None if tls is None else HANDSHAKE_S,
                reuse_port=shares_port or None,
            )
        except OSError as error:
            raise OperatorNeeded(
                f"ESM_API_ADDRESS: cannot listen on {host}:{port} ({error.strerror}). Choose another address."
            ) from error
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
    finally:
        await runner.cleanup()
