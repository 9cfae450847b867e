"""StreamRunner: one Kinesis or DynamoDB mapping. It knows the shards, follows their lineage, and runs one task for each
that this worker should own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio

from esm.errors import EsmError, LeaseLost, OperatorNeeded, StoreTooNew, Unavailable
from esm.model.clocks import Instant
from esm.model.lease import Lease
from esm.model.mapping import Mapping
from esm.model.position import Shard, StreamFacts
from esm.model.record import ChildShard
from esm.model.view import ShardView
from esm.ports import Destination, StreamSource, Target
from esm.rules import operating
from esm.rules.lineage import Lineage
from esm.rules.scaling import Pressure
from esm.runtime.gate import Gate
from esm.runtime.giving_up import Notifier
from esm.runtime.invoker import Invoker
from esm.runtime.knowing import known, report
from esm.runtime.leasing import Leases, ShardLease
from esm.runtime.listing import Listing
from esm.runtime.observation import Observation
from esm.runtime.orders import Following, Orders
from esm.runtime.shard import ShardRunner, child_shards
from esm.runtime.surroundings import Signal, Stop, Surroundings

T = TypeVar("T")

LIST_EVERY_S = 30.0
"""How often the shards are listed; the end of a shard lists them at once."""

LIST_AFTER_END_S = 2.0
"""Pause between listings for a while after a shard has ended: its children may be listed late."""

LATE_CHILDREN_S = 60.0
"""How long children may be late."""

LEASES_EVERY_S = 30.0
"""How often leases are read that nobody said had changed."""

LEASES_AGAIN_S = 2.0
"""Pause after leases could not be read."""

FORGET_AFTER_S = 3600.0
"""A finished shard's mark stays until it has been missing from the listing twice, this far apart."""

CONCURRENCY_MAX = 10_000
"""Invocations at once where the target sets no bound: above any shards x ParallelizationFactor of one worker."""


