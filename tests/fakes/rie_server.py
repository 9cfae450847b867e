"""A server behind a function's URL, whatever its protocol, that does what a test says: byte by byte, on its own port.

It counts connections and requests, and notes how many it served at once.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Reply = Callable[["Call"], Awaitable[None]]


@dataclass
class Call:
    """One request as it came, and the way back."""

    line: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)


@dataclass
class RieServer:
    """What came in, and what is to be done with it."""

    reply: Reply
    calls: list[Call] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    at_once_most: int = 0
    port: int = 0
    tls: ssl.SSLContext | None = None
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            call = await self._read(reader, writer)
            self.calls.append(call)
            self.at_once += 1
            self.at_once_most = max(self.at_once, self.at_once_most)
            self.came.set()
            try:
                await self.reply(call)
                await writer.drain()
            finally:
                self.at_once -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Call:
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in fields)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Call(line, headers, body, writer)


@asynccontextmanager
async def rie_server(reply: Reply, *hosts: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[RieServer]:
    """A server that replies so to every request, on the same free port of each host (127.0.0.1)."""
    fake = RieServer(reply, tls=tls)
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(fake.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    servers = []
    for host in hosts or ("127.0.0.1",):
        server = await asyncio.start_server(accept, host, fake.port, ssl=tls)
        fake.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield fake
    finally:
        for server in servers:
            server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def answering(status: int, body: bytes = b"", **headers: str) -> Reply:
    """Always the same answer."""

    async def reply(call: Call) -> None:
        call.answer(status, body, **headers)

    return reply


def holding(until: asyncio.Event, status: int = 200, body: bytes = b"null") -> Reply:
    """The answer, once `until` is set."""

    async def reply(call: Call) -> None:
        await until.wait()
        call.answer(status, body)

    return reply
