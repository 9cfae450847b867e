"""Keys and values of the store, and of what is too large for it."""

from dataclasses import dataclass
from hashlib import sha256

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


BLOB_BYTES_MAX = 250 * 1024 * 1024
"""The largest blob: what Lambda allows a function's code to have."""


@dataclass(frozen=True, slots=True)
class Blob:
    """The name of bytes that are too large for a store. It names what they belong to: no other item shares them."""

    owner: str
    """Of whose they are, such as an item's key: words between slashes."""
    sha256: str
    """Of the bytes, in lower-case hex digits."""
    size_bytes: int

    @classmethod
    def of(cls, owner: str, content: bytes) -> "Blob":
        """The name of some bytes."""
        return cls(owner, sha256(content).hexdigest(), len(content))


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a partition, in item order."""

    items: tuple[Stored, ...]
    after: str | None
    """Give this as `after` to read on; None at the end."""
