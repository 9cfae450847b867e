"""Listing: the shards of one stream. One worker asks the source, and shares the answer with the others.

Law: a shared answer counts only while its author is the one who lists: what an earlier one left may be old.
"""

from esm.errors import Conflict, EsmError
from esm.model.mapping import Mapping
from esm.model.position import Shard, StreamFacts
from esm.model.stored import Key
from esm.ports import StreamSource
from esm.rules import listings
from esm.rules.listings import SharedListing
from esm.runtime.surroundings import Surroundings

KIND = "listing"


class Listing:
    """What is known of the shards of one mapping's stream."""

    def __init__(self, around: Surroundings, mapping: Mapping, source: StreamSource) -> None:
        self._around = around
        self._uuid = mapping.uuid
        self._source = source

    async def look(self) -> tuple[StreamFacts, list[Shard]]:
        """Facts and shards of the stream: asked for here, or by the worker who asks for all.

        Raises: OperatorNeeded, Unavailable, StoreTooNew.
        """
        members = self._around.members
        shared = None if members.lists(self._uuid) else await self._read()
        if shared is not None and members.is_lister(self._uuid, shared.author):
            members.listed(self._uuid, is_able=True)
            return StreamFacts(shared.identity, shared.retention_s), list(shared.shards)
        try:
            facts, shards = await self._source.facts(), await self._source.shards()
        except EsmError:
            members.listed(self._uuid, is_able=False)
            raise
        members.listed(self._uuid, is_able=True)
        if members.lists(self._uuid) and len(members.peers(self._uuid)) > 1:
            await self._share(SharedListing(members.owner, facts.identity, facts.retention_s, tuple(shards)))
        return facts, shards

    async def _read(self) -> SharedListing | None:
        """What was shared last; None where that is nothing yet, or half of it."""
        values: list[bytes] = []
        after: str | None = None
        while True:
            page = await self._around.store.scan(KIND, self._uuid, after)
            values += [item.value for item in page.items]
            after = page.after
            if after is None:
                break
        return listings.decode(values)

    async def _share(self, listing: SharedListing) -> None:
        """Write what is not written already: another worker may have listed meanwhile. Raises: Unavailable."""
        if listing == await self._read():
            return
        for number, value in enumerate(listings.encode(listing)):
            await self._put(Key(KIND, self._uuid, f"{number:04d}"), value)
        self._around.members.moved(self._uuid)

    async def _put(self, key: Key, value: bytes) -> None:
        while True:
            item = await self._around.store.get(key)
            try:
                await self._around.store.put(key, value, item.version if item is not None else None)
            except Conflict:
                continue
            return
