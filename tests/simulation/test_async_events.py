"""The asynchronous queue keeps its promises under any schedule, fault, crash and stop, with one worker."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from esm.errors import NoticeTooLarge, RequestRefused, Unavailable
from esm.model.arn import Arn
from esm.model.async_event import Recipient
from esm.model.clocks import Instant, UnixTime
from esm.model.function import AsyncRules, FunctionFacts
from esm.model.invocation import Answer, Ending, Invocation, Refused, Throttled, Unreachable
from esm.model.mapping import InvocationType
from esm.model.notice import AsyncNotice
from esm.model.outcome import Outcome
from esm.model.record import Message
from esm.model.stored import Blob, Key
from esm.rules import async_stored
from esm.rules.buckets import bucket_of
from esm.rules.scaling import Pressure
from esm.runtime.async_events import Accepting, AsyncEvents
from esm.runtime.async_function import AsyncFunction
from esm.runtime.gate import Gate
from esm.runtime.invoker import Invoker
from esm.telemetry import Telemetry
from tests.simulation.world import FUNCTION, QUEUE, FakeBlobs, FakeTarget, World, queue_mapping

OTHER = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:other")


def simulate(main: Any) -> None:
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


class Told:
    """A destination that remembers; out of reach now and then, or always."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.documents: list[bytes] = []
        self.notices: list[AsyncNotice] = []
        self.tries = 0
        self.is_broken = False
        self.is_small = False

    async def send(self, notice: AsyncNotice, document: bytes) -> None:
        self.tries += 1
        await self._world.takes_time()
        if self.is_small:
            raise NoticeTooLarge("too large")
        if self.is_broken or self._world.fails(0.2):
            raise Unavailable("destination")
        self.notices.append(notice)
        self.documents.append(document)

    def ids(self) -> set[int]:
        found = [json.loads(document) for document in self.documents]
        return {record["id"] for one in found for record in one.get("requestPayload", one)["Records"]}


class Play:
    """One worker at a time, over one store."""

    def __init__(self, seed: int, rules: AsyncRules, *, faults: bool = True, concurrency: int | None = 3) -> None:
        self.world = World(seed, faults=faults)
        self.target = FakeTarget(self.world, concurrency=concurrency)
        self.target.checks_keys = False
        self.told = {recipient: Told(self.world) for recipient in Recipient}
        self.functions = {str(FUNCTION): AsyncFunction(self.target, rules, is_blocked=False, destination=self.told.get)}
        self.telemetries: list[Telemetry] = []
        self.accepted: set[int] = set()
        self.events: AsyncEvents | None = None

    def fresh(self) -> AsyncEvents:
        around = self.world.around()
        self.telemetries.append(around.telemetry)
        self.events = AsyncEvents(around, self._function)
        return self.events

    def _function(self, arn: Arn) -> AsyncFunction:
        missing = AsyncFunction(None, AsyncRules(age_max_s=3600), is_blocked=False, destination=lambda _: None)
        return self.functions.get(str(arn), missing)

    async def accept(self, count: int, arn: Arn = FUNCTION, pad: int = 0) -> None:
        """Send events; one that may not have been stored does not count."""
        assert self.events is not None
        for _ in range(count):
            number = len(self.world.store.history) + 1_000_000 * len(self.accepted)
            record = {"id": number, "key": "k", "pad": "x" * pad}
            try:
                await self.events.accept(arn, json.dumps({"Records": [record]}).encode(), "Root=1")
            except Unavailable:
                continue
            self.accepted.add(number)

    async def work(self, for_s: float, feed: int = 0, *, graceful: bool = True, pad: int = 0) -> None:
        events = self.fresh()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.run)
            tasks.start_soon(self.accept, feed, FUNCTION, pad)
            await anyio.sleep(for_s)
            if graceful:
                began_at = anyio.current_time()
                await events.drain(30)
                assert anyio.current_time() <= began_at + 30.001
            tasks.cancel_scope.cancel()
        self.target.in_flight = 0
        assert self.world.budget.used_bytes == 0

    async def until_empty(self, timeout_s: float = 40_000) -> None:
        self.world.faults = False
        events = self.fresh()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.run)
            with anyio.fail_after(timeout_s):
                while self.stored():  # noqa: ASYNC110 - virtual
                    await anyio.sleep(5)
            tasks.cancel_scope.cancel()

    def stored(self) -> int:
        """Items of events and parts."""
        partitions = self.world.store.inner._partitions.items()
        return sum(len(p.items) for (kind, owner), p in partitions if kind == "async" and owner != "functions")

    def dropped(self) -> float:
        return self.metric("esm_async_events_dropped_total")

    def metric(self, name: str) -> float:
        found = [metric for telemetry in self.telemetries for metric in telemetry.registry.collect()]
        return sum(s.value for metric in found for s in metric.samples if s.name == name)


