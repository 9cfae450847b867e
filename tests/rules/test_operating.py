"""What orders mean, held against a model: a shard as a list of records, a position as the set of those before it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import RequestRefused
from esm.model.clocks import UnixTime
from esm.model.control import Caller, Control, Order, Rewind, Skip
from esm.model.lease import Lease
from esm.model.position import AfterSequence, AtSequence, AtTimestamp, Position, Shard, TrimHorizon
from esm.model.window import StoredState
from esm.rules import operating
from esm.rules.lineage import Lineage

BY = Caller("host", "user")
COUNT = 12
ARRIVALS = [UnixTime(10.0 * (number // 2)) for number in range(COUNT)]
"""Of record `number`, whose sequence number is `number`; two arrive at a time."""
ALL = set(range(COUNT))
BEGAN_AT = UnixTime(30.0)
"""When the mapping was made."""

instants = st.integers(0, COUNT * 5).map(lambda at: UnixTime(float(at)))
numbers = st.integers(0, COUNT - 1)
sent_to = st.one_of(st.just(TrimHorizon()), instants.map(AtTimestamp), numbers.map(lambda n: AtSequence(str(n))))
beginnings = st.just(TrimHorizon()) | st.integers(0, int(BEGAN_AT)).map(lambda at: AtTimestamp(UnixTime(float(at))))
positions = st.one_of(sent_to, numbers.map(lambda n: AfterSequence(str(n), ARRIVALS[n])))


def passed(position: Position) -> set[int]:
    """The records before a position."""
    match position:
        case TrimHorizon():
            return set()
        case AtTimestamp(at):
            return {number for number in ALL if ARRIVALS[number] < at}
        case AtSequence(sequence):
            return {number for number in ALL if number < int(sequence)}
        case AfterSequence(sequence, _):
            return {number for number in ALL if number <= int(sequence)}


def window(last: AfterSequence) -> StoredState:
    return StoredState(0, 60, last, 1, 1, 1, 2)


@st.composite
def leases(draw: st.DrawFn, shard: str = "a") -> Lease:
    """Lanes are all where the shard was sent to last, or further: nothing else ever stands in a lease."""
    first = draw(positions)
    further = st.one_of(st.just(first), numbers.map(lambda n: AfterSequence(str(n), ARRIVALS[n])))
    lanes = draw(st.lists(further.filter(lambda one: passed(one) >= passed(first)), min_size=1, max_size=4))
    open_window = window(AfterSequence("0", ARRIVALS[0])) if draw(st.booleans()) and len(lanes) == 1 else None
    return Lease("u", shard, "stream", "w", 3, len(lanes), tuple(lanes), is_finished=draw(st.booleans()),
                 window=open_window, obeyed=draw(st.integers(0, 2)))  # fmt: skip


def rewind(to: Position, number: int = 5, *, shard: str | None = None, is_latest: bool = False) -> Rewind:
    assert not isinstance(to, AfterSequence)
    return Rewind(f"r{number}", number, UnixTime(99), BY, "stream", to, shard, is_latest)


def skip(sequence: int, number: int = 5, shard: str = "a") -> Skip:
    return Skip(f"s{number}", number, UnixTime(99), BY, "stream", shard, str(sequence))


@st.composite
def orders(draw: st.DrawFn, count: int = 6) -> list[Rewind]:
    """Rewinds of all shards and of single ones, as they are asked for one after the other.

    A mapping begins before they are asked for, and a time that one names has passed by then.
    """
    found = []
    now = BEGAN_AT
    for number in range(1, draw(st.integers(0, count)) + 1):
        now = UnixTime(now + draw(st.integers(0, 20)))
        match draw(st.sampled_from(["latest", "time", "trim-horizon", "shard"])):
            case "latest":
                found.append(rewind(AtTimestamp(now), number, is_latest=True))
            case "time":
                found.append(rewind(AtTimestamp(UnixTime(float(draw(st.integers(0, int(now)))))), number))
            case "trim-horizon":
                found.append(rewind(TrimHorizon(), number))
            case _:
                found.append(rewind(draw(sent_to), number, shard=draw(st.sampled_from(["a", "b"]))))
    return found


@given(leases(), sent_to)
def test_a_rewind_delivers_everything_from_its_place_on_and_passes_nothing_that_was_not_taken(
    lease: Lease, to: Position
) -> None:
    after = operating.rewound(lease, rewind(to))
    for before, now in zip(lease.positions, after.positions, strict=True):
        assert passed(now) <= passed(to)
        if not lease.is_finished:
            assert passed(now) <= passed(before)
    assert len(set(after.positions)) == 1


@given(leases(), instants)
def test_latest_goes_forward_to_the_moment_of_the_request_and_never_back(lease: Lease, at: UnixTime) -> None:
    after = operating.rewound(lease, rewind(AtTimestamp(at), is_latest=True))
    for before, now in zip(lease.positions, after.positions, strict=True):
        if lease.is_finished or not isinstance(before, AtSequence):
            assert passed(now) >= passed(before)
        assert {number for number in passed(now) - passed(before) if ARRIVALS[number] >= at} == set()
    assert after.is_finished == lease.is_finished


@given(lease=leases(), to=sent_to, is_latest=st.booleans())
def test_what_an_order_changes_is_the_order_and_the_place_alone(lease: Lease, to: Position, *, is_latest: bool) -> None:
    order = rewind(to, is_latest=is_latest and isinstance(to, AtTimestamp))
    after = operating.rewound(lease, order)
    has_moved = after.positions != lease.positions
    assert after.window == (None if has_moved else lease.window)
    same = replace(
        after, positions=lease.positions, window=lease.window, obeyed=lease.obeyed, is_finished=lease.is_finished
    )
    assert same == lease
    assert operating.pending(after, [order]) == []
    assert operating.pending(lease, [order]) == [order]
    assert operating.pending(replace(lease, stream="made again"), [order]) == []


@given(leases(), numbers)
def test_a_skip_moves_lanes_behind_a_record_and_no_lane_back(lease: Lease, end: int) -> None:
    last = AfterSequence(str(end), ARRIVALS[end])
    after = operating.skipped(lease, skip(end), last)
    for before, now in zip(lease.positions, after.positions, strict=True):
        assert passed(now) == passed(before) | passed(last) or isinstance(before, AtTimestamp)
        assert passed(now) >= passed(last)
    assert after.window == lease.window
    assert operating.pending(after, [skip(end)]) == []


@given(leases())
def test_a_skip_to_a_record_that_is_not_there_moves_nothing_and_is_over(lease: Lease) -> None:
    assert operating.skipped(lease, skip(3), None) == replace(lease, obeyed=5)


@given(lease=leases(), asked=orders(), otherwise=beginnings, is_left_out=st.booleans())
def test_orders_that_are_let_go_of_would_have_changed_nothing(
    lease: Lease, asked: list[Rewind], otherwise: Position, *, is_left_out: bool
) -> None:
    """Requests come at any moment of a shard's life: it has obeyed some of them, or has no lease yet."""
    control = Control("u")
    for order in asked:
        control = operating.with_order(control, order, [replace(lease, obeyed=max(lease.obeyed, order.number - 2))])
    newest = replace(lease, obeyed=max(lease.obeyed, len(asked) - 2))
    assert operating.pending(newest, control.orders) == operating.pending(newest, asked)
    kept, all_of_them = control.orders, tuple(asked)
    one, _ = operating.first_position("new", "stream", kept, otherwise, is_left_out=is_left_out)
    other, _ = operating.first_position("new", "stream", all_of_them, otherwise, is_left_out=is_left_out)
    if is_left_out and all(order.is_latest or order.shard is not None for order in kept):
        return  # it is left out again: `latest` passes over all of it
    assert passed(one) == passed(other)


