"""A worker as the others see it: its heartbeat."""

from dataclasses import dataclass, field

from esm.model.clocks import UnixTime

ASYNC = "async"
"""The name under which the buckets of asynchronous events stand beside the mappings' UUIDs."""


def is_mapping(name: str) -> bool:
    """Whether a name of a heartbeat's `mappings` is that of one: buckets and subjects of shares stand beside them."""
    return name != ASYNC and ":" not in name


def owner_name(worker: str, run: str) -> str:
    """How leases name an owner: a worker that starts again is another owner than before."""
    return f"{worker}/{run}"


def worker_of(owner: str) -> str:
    """The worker id in the name of an owner; empty where nobody owns."""
    return owner.rpartition("/")[0] or owner


def run_of(owner: str) -> str:
    """The run in the name of an owner; empty where nobody owns, or a worker that named none."""
    worker, _, run = owner.rpartition("/")
    return run if worker else ""


@dataclass(frozen=True, slots=True)
class HostLock:
    """A file that a worker holds locked for as long as its process lives."""

    path: str
    device: int
    inode: int
    boot: str
    """Identity of the running kernel: the same file on the same machine, or no verdict."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a worker says of one mapping that it can run."""

    digest: str
    """Of the mapping as its configuration has it: equal where two workers would run it alike."""
    epoch: int
    """Moves when the worker has changed who owns a shard of it, or which shards there are."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One item a worker, rewritten every quarter of the failover time."""

    worker: str
    """Its id (`ESM_WORKER_ID`)."""
    run: str
    """Of this start of the process."""
    beat: int
    """Grows with every write: a worker lives for as long as others see it change."""
    format: int
    """The newest format that it reads: nobody writes a newer one than every live worker reads."""
    is_leaving: bool = False
    """It drains: what it owns is to be taken over as it lets go."""
    is_released: bool = False
    """It has ended and owns nothing."""
    mappings: dict[str, Known] = field(default_factory=dict)
    """By UUID; and what else is shared, such as `ASYNC` and the bounds of functions."""
    busy: frozenset[str] = frozenset()
    """UUIDs of queue mappings that could use more receivers than they have."""
    broken: frozenset[str] = frozenset()
    """UUIDs of mappings whose target this worker does not reach."""
    unlisted: frozenset[str] = frozenset()
    """UUIDs of mappings whose shards this worker cannot list: somebody else should."""
    lock: HostLock | None = None
    moves: dict[str, int] = field(default_factory=dict)
    """Epochs of mappings that it ran earlier and is no candidate for any more: it may still let shards go."""
    ended: tuple[str, ...] = ()
    """Earlier runs under the same id whose end is proved: their lock was free."""
    at: UnixTime | None = None
    """When it was written, by the worker's own clock: for people, and for those who look once; no take-over rests on
    it. Heartbeats of some versions do not say it."""
    extra: dict[str, object] = field(default_factory=dict)
    """Attributes of a newer version, kept and written back."""

    @property
    def owner(self) -> str:
        """How leases name it."""
        return owner_name(self.worker, self.run)

    @property
    def runs(self) -> set[str]:
        """UUIDs of the mappings that it knows; what else is shared is `ASYNC`, or has a colon in its name."""
        return {name for name in self.mappings if name != ASYNC and ":" not in name}

    def epoch(self, uuid: str) -> int:
        """How often it has changed who owns shards of a mapping."""
        known = self.mappings.get(uuid)
        return self.moves.get(uuid, 0) if known is None else known.epoch
