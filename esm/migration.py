"""`esm import-kcl` and `esm export-kcl`: from an application of Amazon's Kinesis Client Library to a mapping, and back.

Both sides are stopped: the application's leases must not change between two looks, and the state is opened as a daemon
opens it; one in a table is looked at until it has shown that no worker lives. Without `writes` nothing is changed.
Imports write the pinned beginning first, which reads every shard from its oldest record: an import that breaks off
skips nothing.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import anyio
from prometheus_client import CollectorRegistry

from esm import daemon, operating
from esm.aws.lease_table import Item, LeaseTable, changed
from esm.catalogue import Catalogue, remove_blob
from esm.catalogue.running import runs_at
from esm.config import Configuration
from esm.errors import Conflict, EsmError, RequestRefused, StateMissing
from esm.model.kcl import SENTINELS, SHARD_END, Look, Row
from esm.model.position import Shard, TrimHorizon
from esm.model.stored import Key, Stored
from esm.ports import Blobs, Store, StreamSource
from esm.rules import kcl, starting, stored
from esm.rules.kcl import Entry
from esm.rules.starting import START_ITEM, Start
from esm.runtime.supervisor import Plan
from esm.settings import Settings
from esm.sources import open_stream
from esm.state import open_bucket, open_state
from esm.telemetry import Telemetry

LOOK_S = 15.0
"""Between two looks at a table: KCL renews its leases every third of its failover time, which is 10 s unless set."""

LOOKS_MAX = 10
"""Shards that are looked at at a time."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for."""

    table: str
    mapping: str
    """UUID, function or source ARN."""
    writes: bool
    replaces: bool
    look_s: float = LOOK_S


@dataclass(frozen=True, slots=True)
class Sides:
    """A mapping's stream and a lease table, both reachable."""

    plan: Plan
    source: StreamSource
    table: LeaseTable


async def import_kcl(settings: Settings, configuration: Configuration, request: Request) -> list[str]:
    """Take over where the application stopped; returns lines for people.

    Raises: RequestRefused (it still runs, another stream's or program's table, positions that are there already),
    OperatorNeeded, Unavailable, StoreTooNew.
    """
    plan = chosen(configuration, request.mapping)
    async with AsyncExitStack() as stack:
        store = await _opened(settings, configuration, request, plan, stack)
        held = [] if store is None else await _held(store, plan.mapping.uuid)
        if held and not request.replaces:
            raise RequestRefused(
                f"The mapping {request.mapping} has positions already ({len(held)} items): --replace takes the table's"
                " in their place."
            )
        sides = await _sides(settings, configuration, request, plan, stack)
        if not await sides.table.exists():
            raise RequestRefused(f"There is no table {request.table} in {plan.mapping.source_arn.region}.")
        items = await _stopped(sides.table, request)
        start, entries = await _imported(sides, items)
        if store is not None and request.writes:
            blobs = await open_bucket(settings, configuration)
            if blobs is not None:
                stack.push_async_callback(blobs.aclose)
            await _write(store, blobs, start, entries, held, plan.mapping.uuid)
    return _lines(entries, request, "stored", "the daemon goes on from there at its next start")


async def export_kcl(settings: Settings, configuration: Configuration, request: Request) -> list[str]:
    """Write a lease table from which an application of KCL 1, 2 or 3 goes on; returns lines for people.

    Raises: RequestRefused (no positions; leases that are there already, or that live), OperatorNeeded, Unavailable.
    """
    plan = chosen(configuration, request.mapping)
    async with AsyncExitStack() as stack:
        store = await _opened(settings, configuration, request, plan, stack)
        held = [] if store is None else await _held(store, plan.mapping.uuid)
        sides = await _sides(settings, configuration, request, plan, stack)
        entries = await _exported(sides, held, request)
        is_there = await sides.table.exists()
        items = await _stopped(sides.table, request) if is_there else []
        if any(row.stream for row in kcl.rows_of(items, request.table)):
            raise RequestRefused(f"The table {request.table} is of an application with many streams: name a new table.")
        if items and not request.replaces:
            raise RequestRefused(
                f"The table {request.table} holds {len(items)} items already: --replace writes over the leases, or name"
                " a new table."
            )
        if request.writes:
            if not is_there:
                await sides.table.create()
            await _write_table(sides.table, items, entries)
    return _lines(entries, request, "written", "start the application with this table's name as its own")


