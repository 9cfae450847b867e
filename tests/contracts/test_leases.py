"""Position and window state of a shard move in one write, on every store, whoever dies or claims when."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from esm.catalogue import Catalogue
from esm.errors import LeaseLost, OperatorNeeded, RequestRefused, Unavailable
from esm.model.clocks import UnixTime
from esm.model.position import AfterSequence, Shard
from esm.model.stored import Blob, Key
from esm.model.window import OpenWindow
from esm.ports import Blobs, Store
from esm.runtime.leasing import Leases, ShardLease
from esm.runtime.surroundings import ByteBudget, Surroundings, SystemClock
from esm.stores import open_store
from esm.stores.blobs import MemoryBlobs
from esm.stores.memory import MemoryStore
from esm.telemetry import Telemetry
from tests.simulation.world import stream_mapping

MAPPING = stream_mapping(tumbling_window_s=60)
SHARD = Shard("shard-1")
LARGE = b'{"a":"' + b"x" * 1_000_000 + b'"}'


class Failing:
    """A store, and its blobs, that die at their n-th call: before or after the call has done its work."""

    def __init__(self, inner: Store, calls: int, *, after: bool) -> None:
        self._inner = inner
        self._calls = calls
        self._after = after
        self.blobs = None if not hasattr(inner, "blobs") else _FailingToo(self, inner.blobs)

    def __getattr__(self, name: str) -> Any:
        return self.failing(getattr(self._inner, name))

    def failing(self, ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            self._calls -= 1
            if self._calls < 0 or (self._calls == 0 and not self._after):
                raise Unavailable("dead")
            result = await ask(*arguments)
            if self._calls == 0:
                raise Unavailable("dead")
            return result

        return call


class _FailingToo:
    def __init__(self, store: Failing, inner: Blobs) -> None:
        self._store = store
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return self._store.failing(getattr(self._inner, name))


class WithBlobs(MemoryStore):
    """A store beside which large states lie."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs = MemoryBlobs()


def blobs_of(store: Store) -> set[Blob]:
    return set(store.blobs._held) if isinstance(store, WithBlobs) else set()


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Store]:
    if kind == "blobs":
        yield WithBlobs()
        return
    with tempfile.TemporaryDirectory() as folder:
        url = "memory://" if kind == "memory" else f"sqlite://{folder}/state.db"
        store = await open_store(url, exclusive=True)
        try:
            yield store
        finally:
            await store.aclose()


