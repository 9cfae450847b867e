"""How a bound on concurrency is divided over workers: of a queue's mapping, or a hosted function's reserved one.

Laws: the grants stand together in one item, and a write that would make their sum exceed the limit is never proposed,
so that the bound holds at every moment; a worker gives back before another takes: it lowers its own grant only to what
it does not use, and raises it only into what is free. Grants of the dead are free. Where there are fewer places than
workers, they go round: whoever has waited for one lets the next turn begin. Source: design section 6.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from esm.rules.assignment import weight
from esm.rules.kinds import Kind, Shape


@dataclass(frozen=True, slots=True)
class Grants:
    """The item of one subject."""

    by_worker: Mapping[str, int] = field(default_factory=dict)
    turn: int = 0
    """Moves what is left over to the next workers."""


def fair(limit: int, workers: Collection[str], subject: str, turn: int = 0) -> dict[str, int]:
    """The limit in equal parts; what is left over goes by rendezvous hashing, so not always to the same, and round by
    `turn`: within as many turns as there are workers everybody has had some of it.
    """
    if not workers:
        return {}
    part, left = divmod(limit, len(workers))
    order = sorted(workers, key=lambda worker: weight(worker, (subject, "")), reverse=True)
    first = turn * left % len(order)
    favoured = set([*order, *order][first : first + left])
    return {worker: part + (worker in favoured) for worker in sorted(workers)}


def next_grants(
    grants: Mapping[str, int], live: Collection[str], sharers: Collection[str], limit: int, worker: str, in_use: int,
    subject: str, turn: int = 0,
) -> dict[str, int]:  # fmt: skip
    """The item as `worker` should write it now, itself live; equal to `grants` where nothing is to be done.

    It holds grants of live workers only; the limit is for those of them that are `sharers`, and one that leaves keeps
    what it uses to the end. `in_use` is what the worker uses at this moment: its own grant never falls
    below that, except where there has been none.
    """
    kept = {one: grant for one, grant in grants.items() if one in live and grant > 0}
    mine = kept.get(worker, 0)
    target = fair(limit, sharers, subject, turn).get(worker, 0)
    others = sum(grant for one, grant in kept.items() if one != worker)
    granted = max(target, min(in_use, mine)) if mine > target else min(target, max(mine, limit - others))
    kept[worker] = granted
    return {one: grant for one, grant in kept.items() if grant > 0}


def usable(grants: Grants, sharers: Collection[str], limit: int, worker: str, subject: str) -> int:
    """How much of its stored grant a worker may still take: when it has to shrink, it starts nothing above its part."""
    return min(grants.by_worker.get(worker, 0), fair(limit, sharers, subject, grants.turn).get(worker, 0))


FUNCTION = "function:"
"""How subjects begin that are functions: a worker that drains still runs what it has received, and keeps its part."""

PARTITION = ("share", "fleet")
"""Kind and owner of the grants; the item is their subject."""


class _Document(msgspec.Struct):
    format: int
    grants: dict[str, int]
    turn: int = 0


def encode(grants: Grants, write: int) -> bytes:
    """The item as the store keeps it, in a format that readers of `write` know."""
    return SHARE.encode(grants, write)


def decode(value: bytes) -> Grants:
    """The grants in an item. Raises: StoreTooNew; OperatorNeeded where the value is none of ours."""
    return SHARE.decode(value)


def _value(grants: Grants) -> bytes:
    return msgspec.json.encode(_Document(1, dict(grants.by_worker), grants.turn))


def _grants_of(value: bytes) -> Grants:
    document = msgspec.json.decode(value, type=_Document)
    return Grants(document.grants, document.turn)


SHARE = Kind("share", {1: Shape(_value, _grants_of)})
