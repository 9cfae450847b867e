"""What operators want of a mapping beside its configuration: paused or not, and orders to move its positions."""

from dataclasses import dataclass, field

from esm.model.clocks import UnixTime
from esm.model.position import AtSequence, AtTimestamp, TrimHorizon

PAUSED = "paused by operator"
"""Why a paused mapping shows `Disabled`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked, as far as the asking process knows: nobody proves it."""

    host: str
    user: str


@dataclass(frozen=True, slots=True)
class Pause:
    """The mapping is to rest until it is resumed."""

    at: UnixTime
    by: Caller
    extra: dict[str, object] = field(default_factory=dict, hash=False)
    """Attributes of a newer version, kept and written back."""


@dataclass(frozen=True, slots=True)
class Rewind:
    """Shards are to be read again from a place on."""

    id: str
    number: int
    """Orders of a mapping count up: a lease names the last one that it has carried out."""
    at: UnixTime
    """When it was asked for."""
    by: Caller
    stream: str
    """Identity of the stream: an order means nothing in another one of the same name."""
    to: TrimHorizon | AtTimestamp | AtSequence
    shard: str | None = None
    """None: every shard."""
    is_latest: bool = False
    """Forward to `to`, the moment of the request: what arrived before it is passed over."""
    extra: dict[str, object] = field(default_factory=dict, hash=False)
    """Attributes of a newer version, kept and written back."""


@dataclass(frozen=True, slots=True)
class Skip:
    """One shard is to go on behind a record; what is passed leaves a notice."""

    id: str
    number: int
    at: UnixTime
    by: Caller
    stream: str
    shard: str
    sequence: str
    """The last record that is passed."""
    extra: dict[str, object] = field(default_factory=dict, hash=False)
    """Attributes of a newer version, kept and written back."""


Order = Rewind | Skip


@dataclass(frozen=True, slots=True)
class Control:
    """Everything that operators want of one mapping."""

    mapping: str
    """UUID."""
    pause: Pause | None = None
    orders: tuple[Order, ...] = ()
    """By number. Those that every lease has carried out leave with the next request."""
    last_number: int = 0
    """Of the newest order there ever was."""
    extra: dict[str, object] = field(default_factory=dict)
    """Attributes of a newer version, kept and written back."""
