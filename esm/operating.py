"""`esm pause`, `resume`, `rewind`, `skip`, `leases` and `forget`: what operators want goes into the store, and whatever
daemon runs the mapping follows it within a second, or at its next start.
"""

import argparse
import getpass
import json
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Mapping as Table
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

import anyio
from rich.console import Console
from rich.table import Table as Grid

from esm import daemon, forgetting
from esm.catalogue import Catalogue, Held
from esm.config import Configuration
from esm.errors import RequestRefused
from esm.model.clocks import Instant, UnixTime
from esm.model.control import Caller, Control, Order, Rewind, Skip
from esm.model.lease import Lease
from esm.model.mapping import Mapping
from esm.model.position import AfterSequence, AtSequence, AtTimestamp, Position, TrimHorizon
from esm.model.worker import run_of, worker_of
from esm.rules import operating, stored
from esm.rules.fleet_views import Life
from esm.rules.progress import is_at_or_before, lowest
from esm.rules.sightings import Sightings, Word, owner_life
from esm.settings import Settings, load_settings
from esm.state import open_bucket, open_state

PIPED_WIDTH = 300
"""Columns of a table that does not go to a terminal."""

MAPPING_HELP = "the mapping's UUID or the beginning of it, its function or its source, where only one fits"
TO_HELP = "trim-horizon, latest, a time (2026-01-31T12:00:00Z, or Unix seconds), or SHARD:SEQUENCE"
YES_HELP = "do it; without this, show what would happen"

Place = TrimHorizon | AtTimestamp | AtSequence
Parser = Callable[[str, Callable[..., int], str], argparse.ArgumentParser]


def add_commands(command: Parser) -> None:
    """Declare the commands; `command` makes one from its name, what runs it, and its help."""
    for name, run, text in (
        ("pause", _pause, "let a mapping rest until it is resumed, whatever the configuration says"),
        ("resume", _resume, "let a paused mapping go on"),
    ):
        command(name, run, text).add_argument("mapping", metavar="MAPPING", help=MAPPING_HELP)
    rewind = command("rewind", _rewind, "read a stream again from a place on")
    rewind.add_argument("mapping", metavar="MAPPING", help=MAPPING_HELP)
    rewind.add_argument("--to", required=True, metavar="PLACE", help=TO_HELP)
    rewind.add_argument("--yes", action="store_true", help=YES_HELP)
    skip = command("skip", _skip, "let one shard go on behind a record that cannot be processed")
    skip.add_argument("mapping", metavar="MAPPING", help=MAPPING_HELP)
    skip.add_argument("shard", metavar="SHARD", help="the shard's id, as `esm leases` shows it")
    skip.add_argument("--to", required=True, metavar="SEQUENCE", help="the last record that is passed over")
    skip.add_argument("--yes", action="store_true", help=YES_HELP)
    leases = command("leases", _leases, "show who reads each shard, and how far it is")
    leases.add_argument("mapping", metavar="MAPPING", nargs="?", help=MAPPING_HELP + "; default: every stream's")
    leases.add_argument("--json", action="store_true", help="print a JSON list")
    forget = command("forget", _forget, "remove what is stored of a mapping that is gone from the configuration")
    forget.add_argument("mapping", metavar="UUID", help="the mapping's whole UUID")
    forget.add_argument("--yes", action="store_true", help=YES_HELP)


def found(mappings: Sequence[Mapping], name: str) -> Mapping:
    """The one mapping that a name means. Raises: RequestRefused, naming the candidates."""
    fitting = [mapping for mapping in mappings if mapping.uuid == name] or [
        mapping for mapping in mappings if mapping.uuid.startswith(name) or name in _names(mapping)
    ]
    if len(fitting) == 1:
        return fitting[0]
    candidates = "".join([f"\n  {one.uuid}  {one.function} <- {one.source_arn}" for one in fitting or mappings])
    why = "means several mappings" if fitting else "means no mapping of the configuration"
    raise RequestRefused(f"{name!r} {why}: name one by its UUID, or by enough of it to tell it apart.{candidates}")


def place(text: str, held: Held, wall: UnixTime) -> tuple[Place, str | None]:
    """Where `--to` points, and the shard where it is for one alone. Raises: RequestRefused."""
    if text == "trim-horizon":
        return TrimHorizon(), None
    if text == "latest":
        return AtTimestamp(wall), None
    shard, _, sequence = text.rpartition(":")
    if shard in {lease.shard for lease in held.leases}:
        return AtSequence(_sequence(sequence)), shard
    at = _instant(text)
    if at is None:
        shards = ", ".join(sorted(lease.shard for lease in held.leases)) or "none"
        raise RequestRefused(f"--to {text!r} is not {TO_HELP}. A time needs its zone. The shards known: {shards}.")
    if at > wall:
        raise RequestRefused(f"--to {text!r} is in the future: name a time that has passed, or say latest.")
    return AtTimestamp(at), None


