"""A world made from one seed: streams, queues, a function, a destination and a store that fail, on a virtual clock.

Faults come while `faults` is true. Everything that a source ever held is remembered, so that nothing can get lost
unseen.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import anyio
from prometheus_client import CollectorRegistry

from esm.errors import OperatorNeeded, PositionLost, Unavailable
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import Instant, UnixTime
from esm.model.function import FunctionFacts
from esm.model.invocation import Answer, Ending, Invocation, Misconfigured, Refused, Throttled, Unreachable
from esm.model.mapping import Mapping, StartingPosition
from esm.model.notice import Notice
from esm.model.position import AfterSequence, AtTimestamp, Position, Shard, StreamFacts
from esm.model.record import ChildShard, Message, QueueFacts, Read, StreamRecord
from esm.model.stored import Blob, Key, Page, Stored
from esm.rules import notices
from esm.runtime.observation import Observation
from esm.runtime.surroundings import ByteBudget, Surroundings
from esm.stores.blobs import MemoryBlobs
from esm.stores.memory import MemoryStore
from esm.telemetry import Telemetry

WALL_AT_START = 1_700_000_000.0
RETENTION_S = 86_400.0
FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f")
STREAM = Arn.parse("arn:aws:kinesis:us-east-1:000000000000:stream/s")
QUEUE = Arn.parse("arn:aws:sqs:us-east-1:000000000000:q")
FIFO = Arn.parse("arn:aws:sqs:us-east-1:000000000000:q.fifo")


class Clock:
    """Virtual in both ways."""

    def now(self) -> Instant:
        return Instant(anyio.current_time())

    def wall(self) -> UnixTime:
        return UnixTime(WALL_AT_START + anyio.current_time())

    async def sleep_until(self, at: Instant) -> None:
        await (anyio.sleep_forever() if math.isinf(at) else anyio.sleep_until(at))


@dataclass
class Written:
    """A record that a source held."""

    id: int
    key: str
    sequence: int
    arrived_at: float


@dataclass
class FakeShard:
    parents: tuple[str, ...] = ()
    records: list[Written] = field(default_factory=list)
    is_closed: bool = False
    listed_at: float = 0.0
    children: list[str] = field(default_factory=list)


@dataclass
class Invoked:
    """What the function saw."""

    started_at: float
    ids: list[int]
    keys: list[str]
    ended_at: float = math.inf
    succeeded: frozenset[int] = frozenset()
    ran: bool = True


class World:
    """Chance, faults, and everything that happened."""

    def __init__(self, seed: int, *, faults: bool = True) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.invocations: list[Invoked] = []
        self.notices: list[Notice] = []
        self.poison: set[int] = set()
        self.broken_until = 0.0
        self.destination_broken_until = 0.0
        self.answers_after_s = 0.0
        """Sources do not answer for so long, and then only that they are out of reach."""
        self.may_cancel_receives = False
        """A crash cancels what a stop must not."""
        self.clock = Clock()
        self.store = FakeStore(self)
        self.blobs: FakeBlobs | None = None
        self.buffer_bytes = 64 * 1024 * 1024
        self.budget = ByteBudget(self.buffer_bytes)
        self.telemetry = Telemetry(CollectorRegistry())
        self._ids = 0

    def around(self) -> Surroundings:
        """What a fresh worker gets: the store and the world go on, memory does not."""
        self.budget = ByteBudget(self.buffer_bytes)
        return Surroundings(
            clock=self.clock, telemetry=Telemetry(CollectorRegistry()), store=self.store, budget=self.budget,
            jitter=self.random.random, new_id=self.new_id, worker="w", sqs_wait_s=5, blobs=self.blobs,
        )  # fmt: skip

    def new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    def fails(self, probability: float) -> bool:
        return self.faults and self.random.random() < probability

    async def takes_time(self, most_s: float = 0.05) -> None:
        await anyio.sleep(self.random.random() * most_s)

    async def wait_answer(self) -> None:
        await self.takes_time()
        if self.answers_after_s:
            await anyio.sleep(self.answers_after_s)
            raise Unavailable("out of reach")

    def taken(self) -> set[int]:
        return {identity for one in self.invocations for identity in one.succeeded}

    def observation(self, mapping: Mapping, around: Surroundings) -> Observation:
        return Observation(mapping, around.telemetry.mapping(mapping))


class FakeStore:
    """A memory store that is out of reach now and then, before it has done anything."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.inner = MemoryStore()
        self.history: dict[Key, list[bytes]] = defaultdict(list)

    async def get(self, key: Key) -> Stored | None:
        await self._reach()
        return await self.inner.get(key)

    async def scan(self, kind: str, owner: str, after: str | None = None, limit: int = 1000) -> Page:
        await self._reach()
        return await self.inner.scan(kind, owner, after, limit)

    async def put(self, key: Key, value: bytes, expected_version: int | None) -> int:
        await self._reach()
        version = await self.inner.put(key, value, expected_version)
        self.history[key].append(value)
        await self._world.takes_time(0.01)
        return version

    async def delete(self, key: Key, expected_version: int) -> None:
        await self._reach()
        await self.inner.delete(key, expected_version)

    async def aclose(self) -> None:
        return

    async def _reach(self) -> None:
        await self._world.takes_time(0.01)
        if self._world.fails(0.05):
            raise Unavailable("the store is out of reach")


