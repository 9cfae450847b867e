"""What must have held all the time, looked at when a play with several workers is over. Source: design section 8."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

from esm.model.lease import Lease
from esm.rules import stored
from tests.simulation.replicas import FleetPlay, place


def check(play: FleetPlay) -> None:
    """Order, positions, fences and retry budgets."""
    check_order(play)
    check_positions(play)
    check_attempts(play)


def check_order(play: FleetPlay) -> None:
    """Per key, records are first delivered in order."""
    for uuid in play.streams:
        seen: dict[str, list[int]] = defaultdict(list)
        written = play.streams[uuid].written
        for call in play.calls:
            for identity in call.ids if call.uuid == uuid else ():
                key = written[identity].key
                if identity not in seen[key]:
                    seen[key].append(identity)
        for key, ids in seen.items():
            assert ids == sorted(ids), f"key {key} of {uuid} was delivered as {ids}"


def leases(play: FleetPlay) -> dict[tuple[str, str], list[Lease]]:
    """Every lease as it was stored, one after the other."""
    return {
        (key.owner, key.item): [stored.decode_lease(value) for value in values]
        for key, values in play.world.store.history.items()
        if key.kind == "lease" and key.item[0] != "!"
    }


def check_positions(play: FleetPlay) -> None:
    """Positions never go back but by an order, and only the newest claim's owner writes them."""
    for shard, found in leases(play).items():
        for before, after in pairwise(found):
            assert after.generation in (before.generation, before.generation + 1), f"{shard}: {before} -> {after}"
            is_claim = after.generation > before.generation
            assert is_claim or after.owner in (before.owner, ""), f"{shard}: written by {after.owner}"
            assert not is_claim or after.owner, f"{shard}: claimed by nobody"
            if before.factor == after.factor and before.obeyed == after.obeyed:
                for old, new in zip(before.positions, after.positions, strict=True):
                    assert place(new) >= place(old), f"{shard}: {old} -> {new}"


def check_attempts(play: FleetPlay) -> None:
    """Within one tenure a piece without progress is tried `1 + MaximumRetryAttempts` times at most."""
    most = {mapping.uuid: mapping.retries_max for mapping in play.mappings}
    tries = Counter(
        (call.uuid, call.shard, call.lease.owner, call.lease.generation, call.term, tuple(call.ids))
        for call in play.calls
        if call.ran and call.ids and not call.succeeded
    )
    for piece, count in tries.items():
        limit = most[piece[0]]
        assert limit is None or limit < 0 or count <= 1 + limit, f"{piece} was tried {count} times"


def taken_again(play: FleetPlay, uuid: str) -> list[int]:
    """Records that were taken more than once."""
    times = Counter(identity for call in play.calls if call.uuid == uuid for identity in call.succeeded)
    return sorted(identity for identity, count in times.items() if count > 1)
