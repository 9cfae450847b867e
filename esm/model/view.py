"""What a running mapping shows of itself: to status, to metrics, to health."""

from dataclasses import dataclass

from esm.model.mapping import State


@dataclass(frozen=True, slots=True)
class ShardView:
    """One shard, or a queue as a whole (`id` empty)."""

    id: str
    lag_s: float | None
    """Now minus the arrival of the oldest record not taken; 0 when nothing waits; None when unknown."""
    blocked_s: float
    """How long the head of the worst lane has been failing."""
    expires_in_s: float | None
    """Until the oldest record not taken leaves the source; None when nothing waits."""
    checkpoint_age_s: float
    """Since the stored position was last equal to what was taken."""


@dataclass(frozen=True, slots=True)
class MappingView:
    """One mapping as its worker sees it."""

    uuid: str
    function: str
    source: str
    state: State
    last_result: str
    """Lambda's `LastProcessingResult`, for queues too."""
    has_problem: bool
    in_flight: int
    """Invocations."""
    backlog: int | None
    """Messages waiting in a queue; None for streams."""
    shards: tuple[ShardView, ...]
    circuit_open: bool = False
    """The target is broken: one batch at a time until one succeeds. Reports of earlier versions do not say it."""
    identity: str = "daemon"
    """Who polls: `daemon`, `role ARN`, `connection NAME`, `role ARN through connection NAME`."""
    async_backlog: int | None = None
    """Events that wait in the asynchronous queue of the mapping's function; None where the mapping does not feed it."""
    not_visible: int | None = None
    """Messages of a queue that somebody has received and not yet settled; None for streams."""
    batches_max: int | None = None
    """Batches at once that the configuration allows: of each shard, or of the queue. Earlier reports do not say it."""
    reason: str | None = None
    """Why the mapping is in its state, where not the configuration says so."""
    shards_without_owner: int = 0
    """Shards that may be read and that no live worker owns, as the reporting worker sees them."""
    runtimes: int | None = None
    """Runtimes elsewhere that pull from the reporting worker; None for functions that do not pull."""
