"""Positions of a shard's lanes: safe to store at any moment, whatever the order in which lanes settle."""

from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import UnixTime
from esm.model.position import AfterSequence, AtTimestamp, TrimHorizon
from esm.rules.progress import Progress, ahead, lowest, was_taken


def after(sequence: int) -> AfterSequence:
    return AfterSequence(str(sequence), UnixTime(float(sequence)))


def number(position: object) -> int:
    return int(position.sequence) if isinstance(position, AfterSequence) else 0


def test_the_lowest_position_is_where_a_reader_sees_everything() -> None:
    assert lowest([after(10), after(9)]) == after(9)
    assert lowest([after(10), TrimHorizon()]) == TrimHorizon()
    assert lowest([AtTimestamp(UnixTime(3)), after(1)]) == AtTimestamp(UnixTime(3))


LANES = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda found: tuple(map(after, found)))


@given(LANES, LANES, st.integers(1, 4), st.integers(1, 15), st.integers(0, 7))
def test_lanes_that_begin_at_the_lowest_position_miss_nothing_and_repeat_nothing(
    first: tuple[AfterSequence, ...], second: tuple[AfterSequence, ...], factor: int, sequence: int, lane_hash: int
) -> None:
    layouts = ahead((first, second), (lowest((*first, *second)),) * factor)
    is_taken = any(sequence <= number(one[lane_hash % len(one)]) for one in (first, second))
    is_read = sequence > number(lowest((*first, *second)))
    assert is_read <= (is_taken == was_taken(str(sequence), lane_hash, layouts))


@given(LANES, LANES)
def test_what_lanes_have_passed_is_forgotten(old: tuple[AfterSequence, ...], new: tuple[AfterSequence, ...]) -> None:
    is_passed = min(map(number, new)) >= max(map(number, old))
    assert ahead((old,), new) == (() if is_passed else (old,))


@given(st.data(), st.integers(1, 4))
def test_no_position_passes_an_open_record_or_goes_back(data: st.DataObject, lanes: int) -> None:
    progress = Progress([TrimHorizon()] * lanes)
    waiting: list[list[int]] = [[] for _ in range(lanes)]
    read = 0
    before = [0] * lanes
    for _ in range(data.draw(st.integers(1, 60))):
        lane = data.draw(st.integers(0, lanes - 1))
        happens = data.draw(st.sampled_from(["read", "settle", "settle", "drop"]))
        if happens == "read":
            fresh = {one: data.draw(st.integers(0, lanes - 1)) for one in range(read + 1, read + 4)}
            read += 3
            for index in range(lanes):
                mine = [one for one, owner in fresh.items() if owner == index]
                if mine:
                    waiting[index] += mine
                    progress.opened(index, str(mine[-1]))
                progress.reached(index, after(read))
        elif happens == "settle" and waiting[lane]:
            count = data.draw(st.integers(1, len(waiting[lane])))
            progress.settled(lane, after(waiting[lane][count - 1]))
            waiting[lane] = waiting[lane][count:]
        elif happens == "drop" and all(not one for index, one in enumerate(waiting) if index != lane):
            progress.dropped(lane)
            assert progress.frontier(lane) == progress.positions()[lane]
            if waiting[lane]:
                progress.opened(lane, str(waiting[lane][-1]))
            progress.reached(lane, after(read))
        now = [number(position) for position in progress.positions()]
        assert all(new >= old for new, old in zip(now, before, strict=True))
        assert all(position < one[0] for position, one in zip(now, waiting, strict=True) if one)
        assert all(position == read for position, one in zip(now, waiting, strict=True) if not one)
        before = now
