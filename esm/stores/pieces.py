"""Bytes that come in pieces: into memory, or into a file that is there only when it is whole and what was put."""

import os
import secrets
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import anyio

from esm.errors import OperatorNeeded
from esm.model.stored import Blob

PIECE_BYTES = 4 * 1024 * 1024
PART = ".part-"
"""Within the name of a file that is being written."""

_MODE = 0o600


def check_content(blob: Blob, content: bytes) -> bytes:
    """The bytes. Raises: OperatorNeeded (they are not what was put)."""
    if len(content) != blob.size_bytes or sha256(content).hexdigest() != blob.sha256:
        raise _changed(blob)
    return content


async def pieces_of(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file. Raises: OSError."""
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE_BYTES):
            yield piece


async def write_whole(path: Path, pieces: AsyncIterator[bytes], blob: Blob) -> None:
    """Write a file, safe on the disk, in place of what is there. Raises: OperatorNeeded (other bytes), OSError."""
    part = path.with_name(f"{path.name}{PART}{secrets.token_hex(8)}")
    total, size_bytes = sha256(), 0
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        async with anyio.wrap_file(os.fdopen(descriptor, "wb")) as file:
            async for piece in pieces:
                total.update(piece)
                size_bytes += len(piece)
                await file.write(piece)
            await file.flush()
            await anyio.to_thread.run_sync(os.fsync, descriptor)
        if (size_bytes, total.hexdigest()) != (blob.size_bytes, blob.sha256):
            raise _changed(blob)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _changed(blob: Blob) -> OperatorNeeded:
    return OperatorNeeded(
        f"The blob of {blob.owner} is not what was put there ({blob.sha256}): it was changed by hand or cut off."
        " Restore it from a copy."
    )
