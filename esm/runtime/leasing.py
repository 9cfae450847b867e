"""Leases of one stream mapping: who reads a shard, and how far it is. Every write is conditional, so a position, and
the tumbling window that belongs to it, can only be stored by the newest claim's owner.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from esm.errors import Conflict, LeaseLost
from esm.model.clocks import Instant, UnixTime
from esm.model.control import Order
from esm.model.lease import Lease
from esm.model.mapping import Mapping
from esm.model.position import Position, Shard
from esm.model.stored import Key
from esm.model.window import OpenWindow, StoredState
from esm.ports import Clock
from esm.rules import operating, starting, stored
from esm.rules.progress import ahead
from esm.rules.starting import START_ITEM, Start
from esm.runtime.surroundings import Surroundings
from esm.runtime.window_states import WindowStates


@dataclass(frozen=True, slots=True)
class Takeover:
    """A shard comes from another worker: how long nobody read it counts until it is read here."""

    kind: Literal["planned", "crash"]
    released_at: UnixTime | None
    """By its last owner, on that one's clock."""
    silent_since: Instant | None

    def seconds(self, clock: Clock) -> float:
        """How long it has taken by now."""
        if self.silent_since is not None:
            return max(0.0, clock.now() - self.silent_since)
        return max(0.0, clock.wall() - (self.released_at or clock.wall()))


class ShardLease:
    """A claimed shard. Each save names the version before it: a stale owner gets LeaseLost."""

    def __init__(
        self, around: Surroundings, lease: Lease, version: int, states: WindowStates, window: OpenWindow | None,
        before: Lease | None = None, term: int = 0,
    ) -> None:  # fmt: skip
        self._around = around
        self.term = term
        """Of this worker, when it claimed: in a later one the shard may have another owner."""
        self._version = version
        self._states = states
        self.lease = lease
        self.takeover = _takeover(around, before)
        """Where the shard came from another worker."""
        self.window = window
        """The open tumbling window as it is stored; replaced, never changed."""

    async def save(
        self, positions: Sequence[Position], window: OpenWindow | None = None, *,
        is_finished: bool = False, before: tuple[Position, ...] | None = None,
    ) -> None:  # fmt: skip
        """Store positions, and the window that belongs to them, in one write. Raises: LeaseLost, Unavailable.

        `before`: those of the lanes that end with this; they are kept until `positions` have passed them.
        """
        pointer = await self._pointer(window)
        layouts = self.lease.done if before is None else (*self.lease.done, before)
        lease = replace(
            self.lease, positions=tuple(positions), window=pointer, is_finished=is_finished, factor=len(positions),
            done=() if is_finished else ahead(layouts, positions),
        )  # fmt: skip
        await self._put(lease)
        self.window = window
        await self._states.remove_others(pointer)

    async def replace(self, lease: Lease) -> None:
        """Store the lease as an order has changed it; a window that it dropped goes. Raises: LeaseLost, Unavailable."""
        await self._put(lease)
        if lease.window is None:
            self.window = None
        await self._states.remove_others(lease.window)

    async def state(self) -> bytes:
        """The state of the stored window. Raises: Unavailable, StoreTooNew, OperatorNeeded (a part is missing)."""
        assert self.lease.window is not None
        return (await self._states.read(self.lease.window)).state

    async def _pointer(self, window: OpenWindow | None) -> StoredState | None:
        """Where the state stands: written now, unless it is the one that is stored already."""
        if window is None or window is self.window:
            return None if window is None else self.lease.window
        before = self.lease.window
        if window.is_hollow and before is not None and window.last is not None:
            return replace(before, last=window.last)
        if before is None or self.window is None or self.window.state != window.state or window.last is None:
            return await self._states.write(window, before)
        return replace(before, start_s=window.start_s, end_s=window.end_s, last=window.last)

    async def release(self) -> None:
        """Let another worker claim the shard at once. Raises: LeaseLost, Unavailable."""
        await self._put(replace(self.lease, owner="", released_at=self._around.clock.wall()))

    async def _put(self, lease: Lease) -> None:
        if lease == self.lease:
            return
        value = stored.encode_lease(lease)
        while True:
            try:
                self._version = await self._around.store.put(_key(lease), value, self._version)
            except Conflict as error:
                await self._adopt(lease, error)
            else:
                self.lease = lease
                return

    async def _adopt(self, lease: Lease, conflict: Conflict) -> None:
        """A write of ours, whose answer was cancelled, is no other owner: the generation is the fence."""
        item = await self._around.store.get(_key(lease))
        found = stored.decode_lease(item.value) if item else None
        if item is None or found is None or (found.owner, found.generation) != (self.lease.owner, lease.generation):
            raise LeaseLost(f"shard {lease.shard} of mapping {lease.mapping} has another owner") from conflict
        self._version = item.version


