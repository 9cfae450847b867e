"""Who may run now: each function's own bound, what is reserved for one, and the bound over all that are hosted here.

Laws: a function never has more slots than its bound; those without a reservation share what the reserved ones leave
of the overall bound; nobody waits while a slot that he may have is free; of one function's callers, and among
functions that may all run, who came first is served first. Source: lambda.md 7.8.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum


class Refusal(Enum):
    """Why a caller gets no slot at once; the values are Lambda's reasons of a 429."""

    RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
    """The function's own bound is reached, or 0."""
    OVERALL = "ConcurrentInvocationLimitExceeded"
    """What all functions without a reservation share is used up."""


@dataclass(slots=True)
class _Function:
    bound: int
    is_reserved: bool
    used: int = 0
    waiting: deque[tuple[int, Hashable]] = field(default_factory=deque)
    """Number of arrival, and caller."""


class Slots:
    """See the module. Functions and callers are named by whatever the caller likes."""

    def __init__(self, overall: int) -> None:
        """`overall` bounds the slots of all functions together."""
        self._overall = overall
        self._functions: dict[Hashable, _Function] = {}
        self._arrivals = 0
        self._reserved = 0
        self._shared_used = 0
        """Slots of functions without a reservation."""

    def join(self, function: Hashable, bound: int, *, is_reserved: bool) -> None:
        """Make a function known. A reservation counts from now on, also while it is not used."""
        self._functions[function] = _Function(bound, is_reserved)
        self._reserved += bound if is_reserved else 0

    def leave(self, function: Hashable) -> list[Hashable]:
        """Forget a function that holds no slot any more; returns the callers of others that have one now."""
        one = self._functions.pop(function, None)
        self._reserved -= one.bound if one is not None and one.is_reserved else 0
        return self._granted()

    @property
    def shared(self) -> int:
        """How many slots functions without a reservation have together."""
        return max(0, self._overall - self._reserved)

    def used(self, function: Hashable) -> int:
        """How many slots a function holds."""
        return self._functions[function].used

    def why_not(self, function: Hashable) -> Refusal | None:
        """What keeps one more invocation from starting at once; None where nothing does."""
        one = self._functions[function]
        if one.used >= one.bound:
            return Refusal.RESERVED
        if not one.is_reserved and self._shared_used >= self.shared:
            return Refusal.OVERALL
        return None

    def take(self, function: Hashable) -> Refusal | None:
        """Take a slot, unless something keeps it from that."""
        refusal = self.why_not(function)
        if refusal is None:
            self._use(self._functions[function], 1)
        return refusal

    def wait(self, function: Hashable, caller: Hashable) -> None:
        """Stand in the queue, after `take` was refused; `give` and `leave` name the caller once it has its slot."""
        self._arrivals += 1
        self._functions[function].waiting.append((self._arrivals, caller))

    def give_up(self, function: Hashable, caller: Hashable) -> None:
        """Leave the queue. Does nothing for a caller that does not stand in it."""
        if function in self._functions:
            waiting = self._functions[function].waiting
            self._functions[function].waiting = deque(one for one in waiting if one[1] != caller)

    def give(self, function: Hashable) -> list[Hashable]:
        """Give a slot back; returns the callers that have one now, in their order."""
        one = self._functions[function]
        self._use(one, -1)
        assert one.used >= 0
        return self._granted()

    def _granted(self) -> list[Hashable]:
        granted: list[Hashable] = []
        while True:
            ready = [name for name, one in self._functions.items() if one.waiting and self.why_not(name) is None]
            if not ready:
                return granted
            first = min(ready, key=lambda name: self._functions[name].waiting[0][0])
            self._use(self._functions[first], 1)
            granted.append(self._functions[first].waiting.popleft()[1])

    def _use(self, one: _Function, more: int) -> None:
        one.used += more
        self._shared_used += 0 if one.is_reserved else more
