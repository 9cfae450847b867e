"""Which environment serves, which one starts, freezes and stops: the whole life of a function's environments.

Laws: an environment serves one invocation at a time. Whoever holds one of the function's slots gets an environment:
a free one, provisioned before others and the one used last before others, so that those not needed grow idle; else
one that starts for nobody; else a new one. So there are never more than slots, provisioned ones included. What has
failed, is too old, or runs code of before a change serves nobody again. Only what is free is frozen, and what is
frozen is thawed before it serves or ends. Source: lambda.md 7.7, 7.8.
"""

from dataclasses import dataclass
from enum import Enum

from esm.model.clocks import Instant

INIT_S = 10.0
"""Within it a handler must be loaded; a slower one is started again on the time of the invocation. lambda.md 7.7."""
PROVISIONED_INIT_S = 130.0
"""The least that a provisioned environment may take; the function's timeout where that is more. lambda.md 7.7."""
PROVISIONED_INIT_MAX_S = 900.0
FREEZE_AFTER_S = 0.1
"""How long an environment is free before it is frozen: one that is used again and again is never."""
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
"""Before a provisioned environment is started again after one that could not."""
_GOLDEN = 0.6180339887498949
_SPREAD = 0.25
"""By how much the ages at which environments are recycled differ, so that they do not all start anew at once."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How a function's environments are kept."""

    concurrency: int
    provisioned: int = 0
    """How many are kept ready; at most `concurrency` of them are."""
    idle_s: float = 300.0
    """A free one ends after it, unless it is provisioned."""
    age_max_s: float = 14_400.0
    """None serves longer, give or take a quarter."""
    freezes: bool = False
    """Whether free ones can be frozen."""


class Phase(Enum):
    """What an environment does."""

    STARTING = "starting"
    FREE = "free"
    BUSY = "busy"


class End(Enum):
    """Why an environment is stopped by decision."""

    IDLE = "idle"
    AGE = "age"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Start:
    """Start a provisioned environment for nobody in particular."""

    number: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End a free environment, or one that starts for nobody; it is forgotten already."""

    number: int
    reason: End


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop the time of a free environment."""

    number: int


Step = Start | Stop | Freeze


@dataclass(frozen=True, slots=True)
class Taken:
    """The environment that a call has now."""

    number: int
    phase: Phase | None
    """FREE: it can run at once; STARTING: it will be ready; None: it is new, and must be started."""
    is_frozen: bool = False
    """It has to be thawed first."""
    is_spill_over: bool = False
    """Provisioned ones are kept, and this is none of them."""


@dataclass(slots=True)
class _Environment:
    number: int
    is_provisioned: bool
    generation: int
    started_at: Instant
    phase: Phase
    since: Instant
    """When its phase began."""
    has_caller: bool
    is_frozen: bool = False


