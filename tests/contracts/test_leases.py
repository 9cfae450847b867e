"""Position and window state of a shard move in one write, on every store, whoever dies or claims when."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from esm.errors import LeaseLost, OperatorNeeded, Unavailable
from esm.model.clocks import UnixTime
from esm.model.position import AfterSequence, Shard
from esm.model.stored import Key
from esm.model.window import OpenWindow
from esm.ports import Store
from esm.runtime.leasing import Leases, ShardLease
from esm.runtime.surroundings import ByteBudget, Surroundings, SystemClock
from esm.stores import open_store
from esm.telemetry import Telemetry
from tests.simulation.world import stream_mapping

MAPPING = stream_mapping(tumbling_window_s=60)
SHARD = Shard("shard-1")
LARGE = b'{"a":"' + b"x" * 1_000_000 + b'"}'


class Failing:
    """A store that dies at its n-th call: before or after the call has done its work."""

    def __init__(self, inner: Store, calls: int, *, after: bool) -> None:
        self._inner = inner
        self._calls = calls
        self._after = after

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            self._calls -= 1
            if self._calls < 0 or (self._calls == 0 and not self._after):
                raise Unavailable("dead")
            result = await getattr(self._inner, name)(*arguments)
            if self._calls == 0:
                raise Unavailable("dead")
            return result

        return call


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        url = "memory://" if kind == "memory" else f"sqlite://{folder}/state.db"
        store = await open_store(url, exclusive=True)
        try:
            yield store
        finally:
            await store.aclose()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with opened(request.param) as it:
        yield it


def leases(store: Store, worker: str = "a") -> Leases:
    around = Surroundings(
        clock=SystemClock(), telemetry=Telemetry(CollectorRegistry()), store=store, budget=ByteBudget(1 << 29),
        jitter=lambda: 0.5, new_id=lambda: "id", worker=worker,
    )  # fmt: skip
    return Leases(around, MAPPING, "stream@1", 1)


def at(number: int) -> AfterSequence:
    return AfterSequence(str(number), UnixTime(number))


def window(number: int, state: bytes) -> OpenWindow:
    return OpenWindow(0, 60, state, at(number))


async def items(store: Store) -> list[str]:
    return [item.key.item for item in (await store.scan("window", MAPPING.uuid)).items]


async def claimed(store: Store, worker: str = "a") -> ShardLease:
    return await leases(store, worker).claim(SHARD)


async def test_a_claim_finds_position_and_state_of_the_owner_before(store: Store) -> None:
    before = await claimed(store)
    assert before.window is None
    for number, state in enumerate((b'{"a":1}', LARGE, b'{"a":2}', LARGE), start=1):
        await before.save([at(number)], window(number, state))
        assert len(await items(store)) == (4 if state is LARGE else 1)
    after = await claimed(store, "b")
    assert after.lease.positions == (at(4),)
    assert after.window == window(4, LARGE)
    await after.save([at(5)], replace(window(5, LARGE), state=after.window.state))
    assert [item.split("!")[1] for item in await items(store)] == ["000000000001"] * 4, "the same state stays"
    await after.save([at(6)], None)
    assert await items(store) == []
    assert (await claimed(store)).window is None


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
            assert calls > 4
        found = await claimed(store)
        (position,) = found.lease.positions
        assert isinstance(position, AfterSequence)
        assert position in {at(number), at(number - 1)}
        assert found.window == window(int(position.sequence), states[int(position.sequence)])
        assert len(await items(store)) == 4, "a claim removes what a crash left"
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
    key = Key("window", MAPPING.uuid, (await items(store))[2])
    found = await store.get(key)
    assert found is not None
    await store.delete(key, found.version)
    with pytest.raises(OperatorNeeded, match=r"lacks its item shard-1!.*!002"):
        await claimed(store)
