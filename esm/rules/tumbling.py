"""Tumbling windows of one shard: which window a record belongs to, when a window ends, and its final call.

The laws (lambda.md 3.6, 11.8; where AWS is silent they are ours):

1. Windows are multiples of their size from 1970 on. A record belongs to the window of its arrival time, or to the open
   one if that is later. A record that arrives after its window has ended opens that window again.
2. An invocation never mixes two windows: a batch is cut before the first record that does not belong. While a batch is
   on its way its window keeps its bounds, whatever the configuration says meanwhile.
3. Every answer must hold an object `state`, also a partial one and that of a final call; without it the invocation has
   failed. What a failed or given-up piece answered is not kept: the state stays as it was.
4. The state follows the pieces in order: a retry gets the state that the try before it got, the second half of a split
   gets what the first half answered, and the rest after a partial answer gets the state of that answer.
5. A window that holds a settled record, taken or given up, ends with exactly one final call that succeeds or is given
   up; filtered records open none. Its `Records` are always empty: the last records have gone before it.
6. The final call is due, not early: with the first record of a later window (a filtered one too), at the end of the
   shard, or when the shard's tip was reached by a read that began 2 minutes after the window's end. It is due early
   when the state is larger than 1 MB, when the state leaves no room in the event for the next record, or when the
   window's size has changed. The rest of a batch whose window has ended early goes on in the same bounds, with an empty
   state.
7. A final call is tried again like a batch, with its own budget of attempts. Its age counts from the moment it became
   due, so that it is tried at least once however long the window was quiet. Given up, it sends a notice that counts no
   records and names the window's last one, and the state is dropped.
8. State, bounds and position are stored together or not at all; children of a shard begin with nothing.
"""

from dataclasses import replace
from enum import Enum

from esm.model.clocks import Instant, UnixTime
from esm.model.invocation import Abandoned, Misconfigured, Refused, Throttled, Unreachable
from esm.model.notice import Condition, Span
from esm.model.outcome import Failed, FailedItems, Outcome, Ran, Succeeded
from esm.model.position import AfterSequence, Position
from esm.model.record import Read, StreamRecord
from esm.model.window import OpenWindow
from esm.rules.backoff import pause_s
from esm.rules.delivery import GiveUp, Invoke, RetryRules, Wait, pause_after_s
from esm.rules.notices import timestamp

STATE_BYTES_MAX = 1_048_576
"""A state beyond this ends its window early. Source: lambda.md 3.6."""

EMPTY_STATE = b"{}"
"""What the first invocation of a window is given."""

QUIET_S = 120.0
"""How long after a window's end records of it are waited for. Source: lambda.md 3.6."""


class End(Enum):
    """Why a window gets its final call."""

    COMPLETE = "complete"
    EARLY = "early"


class Tip:
    """Whether reads of a shard have come to its tip.

    A source that says how far behind it is says so; another one counts as there after 2 minutes of empty reads.
    """

    def __init__(self) -> None:
        self._reached_at: UnixTime | None = None
        self._empty_since: UnixTime | None = None

    def read(self, read: Read, began_at: UnixTime) -> None:
        """A read that began at `began_at` has ended."""
        self._reached_at = None
        if read.records:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = began_at
        if read.behind_s is not None:
            is_there = read.behind_s <= 0
        else:
            is_there = self._empty_since is not None and began_at - self._empty_since >= QUIET_S
        if is_there:
            self._reached_at = began_at

    def was_reached(self, since: float) -> bool:
        """Whether the last read ended at the tip and began at `since` or later."""
        return self._reached_at is not None and self._reached_at >= since


class Tumbling:
    """The open window of one lane. Invariant: `open` is replaced, never changed; what is stored is one whole value."""

    def __init__(self, window: OpenWindow | None = None) -> None:
        self.open = window

    @property
    def settled(self) -> OpenWindow | None:
        """What belongs to the position of the lane: a window whose first batch is on its way is nothing yet."""
        return self.open if self.open is not None and self.open.last is not None else None

    def begin(self, record: StreamRecord, size_s: int) -> None:
        """A batch that begins with `record` is to be cut: its window is open from now on."""
        if self.open is None:
            self.open = OpenWindow(*bounds(record.arrived_at, size_s))

    def holds(self, record: StreamRecord) -> bool:
        """Whether a record belongs to the open window."""
        return self.open is not None and record.arrived_at < self.open.end_s

    def is_cut(self, first: StreamRecord, last: StreamRecord, size_s: int) -> bool:
        """Whether a batch that begins with `first` is complete because `last` waits for a later window."""
        end_s = bounds(first.arrived_at, size_s)[1] if self.open is None else self.open.end_s
        return last.arrived_at >= end_s

    def took(self, last: AfterSequence, state: bytes | None) -> None:
        """Records up to `last` were settled; `state` None: given up, the state stays."""
        assert self.open is not None
        self.open = replace(self.open, last=last, state=self.open.state if state is None else state)

    def hollow(self) -> None:
        """The state stands in the store, and is given back."""
        assert self.open is not None
        self.open = replace(self.open, state=b"", stored_bytes=self.open.state_bytes)

    def filled(self, state: bytes) -> None:
        """The state was read again."""
        assert self.open is not None
        self.open = replace(self.open, state=state, stored_bytes=0)

    def closed(self, *, goes_on: bool) -> None:
        """The final call is over; `goes_on`: it ended the window early, and the rest of a batch follows in it."""
        assert self.open is not None
        self.open = OpenWindow(self.open.start_s, self.open.end_s) if goes_on else None

    def end(self, size_s: int, head: StreamRecord | None, reached: Position, tip: Tip, *, is_over: bool) -> End | None:
        """Whether the open window gets its final call between two batches.

        `head` is the oldest record that waits, `reached` how far the reader has come, `is_over` says that the shard
        has ended; they count only while nothing waits.
        """
        window = self.settled
        if window is None:
            return None
        if is_too_large(window):
            return End.EARLY
        is_late = isinstance(reached, AfterSequence) and reached.arrived_at >= window.end_s
        is_quiet = tip.was_reached(window.end_s + QUIET_S)
        if (not self.holds(head)) if head is not None else (is_over or is_late or is_quiet):
            return End.COMPLETE
        return End.EARLY if window.size_s != size_s else None


