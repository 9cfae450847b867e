"""State that ends with the process: for tests, simulation and trials.

Law: no event loop's own calls, so that it runs on any; every method ends without waiting, so each is one step.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass, field

from esm.errors import Conflict
from esm.model.stored import Key, Page, Stored
from esm.stores.limits import check_value


@dataclass(slots=True)
class _Partition:
    items: list[str] = field(default_factory=list)
    """Sorted."""
    held: dict[str, Stored] = field(default_factory=dict)


class MemoryStore:
    """A `Store` in a dictionary. One counter gives every version, so none returns."""

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, str], _Partition] = {}
        self._version = 0

    async def get(self, key: Key) -> Stored | None:
        """See `ports.Store`."""
        return self._partition(key.kind, key.owner).held.get(key.item)

    async def scan(self, kind: str, owner: str, after: str | None = None, limit: int = 1000) -> Page:
        """See `ports.Store`."""
        partition = self._partition(kind, owner)
        first = 0 if after is None else bisect_right(partition.items, after)
        items = partition.items[first : first + limit]
        is_end = first + limit >= len(partition.items)
        return Page(tuple(partition.held[item] for item in items), None if is_end else items[-1])

    async def put(self, key: Key, value: bytes, expected_version: int | None) -> int:
        """See `ports.Store`."""
        check_value(key, value)
        partition = self._partition(key.kind, key.owner)
        _check_version(key, partition.held.get(key.item), expected_version)
        if expected_version is None:
            insort(partition.items, key.item)
        self._version += 1
        partition.held[key.item] = Stored(key, value, self._version)
        return self._version

    async def delete(self, key: Key, expected_version: int) -> None:
        """See `ports.Store`."""
        partition = self._partition(key.kind, key.owner)
        _check_version(key, partition.held.get(key.item), expected_version)
        del partition.held[key.item]
        partition.items.remove(key.item)

    async def aclose(self) -> None:
        """Nothing is held: what was stored stays until the store itself is let go."""

    def _partition(self, kind: str, owner: str) -> _Partition:
        return self._partitions.setdefault((kind, owner), _Partition())


def _check_version(key: Key, stored: Stored | None, expected_version: int | None) -> None:
    found = None if stored is None else stored.version
    if found != expected_version:
        raise Conflict(f"{key.kind} {key.item!r} has version {found}, expected was {expected_version}")