RULES = AsyncRules(on_success=QUEUE, on_failure=QUEUE, dead_letter=QUEUE)


def test_every_accepted_event_ends_in_success_at_its_destinations_or_in_a_counted_drop(seed: int) -> None:
    chance = World(seed).random
    rules = AsyncRules(
        chance.randint(0, 2), chance.choice([60, 90, 600, 21_600]), None,
        chance.choice([None, QUEUE]), chance.choice([None, QUEUE]),
    )  # fmt: skip
    play = Play(seed, rules)
    play.world.blobs = FakeBlobs(play.world) if seed % 2 else None

    async def main() -> None:
        for _ in range(chance.randint(1, 4)):
            pad = chance.choice([0, 0, 400_000])
            await play.work(chance.random() * 120, chance.randint(0, 12), graceful=chance.random() < 0.5, pad=pad)
        await play.until_empty()

    simulate(main)
    told = play.told[Recipient.ON_FAILURE].ids() | play.told[Recipient.DEAD_LETTER].ids()
    missing = play.accepted - play.world.taken() - told
    assert len(missing) <= play.dropped()
    assert play.target.in_flight_max <= 3
    assert play.world.blobs is None or not play.world.blobs.held, "the bucket holds what the store does not know"


def test_a_failing_event_is_tried_three_times_and_told_to_both_recipients() -> None:
    play = Play(1, RULES, faults=False)

    async def main() -> None:
        events = play.fresh()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.run)
            play.world.poison = _everything()
            await play.accept(1)
            await anyio.sleep(400)
            tasks.cancel_scope.cancel()

    simulate(main)
    starts = [one.started_at for one in play.world.invocations]
    assert starts == pytest.approx([0, 60, 180], abs=2)
    assert starts[1] - starts[0] > 60
    assert starts[2] - starts[1] > 120
    (document,) = play.told[Recipient.ON_FAILURE].documents
    context = json.loads(document)["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("RetriesExhausted", 3)
    assert len(play.told[Recipient.DEAD_LETTER].documents) == 1
    assert play.told[Recipient.ON_FAILURE].notices[0].trace == "Root=1"
    assert play.told[Recipient.ON_SUCCESS].documents == []
    assert play.stored() == 0
    assert play.metric("esm_async_events_received_total") == 1


def test_a_success_is_told_and_leaves_nothing() -> None:
    play = Play(2, RULES, faults=False)

    async def main() -> None:
        await play.work(20, 30, pad=500_000)

    simulate(main)
    assert play.told[Recipient.ON_SUCCESS].ids() == play.accepted == play.world.taken()
    assert play.stored() == 0
    assert play.dropped() == 0


def test_a_blocked_function_gets_nothing() -> None:
    play = Play(3, RULES, faults=False)
    play.functions = {str(FUNCTION): AsyncFunction(play.target, RULES, is_blocked=True, destination=play.told.get)}

    async def main() -> None:
        await play.work(5, 1)

    simulate(main)
    (document,) = play.told[Recipient.ON_FAILURE].documents
    assert json.loads(document)["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert play.world.invocations == []


def test_a_function_that_hangs_holds_up_no_other() -> None:
    play = Play(4, RULES, faults=False)
    slow = FakeTarget(play.world, concurrency=1, duration_s=1e6)
    slow.checks_keys = False
    play.functions[str(OTHER)] = AsyncFunction(slow, RULES, is_blocked=False, destination=play.told.get)

    async def main() -> None:
        events = play.fresh()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.run)
            await play.accept(50, OTHER)
            before = set(play.accepted)
            await play.accept(50)
            await anyio.sleep(60)
            assert play.accepted - before == play.told[Recipient.ON_SUCCESS].ids()
            tasks.cancel_scope.cancel()

    simulate(main)


def test_what_runs_already_takes_no_memory_from_what_is_to_be_looked_at() -> None:
    play = Play(17, RULES, faults=False, concurrency=40)
    play.world.buffer_bytes = 32 * 1024 * 1024
    play.target._duration_s = 1e6
    ids = [name for name in (f"r{number}" for number in range(3000)) if bucket_of(name) == 0][:40]

    async def main() -> None:
        events = play.fresh()
        async with anyio.create_task_group() as tasks:
            await play.world.budget.reserve(30 * 1024 * 1024)
            for name in ids:
                await events.accept(FUNCTION, b'{"Records": [{"id": 1, "key": "k"}]}', request_id=name)
            tasks.start_soon(events.run)
            await anyio.sleep(60)
            assert play.target.in_flight == len(ids)
            tasks.cancel_scope.cancel()

    simulate(main)


@pytest.mark.parametrize("kind", [Unreachable, Throttled])
def test_a_target_that_takes_nothing_is_not_asked_in_a_rush(kind: type[Ending]) -> None:
    play = Play(5, RULES, faults=False)
    asked = 0

    async def invoke(invocation: Invocation) -> Ending:
        nonlocal asked
        asked += 1
        return kind(invocation.request_id, *(() if kind is Throttled else ("refused",)))

    play.target.invoke = invoke  # type: ignore[method-assign]

    async def main() -> None:
        await play.work(60, 200)

    simulate(main)
    assert 3 < asked < 60


def test_a_broken_destination_is_told_again_holds_up_nothing_and_is_dropped_and_counted_in_the_end() -> None:
    play = Play(6, AsyncRules(0, 600, None, QUEUE), faults=False)
    play.told[Recipient.ON_FAILURE].is_broken = True

    async def main() -> None:
        events = play.fresh()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.run)
            play.world.poison = _everything()
            await play.accept(20)
            await anyio.sleep(60)
            assert len(play.world.invocations) == 20
            assert play.stored() == 20
            play.world.poison = set()
            await play.accept(5)
            await anyio.sleep(10)
            assert len(play.world.taken()) == 5
            await anyio.sleep(1200)
            tasks.cancel_scope.cancel()

    simulate(main)
    assert play.stored() == 0
    assert play.dropped() == 20
    assert len(play.world.invocations) == 25
    assert 20 * 5 <= play.told[Recipient.ON_FAILURE].tries <= 20 * 15
    assert play.metric("esm_async_destination_delivery_failures_total") == play.told[Recipient.ON_FAILURE].tries


