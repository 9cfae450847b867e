"""States of tumbling windows in the store.

Law: a state is written to items of its own before the lease that points to it, and removed after the lease has moved
on, so that position and state change in the one write of the lease. An item's content is written once: its name
holds the generation of the lease and a number that only grows. What a crash leaves behind is removed at the next claim.
"""

from esm.errors import Conflict, OperatorNeeded, Unavailable
from esm.model.lease import Lease
from esm.model.stored import Key
from esm.model.window import OpenWindow, StoredState
from esm.rules import stored
from esm.runtime.surroundings import Surroundings


class WindowStates:
    """The states of one shard, as one owner writes them."""

    def __init__(self, around: Surroundings, lease: Lease) -> None:
        self._around = around
        self._mapping = lease.mapping
        self._shard = lease.shard
        self._generation = lease.generation
        self._number = 0
        self._written: dict[Key, int | None] = {}
        """Items that may exist, with their version where it is known."""

    async def write(self, window: OpenWindow, last: StoredState | None) -> StoredState:
        """Write a state; `last` is what the lease pointed to. Raises: Unavailable."""
        assert window.last is not None
        self._number += 1
        values = stored.encode_state(window.state, self._around.formats.write)
        found = StoredState(
            window.start_s, window.end_s, window.last, self._generation, self._number, len(values), len(window.state),
            last.extra if last is not None else {},
        )  # fmt: skip
        for key, value in zip(self._keys(found), values, strict=True):
            self._written[key] = None
            self._written[key] = await self._around.store.put(key, value, None)
        return found

    async def read(self, pointer: StoredState) -> OpenWindow:
        """The window that a lease points to. Raises: Unavailable, StoreTooNew, OperatorNeeded (a part is missing)."""
        values = []
        for key in self._keys(pointer):
            item = await self._around.store.get(key)
            if item is None:
                raise OperatorNeeded(
                    f"The state of shard {self._shard}'s tumbling window lacks its item {key.item}: the store was"
                    " changed by hand or restored in part. Restore it whole, or begin with an empty one (ESM_STATE)."
                )
            self._written[key] = item.version
            values.append(item.value)
        return OpenWindow(pointer.start_s, pointer.end_s, stored.decode_state(values, pointer), pointer.last)

    async def remove_others(self, pointer: StoredState | None) -> None:
        """Remove what was written and is not pointed to any more; what cannot be removed now is tried next time."""
        kept = set(self._keys(pointer)) if pointer is not None else set()
        for key in [key for key in self._written if key not in kept]:
            try:
                await self._remove(key, self._written[key])
            except Unavailable as error:
                self._around.telemetry.store_failed("remove window state", str(error))
                return
            del self._written[key]

    async def find(self) -> None:
        """Take over everything that the store holds of the shard, for `remove_others`. Raises: Unavailable."""
        after: str | None = f"{self._shard}!"
        while after is not None:
            page = await self._around.store.scan("window", self._mapping, after)
            mine = [item for item in page.items if item.key.item.startswith(f"{self._shard}!")]
            self._written.update({item.key: item.version for item in mine})
            after = page.after if len(mine) == len(page.items) else None

    async def _remove(self, key: Key, version: int | None) -> None:
        """An item holds one state for ever, whoever has written it again in another format."""
        while True:
            if version is None:
                item = await self._around.store.get(key)
                if item is None:
                    return
                version = item.version
            try:
                await self._around.store.delete(key, version)
            except Conflict:
                version = None
            else:
                return

    def _keys(self, pointer: StoredState) -> list[Key]:
        name = f"{self._shard}!{pointer.generation:012d}!{pointer.number:012d}"
        return [Key("window", self._mapping, f"{name}!{part:03d}") for part in range(pointer.parts)]
