"""What is stored of a shard: who owns it, and how far each of its lanes is."""

from dataclasses import dataclass, field

from esm.model.clocks import UnixTime
from esm.model.position import Position
from esm.model.window import StoredState


@dataclass(frozen=True, slots=True)
class Lease:
    """One shard of one mapping."""

    mapping: str
    """UUID."""
    shard: str
    stream: str
    """Identity of the stream: positions in another stream of the same name mean nothing."""
    owner: str
    """A worker in one run (`model/worker.owner_name`); empty: whoever should may claim it."""
    generation: int
    """Grows by one at every claim: a checkpoint with an older one is refused."""
    factor: int
    """Lanes that the positions belong to; may differ from the mapping's after a change."""
    positions: tuple[Position, ...]
    """One a lane, `factor` in all."""
    parents: tuple[str, ...] = ()
    is_finished: bool = False
    """The shard has ended and everything in it was taken or given up."""
    extra: dict[str, object] = field(default_factory=dict)
    """Attributes of a newer version, kept and written back."""
    window: StoredState | None = None
    """The open tumbling window: written together with the position that its state belongs to."""
    done: tuple[tuple[Position, ...], ...] = ()
    """Positions of the lanes of earlier factors, until those of now have passed them: what they say was taken, was."""
    obeyed: int = 0
    """Number of the last operator's order that the positions have followed: an order is carried out once."""
    released_at: UnixTime | None = None
    """When its last owner let go of it; None while it is owned, or where that owner was taken for dead."""
