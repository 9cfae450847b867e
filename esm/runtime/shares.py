"""Shares: a bound that holds over all workers, divided among them through one item of the store.

Laws: no write makes the sum of the grants exceed the bound; a worker uses no more than its stored grant, by however
many portions (a changed function runs beside what is left of its old self), and as soon as it sees that others have a
claim no more than its fair part: it shrinks first, then they grow. A worker that may have been taken for dead uses
nothing until it has looked again. Source: design section 6.
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
from esm.rules.shares import Grants
from esm.runtime.surroundings import Formats, Signal
from esm.telemetry import Telemetry

T = TypeVar("T")

LOOK_EVERY_S = 1.0
"""How often a share that is not yet what it should be is looked at."""


TURN_S = 5.0
"""How long a worker waits for a place, where there are fewer of them than workers, before it is the next one's turn."""


class Share(Protocol):
    """What one worker may use of a bound."""

    @property
    def usable(self) -> int:
        """How much it may use now, all in all; it may be less than what it uses already."""
        ...

    def starved(self) -> None:
        """Something waits for a place, and there is none for this worker: say so for as long as it waits."""
        ...


class Sharers(Protocol):
    """What shares have to know of the workers."""

    @property
    def formats(self) -> Formats:
        """In which one to write."""
        ...

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

    def moved(self, uuid: str) -> None:
        """See `Membership`."""
        ...

    def epoch(self, uuid: str) -> object:
        """See `Membership`."""
        ...


class Portion:
    """The share of one worker among several."""

    def __init__(
        self, fleet: Sharers, clock: Clock, subject: str, limit: Callable[[], int], in_use: Callable[[], int],
        others: Callable[[Portion], list[Portion]] = lambda _: [],
    ) -> None:  # fmt: skip
        """`others`: the other portions that this worker has of the same bound."""
        self._fleet = fleet
        self._clock = clock
        self.subject = subject
        self.limit = limit
        self._in_use = in_use
        self._others = others
        self._grants = Grants()
        self._term = -1
        self._epoch: object = None
        self._starved_since: Instant | None = None

    @property
    def usable(self) -> int:
        """See `Share`."""
        fleet = self._fleet
        if not fleet.holds(self._term, self._clock.now()):
            return 0
        mine = shares.usable(self._grants, fleet.sharers(self.subject), self.limit(), fleet.owner, self.subject)
        left = max(0, mine - sum([one.own_use for one in self._others(self)]))
        must_wait = not self.is_idle_in_vain and any(one.is_idle_in_vain for one in self._others(self))
        return min(left, self.own_use) if must_wait else left

    @property
    def own_use(self) -> int:
        """What is used by this portion."""
        return self._in_use()

    @property
    def in_use(self) -> int:
        """What is used by all portions of this worker."""
        return self._in_use() + sum([one.own_use for one in self._others(self)])

    @property
    def is_idle_in_vain(self) -> bool:
        """Whether something waits here while nothing of this portion runs: the others start nothing more then."""
        return self._starved_since is not None and not self.own_use

    @property
    def is_settled(self) -> bool:
        """Whether the stored grant is the fair part."""
        fleet = self._fleet
        part = shares.fair(self.limit(), fleet.sharers(self.subject), self.subject, self._grants.turn)
        is_fair = self._grants.by_worker.get(fleet.owner, 0) == part.get(fleet.owner, 0)
        is_known = (self._term, self._epoch) == (fleet.term, fleet.epoch(self.subject))
        return is_fair and is_known and self._starved_since is None

    def starved(self) -> None:
        """See `Share`."""
        if self._starved_since is None and not self.usable:
            self._starved_since = self._clock.now()

    def next_turn(self, turn: int) -> int:
        """The turn to write: the next one where there are too few places and this worker has waited long enough."""
        has_waited = self._starved_since is not None and self._clock.now() - self._starved_since >= TURN_S
        if not has_waited or self.limit() >= len(self._fleet.sharers(self.subject)):
            return turn
        self._starved_since = None
        return turn + 1

    def learnt(self, grants: Grants, term: int, epoch: object) -> None:
        """These grants are stored; `term` and `epoch` were this worker's and the others' before they were read."""
        self._grants, self._term, self._epoch = grants, term, epoch
        if self.usable:
            self._starved_since = None


class ShareKeeper:
    """Keeps the shares of one worker. `run` ends by cancellation, and survives every error of the store."""

    def __init__(self, fleet: Sharers, clock: Clock, store: Store, telemetry: Telemetry) -> None:
        self._fleet = fleet
        self._clock = clock
        self._store = store
        self._telemetry = telemetry
        self._portions: list[Portion] = []
        """Oldest first."""
        self._ended: set[str] = set()
        """Subjects whose grant is to be given back."""
        self.changed = Signal()

    @contextmanager
    def holding(self, subject: str, limit: Callable[[], int], in_use: Callable[[], int]) -> Iterator[Portion]:
        """The share of a subject while the body runs: nothing at first. The newest says what the bound is."""
        portion = Portion(self._fleet, self._clock, subject, limit, in_use, self._others)
        for older in self._of(subject):
            older.limit = limit
        self._portions.append(portion)
        self._ended.discard(subject)
        self.changed.notify()
        try:
            yield portion
        finally:
            self._portions.remove(portion)
            if not self._of(subject):
                self._ended.add(subject)
            self.changed.notify()

    def _of(self, subject: str) -> list[Portion]:
        return [one for one in self._portions if one.subject == subject]

    def _others(self, portion: Portion) -> list[Portion]:
        return [one for one in self._of(portion.subject) if one is not portion]

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
        fleet, term, epoch = self._fleet, self._fleet.term, self._fleet.epoch(portion.subject)
        key = Key(*shares.PARTITION, portion.subject)
        item = await self._store.get(key)
        before = shares.decode(item.value) if item is not None else Grants()
        turn = portion.next_turn(before.turn)
        live = {fleet.owner, *[owner for owner in before.by_worker if not fleet.may_be_free(owner)]}
        after = Grants(
            shares.next_grants(
                before.by_worker, live, fleet.sharers(portion.subject), portion.limit(), fleet.owner,
                portion.in_use, portion.subject, turn,
            ),
            turn,
        )  # fmt: skip
        if after != before:
            try:
                await self._store.put(
                    key, shares.encode(after, fleet.formats.write), item.version if item is not None else None
                )
            except Conflict:
                return
        for one in self._of(portion.subject):
            one.learnt(after, term, epoch)
        if turn != before.turn:
            fleet.moved(portion.subject)

    async def _give_back(self, subject: str) -> None:
        key = Key(*shares.PARTITION, subject)
        item = await self._store.get(key)
        before = shares.decode(item.value) if item is not None else Grants()
        if item is not None and self._fleet.owner in before.by_worker:
            rest = {owner: grant for owner, grant in before.by_worker.items() if owner != self._fleet.owner}
            after = Grants(rest, before.turn)
            try:
                await self._store.put(key, shares.encode(after, self._fleet.formats.write), item.version)
            except Conflict:
                return
        self._ended.discard(subject)
