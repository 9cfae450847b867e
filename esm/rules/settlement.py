"""A queue batch until each of its messages may be deleted, or is left to the queue.

Lambda never retries a function error of a queue: the messages come back when their visibility ends, and the queue's
redrive policy counts. Only what happens before the function runs is tried again here, with a pause, until visibility
ends; then the batch is let go. On a FIFO queue a message that is not taken takes those behind it in its group along:
nothing of a group is invoked once an earlier message of it is left to the queue. Source: lambda.md 2.3, 2.4, 11.5,
11.10; design section 3.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from esm.model.clocks import Instant
from esm.model.invocation import Abandoned, Misconfigured, Refused, Throttled, Unreachable
from esm.model.mapping import FailureBackoff
from esm.model.outcome import Failed, FailedItems, Outcome, Succeeded
from esm.model.record import Message
from esm.rules.backoff import BASE_S, SLOW_BASE_S, pause_s
from esm.rules.batching import fitting
from esm.rules.events import PAYLOAD_BYTES_MAX, payload_bytes
from esm.rules.visibility import returns_s

Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Ways:
    """What a mapping wants beyond the plain rules."""

    is_fifo: bool = False
    holds_group: bool = False
    """Later messages of a failed message's group count as failed."""
    backoff: FailureBackoff | None = None
    """Failed messages come again after a pause of their own."""
    payload_bytes_max: int = PAYLOAD_BYTES_MAX


PLAIN = Ways()
"""What AWS does on a standard queue."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Invoke the function with these messages, then call `invoked`."""

    messages: Messages
    start_by: Instant
    """The earliest end of visibility among them: nothing may start after it."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Do nothing until then: the next try, or the end of visibility."""

    until: Instant


@dataclass(frozen=True, slots=True)
class Delete:
    """These messages were taken."""

    messages: Messages


@dataclass(frozen=True, slots=True)
class LetGo:
    """The queue has them again when their visibility ends: it did before they could be invoked, or they are too big,
    or an earlier message of their group was left to the queue.
    """

    messages: Messages


@dataclass(frozen=True, slots=True)
class Return:
    """These messages failed: the queue is to have them again in `delay_s` seconds. The last of a group goes first."""

    messages: Messages
    delay_s: int


QueueStep = Offer | Hold | Delete | LetGo | Return


