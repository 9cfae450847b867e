"""Records -> the JSON event that the function sees. A join of bytes: nothing is parsed, nothing is printed again.

Source: lambda.md 2.1 and 3.3 (6 MB with its envelope).
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from esm.model.mapping import InvocationType

PAYLOAD_BYTES_MAX = 6_291_456
"""Bytes of a synchronous invocation's payload, envelope included."""

ASYNC_PAYLOAD_BYTES_MAX = 1_048_576
"""Likewise of an asynchronous one. Source: lambda.md 5."""

_HEAD = b'{"Records":['
_END = b"]"
_TAIL = b"}"
ENVELOPE_BYTES = len(_HEAD) + len(_END) + len(_TAIL)


def payload_bytes_max(invocation_type: InvocationType) -> int:
    """The most that an invocation of this type takes."""
    return ASYNC_PAYLOAD_BYTES_MAX if invocation_type is InvocationType.EVENT else PAYLOAD_BYTES_MAX


class HasEvent(Protocol):
    """A record or a message."""

    @property
    def event(self) -> bytes:
        """Its element of `"Records"`."""
        ...


def payload(records: Iterable[HasEvent], members: bytes = b"") -> bytes:
    """The event of a batch; `members` follow `"Records"`, each with the comma before it."""
    return b"".join((_HEAD, b",".join([record.event for record in records]), _END, members, _TAIL))


def payload_bytes(records: Sequence[HasEvent], members: bytes = b"") -> int:
    """The length of `payload(records, members)`, without making it."""
    return ENVELOPE_BYTES + sum([len(record.event) for record in records]) + max(0, len(records) - 1) + len(members)
