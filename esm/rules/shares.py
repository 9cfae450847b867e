"""How a bound on concurrency is divided over workers: of a queue's mapping, or a hosted function's reserved one.

Laws: the grants stand together in one item, and a write that would make their sum exceed the limit is never proposed,
so that the bound holds at every moment; a worker gives back before another takes: it lowers its own grant only to what
it does not use, and raises it only into what is free. Grants of the dead are free. Source: design section 6.
"""

from collections.abc import Collection, Mapping

import msgspec

from esm.rules.assignment import weight
from esm.rules.stored import FORMAT, check_format, unreadable


def fair(limit: int, workers: Collection[str], subject: str) -> dict[str, int]:
    """The limit in equal parts; what is left over goes by rendezvous hashing, so not always to the same."""
    if not workers:
        return {}
    part, left = divmod(limit, len(workers))
    favoured = sorted(workers, key=lambda worker: weight(worker, (subject, "")), reverse=True)[:left]
    return {worker: part + (worker in favoured) for worker in sorted(workers)}


def next_grants(
    grants: Mapping[str, int], live: Collection[str], sharers: Collection[str], limit: int, worker: str, in_use: int,
    subject: str,
) -> dict[str, int]:  # fmt: skip
    """The item as `worker` should write it now, itself live; equal to `grants` where nothing is to be done.

    It holds grants of live workers only; the limit is for those of them that are `sharers`, and one that leaves keeps
    what it uses to the end. `in_use` is what the worker uses at this moment: its own grant never falls
    below that, except where there has been none.
    """
    kept = {one: grant for one, grant in grants.items() if one in live and grant > 0}
    mine = kept.get(worker, 0)
    target = fair(limit, sharers, subject).get(worker, 0)
    others = sum(grant for one, grant in kept.items() if one != worker)
    granted = max(target, min(in_use, mine)) if mine > target else min(target, max(mine, limit - others))
    kept[worker] = granted
    return {one: grant for one, grant in kept.items() if grant > 0}


def usable(grants: Mapping[str, int], sharers: Collection[str], limit: int, worker: str, subject: str) -> int:
    """How much of its stored grant a worker may still take: when it has to shrink, it starts nothing above its part."""
    return min(grants.get(worker, 0), fair(limit, sharers, subject).get(worker, 0))


class _Document(msgspec.Struct):
    format: int
    grants: dict[str, int]


def encode(grants: Mapping[str, int]) -> bytes:
    """The item as the store keeps it."""
    return msgspec.json.encode(_Document(FORMAT, dict(grants)))


def decode(value: bytes) -> dict[str, int]:
    """The grants in an item. Raises: StoreTooNew; OperatorNeeded where the value is none of ours."""
    check_format(value, "share")
    try:
        return msgspec.json.decode(value, type=_Document).grants
    except msgspec.MsgspecError as error:
        raise unreadable("share", str(error)) from error