class FakeBlobs(MemoryBlobs):
    """Blobs that are out of reach now and then, before or after they have done what was asked."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    @property
    def held(self) -> set[Blob]:
        return set(self._held)

    async def put(self, blob: Blob, content: bytes | Path) -> None:
        await self._reach()
        await super().put(blob, content)
        await self._reach()

    async def get(self, blob: Blob) -> bytes | None:
        await self._reach()
        return await super().get(blob)

    async def delete(self, blob: Blob) -> None:
        await self._reach()
        await super().delete(blob)
        await self._reach()

    async def _reach(self) -> None:
        await self._world.takes_time(0.05)
        if self._world.fails(0.05):
            raise Unavailable("the bucket is out of reach")


class FakeStream:
    """A stream whose shards split and merge; shard ids sort by age."""

    read_bytes_max = 1_000_000
    reads_per_s_busy = 2.0
    reads_per_s_idle = 1.0

    def __init__(self, world: World, shards: int) -> None:
        self._world = world
        self.shards_by_id: dict[str, FakeShard] = {}
        self.owners: dict[str, str] = {}
        self.written: list[Written] = []
        self.announces = world.random.random() < 0.5
        self.is_missing = False
        self.trimmed_before = 0.0
        self.pad_bytes: list[int] = []
        """Sizes of the first records; the others are small."""
        for _ in range(shards):
            self._add(())

    def write(self, key: str) -> Written:
        """A record of `key`, in the shard that holds the key now."""
        shard = self.shards_by_id[self._shard_of(key)]
        record = Written(len(self.written), key, len(self.written) + 1, self._world.clock.wall())
        self.written.append(record)
        shard.records.append(record)
        return record

    def split(self) -> None:
        parent = self._world.random.choice(self._open())
        self._close(parent, [self._add((parent,)), self._add((parent,))])

    def merge(self) -> None:
        if len(self._open()) >= 2:
            left, right = self._world.random.sample(self._open(), 2)
            child = self._add((left, right))
            self._close(left, [child])
            self._close(right, [child])

    def forget(self, identity: str) -> None:
        """A shard whose records have all expired leaves the listing."""
        del self.shards_by_id[identity]

    async def facts(self) -> StreamFacts:
        await self._reach()
        return StreamFacts("stream@1", RETENTION_S)

    async def shards(self) -> list[Shard]:
        await self._reach()
        now = anyio.current_time()
        return [
            Shard(identity, shard.parents, shard.is_closed)
            for identity, shard in self.shards_by_id.items()
            if shard.listed_at <= now
        ]

    async def exists(self, shard_id: str) -> bool:
        await self._reach()
        return shard_id in self.shards_by_id

    async def children(self, shard_id: str) -> list[Shard] | None:
        del shard_id
        await self._reach()
        return None

    def open(self, shard_id: str, position: Position) -> FakeReader:
        return FakeReader(self._world, self, shard_id, position)

    async def _reach(self) -> None:
        await self._world.wait_answer()
        if self.is_missing:
            raise OperatorNeeded("Stream not found")
        if self._world.fails(0.05):
            raise Unavailable("throttled")

    def _open(self) -> list[str]:
        return [identity for identity, shard in self.shards_by_id.items() if not shard.is_closed]

    def _shard_of(self, key: str) -> str:
        owner = self.owners.setdefault(key, self._world.random.choice(self._open()))
        while self.shards_by_id[owner].is_closed:
            owner = self.owners[key] = self._world.random.choice(self.shards_by_id[owner].children)
        return owner

    def _add(self, parents: tuple[str, ...]) -> str:
        identity = f"shard-{len(self.shards_by_id):04d}"
        late_s = self._world.random.random() * 5 if parents and self._world.faults else 0.0
        self.shards_by_id[identity] = FakeShard(parents, listed_at=self._now() + late_s)
        return identity

    def _close(self, identity: str, children: list[str]) -> None:
        self.shards_by_id[identity].is_closed = True
        self.shards_by_id[identity].children = children

    @staticmethod
    def _now() -> float:
        try:
            return anyio.current_time()
        except RuntimeError:
            return 0.0


class FakeReader:
    """Reads a fake shard in slices."""

    def __init__(self, world: World, stream: FakeStream, shard_id: str, position: Position) -> None:
        self._world = world
        self._stream = stream
        self._shard_id = shard_id
        self._shard = stream.shards_by_id[shard_id]
        self._next = self._index(position)
        self._position = position

    async def read(self, limit: int) -> Read:
        world = self._world
        await world.wait_answer()
        if world.fails(0.1):
            raise Unavailable("throttled")
        oldest = self._stream.trimmed_before
        if isinstance(self._position, AfterSequence) and self._position.arrived_at < oldest:
            self._position = AfterSequence(self._position.sequence, UnixTime(math.inf))
            raise PositionLost("trimmed")
        if world.fails(0.2):
            return Read([], 0, 1.0, has_ended=False)
        count = min(limit, world.random.randint(1, 40))
        found = self._shard.records[self._next : self._next + count]
        self._next += len(found)
        records = [stream_record(one, self._pad_bytes(one)) for one in found if one.arrived_at >= oldest]
        has_ended = self._shard.is_closed and self._next >= len(self._shard.records)
        children = ()
        if has_ended and self._stream.announces:
            by_id = self._stream.shards_by_id
            children = tuple(ChildShard(child, by_id[child].parents) for child in self._shard.children)
        behind_s = 0.0 if self._next >= len(self._shard.records) else 1.0
        return Read(records, sum(len(record.event) for record in records), behind_s, has_ended, children)

    def _pad_bytes(self, one: Written) -> int:
        sizes = self._stream.pad_bytes
        return sizes[one.id] if one.id < len(sizes) else 50

    def _index(self, position: Position) -> int:
        match position:
            case AfterSequence(sequence):
                return sum(one.sequence <= int(sequence) for one in self._shard.records)
            case AtTimestamp(at):
                return sum(one.arrived_at < at for one in self._shard.records)
            case _:
                return 0


def stream_record(one: Written, pad_bytes: int = 50) -> StreamRecord:
    event = json.dumps({"id": one.id, "key": one.key, "pad": "x" * pad_bytes}).encode()
    return StreamRecord(event, str(one.sequence), hash_of(one.key), UnixTime(one.arrived_at))


def hash_of(key: str) -> int:
    return int.from_bytes(key.encode(), "big")


class FakeTarget:
    """A function that ends in every way; it never sees one key twice at once."""

    def __init__(self, world: World, *, concurrency: int | None = None, duration_s: float = 0.2) -> None:
        self._world = world
        self._duration_s = duration_s
        self.concurrency = concurrency
        self.in_flight = 0
        self.in_flight_max = 0
        self.busy: set[str] = set()
        self.checks_keys = True
        self.reports = False
        """Some records of a batch fail now and then, by `batchItemFailures`."""

    async def facts(self) -> FunctionFacts:
        return FunctionFacts(3, "role")

    async def wait_free(self) -> None:
        return

    async def aclose(self) -> None:
        return

    async def invoke(self, invocation: Invocation) -> Ending:
        world = self._world
        records = json.loads(invocation.payload)["Records"]
        ids, keys = [record["id"] for record in records], [record["key"] for record in records]
        if invocation.start_by is not None:
            assert anyio.current_time() <= invocation.start_by, "started after visibility had ended"
        one = Invoked(anyio.current_time(), ids, keys)
        world.invocations.append(one)
        mine = set(keys)
        assert not self.checks_keys or not mine & self.busy, f"two invocations at once of {mine & self.busy}"
        self.busy |= mine
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            await anyio.sleep(world.random.random() * self._duration_s)
            ending, succeeded = self._ending(invocation.request_id, records)
        finally:
            self.in_flight -= 1
            self.busy -= mine
            one.ended_at = anyio.current_time()
        one.succeeded = frozenset(succeeded)
        one.ran = isinstance(ending, Answer)
        return ending

    def _ending(self, request_id: str, records: list[dict]) -> tuple[Ending, set[int]]:
        world = self._world
        ids = {record["id"] for record in records}
        if anyio.current_time() < world.broken_until:
            return Unreachable(request_id, "refused"), set()
        for ending in (
            Throttled(request_id), Unreachable(request_id, "reset"), Misconfigured(request_id, "KMS"),
            Refused(request_id, "413"),
        ):  # fmt: skip
            if isinstance(ending, Refused) and len(records) <= 1:
                continue
            if world.fails(0.03):
                return ending, set()
        if self.reports:
            bad = {identity for identity in sorted(ids) if identity in world.poison or world.fails(0.1)}
            failures = [{"itemIdentifier": str(identity)} for identity in sorted(bad)]
            return Answer(request_id, json.dumps({"batchItemFailures": failures}).encode()), ids - bad
        if ids & world.poison or world.fails(0.05):
            return Answer(request_id, b'{"errorType":"E"}', "Unhandled"), set()
        return Answer(request_id, b"null"), ids


class FakeDestination:
    """Takes notices; out of reach now and then."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def send(self, notice: Notice, document: bytes) -> None:
        await self._world.takes_time()
        if self._world.fails(0.2) or anyio.current_time() < self._world.destination_broken_until:
            raise Unavailable("destination")
        assert document.startswith(notices.document(notice)[:-1])
        self._world.notices.append(notice)

    async def check(self) -> None:
        return