def bounds(arrived_at: UnixTime, size_s: int) -> tuple[int, int]:
    """Start and end, in Unix seconds, of the window that an instant lies in: start <= instant < end."""
    start = int(arrived_at // size_s) * size_s
    return start, start + size_s


def is_too_large(window: OpenWindow) -> bool:
    """Whether the state ends its window early."""
    return window.state_bytes > STATE_BYTES_MAX


def members(window: OpenWindow, shard: str, source_arn: str, final: End | None = None) -> bytes:
    """What an event carries beside its `Records`, as `events.payload` takes it. Source: lambda.md 3.6."""
    assert not window.is_hollow
    start, end = (timestamp(UnixTime(at), milliseconds=False) for at in (window.start_s, window.end_s))
    before = f',"window":{{"start":"{start}","end":"{end}"}},"state":'.encode()
    after = (
        f',"shardId":"{shard}","eventSourceARN":"{source_arn}",'
        f'"isFinalInvokeForWindow":{_json(final is not None)},"isWindowTerminatedEarly":{_json(final is End.EARLY)}'
    ).encode()
    return before + window.state + after


def frame_bytes(shard: str, source_arn: str) -> int:
    """The length of `members`, at its longest, without the state."""
    return len(members(OpenWindow(0, 1, b""), shard, source_arn))


def _json(value: bool) -> str:  # noqa: FBT001 - the value is the point
    return "true" if value else "false"


class FinalCall:
    """The final call of one window until it is taken or given up. Speaks like `delivery.Delivery`."""

    def __init__(self, window: OpenWindow, rules: RetryRules, due_at: UnixTime) -> None:
        """`due_at`: when the call became due; its age counts from then."""
        assert window.last is not None
        last = window.last
        self._span = Span(last.sequence, last.sequence, 0, last.arrived_at, last.arrived_at)
        self._due_at = due_at
        self._retry_at = Instant(0.0)
        self._failures = 0
        self._was_tried = False
        self._condition: Condition | None = None
        self._request_id: str | None = None
        self._ran: Ran | None = None
        self._is_over = False
        self._told_at = Instant(0.0)
        self.rules = rules
        self.attempts = 0

    @property
    def is_failing(self) -> bool:
        """Whether the last try did not succeed."""
        return self._failures > 0

    def step(self, now: Instant, wall: UnixTime) -> Invoke | Wait | GiveUp | None:
        """What to do next; None when the call is over."""
        if self._is_over:
            return None
        age_max_s = self.rules.age_max_s
        expires_at = float("inf") if age_max_s is None else self._due_at + age_max_s
        if self._condition is None and self._was_tried and wall > expires_at:
            self._condition = Condition.AGE
        if self._condition is not None and now < self._told_at:
            return Wait(self._told_at)
        if self._condition is not None:
            ran = self._ran if self._condition is Condition.RETRIES else None
            return GiveUp(self._span, self._condition, max(1, self.attempts), self._request_id, ran)
        if now < self._retry_at:
            return Wait(Instant(min(self._retry_at, now + max(0.0, expires_at - wall) + 0.001)))
        return Invoke((), self.attempts + 1)

    def invoked(self, outcome: Outcome, now: Instant, jitter: float) -> None:
        """Report how the invocation of the last `Invoke` ended; `jitter` is uniform in [0, 1]."""
        self._was_tried = True
        match outcome:
            case Succeeded():
                self._is_over = True
                self._failures = 0
            case FailedItems(ran) | Failed(ran):
                self._failed(ran, now, jitter)
            case Refused():
                self._condition, self._request_id = Condition.PAYLOAD, outcome.request_id
            case Abandoned():
                self._condition, self._request_id = Condition.RETRIES, outcome.request_id
            case Throttled() | Unreachable() | Misconfigured():
                self._request_id = outcome.request_id
                self._failures += 1
                self._retry_at = Instant(now + pause_after_s(outcome, self._failures, jitter))

    def given_up(self) -> None:
        """The notice of the last `GiveUp` is delivered, or there is no destination."""
        self._is_over = True

    def put_off(self, until: Instant, *, needs_payload: bool) -> None:
        """The notice of the last `GiveUp` could not be delivered, and is tried again then."""
        del needs_payload
        self._told_at = until

    def _failed(self, ran: Ran, now: Instant, jitter: float) -> None:
        self._ran, self._request_id = ran, ran.request_id
        self.attempts += 1
        if self.rules.retries_max is not None and self.attempts > self.rules.retries_max:
            self._condition = Condition.RETRIES
            return
        self._failures += 1
        self._retry_at = Instant(now + pause_s(self._failures, jitter))