class Leases:
    """All leases of one mapping on one stream."""

    def __init__(
        self, around: Surroundings, mapping: Mapping, stream: str, factor: int,
        orders: Callable[[], tuple[Order, ...]] = tuple,
    ) -> None:  # fmt: skip
        self._around = around
        self._orders = orders
        self._uuid = mapping.uuid
        self._stream = stream
        self._factor = factor
        self._start = Start(stream, "")

    async def load(self) -> list[Lease]:
        """Leases of this stream, as stored. Raises: StoreTooNew, Unavailable."""
        leases: list[Lease] = []
        after: str | None = START_ITEM
        while True:
            page = await self._around.store.scan("lease", self._uuid, after)
            leases += [stored.decode_lease(item.value) for item in page.items]
            after = page.after
            if after is None:
                return [lease for lease in leases if lease.stream == self._stream]

    async def begin(self, mapping: Mapping, shards: Sequence[Shard]) -> Start:
        """The pinned beginning: the stored one, or resolved now. Raises: Unavailable, StoreTooNew."""
        key = Key("lease", self._uuid, START_ITEM)
        while True:
            item = await self._around.store.get(key)
            before = starting.decode(item.value) if item else None
            if before is not None and before.stream == self._stream:
                self._start = before
                return before
            start = starting.pin(mapping, self._stream, shards, self._around.clock.wall(), before)
            try:
                await self._around.store.put(key, starting.encode(start), item.version if item else None)
            except Conflict:
                continue
            self._start = start
            return start

    def finished(self, leases: Iterable[Lease], listed: Container[str]) -> list[str]:
        """The shards that need no reader, as orders leave them."""
        return operating.finished(leases, self._start.skipped, self._stream, self._orders(), listed)

    async def claim(self, shard: Shard) -> ShardLease | Lease:
        """Take a shard over, from its stored positions or its first one; the lease as it is, where its owner lives.

        Raises: Unavailable, StoreTooNew.
        """
        key = Key("lease", self._uuid, shard.id)
        members = self._around.members
        while True:
            term = members.term
            item = await self._around.store.get(key)
            before = stored.decode_lease(item.value) if item else None
            if (
                before is not None
                and before.owner not in ("", members.owner)
                and not await members.is_gone(before.owner)
            ):
                return before
            lease = self._claimed(shard, before)
            try:
                version = await self._around.store.put(key, stored.encode_lease(lease), item.version if item else None)
            except Conflict:
                continue
            members.moved(self._uuid)
            return await self._with_window(lease, version, before, term)

    async def let_go(self, shard_id: str) -> None:
        """Release a lease of this worker that nothing here runs: an earlier release did not reach the store.

        Raises: Unavailable, StoreTooNew.
        """
        key = Key("lease", self._uuid, shard_id)
        item = await self._around.store.get(key)
        lease = stored.decode_lease(item.value) if item else None
        if item is None or lease is None or lease.owner != self._around.members.owner:
            return
        released = replace(lease, owner="", released_at=self._around.clock.wall())
        try:
            await self._around.store.put(key, stored.encode_lease(released), item.version)
        except Conflict:
            return
        self._around.members.moved(self._uuid)

    async def forget(self, shard_id: str) -> None:
        """Remove the lease of a finished shard that the source has forgotten. Raises: Unavailable."""
        key = Key("lease", self._uuid, shard_id)
        item = await self._around.store.get(key)
        if item is not None and stored.decode_lease(item.value).is_finished:
            await self._without_states(stored.decode_lease(item.value))
            try:
                await self._around.store.delete(key, item.version)
            except Conflict:
                return

    async def _with_window(self, lease: Lease, version: int, before: Lease | None, term: int) -> ShardLease:
        """The state is read after the claim: from then on no earlier owner can put another in its place."""
        states = WindowStates(self._around, lease)
        window = None if lease.window is None else await states.read(lease.window)
        await states.find()
        await states.remove_others(lease.window)
        return ShardLease(self._around, lease, version, states, window, before, term)

    async def _without_states(self, lease: Lease) -> None:
        states = WindowStates(self._around, lease)
        await states.find()
        await states.remove_others(None)

    def _claimed(self, shard: Shard, before: Lease | None) -> Lease:
        generation = before.generation + 1 if before else 1
        if before is not None and before.stream == self._stream:
            return replace(before, owner=self._around.members.owner, generation=generation, released_at=None)
        first, obeyed = operating.first_position(
            shard.id, self._stream, self._orders(), starting.first_position(self._start, shard.id),
            is_left_out=shard.id in self._start.skipped,
        )  # fmt: skip
        return Lease(
            mapping=self._uuid, shard=shard.id, stream=self._stream, owner=self._around.members.owner,
            generation=generation, factor=self._factor, positions=(first,) * self._factor, parents=shard.parents,
            obeyed=obeyed,
        )  # fmt: skip


def _takeover(around: Surroundings, before: Lease | None) -> Takeover | None:
    """None where there was no owner, where it was this worker, or where it ended before this one began."""
    members, clock = around.members, around.clock
    if before is None or before.owner == members.owner:
        return None
    if before.owner:
        silent_s = members.silent_s(before.owner)
        return None if silent_s is None else Takeover("crash", None, Instant(clock.now() - silent_s))
    if before.released_at is None or clock.wall() - before.released_at > members.age_s:
        return None
    return Takeover("planned", before.released_at, None)


def _key(lease: Lease) -> Key:
    return Key("lease", lease.mapping, lease.shard)
