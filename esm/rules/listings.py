"""What a shared listing of shards looks like in the store: JSON with a `format`, in parts that a store takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from esm.model.position import Shard
from esm.rules.stored import FORMAT, check_format, unreadable

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


class _Document(msgspec.Struct):
    format: int
    author: str
    identity: str
    retention_s: float
    part: int
    parts: int
    total: int
    """Shards of all parts: those of two listings do not go together."""
    shards: list[tuple[str, tuple[str, ...], bool]]


def encode(listing: SharedListing) -> list[bytes]:
    """The parts of a listing; one at least."""
    entries = [(shard.id, shard.parents, shard.is_closed) for shard in listing.shards]
    chunks = [entries[at : at + PART_SHARDS] for at in range(0, len(entries), PART_SHARDS)] or [[]]
    return [
        msgspec.json.encode(
            _Document(
                FORMAT, listing.author, listing.identity, listing.retention_s, part, len(chunks), len(entries), chunk
            )
        )
        for part, chunk in enumerate(chunks)
    ]


def decode(values: Sequence[bytes]) -> SharedListing | None:
    """The listing in `values`, which may have more parts than it; None where parts are missing or do not go together.

    Raises: StoreTooNew; OperatorNeeded where a value is none of ours.
    """
    documents: list[_Document] = []
    for value in values:
        check_format(value, "listing")
        try:
            documents.append(msgspec.json.decode(value, type=_Document))
        except msgspec.MsgspecError as error:
            raise unreadable("listing", str(error)) from error
    if not documents:
        return None
    first = documents[0]
    parts = documents[: first.parts]
    shards = tuple([Shard(*entry) for document in parts for entry in document.shards])
    heads = {(one.author, one.identity, one.parts, one.total) for one in parts}
    if len(parts) < first.parts or len(heads) > 1 or len(shards) != first.total:
        return None
    return SharedListing(first.author, first.identity, first.retention_s, shards)
