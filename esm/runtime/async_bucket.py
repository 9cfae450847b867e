"""Asynchronous events in the store: one partition for each bucket and function, so that no function's backlog stands
before another's, and so that a bucket can be leased as a whole.

Law: a change of an event writes the new item before it removes the old one. A crash between the two leaves both: the
event is tried once more than it had to be, and never lost.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from esm.errors import Conflict, EsmError, OperatorNeeded, Unavailable
from esm.model.arn import Arn
from esm.model.async_event import AsyncEvent
from esm.model.clocks import UnixTime
from esm.model.stored import Blob, Key, Stored
from esm.rules import async_stored
from esm.rules.async_stored import Found
from esm.runtime.surroundings import Surroundings

KIND = "async"

_FUNCTIONS = "functions"
"""Partition that names every function that ever had an event."""

LEFTOVER_S = 900.0
"""Parts older than this that no event names were left by a crash: writing an event never takes so long."""

LOOK_VALUES_MAX = 5
"""Values that one look into a bucket holds at a time: what it has found, and what it goes through."""

_BLOB = "blob"
"""In the place of a part's number: the marker of a body that is a blob."""

_PARTS_PAGE = 8
"""Parts looked at in one go: they are large."""


class PartsMissing(EsmError):
    """A stored event names parts, or a blob, that are not there or not what they were: someone has changed them."""


@dataclass(frozen=True, slots=True)
class Held:
    """A stored event that is being worked on."""

    bucket: int
    stored: Stored
    found: Found

    @property
    def item(self) -> str:
        """Its place in the bucket."""
        return self.stored.key.item


@dataclass(frozen=True, slots=True)
class Look:
    """What a look into a bucket brought."""

    due: tuple[Held, ...]
    next_at: UnixTime | None
    """When the first event is due that is not among `due`; None: there is none."""


