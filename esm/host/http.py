"""Requests of one connection of the Runtime API: HTTP/1.1, strict and bounded. Only what runtime clients send.

Written here because it is on the path of every invocation; answers are small and fixed.
"""

import asyncio
from dataclasses import dataclass

HEAD_BYTES_MAX = 2 * 1024 * 1024
"""Request line and headers: an X-Ray cause may be 1 MB."""

BODY_BYTES_MAX = 6_291_556
"""Largest answer of a function. Source: lambda.md 6."""


class Malformed(Exception):
    """The peer does not speak HTTP/1.1: the connection is closed with 400."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes | None
    """None: longer than `BODY_BYTES_MAX`, read and thrown away."""


async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request; None at the end of the connection. Raises: Malformed, ConnectionError."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Malformed("the connection ended inside a request") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise Malformed("the headers are too long") from error
    method, path, headers = _head(head)
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        body = await _body(reader, headers)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Malformed("the connection ended inside a body") from error
    return Request(method, path, headers, body)


def response(status: str, body: bytes = b'{"status":"OK"}', headers: bytes = b"") -> bytes:
    """A whole answer; `headers` are lines with their ends."""
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status.encode(), headers, len(body), body,
    )  # fmt: skip


def _head(head: bytes) -> tuple[str, str, dict[str, str]]:
    try:
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, path, version = first.split(" ")
    except ValueError as error:
        raise Malformed("the request line is none") from error
    if version not in {"HTTP/1.1", "HTTP/1.0"} or not path.startswith("/"):
        raise Malformed("the request line is none")
    headers: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if not separator or not name or name != name.strip():
            raise Malformed("a header is none")
        headers[name.lower()] = value.strip()
    return method, path, headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes | None:
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise Malformed("the body's length is unclear")
        return await _chunks(reader)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > 12:  # noqa: PLR2004 - no body is that long
        raise Malformed("the body's length is none")
    if int(length) > BODY_BYTES_MAX:
        await _skip(reader, int(length))
        return None
    return await reader.readexactly(int(length))


async def _chunks(reader: asyncio.StreamReader) -> bytes | None:
    parts: list[bytes] = []
    total = 0
    while True:
        line = (await reader.readuntil(b"\r\n"))[:-2].split(b";", 1)[0].strip()
        try:
            size = int(line, 16) if line.isalnum() else -1
        except ValueError as error:
            raise Malformed("a chunk's length is none") from error
        if not 0 <= size < 1 << 40:
            raise Malformed("a chunk's length is none")
        if size == 0:
            break
        total += size
        if total > BODY_BYTES_MAX:
            parts.clear()
            await _skip(reader, size)
        else:
            parts.append(await reader.readexactly(size))
        if await reader.readexactly(2) != b"\r\n":
            raise Malformed("a chunk does not end")
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(parts) if total <= BODY_BYTES_MAX else None


async def _skip(reader: asyncio.StreamReader, size: int) -> None:
    while size:
        piece = await reader.read(min(size, 65_536))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(piece)