@dataclass
class FakeMessage:
    id: int
    key: str
    sent_at: float
    visible_at: float = 0.0
    receives: int = 0
    handle: str = ""
    received_at: float = 0.0
    trace: str | None = None


class FakeQueue:
    """A standard queue with a dead-letter queue, or with `groups` a FIFO queue that gives groups out as AWS does."""

    def __init__(self, world: World, *, visibility_s: int = 10, receives_max: int = 1000, groups: int = 0) -> None:
        self._world = world
        self._visibility_s = visibility_s
        self._receives_max = receives_max
        self._groups = groups
        self._attempts: dict[str, tuple[float, list[str]]] = {}
        self.messages: dict[int, FakeMessage] = {}
        self.dead: list[int] = []
        self.sent = 0
        self.read_bytes_max = 100_000
        self.receiving = 0
        self.receiving_max = 0
        self.polls: list[float] = []
        self.slow_s = 0.05
        """How long an answer is under way, at most."""
        self.hidden: list[tuple[float, int, int]] = []
        """When a message was hidden for how long: releases, returns and extensions."""
        self.repeated = 0
        """Receives that asked again for what an answer had lost."""
        self.loses_extensions = False

    def send(self, count: int, *, trace: str | None = None) -> None:
        for _ in range(count):
            key = f"g{self._world.random.randrange(self._groups)}" if self._groups else f"k{self.sent}"
            self.messages[self.sent] = FakeMessage(self.sent, key, self._world.clock.wall(), trace=trace)
            self.sent += 1

    async def facts(self) -> QueueFacts:
        await self._reach()
        hidden = sum(message.visible_at > anyio.current_time() for message in self.messages.values())
        return QueueFacts(
            self._visibility_s, 262_144, is_fifo=self._groups > 0, backlog=len(self.messages) - hidden,
            not_visible=hidden,
        )  # fmt: skip

    async def receive(self, count: int, wait_s: int, attempt: str | None = None) -> list[Message]:
        assert (attempt is not None) == (self._groups > 0), "an attempt is named on FIFO queues only"
        self.receiving += 1
        self.receiving_max = max(self.receiving_max, self.receiving)
        self.polls.append(anyio.current_time())
        try:
            await self._reach()
            until = anyio.current_time() + wait_s
            while not (found := self._take(count, attempt)) and anyio.current_time() < until:  # noqa: ASYNC110
                await anyio.sleep(0.1)
            await self._world.takes_time(self.slow_s)
            if self._world.fails(0.05):
                raise Unavailable("the answer was lost")
        except anyio.get_cancelled_exc_class():
            assert self._world.may_cancel_receives, "a receive under way was cancelled"
            raise
        finally:
            self.receiving -= 1
        return found

    async def delete(self, messages: Sequence[Message]) -> list[Message]:
        await self._reach()
        failed = [message for message in messages if self._world.fails(0.1)]
        for message in messages:
            if message not in failed and (not self._groups or self._held(message)):
                self.messages.pop(int(message.message_id), None)
        if self._world.fails(0.05):
            raise Unavailable("the answer was lost")
        return failed

    async def release(self, messages: Sequence[Message], delay_s: int = 0) -> None:
        await self.extend(messages, [delay_s] * len(messages))

    async def extend(self, messages: Sequence[Message], seconds: Sequence[int]) -> list[Message]:
        assert 0 < len(messages) <= 10
        await self._reach()
        failed: list[Message] = []
        for message, delay_s in zip(messages, seconds, strict=True):
            held = self._held(message)
            now = anyio.current_time()
            if held is None or now + delay_s > held.received_at + 43_200 or (delay_s and self.loses_extensions):
                failed.append(message)
                continue
            self.hidden.append((now, held.id, delay_s))
            held.visible_at = now + delay_s
        return failed

    def _held(self, message: Message) -> FakeMessage | None:
        """The message, if this receive of it is the last one and still hides it."""
        held = self.messages.get(int(message.message_id))
        is_mine = held is not None and held.handle == message.receipt_handle
        return held if held is not None and is_mine and held.visible_at > anyio.current_time() else None

    def _take(self, count: int, attempt: str | None) -> list[Message]:
        now = anyio.current_time()
        if again := self._again(attempt):
            return again
        found: list[Message] = []
        locked = {one.key for one in self.messages.values() if self._groups and one.visible_at > now}
        for message in list(self.messages.values()):
            if message.visible_at > now or message.key in locked or len(found) == count:
                continue
            if message.receives >= self._receives_max:
                self.dead.append(message.id)
                del self.messages[message.id]
                continue
            message.receives += 1
            message.received_at = now
            message.handle = f"{message.id}-{message.receives}"
            found.append(self._hidden(message))
        if attempt is not None and found:
            self._attempts[attempt] = (now, [message.receipt_handle for message in found])
        return found

    def _again(self, attempt: str | None) -> list[Message]:
        """What an earlier receive of this name brought, while all of it is still hidden by that receive."""
        if attempt is None or attempt not in self._attempts:
            return []
        at, handles = self._attempts[attempt]
        held = [self.messages.get(int(handle.split("-")[0])) for handle in handles]
        now = anyio.current_time()
        is_whole = all(one and one.handle in handles and one.visible_at > now for one in held)
        if now - at > 300 or not is_whole:
            return []
        self.repeated += 1
        return [self._hidden(one) for one in held if one is not None]

    def _hidden(self, message: FakeMessage) -> Message:
        now = anyio.current_time()
        message.visible_at = now + self._visibility_s
        event = json.dumps({"id": message.id, "key": message.key}).encode()
        return Message(
            event, str(message.id), message.handle, Instant(message.visible_at - min(1, self._visibility_s / 10)),
            UnixTime(message.sent_at), message.key if self._groups else None, message.receives, Instant(now),
            message.trace,
        )  # fmt: skip

    async def _reach(self) -> None:
        await self._world.wait_answer()
        if self._world.fails(0.05):
            raise Unavailable("throttled")


def stream_mapping(**more: object) -> Mapping:
    values: dict[str, object] = {
        "uuid": "u", "function": "f", "function_arn": FUNCTION, "source_arn": STREAM,
        "source_kind": SourceKind.KINESIS, "batch_size": 10, "starting_position": StartingPosition.TRIM_HORIZON,
        "on_failure": QUEUE, **more,
    }  # fmt: skip
    return Mapping(**values)  # type: ignore[arg-type]


def fifo_mapping(**more: object) -> Mapping:
    return queue_mapping(source_arn=FIFO, **more)


def queue_mapping(**more: object) -> Mapping:
    values: dict[str, object] = {
        "uuid": "u", "function": "f", "function_arn": FUNCTION, "source_arn": QUEUE, "source_kind": SourceKind.SQS,
        **more,
    }  # fmt: skip
    return Mapping(**values)  # type: ignore[arg-type]
