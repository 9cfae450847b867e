"""Which buckets of asynchronous events this worker serves: they are owned like shards, all in one item of the store.

Law: an event is tried by the owner of its bucket alone; a bucket changes hands once nothing of it runs any more, or
its owner is gone. Events need no order, so that a bucket may be filled by anybody.
"""

from collections.abc import Callable, Collection
from typing import Protocol

from esm.errors import Conflict, OperatorNeeded, StoreTooNew, Unavailable
from esm.model.clocks import Instant
from esm.model.stored import Key
from esm.model.worker import ASYNC
from esm.rules import buckets
from esm.rules.buckets import BUCKETS, bucket_of
from esm.runtime.surroundings import Signal, Stop, Surroundings

OWNERS = Key("lease", ASYNC, "owners")

ADDED = "async:added"
"""What is said to have moved when an event was put into a bucket of somebody else."""

LOOK_EVERY_S = 30.0
"""How often the item is read when nobody said that it has changed."""

LOOK_AGAIN_S = 1.0
"""The same while this worker has not got, or not let go, what it should."""


class Ownership(Protocol):
    """The buckets of one worker."""

    def owned(self) -> Collection[int]:
        """Those that this worker serves now."""
        ...

    def pick(self, request_id: str) -> int:
        """The bucket for a new event: one of this worker's, if it has any."""
        ...


class AllBuckets:
    """The buckets of a worker that nobody shares the store with."""

    def owned(self) -> Collection[int]:
        """All."""
        return range(BUCKETS)

    def pick(self, request_id: str) -> int:
        """See `Ownership`."""
        return bucket_of(request_id)


class BucketOwner:
    """The buckets of one worker among several. `run` ends by cancellation and survives every error of the store."""

    def __init__(
        self, around: Surroundings, stop: Stop, is_busy: Callable[[int], bool],
        gained: Callable[[Collection[int]], None],
    ) -> None:  # fmt: skip
        """`is_busy` says whether an event of a bucket is being tried; `gained` hears of buckets to look into."""
        self._around = around
        self._stop = stop
        self._is_busy = is_busy
        self._gained = gained
        self._mine: frozenset[int] = frozenset()
        self._term = -1
        self._added: object = None

    def owned(self) -> Collection[int]:
        """See `Ownership`."""
        is_held = self._around.members.holds(self._term, self._around.clock.now())
        return self._mine if is_held and not self._stop.is_set else ()

    def pick(self, request_id: str) -> int:
        """See `Ownership`."""
        if mine := sorted(self.owned()):
            return mine[bucket_of(request_id) % len(mine)]
        self._around.members.moved(ADDED)
        return bucket_of(request_id)

    async def run(self) -> None:
        """Claim and release, at once when workers come and go."""
        members, clock = self._around.members, self._around.clock
        wake = Signal()
        with members.offering(ASYNC), members.offering(ADDED), members.watching(wake):
            while True:
                is_settled = await self.look()
                self._look_at_added()
                wait_s = LOOK_EVERY_S if is_settled else LOOK_AGAIN_S
                await wake.wait_until(clock, Instant(clock.now() + wait_s))

    async def look(self) -> bool:
        """Claim what is free and should be this worker's, release what should not; True: nothing is left to do."""
        try:
            return await self._look()
        except (Unavailable, OperatorNeeded, StoreTooNew) as error:
            self._around.telemetry.store_failed("async", str(error))
            return False

    async def _look(self) -> bool:
        members, store = self._around.members, self._around.store
        term = members.term
        item = await store.get(OWNERS)
        before = buckets.decode(item.value) if item is not None else buckets.NOBODY
        members.tell(ASYNC, {str(bucket): owner for bucket, owner in enumerate(before)})
        should = frozenset() if self._stop.is_set else frozenset(int(name) for name in members.mine(ASYNC))
        after = tuple([await self._owner(bucket, owner, should, term) for bucket, owner in enumerate(before)])
        if after != before:
            try:
                await store.put(OWNERS, buckets.encode(after), item.version if item is not None else None)
            except Conflict:
                return False
            members.tell(ASYNC, {str(bucket): owner for bucket, owner in enumerate(after)})
            members.moved(ASYNC)
        held = frozenset(bucket for bucket, owner in enumerate(after) if owner == members.owner)
        more = (held & should) - (self._mine if self._term == term else frozenset())
        self._mine, self._term = held & should, term
        if more:
            self._gained(more)
        return held == should

    async def _owner(self, bucket: int, owner: str, should: frozenset[int], term: int) -> str:
        """Who owns a bucket after this look."""
        members = self._around.members
        if owner == members.owner:
            return owner if bucket in should or self._is_busy(bucket) else ""
        if bucket not in should or not members.holds(term, self._around.clock.now()):
            return owner
        return members.owner if not owner or await members.is_gone(owner) else owner

    def _look_at_added(self) -> None:
        added = self._around.members.epoch(ADDED)
        if added != self._added:
            self._added = added
            self._gained(self.owned())