def chosen(configuration: Configuration, name: str) -> Plan:
    """The one stream mapping of the configuration that a name means, as for other commands. Raises: RequestRefused."""
    plans = {uuid: plan for uuid, plan in daemon.plans(configuration).items() if plan.mapping.source_kind.is_stream}
    return plans[operating.found([plan.mapping for plan in plans.values()], name).uuid]


async def _opened(
    settings: Settings, configuration: Configuration, request: Request, plan: Plan, stack: AsyncExitStack
) -> Store | None:
    """The state, with which no daemon works where it will be written; None where there is none, and none is made."""
    if settings.state.startswith("memory:"):
        raise RequestRefused(
            "ESM_STATE is memory://, which ends with this command: name the file or table that the daemon will use."
        )
    is_dry = not request.writes
    try:
        store = await open_state(settings, configuration, exclusive=not is_dry, read_only=is_dry)
    except StateMissing:
        return None
    stack.push_async_callback(store.aclose)
    if not is_dry and not settings.state.startswith("sqlite:"):
        await _check_alone(store, plan.mapping.uuid, settings)
    return store


async def _check_alone(store: Store, mapping: str, settings: Settings) -> None:
    """A table knows no lock. Raises: RequestRefused (a worker runs the mapping, or may)."""
    running = await runs_at(Catalogue(store), mapping, [settings.worker_id], settings.failover_s, lambda *_: None)
    if running:
        raise RequestRefused(
            f"The state is in use by {', '.join(running)}: stop every worker that runs the mapping {mapping},"
            " and begin again."
        )


async def _sides(
    settings: Settings, configuration: Configuration, request: Request, plan: Plan, stack: AsyncExitStack
) -> Sides:
    adapters = daemon.make_adapters(settings, configuration, Telemetry(CollectorRegistry()))
    stack.push_async_callback(adapters.aclose)
    sessions = adapters.sessions.through(plan.ways.source)
    table = LeaseTable(request.table, plan.mapping.source_arn.region or sessions.region, sessions)
    return Sides(plan, open_stream(plan.mapping, "", sessions), table)


async def _stopped(table: LeaseTable, request: Request) -> list[Item]:
    """The table's items, which did not change for a while. Raises: RequestRefused."""
    before = await table.items()
    if not before:
        return before
    await anyio.sleep(request.look_s)
    after = await table.items()
    if moved := changed(before, after):
        raise RequestRefused(
            f"The application of the table {request.table} still runs: {len(moved)} of its leases changed within"
            f" {request.look_s:g} s (such as {moved[0]}). Stop all its workers, and begin again."
        )
    return after


async def _imported(sides: Sides, items: Sequence[Item]) -> tuple[Start, list[Entry]]:
    mapping, table = sides.plan.mapping, sides.table.name
    facts = await sides.source.facts()
    shards = await sides.source.shards()
    stamp = facts.identity.rpartition("@")[2].partition(".")[0]
    created_s = int(stamp) if stamp.isdecimal() else None
    rows = kcl.of_stream(kcl.rows_of(items, table), mapping.source_arn, created_s, table)
    kcl.check_shards(rows, shards, mapping.source_arn, table)
    looks = await _looks(sides.source, rows, shards)
    for row in rows:
        if kcl.is_foreign(row, looks.get(row.shard, Look())):
            raise RequestRefused(
                f"The table {table} is not of the stream {mapping.source_arn}: shard {row.shard} has older records than"
                f" the checkpoint {row.checkpoint}, and not that one."
            )
    return kcl.imported(mapping, facts.identity, rows, shards, looks)