class StreamRunner:
    """Runs one stream mapping until stopped or cancelled."""

    def __init__(
        self, around: Surroundings, mapping: Mapping, source: StreamSource, target: Target,
        destination: Destination | None, observation: Observation, orders: Orders | None = None,
    ) -> None:  # fmt: skip
        self._around = around
        self._source = source
        self._destination = destination
        self._observation = observation
        self._target = target
        self._gate = Gate(Pressure(self._concurrency()))
        self._invoker = Invoker(around, target, self._gate, observation)
        self._lineage = Lineage()
        self._running: dict[str, ShardRunner] = {}
        self._starting: dict[str, Stop] = {}
        """The stop of each shard that is claimed, run or ended."""
        self._terms: dict[str, int] = {}
        """The term of this worker in which each of them was begun."""
        self._owners: dict[str, str] = {}
        """Who had each unfinished shard when the leases were read last."""
        self._leases_at = Instant(0.0)
        self._epoch: object = None
        self._finishes = 0
        self._without_owner = 0
        self._listing = Listing(around, mapping, source)
        self._list_at = Instant(0.0)
        self._orders = orders or Orders()
        self._obeyed = self._orders.standing
        """Those that the lineage knows: a shard that followed newer ones could be read before its ancestors."""
        self._listed: set[str] = set()
        self._missing_since: dict[str, Instant] = {}
        self._wake = Signal()
        self._facts = StreamFacts("", 0.0)
        self._ended_at = Instant(-LATE_CHILDREN_S)
        self.mapping = mapping
        self.stop = Stop()
        observation.shards = self._views
        observation.shards_without_owner = lambda: self._without_owner

    def update(self, mapping: Mapping) -> bool:
        """Take over changed delivery parameters from the next batch on; False: a restart is needed."""
        if (mapping.function_arn, mapping.on_failure) != (self.mapping.function_arn, self.mapping.on_failure):
            return False
        if mapping.invocation_type is not self.mapping.invocation_type:
            return False
        self.mapping = mapping
        self._warn()
        for shard in self._running.values():
            shard.look_again()
        return True

    async def run(self) -> None:
        """List, claim and run shards until `stop` is set and every shard has ended.

        Survives Unavailable and OperatorNeeded of source, target, destination and store.
        """
        facts = await self._known("source", self._source.facts)
        if facts is None:
            return
        self._facts = facts
        self._warn()
        if await self._known("function", self._target.facts) is None:
            return
        leases = Leases(
            self._around, self.mapping, facts.identity, self.mapping.lanes, lambda: self._obeyed
        )  # fmt: skip
        if await self._known("store", lambda: self._begin(leases)) is None:
            return
        if not self.stop.is_set:
            self._observation.runs()
        members = self._around.members
        async with anyio.create_task_group() as shards, self._obeying(leases):
            with members.watching(self._wake), members.offering(self.mapping.uuid):
                while not self.stop.is_set:
                    with self.stop.interruptible():
                        await self._follow(leases, shards)
                    if self._facts.identity != facts.identity:
                        self._observation.telemetry.warned("the stream was made again: it is read from its beginning")
                        shards.cancel_scope.cancel()
                        return
                    with self.stop.interruptible():
                        await self._wake.wait_until(self._around.clock, min(self._list_at, self._leases_at))

    def _warn(self) -> None:
        """Windows go before parallelism. Source: lambda.md 11.8."""
        if self.mapping.lanes != self.mapping.parallelization_factor:
            self._observation.telemetry.warned(
                "TumblingWindowInSeconds is set: ParallelizationFactor is taken as 1",
                parallelization_factor=self.mapping.parallelization_factor,
            )

    def _concurrency(self) -> int:
        bound = self._target.concurrency
        return CONCURRENCY_MAX if bound is None else max(1, bound)

    def _retention_s(self) -> float:
        return self._facts.retention_s

    async def _known(self, where: str, ask: Callable[[], Awaitable[T]]) -> T | None:
        return await known(self._around, self.stop, self._observation, where, ask)

    async def _begin(self, leases: Leases) -> bool:
        _, listing = await self._listing.look()
        await leases.begin(self.mapping, listing)
        self._epoch = self._around.members.epoch(self.mapping.uuid)
        stored = await leases.load()
        self._leases_at = Instant(self._around.clock.now() + LEASES_EVERY_S)
        self._owners = {lease.shard: lease.owner for lease in stored if not lease.is_finished}
        self._listed = {shard.id for shard in listing}
        self._obeyed = self._orders.standing
        self._lineage = Lineage(leases.finished(stored, self._listed))
        self._lineage.found(Shard(lease.shard, lease.parents) for lease in stored)
        self._lineage.listed(listing)
        return True

    async def _follow(self, leases: Leases, shards: anyio.abc.TaskGroup) -> None:
        """One look at stream and leases: start and end what should be read here now."""
        clock = self._around.clock
        if clock.now() >= self._list_at:
            before = self._facts
            await self._list(leases)
            self._list_at = self._list_again_at()
            if self._facts.identity != before.identity:
                return
        epoch = self._around.members.epoch(self.mapping.uuid)
        if epoch != self._epoch or clock.now() >= self._leases_at:
            await self._look_at_leases(leases, epoch)
        self._gate.set_limit_max(self._concurrency())
        await self._share_out(leases, shards)

    async def _list(self, leases: Leases) -> None:
        """Know the shards that there are."""
        try:
            before = self._facts
            self._facts, listing = await self._listing.look()
            if self._facts.identity != before.identity:
                return
            self._listed = {shard.id for shard in listing}
            self._lineage.listed(listing)
            for parent in self._lineage.doubts():
                if not await self._source.exists(parent):
                    self._lineage.gone(parent)
            if self._around.members.lists(self.mapping.uuid):
                await self._forget(leases)
        except (Unavailable, OperatorNeeded, StoreTooNew) as error:
            report(self._observation, "source", error)
        else:
            self._observation.mended("source")

    async def _look_at_leases(self, leases: Leases, epoch: object) -> None:
        """Know who has what: `epoch` is that of the others before the leases are read."""
        finishes = self._finishes
        try:
            found = await leases.load()
        except (Unavailable, OperatorNeeded, StoreTooNew) as error:
            report(self._observation, "store", error)
            self._leases_at = Instant(self._around.clock.now() + LEASES_AGAIN_S)
            return
        self._observation.mended("store")
        if finishes != self._finishes:
            return  # a shard has ended here meanwhile: what was read does not know it
        self._epoch = epoch
        self._leases_at = Instant(self._around.clock.now() + LEASES_EVERY_S)
        unfinished = {lease.shard: lease.owner for lease in found if not lease.is_finished}
        if self._owners.keys() - unfinished.keys():
            self._ended_at = self._around.clock.now()
            self._list_at = min(self._list_at, self._list_again_at())
        self._owners = unfinished
        self._lineage.found(Shard(lease.shard, lease.parents) for lease in found)
        self._lineage.reopen(leases.finished(found, self._listed))

    async def _share_out(self, leases: Leases, shards: anyio.abc.TaskGroup) -> None:
        """Begin what this worker should own and nobody has, and let go of the rest."""
        members, now = self._around.members, self._around.clock.now()
        ready = self._ready()
        members.tell(self.mapping.uuid, {
            shard: members.owner if shard in self._starting else self._owners.get(shard, "") for shard in ready
        })  # fmt: skip
        mine = set(members.mine(self.mapping.uuid))
        for shard, stop in self._starting.items():
            if shard not in mine or not members.holds(self._terms[shard], now):
                stop.set(Instant(float("inf")))
        for shard in sorted(mine & ready.keys() - self._starting.keys()):
            is_free = members.may_be_free(self._owners.get(shard, ""))
            if is_free and members.holds(members.term, now) and not self.stop.is_set:
                self._starting[shard], self._terms[shard] = Stop(), members.term
                shards.start_soon(self._run_shard, leases, ready[shard])
        self._without_owner = sum(
            shard not in self._starting and members.may_be_free(self._owners.get(shard, "")) for shard in ready
        )
        await self._let_strays_go(leases, mine)

    def _ready(self) -> dict[str, Shard]:
        """The shards that may be read now, by id: not those before one that is still being read."""
        members = self._around.members
        read = {shard for shard, owner in self._owners.items() if not members.may_be_free(owner)}
        later = set[str]().union(*[self._lineage.ancestors(shard) for shard in read | self._starting.keys()])
        return {shard.id: shard for shard in self._lineage.ready() if shard.id not in later}

    async def _let_strays_go(self, leases: Leases, mine: set[str]) -> None:
        """Release what the store says is this worker's, and nothing here runs: the release was not stored."""
        me = self._around.members.owner
        for shard in [
            one for one, owner in self._owners.items() if owner == me and one not in mine | self._starting.keys()
        ]:
            try:
                await leases.let_go(shard)
            except EsmError as error:
                self._around.telemetry.store_failed("release", str(error))
                return
            self._owners[shard] = ""

    async def _run_shard(self, leases: Leases, shard: Shard) -> None:
        """Claim and run one shard, again when its lanes change; ends when it is finished, stopped, or lost.

        Its stop comes alone where an order is for it: then it starts anew, and follows the order first.
        """
        notifier = Notifier(self._around, self._destination, self._observation, self._retention_s)
        try:
            with self.stop.part(self._starting[shard.id]) as stop:
                while not stop.is_set:
                    lease = await known(self._around, stop, self._observation, "store", lambda: leases.claim(shard))
                    if isinstance(lease, Lease):
                        self._owners[shard.id] = lease.owner
                        return
                    if lease is None or not await self._obeys(lease, notifier, stop):
                        return
                    if await self._runs(lease, notifier, stop):
                        return
        except* LeaseLost as lost:
            self._observation.telemetry.warned(str(lost.exceptions[0]))
        finally:
            self._running.pop(shard.id, None)
            self._starting.pop(shard.id, None)
            self._leases_at = Instant(0.0)
            self._around.members.moved(self.mapping.uuid)
            self._wake.notify()

    async def _obeys(self, lease: ShardLease, notifier: Notifier, stop: Stop) -> bool:
        following = Following(
            self._around, lambda: self.mapping, self._source, notifier, self._observation, stop
        )  # fmt: skip
        return await following.follow(lease, self._obeyed)

    async def _runs(self, lease: ShardLease, notifier: Notifier, stop: Stop) -> bool:
        """Run a claimed shard; True when it is finished."""
        shard_id = lease.lease.shard
        runner = ShardRunner(
            self._around, lease, self._source, lambda: self.mapping, self._invoker, self._gate, notifier,
            self._observation, stop, self._retention_s, self._announce,
        )  # fmt: skip
        self._running[shard_id] = runner
        self._observation.telemetry.shard_started(shard_id, lease.lease.generation)
        if not await runner.run():
            return False
        self._observation.telemetry.shard_finished(shard_id)
        self._finishes += 1
        self._list_at = Instant(0.0)
        self._owners.pop(shard_id, None)
        self._lineage.finish(shard_id)
        self._ended_at = self._around.clock.now()
        with stop.interruptible():
            await self._ask_for_children(shard_id)
        return True

    def _announce(self, children: tuple[ChildShard, ...]) -> None:
        self._lineage.found(child_shards(children))

    async def _ask_for_children(self, shard_id: str) -> None:
        try:
            children = await self._source.children(shard_id)
        except (Unavailable, OperatorNeeded) as error:
            report(self._observation, "source", error)
        else:
            self._lineage.found(children or ())

    async def _forget(self, leases: Leases) -> None:
        """Remove marks of finished shards that the source has forgotten for an hour."""
        now = self._around.clock.now()
        candidates = self._lineage.forgettable()
        self._missing_since = {shard: self._missing_since.get(shard, now) for shard in candidates}
        for shard, since in self._missing_since.items():
            if now - since >= FORGET_AFTER_S:
                await leases.forget(shard)
                self._lineage.forget(shard)

    def _list_again_at(self) -> Instant:
        now = self._around.clock.now()
        is_read = bool(self._running) or any(self._owners.values())
        is_soon = not is_read or now - self._ended_at < LATE_CHILDREN_S or bool(self._lineage.doubts())
        return Instant(now + (LIST_AFTER_END_S if is_soon else LIST_EVERY_S))

    def _views(self) -> tuple[ShardView, ...]:
        return tuple([self._running[shard].view() for shard in sorted(self._running)])

    @asynccontextmanager
    async def _obeying(self, leases: Leases) -> AsyncIterator[None]:
        """Follow orders while the body runs."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._obey_forever, leases)
            yield
            tasks.cancel_scope.cancel()

    async def _obey_forever(self, leases: Leases) -> None:
        while True:
            if self._obeyed is self._orders.standing:
                await self._orders.changed.wait()
            if await self._known("store", lambda: self._obey(leases)) is None:
                return

    async def _obey(self, leases: Leases) -> bool:
        """End the shards that have an order to follow, or must wait for ancestors that are read again."""
        found = {lease.shard: lease for lease in await leases.load()}
        orders = self._obeyed = self._orders.standing
        self._lineage.reopen(leases.finished(found.values(), self._listed))
        ready = {shard.id for shard in self._lineage.ready()}
        for shard, stop in self._starting.items():
            lease = found.get(shard)
            if lease is None or shard not in ready or operating.pending(lease, orders):
                stop.set(self._around.clock.now())
        self._wake.notify()
        return True
