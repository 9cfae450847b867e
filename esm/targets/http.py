"""A function behind HTTP that speaks the Runtime Interface Emulator's protocol (`rie`).

Law: one invocation at a time on each address, also when its caller has gone: an address is free again once its server
has answered or closed. What fails before the whole request was handed to the network never ran; what fails later may
have run, and counts.

A connection serves one invocation. One that is kept may have been closed by its server just when it is used again,
and that cannot be told from a function that died. A new one costs 0.4 ms on loopback, and spreads invocations over
whatever stands behind a single address.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from yarl import URL

from esm.aws.sessions import keepalive_socket
from esm.errors import Unavailable
from esm.model.function import FunctionFacts, UrlFunction
from esm.model.invocation import Ending, Invocation, Misconfigured, Throttled, Unreachable
from esm.targets import function_errors, rie
from esm.targets.addresses import Addresses
from esm.telemetry import Telemetry

_INVOKE_PATH = re.compile(r"/2015-03-31/functions/[^/]+/invocations")
_CONNECT_WITHIN_S = 10.0
_SEND_WITHIN_S = 60.0
"""From the start of the connection to the last byte of the request, 6 MB at most."""
_GRACE_S = 1.0
"""How long after its timeout the function's own answer is waited for."""
_RUN_S_MAX = 900.0
"""The longest that any function runs: after it, an address whose server stays silent is used again."""


class HttpFunction:
    """A `Target` for a `UrlFunction`."""

    def __init__(self, function: UrlFunction, telemetry: Telemetry) -> None:
        url = URL(function.url)
        self._url = url if _INVOKE_PATH.fullmatch(url.path) else url.with_path(url.path.rstrip("/") + rie.PATH)
        self._function = function
        self._telemetry = telemetry
        self._addresses = Addresses(url.host or "", url.port or 80)
        self._exchanges: set[asyncio.Task[Ending]] = set()
        self._session: aiohttp.ClientSession | None = None

    @property
    def concurrency(self) -> int | None:
        """One for each address of the host, at least 1; may change while the daemon runs."""
        return max(1, self._addresses.count)

    async def facts(self) -> FunctionFacts:
        """As configured. Raises: Unavailable where the host has no address."""
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

        Cancelled: what was not sent yet never runs; what runs goes on and keeps its address until it ends.
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
            if not sent.done():
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
        request_id = invocation.request_id
        try:
            async with self._open_session().post(
                self._url.with_host(address),
                data=_body(invocation.payload, sent),
                headers=self._headers(invocation),
                allow_redirects=False,
                server_hostname=self._url.host,
            ) as response:
                body = await _bounded(response.content)
                if body is None:
                    return function_errors.too_large(request_id)
                return rie.ending(request_id, self._function.timeout_s, response.status, response.headers, body)
        except aiohttp.ClientResponseError as error:
            text = f"The function's URL answers what is not HTTP ({error.message}): see that it names an rie server."
            return Misconfigured(request_id, text)
        except (aiohttp.ClientError, OSError) as error:
            if sent.done():
                return function_errors.exited(request_id)
            self._addresses.doubt()
            return Unreachable(request_id, f"The function cannot be reached: {error or type(error).__name__}.")

    def _headers(self, invocation: Invocation) -> dict[str, str]:
        deadline_ms = int((time.time() + self._function.timeout_s) * 1000)
        headers = {
            "Host": self._url.host_port_subcomponent or "",
            "Content-Type": "application/json",
            "Content-Length": str(len(invocation.payload)),
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": str(invocation.function_arn),
        }
        return headers if invocation.trace is None else {**headers, "X-Amzn-Trace-Id": invocation.trace}

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0, socket_factory=keepalive_socket),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_WITHIN_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
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
