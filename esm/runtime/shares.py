"""Shares: a bound that holds over all workers, divided among them through one item of the store.

Laws: no write makes the sum of the grants exceed the bound; a worker uses no more than its stored grant, and as soon as
it sees that others have a claim no more than its fair part: it shrinks first, then they grow. A worker that may have
been taken for dead uses nothing until it has looked again. Source: design section 6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import anyio

from esm.errors import Conflict, EsmError
from esm.model.clocks import Instant
from esm.model.stored import Key
from esm.ports import Clock, Store
from esm.rules import shares
from esm.runtime.surroundings import Signal
from esm.telemetry import Telemetry

T = TypeVar("T")

PARTITION = ("share", "fleet")

LOOK_EVERY_S = 1.0
"""How often a share that is not yet what it should be is looked at."""


class Share(Protocol):
    """What one worker may use of a bound."""

    @property
    def usable(self) -> int:
        """How much it may use now, all in all; it may be less than what it uses already."""
        ...


class Sharers(Protocol):
    """What shares have to know of the workers."""

    @property
    def owner(self) -> str:
        """This one."""
        ...

    @property
    def term(self) -> int:
        """See `Membership`."""
        ...

    def holds(self, term: int, now: Instant) -> bool:
        """See `Membership`."""
        ...

    def may_be_free(self, owner: str) -> bool:
        """See `Membership`."""
        ...

    def sharers(self, subject: str) -> Collection[str]:
        """Owner names of the live workers that have a claim to a part."""
        ...


class Portion:
    """The share of one worker among several."""

    def __init__(
        self, fleet: Sharers, clock: Clock, subject: str, limit: Callable[[], int], in_use: Callable[[], int]
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self.subject = subject
        self.limit = limit
        self.in_use = in_use
        self._grants: dict[str, int] = {}
        self._term = -1

    @property
    def usable(self) -> int:
        """See `Share`."""
        fleet = self._fleet
        if not fleet.holds(self._term, self._clock.now()):
            return 0
        return shares.usable(self._grants, fleet.sharers(self.subject), self.limit(), fleet.owner, self.subject)

    @property
    def is_settled(self) -> bool:
        """Whether the stored grant is the fair part."""
        fleet = self._fleet
        part = shares.fair(self.limit(), fleet.sharers(self.subject), self.subject).get(fleet.owner, 0)
        return self._term == fleet.term and self._grants.get(fleet.owner, 0) == part

    def learnt(self, grants: dict[str, int], term: int) -> None:
        """These grants are stored; `term` was this worker's before they were read."""
        self._grants, self._term = grants, term


class ShareKeeper:
    """Keeps the shares of one worker. `run` ends by cancellation, and survives every error of the store."""

    def __init__(self, fleet: Sharers, clock: Clock, store: Store, telemetry: Telemetry) -> None:
        self._fleet = fleet
        self._clock = clock
        self._store = store
        self._telemetry = telemetry
        self._portions: set[Portion] = set()
        self._ended: set[str] = set()
        """Subjects whose grant is to be given back."""
        self.changed = Signal()

    @contextmanager
    def holding(self, subject: str, limit: Callable[[], int], in_use: Callable[[], int]) -> Iterator[Portion]:
        """The share of a subject while the body runs: nothing at first."""
        portion = Portion(self._fleet, self._clock, subject, limit, in_use)
        self._portions.add(portion)
        self._ended.discard(subject)
        self.changed.notify()
        try:
            yield portion
        finally:
            self._portions.discard(portion)
            self._ended.add(subject)
            self.changed.notify()

    async def run(self) -> None:
        """Look at what is not yet as it should be, at once when something changes."""
        while True:
            for portion in sorted(self._portions, key=lambda one: one.subject):
                if not portion.is_settled:
                    await self._survive(self._settle, portion)
            for subject in sorted(self._ended):
                await self._survive(self._give_back, subject)
            is_settled = not self._ended and all(portion.is_settled for portion in self._portions)
            with anyio.move_on_after(float("inf") if is_settled else LOOK_EVERY_S):
                await self.changed.wait()

    async def _survive(self, act: Callable[[T], Awaitable[None]], what: T) -> None:
        try:
            await act(what)
        except EsmError as error:
            self._telemetry.store_failed("share", str(error))

    async def _settle(self, portion: Portion) -> None:
        fleet, term = self._fleet, self._fleet.term
        key = Key(*PARTITION, portion.subject)
        item = await self._store.get(key)
        before = shares.decode(item.value) if item is not None else {}
        live = {fleet.owner, *[owner for owner in before if not fleet.may_be_free(owner)]}
        after = shares.next_grants(
            before, live, fleet.sharers(portion.subject), portion.limit(), fleet.owner, portion.in_use(),
            portion.subject,
        )  # fmt: skip
        if after != before:
            try:
                await self._store.put(key, shares.encode(after), item.version if item is not None else None)
            except Conflict:
                return
        portion.learnt(after, term)

    async def _give_back(self, subject: str) -> None:
        key = Key(*PARTITION, subject)
        item = await self._store.get(key)
        grants = shares.decode(item.value) if item is not None else {}
        if item is not None and grants.pop(self._fleet.owner, None) is not None:
            try:
                await self._store.put(key, shares.encode(grants), item.version)
            except Conflict:
                return
        self._ended.discard(subject)
