"""What one worker knows of the others, and they of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from esm.errors import OperatorNeeded, Unavailable
from esm.model.clocks import Instant
from esm.model.lease import Lease
from esm.model.position import TrimHorizon
from esm.model.stored import Key
from esm.model.worker import Heartbeat, HostLock
from esm.rules import heartbeats, stored
from esm.rules.kinds import OLDEST
from esm.rules.liveness import FORGET_AFTER_S
from esm.runtime.fleet import NEVER, Fleet, Identity
from esm.runtime.membership import Alone
from esm.runtime.surroundings import Formats, Signal
from tests.simulation.freezing import simulate
from tests.simulation.world import World

FAILOVER_S = 10.0


class Fleets:
    """Workers without mappings, on one store."""

    def __init__(self) -> None:
        self.world = World(1, faults=False)
        self.store = self.world.store
        self.is_free: Callable[[HostLock], bool] = lambda _: False

    def make(self, name: str, run: str = "r", **more: object) -> Fleet:
        identity = Identity(name, run, 1, failover_s=FAILOVER_S, **more)  # type: ignore[arg-type]
        return Fleet(identity, self.world.clock, self.store, self.world.telemetry, Formats(), self._is_free)

    def _is_free(self, lock: HostLock) -> bool:
        return self.is_free(lock)

    @asynccontextmanager
    async def running(self, *fleets: Fleet) -> AsyncIterator[list[anyio.CancelScope]]:
        scopes = [anyio.CancelScope() for _ in fleets]

        async def run(fleet: Fleet, scope: anyio.CancelScope) -> None:
            with scope:
                await fleet.run()

        async with anyio.create_task_group() as tasks:
            for fleet, scope in zip(fleets, scopes, strict=True):
                tasks.start_soon(run, fleet, scope)
            await anyio.sleep(3)
            yield scopes
            tasks.cancel_scope.cancel()

    async def heartbeat(self, name: str) -> Heartbeat | None:
        item = await self.store.get(heartbeats.key(name))
        return None if item is None else heartbeats.decode(item.value)


def names(fleet: Fleet) -> list[str]:
    return [one.worker for one in fleet.live]


def lease(shard: str, owner: str) -> bytes:
    return stored.encode_lease(Lease("u", shard, "stream@1", owner, 1, 1, (TrimHorizon(),)), OLDEST)


def test_workers_see_each_other_and_hear_of_what_moves_within_two_seconds() -> None:
    async def main() -> None:
        fleets = Fleets()
        a, b = fleets.make("a"), fleets.make("b")
        heard = Signal()
        async with fleets.running(a, b):
            with a.offering("u"), b.offering("u"), b.watching(heard), b.watching(heard):
                await anyio.sleep(2)
                assert names(a) == names(b) == ["a", "b"]
                assert sorted(a.peers("u")) == ["a", "b"]
                before = b.epoch("u")
                a.moved("u")
                with anyio.fail_after(2):
                    while b.epoch("u") == before:
                        await heard.wait()
                assert b.age_s > 0
                assert a.owner == "a/r"
                assert (b.silent_s("a/r") or 0) < FAILOVER_S
                assert b.silent_s("x/y") is None
                assert a.lists("u") != b.lists("u")
                assert (a.heartbeat_age_s or 0) < FAILOVER_S
            await anyio.sleep(2)
            before = b.epoch("u")
            a.moved("u")
            await anyio.sleep(2)
            assert b.epoch("u") != before, "what is let go after the mapping has stopped"

    simulate(main)


def test_trust_ends_before_anybody_may_take_over_and_a_new_term_begins_when_it_comes_back() -> None:
    async def main() -> None:
        fleets = Fleets()
        a, b = fleets.make("a"), fleets.make("b")
        assert a.trusted_until == -float("inf")
        assert a.heartbeat_age_s is None
        assert a.age_s == 0
        async with fleets.running(a, b):
            assert a.holds(0, fleets.world.clock.now())
            put, cut = fleets.store.put, True

            async def away(key: Key, value: bytes, version: int | None) -> int:
                if cut and key.item == "a":
                    raise Unavailable("away")
                return await put(key, value, version)

            fleets.store.put = away  # type: ignore[method-assign]
            while a.holds(0, fleets.world.clock.now()):
                assert not await b.is_gone("a/r")
                await anyio.sleep(0.1)
            assert not await b.is_gone("a/r")
            await anyio.sleep(4)
            assert await b.is_gone("a/r")
            assert b.may_be_free("a/r")
            assert names(b) == ["b"]
            cut = False
            await anyio.sleep(3)
            assert a.term == 1
            assert a.holds(1, fleets.world.clock.now())
            assert not a.holds(0, fleets.world.clock.now())
            assert not await b.is_gone("a/r")
            assert names(b) == ["a", "b"]

    simulate(main)


def test_an_answer_that_comes_after_the_trust_has_ended_begins_a_new_term() -> None:
    async def main() -> None:
        fleets = Fleets()
        a = fleets.make("a")
        async with fleets.running(a):
            put = fleets.store.put

            async def slow(key: Key, value: bytes, version: int | None) -> int:
                written = await put(key, value, version)
                await anyio.sleep(FAILOVER_S)
                return written

            fleets.store.put = slow  # type: ignore[method-assign]
            await anyio.sleep(FAILOVER_S + 4)
            assert a.term == 1

    simulate(main)


def test_a_worker_that_says_so_is_gone_at_once_and_one_on_this_host_when_its_lock_is_free() -> None:
    async def main() -> None:
        fleets = Fleets()
        lock = HostLock("c", 1, 2, "boot")
        a, b, c = fleets.make("a"), fleets.make("b"), fleets.make("c", lock=lock)
        async with fleets.running(a, b, c) as scopes:
            b.leave()
            await anyio.sleep(2)
            assert not await a.is_gone("b/r")
            assert b.mine("u") == ()
            scopes[1].cancel()
            await b.release()
            await anyio.sleep(1.2)
            assert await a.is_gone("b/r")
            scopes[2].cancel()
            fleets.is_free = lambda found: found == lock
            await anyio.sleep(2.5)
            assert await a.is_gone("c/r")
            assert names(a) == ["a"]

    simulate(main)


def test_a_worker_whose_id_another_process_takes_stops() -> None:
    async def main() -> None:
        fleets = Fleets()
        old = fleets.make("a", "old")
        with pytest.raises(ExceptionGroup) as caught:
            async with fleets.running(old), fleets.running(fleets.make("a", "new", ended=("old",))):
                await anyio.sleep(10)
        assert "ESM_WORKER_ID" in str(_leaf(caught.value))
        assert isinstance(_leaf(caught.value), OperatorNeeded)

    simulate(main)


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def test_workers_that_are_gone_for_an_hour_are_forgotten_with_their_status() -> None:
    async def main() -> None:
        fleets = Fleets()
        a, b = fleets.make("a"), fleets.make("b")
        async with fleets.running(a, b) as scopes:
            await fleets.store.put(Key("status", "b", "0000"), b"{}", None)
            scopes[1].cancel()
            await anyio.sleep(FORGET_AFTER_S - 60)
            assert await fleets.heartbeat("b") is not None
            await anyio.sleep(120)
            assert await fleets.heartbeat("b") is None
            assert await fleets.store.get(Key("status", "b", "0000")) is None
            assert await fleets.heartbeat("a") is not None

    simulate(main)


def test_the_one_who_lists_changes_when_it_cannot_and_the_one_who_probes_is_among_those_who_fail() -> None:
    async def main() -> None:
        fleets = Fleets()
        a, b = fleets.make("a"), fleets.make("b")
        async with fleets.running(a, b):
            with a.offering("u"), b.offering("u"):
                await anyio.sleep(2)
                first, second = (a, b) if a.lists("u") else (b, a)
                first.listed("u", is_able=False)
                await anyio.sleep(2)
                assert second.lists("u")
                assert not first.lists("u")
                assert first.is_lister("u", second.owner)
                second.listed("u", is_able=False)
                await anyio.sleep(2)
                assert first.lists("u") != second.lists("u"), "somebody has to"
                first.broken("u", is_broken=True)
                second.broken("u", is_broken=True)
                first.busy("u", is_busy=True)
                await anyio.sleep(2)
                assert first.may_probe("u") != second.may_probe("u")
                assert second.is_busy("u")
            await anyio.sleep(2)
            assert not first.is_busy("u")
            assert first.may_probe("u")

    simulate(main)


def test_shards_of_mappings_that_only_others_run_count_in_what_is_a_fair_part() -> None:
    async def main() -> None:
        fleets = Fleets()
        a, b = fleets.make("a"), fleets.make("b")
        for number in range(4):
            await fleets.store.put(Key("lease", "foreign", f"s{number}"), lease(f"s{number}", "b/r"), None)
        async with fleets.running(a, b):
            with a.offering("u"), b.offering("u"), b.offering("foreign"):
                for one in (a, b):
                    one.tell("u", {f"s{number}": "" for number in range(4)})
                await anyio.sleep(3)
                assert len(a.mine("u")) == 4
            with a.offering("u"), b.offering("u"):
                for one in (a, b):
                    one.tell("u", {f"s{number}": "" for number in range(4)})
                await anyio.sleep(3)
                assert len(a.mine("u")) == 2

    simulate(main)


def test_a_sole_worker_is_trusted_for_ever_and_takes_everybody_else_for_gone() -> None:
    async def main() -> None:
        fleets = Fleets()
        a, b = fleets.make("a", is_sole=True), fleets.make("b")
        async with fleets.running(a, b):
            assert a.trusted_until == NEVER
            assert names(a) == ["a"]
            assert await a.is_gone("b/r")
            assert not await a.is_gone("a/r")
            assert a.may_be_free("b/r")

    simulate(main)


def test_one_worker_alone_owns_lists_and_probes_everything() -> None:
    async def main() -> None:
        alone = Alone("w")
        with alone.watching(Signal()), alone.offering("u"):
            alone.tell("u", {"s": "x"})
            assert set(alone.mine("u")) == {"s"}
        assert set(alone.mine("u")) == set()
        alone.moved("u")
        alone.listed("u", is_able=False)
        alone.busy("u", is_busy=True)
        alone.broken("u", is_broken=True)
        assert alone.epoch("u") is None
        assert await alone.is_gone("x")
        assert not await alone.is_gone("w")
        assert alone.may_be_free("x")
        assert alone.holds(7, Instant(0.0))
        assert alone.silent_s("x") is None
        assert alone.lists("u")
        assert alone.is_lister("u", "w")
        assert not alone.is_lister("u", "x")
        assert list(alone.peers("u")) == ["w"]
        assert not alone.is_busy("u")
        assert alone.may_probe("u")

    simulate(main)


def test_a_heartbeat_that_nobody_can_read_is_said_and_looked_at_again() -> None:
    async def main() -> None:
        fleets = Fleets()
        a = fleets.make("a")
        async with fleets.running(a):
            key = heartbeats.key("z")
            version = await fleets.store.put(key, json.dumps({"format": 99}).encode(), None)
            await anyio.sleep(3)
            await fleets.store.put(key, heartbeats.encode(replace(Heartbeat("z", "r", 1, 1))), version)
            await anyio.sleep(2)
            assert names(a) == ["a", "z"]

    simulate(main)


def test_a_lease_that_is_none_of_ours_holds_up_no_look_at_the_workers() -> None:
    fleets = Fleets()

    async def main() -> None:
        one, other = fleets.make("one"), fleets.make("other")
        await fleets.store.put(Key("lease", "m", "s"), b"no lease", None)
        with other.offering("m"):
            async with fleets.running(one, other):
                assert names(one) == ["one", "other"]
                with anyio.fail_after(2):
                    await one.wait_joined()

    simulate(main)
