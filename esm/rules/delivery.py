"""A stream batch until each of its records is taken or given up: retry, split, age.

The laws, in the order in which `invoked` applies them (lambda.md 3.4, 3.8, 11.4, 11.10):

1. success: the piece is done.
2. a partial answer that names a later record than the first: what is before it is done, the rest goes on at once with
   a fresh budget of attempts.
3. a function error, or an answer naming the first record: with bisect and more than one record, two halves, each with
   the attempts it had and without a pause; else one attempt more, and beyond `retries_max` the piece is given up.
4. whatever happens before the function runs is never an attempt: a pause, then again, until age or retention ends it.
5. a refused payload is halved whatever bisect says; a single refused record is given up.

Records older than the age limit leave the head of a batch before each try. A batch whose pause is long may hand its
payload back (`hollow`), keeping sequence numbers and counts, and is filled again from the shard (`restore`): before it
is tried again, and before it is given up where its notice carries the payload and the source may still have it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from esm.model.clocks import Instant, UnixTime
from esm.model.invocation import Abandoned, Misconfigured, Refused, Throttled, Unreachable
from esm.model.notice import Condition, Span
from esm.model.outcome import Failed, FailedItems, Outcome, Ran, Succeeded
from esm.model.record import StreamRecord
from esm.rules.backoff import BASE_S, SLOW_BASE_S, pause_s
from esm.rules.events import PAYLOAD_BYTES_MAX, payload_bytes

Records = tuple[StreamRecord, ...]


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How long a piece is tried."""

    retries_max: int | None
    """None: until age or retention ends."""
    age_max_s: float | None
    """None: no limit, not even retention (unknown)."""
    bisect: bool
    payload_bytes_max: int = PAYLOAD_BYTES_MAX
    kept_s: float | None = None
    """How long the source keeps a record whose payload its notice needs; None: notices carry no payload."""
    members_bytes: int = 0
    """Bytes that every event carries beside its records: with these a record that fills an event is too big."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until then: the next try, or the moment the oldest record expires."""

    until: Instant


@dataclass(frozen=True, slots=True)
class Invoke:
    """Offer these records to the function, then call `invoked`."""

    records: Records
    attempt: int
    """1 for the first."""


@dataclass(frozen=True, slots=True)
class Reread:
    """The records' payloads were handed back: read them again, then call `restore`."""

    records: Records
    """Without payloads."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Send a notice of these records, then call `given_up`."""

    span: Span
    condition: Condition
    invoke_count: int
    request_id: str | None
    """Of the last invocation; None where nothing ran."""
    ran: Ran | None
    """None where the notice has no `responseContext`."""
    records: Records = ()
    """Those of the span; without payloads where they were handed back, or are gone from the source."""


@dataclass(frozen=True, slots=True)
class Done:
    """Everything up to this record was taken."""

    last: StreamRecord
    state: bytes | None = field(default=None, repr=False)
    """What the function answered as the state of the tumbling window, where there is one."""


Step = Wait | Invoke | Reread | GiveUp | Done


@dataclass(slots=True)
class _Piece:
    records: Records
    attempts: int = 0
    condition: Condition | None = None
    """Set: the piece is given up for that."""
    request_id: str | None = None
    ran: Ran | None = None


def span_of(records: Sequence[StreamRecord]) -> Span:
    """What a notice says of records in order."""
    first, last = records[0], records[-1]
    return Span(first.sequence, last.sequence, len(records), first.arrived_at, last.arrived_at)


def pause_after_s(outcome: Throttled | Unreachable | Misconfigured, failures: int, jitter: float) -> float:
    """The pause after a function did not run, the `failures`-th time in a row."""
    base_s = SLOW_BASE_S if isinstance(outcome, Misconfigured) else BASE_S
    wait_s = pause_s(failures, jitter, base_s)
    if isinstance(outcome, Throttled) and outcome.after_s is not None:
        wait_s = max(wait_s, min(outcome.after_s, 60.0))
    return wait_s


