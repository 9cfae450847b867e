"""Fleet: this worker among its replicas. It beats, watches the others, and knows who should own what.

Laws: every worker writes one item however many shards it owns. It may start an invocation only while its last
heartbeat is younger than the failover time less a margin; nobody takes over from it before the failover time has passed
without one. Once it may have been taken for dead, nothing that it owned counts as its own any more. Source: design
section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import anyio

from esm.errors import Conflict, OperatorNeeded, StoreTooNew, Unavailable
from esm.model.clocks import Instant
from esm.model.stored import Key, Stored
from esm.model.worker import Heartbeat, HostLock, Known, is_mapping, owner_name, worker_of
from esm.ports import Clock, Store
from esm.rules import heartbeats, shares, stored
from esm.rules.assignment import weight
from esm.rules.board import Board
from esm.rules.liveness import Liveness
from esm.runtime.membership import Alone
from esm.runtime.shares import Share, ShareKeeper
from esm.runtime.surroundings import Formats, Signal
from esm.telemetry import Telemetry

BEATS = 4
"""Heartbeats in a failover time."""

LOOK_EVERY_S = 1.0
"""How often the heartbeats' partition is read."""

LEASES_EVERY_S = 30.0
"""How often leases are read that nobody said had changed."""

TRUST_MARGIN_S = 1.0
"""A worker stops starting work this long before the others may take it for dead."""

GATHER_S = 0.1
"""Changes within this time are told by one heartbeat."""

RETRY_S = 0.5
"""Pause after a heartbeat or a look that failed."""

RELEASE_S = 2.0
"""How long the last heartbeat may take."""

FIRST_BEAT = 1

