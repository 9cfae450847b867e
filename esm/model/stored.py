"""Keys and values of the store."""

from dataclasses import dataclass

VALUE_BYTES_MAX = 350 * 1024
"""The largest value that a store takes: below the 400 KB of a DynamoDB item, keys and envelope included."""


@dataclass(frozen=True, slots=True)
class Key:
    """Where a value stands: `kind` and `owner` make the partition, `item` the place in it, in text order."""

    kind: str
    """lease, worker, share, catalogue, status, async, window."""
    owner: str
    item: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A value with the version that the next conditional write must name."""

    key: Key
    value: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a partition, in item order."""

    items: tuple[Stored, ...]
    after: str | None
    """Give this as `after` to read on; None at the end."""
