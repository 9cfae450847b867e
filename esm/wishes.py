"""What is wanted beside the configuration, as the store says: pauses, orders, and the mappings of the API."""

from __future__ import annotations

from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from esm.errors import OperatorNeeded, StoreTooNew, Unavailable
from esm.rules import desired

if TYPE_CHECKING:
    from esm.backing import Backing
    from esm.catalogue import Catalogue
    from esm.model.control import Control
    from esm.model.mapping import Mapping
    from esm.runtime.orders import OrderBook
    from esm.runtime.supervisor import Plan
    from esm.telemetry import Telemetry

LOOK_EVERY_S = 1.0
"""How often the change counter in the store is looked at: pauses, rewinds and skips come from other processes."""


async def every_mapping(catalogue: Catalogue, declared: Sequence[Mapping]) -> list[Mapping]:
    """The declared mappings, which stand in the configuration, and those of the API that may run beside them.

    Raises: Unavailable, StoreTooNew, OperatorNeeded.
    """
    return [*declared, *desired.chosen(declared, await catalogue.mappings()).mappings]


class Wishes:
    """What operators and callers of the API want. Invariant: what is known is what the store held at `changes`."""

    def __init__(self, telemetry: Telemetry, backing: Backing) -> None:
        self._telemetry = telemetry
        self._backing = backing
        self._controls: dict[str, Control] = {}
        self.changes: int | None = None
        """The change counter that was followed last; None: none yet."""

    async def know(self, catalogue: Catalogue, orders: OrderBook) -> None:
        """Return once it is known what is paused: nothing may run before. Raises: OperatorNeeded."""
        while not await self.look(catalogue, orders):  # noqa: ASYNC110 - the store says when, not an event
            await anyio.sleep(LOOK_EVERY_S)

    async def look(self, catalogue: Catalogue, orders: OrderBook) -> bool:
        """Know what is wanted now; False: the store does not say, and what was known stays.

        What this worker cannot read yet, one of a newer version writes again. Raises: OperatorNeeded, the first time.
        """
        try:
            changes = await catalogue.changes()
            if changes == self.changes:
                return True
            controls, stored = await catalogue.controls(), await catalogue.mappings()
        except (Unavailable, StoreTooNew, OperatorNeeded) as error:
            if isinstance(error, OperatorNeeded) and self.changes is None:
                raise
            tell = self._telemetry.store_failed if isinstance(error, Unavailable) else self._telemetry.unreadable
            tell("controls", str(error))
            return False
        self.changes = changes
        self._controls = {control.mapping: control for control in controls}
        orders.follow(controls)
        self._backing.follow(stored)
        return True

    def mappings(self) -> set[str]:
        """UUIDs of those that operators want something of."""
        return set(self._controls)

    def paused(self, plans: Table[str, Plan]) -> dict[str, Plan]:
        """The plans, with those that operators let rest switched off."""
        found = dict(plans)
        for control in self._controls.values():
            plan = found.get(control.mapping)
            if control.pause is not None and plan is not None:
                mapping = replace(plan.mapping, enabled=False)
                found[control.mapping] = replace(plan, mapping=mapping, pause=control.pause)
        return found
