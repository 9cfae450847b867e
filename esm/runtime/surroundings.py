"""What every loop of one worker shares: clock, memory, telemetry, chance, and the wish to stop."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from esm.model.clocks import Instant, UnixTime
from esm.ports import Blobs, Clock, Store
from esm.runtime.membership import Alone, Membership
from esm.telemetry import Telemetry


class SystemClock:
    """The real clock; on a virtual event loop `now` is virtual, `wall` is not."""

    def now(self) -> Instant:
        """Seconds of the event loop's clock."""
        return Instant(anyio.current_time())

    def wall(self) -> UnixTime:
        """Seconds since 1970 UTC."""
        return UnixTime(time.time())

    async def sleep_until(self, at: Instant) -> None:
        """Return at `at`, or at once when it has passed."""
        if math.isinf(at):
            await anyio.sleep_forever()
        await anyio.sleep_until(at)


class Stop:
    """The wish to stop gracefully: waits inside `interruptible` end at once, everything else goes on."""

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self._parts: set[Stop] = set()
        self.is_set = False
        self.deadline = Instant(math.inf)
        """When the grace period ends: nothing new may start shortly before."""

    def set(self, deadline: Instant) -> None:
        """Ask for the stop; a second call can only shorten the grace."""
        self.deadline = min(self.deadline, deadline)
        self.is_set = True
        for scope in list(self._scopes):
            scope.cancel()
        for part in list(self._parts):
            part.set(deadline)

    @contextmanager
    def part(self, part: "Stop") -> "Iterator[Stop]":
        """`part`, the stop of a part of the work, comes with this one while the body runs, and may come alone."""
        self._parts.add(part)
        try:
            if self.is_set:
                part.set(self.deadline)
            yield part
        finally:
            self._parts.discard(part)

    @contextmanager
    def interruptible(self) -> Iterator[anyio.CancelScope]:
        """Cancel the body when the stop comes; `scope.cancelled_caught` says so afterwards."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if self.is_set:
                    scope.cancel()
                yield scope
            finally:
                self._scopes.discard(scope)


class ByteBudget:
    """The bound on memory: bytes are reserved before a read, first come, first served."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._idle_bytes = 0
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    async def reserve(self, size_bytes: int) -> int:
        """Wait until the bytes are free and take them; returns how many were taken (never above the limit)."""
        size_bytes = min(size_bytes, self.limit_bytes)
        if not self._waiting and self.used_bytes + size_bytes <= self.limit_bytes:
            self.used_bytes += size_bytes
            return size_bytes
        ticket = (size_bytes, anyio.Event())
        self._waiting.append(ticket)
        try:
            await ticket[1].wait()
        except BaseException:
            self._leave(ticket)
            raise
        return size_bytes

    def release(self, size_bytes: int) -> None:
        """Give bytes back; a negative number takes what a read brought beyond its reservation."""
        self.used_bytes -= size_bytes
        self._admit()

    def idle(self, size_bytes: int) -> bool:
        """Whether reserved bytes may be held while nothing is read yet; `busy` ends that.

        At most half of all bytes may, but one holder always: what waits at quiet sources is not to starve the others.
        """
        if self._idle_bytes and self._idle_bytes + size_bytes > self.limit_bytes // 2:
            return False
        self._idle_bytes += size_bytes
        return True

    def busy(self, size_bytes: int) -> None:
        """Bytes that were idle are read into."""
        self._idle_bytes -= size_bytes

    def _leave(self, ticket: tuple[int, anyio.Event]) -> None:
        if ticket[1].is_set():
            self.release(ticket[0])
        else:
            self._waiting.remove(ticket)
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self.used_bytes + self._waiting[0][0] <= self.limit_bytes:
            size_bytes, admitted = self._waiting.popleft()
            self.used_bytes += size_bytes
            admitted.set()


class Signal:
    """Something changed: whoever waits looks again. No wake-up is lost between a look and a wait."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        """Wake everybody who waits."""
        self._event.set()
        self._event = anyio.Event()

    async def wait(self) -> None:
        """Return at the next `notify`."""
        await self._event.wait()

    async def wait_until(self, clock: Clock, at: Instant) -> None:
        """Return at the next `notify`, or at `at`."""
        if math.isinf(at):
            await self._event.wait()
            return
        with anyio.move_on_after(max(0.0, at - clock.now())):
            await self._event.wait()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything outside a mapping that its loops use."""

    clock: Clock
    telemetry: Telemetry
    store: Store
    budget: ByteBudget
    jitter: Callable[[], float]
    """Uniform in [0, 1)."""
    new_id: Callable[[], str]
    """A fresh uuid."""
    worker: str
    """Id of this worker."""
    sqs_wait_s: int = 20
    checkpoint_interval_s: float = 0.0
    blobs: Blobs | None = None
    """Where a body lies that one item of the store cannot hold; None: it is cut into items."""
    members: Membership = field(default_factory=lambda: Alone("worker"))
    """This worker among the others; without replicas alone."""