def _names(mapping: Mapping) -> set[str]:
    source = mapping.source_arn
    return {mapping.function, str(mapping.function_arn), str(source), source.name, f"{source.service}:{source.name}"}


def _instant(text: str) -> UnixTime | None:
    try:
        return UnixTime(float(text))
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if at.tzinfo is None else UnixTime(at.timestamp())


def _sequence(text: str) -> str:
    if not text.isascii() or not text.isdecimal():
        raise RequestRefused(f"{text!r} is not a sequence number: copy one from `esm leases`, a notice or the log.")
    return text


def _pause(arguments: argparse.Namespace, environ: Table[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    mapping = found(configuration.mappings, arguments.mapping)

    async def pause(catalogue: Catalogue) -> int:
        is_new = await catalogue.pause(mapping.uuid, _now(), _caller())
        print(f"{_shown(mapping)}: {'paused' if is_new else 'is paused already'}.")
        return 0

    return _with_store(settings, configuration, pause)


def _resume(arguments: argparse.Namespace, environ: Table[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    mapping = found(configuration.mappings, arguments.mapping)

    async def resume(catalogue: Catalogue) -> int:
        was_paused = await catalogue.resume(mapping.uuid)
        rest = "" if mapping.enabled else " It stays Disabled: the configuration says Enabled: false."
        print(f"{_shown(mapping)}: {'resumed' if was_paused else 'was not paused'}.{rest}")
        return 0

    return _with_store(settings, configuration, resume)


def _rewind(arguments: argparse.Namespace, environ: Table[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    mapping = found(configuration.mappings, arguments.mapping)
    _check_stream(mapping, "rewind", "a queue has no positions, and what was deleted from it is gone.")
    return _with_store(settings, configuration, partial(_order_rewind, arguments, mapping))


async def _order_rewind(arguments: argparse.Namespace, mapping: Mapping, catalogue: Catalogue) -> int:
    held = await catalogue.held(mapping.uuid)
    if held.start is None:
        raise RequestRefused(
            f"Mapping {mapping.uuid} has not run with this state yet, so there is nothing to rewind: StartingPosition"
            " decides where it begins."
        )
    now = _now()
    to, shard = place(arguments.to, held, now)
    order = Rewind(str(uuid.uuid4()), 0, now, _caller(), held.start.stream, to, shard, arguments.to == "latest")
    control = await catalogue.control(mapping.uuid)
    for lease in held.leases:
        if shard is not None and lease.shard == shard:
            _check_back(lease, order)
    Console(width=PIPED_WIDTH).print(_preview(held, control, order), soft_wrap=True)
    return await _store_order(arguments, mapping, control, catalogue, order)


def _check_back(lease: Lease, order: Rewind) -> None:
    assert isinstance(order.to, AtSequence)
    ahead = [position for position in lease.positions if is_at_or_before(order.to.sequence, position)]
    if not ahead and all(isinstance(position, AfterSequence) for position in lease.positions):
        raise RequestRefused(
            f"Shard {lease.shard} has not come to {order.to.sequence} yet ({_where(lowest(lease.positions))}): a rewind"
            " only goes back. `esm skip` goes forward, and says what it passes."
        )


def _skip(arguments: argparse.Namespace, environ: Table[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    mapping = found(configuration.mappings, arguments.mapping)
    _check_stream(mapping, "skip", "a message that fails goes by the queue's own redrive policy.")
    return _with_store(settings, configuration, partial(_order_skip, arguments, mapping))


async def _order_skip(arguments: argparse.Namespace, mapping: Mapping, catalogue: Catalogue) -> int:
    held, sequence = await catalogue.held(mapping.uuid), _sequence(arguments.to)
    lease = next((lease for lease in held.leases if lease.shard == arguments.shard), None)
    if lease is None:
        known = ", ".join(sorted(lease.shard for lease in held.leases)) or "none"
        raise RequestRefused(f"Mapping {mapping.uuid} has no shard {arguments.shard!r}. The shards known: {known}.")
    if lease.is_finished or all(is_at_or_before(sequence, position) for position in lease.positions):
        raise RequestRefused(
            f"Shard {lease.shard} is past {sequence} already ({_where(lowest(lease.positions))}): nothing is left to"
            " skip. `esm rewind` goes back."
        )
    where = "are counted as dropped: the mapping has no destination"
    if mapping.on_failure is not None:
        where = f"leave a notice at {mapping.on_failure}"
    print(f"shard {lease.shard}: from {_where(lowest(lease.positions))} to after {sequence}")
    print(f"The records between, this one included, {where}. Records already taken stay taken.")
    order = Skip(str(uuid.uuid4()), 0, _now(), _caller(), lease.stream, lease.shard, sequence)
    return await _store_order(arguments, mapping, await catalogue.control(mapping.uuid), catalogue, order)


async def _store_order(
    arguments: argparse.Namespace, mapping: Mapping, control: Control, catalogue: Catalogue, order: Order
) -> int:
    if not arguments.yes:
        print("Nothing has been changed: say --yes to do it.")
        return 0
    made = await catalogue.order(mapping.uuid, order)
    when = "within a second by the daemons that run the mapping, or at their next start"
    if control.pause is not None or not mapping.enabled:
        when = "once the mapping is enabled again"
    print(f"{_shown(mapping)}: request {made.id} is stored; it is carried out {when}.")
    return 0


def _preview(held: Held, control: Control, order: Rewind) -> Grid:
    """What a rewind would do to each shard. Sources do not say how many records lie between two places."""
    grid = Grid(box=None, pad_edge=False)
    for name in ("SHARD", "NOW", "THEN", "EFFECT"):
        grid.add_column(name, overflow="fold")
    for lease in held.leases:
        now = lease
        for earlier in operating.pending(lease, control.orders):
            now = operating.rewound(now, earlier) if isinstance(earlier, Rewind) else now
        if operating.concerns(order, lease.shard):
            then = operating.rewound(now, order)
            grid.add_row(lease.shard, _where(lowest(now.positions)), _where(lowest(then.positions)),
                         _effect(now, then, order))  # fmt: skip
    return grid


def _effect(now: Lease, then: Lease, order: Rewind) -> str:
    if now.positions == then.positions:
        return "stays: what lies before is taken" if order.is_latest else "stays: it has taken nothing later"
    text = "passes over" if order.is_latest else "reads again"
    arrivals = [position.arrived_at for position in now.positions if isinstance(position, AfterSequence)]
    match order.to:
        case AtTimestamp(at) if arrivals and order.is_latest:
            text += f" up to {_span(at - min(arrivals))} of records, without a notice"
        case AtTimestamp(at) if arrivals:
            text += f" up to {_span(max(arrivals) - at)} of records"
        case _ if arrivals and not order.is_latest:
            text += f" up to the record of {_time(max(arrivals))}"
    if now.is_finished and not then.is_finished:
        text += "; the shard is finished: only if the source still lists it, and before its children"
    if now.window is not None and then.window is None:
        text += f"; the state of the open window of {_time(UnixTime(now.window.start_s))} is dropped"
    return text


def _leases(arguments: argparse.Namespace, environ: Table[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    mappings = [mapping for mapping in configuration.mappings if mapping.source_kind.is_stream]
    if arguments.mapping is not None:
        mappings = [found(configuration.mappings, arguments.mapping)]
        _check_stream(mappings[0], "leases", "a queue has no shards.")

    async def show(catalogue: Catalogue) -> int:
        found = await _owned(catalogue, [mapping.uuid for mapping in mappings], settings)
        if arguments.json:
            print(json.dumps([_document(*one) for one in found], indent=2))
        else:
            _print_leases(found)
        return 0

    return _with_store(settings, configuration, show, writes=False)


async def _owned(catalogue: Catalogue, mappings: Sequence[str], settings: Settings) -> list[tuple[Lease, Life | None]]:
    """The leases of mappings, each with whether its owner lives; None where it has none."""
    leases = [lease for mapping in mappings for lease in (await catalogue.held(mapping)).leases]
    now, sightings = Instant(time.monotonic()), Sightings(settings.failover_s)
    also = {settings.worker_id, *[worker_of(lease.owner) for lease in leases if lease.owner]}
    words = {word.worker: word for word in await catalogue.words(also)}
    sightings.looked(words.values(), now)
    return [(lease, _owner_life(lease.owner, words, sightings, now)) for lease in leases]


def _owner_life(owner: str, words: Table[str, Word], sightings: Sightings, now: Instant) -> Life | None:
    if not owner:
        return None
    word = words.get(worker_of(owner))
    return Life.SILENT if word is None else owner_life(owner, word, sightings.life(word, now, _now()))


def _print_leases(found: Sequence[tuple[Lease, Life | None]]) -> None:
    grid = Grid(box=None, pad_edge=False)
    for name in (
        "MAPPING",
        "SHARD",
        "OWNER",
        "OWNER IS",
        "GENERATION",
        "LANES",
        "POSITION",
        "ARRIVED",
        "AGE",
        "FINISHED",
        "WINDOW",
    ):
        grid.add_column(name, overflow="fold")
    for lease, life in found:
        behind = lowest(lease.positions)
        arrived_at = behind.arrived_at if isinstance(behind, AfterSequence) else None
        arrived, age = ("-", "-") if arrived_at is None else (_time(arrived_at), _span(_now() - arrived_at))
        window = "-"
        if lease.window is not None:
            window = f"{_time(UnixTime(lease.window.start_s))} to {_time(UnixTime(lease.window.end_s))}"
        grid.add_row(
            lease.mapping, lease.shard, worker_of(lease.owner) or "-", "-" if life is None else life.value,
            str(lease.generation), str(lease.factor), _place(behind), arrived, age,
            "yes" if lease.is_finished else "no", window,
        )  # fmt: skip
    console = Console()
    (console if console.is_terminal else Console(width=PIPED_WIDTH)).print(grid)


def _document(lease: Lease, life: Life | None) -> dict[str, object]:
    behind = lowest(lease.positions)
    arrived_at = behind.arrived_at if isinstance(behind, AfterSequence) else None
    window = lease.window
    return {
        "mapping": lease.mapping, "shard": lease.shard, "owner": worker_of(lease.owner) or None,
        "owner_run": run_of(lease.owner) or None, "owner_state": None if life is None else life.value,
        "generation": lease.generation,
        "lanes": lease.factor, "position": stored.position_document(behind),
        "positions": [stored.position_document(position) for position in lease.positions],
        "arrived_at": arrived_at, "age_s": None if arrived_at is None else max(0.0, _now() - arrived_at),
        "is_finished": lease.is_finished, "parents": lease.parents,
        "window": None if window is None else {"start": window.start_s, "end": window.end_s},
    }  # fmt: skip


def _forget(arguments: argparse.Namespace, environ: Table[str, str]) -> int:
    settings, configuration = _load(arguments, environ)
    forgetting.check_unconfigured(arguments.mapping, settings, configuration)

    async def forget(catalogue: Catalogue) -> int:
        await forgetting.forget(catalogue, arguments.mapping, settings, is_dry=not arguments.yes)
        return 0

    return _with_store(settings, configuration, forget)


def _load(arguments: argparse.Namespace, environ: Table[str, str]) -> tuple[Settings, Configuration]:
    settings = load_settings(environ, {"config": arguments.config} if arguments.config else {})
    return settings, daemon.load_configuration(settings, environ)


def _with_store(
    settings: Settings, configuration: Configuration, act: Callable[[Catalogue], Awaitable[int]], *, writes: bool = True
) -> int:
    if settings.state.startswith("memory:"):
        raise RequestRefused(
            "ESM_STATE is memory://, which no other process can reach: operate a daemon that keeps its state in a file,"
            " or in a table."
        )

    async def run() -> int:
        async with AsyncExitStack() as stack:
            store = await open_state(settings, configuration, exclusive=False, read_only=True)
            stack.push_async_callback(store.aclose)
            if writes:  # only now: what is not there is not made
                store = await open_state(settings, configuration, exclusive=False)
                stack.push_async_callback(store.aclose)
            blobs = await open_bucket(settings, configuration) if writes else None
            if blobs is not None:
                stack.push_async_callback(blobs.aclose)
            return await act(Catalogue(store, blobs))

    return anyio.run(run)


def _check_stream(mapping: Mapping, command: str, why: str) -> None:
    if not mapping.source_kind.is_stream:
        raise RequestRefused(f"`esm {command}` is for streams, and {mapping.source_arn} is a queue: {why}")


def _caller() -> Caller:
    """This process, as far as it knows itself."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return Caller(socket.gethostname(), user)


def _now() -> UnixTime:
    return UnixTime(time.time())


def _shown(mapping: Mapping) -> str:
    return f"mapping {mapping.uuid} ({mapping.function} <- {mapping.source_arn})"


def _place(position: Position) -> str:
    match position:
        case TrimHorizon():
            return "trim-horizon"
        case AtTimestamp(at):
            return _time(at)
        case AtSequence(sequence):
            return f"at {sequence}"
        case AfterSequence(sequence, _):
            return sequence


def _where(position: Position) -> str:
    arrived = f" of {_time(position.arrived_at)}" if isinstance(position, AfterSequence) else ""
    return ("after " if arrived else "") + _place(position) + arrived


def _time(at: UnixTime) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
