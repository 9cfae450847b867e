"""The board of a worker: which shards need an owner, who has each, and who should.

Streams are balanced together, over all mappings: many streams of one shard each are spread as well as one stream of
many shards. The buckets of asynchronous events are a group of their own: they weigh nothing like a shard.
"""

from collections.abc import Iterable, Mapping

from esm.model.worker import ASYNC, Heartbeat
from esm.rules.assignment import Candidate, Shard, assignment

NOTHING: frozenset[str] = frozenset()


class Board:
    """What one worker sees. Two that see the same come to the same answer."""

    def __init__(self) -> None:
        self._owners: dict[str, Mapping[str, str]] = {}
        self._live: tuple[Heartbeat, ...] = ()
        self._chosen: dict[str, dict[str, frozenset[str]]] | None = None
        """Shards by worker and mapping; None: to be worked out."""

    def tell(self, uuid: str, owners: Mapping[str, str]) -> None:
        """The shards of a mapping that need an owner, with the one that each has or an empty name."""
        if self._owners.get(uuid) != owners:
            self._owners[uuid] = owners
            self._chosen = None

    def forget(self, uuid: str) -> None:
        """Nothing is known of a mapping any more."""
        if self._owners.pop(uuid, None) is not None:
            self._chosen = None

    def follow(self, live: Iterable[Heartbeat]) -> None:
        """These workers live."""
        self._live = tuple(live)
        self._chosen = None

    def should_own(self, worker: str, uuid: str) -> frozenset[str]:
        """The shards of a mapping that a worker should own."""
        if self._chosen is None:
            self._chosen = self._choose()
        return self._chosen.get(worker, {}).get(uuid, NOTHING)

    def owners(self, uuid: str) -> Mapping[str, str]:
        """What was told of a mapping."""
        return self._owners.get(uuid, {})

    def _choose(self) -> dict[str, dict[str, frozenset[str]]]:
        candidates = [
            Candidate(one.worker, frozenset(one.mappings)) for one in self._live if not one.is_leaving
        ]  # fmt: skip
        workers = {one.owner: one.worker for one in self._live}
        found: dict[str, dict[str, set[str]]] = {}
        for group in ({ASYNC} & self._owners.keys(), self._owners.keys() - {ASYNC}):
            owners_now: dict[Shard, str] = {
                (uuid, shard): workers.get(owner, "") for uuid in group for shard, owner in self._owners[uuid].items()
            }
            for (uuid, shard), worker in assignment(owners_now, owners_now, candidates).items():
                found.setdefault(worker, {}).setdefault(uuid, set()).add(shard)
        return {
            worker: {uuid: frozenset(shards) for uuid, shards in by_mapping.items()}
            for worker, by_mapping in found.items()
        }
