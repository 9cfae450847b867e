"""The buckets of asynchronous events, and what the item looks like that says who owns them: under the laws of
`rules/kinds`.
"""

import zlib
from collections.abc import Sequence

import msgspec

from esm.rules.kinds import Kind, Shape

BUCKETS = 64

NOBODY = ("",) * BUCKETS


class _Document(msgspec.Struct):
    format: int
    owners: tuple[str, ...]


def bucket_of(request_id: str) -> int:
    """The bucket of an event where all are as good."""
    return zlib.crc32(request_id.encode()) % BUCKETS


def encode(owners: Sequence[str], write: int) -> bytes:
    """The item, in a format that readers of `write` know; `owners` by bucket, empty where nobody owns one."""
    return OWNERS.encode(tuple(owners), write)


def decode(value: bytes) -> tuple[str, ...]:
    """The owners in an item. Raises: StoreTooNew; OperatorNeeded where the value is none of ours."""
    return OWNERS.decode(value)


def _value(owners: tuple[str, ...]) -> bytes:
    return msgspec.json.encode(_Document(1, owners))


def _owners_of(value: bytes) -> tuple[str, ...]:
    owners = msgspec.json.decode(value, type=_Document).owners
    if len(owners) != BUCKETS:
        raise msgspec.ValidationError(f"{len(owners)} owners of {BUCKETS} buckets")
    return owners


OWNERS = Kind("list of bucket owners", {1: Shape(_value, _owners_of)})