@given(st.lists(st.tuples(instants, st.booleans()), min_size=1, max_size=60))
def test_orders_that_are_carried_out_do_not_add_up(asked: list[tuple[UnixTime, bool]]) -> None:
    control = Control("u")
    lease = Lease("u", "a", "stream", "w", 1, 1, (TrimHorizon(),))
    for number, (at, is_latest) in enumerate(asked, 1):
        order = rewind(AtTimestamp(at), number, is_latest=is_latest)
        control = operating.with_order(control, order, [lease])
        lease = operating.rewound(lease, order)
    assert len(control.orders) <= 3
    assert control.last_number == len(asked)


def test_more_than_a_hundred_orders_that_nobody_carries_out_are_refused() -> None:
    control = Control("u")
    lease = Lease("u", "a", "stream", "w", 1, 1, (TrimHorizon(),))
    for number in range(1, 101):
        control = operating.with_order(control, skip(1, number), [lease])
    with pytest.raises(RequestRefused, match="100 orders of mapping u wait already"):
        operating.with_order(control, skip(1, 101), [lease])


def test_a_rewind_reopens_finished_shards_that_are_listed_parents_before_children() -> None:
    parent = Lease("u", "a", "stream", "w", 1, 1, (AfterSequence("1", ARRIVALS[1]),), is_finished=True)
    gone = replace(parent, shard="0")
    child = replace(parent, shard="b", parents=("a",), is_finished=False)
    shards = [Shard("a", ("0",), is_closed=True), Shard("b", ("a",))]
    for order, ready in (
        (rewind(TrimHorizon()), ["a"]), (rewind(AtTimestamp(UnixTime(0))), ["a"]),
        (rewind(AtSequence("1"), shard="a"), ["a"]), (rewind(AtSequence("1"), shard="b"), ["b"]),
        (rewind(AtTimestamp(UnixTime(50)), is_latest=True), ["b"]),
    ):  # fmt: skip
        lineage = Lineage(operating.finished([gone, parent, child], [], "stream", [order], {"a", "b"}))
        lineage.listed(shards)
        assert [shard.id for shard in lineage.ready()] == ready


