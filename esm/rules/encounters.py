"""Which call goes to which runtime, where runtimes run elsewhere and ask for their next invocation.

Laws: a runtime has one call at most, and only while it has asked for one; at most `most` calls run at once; of the
calls, and of the runtimes, who came first is served first; nobody waits while he could be served. A call that never
reached its runtime goes before all others.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

R = TypeVar("R", bound=Hashable)
C = TypeVar("C", bound=Hashable)


class Encounters(Generic[R, C]):
    """See the module. Every method that can bring them together returns the new pairs, in their order."""

    def __init__(self, most: int | None = None) -> None:
        """`most` bounds the calls that run at once; None: only the number of runtimes does."""
        self._most = most
        self._runtimes: dict[R, None] = {}
        self._calls: dict[C, None] = {}
        self._running: dict[R, C] = {}

    @property
    def waiting(self) -> int:
        """Runtimes that have asked, and have nothing yet."""
        return len(self._runtimes)

    @property
    def working(self) -> int:
        """Runtimes that have a call."""
        return len(self._running)

    @property
    def calls(self) -> tuple[C, ...]:
        """Those that wait for a runtime, the first one first."""
        return tuple(self._calls)

    @property
    def can_start(self) -> bool:
        """Whether a call that came now would run at once."""
        return bool(self._runtimes) and not self._calls and self._has_place

    def bound(self, most: int | None) -> list[tuple[R, C]]:
        """The bound is another one; what runs above it goes on."""
        self._most = most
        return self._paired()

    def asked(self, runtime: R) -> list[tuple[R, C]]:
        """A runtime wants its next call. It must not have one."""
        assert runtime not in self._running
        self._runtimes[runtime] = None
        return self._paired()

    def called(self, call: C) -> list[tuple[R, C]]:
        """A call wants a runtime."""
        self._calls[call] = None
        return self._paired()

    def withdrawn(self, call: C) -> bool:
        """A call waits no more; False: it was not waiting."""
        if call not in self._calls:
            return False
        del self._calls[call]
        return True

    def gone(self, runtime: R) -> list[tuple[R, C]]:
        """A runtime is there no more; its call, if it has one, has ended."""
        self._runtimes.pop(runtime, None)
        return self.ended(runtime)

    def ended(self, runtime: R) -> list[tuple[R, C]]:
        """The runtime's call has ended: it may ask again."""
        self._running.pop(runtime, None)
        return self._paired()

    def missed(self, runtime: R) -> list[tuple[R, C]]:
        """A runtime was lost before its call reached it."""
        call = self._running.pop(runtime)
        self._calls = {call: None, **self._calls}
        return self._paired()

    @property
    def _has_place(self) -> bool:
        return self._most is None or len(self._running) < self._most

    def _paired(self) -> list[tuple[R, C]]:
        found = []
        while self._runtimes and self._calls and self._has_place:
            runtime, call = next(iter(self._runtimes)), next(iter(self._calls))
            del self._runtimes[runtime], self._calls[call]
            self._running[runtime] = call
            found.append((runtime, call))
        return found
