"""A function behind HTTP, whatever its protocol: connections, bounds, deadlines, and what counts as having run.

Law: as many invocations at once at each address, and at all of them, as protocol and configuration allow. Where an
address is bounded (`rie`), it is free again only once its server has answered or closed, also when its caller has gone.
What fails before the whole request was handed to the network never ran; what fails later may have run, and counts.
Requests go straight to the function: neither proxies nor redirects are followed. Nothing that a header, a URL's query
or an answer holds is in any text.

A connection serves one invocation. One that is kept may have been closed by its server just when it is used again,
and that cannot be told from a function that died. A new one costs 0.4 ms on loopback, and spreads invocations over
whatever stands behind a single address.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from esm.aws.sessions import keepalive_socket
from esm.errors import OperatorNeeded, Unavailable
from esm.model.function import FunctionFacts, UrlFunction
from esm.model.invocation import Ending, Invocation, Misconfigured, Throttled, Unreachable
from esm.targets import function_errors, lost
from esm.targets.addresses import Addresses
from esm.targets.protocol import Call, HttpProtocol
from esm.targets.request_headers import ConfiguredHeaders
from esm.targets.tls import ClientTls
from esm.telemetry import Telemetry

_QUOTED = re.compile(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=%._~-]+")
"""A URL that needs no quoting is asked as it is written: a query may carry a signature. Source: RFC 3986 2."""
_CONNECT_WITHIN_S = 10.0
_SEND_WITHIN_S = 60.0
"""From the start of the connection to the last byte of the request, 6 MB at most."""
_GRACE_S = 1.0
"""How long after its timeout the function's own answer is waited for."""
_RUN_S_MAX = 900.0
"""The longest that any function runs: after it, an address whose server stays silent is used again."""
_HEADER_BYTES_MAX = 65_536
"""Of one header of an answer: a function that ran is not to be taken for what does not speak HTTP."""


