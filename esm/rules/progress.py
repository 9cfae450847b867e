"""What the lanes of a shard have taken -> one position a lane that is safe to store.

A lane takes its records in order, one batch at a time, so its position is the last record that it settled; while
nothing of a lane is open its position follows the reader, else a quiet lane would send a restart back for hours.
Law: a position never passes a record that is open, and never goes back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from esm.model.position import AfterSequence, AtSequence, Position


def is_at_or_before(sequence: str, position: Position) -> bool:
    """Whether a record was read before `position` was reached."""
    return int(sequence) <= last_before(position)


def last_before(position: Position) -> int:
    """The highest sequence number that cannot follow a position; -1: none is known."""
    match position:
        case AfterSequence(sequence, _):
            return int(sequence)
        case AtSequence(sequence):
            return int(sequence) - 1
        case _:
            return -1


def lowest(positions: Sequence[Position]) -> Position:
    """The position from which a reader sees everything that any lane still needs."""
    plain = [position for position in positions if not isinstance(position, AfterSequence)]
    if plain:
        return plain[0]
    return min((p for p in positions if isinstance(p, AfterSequence)), key=lambda p: int(p.sequence))


def was_taken(sequence: str, lane_hash: int, layouts: Iterable[Sequence[Position]]) -> bool:
    """Whether a lane of any of these layouts is past a record; a layout is one position a lane."""
    return any(is_at_or_before(sequence, positions[lane_hash % len(positions)]) for positions in layouts)


def ahead(
    layouts: Iterable[tuple[Position, ...]], positions: Sequence[Position]
) -> tuple[tuple[Position, ...], ...]:  # fmt: skip
    """The layouts that know of a taken record which `positions` do not show as taken."""
    here = last_before(lowest(positions))
    return tuple([layout for layout in layouts if any(last_before(position) > here for position in layout)])


@dataclass(slots=True)
class _Lane:
    position: Position
    reached: Position
    """How far the reader that feeds this lane has come."""
    last_open: str | None = None
    """The newest record given to the lane and not settled."""


class Progress:
    """Positions of the lanes of one shard."""

    def __init__(self, positions: Sequence[Position]) -> None:
        self._lanes = [_Lane(position, position) for position in positions]

    def opened(self, lane: int, sequence: str) -> None:
        """The lane was given records, the newest of which is `sequence`."""
        self._lanes[lane].last_open = sequence

    def reached(self, lane: int, frontier: AfterSequence) -> None:
        """The reader has given the lane all its records up to `frontier`."""
        state = self._lanes[lane]
        if is_at_or_before(frontier.sequence, state.reached):
            return
        state.reached = frontier
        if state.last_open is None:
            state.position = frontier

    def settled(self, lane: int, last: AfterSequence) -> None:
        """Everything of the lane up to `last` was taken or given up."""
        state = self._lanes[lane]
        if not is_at_or_before(last.sequence, state.reached):
            state.reached = last
        if state.last_open == last.sequence:
            state.last_open = None
            state.position = state.reached
        elif not is_at_or_before(last.sequence, state.position):
            state.position = last

    def dropped(self, lane: int) -> None:
        """What was open of the lane is forgotten: its reader begins again at its position."""
        state = self._lanes[lane]
        state.last_open = None
        state.reached = state.position

    def frontier(self, lane: int) -> Position:
        """How far the lane was fed."""
        return self._lanes[lane].reached

    def positions(self) -> tuple[Position, ...]:
        """One a lane."""
        return tuple([lane.position for lane in self._lanes])
