"""`esm status`: what the workers reported, beside what the configuration asks for."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table

from esm.catalogue import Catalogue
from esm.catalogue.workers import words
from esm.config import Configuration
from esm.model.clocks import Instant, UnixTime
from esm.model.connection import DAEMON
from esm.model.mapping import Mapping
from esm.model.view import MappingView
from esm.ports import Store
from esm.rules.fleet_views import Difference, FleetView, Life, Report, combined, differences, named
from esm.rules.sightings import FRESH_S, Sightings, Word
from esm.settings import Settings
from esm.wishes import every_mapping

STALE_AFTER_S = FRESH_S
"""A report older than this, of a worker that gave no other sign of life, is shown with its age: it may be gone."""

DIFFERENCES_MAX = 5
"""Mappings that are named one by one where workers differ."""

_LIVES = tuple(Life)
"""In the order of the table of workers."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker has of one mapping."""

    worker: str
    state: str
    """live, leaving, silent or stopped."""
    reported_age_s: float
    shards: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Row:
    """One mapping of the configuration or the API, and what is known of it."""

    mapping: Mapping
    view: MappingView | None
    age_s: float | None
    """Since the newest report; None where there is none."""
    shares: tuple[Share, ...] = ()
    """Of the workers that speak for it."""
    is_live: bool = False
    """Whether one of them lives, for all that can be seen."""
    difference: str | None = None
    """How live workers would run it differently."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker, as the table of workers shows it."""

    worker: str
    life: Life
    silent_s: float | None
    """Since its last sign of life; None where it gave none with a time."""
    shards: int
    """Of streams, that it reads."""
    mappings: int
    report_age_s: float | None
    """None: it has not reported yet."""


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that `esm status` shows."""

    rows: tuple[Row, ...]
    """One a mapping: those of the file in its order, then those of the API."""
    workers: tuple[WorkerRow, ...] = ()
    differences: tuple[str, ...] = ()
    """A line each."""


class Looker:
    """Looks at all workers of a store; who looks again knows better which of them live."""

    def __init__(self, store: Store, configuration: Configuration, settings: Settings) -> None:
        self._store = store
        self._configuration = configuration
        self._worker = settings.worker_id
        self._sightings = Sightings(settings.failover_s)

    async def look(self) -> Overview:
        """What the workers do now. Raises: Unavailable, StoreTooNew, OperatorNeeded."""
        now = Instant(time.monotonic())
        found = await words(self._store, [self._worker])
        self._sightings.looked(found, now)
        wall = UnixTime(time.time())
        mappings = await every_mapping(Catalogue(self._store), self._configuration.mappings)
        return overview(mappings, found, self._sightings, now, wall)


def overview(
    mappings: Sequence[Mapping], found: Sequence[Word], sightings: Sightings, now: Instant, wall: UnixTime
) -> Overview:
    """What to show of the words of the workers, at one moment by both clocks."""
    reports = [sightings.report(word, now, wall) for word in found]
    views = {one.view.uuid: one for one in combined(reports)}
    live = {report.worker for report in reports if report.life is Life.LIVE}
    beating = [word.heartbeat for word in found if word.heartbeat is not None and word.worker in live]
    shown = {word.worker: {view.uuid for view in word.views} for word in found if word.reported_at is not None}
    differ = {one.mapping: _difference(one) for one in differences(beating, shown)}
    names = {mapping.uuid: f"{mapping.uuid} ({mapping.function} <- {_source(mapping)})" for mapping in mappings}
    lines = [f"Mapping {names.get(uuid, uuid)}: {text}." for uuid, text in list(differ.items())[:DIFFERENCES_MAX]]
    if len(differ) > len(lines):
        lines.append(f"Workers differ in {len(differ) - len(lines)} mappings more.")
    return Overview(
        tuple([_row(mapping, views.get(mapping.uuid), differ.get(mapping.uuid), wall) for mapping in mappings]),
        tuple(sorted([_worker(*pair, wall) for pair in zip(found, reports, strict=True)], key=_place)),
        tuple(lines),
    )


def as_json(found: Overview) -> str:
    """A list of objects: the fields of the report, its age, the workers that run the mapping, and how they differ."""
    return json.dumps([_document(row) for row in found.rows], indent=2)


def show(found: Overview, console: Console) -> None:
    """Tables for people; who polls is a column where not only the daemon does, workers are shown where there are
    several.
    """
    _show_mappings(found.rows, console)
    waiting = {row.mapping.function: row.view.async_backlog for row in found.rows if row.view is not None}
    for function, count in waiting.items():
        if count is not None:
            console.print(f"{function}: {count} asynchronous events wait.")
    present = {row.mapping.function: row.view.runtimes for row in found.rows if row.view is not None}
    for function, count in present.items():
        if count is not None:
            console.print(f"{function}: {count} {'runtime is' if count == 1 else 'runtimes are'} there.")
    stale = [row.age_s for row in found.rows if row.age_s is not None and not row.is_live]
    if any(age_s > STALE_AFTER_S for age_s in stale):
        console.print(f"The last report is {max(stale):.0f} s old: the daemon may not be running.")
    elif found.rows and all(row.view is None for row in found.rows):
        console.print("No report yet: the daemon has not run with this state, or has just started.")
    if len(found.workers) > 1:
        console.print()
        _show_workers(found.workers, console)
    for line in found.differences:
        console.print(line, soft_wrap=True)


def _show_mappings(rows: Sequence[Row], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    names_identity = any(row.view is not None and row.view.identity != DAEMON.shown for row in rows)
    last = ("AS",) if names_identity else ()
    for name in ("MAPPING", "FUNCTION", "SOURCE", "STATE", "LAST RESULT", "LAG", "IN FLIGHT", "SHARDS", *last):
        is_number = name in {"LAG", "IN FLIGHT", "SHARDS"}
        is_long = name == "LAST RESULT"
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=not is_long, min_width=20 if is_long else None)
    for row in rows:
        as_whom = (DAEMON.shown if row.view is None else row.view.identity,) if names_identity else ()
        table.add_row(*_cells(row), *as_whom)
    console.print(table)


def _show_workers(workers: Sequence[WorkerRow], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("WORKER", "STATE", "SHARDS", "MAPPINGS", "LAST REPORT"):
        table.add_column(name, justify="right" if name in {"SHARDS", "MAPPINGS"} else "left", no_wrap=True)
    for one in workers:
        state = one.life.value
        if one.life is Life.SILENT and one.silent_s is not None:
            state = f"silent for {one.silent_s:.0f} s"
        reported = "never" if one.report_age_s is None else f"{one.report_age_s:.0f} s ago"
        table.add_row(one.worker, state, str(one.shards), str(one.mappings), reported)
    console.print(table)


def _row(mapping: Mapping, found: FleetView | None, difference: str | None, wall: UnixTime) -> Row:
    if found is None:
        return Row(mapping, None, None, difference=difference)
    shares = [
        Share(report.worker, report.life.value, _age(report.at, wall), _shards([view]), view.in_flight)
        for report, view in found.reports
    ]
    return Row(mapping, found.view, _age(found.at, wall), tuple(shares), found.is_live, difference)


def _worker(word: Word, report: Report, wall: UnixTime) -> WorkerRow:
    mappings = {view.uuid for view in word.views}
    if word.heartbeat is not None and report.life.speaks:
        mappings = word.heartbeat.runs
    return WorkerRow(
        worker=word.worker,
        life=report.life,
        silent_s=None if word.at is None else _age(word.at, wall),
        shards=_shards(word.views),
        mappings=len(mappings),
        report_age_s=None if word.reported_at is None else _age(word.reported_at, wall),
    )


def _shards(views: Iterable[MappingView]) -> int:
    """Of streams: a queue has none."""
    return sum(1 for view in views for shard in view.shards if shard.id)


def _place(row: WorkerRow) -> tuple[int, str]:
    return _LIVES.index(row.life), row.worker


def _difference(found: Difference) -> str:
    texts = []
    if len(found.alike) > 1:
        groups = " and otherwise by ".join(named(group) for group in found.alike)
        texts.append(f"it is run in one way by {groups}")
    if found.unaware:
        texts.append(f"{named(found.unaware)} {'does' if len(found.unaware) == 1 else 'do'} not know it")
    return "; ".join(texts) + " (their configurations differ, as during a rollout)"


def _age(at: UnixTime, wall: UnixTime) -> float:
    return max(0.0, wall - at)


def _source(mapping: Mapping) -> str:
    return f"{mapping.source_arn.service}:{mapping.source_arn.name}"


def _cells(row: Row) -> list[str]:
    mapping, view = row.mapping, row.view
    names = [mapping.uuid, mapping.function, _source(mapping)]
    if view is None:
        return [*names, "-", "not reported", "-", "-", "-"]
    lags = [shard.lag_s for shard in view.shards if shard.lag_s is not None]
    lag = f"{max(lags):.1f} s" if lags else "-"
    shards = str(len(view.shards)) if mapping.source_kind.is_stream else "-"
    return [*names, view.state.value, view.reason or view.last_result, lag, str(view.in_flight), shards]


def _document(row: Row) -> dict[str, object]:
    fleet = {"workers": [asdict(share) for share in row.shares], "difference": row.difference}
    if row.view is None:
        return {"uuid": row.mapping.uuid, "function": str(row.mapping.function_arn),
                "source": str(row.mapping.source_arn), "state": None, "reported_age_s": None, **fleet}  # fmt: skip
    return {**asdict(row.view), "state": row.view.state.value, "reported_age_s": row.age_s, **fleet}
