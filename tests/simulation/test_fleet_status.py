"""What any worker says of all: fresh of itself, from the store of the others, and soon, whatever the store does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from esm.api.fleet import Answer, FleetStatus
from esm.catalogue import CHANGES, Catalogue
from esm.catalogue.running import runs_at
from esm.catalogue.workers import words
from esm.errors import OperatorNeeded, Unavailable
from esm.model.clocks import UnixTime
from esm.model.mapping import OK, State
from esm.model.stored import Key, Page
from esm.model.view import MappingView, ShardView
from esm.model.worker import Heartbeat, Known
from esm.rules import controls, heartbeats, stored
from esm.rules.sightings import Sightings
from esm.stores.memory import MemoryStore
from esm.telemetry import Telemetry
from tests.simulation.world import Clock


def simulate(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def view(uuid: str, *shards: str, in_flight: int = 0) -> MappingView:
    held = tuple([ShardView(shard, 0.0, 0.0, None, 0.0) for shard in shards])
    return MappingView(uuid, "f", "arn:aws:kinesis:us-east-1:000000000000:stream/s", State.ENABLED, OK,
                       has_problem=False, in_flight=in_flight, backlog=None, shards=held)  # fmt: skip


class CountingStore(MemoryStore):
    """Counts looks at the heartbeats, and fails or falls silent when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.fails = False
        self.hangs = False

    async def scan(self, kind: str, owner: str, after: str | None = None, limit: int = 1000) -> Page:
        self.looks += (kind, owner) == heartbeats.PARTITION
        await anyio.sleep(0.01)
        if self.hangs:
            await anyio.sleep_forever()
        if self.fails:
            raise Unavailable("the store is out of reach")
        return await super().scan(kind, owner, after, limit)


class Play:
    """A store with other workers in it, and the answers of the worker `w`."""

    def __init__(self) -> None:
        self.store = CountingStore()
        self.clock = Clock()
        self.catalogue = Catalogue(self.store)
        self.telemetry = Telemetry(CollectorRegistry())
        self.own: list[MappingView] = [view("u", "s0")]
        self.fleet = FleetStatus(
            self.store, self.clock, self.telemetry, "w", lambda: self.own, Sightings(failover_s=10)
        )  # fmt: skip
        self.beats = 0

    async def beat(self, worker: str, *mappings: str, **more: bool) -> None:
        self.beats += 1
        known = {uuid: Known("d", 0) for uuid in mappings}
        heartbeat = Heartbeat(worker, "r", self.beats, 1, at=self.clock.wall(), mappings=known, **more)
        await self.put(heartbeats.key(worker), heartbeats.encode(heartbeat))

    async def beat_forever(self, worker: str, *mappings: str) -> None:
        while True:
            await self.beat(worker, *mappings)
            await anyio.sleep(2.5)

    async def report(self, worker: str, *views: MappingView) -> None:
        (part,) = stored.encode_status(worker, self.clock.wall(), views)
        await self.put(Key("status", worker, "0000"), part)

    async def report_when_asked(self, worker: str, *views: MappingView) -> None:
        """As a daemon does that writes no heartbeats."""
        seen = await self.catalogue.changes()
        while True:
            await anyio.sleep(1)
            if seen != (seen := await self.catalogue.changes()):
                await self.report(worker, *views)

    async def put(self, key: Key, value: bytes) -> None:
        item = await self.store.get(key)
        await self.store.put(key, value, item.version if item else None)

    async def shards(self) -> dict[str, list[str]]:
        return shards(await self.fleet.answer())

    def failures(self) -> float:
        return self.telemetry.registry.get_sample_value("esm_store_errors_total") or 0.0


def shards(answer: Answer) -> dict[str, list[str]]:
    return {one.view.uuid: [shard.id for shard in one.view.shards] for one in answer.views}


