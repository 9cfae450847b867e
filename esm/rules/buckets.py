"""The buckets of asynchronous events, and what the item looks like that says who owns them: JSON with a `format`."""

import zlib
from collections.abc import Sequence

import msgspec

from esm.rules.stored import FORMAT, check_format, unreadable

BUCKETS = 64

NOBODY = ("",) * BUCKETS


class _Document(msgspec.Struct):
    format: int
    owners: tuple[str, ...]


def bucket_of(request_id: str) -> int:
    """The bucket of an event where all are as good."""
    return zlib.crc32(request_id.encode()) % BUCKETS


def encode(owners: Sequence[str]) -> bytes:
    """The item; `owners` by bucket, empty where nobody owns one."""
    return msgspec.json.encode(_Document(FORMAT, tuple(owners)))


def decode(value: bytes) -> tuple[str, ...]:
    """The owners in an item. Raises: StoreTooNew; OperatorNeeded where the value is none of ours."""
    check_format(value, "owners of buckets")
    try:
        owners = msgspec.json.decode(value, type=_Document).owners
    except msgspec.MsgspecError as error:
        raise unreadable("owners of buckets", str(error)) from error
    if len(owners) != BUCKETS:
        raise unreadable("owners of buckets", f"{len(owners)} owners of {BUCKETS} buckets")
    return owners