def test_a_document_that_its_destination_cannot_hold_is_dropped_at_once_and_one_without_recipients_too() -> None:
    play = Play(7, AsyncRules(0, 600, None, QUEUE, QUEUE), faults=False)
    play.told[Recipient.ON_FAILURE].is_small = True
    play.told.pop(Recipient.DEAD_LETTER)

    async def main() -> None:
        play.world.poison = _everything()
        await play.work(5, 1)
        play.functions = {str(FUNCTION): AsyncFunction(play.target, AsyncRules(0), False, play.told.get)}
        await play.work(5, 1)

    simulate(main)
    assert play.stored() == 0
    assert play.dropped() == 3


def test_events_of_a_function_that_is_gone_wait_for_it_until_their_age_ends() -> None:
    play = Play(8, AsyncRules(), faults=False)

    async def main() -> None:
        functions, play.functions = play.functions, {}
        await play.work(600, 3)
        assert play.stored() == 3
        assert play.events is not None
        assert play.events.backlogs() == {str(FUNCTION): 3}
        play.functions = functions
        await play.work(400)
        assert play.events is not None
        assert play.events.backlogs() == {str(FUNCTION): 0}
        assert len(play.world.taken()) == 3
        play.functions = {}
        await play.work(4000, 2)

    simulate(main)
    assert play.stored() == 0
    assert play.dropped() == 2


def test_parts_without_an_event_are_cleaned_up_and_those_of_an_event_stay() -> None:
    play = Play(9, AsyncRules(), faults=False)

    async def main() -> None:
        events = play.fresh()
        await events.accept(FUNCTION, json.dumps({"Records": [], "pad": "x" * 700_000}).encode(), request_id="large")
        owner = f"{bucket_of('large'):02d}/{FUNCTION}/parts"
        await play.world.store.inner.put(Key("async", owner, f"{'0' * 15}-gone-1-000"), b"left", None)
        await play.world.store.inner.put(Key("async", owner, f"{'9' * 15}-young-1-000"), b"left", None)
        play.functions = {}
        await anyio.sleep(1000)
        await play.work(60)
        page = await play.world.store.inner.scan("async", owner)
        assert len(page.items) == 2 + 1
        await _lose_parts(play, owner)
        play.functions = {
            str(FUNCTION): AsyncFunction(play.target, AsyncRules(), is_blocked=False, destination=lambda _: None)
        }
        await play.work(600)

    simulate(main)
    assert play.dropped() == 1
    assert play.stored() == 1


@pytest.mark.parametrize("is_changed", [False, True])
def test_large_bodies_are_blobs_which_go_with_their_event_and_are_found_after_a_crash(*, is_changed: bool) -> None:
    play = Play(19, AsyncRules(), faults=False)
    blobs = play.world.blobs = FakeBlobs(play.world)
    owner = f"{bucket_of('large'):02d}/{FUNCTION}/parts"
    left = Blob.of(f"async/{owner}/left", b"left")

    async def main() -> None:
        events, store = play.fresh(), play.world.store.inner
        await events.accept(FUNCTION, json.dumps({"Records": [], "pad": "x" * 700_000}).encode(), request_id="large")
        (blob,) = blobs.held
        assert len((await store.scan("async", owner)).items) == 1, "a marker alone"
        await store.put(Key("async", owner, f"{'0' * 15}-gone-1-blob"), async_stored.encode_marker(left), None)
        await blobs.put(left, b"left")
        await store.put(Key("async", owner, f"{'0' * 15}-newer-1-blob"), b'{"format":2}', None)
        function, play.functions = play.functions, {}
        await anyio.sleep(1000)
        play.world.blobs = None
        await play.work(60)
        assert blobs.held == {blob, left}, "without a bucket nothing is lost"
        play.world.blobs = blobs
        await play.work(60)
        (moved,) = blobs.held
        assert moved.sha256 == blob.sha256, "put back for later, the event has a blob of its own"
        play.functions = function
        if is_changed:
            del blobs._held[moved]
        await play.work(600)

    simulate(main)
    assert play.dropped() == int(is_changed)
    assert len(play.world.invocations) == int(not is_changed)
    assert not blobs.held
    assert play.stored() == 1 + int(is_changed), "a newer version's marker, and that of the event whose blob was gone"


