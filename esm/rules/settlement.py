"""A queue batch until each of its messages may be deleted, or is left to the queue.

Lambda never retries a function error of a queue: the messages come back when their visibility ends, and the queue's
redrive policy counts. Only what happens before the function runs is tried again here, with a pause, until visibility
ends; then the batch is let go. Source: lambda.md 2.3, 2.4, 11.5, 11.10.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from esm.model.clocks import Instant
from esm.model.invocation import Abandoned, Misconfigured, Refused, Throttled, Unreachable
from esm.model.outcome import Failed, FailedItems, Outcome, Succeeded
from esm.model.record import Message
from esm.rules.backoff import BASE_S, SLOW_BASE_S, pause_s
from esm.rules.events import PAYLOAD_BYTES_MAX, payload_bytes

Messages = tuple[Message, ...]


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
    """Their visibility has ended, or ends before they can be invoked: the queue has them again."""

    messages: Messages


QueueStep = Offer | Hold | Delete | LetGo


class Settlement:
    """One batch of a queue. Invariant: the pieces are exactly the messages whose fate is open."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._pieces: deque[Messages] = deque([tuple(messages)])
        self._delete: Messages = ()
        self._retry_at = Instant(0.0)
        self._failures = 0

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
        if not self._pieces:
            return None
        piece = self._pieces[0]
        late = tuple(message for message in piece if message.visible_at <= now)
        if late:
            self._replace_head(tuple(message for message in piece if message.visible_at > now))
            return LetGo(late)
        if len(piece) == 1 and payload_bytes(piece) > PAYLOAD_BYTES_MAX:
            self._pieces.popleft()
            return LetGo(piece)
        visible_at = min(message.visible_at for message in piece)
        if now < self._retry_at:
            return Hold(min(self._retry_at, visible_at))
        return Offer(piece, visible_at)

    def invoked(self, outcome: Outcome, now: Instant, jitter: float) -> None:
        """Report how the invocation of the last `Offer` ended; `jitter` is uniform in [0, 1]."""
        piece = self._pieces[0]
        match outcome:
            case Succeeded():
                self._settle(piece)
            case FailedItems(_, items):
                self._settle(tuple(message for message in piece if message.message_id not in items))
            case Failed() | Abandoned():
                self._settle(())
            case Refused():
                self._refused(piece)
            case Throttled() | Unreachable() | Misconfigured():
                self._pause(outcome, now, jitter)

    def _settle(self, taken: Messages) -> None:
        self._pieces.popleft()
        self._delete = taken
        self._failures = 0
        self._retry_at = Instant(0.0)

    def _refused(self, piece: Messages) -> None:
        self._pieces.popleft()
        if len(piece) > 1:
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

    def _replace_head(self, rest: Messages) -> None:
        self._pieces.popleft()
        if rest:
            self._pieces.appendleft(rest)