def test_shards_that_the_beginning_passed_over_are_read_after_a_rewind_but_not_after_latest() -> None:
    for to, is_latest, left in ((TrimHorizon(), False, []), (AtTimestamp(UnixTime(9)), True, ["old"])):
        order = rewind(to, is_latest=is_latest)
        assert operating.finished([], ["old"], "stream", [order], {"old"}) == left
    assert operating.finished([], ["old"], "another", [rewind(TrimHorizon())], {"old"}) == ["old"]


def test_a_finished_shard_that_never_moved_is_read_again_from_where_it_was_sent_first() -> None:
    asked = [rewind(TrimHorizon(), 1), rewind(AtTimestamp(UnixTime(20)), 2)]
    begun = operating.first_position("new", "stream", asked, TrimHorizon(), is_left_out=True)
    assert begun == (TrimHorizon(), 2)


def test_a_grandchild_waits_for_a_grandparent_that_is_read_again() -> None:
    lineage = Lineage(["a", "b"])
    lineage.listed([Shard("a"), Shard("b", ("a",)), Shard("c", ("b",)), Shard("d")])
    assert [shard.id for shard in lineage.ready()] == ["c", "d"]
    lineage.reopen(["b"])
    assert [shard.id for shard in lineage.ready()] == ["a", "d"]
    assert lineage.ancestors("c") == {"a", "b"}


def test_a_shard_without_a_lease_begins_where_orders_say_but_never_behind_what_it_has_not_taken() -> None:
    at = AtTimestamp(UnixTime(30))
    later, whole = AtTimestamp(UnixTime(40)), rewind(at)
    said: list[tuple[Position, Order, Position]] = [
        (TrimHorizon(), whole, TrimHorizon()), (later, whole, at), (TrimHorizon(), rewind(at, is_latest=True), at),
    ]  # fmt: skip
    for otherwise, order, expected in said:
        assert operating.first_position("n", "stream", [order], otherwise) == (expected, 5)
    assert operating.first_position("n", "stream", [skip(1)], later) == (later, 0)
    assert operating.first_position("n", "stream", [whole], TrimHorizon(), is_left_out=True) == (at, 5)