async def _looks(source: StreamSource, rows: Sequence[Row], shards: Sequence[Shard]) -> dict[str, Look]:
    found: dict[str, Look] = {}
    failed: list[EsmError] = []
    places = anyio.CapacityLimiter(LOOKS_MAX)
    listed = {shard.id for shard in shards}

    async def look(row: Row) -> None:
        async with places:
            try:
                found[row.shard] = await _look(source, row)
            except EsmError as error:
                failed.append(error)

    async with anyio.create_task_group() as tasks:
        for row in rows:
            if row.shard in listed and row.checkpoint not in SENTINELS:
                tasks.start_soon(look, row)
    if failed:
        raise failed[0]
    return found


async def _look(source: StreamSource, row: Row) -> Look:
    first = await source.first_from(row.shard, row.checkpoint)
    if first is not None and first.sequence == row.checkpoint:
        return Look(first)
    oldest = (await source.open(row.shard, TrimHorizon()).read(1)).records
    return Look(first, oldest[0] if oldest else None)


async def _held(store: Store, uuid: str) -> list[Stored]:
    """Everything that is stored of a mapping's shards."""
    items: list[Stored] = []
    for kind in ("lease", "window"):
        after: str | None = None
        while True:
            page = await store.scan(kind, uuid, after)
            items += page.items
            after = page.after
            if after is None:
                break
    return items


async def _write(
    store: Store, blobs: Blobs | None, start: Start, entries: Sequence[Entry], held: Sequence[Stored], uuid: str
) -> None:
    """The beginning, then the leases, then remove what is left of before. A generation only grows."""
    before = {item.key: item for item in held}
    write = await Catalogue(store).write_format()

    async def put(key: Key, value: bytes) -> None:
        item = before.pop(key, None)
        try:
            await store.put(key, value, None if item is None else item.version)
        except Conflict as error:
            raise RequestRefused(
                f"The positions of mapping {uuid} changed meanwhile: a daemon has been started on the state. Stop it,"
                " and begin again with --replace."
            ) from error

    await put(Key("lease", uuid, START_ITEM), starting.encode(start, write))
    for entry in entries:
        if entry.lease is not None:
            key = Key("lease", uuid, entry.shard)
            generation = stored.decode_lease(before[key].value).generation + 1 if key in before else 1
            await put(key, stored.encode_lease(replace(entry.lease, generation=generation), write))
    for item in before.values():
        await remove_blob(item, blobs)
        await store.delete(item.key, item.version)


async def _exported(sides: Sides, held: Sequence[Stored], request: Request) -> list[Entry]:
    facts = await sides.source.facts()
    start = None
    leases = []
    for item in held:
        if item.key.kind == "lease" and item.key.item == START_ITEM:
            start = starting.decode(item.value)
        elif item.key.kind == "lease":
            leases.append(stored.decode_lease(item.value))
    if start is None or start.stream != facts.identity:
        raise RequestRefused(
            f"The mapping {request.mapping} has no positions in this stream: there is nothing to export. See ESM_STATE."
        )
    here = [lease for lease in leases if lease.stream == facts.identity]
    return kcl.exported(sides.plan.mapping, here, start, await sides.source.shards())


async def _write_table(table: LeaseTable, items: Sequence[Item], entries: Sequence[Entry]) -> None:
    """Unfinished shards first: an application that is started on half a table finds no parent that misses a child."""
    before = {str(item["leaseKey"]["S"]): item for item in items if item.get("leaseCounter") is not None}
    rows = [entry.item for entry in entries if entry.item is not None]
    for row in sorted(rows, key=lambda one: one["checkpoint"]["S"] == SHARD_END):
        seen = before.pop(row["leaseKey"]["S"], None)
        counter = "0" if seen is None else str(int(seen["leaseCounter"]["N"]) + 1)
        await table.put({**row, "leaseCounter": {"N": counter}}, seen)
    for item in before.values():
        await table.delete(item)


def _lines(entries: Sequence[Entry], request: Request, done: str, then: str) -> list[str]:
    lines = [f"{entry.shard}: {entry.text}" for entry in entries]
    if request.writes:
        return [*lines, f"{len(entries)} shards {done}; {then}"]
    return [*lines, "dry run: nothing was changed; --yes does it"]
