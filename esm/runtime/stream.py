"""StreamRunner: one Kinesis or DynamoDB mapping. It lists shards, follows their lineage, and runs one task a shard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio

from esm.errors import LeaseLost, OperatorNeeded, Unavailable
from esm.model.clocks import Instant
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

    def update(self, mapping: Mapping) -> bool:
        """Take over changed delivery parameters from the next batch on; False: a restart is needed."""
        if (mapping.function_arn, mapping.on_failure) != (self.mapping.function_arn, self.mapping.on_failure):
            return False
        if mapping.invocation_type is not self.mapping.invocation_type:
            return False
        self.mapping = mapping
        self._warn()
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
        async with anyio.create_task_group() as shards, self._obeying(leases):
            while not self.stop.is_set:
                with self.stop.interruptible():
                    await self._follow(leases, shards)
                if self._facts.identity != facts.identity:
                    self._observation.telemetry.warned("the stream was made again: it is read from its beginning")
                    shards.cancel_scope.cancel()
                    return
                with self.stop.interruptible():
                    await self._wake.wait_until(self._around.clock, self._list_again_at())

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
        listing = await self._source.shards()
        await leases.begin(self.mapping, listing)
        stored = await leases.load()
        self._listed = {shard.id for shard in listing}
        self._obeyed = self._orders.standing
        self._lineage = Lineage(leases.finished(stored, self._listed))
        self._lineage.found(Shard(lease.shard, lease.parents) for lease in stored)
        self._lineage.listed(listing)
        return True

    async def _follow(self, leases: Leases, shards: anyio.abc.TaskGroup) -> None:
        """One look at the stream: start what may be read now."""
        try:
            before, self._facts = self._facts, await self._source.facts()
            if self._facts.identity != before.identity:
                return
            listing = await self._source.shards()
            self._listed = {shard.id for shard in listing}
            self._lineage.listed(listing)
            for parent in self._lineage.doubts():
                if not await self._source.exists(parent):
                    self._lineage.gone(parent)
            await self._forget(leases)
        except (Unavailable, OperatorNeeded) as error:
            report(self._observation, "source", error)
        else:
            self._observation.mended("source")
        self._gate.set_limit_max(self._concurrency())
        later = set[str]().union(*[self._lineage.ancestors(shard) for shard in self._starting])
        for shard in self._lineage.ready():
            if shard.id not in self._starting and shard.id not in later and not self.stop.is_set:
                self._starting[shard.id] = Stop()
                shards.start_soon(self._run_shard, leases, shard)

    async def _run_shard(self, leases: Leases, shard: Shard) -> None:
        """Claim and run one shard, again when its lanes change; ends when it is finished, stopped, or lost.

        Its stop comes alone where an order is for it: then it starts anew, and follows the order first.
        """
        notifier = Notifier(self._around, self._destination, self._observation, self._retention_s)
        try:
            with self.stop.part(self._starting[shard.id]) as stop:
                while not stop.is_set:
                    lease = await known(self._around, stop, self._observation, "store", lambda: leases.claim(shard))
                    if lease is None or not await self._obeys(lease, notifier, stop):
                        return
                    if await self._runs(lease, notifier, stop):
                        return
        except* LeaseLost as lost:
            self._observation.telemetry.warned(str(lost.exceptions[0]))
        finally:
            self._running.pop(shard.id, None)
            self._starting.pop(shard.id, None)
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
        is_soon = not self._running or now - self._ended_at < LATE_CHILDREN_S or bool(self._lineage.doubts())
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
