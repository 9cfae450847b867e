"""An answer in pieces, as `application/vnd.amazon.eventstream`.

Law: it begins with its first event, so that what fails before is an ordinary error. Whoever sends never learns that the
client has gone: the function runs to its end either way.
Source: AWS's description of the event stream encoding; the test reads it with botocore's own decoder.
"""

import contextlib
import struct
import zlib
from collections.abc import Mapping as Table

from aiohttp import web

CONTENT_TYPE = "application/vnd.amazon.eventstream"
CHUNK_BYTES = 128 * 1024
"""Of one event's payload: a larger piece becomes several."""
_STRING = 7
_OVERHEAD_BYTES = 16


def encoded(event: str, payload: bytes, content_type: str) -> bytes:
    """One event."""
    headers = b"".join(
        _header(name, value)
        for name, value in ((":event-type", event), (":content-type", content_type), (":message-type", "event"))
    )
    prelude = struct.pack("!II", _OVERHEAD_BYTES + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack("!I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(value)) + value.encode()


class EventStream:
    """The answer to one request, if it is given in pieces."""

    def __init__(self, request: web.BaseRequest, headers: Table[str, str]) -> None:
        """`headers` go out with the first event, unless `headers` is changed before."""
        self._request = request
        self.headers = dict(headers)
        self.response: web.StreamResponse | None = None
        """Once an event was sent."""

    async def send(self, event: str, payload: bytes, content_type: str = "application/octet-stream") -> None:
        """Send an event, a large one in several; waits while the client is slow, and does nothing once it has gone."""
        with contextlib.suppress(ConnectionError):
            if self.response is None:
                self.response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE, **self.headers})
                await self.response.prepare(self._request)
            for at in range(0, len(payload), CHUNK_BYTES) if payload else (0,):
                await self.response.write(encoded(event, payload[at : at + CHUNK_BYTES], content_type))

    async def end(self) -> None:
        """Nothing more comes."""
        assert self.response is not None
        with contextlib.suppress(ConnectionError):
            await self.response.write_eof()
