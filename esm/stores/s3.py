"""Blobs in an S3 bucket: one object each, `PREFIX/OWNER/SHA256`.

Law: an object is written whole or not at all, and never changed; so a call whose answer was lost is made again.
"""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import botocore.exceptions as boto
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from esm.aws import failures
from esm.aws.failures import code_behind
from esm.aws.sessions import Sessions
from esm.errors import EsmError, OperatorNeeded, Unavailable
from esm.model.stored import Blob
from esm.stores.limits import check_blob
from esm.stores.pieces import PIECE_BYTES, check_content, write_whole

IAM_ACTIONS = ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject")
"""The first on the bucket: without it a missing object looks like a forbidden one. For an encrypted bucket also
kms:GenerateDataKey and kms:Decrypt."""

RETRY_S = 4.0
"""How long a call is tried again while nothing answers."""

_MISSING = {"NoSuchKey", "404"}
_BREAKS = (*failures.NETWORK, boto.BotoCoreError)


class S3Blobs:
    """`Blobs` in a bucket. The sessions are its own."""

    def __init__(self, bucket: str, prefix: str, client: Any, sessions: Sessions) -> None:  # noqa: ANN401 - aiobotocore's
        self._bucket = bucket
        self._prefix = prefix
        self._client = client
        self._sessions = sessions

    @classmethod
    async def open(cls, bucket: str, prefix: str, sessions: Sessions) -> "S3Blobs":
        """Blobs in a bucket that is there. Raises: OperatorNeeded (no such bucket, permissions), Unavailable."""
        client = await sessions.client("s3")
        try:
            await sessions.control(client, "head_bucket", Bucket=bucket)
        except OperatorNeeded as error:
            raise OperatorNeeded(
                f"The bucket {bucket} cannot be used ({error}): make it in {sessions.region}, allow"
                f" {', '.join(IAM_ACTIONS)} on it and its objects, or name another (ESM_BLOBS)."
            ) from error
        return cls(bucket, prefix, client, sessions)

    async def put(self, blob: Blob, content: bytes | Path) -> None:
        """See `ports.Blobs`."""
        check_blob(blob)
        if isinstance(content, bytes):
            await self._call("put_object", blob, Body=content)
            return
        try:
            with content.open("rb") as file:
                await self._call("put_object", blob, Body=file)
        except OSError as error:
            raise Unavailable(f"The file {content} cannot be read ({error.strerror}).") from error

    async def get(self, blob: Blob) -> bytes | None:
        """See `ports.Blobs`."""
        async with self._body(blob) as pieces:
            if pieces is None:
                return None
            return check_content(blob, b"".join([piece async for piece in pieces]))

    async def fetch(self, blob: Blob, path: Path) -> bool:
        """See `ports.Blobs`."""
        async with self._body(blob) as pieces:
            if pieces is None:
                return False
            try:
                await write_whole(path, pieces, blob)
            except OSError as error:
                raise OperatorNeeded(f"The file {path} cannot be written ({error.strerror}).") from error
            return True

    async def delete(self, blob: Blob) -> None:
        """See `ports.Blobs`."""
        await self._call("delete_object", blob)

    async def aclose(self) -> None:
        """Close the sessions."""
        await self._sessions.aclose()

    @asynccontextmanager
    async def _body(self, blob: Blob) -> AsyncIterator[AsyncIterator[bytes] | None]:
        """The bytes in pieces, from a connection that is let go of at the end; None where there is no such blob."""
        answer = await self._call("get_object", blob)
        if answer is None:
            yield None
            return
        async with answer["Body"] as stream:
            yield _pieces(stream)

    async def _call(self, operation: str, blob: Blob, **parameters: object) -> dict[str, Any] | None:
        """The answer; None where there is no such object. Raises: Unavailable."""
        key = "/".join([part for part in (self._prefix, blob.owner, blob.sha256) if part])
        policy = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable), stop=stop_after_delay(RETRY_S),
            wait=wait_random_exponential(multiplier=0.1, max=1), reraise=True,
        )  # fmt: skip
        try:
            async for attempt in policy:
                with attempt:
                    if isinstance(body := parameters.get("Body"), io.IOBase):
                        body.seek(0)
                    return await self._sessions.call(
                        self._client, operation, Bucket=self._bucket, Key=key, **parameters
                    )  # fmt: skip
        except EsmError as error:
            if code_behind(error) in _MISSING:
                return None
            raise Unavailable(f"The bucket {self._bucket}: {error}") from error
        raise AssertionError("tenacity ends by a result or an error")


async def _pieces(stream: Any) -> AsyncIterator[bytes]:  # noqa: ANN401 - aiobotocore's
    """What comes over the wire. Raises: Unavailable (it breaks off)."""
    try:
        while piece := await stream.read(PIECE_BYTES):
            yield piece
    except _BREAKS as error:
        raise Unavailable(f"GetObject: the answer broke off: {type(error).__name__}: {error}") from error
