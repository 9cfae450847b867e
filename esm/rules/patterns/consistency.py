"""Whether a record satisfies a conjunction: all its conditions, by values that can stand together.

Values can stand together when they are never of two elements of one array. An absence (`exists: false`) looks only at
what can stand together with the values found for the paths before it, in the order of the paths' names.

How it is bounded: arrays at different places are decided apart from each other, and entering an element leaves only
its own contents to decide, so that each element is entered once for each array around it that was entered. Only where
a record reaches one path through two arrays (`{"a": {"b": [..]}, "a.b": [..]}`), or has plain values beside nested
elements at a path with an absence below, are there choices to go back on; then a budget of entries, in proportion to
the record's elements, and one of looks at elements, entered or not, in proportion to conditions and elements, end the
search, and the record does not match.

Source: lambda.md 4.2; ArrayMembership and StructuredFinder of AWS's rule engine.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from esm.rules.patterns.conditions import Condition, Scalar
from esm.rules.patterns.fields import Array, Level, TooComplex

_TOO_MANY_WAYS = "the record has too many ways to match"

ENTRIES_MIN = 1_000
ENTRIES_PER_ELEMENT = 8
"""Elements that one search may enter: so many in any case, and so many for each element of the record."""


LOOKS_MIN = 10_000
"""Elements that one search may look at; for each element of the record, one more for each condition."""


class Budget:
    """The entries, and the looks at elements, that a search has left."""

    def __init__(self, elements: int, conditions: int = 1) -> None:
        self.left = ENTRIES_MIN + ENTRIES_PER_ELEMENT * elements
        self.looks_left = LOOKS_MIN + (ENTRIES_PER_ELEMENT + conditions) * elements

    def spend(self) -> None:
        """Count one entry. Raises: TooComplex."""
        self.left -= 1
        if self.left < 0:
            raise TooComplex(_TOO_MANY_WAYS)

    def look(self) -> None:
        """Count one element that is looked at. Raises: TooComplex."""
        self.looks_left -= 1
        if self.looks_left < 0:
            raise TooComplex(_TOO_MANY_WAYS)


class _Open(NamedTuple):
    """A condition on the way: what is known of it so far."""

    path: str
    condition: Condition
    is_met: bool
    """By a value that stands together with any other."""
    may_be_absent: bool
    """No value seen so far stands against its absence."""
    arrays: tuple[Array, ...]
    """Where it has further values."""


def is_satisfied(conditions: Sequence[tuple[str, Condition]], level: Level, budget: Budget) -> bool:
    """Whether the record satisfies all conditions, given in the order of their paths. Raises: TooComplex."""
    if not level.arrays:
        return all(_is_plainly_met(condition, level.values.get(path)) for path, condition in conditions)
    opened: list[_Open] = []
    for path, condition in conditions:
        state = _seen(_Open(path, condition, is_met=False, may_be_absent=condition.admits_absence, arrays=()), level)
        if _is_hopeless(state):
            return False
        opened.append(state)
    return _solved(opened, budget)


def _is_plainly_met(condition: Condition, values: list[Scalar] | None) -> bool:
    if values is None:
        return condition.admits_absence
    return any(condition.holds(value) for value in values)


def _seen(state: _Open, level: Level) -> _Open:
    """The condition after all of a level is reachable."""
    path, condition, is_met, may_be_absent, arrays = state
    values = level.values.get(path)
    if values is not None:
        may_be_absent = False
        is_met = is_met or any(condition.holds(value) for value in values)
    if level.arrays:
        arrays += tuple([array for array in level.arrays if path in array.paths])
    return _Open(path, condition, is_met, may_be_absent, arrays)


def _is_hopeless(state: _Open) -> bool:
    return not (state.is_met or state.may_be_absent or state.arrays)


def _solved(states: Sequence[_Open], budget: Budget) -> bool:
    return all(_one_solved(group, budget) for group in _groups(_undecided(states)))


def _undecided(states: Sequence[_Open]) -> list[_Open]:
    """The conditions that entering an array still decides; one that is met stays if an absence follows it."""
    left: list[_Open] = []
    absence_follows = False
    for state in reversed(states):
        if state.arrays and not (state.is_met and not absence_follows):
            left.append(state)
            absence_follows = absence_follows or state.may_be_absent
    left.reverse()
    return left


def _groups(states: Sequence[_Open]) -> Iterable[list[_Open]]:
    """The conditions that share arrays, directly or through others, each group in the order of the paths."""
    if len({state.arrays for state in states}) <= 1:
        return [list(states)] if states else []
    group_of: dict[Array, int] = {}
    for index, state in enumerate(states):
        merged = {group_of[array] for array in state.arrays if array in group_of}
        joined = min(merged, default=index)
        if len(merged) > 1:
            group_of = {array: joined if group in merged else group for array, group in group_of.items()}
        group_of.update(dict.fromkeys(state.arrays, joined))
    groups: dict[int, list[_Open]] = {}
    for state in states:
        groups.setdefault(group_of[state.arrays[0]], []).append(state)
    return groups.values()


def _one_solved(states: list[_Open], budget: Budget) -> bool:
    for index, first in enumerate(states):
        later = states[index + 1 :]
        for array in first.arrays:
            if any(_solved(entered, budget) for entered in _entries(first, later, array, budget)):
                return True
        if not first.is_met:
            return False
    return True


def _entries(first: _Open, later: list[_Open], array: Array, budget: Budget) -> Iterator[list[_Open]]:
    """The conditions after each element of the array that could meet the first one is entered for it."""
    alone = _Open(first.path, first.condition, is_met=False, may_be_absent=False, arrays=())
    for element in array.elements:
        budget.look()
        met = _seen(alone, element)
        if _is_hopeless(met):
            continue
        budget.spend()
        entered = [met]
        for state in later:
            entered.append(_entered(state, array, element))
            if _is_hopeless(entered[-1]):
                break
        else:
            yield entered


def _entered(state: _Open, array: Array, element: Level) -> _Open:
    if array not in state.arrays:
        return state
    others = tuple([other for other in state.arrays if other is not array])
    return _seen(state._replace(arrays=others), element)
