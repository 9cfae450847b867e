"""The states of a mapping: the recorded ones, and that none but those of the table is ever reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.model.mapping import State
from esm.rules import lifecycle
from esm.rules.lifecycle import Event

RECORDED = [
    (State.CREATING, Event.RUNS, State.ENABLED),
    (State.DISABLED, Event.SWITCHED_ON, State.ENABLING),
    (State.ENABLING, Event.RUNS, State.ENABLED),
    (State.ENABLED, Event.SWITCHED_OFF, State.DISABLING),
    (State.DISABLING, Event.RESTS, State.DISABLED),
    (State.ENABLED, Event.CHANGED, State.UPDATING),
    (State.UPDATING, Event.RUNS, State.ENABLED),
    (State.ENABLED, Event.REMOVED, State.DELETING),
]
"""Source: 4.6 of wire-shapes.md."""

IMPOSSIBLE = [
    (State.DISABLED, Event.RUNS),
    (State.DISABLING, Event.RUNS),
    (State.DELETING, Event.RUNS),
    (State.ENABLED, Event.RESTS),
    (State.CREATING, Event.RESTS),
    (State.ENABLING, Event.RESTS),
    (State.ENABLED, Event.SWITCHED_ON),
    (State.DISABLED, Event.SWITCHED_OFF),
    (State.DELETING, Event.SWITCHED_ON),
    (State.DELETING, Event.CHANGED),
]


@pytest.mark.parametrize(("state", "event", "expected"), RECORDED)
def test_an_event_leads_where_it_leads_on_aws(state: State, event: Event, expected: State) -> None:
    assert lifecycle.after(state, event) is expected


def test_a_mapping_made_disabled_is_disabled_at_once() -> None:
    assert lifecycle.first(enabled=False) is State.DISABLED
    assert lifecycle.first(enabled=True) is State.CREATING


@pytest.mark.parametrize(("state", "event"), IMPOSSIBLE)
def test_an_impossible_transition_is_a_mistake_of_ours(state: State, event: Event) -> None:
    with pytest.raises(AssertionError, match="cannot be"):
        lifecycle.after(state, event)


@given(
    enabled=st.booleans(),
    happenings=st.lists(st.one_of(st.booleans(), st.sampled_from([Event.RUNS, Event.RESTS, Event.CHANGED]))),
)
def test_whatever_is_asked_for_in_whatever_order_the_state_says_what_is_wanted(
    *, enabled: bool, happenings: list[bool | Event]
) -> None:
    state = lifecycle.first(enabled=enabled)
    for happening in happenings:
        if isinstance(happening, bool):
            state = lifecycle.after(state, lifecycle.asked(was_enabled=enabled, enabled=happening))
            enabled = happening
        elif happening is Event.CHANGED:
            state = lifecycle.after(state, happening)
        elif enabled and happening is Event.RUNS:
            state = lifecycle.after(state, happening)
            assert state is State.ENABLED
        elif not enabled and happening is Event.RESTS:
            state = lifecycle.after(state, happening)
            assert state is State.DISABLED
        assert state not in ({State.DISABLED, State.DISABLING} if enabled else {State.ENABLED, State.ENABLING})
        assert lifecycle.after(state, Event.REMOVED) is State.DELETING
