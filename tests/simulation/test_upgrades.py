"""A rollout to a made-up next version and back, under load and faults: nothing is lost, no position goes back, and soon
after a worker of this version has joined it finds nothing that it cannot read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import anyio
import pytest

from esm.catalogue import Catalogue
from esm.model.clocks import UnixTime
from esm.model.control import Caller
from esm.model.function import AsyncRules
from esm.model.lease import Lease
from esm.model.mapping import Mapping
from esm.model.position import TrimHorizon
from esm.model.stored import VALUE_BYTES_MAX, Key, Stored
from esm.model.worker import Heartbeat
from esm.rules import formats, heartbeats, stored
from esm.rules.kinds import OLDEST
from esm.runtime.rewriting import SETTLE_S, Rewriter
from esm.runtime.stream import StreamRunner
from esm.runtime.surroundings import ByteBudget, Surroundings
from tests.next_format import NEXT, next_version
from tests.simulation.test_async_events import Play as AsyncPlay
from tests.simulation.test_streams import Play, drawn, simulate, write_for
from tests.simulation.test_windows import Aggregating
from tests.simulation.world import FUNCTION, FakeDestination, World, stream_mapping


@pytest.fixture
def new() -> Iterator[None]:
    with next_version():
        yield


class Rollout(Play):
    """A play whose worker hears what formats the others read, and writes again what they cannot."""

    def __init__(self, seed: int, mapping: Mapping, *, faults: bool = True) -> None:
        super().__init__(seed, mapping, faults=faults)
        if mapping.tumbling_window_s:
            self.target = Aggregating(self.world, self.stream)

    announced: tuple[int, ...] = ()
    rewriter: Rewriter | None = None
    around: Surroundings | None = None

    async def work(self, for_s: float = math.inf, *, graceful: bool = True) -> None:
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await super().work(for_s, graceful=graceful)
            if graceful and self.rewriter is not None:
                await self.rewriter.finish()
            tasks.cancel_scope.cancel()

    def new_runner(self, around: Surroundings) -> StreamRunner:
        self.around = around
        around.formats.follow(self.announced)
        its_own = replace(around, budget=ByteBudget(around.budget.limit_bytes))
        self.rewriter = Rewriter(its_own, lambda: ["u"])
        self._tasks.start_soon(self.rewriter.run)
        self.observation = self.world.observation(self.mapping, around)
        destination = FakeDestination(self.world) if self.mapping.on_failure else None
        return StreamRunner(around, self.mapping, self.stream, self.target, destination, self.observation)

    def hear(self, *announced: int) -> None:
        """Workers have come or gone."""
        self.announced = announced
        if self.around is not None:
            self.around.formats.follow(announced)


async def items(world: World) -> list[Stored]:
    """Everything that is stored."""
    places = list(world.store.inner._partitions)
    return [item for kind, owner in places for item in (await world.store.inner.scan(kind, owner)).items]


async def newer(world: World) -> list[Key]:
    """What this version does not read."""
    return [item.key for item in await items(world) if formats.rewritten(item.key, item.value, OLDEST) is not None]


def mapping_of(seed: int) -> Mapping:
    """Any, every third one with tumbling windows."""
    return replace(drawn(seed), tumbling_window_s=0 if seed % 3 else 5)


@pytest.mark.usefixtures("new")
def test_an_older_worker_that_joins_soon_finds_nothing_that_it_cannot_read(seed: int) -> None:
    chance = Random(seed)
    play = Rollout(seed, mapping_of(seed))
    play.target.checks_keys = False

    async def main() -> None:
        for _ in range(2):
            play.hear()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write_for, play, 25, 6)
                tasks.start_soon(play.work, 40)
                await anyio.sleep(chance.uniform(5, 25))
                play.hear(OLDEST)
                await anyio.sleep(2 * SETTLE_S)
                play.world.faults = False
                await anyio.sleep(SETTLE_S)
                assert await newer(play.world) == []
                play.world.faults = True
            assert await newer(play.world) == []
            await play.work(chance.uniform(1, 10), graceful=False)
        play.hear()
        await play.until_settled()
        assert await newer(play.world) != []

    simulate(main)
    play.check_positions()
    play.check_order()


def test_the_load_goes_on_through_an_upgrade_and_a_roll_back(seed: int) -> None:
    play = Rollout(seed, mapping_of(seed))

    async def phase(*, graceful: bool = True) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_for, play, 15, 6)
            tasks.start_soon(play.work, 20)
            await anyio.sleep(8)
            if not graceful:
                play.hear(OLDEST)

    async def main() -> None:
        await phase()
        with next_version():
            play.hear()
            await phase()
            assert await newer(play.world) != []
            await phase(graceful=False)
            play.world.faults = False
            assert play.rewriter is not None
            await play.rewriter.finish()
            assert await newer(play.world) == []
        play.world.faults = True
        await phase()
        await play.until_settled()

    simulate(main)
    with next_version():
        play.check_positions()
    play.check_order()


def test_a_mapping_with_a_newer_value_says_so_and_goes_on_once_it_is_written_again() -> None:
    play = Rollout(1, stream_mapping(), faults=False)

    async def main() -> None:
        play.stream.write("k")
        with next_version():
            await play.work(10)
        play.stream.write("k")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.work, 200)
            await anyio.sleep(60)
            view = play.observation.view()
            assert view.has_problem
            assert "has format 2, and this version reads up to 1" in view.last_result
            assert play.world.taken() == {0}
            for item, value in stored_again(await items(play.world)):
                await play.world.store.inner.put(item.key, value, item.version)
            await anyio.sleep(80)
            assert not play.observation.view().has_problem
            assert play.world.taken() == {0, 1}

    simulate(main)


def stored_again(found: list[Stored]) -> list[tuple[Stored, bytes]]:
    """What the next version would write in place of what this one does not read."""
    with next_version():
        values = [(item, formats.rewritten(item.key, item.value, OLDEST)) for item in found]
    return [(item, value) for item, value in values if value is not None]


@pytest.mark.parametrize("pad", [0, 400_000])
def test_an_event_that_a_newer_version_has_stored_waits_until_it_is_written_again(pad: int) -> None:
    play = AsyncPlay(2, AsyncRules(), faults=False)

    async def main() -> None:
        with next_version():
            play.fresh()
            await play.accept(3, pad=pad)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.fresh().run)
            await anyio.sleep(120)
            assert play.world.invocations == []
            await play.accept(64)
            await anyio.sleep(60)
            assert len(play.world.taken()) > 50, "only their buckets wait"
            assert play.metric("esm_store_errors_total") > 0
            assert play.metric("esm_async_restarts_total") == 0
            for item, value in stored_again(await items(play.world)):
                await play.world.store.inner.put(item.key, value, item.version)
            await anyio.sleep(120)
            assert play.world.taken() == play.accepted
            assert play.stored() == 0
            tasks.cancel_scope.cancel()

    simulate(main)


@pytest.mark.usefixtures("new")
def test_events_that_are_written_again_while_they_are_tried_are_tried_once() -> None:
    play = AsyncPlay(3, AsyncRules(), faults=False, concurrency=2)
    play.target = play.functions[str(FUNCTION)].target  # type: ignore[assignment] - it is the fake one

    async def main() -> None:
        events = play.fresh()
        around = events._around
        rewriter = Rewriter(around, lambda: ["u"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.run)
            tasks.start_soon(rewriter.run)
            tasks.start_soon(play.accept, 30, FUNCTION, 100_000)
            await anyio.sleep(0.5)
            around.formats.follow([OLDEST])
            await anyio.sleep(60)
            assert play.stored() == 0
            tasks.cancel_scope.cancel()

    simulate(main)
    assert len(play.world.invocations) == 30


@pytest.mark.usefixtures("new")
def test_everything_is_written_again_and_what_cannot_be_is_left_and_said() -> None:
    world = World(4)

    async def main() -> None:
        around = world.around()
        store = world.store.inner
        catalogue = Catalogue(store)
        await catalogue.pause("u", UnixTime(1), Caller("h", "u"))
        (status,) = stored.encode_status("other", UnixTime(1), [], NEXT)
        await store.put(Key("status", "other", "0000"), status, None)
        assert len(await newer(world)) == 3
        beat = heartbeats.encode(Heartbeat("other", "run", 1, OLDEST))
        await store.put(heartbeats.key("other"), beat, None)
        await store.put(Key("lease", "u", "odd"), b"odd", None)
        lease = Lease("u", "fits", "s", "w", 1, 1, (TrimHorizon(),))
        room = VALUE_BYTES_MAX - len(stored.encode_lease(replace(lease, extra={"pad": ""}), NEXT))
        fitting = stored.encode_lease(replace(lease, extra={"pad": "x" * room}), NEXT)
        await store.put(Key("lease", "u", "fits"), fitting, None)
        for part, value in enumerate(stored.encode_state(bytes(9 * stored.STATE_PART_BYTES), NEXT)):
            await store.put(Key("window", "u", f"s!1!1!{part}"), value, None)
        await store.put(Key("lease", "u", "odder"), b'{"format":3}', None)
        assert await catalogue.announced() == [OLDEST]
        around.formats.follow(await catalogue.announced())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Rewriter(around, lambda: ["u"]).run)
            await anyio.sleep(300)
            tasks.cancel_scope.cancel()
        values = {item.key.item: item.value for item in await items(world)}
        assert values.pop("fits") == fitting
        assert (values.pop("odd"), values.pop("odder")) == (b"odd", b'{"format":3}')
        assert {value[:11] for value in values.values()} == {b'{"format":1'}

    simulate(main)


@pytest.mark.usefixtures("new")
def test_a_stop_leaves_nothing_newer_behind() -> None:
    world = World(6)

    async def main() -> None:
        around = world.around()
        await Catalogue(world.store.inner).pause("u", UnixTime(1), Caller("h", "u"))
        rewriter = Rewriter(around, tuple)
        await rewriter.finish()
        assert len(await newer(world)) == 2
        around.formats.follow([OLDEST])
        await rewriter.finish()
        assert await newer(world) == []

    simulate(main)


@pytest.mark.usefixtures("new")
def test_a_command_writes_what_every_worker_reads_that_may_live() -> None:
    world = World(5, faults=False)

    async def main() -> None:
        store = world.store.inner
        catalogue = Catalogue(store)
        assert await catalogue.write_format() == NEXT
        for name, number, is_released in (("a", NEXT, False), ("b", OLDEST, True)):
            beat = Heartbeat(name, "run", 1, number, is_released=is_released)
            await store.put(heartbeats.key(name), heartbeats.encode(beat), None)
        assert await catalogue.write_format() == NEXT
        await store.put(heartbeats.key("c"), heartbeats.encode(Heartbeat("c", "run", 1, OLDEST)), None)
        assert await catalogue.write_format() == OLDEST
        await catalogue.pause("u", UnixTime(1), Caller("h", "u"))
        assert await newer(world) == []

    simulate(main)