def test_any_worker_answers_for_all_that_live() -> None:
    play = Play()

    async def main() -> None:
        await play.put(CHANGES, controls.raised(None))
        for worker, more in (("a", {}), ("b", {"is_leaving": True}), ("c", {"is_released": True})):
            await play.beat(worker, "u", **more)
            await play.report(worker, view("u", f"s-{worker}"), view(f"of-{worker}"))
        await play.report("nobody", view("old"))
        answer = await play.fleet.answer()
        assert shards(answer) == {"u": ["s-a", "s-b", "s0"], "of-a": [], "of-b": []}
        assert [one.workers for one in answer.views] == [("a", "b", "w"), ("a",), ("b",)]

    simulate(main)


def test_a_worker_without_any_heartbeat_is_there_alone() -> None:
    play = Play()

    async def main() -> None:
        await play.report("w", view("u", "of-an-earlier-run"))
        assert await play.shards() == {"u": ["s0"]}
        await play.beat("w", "u")
        await anyio.sleep(1)
        assert await play.shards() == {"u": ["s0"]}

    simulate(main)


def test_its_own_part_is_of_now_and_the_store_is_read_once_a_second_however_many_ask() -> None:
    play = Play()

    async def main() -> None:
        await play.beat("a", "u")
        await play.report("a", view("u", "s1"))
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(play.shards)
        assert play.store.looks == 1
        play.own = [view("u", "s0", "s2")]
        assert await play.shards() == {"u": ["s0", "s1", "s2"]}
        assert play.store.looks == 1
        for _ in range(30):
            await anyio.sleep(0.1)
            await play.shards()
        assert 3 <= play.store.looks <= 4

    simulate(main)


@pytest.mark.parametrize("fault", ["fails", "hangs"])
def test_where_the_store_does_not_answer_the_last_answer_is_told_with_its_age(fault: str) -> None:
    play = Play()

    async def main() -> None:
        setattr(play.store, fault, True)
        answer = await play.fleet.answer()
        assert (shards(answer), answer.known_age_s) == ({"u": ["s0"]}, None)
        setattr(play.store, fault, False)
        await play.beat("a", "u")
        await play.report("a", view("u", "s1"))
        await anyio.sleep(2)
        assert await play.shards() == {"u": ["s0", "s1"]}
        failed = play.failures()
        setattr(play.store, fault, True)
        await anyio.sleep(60)
        async with anyio.create_task_group() as tasks:
            with anyio.fail_after(2.5):
                for _ in range(20):
                    tasks.start_soon(play.shards)
                answer = await play.fleet.answer()
        assert shards(answer) == {"u": ["s0", "s1"]}
        assert answer.known_age_s == pytest.approx(61, abs=2.5)
        assert play.failures() == failed + 1

    simulate(main)


def test_a_worker_that_falls_silent_is_left_out_after_the_failover_time_whatever_its_clock_says() -> None:
    play = Play()

    async def main() -> None:
        await play.report("a", view("u", "s1"))
        ahead = Heartbeat("a", "r", 0, 1, at=UnixTime(play.clock.wall() + 3600))
        await play.put(heartbeats.key("a"), heartbeats.encode(ahead))
        assert await play.shards() == {"u": ["s0", "s1"]}
        await anyio.sleep(9)
        assert await play.shards() == {"u": ["s0", "s1"]}
        await anyio.sleep(2)
        assert await play.shards() == {"u": ["s0"]}
        await play.beat("a", "u")
        await anyio.sleep(1)
        assert await play.shards() == {"u": ["s0", "s1"]}

    simulate(main)


def test_words_that_cannot_be_read_leave_out_that_worker_alone() -> None:
    play = Play()

    async def main() -> None:
        for worker in "abc":
            await play.beat(worker, "u")
            await play.report(worker, view("u", worker))
        await play.put(Key("status", "b", "0000"), b'{"format":99}')
        await play.put(heartbeats.key("c"), b"nonsense")
        assert await play.shards() == {"u": ["a", "s0"]}
        assert play.failures() == 2
        with pytest.raises(OperatorNeeded, match="heartbeat is not readable"):
            await words(MemoryCopy(play.store, without="b"))

    simulate(main)


