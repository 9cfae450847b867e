"""Several workers on one store and one stream: they join and leave, crash, freeze, and lose the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio

from esm.errors import Unavailable
from esm.model.clocks import Instant
from esm.model.invocation import Ending, Invocation
from esm.model.mapping import Mapping
from esm.model.position import Position, Shard, StreamFacts
from esm.model.record import Read
from esm.model.stored import Key, Page, Stored
from esm.runtime.fleet import Fleet, Identity
from esm.runtime.stream import StreamRunner
from esm.runtime.surroundings import Surroundings
from tests.simulation.test_streams import Play
from tests.simulation.world import FakeDestination, FakeReader, FakeStream, FakeTarget, World

FAILOVER_S = 10.0


class Line:
    """What joins one worker to the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.is_cut = False
        """The store is out of reach of this worker alone."""
        self._thawed = anyio.Event()
        self._thawed.set()

    def freeze(self) -> None:
        """The process stands still: whatever it asks for comes when it goes on."""
        self._thawed = anyio.Event()

    def thaw(self) -> None:
        self._thawed.set()

    async def moves(self) -> None:
        await self._thawed.wait()


class LineStore:
    """The shared store, as one worker reaches it."""

    def __init__(self, world: World, line: Line) -> None:
        self._store = world.store
        self._line = line

    async def get(self, key: Key) -> Stored | None:
        await self._reach()
        found = await self._store.get(key)
        await self._line.moves()
        return found

    async def scan(self, kind: str, owner: str, after: str | None = None, limit: int = 1000) -> Page:
        await self._reach()
        found = await self._store.scan(kind, owner, after, limit)
        await self._line.moves()
        return found

    async def put(self, key: Key, value: bytes, expected_version: int | None) -> int:
        await self._reach()
        version = await self._store.put(key, value, expected_version)
        await self._line.moves()
        return version

    async def delete(self, key: Key, expected_version: int) -> None:
        await self._reach()
        await self._store.delete(key, expected_version)

    async def aclose(self) -> None:
        return

    async def _reach(self) -> None:
        await self._line.moves()
        if self._line.is_cut:
            await anyio.sleep(0.5)
            raise Unavailable("the store is out of reach of this worker")


class LineReader:
    def __init__(self, reader: FakeReader, line: Line) -> None:
        self._reader = reader
        self._line = line

    async def read(self, limit: int) -> Read:
        await self._line.moves()
        found = await self._reader.read(limit)
        await self._line.moves()
        return found


class LineStream:
    """The shared stream, as one worker reads it."""

    def __init__(self, stream: FakeStream, line: Line) -> None:
        self._stream = stream
        self._line = line
        self.listings = 0
        self.read_bytes_max = stream.read_bytes_max
        self.reads_per_s_busy = stream.reads_per_s_busy
        self.reads_per_s_idle = stream.reads_per_s_idle

    async def facts(self) -> StreamFacts:
        await self._line.moves()
        return await self._stream.facts()

    async def shards(self) -> list[Shard]:
        await self._line.moves()
        self.listings += 1
        return await self._stream.shards()

    async def exists(self, shard_id: str) -> bool:
        await self._line.moves()
        return await self._stream.exists(shard_id)

    async def children(self, shard_id: str) -> list[Shard] | None:
        await self._line.moves()
        return await self._stream.children(shard_id)

    def open(self, shard_id: str, position: Position) -> LineReader:
        return LineReader(self._stream.open(shard_id, position), self._line)


class LineTarget:
    """The shared function: what a frozen worker has begun ends without it."""

    concurrency: int | None = None

    def __init__(self, target: FakeTarget, line: Line) -> None:
        self._target = target
        self._line = line
        self.facts = target.facts
        self.wait_free = target.wait_free
        self.aclose = target.aclose

    async def invoke(self, invocation: Invocation) -> Ending:
        ending = await self._target.invoke(invocation)
        await self._line.moves()
        return ending