class HttpFunction:
    """A `Target` for a `UrlFunction`."""

    def __init__(self, function: UrlFunction, protocol: HttpProtocol, telemetry: Telemetry) -> None:
        """Raises: RequestRefused for headers or files that the function cannot have."""
        url = URL(function.url, encoded=_QUOTED.fullmatch(function.url) is not None)
        path = protocol.path(url.raw_path)
        self._url = url if path == url.raw_path else url.with_path(path, encoded=True, keep_query=True)
        self._host = url.raw_host or ""
        self._function = function
        self._protocol = protocol
        self._telemetry = telemetry
        self._configured = ConfiguredHeaders(function)
        self._tls = ClientTls(function, is_https=url.scheme == "https")
        self._addresses = Addresses(
            self._host, url.port or 80, each_max=protocol.each_max, all_max=function.concurrency_max
        )  # fmt: skip
        self._exchanges: set[asyncio.Task[Ending]] = set()
        self._session: aiohttp.ClientSession | None = None

    @property
    def concurrency(self) -> int | None:
        """What protocol and `MaxConcurrency` allow, at least 1; with `rie` it follows the host's addresses."""
        return self._addresses.capacity

    async def facts(self) -> FunctionFacts:
        """As configured. Raises: OperatorNeeded (a file cannot be used), Unavailable (the host has no address)."""
        self._configured.value()
        self._ssl()
        await self._addresses.resolve()
        return FunctionFacts(self._function.timeout_s, self._function.role)

    async def wait_free(self) -> None:
        """See `ports.Target`; returns at once where the host has no address: the invocation will say so."""
        try:
            address = await self._addresses.take(None)
        except Unavailable:
            return
        if address is not None:
            self._addresses.give_back(address)

    async def invoke(self, invocation: Invocation) -> Ending:
        """See `ports.Target`.

        Cancelled: what was not sent yet never runs; what runs keeps its address until it ends, or loses its connection.
        """
        try:
            address = await self._addresses.take(invocation.start_by)
        except Unavailable as error:
            return Unreachable(invocation.request_id, str(error))
        if address is None:
            return Throttled(invocation.request_id)
        loop = asyncio.get_running_loop()
        sent: asyncio.Future[None] = loop.create_future()
        exchange = loop.create_task(self._exchange(address, invocation, sent))
        self._exchanges.add(exchange)
        exchange.add_done_callback(lambda task: self._ended(task, address))
        try:
            return await self._wait_ending(exchange, address, invocation, sent)
        finally:
            if not sent.done() or self._protocol.each_max is None:
                exchange.cancel()
            elif not exchange.done():
                limit = loop.call_later(_RUN_S_MAX, exchange.cancel)
                exchange.add_done_callback(lambda _: limit.cancel())

    async def aclose(self) -> None:
        """Close every connection."""
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _ended(self, exchange: asyncio.Task[Ending], address: str) -> None:
        self._exchanges.discard(exchange)
        self._addresses.give_back(address)

    async def _wait_ending(
        self, exchange: asyncio.Task[Ending], address: str, invocation: Invocation, sent: asyncio.Future[None]
    ) -> Ending:
        request_id = invocation.request_id
        wait_s = _SEND_WITHIN_S
        if invocation.start_by is not None:
            wait_s = min(wait_s, max(0.0, invocation.start_by - asyncio.get_running_loop().time()))
        either: set[asyncio.Future[Any]] = {exchange, sent}
        await asyncio.wait(either, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if not exchange.done() and not sent.done():
            if wait_s < _SEND_WITHIN_S:
                return Throttled(request_id)
            return Unreachable(request_id, f"{address} did not take the request within {_SEND_WITHIN_S:.0f} s.")
        await asyncio.wait({exchange}, timeout=self._function.timeout_s + _GRACE_S)
        if not exchange.done():
            if self._protocol.each_max is not None:
                self._telemetry.warned(
                    "function runs on after its timeout; its address stays out of use",
                    function=self._function.key, address=address, timeout_s=self._function.timeout_s,
                )  # fmt: skip
            return function_errors.timed_out(request_id, self._function.timeout_s)
        if exchange.cancelled():
            return Unreachable(request_id, "The target was closed.")
        return exchange.result()

    async def _exchange(self, address: str, invocation: Invocation, sent: asyncio.Future[None]) -> Ending:
        """One request and its answer. Sets `sent` once the whole request is with the network."""
        timeout_s = self._function.timeout_s
        call = Call(invocation, timeout_s, int((time.time() + timeout_s) * 1000))
        try:
            async with self._open_session().post(
                self._url.with_host(address),
                data=_body(invocation.payload, sent),
                headers=self._headers(call),
                allow_redirects=False,
                server_hostname=self._host,
                ssl=self._ssl(),
            ) as response:
                body = await _bounded(response.content)
                if body is None:
                    return function_errors.too_large(call.request_id)
                return self._protocol.ending(call, response.status, response.headers, body)
        except OperatorNeeded as error:
            return Misconfigured(call.request_id, str(error))
        except (aiohttp.ClientError, OSError) as error:
            if not sent.done():
                self._addresses.doubt(address)
            return lost.ending(call.request_id, self._host, error, was_sent=sent.done())

    def _headers(self, call: Call) -> CIMultiDict[str]:
        """The configured ones, and over them those that esm sets itself. Raises: OperatorNeeded."""
        headers = CIMultiDict({"Content-Type": "application/json"})
        headers.update(self._configured.value())
        headers.update({
            "Host": self._url.host_port_subcomponent or "",
            "Content-Length": str(len(call.invocation.payload)),
            **self._protocol.headers(call),
        })  # fmt: skip
        return headers

    def _ssl(self) -> ssl.SSLContext | bool:
        """The context of now; True, which means nothing, without TLS. Raises: OperatorNeeded."""
        return self._tls.context() if self._url.scheme == "https" else True

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0, socket_factory=keepalive_socket),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_WITHIN_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
                trust_env=False,
                max_line_size=_HEADER_BYTES_MAX,
                max_field_size=_HEADER_BYTES_MAX,
            )
        return self._session


async def _body(payload: bytes, sent: asyncio.Future[None]) -> AsyncIterator[bytes]:
    """The request's body; asked for more once what it gave is with the network, but for what one buffer holds."""
    yield payload
    if not sent.done():
        sent.set_result(None)


async def _bounded(content: aiohttp.StreamReader) -> bytes | None:
    """The whole body; None where it is larger than Lambda takes."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > function_errors.ANSWER_BYTES_MAX:
            return None
    return bytes(body)
