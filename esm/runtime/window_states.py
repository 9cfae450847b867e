"""States of tumbling windows in the store.

Law: a state is written to items of its own before the lease that points to it, and removed after the lease has moved
on, so that position and state change in the one write of the lease. An item is written once: its name holds the
generation of the lease and a number that only grows. What a crash leaves behind is removed at the next claim. A state
that one item cannot hold is a blob where there are blobs: its item is written before it and removed after it, so that
nothing is in the bucket that the store does not know.
"""

from __future__ import annotations

from dataclasses import dataclass

from esm.errors import Conflict, OperatorNeeded, StoreTooNew, Unavailable
from esm.model.lease import Lease
from esm.model.stored import Blob, Key
from esm.model.window import OpenWindow, StoredState
from esm.rules import stored
from esm.runtime.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class _Item:
    """What is known of a written item."""

    version: int | None
    blob: Blob | None


class WindowStates:
    """The states of one shard, as one owner writes them."""

    def __init__(self, around: Surroundings, lease: Lease) -> None:
        self._around = around
        self._mapping = lease.mapping
        self._shard = lease.shard
        self._generation = lease.generation
        self._number = 0
        self._written: dict[Key, _Item] = {}
        """Items that may exist."""

    async def write(self, window: OpenWindow, last: StoredState | None) -> StoredState:
        """Write a state; `last` is what the lease pointed to. Raises: Unavailable."""
        assert window.last is not None
        self._number += 1
        values, blob = self._values(window)
        found = StoredState(
            window.start_s, window.end_s, window.last, self._generation, self._number, len(values), len(window.state),
            last.extra if last is not None else {},
        )  # fmt: skip
        for key, value in zip(self._keys(found), values, strict=True):
            self._written[key] = _Item(None, blob)
            self._written[key] = _Item(await self._around.store.put(key, value, None), blob)
        if blob is not None and self._around.blobs is not None:
            await self._around.blobs.put(blob, window.state)
        return found

    async def read(self, pointer: StoredState) -> OpenWindow:
        """The window that a lease points to. Raises: Unavailable, StoreTooNew, OperatorNeeded (a part is missing)."""
        values = []
        for key in self._keys(pointer):
            item = await self._around.store.get(key)
            if item is None:
                raise self._lacks(f"its item {key.item}")
            self._written[key] = _Item(item.version, stored.state_blob(item.value))
            values.append(item.value)
        blob = self._written[self._keys(pointer)[0]].blob
        state = stored.decode_state(values, pointer) if blob is None else await self._in_blob(blob)
        return OpenWindow(pointer.start_s, pointer.end_s, state, pointer.last)

    async def remove_others(self, pointer: StoredState | None) -> None:
        """Remove what was written and is not pointed to any more; what cannot be removed now is tried next time."""
        kept = set(self._keys(pointer)) if pointer is not None else set()
        for key in [key for key in self._written if key not in kept]:
            try:
                await self._remove(key, self._written[key])
            except (Unavailable, OperatorNeeded) as error:
                self._around.telemetry.store_failed("remove window state", str(error))
                return
            del self._written[key]

    async def find(self) -> None:
        """Take over everything that the store holds of the shard, for `remove_others`. Raises: Unavailable."""
        after: str | None = f"{self._shard}!"
        while after is not None:
            page = await self._around.store.scan("window", self._mapping, after)
            mine = [item for item in page.items if item.key.item.startswith(f"{self._shard}!")]
            for item in mine:
                try:
                    self._written[item.key] = _Item(item.version, stored.state_blob(item.value))
                except (OperatorNeeded, StoreTooNew):  # left to the version that wrote it
                    continue
            after = page.after if len(mine) == len(page.items) else None

    def _values(self, window: OpenWindow) -> tuple[list[bytes], Blob | None]:
        """The values of a new state's items, and the blob that holds it where they do not."""
        if self._around.blobs is None or len(window.state) <= stored.STATE_PART_BYTES:
            return stored.encode_state(window.state), None
        name = f"{self._shard}!{self._generation:012d}!{self._number:012d}"
        blob = Blob.of(f"window/{self._mapping}/{name}", window.state)
        return [stored.encode_state_blob(blob)], blob

    async def _in_blob(self, blob: Blob) -> bytes:
        if self._around.blobs is None:
            raise OperatorNeeded(
                f"The state of shard {self._shard}'s tumbling window lies in a bucket: name it again (ESM_BLOBS)."
            )
        state = await self._around.blobs.get(blob)
        if state is None:
            raise self._lacks(f"its blob {blob.owner}/{blob.sha256}")
        return state

    def _lacks(self, what: str) -> OperatorNeeded:
        return OperatorNeeded(
            f"The state of shard {self._shard}'s tumbling window lacks {what}: the store was changed by hand or"
            " restored in part. Restore it whole, or begin with an empty one (ESM_STATE)."
        )

    async def _remove(self, key: Key, written: _Item) -> None:
        """Items are written once: one that is not there, or is another's by now, needs no removal."""
        version = written.version
        if written.blob is not None:
            if self._around.blobs is None:
                raise OperatorNeeded(f"The blob {written.blob.owner} stays where it is: name its bucket (ESM_BLOBS).")
            await self._around.blobs.delete(written.blob)
        if version is None:
            item = await self._around.store.get(key)
            if item is None:
                return
            version = item.version
        try:
            await self._around.store.delete(key, version)
        except Conflict:
            return

    def _keys(self, pointer: StoredState) -> list[Key]:
        name = f"{self._shard}!{pointer.generation:012d}!{pointer.number:012d}"
        return [Key("window", self._mapping, f"{name}!{part:03d}") for part in range(pointer.parts)]
