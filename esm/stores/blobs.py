"""Blobs in memory, and in files beside a SQLite file. Those in S3 have a module of their own."""

import os
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import anyio

from esm.errors import OperatorNeeded, Unavailable
from esm.model.stored import Blob
from esm.stores.limits import check_blob
from esm.stores.pieces import PART, check_content, pieces_of, write_whole

_OLD_S = 3600.0
"""A file that was not finished within this time was left by a crash."""
_FOLDER_MODE = 0o700


class MemoryBlobs:
    """`Blobs` that end with the process."""

    def __init__(self) -> None:
        self._held: dict[Blob, bytes] = {}

    async def put(self, blob: Blob, content: bytes | Path) -> None:
        """See `ports.Blobs`."""
        check_blob(blob)
        if isinstance(content, Path):
            content = b"".join([piece async for piece in pieces_of(content)])
        self._held[blob] = check_content(blob, content)

    async def get(self, blob: Blob) -> bytes | None:
        """See `ports.Blobs`."""
        return self._held.get(blob)

    async def fetch(self, blob: Blob, path: Path) -> bool:
        """See `ports.Blobs`."""
        content = self._held.get(blob)
        if content is not None:
            await _into(path, _one(content), blob)
        return content is not None

    async def delete(self, blob: Blob) -> None:
        """See `ports.Blobs`."""
        self._held.pop(blob, None)

    async def aclose(self) -> None:
        """Nothing is held: what was put stays until the object itself is let go."""


class FileBlobs:
    """`Blobs` in a folder that is made when the first one comes, its files their owner's alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, blob: Blob, content: bytes | Path) -> None:
        """See `ports.Blobs`."""
        check_blob(blob)
        path = self._path(blob)
        try:
            if path.exists():
                return
            self._folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            self._clean()
            await write_whole(path, pieces_of(content) if isinstance(content, Path) else _one(content), blob)
            _sync(self._folder)
        except OSError as error:
            raise self._unavailable(error) from error

    async def get(self, blob: Blob) -> bytes | None:
        """See `ports.Blobs`."""
        try:
            content = await anyio.Path(self._path(blob)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from error
        return check_content(blob, content)

    async def fetch(self, blob: Blob, path: Path) -> bool:
        """See `ports.Blobs`."""
        own = self._path(blob)
        if not own.exists():
            return False
        await _into(path, pieces_of(own), blob)
        return True

    async def delete(self, blob: Blob) -> None:
        """See `ports.Blobs`."""
        try:
            self._path(blob).unlink(missing_ok=True)
        except OSError as error:
            raise self._unavailable(error) from error

    async def aclose(self) -> None:
        """Nothing is held."""

    def _path(self, blob: Blob) -> Path:
        return self._folder / f"{sha256(blob.owner.encode()).hexdigest()[:32]}-{blob.sha256}"

    def _clean(self) -> None:
        for path in self._folder.glob(f"*{PART}*"):
            if path.stat().st_mtime < time.time() - _OLD_S:
                path.unlink(missing_ok=True)

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(f"The folder {self._folder} cannot be used ({error.strerror}): look at its rights and disk.")


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _into(path: Path, pieces: AsyncIterator[bytes], blob: Blob) -> None:
    try:
        await write_whole(path, pieces, blob)
    except OSError as error:
        raise OperatorNeeded(f"The file {path} cannot be written ({error.strerror}).") from error


def _sync(folder: Path) -> None:
    """A file's name is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
