"""Which shards may be read yet: parents before children.

A shard may be read when each of its parents is finished, or gone: absent from a complete listing and confirmed so.
Followed by lineage alone, never by the clock. Source: lambda.md 3.2, 11.6; design section 6.
"""

from collections.abc import Iterable

from esm.model.position import Shard


class Lineage:
    """The shards of one stream as one mapping has to read them."""

    def __init__(self, finished: Iterable[str] = ()) -> None:
        self._shards: dict[str, Shard] = {}
        self._finished: set[str] = set(finished)
        self._gone: set[str] = set()
        self._listed: set[str] = set()

    def listed(self, shards: Iterable[Shard]) -> None:
        """A complete listing came in; shards that have left it are forgotten unless somebody still reads them."""
        listing = {shard.id: shard for shard in shards}
        self._listed = set(listing)
        self._shards.update(listing)

    def found(self, shards: Iterable[Shard]) -> None:
        """Children that the end of a shard, or a listing of children alone, announced."""
        for shard in shards:
            self._shards.setdefault(shard.id, shard)

    def finish(self, shard_id: str) -> None:
        """Everything in a shard is settled."""
        self._finished.add(shard_id)

    def reopen(self, finished: Iterable[str]) -> None:
        """Only these are finished: an operator has sent others back."""
        self._finished = set(finished)

    def ancestors(self, shard_id: str) -> set[str]:
        """The shards before a shard, as far as they are known."""
        found: set[str] = set()
        left = [shard_id]
        while left:
            shard = self._shards.get(left.pop())
            fresh = [parent for parent in shard.parents if parent not in found] if shard is not None else []
            found.update(fresh)
            left += fresh
        return found

    def gone(self, shard_id: str) -> None:
        """A shard that the listing lacks cannot be read any more."""
        self._gone.add(shard_id)

    def is_finished(self, shard_id: str) -> bool:
        """Whether a shard needs no reader."""
        return shard_id in self._finished or shard_id in self._gone

    def forgettable(self) -> list[str]:
        """Finished shards that the last listing lacks."""
        return sorted(shard for shard in self._finished if shard not in self._listed)

    def forget(self, shard_id: str) -> None:
        """A finished shard that nobody lists any more needs no memory."""
        self._shards.pop(shard_id, None)
        self._finished.discard(shard_id)

    def ready(self) -> list[Shard]:
        """Shards that may be read now, oldest name first."""
        return [shard for _, shard in sorted(self._shards.items()) if self._is_ready(shard)]

    def doubts(self) -> list[str]:
        """Parents that are neither listed nor finished: ask whether they exist, and say `gone` where they do not.

        One that exists is listed late; until it is, its own parents are not known, and it is not read.
        """
        absent = {
            parent
            for shard in self._shards.values()
            if not self.is_finished(shard.id)
            for parent in shard.parents
            if parent not in self._shards and not self.is_finished(parent)
        }
        return sorted(absent)

    def _is_ready(self, shard: Shard) -> bool:
        if self.is_finished(shard.id) or not all(self.is_finished(parent) for parent in shard.parents):
            return False
        return all(self.is_finished(one) for one in self.ancestors(shard.id) if one in self._shards)
