"""Membership: what the loops of a worker ask about the others. `Fleet` answers for replicas, `Alone` for one worker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from esm.model.clocks import Instant

if TYPE_CHECKING:
    from esm.runtime.shares import Share
    from esm.runtime.surroundings import Signal


class Membership(Protocol):
    """This worker among the others."""

    @property
    def owner(self) -> str:
        """How leases name this worker in this run."""
        ...

    @property
    def is_sole(self) -> bool:
        """Whether nobody else can use the store while this worker does."""
        ...

    @property
    def term(self) -> int:
        """Grows whenever this worker may have been taken for dead: what it owned before, it does not own any more."""
        ...

    @property
    def trusted_until(self) -> Instant:
        """No invocation may start later: the others may take this worker for dead then."""
        ...

    def holds(self, term: int, now: Instant) -> bool:
        """Whether what was claimed in `term` is still this worker's without doubt."""
        ...

    def watching(self, signal: Signal) -> AbstractContextManager[None]:
        """Notify `signal` whenever workers, leases or shares of theirs have changed, while the body runs."""
        ...

    def offering(self, uuid: str) -> AbstractContextManager[None]:
        """This worker can run the mapping while the body runs: it is a candidate for its shards."""
        ...

    def tell(self, uuid: str, shards: Mapping[str, str]) -> None:
        """The shards of a mapping that need an owner now, each with the one it has, or an empty name."""
        ...

    def mine(self, uuid: str) -> Collection[str]:
        """Those of them that this worker should own."""
        ...

    def moved(self, uuid: str) -> None:
        """The others should look at the leases of a mapping: this worker has changed some."""
        ...

    def epoch(self, uuid: str) -> object:
        """Differs from what it was before when another worker has said `moved`."""
        ...

    async def is_gone(self, owner: str) -> bool:
        """Whether an owner surely starts nothing any more. Raises: Unavailable, StoreTooNew."""
        ...

    def may_be_free(self, owner: str) -> bool:
        """Whether it is worth asking for what `owner` holds: nobody, this worker, or one that seems to be gone."""
        ...

    @property
    def age_s(self) -> float:
        """How long this worker has counted among the others; 0 where it never did."""
        ...

    def silent_s(self, owner: str) -> float | None:
        """How long ago the owner was last seen to live; None where it was never seen."""
        ...

    def lists(self, uuid: str) -> bool:
        """Whether this worker lists the shards of a mapping for all."""
        ...

    def is_lister(self, uuid: str, owner: str) -> bool:
        """Whether `owner` is the live worker that lists the shards of a mapping for all."""
        ...

    def listed(self, uuid: str, *, is_able: bool) -> None:
        """Whether this worker can list the shards of a mapping: otherwise another one does."""
        ...

    def peers(self, uuid: str) -> Collection[str]:
        """Ids of the live workers that can run a mapping, this one included if it can."""
        ...

    def sharing(
        self, subject: str, limit: Callable[[], int], in_use: Callable[[], int]
    ) -> AbstractContextManager[Share]:
        """This worker's part of a bound over all that offer `subject`, while the body runs."""
        ...

    def is_busy(self, uuid: str) -> bool:
        """Whether any worker could use more receivers for a queue mapping than it has."""
        ...

    def busy(self, uuid: str, *, is_busy: bool) -> None:
        """Whether this worker could."""
        ...

    def may_probe(self, uuid: str) -> bool:
        """Whether this worker is the one that tries a broken target."""
        ...

    def broken(self, uuid: str, *, is_broken: bool) -> None:
        """Whether this worker does not reach the target of a mapping."""
        ...


class Alone:
    """One worker and nobody else: everything is its own."""

    is_sole = True
    term = 0
    age_s = 0.0
    trusted_until = Instant(float("inf"))

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._shards: dict[str, Mapping[str, str]] = {}

    def holds(self, term: int, now: Instant) -> bool:  # noqa: ARG002 - see `Membership`
        """Always."""
        return True

    @contextmanager
    def watching(self, signal: Signal) -> Iterator[None]:  # noqa: ARG002 - nothing ever changes
        """Nothing ever changes."""
        yield

    @contextmanager
    def offering(self, uuid: str) -> Iterator[None]:
        """There is nobody to tell."""
        try:
            yield
        finally:
            self._shards.pop(uuid, None)

    def tell(self, uuid: str, shards: Mapping[str, str]) -> None:
        """See `Membership`."""
        self._shards[uuid] = shards

    def mine(self, uuid: str) -> Collection[str]:
        """All."""
        return self._shards.get(uuid, {}).keys()

    def moved(self, uuid: str) -> None:
        """There is nobody to tell."""

    def epoch(self, uuid: str) -> object:  # noqa: ARG002 - see `Membership`
        """Always the same."""
        return None

    async def is_gone(self, owner: str) -> bool:
        """Everybody else."""
        return owner != self.owner

    def may_be_free(self, owner: str) -> bool:  # noqa: ARG002 - see `Membership`
        """Everything."""
        return True

    def silent_s(self, owner: str) -> float | None:  # noqa: ARG002 - see `Membership`
        """Nobody is watched."""
        return None

    def lists(self, uuid: str) -> bool:  # noqa: ARG002 - see `Membership`
        """Always, for itself."""
        return True

    def is_lister(self, uuid: str, owner: str) -> bool:  # noqa: ARG002 - see `Membership`
        """This one."""
        return owner == self.owner

    def listed(self, uuid: str, *, is_able: bool) -> None:
        """There is nobody else to do it."""

    def peers(self, uuid: str) -> Collection[str]:  # noqa: ARG002 - see `Membership`
        """This one."""
        return (self.owner,)

    @contextmanager
    def sharing(self, subject: str, limit: Callable[[], int], in_use: Callable[[], int]) -> Iterator[Share]:  # noqa: ARG002
        """All of it."""
        yield _Whole(limit)

    def is_busy(self, uuid: str) -> bool:  # noqa: ARG002 - see `Membership`
        """Nobody else could help."""
        return False

    def busy(self, uuid: str, *, is_busy: bool) -> None:
        """There is nobody to tell."""

    def may_probe(self, uuid: str) -> bool:  # noqa: ARG002 - see `Membership`
        """Always."""
        return True

    def broken(self, uuid: str, *, is_broken: bool) -> None:
        """There is nobody to tell."""


class _Whole:
    """The share of a worker that has nobody to share with."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit

    @property
    def usable(self) -> int:
        """All."""
        return self._limit()
