"""What the workers of a store say of themselves: heartbeats and status items, read together."""

from collections.abc import Callable, Collection

from esm.errors import EsmError, OperatorNeeded, StoreTooNew
from esm.model.stored import Stored
from esm.model.worker import Heartbeat
from esm.ports import Store
from esm.rules import heartbeats, stored
from esm.rules.sightings import Word

NO_WORKER = "!"
"""Items of the heartbeats' partition that begin so are something else."""

Unreadable = Callable[[str, EsmError], None]


async def words(
    store: Store, also: Collection[str] = (), *, with_released: bool = True, unreadable: Unreadable | None = None
) -> list[Word]:
    """What every worker said last, by id: those with a heartbeat, and those of `also` that have a status.

    `with_released`: also the views of workers that have ended. `unreadable`: told of a worker whose words are none of
    ours, which is left out then. Raises: Unavailable; without `unreadable` StoreTooNew and OperatorNeeded.
    """
    beats: dict[str, Stored | None] = {
        item.key.item: item
        for item in await everything(store, *heartbeats.PARTITION)
        if not item.key.item.startswith(NO_WORKER)
    }
    found = []
    for worker in sorted({*beats, *also}):
        try:
            word = await _word(store, worker, beats.get(worker), with_released=with_released)
        except (StoreTooNew, OperatorNeeded) as error:
            if unreadable is None:
                raise
            unreadable(worker, error)
        else:
            found += [word] if word.heartbeat is not None or word.reported_at is not None else []
    return found


async def everything(store: Store, kind: str, owner: str) -> list[Stored]:
    """A whole partition, page by page. Raises: Unavailable."""
    items: list[Stored] = []
    after: str | None = None
    while True:
        page = await store.scan(kind, owner, after)
        items += page.items
        after = page.after
        if after is None:
            return items


async def _word(store: Store, worker: str, item: Stored | None, *, with_released: bool) -> Word:
    heartbeat: Heartbeat | None = None if item is None else heartbeats.decode(item.value)
    if heartbeat is not None and heartbeat.is_released and not with_released:
        return Word(worker, heartbeat, None, ())
    parts = [stored.decode_status(part.value) for part in await everything(store, "status", worker)]
    reported_at = max([part.at for part in parts], default=None)
    return Word(worker, heartbeat, reported_at, tuple(stored.merged_status(parts)))
