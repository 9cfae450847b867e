"""Who should own which shard: the same answer at every worker that sees the same leases and the same live workers.

Laws: an owner keeps what it holds, up to the cap; a shard without an owner, or above its owner's cap, goes by
rendezvous hashing to the best worker below the cap that knows its mapping; so a worker that joins takes only its share,
one that leaves moves only what it held, and nothing else moves. Only workers that know a mapping are candidates for it:
where they are all full, the one with the least takes it. Source: design section 6.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

Shard = tuple[str, str]
"""Mapping (UUID) and shard id."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live worker."""

    worker: str
    mappings: frozenset[str]
    """UUIDs of the mappings that it can run."""


def assignment(
    shards: Iterable[Shard], owners_now: Mapping[Shard, str], workers: Iterable[Candidate]
) -> dict[Shard, str]:
    """The worker that should own each shard; a shard that no live worker knows is left out.

    `owners_now` may name dead workers, and shards that are not asked for: both count for nothing.
    """
    known = {one.worker: one.mappings for one in workers}
    wanted = sorted(set(shards))
    possible = {shard: [worker for worker in sorted(known) if shard[0] in known[worker]] for shard in wanted}
    useful = {worker for workers in possible.values() for worker in workers}
    cap = -(-sum(1 for shard in wanted if possible[shard]) // len(useful)) if useful else 0
    chosen: dict[Shard, str] = {}
    load = dict.fromkeys(known, 0)
    for count in sorted({len(workers) for workers in possible.values() if workers}):  # who has least choice comes first
        group = [shard for shard in wanted if len(possible[shard]) == count]
        group.sort(key=lambda one: _keeping_order(one, owners_now.get(one, "")))
        for is_full in (False, True):
            for shard in (one for one in group if one not in chosen):
                owner = owners_now.get(shard)
                bound = 1 + min(load[one] for one in possible[shard]) if is_full else cap
                if owner in possible[shard] and load[owner] < bound:
                    chosen[shard] = owner
                    load[owner] += 1
        for shard in sorted(one for one in group if one not in chosen):
            chosen[shard] = best = _best(shard, possible[shard], load, cap)
            load[best] += 1
    return chosen


def weight(worker: str, shard: Shard) -> bytes:
    """How well a worker suits a shard: the highest has it. Evenly spread, and the same everywhere."""
    text = "\0".join((worker, *shard)).encode()
    return blake2b(text, digest_size=8).digest()


def _keeping_order(shard: Shard, owner: str) -> tuple[int, ...]:
    """What suits its owner best is kept first, so that everybody gives away the same."""
    return tuple(255 - byte for byte in weight(owner, shard))


def _best(shard: Shard, possible: list[str], load: Mapping[str, int], cap: int) -> str:
    below = [worker for worker in possible if load[worker] < cap]
    if below:
        return max(below, key=lambda worker: weight(worker, shard))
    least = min(load[worker] for worker in possible)
    return max((worker for worker in possible if load[worker] == least), key=lambda worker: weight(worker, shard))