def test_events_wait_for_a_bucket_that_is_not_named_any_more() -> None:
    play = Play(20, AsyncRules(), faults=False)
    blobs = play.world.blobs = FakeBlobs(play.world)

    async def main() -> None:
        await play.fresh().accept(FUNCTION, json.dumps({"Records": [], "pad": "x" * 700_000}).encode())
        play.world.blobs = None
        await play.work(600, graceful=False)
        assert not play.world.invocations
        play.world.blobs = blobs
        await play.work(600)

    simulate(main)
    assert (len(play.world.invocations), play.dropped(), blobs.held) == (1, 0, set())


async def _lose_parts(play: Play, owner: str) -> None:
    store = play.world.store.inner
    for item in (await store.scan("async", owner)).items:
        if "large" in item.key.item:
            await store.delete(item.key, item.version)


def test_a_restart_goes_on_where_the_last_one_was() -> None:
    play = Play(10, AsyncRules(2, 21_600, None, QUEUE), faults=False)

    async def main() -> None:
        play.world.poison = _everything()
        await play.work(30, 1, graceful=False)
        await play.work(20, graceful=True)
        await play.work(300)

    simulate(main)
    starts = [one.started_at for one in play.world.invocations]
    assert starts == pytest.approx([0, 60, 180], abs=2)
    assert len(play.told[Recipient.ON_FAILURE].documents) == 1


def test_an_error_of_the_program_itself_ends_nothing_else_and_is_survived() -> None:
    play = Play(12, RULES, faults=False)
    crashes = iter([ValueError("a mistake"), ValueError("another")])

    async def invoke(invocation: Invocation) -> Ending:
        for crash in crashes:
            raise crash
        return Answer(invocation.request_id, b"null")

    play.target.invoke = invoke  # type: ignore[method-assign]

    async def main() -> None:
        await play.work(60, 5)

    simulate(main)
    assert play.told[Recipient.ON_SUCCESS].ids() == play.accepted
    assert play.metric("esm_async_restarts_total") == 2


def test_a_mapping_hands_its_batches_over_and_says_what_was_not_stored() -> None:
    play = Play(11, RULES, faults=False)

    async def main() -> None:
        events = play.fresh()
        target = Accepting(events, "role", play.world.around())
        assert await target.facts() == FunctionFacts(None, "role")
        assert target.concurrency is None
        await target.wait_free()
        asked = Invocation("r", FUNCTION, b"{}", is_async=True)
        assert await target.invoke(asked) == Answer("r", b"", status=202)
        late = Invocation("r", FUNCTION, b"{}", Instant(-1.0), is_async=True)
        assert await target.invoke(late) == Throttled("r")
        with pytest.raises(RequestRefused, match="too large"):
            await events.accept(FUNCTION, b"x" * 1_048_577)
        play.world.faults = True
        play.world.fails = lambda _: True  # type: ignore[method-assign]
        assert isinstance(await target.invoke(asked), Unreachable)
        await target.aclose()

    simulate(main)


def test_a_message_beyond_the_asynchronous_limit_is_refused_before_anybody_sees_it() -> None:
    world = World(13, faults=False)
    mapping = queue_mapping(invocation_type=InvocationType.EVENT)
    large = Message(b"x" * 1_048_576, "m", "h", Instant(1e9), UnixTime(0.0))
    outcomes: list[Outcome] = []

    async def main() -> None:
        around = world.around()
        target = FakeTarget(world)
        invoker = Invoker(around, target, Gate(Pressure(1)), world.observation(mapping, around))
        outcomes.append(await invoker.invoke(mapping, [large], ["m"], 1))

    simulate(main)
    assert isinstance(outcomes[0], Refused)
    assert world.invocations == []


class _everything(set[int]):  # noqa: N801 - reads as a value
    """Every record is poison."""

    def __rand__(self, other: object) -> set[int]:
        return set(other) if isinstance(other, set) else set()

    def __bool__(self) -> bool:
        return True
