"""What an operator's orders mean for leases, lineage and beginnings.

Laws: an order is carried out once for each shard: the lease that it changes names it, in the same conditional write.
The lanes of a shard go back together, to one place, so that order per key holds. Only `latest`, which says so, and a
skip, which leaves a notice, move a shard forward; any other order leaves what has not been taken yet in front of it.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from esm.errors import RequestRefused
from esm.model.control import Control, Order, Rewind, Skip
from esm.model.lease import Lease
from esm.model.position import AfterSequence, AtSequence, AtTimestamp, Position, TrimHorizon
from esm.rules.progress import is_at_or_before, lowest

ORDERS_MAX = 100
"""Orders of one mapping that may wait to be carried out: more than these nobody watches."""


def concerns(order: Order, shard: str) -> bool:
    """Whether an order is for a shard."""
    return order.shard is None or order.shard == shard


def pending(lease: Lease, orders: Iterable[Order]) -> list[Order]:
    """The orders that a lease has not followed yet, oldest first."""
    return [
        order
        for order in orders
        if order.number > lease.obeyed and order.stream == lease.stream and concerns(order, lease.shard)
    ]


def reopens(lease: Lease, orders: Iterable[Order]) -> bool:
    """Whether a finished shard is to be read again. What is finished lies before any `latest`."""
    return any(isinstance(order, Rewind) and not order.is_latest for order in pending(lease, orders))


def first_position(
    shard: str, stream: str, orders: Sequence[Order], otherwise: Position, *, is_left_out: bool = False
) -> tuple[Position, int]:
    """Where a shard without a lease begins, and the number of the last order that it has followed by that.

    `otherwise`: where the mapping's own beginning puts it; `is_left_out`: it would not be read at all.
    """
    lease = Lease("", shard, stream, "", 0, 1, (otherwise,), is_finished=is_left_out)
    for order in _whole(stream, orders):
        lease = rewound(lease, order)
    return lease.positions[0], lease.obeyed


def finished(
    leases: Iterable[Lease], left_out: Iterable[str], stream: str, orders: Sequence[Order], listed: Container[str]
) -> list[str]:
    """The shards that need no reader: finished ones, unless an order reopens them and the source still lists them.

    `left_out` are shards that the mapping's own beginning passes over.
    """
    by_shard = {lease.shard: lease for lease in leases}
    found = [
        lease.shard
        for lease in by_shard.values()
        if lease.is_finished and not (lease.shard in listed and reopens(lease, orders))
    ]
    if any(not order.is_latest for order in _whole(stream, orders)):
        return found
    return found + [shard for shard in left_out if shard not in by_shard]


def rewound(lease: Lease, order: Rewind) -> Lease:
    """The lease once it has followed a rewind: its lanes at one place, its tumbling window dropped if they moved."""
    if order.is_latest:
        positions = tuple([position if _is_past(position, order.to) else order.to for position in lease.positions])
        positions = lease.positions if lease.is_finished else positions
    else:
        positions = (_target(lease, order.to),) * lease.factor
    has_moved = positions != lease.positions
    return replace(
        lease,
        positions=positions,
        window=None if has_moved else lease.window,
        done=lease.done if order.is_latest else (),
        is_finished=lease.is_finished and order.is_latest,
        obeyed=order.number,
    )


def skipped(lease: Lease, order: Skip, last: AfterSequence | None) -> Lease:
    """The lease once it has followed a skip to `last`; None: the shard has no such record, and nothing moves.

    An open tumbling window stays open: its state holds what was taken.
    """
    if last is None:
        return replace(lease, obeyed=order.number)
    positions = tuple(
        [position if is_at_or_before(last.sequence, position) else last for position in lease.positions]
    )  # fmt: skip
    return replace(lease, positions=positions, obeyed=order.number)


def with_order(control: Control, order: Order, leases: Sequence[Lease]) -> Control:
    """The control with one order more, without those that move nothing any more.

    Raises: RequestRefused where too many wait.
    """
    bases = _beginnings(order.stream, control.orders)
    kept = [one for one in control.orders if one in bases or any(pending(lease, [one]) for lease in leases)]
    if len(kept) >= ORDERS_MAX:
        raise RequestRefused(
            f"{len(kept)} orders of mapping {control.mapping} wait already: they are carried out once a daemon runs"
            " the mapping. Start it, or look at its problem with `esm status`."
        )
    return replace(control, orders=(*kept, order), last_number=order.number)


def _beginnings(stream: str, orders: Sequence[Order]) -> list[Rewind]:
    """The orders that decide where a shard without a lease begins: two at most."""
    whole = _whole(stream, orders)
    absolute = [number for number, one in enumerate(whole) if one.is_latest or isinstance(one.to, TrimHorizon)]
    base = absolute[-1] if absolute else 0
    back = [one for one in whole[base:] if not one.is_latest and isinstance(one.to, AtTimestamp)]
    earliest = min(back, key=lambda one: one.to.at if isinstance(one.to, AtTimestamp) else 0.0, default=None)
    return [one for number, one in enumerate(whole) if one is earliest or (absolute and number == base)]


def _whole(stream: str, orders: Iterable[Order]) -> list[Rewind]:
    """The rewinds of all shards, oldest first."""
    return [
        order for order in orders if isinstance(order, Rewind) and order.shard is None and order.stream == stream
    ]  # fmt: skip


def _target(lease: Lease, to: Position) -> Position:
    """Where all lanes go: to `to`, or no further than to what has not been taken yet."""
    behind = lowest(lease.positions)
    if lease.is_finished:
        return to
    is_before = _is_before(behind, to)
    if is_before is None:
        return TrimHorizon()
    return behind if is_before else to


def _is_before(position: Position, to: Position) -> bool | None:
    """Whether a shard stands before a place; None: the two cannot be compared."""
    match position, to:
        case TrimHorizon(), _:
            return True
        case _, TrimHorizon():
            return False
        case AtTimestamp(at), AtTimestamp(to_at):
            return at < to_at
        case AfterSequence(_, arrived_at), AtTimestamp(to_at):
            return arrived_at < to_at
        case ((AfterSequence(sequence) | AtSequence(sequence)), AtSequence(to_sequence)):
            return int(sequence) < int(to_sequence)
        case _:
            return None


def _is_past(position: Position, to: Position) -> bool:
    """Whether a lane is at or behind the moment of a `latest` already."""
    assert isinstance(to, AtTimestamp)
    match position:
        case AfterSequence(_, arrived_at):
            return arrived_at >= to.at
        case AtTimestamp(at):
            return at >= to.at
        case _:
            return False