@pytest.fixture(params=["memory", "sqlite", "blobs"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with opened(request.param) as it:
        yield it


def leases(store: Store, worker: str = "a") -> Leases:
    around = Surroundings(
        clock=SystemClock(), telemetry=Telemetry(CollectorRegistry()), store=store, budget=ByteBudget(1 << 29),
        jitter=lambda: 0.5, new_id=lambda: "id", worker=worker, blobs=getattr(store, "blobs", None),
    )  # fmt: skip
    return Leases(around, MAPPING, "stream@1", 1)


def at(number: int) -> AfterSequence:
    return AfterSequence(str(number), UnixTime(number))


def window(number: int, state: bytes) -> OpenWindow:
    return OpenWindow(0, 60, state, at(number))


async def items(store: Store) -> list[str]:
    return [item.key.item for item in (await store.scan("window", MAPPING.uuid)).items]


def parts_of_large(store: Store) -> int:
    return 1 if isinstance(store, WithBlobs) else 4


async def claimed(store: Store, worker: str = "a") -> ShardLease:
    return await leases(store, worker).claim(SHARD)


async def test_a_claim_finds_position_and_state_of_the_owner_before(store: Store) -> None:
    before = await claimed(store)
    assert before.window is None
    for number, state in enumerate((b'{"a":1}', LARGE, b'{"a":2}', LARGE), start=1):
        await before.save([at(number)], window(number, state))
        assert len(await items(store)) == (parts_of_large(store) if state is LARGE else 1)
        assert len(blobs_of(store)) == int(state is LARGE and isinstance(store, WithBlobs))
    after = await claimed(store, "b")
    assert after.lease.positions == (at(4),)
    assert after.window == window(4, LARGE)
    await after.save([at(5)], replace(window(5, LARGE), state=after.window.state))
    assert [item.split("!")[1] for item in await items(store)] == ["000000000001"] * parts_of_large(store)
    await after.save([at(6)], None)
    assert await items(store) == []
    assert (await claimed(store)).window is None
    assert not blobs_of(store)


async def test_a_stale_owner_changes_nothing(store: Store) -> None:
    stale = await claimed(store)
    await stale.save([at(1)], window(1, b'{"a":1}'))
    owner = await claimed(store, "b")
    with pytest.raises(LeaseLost):
        await stale.save([at(2)], window(2, b'{"a":2}'))
    await owner.save([at(1)], owner.window)
    with pytest.raises(LeaseLost):
        await stale.save([at(2)], None)
    third = await claimed(store, "c")
    assert (third.lease.positions, third.window) == ((at(1),), window(1, b'{"a":1}'))
    assert len(await items(store)) == 1, "what the stale owner wrote is removed"


@pytest.mark.parametrize("after", [False, True])
async def test_whenever_a_save_dies_the_next_claim_finds_what_belongs_together(store: Store, *, after: bool) -> None:
    states = {number: LARGE[:-2] + b"y" * number + b'"}' for number in range(100)}
    number = 1
    first = await claimed(store)
    await first.save([at(0)], window(0, states[0]))
    for calls in range(1, 14):
        dying = Failing(store, 10_000, after=after)
        lease = await leases(dying, f"w{calls}").claim(SHARD)  # type: ignore[arg-type]
        dying._calls = calls
        try:
            await lease.save([at(number)], window(number, states[number]))
        except Unavailable:
            pass
        else:
            assert calls > parts_of_large(store)
        found = await claimed(store)
        (position,) = found.lease.positions
        assert isinstance(position, AfterSequence)
        assert position in {at(number), at(number - 1)}
        assert found.window == window(int(position.sequence), states[int(position.sequence)])
        assert len(await items(store)) == parts_of_large(store), "a claim removes what a crash left"
        assert len(blobs_of(store)) == int(isinstance(store, WithBlobs))
        number = int(position.sequence) + 1


async def test_a_failed_save_is_tried_again_with_another_state(store: Store) -> None:
    dying = Failing(store, 10_000, after=True)
    lease = await leases(dying).claim(SHARD)  # type: ignore[arg-type]
    dying._calls = 1
    with pytest.raises(Unavailable):
        await lease.save([at(1)], window(1, b'{"a":1}'))
    dying._calls = 2
    with pytest.raises(Unavailable):
        await lease.save([at(2)], window(2, b'{"a":2}'))
    dying._calls = 10_000
    await lease.save([at(3)], window(3, b'{"a":3}'))
    assert len(await items(store)) == 1
    assert (await claimed(store)).window == window(3, b'{"a":3}')


async def test_windows_of_other_shards_are_left_alone(store: Store) -> None:
    one = await claimed(store)
    await one.save([at(1)], window(1, LARGE))
    other = await leases(store).claim(Shard("shard-10"))
    await other.save([at(1)], window(1, b'{"b":1}'))
    await (await claimed(store)).save([at(2)], None)
    assert [item.split("!")[0] for item in await items(store)] == ["shard-10"]


async def test_a_stream_made_again_begins_without_the_window_of_the_old_one(store: Store) -> None:
    await (await claimed(store)).save([at(1)], window(1, LARGE))
    around = leases(store)._around
    lease = await Leases(around, MAPPING, "stream@2", 1).claim(SHARD)
    assert (lease.window, await items(store)) == (None, [])


async def test_a_state_of_which_a_part_is_missing_stops_with_what_to_do(store: Store) -> None:
    await (await claimed(store)).save([at(1)], window(1, LARGE))
    key = Key("window", MAPPING.uuid, (await items(store))[-1])
    found = await store.get(key)
    assert found is not None
    await store.delete(key, found.version)
    with pytest.raises(OperatorNeeded, match=r"lacks its item shard-1!.*!00[03]"):
        await claimed(store)


async def test_a_state_whose_blob_is_gone_or_whose_bucket_nobody_names_stops_with_what_to_do() -> None:
    store = WithBlobs()
    await (await claimed(store)).save([at(1)], window(1, LARGE))
    (blob,) = blobs_of(store)
    assert blob.owner == f"window/{MAPPING.uuid}/shard-1!000000000001!000000000001"
    bucket, store.blobs = store.blobs, None
    with pytest.raises(OperatorNeeded, match="lies in a bucket: name it again"):
        await claimed(store)
    store.blobs = bucket
    await bucket.delete(blob)
    with pytest.raises(OperatorNeeded, match="lacks its blob window/"):
        await claimed(store)


async def test_what_a_newer_version_has_left_stays_to_it() -> None:
    store = WithBlobs()
    await store.put(Key("window", MAPPING.uuid, "shard-1!9!9!000"), b'{"format":2}', None)
    await (await claimed(store)).save([at(1)], None)
    assert await items(store) == ["shard-1!9!9!000"]


async def test_a_claim_without_the_bucket_leaves_what_is_in_it() -> None:
    store = WithBlobs()
    owner = await claimed(store)
    await owner.save([at(1)], window(1, LARGE))
    bucket, store.blobs = store.blobs, None
    owner._states._around = leases(store)._around
    await owner.save([at(2)], None)
    assert len(await items(store)) == 1
    store.blobs = bucket
    await claimed(store)
    assert (await items(store), blobs_of(store)) == ([], set())


async def test_without_its_bucket_a_state_is_not_removed_and_forgotten_with_it_it_is() -> None:
    store = WithBlobs()
    await (await claimed(store)).save([at(1)], window(1, LARGE))
    with pytest.raises(RequestRefused, match="lies in a bucket: name it"):
        await Catalogue(store).forget(MAPPING.uuid, "a")
    assert len(await items(store)) == 1
    await Catalogue(store, store.blobs).forget(MAPPING.uuid, "a")
    assert (await items(store), blobs_of(store)) == ([], set())
