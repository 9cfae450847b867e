"""What a shared listing of shards looks like in the store, in parts that it takes, under the laws of `rules/kinds`."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from esm.model.position import Shard
from esm.rules.kinds import Kind, Shape

PART_SHARDS = 1_500
"""Shards of one part: ids and parents of DynamoDB shards take 200 bytes."""


@dataclass(frozen=True, slots=True)
class SharedListing:
    """A complete listing."""

    author: str
    """Owner name of the worker that has asked the source."""
    identity: str
    retention_s: float
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class ListingPart:
    """One stored part of a listing."""

    author: str
    identity: str
    retention_s: float
    part: int
    parts: int
    total: int
    """Shards of all parts: those of two listings do not go together."""
    shards: tuple[tuple[str, tuple[str, ...], bool], ...]


class _Document(msgspec.Struct):
    format: int
    author: str
    identity: str
    retention_s: float
    part: int
    parts: int
    total: int
    shards: tuple[tuple[str, tuple[str, ...], bool], ...]


def encode(listing: SharedListing, write: int) -> list[bytes]:
    """The parts of a listing, in a format that readers of `write` know; one at least."""
    entries = tuple([(shard.id, shard.parents, shard.is_closed) for shard in listing.shards])
    chunks = [entries[at : at + PART_SHARDS] for at in range(0, len(entries), PART_SHARDS)] or [()]
    author, identity, retention_s = listing.author, listing.identity, listing.retention_s
    found = [
        ListingPart(author, identity, retention_s, part, len(chunks), len(entries), chunk)
        for part, chunk in enumerate(chunks)
    ]
    return [LISTING.encode(part, write) for part in found]


def decode(values: Sequence[bytes]) -> SharedListing | None:
    """The listing in `values`, which may have more parts than it; None where parts are missing or do not go together.

    Raises: StoreTooNew; OperatorNeeded where a value is none of ours.
    """
    documents = [LISTING.decode(value) for value in values]
    if not documents:
        return None
    first = documents[0]
    parts = documents[: first.parts]
    shards = tuple([Shard(*entry) for document in parts for entry in document.shards])
    heads = {(one.author, one.identity, one.parts, one.total) for one in parts}
    if len(parts) < first.parts or len(heads) > 1 or len(shards) != first.total:
        return None
    return SharedListing(first.author, first.identity, first.retention_s, shards)


def _value(part: ListingPart) -> bytes:
    return msgspec.json.encode(
        _Document(1, part.author, part.identity, part.retention_s, part.part, part.parts, part.total, part.shards)
    )


def _part_of(value: bytes) -> ListingPart:
    found = msgspec.json.decode(value, type=_Document)
    return ListingPart(
        found.author, found.identity, found.retention_s, found.part, found.parts, found.total, found.shards
    )  # fmt: skip


LISTING = Kind("listing", {1: Shape(_value, _part_of)})
