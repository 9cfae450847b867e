"""The only writer of desired state: what operators want of mappings, whichever process they ask.

Laws: every change is a compare-and-swap of one item, then the change counter is raised, which every daemon looks at
once a second. Nothing here touches a lease of a mapping that may run: its owner follows the order.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from esm.catalogue.workers import everything, words
from esm.errors import Conflict, RequestRefused
from esm.model.clocks import UnixTime
from esm.model.control import Caller, Control, Order, Pause
from esm.model.lease import Lease
from esm.model.stored import Key, Stored
from esm.ports import Blobs, Store
from esm.rules import controls, heartbeats, operating, starting, stored
from esm.rules.sightings import Word
from esm.rules.starting import START_ITEM, Start

CHANGES = Key(*heartbeats.PARTITION, "!changes")
"""The change counter, in the partition of the heartbeats: one query brings both. `!` sorts before every worker."""

CONTROLS = ("catalogue", "control")
"""Kind and owner of the controls, one item a mapping."""

_OF_MAPPINGS = ("lease", "window", "listing")
"""Kinds whose partitions belong to one mapping each."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the store holds of the positions of one mapping."""

    start: Start | None
    leases: tuple[Lease, ...]
    """Those of the stream that was read last."""


class Catalogue:
    """Desired state in a store. Every method raises Unavailable, StoreTooNew, and OperatorNeeded (no value of ours)."""

    def __init__(self, store: Store, blobs: Blobs | None = None) -> None:
        """`blobs`: where states of windows lie that are larger than an item."""
        self._store = store
        self._blobs = blobs

    async def changes(self) -> int:
        """Differs from what it was before whenever desired state has changed; 0: it never has."""
        item = await self._store.get(CHANGES)
        return item.version if item is not None else 0

    async def controls(self) -> list[Control]:
        """Of every mapping that an operator wants something of."""
        return [controls.decode(item.value) for item in await self._all(*CONTROLS)]

    async def control(self, mapping: str) -> Control:
        """Of one mapping."""
        item = await self._store.get(_control_key(mapping))
        return Control(mapping) if item is None else controls.decode(item.value)

    async def pause(self, mapping: str, at: UnixTime, by: Caller) -> bool:
        """Let a mapping rest until it is resumed; False: it rests already, since when it was first asked."""
        return await self._change(
            mapping, lambda control: control if control.pause else replace(control, pause=Pause(at, by))
        )  # fmt: skip

    async def resume(self, mapping: str) -> bool:
        """Let a paused mapping go on; False: it was not paused."""
        return await self._change(mapping, lambda control: replace(control, pause=None))

    async def order(self, mapping: str, order: Order) -> Order:
        """Store an order under the next number, and return it so. Raises: RequestRefused (too many wait)."""
        leases = (await self.held(mapping)).leases
        made = [order]

        def with_order(control: Control) -> Control:
            made[0] = replace(order, number=control.last_number + 1)
            return operating.with_order(control, made[0], leases)

        await self._change(mapping, with_order)
        return made[0]

    async def held(self, mapping: str) -> Held:
        """Leases and beginning of a mapping."""
        items = await self._all("lease", mapping)
        start = next((starting.decode(item.value) for item in items if item.key.item == START_ITEM), None)
        leases = [stored.decode_lease(item.value) for item in items if item.key.item != START_ITEM]
        return Held(start, tuple([lease for lease in leases if start is not None and lease.stream == start.stream]))

    async def words(self, also: Collection[str] = ()) -> list[Word]:
        """What every worker said last; `also`: ids of workers that may write no heartbeat."""
        return await words(self._store, also)

    async def stands(self, mapping: str, also: Collection[str] = ()) -> dict[str, int]:
        """How much the store holds of a mapping, by kind; `also` as in `words`."""
        counts = {kind: len(await self._all(kind, mapping)) for kind in _OF_MAPPINGS}
        for kind, key in _keys(mapping).items():
            counts[kind] = int(await self._store.get(key) is not None)
        shown = [word for word in await self.words(also) if any(view.uuid == mapping for view in word.views)]
        return {**counts, "status": len(shown)}

    async def forget(self, mapping: str, also: Collection[str] = ()) -> int:
        """Remove everything of a mapping that does not run; returns how many items went.

        `also` as in `words`: the status of any worker may still name it.
        """
        count = await self._clear(mapping)
        for word in await self.words(also):
            count += await self._forget_status(mapping, word.worker)
        await self.touch()
        return count

    async def touch(self) -> None:
        """Raise the change counter: every daemon looks at desired state, and writes its status."""
        while True:
            item = await self._store.get(CHANGES)
            try:
                await self._store.put(
                    CHANGES, controls.raised(item.value if item else None), item.version if item else None
                )
            except Conflict:
                continue
            return

    async def _change(self, mapping: str, change: Callable[[Control], Control]) -> bool:
        key = _control_key(mapping)
        while True:
            item = await self._store.get(key)
            before = Control(mapping) if item is None else controls.decode(item.value)
            after = change(before)
            if after == before:
                return False
            try:
                await self._store.put(key, controls.encode(after), item.version if item else None)
            except Conflict:
                continue
            await self.touch()
            return True

    async def _clear(self, mapping: str) -> int:
        """Remove what is kept of a mapping, but for what workers show; returns how many items there were."""
        items = [item for kind in _OF_MAPPINGS for item in await self._all(kind, mapping)]
        items += [item for key in _keys(mapping).values() if (item := await self._store.get(key)) is not None]
        for item in items:
            await remove_blob(item, self._blobs)
        for item in items:
            await self._remove(item)
        return len(items)

    async def _forget_status(self, mapping: str, worker: str) -> int:
        count = 0
        for item in await self._all("status", worker):
            rest = stored.without_mapping(item.value, mapping)
            if rest is not None:
                count += 1
                try:
                    await self._store.put(item.key, rest, item.version)
                except Conflict:
                    continue
        return count

    async def _remove(self, item: Stored) -> None:
        try:
            await self._store.delete(item.key, item.version)
        except Conflict as error:
            raise RequestRefused(
                f"{item.key.kind} {item.key.item!r} of {item.key.owner} has changed meanwhile: something runs the"
                " mapping. Stop that, and forget the mapping again."
            ) from error

    async def _all(self, kind: str, owner: str) -> list[Stored]:
        return await everything(self._store, kind, owner)


async def remove_blob(item: Stored, blobs: Blobs | None) -> None:
    """Remove the blob that an item of a window's state stands for; its item goes afterwards.

    Raises: RequestRefused (nobody says where it lies), Unavailable.
    """
    blob = stored.state_blob(item.value) if item.key.kind == "window" else None
    if blob is None:
        return
    if blobs is None:
        raise RequestRefused(f"The state of a window of {item.key.owner} lies in a bucket: name it (ESM_BLOBS).")
    await blobs.delete(blob)


def _control_key(mapping: str) -> Key:
    return Key(*CONTROLS, mapping)


def _keys(mapping: str) -> dict[str, Key]:
    """Single items that belong to a mapping, by what they are."""
    return {"control": _control_key(mapping), "share": Key("share", "fleet", mapping)}
