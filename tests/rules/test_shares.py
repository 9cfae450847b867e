"""A bound holds at every moment, whoever writes in whichever order, and nobody starves once all have written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import OperatorNeeded, StoreTooNew
from esm.rules.shares import decode, encode, fair, next_grants, usable

NAMES = [f"w{n}" for n in range(6)]
LIVE = st.sets(st.sampled_from(NAMES), min_size=1)
LIMIT = st.integers(1, 40)


@given(LIMIT, LIVE)
def test_a_fair_division_gives_everything_and_nobody_more_than_one_above_another(limit, live) -> None:
    parts = fair(limit, live, "m")
    assert sum(parts.values()) == limit
    assert max(parts.values()) - min(parts.values()) <= 1


def test_nobody_has_a_part_where_nobody_lives() -> None:
    assert fair(5, [], "m") == {}


@st.composite
def histories(draw: st.DrawFn):
    steps = st.tuples(st.sampled_from(NAMES), LIVE, LIMIT, st.integers(0, 40))
    return draw(st.lists(steps, max_size=30))


@given(histories())
def test_the_sum_exceeds_a_limit_only_until_its_holders_have_shrunk(history) -> None:
    grants: dict[str, int] = {}
    for worker, others, limit, in_use in history:
        live = others | {worker}
        before = sum(grants.values())
        after = next_grants(grants, live, live, limit, worker, in_use, "m")
        assert sum(after.values()) <= max(limit, before)
        assert set(after) <= live
        grants = after


@given(LIMIT, LIVE, histories())
def test_the_division_becomes_fair_within_two_rounds(limit, live, history) -> None:
    grants: dict[str, int] = {}
    for worker, others, _, in_use in history:
        grants = next_grants(grants, others | {worker}, others | {worker}, limit, worker, in_use, "m")
    for _ in range(2):
        for worker in sorted(live):
            grants = next_grants(grants, live, live, limit, worker, 0, "m")
    assert grants == {worker: part for worker, part in fair(limit, live, "m").items() if part}


@given(LIMIT, LIVE, st.integers(0, 40))
def test_what_is_in_use_is_not_given_away(limit, live, in_use) -> None:
    worker = min(live)
    grants = {worker: limit}
    after = next_grants(grants, live, live, limit, worker, in_use, "m")
    assert after.get(worker, 0) >= min(in_use, limit)
    assert usable(after, live, limit, worker, "m") <= fair(limit, live, "m")[worker]


def test_a_worker_that_leaves_keeps_what_it_uses_and_gives_the_rest() -> None:
    after = next_grants({"w0": 4, "w1": 2}, {"w0", "w1"}, {"w1"}, 6, "w0", 3, "m")
    assert after == {"w0": 3, "w1": 2}
    assert next_grants(after, {"w0", "w1"}, {"w1"}, 6, "w1", 2, "m") == {"w0": 3, "w1": 3}


def test_grants_come_back_as_they_were_and_foreign_values_are_refused() -> None:
    assert decode(encode({"w0": 3})) == {"w0": 3}
    with pytest.raises(StoreTooNew):
        decode(b'{"format": 99}')
    with pytest.raises(OperatorNeeded):
        decode(b'{"format": 1, "grants": 3}')