class AsyncBuckets:
    """The events of one function. Every method raises Unavailable when the store cannot be reached."""

    def __init__(self, around: Surroundings, function: Arn) -> None:
        self._around = around
        self._function = str(function.unqualified)
        self._is_named = False

    async def add(self, event: AsyncEvent, due_at: UnixTime, bucket: int) -> None:
        """Store an event: it is safe when this returns."""
        if not self._is_named:
            await self._put_once(Key(KIND, _FUNCTIONS, self._function), b'{"format":1}')
            self._is_named = True
        wall_ms = max(0, round(self._around.clock.wall() * 1000))
        name = f"{wall_ms:015d}-{event.request_id}-{self._around.new_id()[-12:]}"
        blob = await self._put_blob(bucket, name, event)
        value, parts = async_stored.encode(event, name, blob)
        for number, part in enumerate(parts):
            await self._put_once(self._part(bucket, name, f"{number:03d}"), part)
        await self._put_once(self._key(bucket, async_stored.item(due_at, event.request_id)), value)

    async def due(self, bucket: int, wall: UnixTime, busy: AbstractSet[str], most: int) -> Look:
        """Up to `most` events (fewer than `LOOK_VALUES_MAX`) that are due and not `busy`, oldest first.

        Raises also: StoreTooNew, OperatorNeeded where a value is none of ours.
        """
        found: list[Held] = []
        after: str | None = None
        while True:
            page = await self._around.store.scan(KIND, self._owner(bucket), after, LOOK_VALUES_MAX - len(found))
            for item in page.items:
                if item.key.item in busy:
                    continue
                at = async_stored.due_at(item.key.item)
                if at > wall or len(found) == most:
                    return Look(tuple(found), at)
                found.append(Held(bucket, item, async_stored.decode(item.value)))
            after = page.after
            if after is None:
                return Look(tuple(found), None)

    async def load(self, held: Held) -> tuple[AsyncEvent, tuple[Stored, ...]]:
        """The whole event, and its parts. Raises also: PartsMissing."""
        if held.found.blob is not None:
            return await self._load_blob(held, held.found.blob)
        parts: list[Stored] = []
        for number in range(held.found.parts):
            part = await self._around.store.get(self._part(held.bucket, held.found.parts_name, f"{number:03d}"))
            if part is None:
                raise PartsMissing(f"part {number} of the event {held.item} is gone")
            parts.append(part)
        body = b"".join([part.value for part in parts]) if parts else held.found.body
        return async_stored.event_of(held.found, body), tuple(parts)

    async def remove(self, held: Held, parts: Sequence[Stored]) -> None:
        """Forget an event; it may be gone already."""
        await self._delete(held.stored)
        if held.found.blob is not None and self._around.blobs is not None:
            await self._around.blobs.delete(held.found.blob)
        for part in parts:
            await self._delete(part)

    async def count(self, bucket: int) -> int:
        """How many events a bucket holds."""
        found = 0
        after: str | None = None
        while True:
            page = await self._around.store.scan(KIND, self._owner(bucket), after, 100)
            found += len(page.items)
            after = page.after
            if after is None:
                return found

    async def clean(self, bucket: int) -> int:
        """Remove parts that a crash has left; returns how many."""
        removed = 0
        after: str | None = None
        owner = f"{self._owner(bucket)}/parts"
        old_ms = (self._around.clock.wall() - LEFTOVER_S) * 1000
        while True:
            page = await self._around.store.scan(KIND, owner, after, _PARTS_PAGE)
            old = [part for part in page.items if int(part.key.item[:15]) < old_ms]
            named = await self._named(bucket, {_name(part) for part in old}) if old else set()
            for part in old:
                if _name(part) not in named and await self._forget_blob(part):
                    await self._delete(part)
                    removed += 1
            after = page.after
            if after is None:
                return removed

    async def _put_blob(self, bucket: int, name: str, event: AsyncEvent) -> Blob | None:
        """The blob that holds the event's body, once it does; None where the store itself takes the event."""
        blobs = self._around.blobs
        if blobs is None or async_stored.fits(event):
            return None
        body = async_stored.body_of(event)
        blob = Blob.of(f"{KIND}/{self._owner(bucket)}/{name}", body)
        await self._put_once(self._part(bucket, name, _BLOB), async_stored.encode_marker(blob))
        await blobs.put(blob, body)
        return blob

    async def _load_blob(self, held: Held, blob: Blob) -> tuple[AsyncEvent, tuple[Stored, ...]]:
        blobs = self._around.blobs
        if blobs is None:
            raise Unavailable(f"The body of the event {held.item} lies in a bucket: name it again (ESM_BLOBS).")
        try:
            body = await blobs.get(blob)
        except OperatorNeeded as error:
            raise PartsMissing(str(error)) from error
        if body is None:
            raise PartsMissing(f"the blob of the event {held.item} is gone")
        marker = await self._around.store.get(self._part(held.bucket, held.found.parts_name, _BLOB))
        return async_stored.event_of(held.found, body), () if marker is None else (marker,)

    async def _forget_blob(self, part: Stored) -> bool:
        """Whether nothing is left of what a part stands for: a marker's blob goes first, if it can be reached."""
        if not part.key.item.endswith(f"-{_BLOB}"):
            return True
        if self._around.blobs is None:
            return False
        try:
            blob = async_stored.decode_marker(part.value)
        except OperatorNeeded:  # left to the version that wrote it
            return False
        await self._around.blobs.delete(blob)
        return True

    async def _named(self, bucket: int, names: set[str]) -> set[str]:
        """Those of the parts' names that an event bears."""
        found: set[str] = set()
        after: str | None = None
        while True:
            page = await self._around.store.scan(KIND, self._owner(bucket), after, 100)
            found |= {async_stored.decode(item.value).parts_name for item in page.items} & names
            after = page.after
            if after is None:
                return found

    async def _put_once(self, key: Key, value: bytes) -> None:
        """Write; what is there already is the same, written by a try whose answer was lost."""
        try:
            await self._around.store.put(key, value, None)
        except Conflict:
            return

    async def _delete(self, stored: Stored) -> None:
        try:
            await self._around.store.delete(stored.key, stored.version)
        except Conflict:
            return

    def _owner(self, bucket: int) -> str:
        return f"{bucket:02d}/{self._function}"

    def _key(self, bucket: int, item: str) -> Key:
        return Key(KIND, self._owner(bucket), item)

    def _part(self, bucket: int, name: str, part: str) -> Key:
        return Key(KIND, f"{self._owner(bucket)}/parts", f"{name}-{part}")


async def functions_with_events(around: Surroundings) -> list[Arn]:
    """Every function, unqualified, that ever had an event here. Raises: Unavailable."""
    found: list[Arn] = []
    after: str | None = None
    while True:
        page = await around.store.scan(KIND, _FUNCTIONS, after)
        found += [Arn.parse(item.key.item) for item in page.items]
        after = page.after
        if after is None:
            return found


def _name(part: Stored) -> str:
    return part.key.item.rsplit("-", 1)[0]
