"""`esm status`: what the workers reported, beside what the configuration asks for."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table

from esm.config import Configuration
from esm.model.clocks import UnixTime
from esm.model.connection import DAEMON
from esm.model.mapping import Mapping
from esm.model.stored import Stored
from esm.model.view import MappingView
from esm.ports import Store
from esm.rules import stored
from esm.rules.stored import StatusPart

STALE_AFTER_S = 20.0
"""A report older than this is shown with its age: its worker may be gone."""


@dataclass(frozen=True, slots=True)
class Row:
    """One mapping of the configuration, and what is known of it."""

    mapping: Mapping
    view: MappingView | None
    age_s: float | None
    """Since the report; None where there is none."""


async def rows(store: Store, configuration: Configuration, worker: str) -> list[Row]:
    """One row a configured mapping, in the order of the file. Raises: Unavailable, StoreTooNew."""
    parts = await _parts(store, worker)
    views = {view.uuid: view for view in stored.merged_status(parts)}
    written_at = max((part.at for part in parts), default=None)
    age_s = None if written_at is None else max(0.0, UnixTime(time.time()) - written_at)
    return [
        Row(mapping, views.get(mapping.uuid), age_s if mapping.uuid in views else None)
        for mapping in configuration.mappings
    ]


def as_json(found: Sequence[Row]) -> str:
    """A list of objects: the fields of the report, and `reported_age_s`."""
    return json.dumps([_document(row) for row in found], indent=2)


def show(found: Sequence[Row], console: Console) -> None:
    """A table for people; who polls is a column of it where not only the daemon does."""
    table = Table(box=None, pad_edge=False)
    names_identity = any(row.view is not None and row.view.identity != DAEMON.shown for row in found)
    last = ("AS",) if names_identity else ()
    for name in ("MAPPING", "FUNCTION", "SOURCE", "STATE", "LAST RESULT", "LAG", "IN FLIGHT", "SHARDS", *last):
        is_number = name in {"LAG", "IN FLIGHT", "SHARDS"}
        is_long = name == "LAST RESULT"
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=not is_long, min_width=20 if is_long else None)
    for row in found:
        as_whom = (DAEMON.shown if row.view is None else row.view.identity,) if names_identity else ()
        table.add_row(*_cells(row), *as_whom)
    console.print(table)
    waiting = {row.mapping.function: row.view.async_backlog for row in found if row.view is not None}
    for function, count in waiting.items():
        if count is not None:
            console.print(f"{function}: {count} asynchronous events wait.")
    stale = [row.age_s for row in found if row.age_s is not None and row.age_s > STALE_AFTER_S]
    if stale:
        console.print(f"The last report is {max(stale):.0f} s old: the daemon may not be running.")
    elif found and all(row.view is None for row in found):
        console.print("No report yet: the daemon has not run with this state, or has just started.")


def _cells(row: Row) -> list[str]:
    mapping, view = row.mapping, row.view
    source = f"{mapping.source_arn.service}:{mapping.source_arn.name}"
    names = [mapping.uuid, mapping.function, source]
    if view is None:
        return [*names, "-", "not reported", "-", "-", "-"]
    lags = [shard.lag_s for shard in view.shards if shard.lag_s is not None]
    lag = f"{max(lags):.1f} s" if lags else "-"
    shards = str(len(view.shards)) if mapping.source_kind.is_stream else "-"
    return [*names, view.state.value, view.reason or view.last_result, lag, str(view.in_flight), shards]


def _document(row: Row) -> dict[str, object]:
    if row.view is None:
        return {"uuid": row.mapping.uuid, "function": str(row.mapping.function_arn),
                "source": str(row.mapping.source_arn), "state": None, "reported_age_s": None}  # fmt: skip
    return {**asdict(row.view), "state": row.view.state.value, "reported_age_s": row.age_s}


async def _parts(store: Store, worker: str) -> list[StatusPart]:
    items: list[Stored] = []
    after: str | None = None
    while True:
        page = await store.scan("status", worker, after)
        items += page.items
        after = page.after
        if after is None:
            return [stored.decode_status(item.value) for item in items]
