"""The states of a mapping, as a table: what is asked for and what its loops report lead from one to the next.

Law: a transition that is not in the table cannot happen; asking for one is our own mistake. Where AWS refuses a change
of a mapping that is still on its way (ResourceInUseException), a changed file or a removal is taken here: the newest
wish counts. Source: lambda.md 1.4; 4.6 of wire-shapes.md.
"""

from enum import Enum

from esm.model.mapping import State


class Event(Enum):
    """What can happen to a mapping."""

    SWITCHED_ON = "switched on"
    """`Enabled` became true."""
    SWITCHED_OFF = "switched off"
    """`Enabled` became false."""
    CHANGED = "changed"
    """Anything else of it changed in a way that its loops cannot take over while they run."""
    REMOVED = "removed"
    """It is no longer wanted."""
    RUNS = "runs"
    """Its source, function and position are known; its loops read."""
    RESTS = "rests"
    """It is not wanted to run, and nothing of it is in flight any more."""


_ON_THEIR_WAY = {
    (State.CREATING, Event.CHANGED): State.CREATING,
    (State.ENABLING, Event.CHANGED): State.ENABLING,
    (State.UPDATING, Event.CHANGED): State.UPDATING,
    (State.DISABLING, Event.CHANGED): State.DISABLING,
}
"""A further change does not hide where the mapping is going."""

_TABLE = {
    (State.ENABLED, Event.CHANGED): State.UPDATING,
    (State.DISABLED, Event.CHANGED): State.UPDATING,
    **_ON_THEIR_WAY,
    **dict.fromkeys([(s, Event.SWITCHED_ON) for s in (State.DISABLED, State.DISABLING, State.UPDATING)],
                    State.ENABLING),
    **dict.fromkeys([(s, Event.SWITCHED_OFF) for s in (State.ENABLED, State.CREATING, State.ENABLING, State.UPDATING)],
                    State.DISABLING),
    **dict.fromkeys([(s, Event.RUNS) for s in (State.CREATING, State.ENABLING, State.UPDATING, State.ENABLED)],
                    State.ENABLED),
    **dict.fromkeys([(s, Event.RESTS) for s in (State.DISABLING, State.UPDATING, State.DISABLED)],
                    State.DISABLED),
    **dict.fromkeys([(s, Event.REMOVED) for s in State], State.DELETING),
}  # fmt: skip


def first(*, enabled: bool) -> State:
    """The state of a mapping that has just been made."""
    return State.CREATING if enabled else State.DISABLED


def asked(*, was_enabled: bool, enabled: bool) -> Event:
    """What a changed mapping asks for, by `Enabled` before and now."""
    if was_enabled == enabled:
        return Event.CHANGED
    return Event.SWITCHED_ON if enabled else Event.SWITCHED_OFF


def after(state: State, event: Event) -> State:
    """The state that `event` leads to."""
    assert (state, event) in _TABLE, f"a mapping that is {state.value} cannot be {event.value}"
    return _TABLE[state, event]