class Delivery:
    """One batch. Invariant: the pieces, in order, are exactly the records that are neither done nor given up."""

    def __init__(self, records: Sequence[StreamRecord], rules: RetryRules) -> None:
        self._pieces: deque[_Piece] = deque([_Piece(tuple(records))])
        self._done: Done | None = None
        self._retry_at = Instant(0.0)
        self._failures = 0
        self._told_at = Instant(0.0)
        self._is_told_plainly = False
        self.rules = rules
        self.is_hollow = False

    @property
    def is_failing(self) -> bool:
        """Whether the last try of the head did not succeed."""
        return self._failures > 0

    @property
    def head(self) -> StreamRecord | None:
        """The oldest record that is not settled."""
        return self._pieces[0].records[0] if self._pieces else None

    def step(self, now: Instant, wall: UnixTime) -> Step | None:
        """What to do next; None when every record is settled."""
        if self._done is not None:
            done, self._done = self._done, None
            return done
        if not self._pieces:
            return None
        self._expire(wall)
        piece = self._pieces[0]
        if piece.condition is None and self._is_too_big(piece):
            piece.condition = Condition.PAYLOAD
        if now < (until := self._resumes_at(piece, now, wall)):
            return Wait(until)
        if piece.condition is not None and not (self.is_hollow and self._is_kept(piece, wall)):
            return self._give_up(piece, piece.condition)
        if self.is_hollow:
            return self._reread()
        return Invoke(piece.records, piece.attempts + 1)

    def invoked(self, outcome: Outcome, now: Instant, jitter: float) -> None:
        """Report how the invocation of the last `Invoke` ended; `jitter` is uniform in [0, 1]."""
        piece = self._pieces[0]
        match outcome:
            case Succeeded():
                self._pieces.popleft()
                self._progress(piece.records[-1], outcome.state)
            case FailedItems():
                self._partial(piece, outcome, now, jitter)
            case Failed(ran):
                self._failed(piece, ran, now, jitter)
            case Refused():
                self._refused(piece, outcome)
            case Abandoned():
                piece.condition, piece.request_id = Condition.RETRIES, outcome.request_id
            case Throttled() | Unreachable() | Misconfigured():
                piece.request_id = outcome.request_id
                self._failures += 1
                self._retry_at = Instant(now + pause_after_s(outcome, self._failures, jitter))

    def given_up(self) -> None:
        """The notice of the last `GiveUp` is delivered, or there is no destination."""
        self._pieces.popleft()
        self._failures = 0
        self._retry_at = Instant(0.0)
        self._told_at = Instant(0.0)
        self._is_told_plainly = False

    def put_off(self, until: Instant, *, needs_payload: bool) -> None:
        """The notice of the last `GiveUp` could not be delivered, and is tried again then, with the payload or not."""
        self._told_at = until
        self._is_told_plainly = not needs_payload

    def halve(self) -> None:
        """Offer the records of the last `Invoke`, two at least, in two halves: their event would be too big."""
        self._halve(self._pieces[0])

    def hollow(self) -> int:
        """Drop the payloads; returns the bytes that they held."""
        freed = 0
        for piece in self._pieces:
            freed += sum([len(record.event) for record in piece.records])
            piece.records = tuple([msgspec.structs.replace(record, event=b"") for record in piece.records])
        self.is_hollow = True
        return freed

    @property
    def lacking(self) -> frozenset[str]:
        """The sequence numbers of the records whose payloads were handed back; `restore` takes no others."""
        if not self.is_hollow:
            return frozenset()
        return frozenset([record.sequence for piece in self._pieces for record in piece.records])

    def restore(self, records: Sequence[StreamRecord]) -> None:
        """Take the payloads again; records that the source no longer has are given up for their age."""
        found = {record.sequence: record for record in records}
        pieces: deque[_Piece] = deque()
        for piece in self._pieces:
            for run in _runs(piece.records, found):
                is_lost = run[0].sequence not in found
                filled = run if is_lost else tuple([found[record.sequence] for record in run])
                condition = Condition.AGE if is_lost and piece.condition is None else piece.condition
                pieces.append(_Piece(filled, piece.attempts, condition, piece.request_id, piece.ran))
        self._pieces = pieces
        self.is_hollow = False

    def _expire(self, wall: UnixTime) -> None:
        piece = self._pieces[0]
        limit = self.rules.age_max_s
        if limit is None or piece.condition is not None:
            return
        count = 0
        for record in piece.records:
            if wall - record.arrived_at <= limit:
                break
            count += 1
        if count == 0:
            return
        expired = _with_records(piece, piece.records[:count])
        expired.condition = Condition.AGE
        self._pieces.popleft()
        if count < len(piece.records):
            self._pieces.appendleft(_with_records(piece, piece.records[count:]))
        self._pieces.appendleft(expired)

    def _resumes_at(self, piece: _Piece, now: Instant, wall: UnixTime) -> Instant:
        if piece.condition is not None:
            return self._told_at
        return self._retry_at if now >= self._retry_at else min(self._retry_at, self._expires_at(piece, now, wall))

    def _expires_at(self, piece: _Piece, now: Instant, wall: UnixTime) -> Instant:
        if self.rules.age_max_s is None:
            return Instant(float("inf"))
        left_s = piece.records[0].arrived_at + self.rules.age_max_s - wall
        return Instant(now + max(0.0, left_s) + 0.001)

    def _is_kept(self, piece: _Piece, wall: UnixTime) -> bool:
        """Whether the notice needs the payload, and the source may still have some of it."""
        if self._is_told_plainly or self.rules.kept_s is None:
            return False
        return wall - piece.records[-1].arrived_at < self.rules.kept_s

    def _reread(self) -> Reread:
        return Reread(tuple(record for piece in self._pieces for record in piece.records))

    def _is_too_big(self, piece: _Piece) -> bool:
        if self.is_hollow or len(piece.records) > 1:
            return False
        return payload_bytes(piece.records) + self.rules.members_bytes > self.rules.payload_bytes_max

    def _give_up(self, piece: _Piece, condition: Condition) -> GiveUp:
        ran = piece.ran if condition is Condition.RETRIES else None
        return GiveUp(span_of(piece.records), condition, max(1, piece.attempts), piece.request_id, ran, piece.records)

    def _partial(self, piece: _Piece, failed: FailedItems, now: Instant, jitter: float) -> None:
        first = next(index for index, record in enumerate(piece.records) if record.sequence in failed.items)
        ran = replace(failed.ran, function_error=None)
        if first == 0:
            self._failed(piece, ran, now, jitter)
            return
        rest = _Piece(piece.records[first:], 0, None, ran.request_id, ran)
        self._pieces[0] = rest
        self._progress(piece.records[first - 1], failed.state)

    def _failed(self, piece: _Piece, ran: Ran, now: Instant, jitter: float) -> None:
        piece.ran, piece.request_id = ran, ran.request_id
        if self.rules.bisect and len(piece.records) > 1:
            self._halve(piece)
            return
        piece.attempts += 1
        if self.rules.retries_max is not None and piece.attempts > self.rules.retries_max:
            piece.condition = Condition.RETRIES
            return
        self._failures += 1
        self._retry_at = Instant(now + pause_s(self._failures, jitter))

    def _refused(self, piece: _Piece, refused: Refused) -> None:
        piece.request_id = refused.request_id
        if len(piece.records) > 1:
            self._halve(piece)
        else:
            piece.condition = Condition.PAYLOAD

    def _halve(self, piece: _Piece) -> None:
        middle = (len(piece.records) + 1) // 2
        self._pieces.popleft()
        self._pieces.appendleft(_with_records(piece, piece.records[middle:]))
        self._pieces.appendleft(_with_records(piece, piece.records[:middle]))

    def _progress(self, last: StreamRecord, state: bytes | None) -> None:
        self._done = Done(last, state)
        self._failures = 0
        self._retry_at = Instant(0.0)


def _with_records(piece: _Piece, records: Records) -> _Piece:
    """A piece with other records and the same history."""
    return _Piece(records, piece.attempts, piece.condition, piece.request_id, piece.ran)


def _runs(records: Records, found: dict[str, StreamRecord]) -> list[Records]:
    runs: list[list[StreamRecord]] = []
    for record in records:
        if runs and (runs[-1][-1].sequence in found) == (record.sequence in found):
            runs[-1].append(record)
        else:
            runs.append([record])
    return [tuple(run) for run in runs]
