"""QueuePart: what one worker takes of a queue that several serve: its slots, its idle receivers, its turn to try."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from esm.model.mapping import Mapping
from esm.ports import Target
from esm.rules.scaling import Bounds, Pressure, Scaling
from esm.rules.shares import fair
from esm.runtime.gate import Gate
from esm.runtime.shares import Share
from esm.runtime.surroundings import Surroundings


class QueuePart:
    """The part of one worker; without others, everything. `refresh` brings the gate up to date."""

    def __init__(self, around: Surroundings, mapping: Callable[[], Mapping], scaling: Scaling, target: Target) -> None:
        self._around = around
        self._mapping = mapping
        self._scaling = scaling
        self._target = target
        self._share: Share | None = None
        self._is_busy = False
        self.gate = Gate(Pressure(self._limit()))

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take part while the body runs."""
        members, uuid = self._around.members, self._mapping().uuid
        with members.offering(uuid), members.sharing(uuid, self._most, lambda: self.gate.in_use) as self._share:
            self.refresh()
            yield

    def refresh(self) -> None:
        """Batches at once; none where the others have all that is allowed, or one of them tries a broken target."""
        limit = self._limit()
        if self._share is not None:
            may_try = not self.gate.is_broken or self._around.members.may_probe(self._mapping().uuid)
            limit = min(limit, self._share.usable) if may_try else 0
        self.gate.set_limit_max(limit)

    @property
    def idle_receivers(self) -> int:
        """Receivers of this worker that wait while the queue is quiet: all workers have so many together.

        While one of them cannot take what comes alone, every worker has one.
        """
        members, uuid = self._around.members, self._mapping().uuid
        peers, idle = members.peers(uuid), self._scaling.idle_receivers
        if len(peers) <= 1:
            return idle
        part = fair(idle, peers, uuid).get(self._around.worker, 0)
        return max(1, part) if members.is_busy(uuid) else part

    def tell(self) -> None:
        """Let the others know whether this worker could use help, and whether it reaches the target."""
        members, uuid = self._around.members, self._mapping().uuid
        is_full = 0 < self.gate.limit <= self.gate.in_use
        self._is_busy = not self._scaling.is_quiet and (self._is_busy or is_full)
        members.busy(uuid, is_busy=self._is_busy)
        members.broken(uuid, is_broken=self.gate.is_broken)

    def _limit(self) -> int:
        bounds = (self._scaling.limit, self._target.concurrency)
        return max(1, min(bound for bound in bounds if bound is not None))

    def _most(self) -> int:
        """Batches at once that the mapping allows all workers together."""
        return Bounds.of(self._mapping()).most
