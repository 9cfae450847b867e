"""Several workers on one store: they join and leave, crash, freeze, lose the store and disagree about the time.

Whatever a worker asks the world for happens in the world, also when the worker stands still, dies or is not told. Each
invocation is held to the promises at the moment when it starts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeVar

import anyio

from esm.catalogue import Catalogue
from esm.errors import EsmError, Unavailable
from esm.model.clocks import Instant, UnixTime
from esm.model.control import Caller, Order, Rewind
from esm.model.invocation import Answer, Ending, Invocation, Throttled
from esm.model.lease import Lease
from esm.model.mapping import Mapping
from esm.model.notice import Notice
from esm.model.position import Position, Shard, StreamFacts
from esm.model.record import Read
from esm.model.stored import Key, Page, Stored
from esm.model.worker import HostLock
from esm.rules import stored
from esm.rules.assignment import Candidate, assignment
from esm.runtime.fleet import Fleet, Identity
from esm.runtime.orders import OrderBook
from esm.runtime.stream import StreamRunner
from esm.runtime.surroundings import Surroundings
from tests.simulation.freezing import Process, start
from tests.simulation.world import (
    Clock,
    FakeDestination,
    FakeReader,
    FakeStream,
    FakeTarget,
    World,
    hash_of,
)

T = TypeVar("T")

FAILOVER_S = 10.0

STREAM = "stream@1"

BY = Caller("host", "user")


@dataclass
class Answered:
    """What the world says, once it does."""

    came: anyio.Event = field(default_factory=anyio.Event)
    value: Any = None
    error: EsmError | None = None


class Line:
    """What joins one worker to the world."""

    def __init__(self, tasks: anyio.abc.TaskGroup, world: World) -> None:
        self._tasks = tasks
        self._world = world
        self.is_cut = False
        """The store is out of reach of this worker alone."""
        self.is_dead = False
        """Nobody listens any more."""
        self.slow_s = 0.0
        """How long the store takes for this worker, at most."""

    async def ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What is asked for happens in the world, whatever becomes of the worker."""
        if self.is_dead:
            await anyio.sleep(0.5)
            raise Unavailable("this worker is dead")
        answer = Answered()
        start(self._tasks, None, self._serve, ask, answer)
        await answer.came.wait()
        if answer.error is not None:
            raise answer.error
        return answer.value

    async def ask_store(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The same for the store, which may be out of reach before or after it has done what it was asked for."""

        async def slowly() -> T:
            if self.is_cut:
                await anyio.sleep(0.5)
                raise Unavailable("the store is out of reach of this worker")
            await self._world.takes_time(self.slow_s)
            found = await ask()
            await self._world.takes_time(self.slow_s)
            if self.is_cut or self._world.fails(0.03):
                raise Unavailable("the answer of the store was lost")
            return found

        return await self.ask(slowly)

    @staticmethod
    async def _serve(ask: Callable[[], Awaitable[Any]], answer: Answered) -> None:
        try:
            answer.value = await ask()
        except EsmError as error:
            answer.error = error
        answer.came.set()


class LineClock(Clock):
    """A worker's clocks: the one on the wall may be wrong, and jump."""

    def __init__(self) -> None:
        self.skew_s = 0.0

    def wall(self) -> UnixTime:
        return UnixTime(super().wall() + self.skew_s)


class LineStore:
    """The shared store, as one worker reaches it."""

    def __init__(self, world: World, line: Line) -> None:
        self._store = world.store
        self._line = line
        self.writes = self.reads = 0

    async def get(self, key: Key) -> Stored | None:
        self.reads += 1
        return await self._line.ask_store(lambda: self._store.get(key))

    async def scan(self, kind: str, owner: str, after: str | None = None, limit: int = 1000) -> Page:
        self.reads += 1
        return await self._line.ask_store(lambda: self._store.scan(kind, owner, after, limit))

    async def put(self, key: Key, value: bytes, expected_version: int | None) -> int:
        self.writes += 1
        return await self._line.ask_store(lambda: self._store.put(key, value, expected_version))

    async def delete(self, key: Key, expected_version: int) -> None:
        self.writes += 1
        await self._line.ask_store(lambda: self._store.delete(key, expected_version))

    async def aclose(self) -> None:
        return


class LineReader:
    def __init__(self, reader: FakeReader, line: Line) -> None:
        self._reader = reader
        self._line = line

    async def read(self, limit: int) -> Read:
        return await self._line.ask(lambda: self._reader.read(limit))


class LineStream:
    """The shared stream, as one worker reads it."""

    def __init__(self, stream: FakeStream, line: Line) -> None:
        self._stream = stream
        self._line = line
        self.listings = 0
        self.is_forbidden = False
        """This worker may not list the stream's shards."""
        self.read_bytes_max = stream.read_bytes_max
        self.reads_per_s_busy = stream.reads_per_s_busy
        self.reads_per_s_idle = stream.reads_per_s_idle

    async def facts(self) -> StreamFacts:
        return await self._line.ask(self._stream.facts)

    async def shards(self) -> list[Shard]:
        if self.is_forbidden:
            await anyio.sleep(0.01)
            raise Unavailable("shards may not be listed here")
        self.listings += 1
        return await self._line.ask(self._stream.shards)

    async def exists(self, shard_id: str) -> bool:
        return await self._line.ask(lambda: self._stream.exists(shard_id))

    async def children(self, shard_id: str) -> list[Shard] | None:
        return await self._line.ask(lambda: self._stream.children(shard_id))

    def open(self, shard_id: str, position: Position) -> LineReader:
        return LineReader(self._stream.open(shard_id, position), self._line)


@dataclass
class Call:
    """One invocation, and who made it."""

    worker: Worker
    term: int
    uuid: str
    shard: str
    ids: list[int]
    keys: list[str]
    started_at: float
    lease: Lease
    """As it was stored when the invocation started."""
    payload: dict[str, Any]
    is_running: bool = True
    ran: bool = False
    succeeded: frozenset[int] = frozenset()

    @property
    def is_excused(self) -> bool:
        """Whether its worker may have been taken for dead since it started."""
        return self.worker.has_died or not self.worker.fleet.holds(self.term, Instant(anyio.current_time()))


class LineTarget:
    """The function of one mapping, as one worker reaches it: what it has begun ends without it."""

    concurrency: int | None = None

    def __init__(self, play: FleetPlay, worker: Worker, mapping: Mapping) -> None:
        self._play = play
        self._worker = worker
        self._mapping = mapping
        target = play.target
        self.facts, self.wait_free, self.aclose = target.facts, target.wait_free, target.aclose

    async def invoke(self, invocation: Invocation) -> Ending:
        await self._play.world.takes_time(0.01)
        start_by = invocation.start_by
        if start_by is not None and anyio.current_time() >= start_by:
            return Throttled(invocation.request_id)
        return await self._worker.line.ask(lambda: self._invoke(invocation))

    async def _invoke(self, invocation: Invocation) -> Ending:
        call = self._play.begun(self._worker, self._mapping, invocation)
        ending = await self._play.target.invoke(invocation)
        await anyio.sleep(self._play.slow_s.get((call.uuid, call.shard), 0.0))
        call.is_running = False
        call.ran = isinstance(ending, Answer)
        if not isinstance(ending, Answer) or ending.function_error is not None:
            return ending
        failed = {int(one["itemIdentifier"]) for one in (json.loads(ending.payload) or {}).get("batchItemFailures", ())}
        call.succeeded = frozenset(call.ids) - failed
        if "state" not in call.payload:
            return ending
        ids = call.payload["state"].get("ids", []) + call.ids
        return replace(ending, payload=json.dumps({"state": {"ids": ids}}).encode())


class LineDestination:
    def __init__(self, play: FleetPlay, line: Line) -> None:
        self._destination = FakeDestination(play.world)
        self._line = line

    async def send(self, notice: Notice, document: bytes) -> None:
        await self._line.ask(lambda: self._destination.send(notice, document))

    async def check(self) -> None:
        return


class Worker:
    """One worker: its mappings run until it is stopped or killed."""

    def __init__(self, play: FleetPlay, name: str, mappings: Sequence[Mapping]) -> None:
        assert play.tasks is not None
        world = play.world
        self.name = name
        self.process = Process()
        self.line = Line(play.tasks, world)
        self.clock = LineClock()
        self.store = LineStore(world, self.line)
        self.has_died = False
        self.book = OrderBook()
        base = world.around()
        lock = HostLock(name, 1, 1, "boot") if play.has_locks else None
        identity = Identity(name, world.new_id(), 1, lock, failover_s=FAILOVER_S)
        self.fleet = Fleet(identity, self.clock, self.store, base.telemetry, play.is_free)
        self.around: Surroundings = replace(
            base, clock=self.clock, store=self.store, worker=name, members=self.fleet,
            checkpoint_interval_s=play.checkpoint_interval_s,
        )  # fmt: skip
        self.streams = {mapping.uuid: LineStream(play.streams[mapping.uuid], self.line) for mapping in mappings}
        self.runners = {mapping.uuid: self._runner(play, mapping) for mapping in mappings}
        self.scope = anyio.CancelScope()
        self.has_ended = anyio.Event()

    def _runner(self, play: FleetPlay, mapping: Mapping) -> StreamRunner:
        observation = play.world.observation(mapping, self.around)
        destination = LineDestination(play, self.line) if mapping.on_failure else None
        target = LineTarget(play, self, mapping)
        return StreamRunner(
            self.around, mapping, self.streams[mapping.uuid], target, destination, observation,
            self.book.of(mapping.uuid),
        )  # fmt: skip

    async def run(self) -> None:
        with self.scope:
            async with anyio.create_task_group() as background:
                background.start_soon(self.fleet.run)
                background.start_soon(self._follow_orders)
                async with anyio.create_task_group() as tasks:
                    for runner in self.runners.values():
                        tasks.start_soon(runner.run)
                await self.fleet.release()
                background.cancel_scope.cancel()
        self.has_ended.set()

    async def _follow_orders(self) -> None:
        """What the daemon does once a second."""
        catalogue = Catalogue(self.store)
        while True:
            try:
                self.book.follow(await catalogue.controls())
            except EsmError:
                await anyio.sleep(0.5)
            await anyio.sleep(1)

    def stop(self, grace_s: float = 30) -> None:
        self.fleet.leave()
        for runner in self.runners.values():
            runner.stop.set(Instant(anyio.current_time() + grace_s))

    @property
    def owned(self) -> set[tuple[str, str]]:
        return {(uuid, shard) for uuid, runner in self.runners.items() for shard in runner._running}


class FleetPlay:
    """Streams, a function, and workers that come and go."""

    def __init__(
        self, seed: int, mappings: Sequence[Mapping], *, faults: bool = True, shards: int | Sequence[int] = 4,
        has_locks: bool = False, checkpoint_interval_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.world = World(seed, faults=faults)
        self.mappings = mappings
        self.has_locks = has_locks
        self.checkpoint_interval_s = checkpoint_interval_s
        counts = [shards] * len(mappings) if isinstance(shards, int) else shards
        self.streams = {
            mapping.uuid: FakeStream(self.world, count) for mapping, count in zip(mappings, counts, strict=True)
        }  # fmt: skip
        self.target = FakeTarget(self.world)
        self.target.checks_keys = False
        self.slow_s: dict[tuple[str, str], float] = {}
        """How much longer the function takes for what comes from a shard."""
        self.workers: list[Worker] = []
        self.dead: list[Worker] = []
        self.names = 0
        self.tasks: anyio.abc.TaskGroup | None = None
        self.calls: list[Call] = []
        self.catalogue = Catalogue(self.world.store.inner)
        self.rewinds = 0
        self.rewound_at: list[float] = []
        self._running: dict[tuple[str, str], list[Call]] = defaultdict(list)

    def join(self, mappings: Sequence[Mapping] | None = None) -> Worker:
        assert self.tasks is not None
        self.names += 1
        worker = Worker(self, f"w{self.names}", self.mappings if mappings is None else mappings)
        self.workers.append(worker)
        start(self.tasks, worker.process, worker.run)
        return worker

    async def leave(self, worker: Worker) -> None:
        worker.process.thaw()
        worker.line.is_cut = False
        worker.stop()
        await worker.has_ended.wait()
        assert worker.around.budget.used_bytes == 0
        self.workers.remove(worker)

    def kill(self, worker: Worker) -> None:
        """It never makes a step again."""
        self.workers.remove(worker)
        self.dead.append(worker)
        worker.has_died = True
        worker.process.freeze()

    def is_free(self, lock: HostLock) -> bool:
        return lock.path in {worker.name for worker in self.dead}

    async def rewind(self, uuid: str, to: Any, shard: str | None = None) -> Order:
        self.rewinds += 1
        self.rewound_at.append(anyio.current_time())
        order = Rewind(f"order-{self.rewinds}", 0, self.world.clock.wall(), BY, STREAM, to, shard, is_latest=False)
        return await self.catalogue.order(uuid, order)

    async def write_for(self, seconds: float, keys: int, *, reshards: bool = True, pause_s: float = 0.5) -> None:
        chance = Random(self.world.random.random())
        until = anyio.current_time() + seconds
        while anyio.current_time() < until:
            await anyio.sleep(chance.random() * pause_s)
            stream = self.streams[chance.choice(sorted(self.streams))]
            written = stream.write(f"k{chance.randrange(keys)}")
            if self.world.faults and chance.random() < 0.02:
                self.world.poison.add(written.id)
            if reshards and chance.random() < 0.02:
                chance.choice([stream.split, stream.merge])()

    def begun(self, worker: Worker, mapping: Mapping, invocation: Invocation) -> Call:
        """An invocation starts: hold it to what must be so at this moment."""
        payload = json.loads(invocation.payload)
        records = payload["Records"]
        ids, keys = [record["id"] for record in records], sorted({record["key"] for record in records})
        shard = payload.get("shardId") or self._shard_of(mapping.uuid, ids[0])
        values = self.world.store.history[Key("lease", mapping.uuid, shard)]
        lease = stored.decode_lease(values[-1])
        call = Call(
            worker, worker.fleet.term, mapping.uuid, shard, ids, keys, anyio.current_time(), lease, payload
        )  # fmt: skip
        told = f"{worker.fleet.owner} at {call.started_at}: {mapping.uuid} {shard} {ids} {keys}"
        assert not worker.has_died, f"the dead invoke: {told}"
        assert lease.owner == worker.fleet.owner, f"invoked without the lease of {lease.owner}: {told}"
        for identity in ids:
            one = self.streams[mapping.uuid].written[identity]
            before = place(lease.positions[hash_of(one.key) % lease.factor])
            assert one.sequence > before, f"invoked again what is stored as taken: {told}"
        for key in keys:
            running = [one for one in self._running[mapping.uuid, key] if one.is_running]
            for one in running:
                assert one.is_excused, (
                    f"{key} twice at once: {told}, and {one.worker.fleet.owner} since {one.started_at}"
                )
            self._running[mapping.uuid, key] = [*running, call]
        self.calls.append(call)
        return call

    def _shard_of(self, uuid: str, identity: int) -> str:
        stream = self.streams[uuid]
        record = stream.written[identity]
        return next(name for name, shard in stream.shards_by_id.items() if record in shard.records)

    def lag(self) -> float:
        shards = [shard for worker in self.workers for runner in worker.runners.values() for shard in runner._views()]
        return max((shard.lag_s or 0.0 for shard in shards), default=0.0)

    def owners(self) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        for worker in self.workers:
            for shard in worker.owned:
                found.setdefault(shard, []).append(worker.name)
        return found

    def open_shards(self) -> set[tuple[str, str]]:
        """Shards that can never be finished as long as nobody closes them."""
        return {(uuid, shard) for uuid, stream in self.streams.items() for shard in stream._open()}

    def taken(self, uuid: str) -> set[int]:
        return {identity for call in self.calls if call.uuid == uuid for identity in call.succeeded}

    def given_up(self, uuid: str) -> set[int]:
        found: set[int] = set()
        for notice in self.world.notices:
            if notice.mapping == uuid and notice.span.count:
                first, last = int(notice.span.first_sequence), int(notice.span.last_sequence)
                records = self.streams[uuid].shards_by_id[notice.shard].records
                found |= {one.id for one in records if first <= one.sequence <= last}
        return found

    def missing(self) -> dict[str, list[int]]:
        left = {
            uuid: sorted({one.id for one in stream.written} - self.taken(uuid) - self.given_up(uuid))
            for uuid, stream in self.streams.items()
        }
        return {uuid: ids for uuid, ids in left.items() if ids}

    async def settle(self, timeout_s: float = 3000) -> None:
        """Faults are over: everything is taken, and the lag returns to zero."""
        self.world.faults = False
        for worker in self.workers:
            worker.line.is_cut, worker.line.slow_s = False, 0.0
            worker.process.thaw()
        with anyio.move_on_after(timeout_s):
            await anyio.sleep(1)
            while self.missing() or self.lag():  # noqa: ASYNC110 - virtual
                await anyio.sleep(5)
        assert not self.missing(), f"lost: {self.missing()}; {self.told()}"
        assert self.lag() == 0, f"the lag has not returned to zero: {self.told()}"

    async def check_quiet(self, mappings_of: Callable[[Worker], Sequence[str]] | None = None) -> None:
        """After 40 quiet seconds the shards are spread as they should be, and nothing moves or is listed twice."""
        await anyio.sleep(40)
        owners = self.owners()
        assert self.open_shards() <= owners.keys(), f"nobody owns {self.open_shards() - owners.keys()}: {self.told()}"
        assert all(len(names) == 1 for names in owners.values()), f"owned twice: {owners}"
        now = {shard: names[0] for shard, names in owners.items()}
        known = mappings_of or (lambda worker: sorted(worker.runners))
        candidates = [Candidate(worker.name, frozenset(known(worker))) for worker in self.workers]
        assert assignment(now, now, candidates) == now, f"not spread as it should be: {now} {self.told()}"
        listings = {(worker.name, uuid): s.listings for worker in self.workers for uuid, s in worker.streams.items()}
        claims = self.claims()
        await anyio.sleep(100)
        assert self.owners() == owners, f"shards move in quiet times: {owners} -> {self.owners()}"
        assert self.claims() == claims, "shards are claimed in quiet times"
        for uuid in self.streams:
            listing = [w.name for w in self.workers if uuid in w.streams and
                       w.streams[uuid].listings > listings[w.name, uuid]]  # fmt: skip
            assert len(listing) == 1, f"{uuid} is listed by {listing}"

    def claims(self) -> dict[Key, int]:
        """The generation of every lease."""
        return {
            key: stored.decode_lease(values[-1]).generation
            for key, values in self.world.store.history.items()
            if key.kind == "lease" and key.item[0] != "!"
        }

    def told(self) -> str:
        """How each worker sees the shards: for whoever reads a failure."""
        return "\n".join(
            f"{worker.fleet.owner} live {[one.owner for one in worker.fleet.live]} term {worker.fleet.term} {uuid}: runs"
            f" {sorted(runner._running)} begun {sorted(runner._starting)} leases {runner._owners} ready"
            f" {sorted(runner._ready())} should {sorted(worker.fleet.mine(uuid))}"
            for worker in self.workers
            for uuid, runner in worker.runners.items()
        )  # fmt: skip

    async def end(self) -> None:
        """Everybody leaves; of the dead, what is left is swept up."""
        for worker in list(self.workers):
            await self.leave(worker)
        for worker in self.dead:
            worker.line.is_dead = True
            worker.scope.cancel()
            worker.process.thaw()
            await worker.has_ended.wait()
            assert worker.around.budget.used_bytes == 0, (
                worker.around.budget.used_bytes,
                worker.around.budget._waiting,
            )


def place(position: object) -> float:
    """A position as a number: records beyond it are still to be taken."""
    return float(getattr(position, "sequence", -1))