class Settlement:
    """One batch of a queue. Invariants: the pieces are exactly the messages whose fate is open, in order; on FIFO the
    visibility of all messages of a group ends with the first one's.
    """

    def __init__(self, messages: Sequence[Message], ways: Ways = PLAIN) -> None:
        self._ways = ways
        self._pieces: deque[Messages] = deque(_cut(tuple(messages), ways.payload_bytes_max))
        self._delete: Messages = ()
        self._failed: Messages = ()
        self._left: Messages = ()
        self._retry_at = Instant(0.0)
        self._failures = 0
        self._order_ends()

    @property
    def open(self) -> Messages:
        """Messages that are neither taken, nor failed, nor let go."""
        return tuple(message for piece in self._pieces for message in piece)

    @property
    def tries(self) -> int:
        """How often in a row the function could not be run."""
        return self._failures

    def step(self, now: Instant) -> QueueStep | None:
        """What to do next; None when nothing is open."""
        if self._delete:
            taken, self._delete = self._delete, ()
            return Delete(taken)
        if self._failed:
            return self._return(now)
        if self._pieces:
            piece = self._pieces[0]
            late = tuple(message for message in piece if message.visible_at <= now)
            if late or (len(piece) == 1 and payload_bytes(piece) > self._ways.payload_bytes_max):
                self.leave(late or piece)
        if self._left:
            left, self._left = self._left, ()
            return LetGo(left)
        if not self._pieces:
            return None
        piece = self._pieces[0]
        visible_at = min(message.visible_at for message in piece)
        if now < self._retry_at:
            return Hold(min(self._retry_at, visible_at))
        return Offer(piece, visible_at)

    def invoked(self, outcome: Outcome, now: Instant, jitter: float) -> None:
        """Report how the invocation of the last `Offer` ended; `jitter` is uniform in [0, 1]."""
        match outcome:
            case Succeeded():
                self._settle(())
            case FailedItems(_, items):
                self._settle(self._failed_of(self._pieces[0], items))
            case Failed():
                self._settle(self._pieces[0])
            case Abandoned():
                self.leave(self._pieces[0])
            case Refused():
                self._refused(self._pieces[0])
            case Throttled() | Unreachable() | Misconfigured():
                self._pause(outcome, now, jitter)

    def leave(self, messages: Collection[Message]) -> None:
        """These are not invoked but left to the queue, and on FIFO with them what is behind them in their groups."""
        handles = {message.receipt_handle for message in messages}
        groups: set[str | None] = set()
        left = []
        for message in self.open:
            if message.receipt_handle in handles or message.group in groups:
                left.append(message)
                if self._ways.is_fifo:
                    groups.add(message.group)
        self._drop(left)
        self._left += tuple(left)

    def undeleted(self, messages: Collection[Message]) -> None:
        """These were taken and could not be deleted: the queue delivers them again, before what is behind them."""
        if self._ways.is_fifo:
            self.leave(self._behind(messages))

    def extended(self, ends: Mapping[str, Instant]) -> None:
        """The visibility of open messages, by receipt handle, ends at another time."""
        self._pieces = deque(
            tuple(_ending(one, ends.get(one.receipt_handle)) for one in piece) for piece in self._pieces
        )
        self._order_ends()

    def _settle(self, failed: Messages) -> None:
        piece = self._pieces.popleft()
        handles = {message.receipt_handle for message in failed}
        self._delete = tuple(message for message in piece if message.receipt_handle not in handles)
        behind = self._behind(failed) if self._ways.is_fifo else ()
        self._drop(behind)
        if self._ways.backoff is None:
            self._left += behind
        else:
            self._failed = (*failed, *behind)
        self._failures = 0
        self._retry_at = Instant(0.0)

    def _failed_of(self, piece: Messages, items: Collection[str]) -> Messages:
        groups: set[str | None] = set()
        failed = []
        for message in piece:
            if message.message_id in items or message.group in groups:
                failed.append(message)
                if self._ways.is_fifo and self._ways.holds_group:
                    groups.add(message.group)
        return tuple(failed)

    def _return(self, now: Instant) -> Return:
        assert self._ways.backoff is not None
        delays: dict[str, int] = {}
        for message in self._failed:
            name = self._pace(message)
            delays[name] = max(delays.get(name, 0), returns_s(message, self._ways.backoff, now))
        delay_s = delays[self._pace(self._failed[0])]
        now_due = tuple(message for message in self._failed if delays[self._pace(message)] == delay_s)
        self._failed = tuple(message for message in self._failed if delays[self._pace(message)] != delay_s)
        return Return(now_due, delay_s)

    def _pace(self, message: Message) -> str:
        """What has one delay: a message, or on FIFO all of a group."""
        return (message.group or "") if self._ways.is_fifo else message.receipt_handle

    def _behind(self, messages: Collection[Message]) -> Messages:
        groups = {message.group for message in messages}
        return tuple(message for message in self.open if message.group in groups) if groups else ()

    def _refused(self, piece: Messages) -> None:
        if len(piece) == 1:
            self.leave(piece)
            return
        self._pieces.popleft()
        middle = (len(piece) + 1) // 2
        self._pieces.appendleft(piece[middle:])
        self._pieces.appendleft(piece[:middle])

    def _pause(self, outcome: Throttled | Unreachable | Misconfigured, now: Instant, jitter: float) -> None:
        self._failures += 1
        base_s = SLOW_BASE_S if isinstance(outcome, Misconfigured) else BASE_S
        wait_s = pause_s(self._failures, jitter, base_s)
        if isinstance(outcome, Throttled) and outcome.after_s is not None:
            wait_s = max(wait_s, min(outcome.after_s, 60.0))
        self._retry_at = Instant(now + wait_s)

    def _drop(self, messages: Collection[Message]) -> None:
        if messages:
            handles = {message.receipt_handle for message in messages}
            pieces = [tuple(one for one in piece if one.receipt_handle not in handles) for piece in self._pieces]
            self._pieces = deque(piece for piece in pieces if piece)

    def _order_ends(self) -> None:
        if self._ways.is_fifo:
            ends: dict[str | None, Instant] = {}
            for message in self.open:
                ends[message.group] = min(message.visible_at, ends.get(message.group, message.visible_at))
            self._pieces = deque(tuple(_ending(one, ends[one.group]) for one in piece) for piece in self._pieces)


def _cut(messages: Messages, payload_bytes_max: int) -> Iterator[Messages]:
    """Pieces that fit a payload."""
    while messages:
        count = fitting(messages, len(messages), payload_bytes_max)
        yield messages[:count]
        messages = messages[count:]


def _ending(message: Message, at: Instant | None) -> Message:
    return message if at is None or at == message.visible_at else msgspec.structs.replace(message, visible_at=at)