class MemoryCopy:
    """A store without one worker."""

    def __init__(self, inner: MemoryStore, without: str) -> None:
        self._inner = inner
        self._without = without

    async def scan(self, kind: str, owner: str, after: str | None = None, limit: int = 1000) -> Page:
        page = await self._inner.scan(kind, owner, after, limit)
        return replace(page, items=tuple([item for item in page.items if item.key.item != self._without]))


class Watched(Play):
    """Somebody asks whether a mapping runs."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Sequence[str], float]] = []

    async def runs(self) -> tuple[list[str], float]:
        """Where the mapping `u` runs, and how long it took to know."""
        began_at = anyio.current_time()
        found = await runs_at(self.catalogue, "u", ["w"], 10, lambda *told: self.told.append(told))
        return found, anyio.current_time() - began_at


def test_a_mapping_that_a_live_worker_names_runs_wherever_that_is() -> None:
    play = Watched()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.beat_forever, "a", "u")
            tasks.start_soon(play.beat_forever, "b", "v")
            await anyio.sleep(1)
            found, took_s = await play.runs()
            assert (found, play.told) == (["a"], [(["a"], 11.0)])
            assert took_s < 3
            tasks.cancel_scope.cancel()

    simulate(main)


def test_a_daemon_that_writes_no_heartbeat_answers_by_its_status() -> None:
    play = Watched()

    async def main() -> None:
        await play.report("w", view("u"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play.report_when_asked, "w", view("u"))
            await anyio.sleep(1)
            found, took_s = await play.runs()
            assert found == ["w"]
            assert took_s < 2
            tasks.cancel_scope.cancel()
        found, took_s = await play.runs()
        assert found == []
        assert took_s == pytest.approx(4, abs=0.5)

    simulate(main)


def test_a_mapping_of_dead_workers_runs_nowhere_once_they_were_silent_for_the_failover_time() -> None:
    play = Watched()

    async def main() -> None:
        assert await play.runs() == ([], pytest.approx(0.02))
        await play.beat("a", "u")
        await play.report("b", view("u"))
        await play.beat("b", "v")
        await play.beat("c", "u", is_released=True)
        found, took_s = await play.runs()
        assert found == []
        assert took_s == pytest.approx(11, abs=0.5)
        assert play.told == [(["a", "b"], 11.0)]

    simulate(main)


def test_a_worker_that_lets_go_of_the_mapping_meanwhile_does_not_run_it() -> None:
    play = Watched()

    async def main() -> None:
        await play.beat("a")
        await play.report("a", view("u"))

        async def let_go() -> None:
            await anyio.sleep(3)
            await play.beat("a")
            await anyio.sleep(1)
            await play.report("a")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(let_go)
            found, took_s = await play.runs()
        assert found == []
        assert took_s == pytest.approx(4, abs=0.5)

    simulate(main)


def test_forgetting_removes_a_mapping_from_every_workers_status() -> None:
    play = Play()

    async def main() -> None:
        for worker in "ab":
            await play.beat(worker, is_released=True)
            await play.report(worker, view("u"), view("v"))
        await play.report("w", view("u"))
        await play.put(Key("listing", "u", "0000"), b"{}")
        await play.put(Key("share", "fleet", "u"), b"{}")
        await play.put(Key("share", "fleet", "v"), b"{}")
        assert await play.catalogue.stands("u", ["w"]) == {
            "lease": 0, "window": 0, "listing": 1, "control": 0, "share": 1, "status": 3,
        }  # fmt: skip
        assert await play.catalogue.forget("u", ["w"]) == 5
        assert not any((await play.catalogue.stands("u", ["w"])).values())
        shown = {word.worker: [one.uuid for one in word.views] for word in await play.catalogue.words(["w"])}
        assert shown == {"a": ["v"], "b": ["v"], "w": []}
        assert await play.store.get(Key("share", "fleet", "v")) is not None

    simulate(main)
