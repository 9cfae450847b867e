"""Answers of the Runtime API and of the Extensions API, and the reading of what is handed in."""

import json
import re
from collections.abc import AsyncIterator

from aiohttp import web

_OK = b'{"status":"OK"}\n'
_ERROR_TYPE = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]+")
ERROR_TYPE_LENGTH_MAX = 128


def accepted() -> web.Response:
    """202: what was handed in is taken."""
    return web.Response(body=_OK, status=202, content_type="application/json")


def refused(status: int, error_type: str, text: str) -> web.Response:
    """The error shape of both interfaces."""
    body = json.dumps({"errorMessage": text, "errorType": error_type}).encode()
    return web.Response(body=body, status=status, content_type="application/json")


def error_type(given: str | None, kind: str) -> str:
    """What a runtime calls its error, where it has Lambda's form; else `kind`.Unknown. Source: lambda.md 7.1."""
    return given if given is not None and _ERROR_TYPE.fullmatch(given) else f"{kind}.Unknown"


async def body_within(chunks: AsyncIterator[bytes], limit: int) -> bytes | None:
    """All of a body; None when it is above the limit: the rest is not kept."""
    kept: list[bytes] = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            return None
        kept.append(chunk)
    return b"".join(kept)
