"""Window: records wait here until they make a batch.

A batch closes when it holds `batch_size` records, when its payload reaches 6 MB, or when the window has elapsed since
its first record came or the batch before it was settled, whichever is later. With window 0 what is there goes at once.
Source: lambda.md 2.1, 3.3.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from esm.model.clocks import Instant
from esm.rules.events import ENVELOPE_BYTES, PAYLOAD_BYTES_MAX, HasEvent

T = TypeVar("T", bound=HasEvent)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is full or due."""

    batch_size: int
    window_s: float
    payload_bytes_max: int = PAYLOAD_BYTES_MAX


class Window(Generic[T]):
    """Records in arrival order. Invariant: `size_bytes` is the sum of the event lengths of what it holds."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._added_at: deque[tuple[int, Instant]] = deque()
        self._settled_at: Instant | None = None
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def first(self) -> T | None:
        """The oldest record; None when empty."""
        return self._items[0] if self._items else None

    @property
    def last(self) -> T | None:
        """The newest record; None when empty."""
        return self._items[-1] if self._items else None

    def add(self, items: Sequence[T], now: Instant) -> None:
        """Put records behind those that wait."""
        if not items:
            return
        self._items.extend(items)
        self._added_at.append((len(items), now))
        self.size_bytes += sum([len(item.event) for item in items])

    def settled(self, now: Instant) -> None:
        """The batch before was settled: the next window begins."""
        self._settled_at = now

    def due_at(self, limits: BatchLimits) -> Instant | None:
        """When a batch may be taken: in the past when one is full; None when empty."""
        if not self._items:
            return None
        opened_at = self._added_at[0][1]
        if limits.window_s <= 0 or self._is_full(limits):
            return opened_at
        if self._settled_at is not None:
            opened_at = max(opened_at, self._settled_at)
        return Instant(opened_at + limits.window_s)

    def take(self, limits: BatchLimits, belongs: Callable[[T], bool] | None = None) -> list[T]:
        """The next batch: as many records as the limits allow, at least one; empty when nothing waits.

        With `belongs` the batch ends before the first record for which it is false.
        A record that is too big by itself makes a batch alone: the rule of delivery refuses it.
        """
        count = self._count(limits)
        return self._pop(count if belongs is None else self._leading(belongs, count))

    def take_while(self, belongs: Callable[[T], bool]) -> list[T]:
        """The leading records for which `belongs` is true."""
        return self._pop(self._leading(belongs, len(self._items)))

    def _leading(self, belongs: Callable[[T], bool], most: int) -> int:
        for count, item in enumerate(self._items):
            if count >= most or not belongs(item):
                return count
        return most

    def _pop(self, count: int) -> list[T]:
        batch = [self._items.popleft() for _ in range(count)]
        self.size_bytes -= sum([len(item.event) for item in batch])
        self._forget(count)
        return batch

    def clear(self) -> int:
        """Drop everything; returns the bytes that were held."""
        freed = self.size_bytes
        self._items.clear()
        self._added_at.clear()
        self.size_bytes = 0
        return freed

    def _forget(self, count: int) -> None:
        while count:
            added, at = self._added_at.popleft()
            if added > count:
                self._added_at.appendleft((added - count, at))
                return
            count -= added

    def _is_full(self, limits: BatchLimits) -> bool:
        if len(self._items) >= limits.batch_size:
            return True
        return ENVELOPE_BYTES + self.size_bytes + len(self._items) - 1 >= limits.payload_bytes_max

    def _count(self, limits: BatchLimits) -> int:
        most = min(len(self._items), limits.batch_size)
        if ENVELOPE_BYTES + self.size_bytes + len(self._items) <= limits.payload_bytes_max:
            return most
        return fitting(self._items, most, limits.payload_bytes_max)


def fitting(items: Iterable[HasEvent], most: int, payload_bytes_max: int) -> int:
    """How many leading items fit a payload: at most `most`, at least one if there is any."""
    total = ENVELOPE_BYTES
    count = 0
    for item in items:
        total += len(item.event) + (1 if count else 0)
        if count and (total > payload_bytes_max or count >= most):
            break
        count += 1
    return count
