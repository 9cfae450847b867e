"""Which format is written: the newest that every live worker reads, so that a rollout may be rolled back at any time.

A next format is one more `Shape` in each kind that it changes; everything else follows from the tables here.
"""

from collections.abc import Iterable
from typing import Any

from esm.model.stored import Key
from esm.model.worker import ASYNC
from esm.rules import async_stored, buckets, controls, desired, heartbeats, listings, shares, starting, stored
from esm.rules.kinds import OLDEST, Kind
from esm.rules.starting import START_ITEM

KINDS: dict[str, tuple[Kind[Any], ...]] = {
    "lease": (starting.START, stored.LEASE, buckets.OWNERS),
    "window": (stored.STATE,),
    "status": (stored.STATUS,),
    "catalogue": (controls.CONTROL, desired.MAPPING),
    "worker": (controls.CHANGES, heartbeats.HEARTBEAT),
    "async": (async_stored.EVENT,),
    "listing": (listings.LISTING,),
    "share": (shares.SHARE,),
}
"""Everything that is encoded here, by the kind in its key."""


def newest() -> int:
    """The newest format that this version reads: what it announces in its heartbeat."""
    return max(kind.newest for kinds in KINDS.values() for kind in kinds)


def written(announced: Iterable[int]) -> int:
    """The format to write in, from what the live workers announce: one that all of them read."""
    return max(OLDEST, min((newest(), *announced)))


def may_be_newer(kind: str, write: int) -> bool:
    """Whether values with `kind` in their key may be in a format that readers of `write` do not know."""
    return any(one.newest > write for one in KINDS[kind])


def rewritten(key: Key, value: bytes, write: int) -> bytes | None:
    """A stored value as workers that read up to `write` know it; None where they know it as it is.

    Raises: StoreTooNew; OperatorNeeded where it is none of ours.
    """
    kind = _kind_at(key)
    return None if kind is None else kind.rewritten(value, write)


def _kind_at(key: Key) -> Kind[Any] | None:
    """What stands there; None: a name alone, or part of an asynchronous event, whose value says its format."""
    match key.kind:
        case "lease":
            if key.owner == ASYNC:
                return buckets.OWNERS
            return starting.START if key.item == START_ITEM else stored.LEASE
        case "catalogue":
            return desired.MAPPING if (key.kind, key.owner) == desired.MAPPINGS else controls.CONTROL
        case "worker":
            return controls.CHANGES if key.item.startswith("!") else heartbeats.HEARTBEAT
        case "async" if key.owner.endswith(async_stored.PARTS) or key.owner == async_stored.FUNCTIONS:
            return None
        case _:
            return KINDS[key.kind][0]