class Environments:
    """See the module. One for each function; numbers name environments and are never used again."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep
        self._alive: dict[int, _Environment] = {}
        self._free: dict[int, None] = {}
        """Used last at the end."""
        self._generation = 0
        self._last = 0
        self._failures = 0
        """Of provisioned starts, in a row."""
        self._retry_at = Instant(0)

    def take(self, now: Instant) -> Taken:
        """The environment for a call that holds a slot."""
        chosen = self._best_free() or self._spare()
        phase = None if chosen is None else chosen.phase
        chosen = chosen or self._new(now, is_provisioned=False)
        is_spill_over = self._upkeep.provisioned > 0 and not chosen.is_provisioned
        taken = Taken(chosen.number, phase, chosen.is_frozen, is_spill_over)
        chosen.has_caller, chosen.is_frozen = True, False
        if chosen.phase is Phase.FREE:
            self._enter(chosen, Phase.BUSY, now)
        return taken

    def ready(self, number: int, now: Instant) -> None:
        """An environment is initialised."""
        one = self._alive.get(number)
        if one is not None and one.phase is Phase.STARTING:
            if one.is_provisioned:
                self._failures = 0
            self._enter(one, Phase.BUSY if one.has_caller else Phase.FREE, now)

    def give(self, number: int, now: Instant) -> Stop | None:
        """A call is done with its environment, which is free again or still starts; stop it where this says so."""
        one = self._alive.get(number)
        if one is None:
            return None
        one.has_caller = False
        if one.phase is Phase.BUSY:
            self._enter(one, Phase.FREE, now)
        return self._ended_by_now(one, now)

    def gone(self, number: int, now: Instant) -> None:
        """An environment has ended by itself, or was killed under its call."""
        one = self._alive.pop(number, None)
        self._free.pop(number, None)
        if one is not None and one.is_provisioned and one.phase is Phase.STARTING:
            self._retry_at = Instant(now + min(RETRY_MAX_S, RETRY_MIN_S * 2**self._failures))
            self._failures = min(self._failures + 1, 10)

    def follow(self, upkeep: Upkeep) -> None:
        """Keep them otherwise from now on; surplus provisioned ones become ordinary."""
        self._upkeep = upkeep
        kept = [one for one in self._alive.values() if one.is_provisioned]
        for one in kept[upkeep.provisioned :]:
            one.is_provisioned = False

    def renew(self, now: Instant) -> list[Stop]:
        """The code has changed: returns those to stop; those that are used are stopped when they are given back."""
        self._generation += 1
        self._failures, self._retry_at = 0, now
        found = [one for one in self._alive.values() if not one.has_caller]
        return [stop for one in found if (stop := self._ended_by_now(one, now))]

    def step(self, now: Instant) -> list[Step]:
        """Everything that is due."""
        steps: list[Step] = []
        for number in tuple(self._free):
            one = self._alive[number]
            stop = self._ended_by_now(one, now)
            if stop is not None:
                steps.append(stop)
            elif self._freezes(one) and one.since + FREEZE_AFTER_S <= now:
                one.is_frozen = True
                steps.append(Freeze(number))
        if now >= self._retry_at:
            steps += [Start(self._new(now, is_provisioned=True).number) for _ in range(self._missing())]
        return steps

    def next_at(self) -> Instant | None:
        """When `step` has something to do; None while nothing changes."""
        dues = [self._due(self._alive[number]) for number in self._free]
        if self._missing():
            dues.append(self._retry_at)
        return min(dues, default=None)

    def due(self, number: int) -> Instant | None:
        """When something is to be done with a free environment."""
        return self._due(self._alive[number]) if number in self._free else None

    def count(self, phase: Phase) -> int:
        """How many are in a phase."""
        return sum(one.phase is phase for one in self._alive.values())

    @property
    def provisioned_ready(self) -> int:
        """How many provisioned ones are initialised."""
        return sum(one.is_provisioned and one.phase is not Phase.STARTING for one in self._alive.values())

    @property
    def provisioned_busy(self) -> int:
        """How many provisioned ones serve."""
        return sum(one.is_provisioned and one.phase is Phase.BUSY for one in self._alive.values())

    def is_provisioned(self, number: int) -> bool:
        """Whether it is one of those that are kept ready."""
        return number in self._alive and self._alive[number].is_provisioned

    def is_frozen(self, number: int) -> bool:
        """Whether its time stands still."""
        return number in self._alive and self._alive[number].is_frozen

    def _best_free(self) -> _Environment | None:
        for number in reversed(self._free):
            if self._alive[number].is_provisioned:
                return self._alive[number]
        return self._alive[next(reversed(self._free))] if self._free else None

    def _spare(self) -> _Environment | None:
        """One that starts for nobody. A provisioned one may take long: it is waited for only where no other fits."""
        spares = [one for one in self._alive.values() if one.phase is Phase.STARTING and not one.has_caller]
        ordinary = [one for one in spares if not one.is_provisioned]
        is_full = len(self._alive) >= self._upkeep.concurrency
        return next(iter(ordinary or (spares if is_full else [])), None)

    def _new(self, now: Instant, *, is_provisioned: bool) -> _Environment:
        self._last += 1
        made = _Environment(
            self._last, is_provisioned, self._generation, now, Phase.STARTING, now, has_caller=False
        )  # fmt: skip
        self._alive[made.number] = made
        return made

    def _enter(self, one: _Environment, phase: Phase, now: Instant) -> None:
        one.phase, one.since = phase, now
        if phase is Phase.FREE:
            self._free[one.number] = None
        else:
            self._free.pop(one.number, None)

    def _missing(self) -> int:
        kept = sum(one.is_provisioned for one in self._alive.values())
        room = self._upkeep.concurrency - len(self._alive)
        return max(0, min(self._upkeep.provisioned - kept, room))

    def _ended_by_now(self, one: _Environment, now: Instant) -> Stop | None:
        if one.generation < self._generation:
            reason = End.CHANGED
        elif one.phase is Phase.STARTING:
            return None
        elif now >= one.started_at + self._age_max(one):
            reason = End.AGE
        elif not one.is_provisioned and now >= one.since + self._upkeep.idle_s:
            reason = End.IDLE
        else:
            return None
        del self._alive[one.number]
        self._free.pop(one.number, None)
        return Stop(one.number, reason)

    def _due(self, one: _Environment) -> Instant:
        ends_at = one.started_at + self._age_max(one)
        if not one.is_provisioned:
            ends_at = min(ends_at, one.since + self._upkeep.idle_s)
        return Instant(min(ends_at, one.since + FREEZE_AFTER_S) if self._freezes(one) else ends_at)

    def _freezes(self, one: _Environment) -> bool:
        return self._upkeep.freezes and not one.is_frozen

    def _age_max(self, one: _Environment) -> float:
        return self._upkeep.age_max_s * (1 - _SPREAD * (one.number * _GOLDEN % 1))


def init_s(timeout_s: int, *, is_provisioned: bool) -> float:
    """Within how many seconds an environment must be initialised."""
    if not is_provisioned:
        return INIT_S
    return min(PROVISIONED_INIT_MAX_S, max(PROVISIONED_INIT_S, timeout_s))
