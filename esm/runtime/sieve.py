"""Sieve: what a read brought, without what the mapping's filter lets fall."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio.lowlevel

from esm.model.mapping import Mapping
from esm.model.record import Message, StreamRecord
from esm.rules.patterns import Filter, compile_filter
from esm.telemetry import MappingTelemetry

One = TypeVar("One", StreamRecord, Message)

SLICE_BYTES = 65_536
"""Events looked at in one go, some milliseconds; then other tasks have their turn."""


class Sieve:
    """The filter of a mapping: compiled when its patterns change, which holds from the next read on."""

    def __init__(self, telemetry: MappingTelemetry) -> None:
        self._telemetry = telemetry
        self._patterns: tuple[str, ...] = ()
        self._filter: Filter | None = None

    async def sift(
        self, mapping: Mapping, records: Sequence[One], is_spared: Callable[[One], bool] = lambda _: False
    ) -> tuple[list[One], list[One]]:
        """The records that match or are spared, and those that fall and are counted, each in their order."""
        chosen = self._current(mapping)
        if chosen is None or not records:
            return list(records), []
        kept: list[One] = []
        fallen: list[One] = []
        seen_bytes = 0
        for record in records:
            (kept if is_spared(record) or chosen.matches(record.event) else fallen).append(record)
            seen_bytes += len(record.event)
            if seen_bytes >= SLICE_BYTES:
                seen_bytes = 0
                await anyio.lowlevel.checkpoint()
        self._telemetry.filtered_out(len(fallen))
        return kept, fallen

    def _current(self, mapping: Mapping) -> Filter | None:
        if mapping.filters != self._patterns:
            self._filter = compile_filter(mapping.filters, mapping.source_kind) if mapping.filters else None
            self._patterns = mapping.filters
        return self._filter