NEVER = Instant(float("inf"))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is."""

    worker: str
    run: str
    format: int
    lock: HostLock | None = None
    ended: tuple[str, ...] = ()
    """Earlier runs of the same id whose end is proved."""
    is_sole: bool = False
    """Nobody else can use this store while this worker does: whoever else is named is gone."""
    failover_s: float = 10.0


class Fleet:
    """Implements `Membership` for replicas. Survives Unavailable; ends by cancellation."""

    def __init__(
        self, identity: Identity, clock: Clock, store: Store, telemetry: Telemetry, formats: Formats,
        is_free: Callable[[HostLock], bool] = lambda _: False,
    ) -> None:  # fmt: skip
        """`is_free` says that the process which held a lock on this machine has ended."""
        self._me = identity
        self._clock = clock
        self._store = store
        self._telemetry = telemetry
        self._formats = formats
        self._is_free = is_free
        self._keeper = ShareKeeper(self, clock, store, telemetry)
        self._liveness = Liveness(identity.failover_s, clock.now())
        self._board = Board()
        self._signals: dict[Signal, int] = {}
        self._version: int | None = None
        self._beat = 0
        self._has_joined = anyio.Event()
        self._joined_at: Instant | None = None
        self._is_leaving = self._is_released = False
        self._offered: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._digests: Mapping[str, str] = {}
        self._busy: set[str] = set()
        self._broken: set[str] = set()
        self._unlisted: set[str] = set()
        self._to_tell = Signal()
        self._has_news = False
        self._trust = Signal()
        self._foreign: dict[str, tuple[object, Instant]] = {}
        self._seen: object = None
        self._live: list[Heartbeat] | None = None
        """What `live` answers until somebody says something else: loops ask all the time."""
        self.changes = 0
        """Version of the change counter of desired state, as it was seen last."""
        self.beaten_at: Instant | None = None
        """When the last heartbeat that was written was sent."""
        self.term = 0

    @property
    def owner(self) -> str:
        """See `Membership`."""
        return owner_name(self._me.worker, self._me.run)

    @property
    def formats(self) -> Formats:
        """In which one this worker writes: changed as workers come and go that read other ones."""
        return self._formats

    @property
    def is_sole(self) -> bool:
        """See `Membership`."""
        return self._me.is_sole

    @property
    def trusted_until(self) -> Instant:
        """See `Membership`."""
        if self._me.is_sole:
            return NEVER
        if self.beaten_at is None:
            return Instant(float("-inf"))
        return Instant(self.beaten_at + self._me.failover_s - TRUST_MARGIN_S)

    def holds(self, term: int, now: Instant) -> bool:
        """See `Membership`."""
        return term == self.term and now < self.trusted_until

    @property
    def live(self) -> list[Heartbeat]:
        """Heartbeats of the workers that are not gone, this one as it is now."""
        if self._live is None:
            others = [one for one in self._liveness.live if one.worker != self._me.worker]
            others = [] if self._me.is_sole else others
            self._live = sorted([*others, self._heartbeat(self._beat)], key=lambda one: one.worker)
        return self._live

    def follow(self, digests: Mapping[str, str]) -> None:
        """What the configuration has of each mapping: equal digests run alike."""
        self._digests = digests

    async def run(self) -> None:
        """Beat and watch. Raises: OperatorNeeded when another process has taken this worker's id."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._beat_forever)
            tasks.start_soon(self._look_forever)
            tasks.start_soon(self._watch_trust)
            tasks.start_soon(self._keeper.run)

    async def wait_joined(self) -> None:
        """Return when this worker beats and knows the others, and so in which format to write."""
        await self._has_joined.wait()

    @property
    def heartbeat_age_s(self) -> float | None:
        """Since the last heartbeat that was written; None before the first."""
        return None if self.beaten_at is None else self._clock.now() - self.beaten_at

    def leave(self) -> None:
        """This worker drains: others take over what it lets go."""
        self._is_leaving = True
        self._tell()

    async def release(self) -> None:
        """This worker has ended and owns nothing; without this the others find it out a little later."""
        self._is_leaving = self._is_released = True
        with anyio.move_on_after(RELEASE_S):
            while True:
                try:
                    await self._put()
                except Unavailable as error:
                    self._telemetry.store_failed("release", str(error))
                    await anyio.sleep(RETRY_S)
                else:
                    return

    @contextmanager
    def watching(self, signal: Signal) -> Iterator[None]:
        """See `Membership`."""
        self._signals[signal] = self._signals.get(signal, 0) + 1
        try:
            yield
        finally:
            self._signals[signal] -= 1
            if not self._signals[signal]:
                del self._signals[signal]

    @contextmanager
    def offering(self, uuid: str) -> Iterator[None]:
        """See `Membership`."""
        self._offered[uuid] = self._offered.get(uuid, 0) + 1
        self._renew()
        try:
            yield
        finally:
            self._offered[uuid] -= 1
            if not self._offered[uuid]:
                del self._offered[uuid]
                self._board.forget(uuid)
                for facts in (self._busy, self._broken, self._unlisted):
                    facts.discard(uuid)
            self._renew()

    def tell(self, uuid: str, shards: Mapping[str, str]) -> None:
        """See `Membership`."""
        self._board.tell(uuid, dict(shards))

    def mine(self, uuid: str) -> Collection[str]:
        """See `Membership`."""
        if not self._has_joined.is_set() or self._is_leaving:
            return ()
        return self._board.should_own(self._me.worker, uuid)

    def moved(self, uuid: str) -> None:
        """See `Membership`."""
        self._epochs[uuid] = self._epochs.get(uuid, 0) + 1
        self._tell()

    def epoch(self, uuid: str) -> object:
        """See `Membership`."""
        return tuple([
            (one.owner, epoch)
            for one in self._liveness.heartbeats
            if one.owner != self.owner and (epoch := one.epoch(uuid))
        ])  # fmt: skip

    async def is_gone(self, owner: str) -> bool:
        """See `Membership`."""
        if self._me.is_sole:
            return owner != self.owner
        if self._liveness.is_gone(owner) and self._liveness.is_silent(owner):
            item = await self._store.get(heartbeats.key(worker_of(owner)))
            if item is not None:
                self._liveness.saw(heartbeats.decode(item.value), self._clock.now())
                self._live = None
        return self._liveness.is_gone(owner)

    def may_be_free(self, owner: str) -> bool:
        """See `Membership`."""
        return owner in ("", self.owner) or self._me.is_sole or self._liveness.is_gone(owner)

    @property
    def age_s(self) -> float:
        """See `Membership`."""
        return 0.0 if self._joined_at is None else self._clock.now() - self._joined_at

    def silent_s(self, owner: str) -> float | None:
        """See `Membership`."""
        seen_at = self._liveness.seen_at(owner)
        return None if seen_at is None else max(0.0, self._clock.now() - seen_at)

    def lists(self, uuid: str) -> bool:
        """See `Membership`."""
        return self.is_lister(uuid, self.owner)

    def is_lister(self, uuid: str, owner: str) -> bool:
        """See `Membership`."""
        peers = self._peers(uuid)
        able = [one for one in peers if uuid not in one.unlisted] or peers
        return not able or owner == max(able, key=lambda one: weight(one.worker, (uuid, ""))).owner

    def listed(self, uuid: str, *, is_able: bool) -> None:
        """See `Membership`."""
        self._note(self._unlisted, uuid, holds=not is_able)

    def peers(self, uuid: str) -> Collection[str]:
        """See `Membership`."""
        return [one.worker for one in self._peers(uuid)]

    def sharers(self, subject: str) -> Collection[str]:
        """Owner names of the workers that have a part of a bound; of a function's until they have ended."""
        stays = subject.startswith(shares.FUNCTION)
        return [one.owner for one in self.live if subject in one.mappings and (stays or not one.is_leaving)]

    def sharing(
        self, subject: str, limit: Callable[[], int], in_use: Callable[[], int]
    ) -> AbstractContextManager[Share]:
        """See `Membership`."""
        if self._me.is_sole:
            return Alone(self.owner).sharing(subject, limit, in_use)
        return self._keeper.holding(subject, limit, in_use)

    def is_busy(self, uuid: str) -> bool:
        """See `Membership`."""
        return any(uuid in one.busy for one in self._peers(uuid))

    def busy(self, uuid: str, *, is_busy: bool) -> None:
        """See `Membership`."""
        self._note(self._busy, uuid, holds=is_busy)

    def may_probe(self, uuid: str) -> bool:
        """See `Membership`."""
        broken = [one.worker for one in self._peers(uuid) if uuid in one.broken]
        return not broken or self._me.worker == max(broken, key=lambda worker: weight(worker, (uuid, "")))

    def broken(self, uuid: str, *, is_broken: bool) -> None:
        """See `Membership`."""
        self._note(self._broken, uuid, holds=is_broken)

    def _peers(self, uuid: str) -> list[Heartbeat]:
        return [one for one in self.live if uuid in one.mappings and not one.is_leaving]

    @property
    def _candidates(self) -> list[Heartbeat]:
        """Those who are to have a part of the shards."""
        return [one for one in self.live if one.owner == self.owner or not self._liveness.is_doubtful(one.owner)]

    def _note(self, facts: set[str], uuid: str, *, holds: bool) -> None:
        if (uuid in facts) != holds:
            (facts.add if holds else facts.discard)(uuid)
            self._tell()
            self._notify()

    def _renew(self) -> None:
        """Something that this worker says of itself has changed: others hear it soon, its own loops at once."""
        self._tell()
        self._board.follow(self._candidates)
        self._notify()

    def _tell(self) -> None:
        self._live = None
        self._has_news = True
        self._to_tell.notify()

    def _notify(self) -> None:
        for signal in [self._keeper.changed, *self._signals]:
            signal.notify()

    def _heartbeat(self, beat: int) -> Heartbeat:
        known = {uuid: Known(self._digests.get(uuid, ""), self._epochs.get(uuid, 0)) for uuid in self._offered}
        moves = {uuid: epoch for uuid, epoch in self._epochs.items() if uuid not in self._offered}
        return Heartbeat(
            worker=self._me.worker, run=self._me.run, beat=beat, format=self._me.format, at=self._clock.wall(),
            is_leaving=self._is_leaving, is_released=self._is_released, mappings=known, busy=frozenset(self._busy),
            broken=frozenset(self._broken), unlisted=frozenset(self._unlisted), lock=self._me.lock,
            moves=moves, ended=self._me.ended,
        )  # fmt: skip

    async def _beat_forever(self) -> None:
        while True:
            wait_s = self._me.failover_s / BEATS
            try:
                await self._put()
            except Unavailable as error:
                self._telemetry.store_failed("heartbeat", str(error))
                wait_s = RETRY_S
            with anyio.move_on_after(wait_s):
                if not self._has_news:
                    await self._to_tell.wait()
                await anyio.sleep(GATHER_S)

    async def _put(self) -> None:
        """One heartbeat. Raises: Unavailable, OperatorNeeded."""
        sent_at = self._clock.now()
        self._has_news = False
        key = heartbeats.key(self._me.worker)
        while True:
            heartbeat = self._heartbeat(self._beat + 1)
            try:
                self._version = await self._store.put(key, heartbeats.encode(heartbeat), self._version)
            except Conflict:
                await self._adopt(key)
            except BaseException:
                self._has_news = True
                raise
            else:
                break
        self._beat += 1
        if self.beaten_at is not None and self._clock.now() >= self.trusted_until:  # it may have come too late
            self.term += 1
            self._notify()
        self.beaten_at = sent_at
        self._trust.notify()

    async def _adopt(self, key: Key) -> None:
        item = await self._store.get(key)
        self._version = item.version if item is not None else None
        if item is not None and self._beat >= FIRST_BEAT and heartbeats.decode(item.value).run != self._me.run:
            raise OperatorNeeded(
                f"Another process works as {self._me.worker} on this state: give each one an id of its own"
                " (ESM_WORKER_ID). This one stops."
            )

    async def _watch_trust(self) -> None:
        """Say so when this worker may be taken for dead, while it still is."""
        while True:
            if self.beaten_at is None:
                await self._trust.wait()
            elif self._clock.now() < self.trusted_until:
                await self._clock.sleep_until(self.trusted_until)
            else:
                self._telemetry.distrusted(self._clock.now() - self.beaten_at)
                self._notify()
                await self._trust.wait()

    async def _look_forever(self) -> None:
        while True:
            try:
                await self._look()
            except Unavailable as error:
                self._telemetry.store_failed("heartbeats", str(error))
            except (StoreTooNew, OperatorNeeded) as error:
                self._telemetry.store_failed("heartbeats", str(error))
            if self.beaten_at is None:
                await anyio.sleep(RETRY_S / 10)
            else:
                await anyio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        """One look at the others; loops hear of it where something has changed.

        Raises: Unavailable, StoreTooNew, OperatorNeeded.
        """
        items = await self._scan(*heartbeats.PARTITION)
        self.changes = max([item.version for item in items if item.key.item.startswith("!")], default=0)
        found = [heartbeats.decode(item.value) for item in items if not item.key.item.startswith("!")]
        before = {one.owner: one.beat for one in self._liveness.heartbeats}
        self._liveness.looked(found, self._clock.now())
        for one in self._liveness.live:
            is_still = before.get(one.owner, 0) == one.beat and one.owner != self.owner
            if is_still and one.lock is not None and self._is_free(one.lock):
                self._liveness.ended(one.owner)
        self._live = None
        self._formats.follow([one.format for one in self.live])
        has_new_leases = await self._look_at_foreign()
        candidates = tuple([one.owner for one in self._candidates])
        seen: object = (
            tuple([_without_beat(one) for one in self.live]), candidates, self._liveness.gone, self.changes
        )  # fmt: skip
        if self.beaten_at is not None and not self._has_joined.is_set():
            self._has_joined.set()
            self._joined_at = self._clock.now()
            seen = (seen, "joined")
        if seen != self._seen or has_new_leases:
            self._seen = seen
            self._board.follow(self._candidates)
            self._telemetry.workers([one.worker for one in self.live if not one.is_leaving])
            self._notify()
        await self._tidy(items)

    async def _look_at_foreign(self) -> bool:
        """Know the leases of mappings that only others run: they count in what is a fair part."""
        wanted = {uuid for one in self.live for uuid in one.mappings if is_mapping(uuid)} - self._offered.keys()
        for uuid in self._foreign.keys() - wanted:
            del self._foreign[uuid]
            if uuid not in self._offered:
                self._board.forget(uuid)
        has_changed = False
        for uuid in sorted(wanted):
            epoch, now = self.epoch(uuid), self._clock.now()
            known = self._foreign.get(uuid)
            if known is not None and known[0] == epoch and now - known[1] < LEASES_EVERY_S:
                continue
            items = [one for one in await self._scan("lease", uuid) if not one.key.item.startswith("!")]
            try:
                leases = [stored.decode_lease(item.value) for item in items]
            except (StoreTooNew, OperatorNeeded) as error:  # it counts for nothing, and holds up no other mapping
                self._telemetry.unreadable("lease", f"mapping {uuid}: {error}")
                continue
            if uuid not in self._offered:
                self._board.tell(uuid, {one.shard: one.owner for one in leases if not one.is_finished})
                self._foreign[uuid] = (epoch, now)
                has_changed = True
        return has_changed

    async def _tidy(self, items: list[Stored]) -> None:
        """Remove heartbeats and status of workers that are gone for long: pods get new names at every rollout."""
        versions = {item.key.item: item.version for item in items}
        for one in self._liveness.forgettable:
            if one.worker == self._me.worker:
                continue
            try:
                for item in await self._scan("status", one.worker):
                    await self._store.delete(item.key, item.version)
                await self._store.delete(heartbeats.key(one.worker), versions[one.worker])
            except Conflict:
                continue

    async def _scan(self, kind: str, owner: str) -> list[Stored]:
        items: list[Stored] = []
        after: str | None = None
        while True:
            page = await self._store.scan(kind, owner, after)
            items += page.items
            after = page.after
            if after is None:
                return items


def _without_beat(heartbeat: Heartbeat) -> object:
    return (
        heartbeat.owner, heartbeat.is_leaving, heartbeat.busy, heartbeat.broken, heartbeat.unlisted,
        tuple([(uuid, known.epoch) for uuid, known in sorted(heartbeat.mappings.items())]),
        tuple(sorted(heartbeat.moves.items())),
    )  # fmt: skip