class Worker:
    """One worker: its mappings run until it is stopped or killed."""

    def __init__(self, fleet: FleetPlay, name: str, mappings: Sequence[Mapping]) -> None:
        world = fleet.world
        self.name = name
        self.line = Line(world)
        store = LineStore(world, self.line)
        base = world.around()
        identity = Identity(name, world.new_id(), 1, failover_s=FAILOVER_S)
        self.fleet = Fleet(identity, world.clock, store, base.telemetry)
        self.around: Surroundings = replace(base, store=store, worker=name, members=self.fleet)
        self.streams = {mapping.uuid: LineStream(fleet.streams[mapping.uuid], self.line) for mapping in mappings}
        self.runners = {mapping.uuid: self._runner(fleet, mapping) for mapping in mappings}
        self.scope = anyio.CancelScope()
        self.has_ended = anyio.Event()

    def _runner(self, fleet: FleetPlay, mapping: Mapping) -> StreamRunner:
        observation = fleet.world.observation(mapping, self.around)
        destination = FakeDestination(fleet.world) if mapping.on_failure else None
        target = LineTarget(fleet.target, self.line)
        return StreamRunner(self.around, mapping, self.streams[mapping.uuid], target, destination, observation)

    async def run(self) -> None:
        with self.scope:
            async with anyio.create_task_group() as background:
                background.start_soon(self.fleet.run)
                async with anyio.create_task_group() as tasks:
                    for runner in self.runners.values():
                        tasks.start_soon(runner.run)
                await self.fleet.release()
                background.cancel_scope.cancel()
        self.has_ended.set()

    def stop(self, grace_s: float = 30) -> None:
        self.fleet.leave()
        for runner in self.runners.values():
            runner.stop.set(Instant(anyio.current_time() + grace_s))

    def kill(self) -> None:
        self.line.is_cut = True
        self.line.thaw()
        self.scope.cancel()

    @property
    def owned(self) -> set[tuple[str, str]]:
        return {(uuid, shard) for uuid, runner in self.runners.items() for shard in runner._running}


class FleetPlay(Play):
    """Streams, a function, and workers that come and go."""

    def __init__(self, seed: int, mappings: Sequence[Mapping], *, faults: bool = True, shards: int = 4) -> None:
        super().__init__(seed, mappings[0], faults=faults, shards=shards)
        self.mappings = mappings
        self.streams = {mappings[0].uuid: self.stream}
        for mapping in mappings[1:]:
            self.streams[mapping.uuid] = FakeStream(self.world, shards)
        self.workers: list[Worker] = []
        self.names = 0
        self.tasks: anyio.abc.TaskGroup | None = None

    def join(self, mappings: Sequence[Mapping] | None = None) -> Worker:
        assert self.tasks is not None
        self.names += 1
        worker = Worker(self, f"w{self.names}", self.mappings if mappings is None else mappings)
        self.workers.append(worker)
        self.tasks.start_soon(worker.run)
        return worker

    async def leave(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.stop()
        await worker.has_ended.wait()

    def kill(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.kill()

    def lag(self) -> float:
        shards = [shard for worker in self.workers for runner in worker.runners.values() for shard in runner._views()]
        return max((shard.lag_s or 0.0 for shard in shards), default=0.0)

    def owners(self) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        for worker in self.workers:
            for shard in worker.owned:
                found.setdefault(shard, []).append(worker.name)
        return found

    async def settle(self, timeout_s: float = 4000) -> None:
        """Faults are over: everything is taken, and the lag returns to zero."""
        self.world.faults = False
        for worker in self.workers:
            worker.line.is_cut = False
            worker.line.thaw()
        with anyio.move_on_after(timeout_s):
            await anyio.sleep(1)
            while len(self.settled()) < len(self.stream.written) or self.lag():  # noqa: ASYNC110 - virtual
                await anyio.sleep(5)
        missing = {one.id for one in self.stream.written} - self.settled()
        assert not missing, f"lost: {sorted(missing)}; {self.told()}"
        assert self.lag() == 0, "the lag has not returned to zero"

    def told(self) -> str:
        """How each worker sees the shards: for whoever reads a failure."""
        return "\n".join(
            f"{worker.fleet.owner} live {[one.owner for one in worker.fleet.live]} term {worker.fleet.term} {uuid}:"
            " runs"
            f" {sorted(runner._running)} begun {sorted(runner._starting)} leases {runner._owners} ready"
            f" {sorted(runner._ready())} should {sorted(worker.fleet.mine(uuid))}"
            for worker in self.workers
            for uuid, runner in worker.runners.items()
        )  # fmt: skip

    async def end(self) -> None:
        for worker in list(self.workers):
            await self.leave(worker)
