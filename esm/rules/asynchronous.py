"""An asynchronous event until it is taken or given up, and its destinations know.

The laws (lambda.md 5, wire-shapes.md 3.5):

1. a function with reserved concurrency 0 gets nothing: its events are given up at once.
2. a function error is tried again after 1 minute, then after 2, at most `retries_max` times.
3. whatever happens before the function runs is never a try: it is waited for, from 1 s doubling to 5 minutes.
4. look ahead: a try that would begin later than the event's age permits is not waited for; the event is given up.
5. a payload that will never run, and a loop that the target ends, are given up at once.
6. who does not take a notice is told again, from 1 s doubling to 5 minutes, until the event's age ends, but for 5
   minutes at least; then the notice is dropped, and counted.
"""

from dataclasses import dataclass, replace

from esm.model.arn import Arn
from esm.model.async_event import AsyncCondition, AsyncEvent, Recipient, Response, Verdict
from esm.model.clocks import UnixTime
from esm.model.function import AsyncRules
from esm.model.invocation import Abandoned, Answer, Ending, Misconfigured, Refused, Throttled, Unreachable

RETRY_BASE_S = 60.0
"""Before the second try; the next pauses are multiples of it."""

WAIT_BASE_S = 1.0
WAIT_MAX_S = 300.0
"""First and longest pause after a throttle or an unreachable target, and after a delivery that failed."""

DELIVERY_S_MIN = 300.0
"""A notice is tried for at least this long."""


@dataclass(frozen=True, slots=True)
class Later:
    """Keep the event, and look at it again then."""

    event: AsyncEvent
    due_at: UnixTime


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing more is tried: the event has a verdict, and those pending in it are to be told."""

    event: AsyncEvent


@dataclass(frozen=True, slots=True)
class Lost:
    """Somebody could not be told for too long: drop the notice, and count it."""

    pending: tuple[Recipient, ...]


def before(event: AsyncEvent, rules: AsyncRules, wall: UnixTime, notice_id: str, *, is_blocked: bool) -> Settled | None:
    """What to do in place of a try; None: try. `is_blocked`: the function's reserved concurrency is 0."""
    if is_blocked:
        return _settled(event, AsyncCondition.NO_CONCURRENCY, rules, wall, notice_id)
    if wall - event.accepted_at > rules.age_max_s:
        return _settled(event, AsyncCondition.AGE, rules, wall, notice_id)
    return None


def after(event: AsyncEvent, ending: Ending, rules: AsyncRules, wall: UnixTime, notice_id: str) -> Later | Settled:
    """What a try means that ended just now."""
    match ending:
        case Answer():
            return _ran(event, ending, rules, wall, notice_id)
        case Refused() | Abandoned():
            return _settled(event, AsyncCondition.RETRIES, rules, wall, notice_id)
        case Throttled(after_s=after_s):
            return _waited(event, after_s or 0.0, rules, wall, notice_id)
        case Unreachable() | Misconfigured():
            return _waited(event, 0.0, rules, wall, notice_id)


def told(event: AsyncEvent, recipient: Recipient) -> AsyncEvent:
    """The event once a recipient knows, or never will."""
    assert event.verdict is not None
    pending = tuple(one for one in event.verdict.pending if one is not recipient)
    return replace(event, verdict=replace(event.verdict, pending=pending))


def not_told(event: AsyncEvent, rules: AsyncRules, wall: UnixTime) -> Later | Lost:
    """What to do about those who are still pending after a round of deliveries."""
    verdict = event.verdict
    assert verdict is not None
    ends_at = max(event.accepted_at + rules.age_max_s, verdict.at + DELIVERY_S_MIN)
    if wall >= ends_at:
        return Lost(verdict.pending)
    failures = verdict.failures + 1
    return Later(replace(event, verdict=replace(verdict, failures=failures)), UnixTime(wall + _pause_s(failures)))


def _ran(event: AsyncEvent, answer: Answer, rules: AsyncRules, wall: UnixTime, notice_id: str) -> Later | Settled:
    response = Response(answer.status, answer.executed_version, answer.function_error, answer.payload)
    event = replace(event, tries=event.tries + 1, waits=0, response=response)
    if answer.function_error is None:
        return _settled(event, AsyncCondition.SUCCESS, rules, wall, notice_id)
    if event.tries > rules.retries_max:
        return _settled(event, AsyncCondition.RETRIES, rules, wall, notice_id)
    return _again(event, RETRY_BASE_S * event.tries, rules, wall, notice_id)


def _waited(event: AsyncEvent, asked_s: float, rules: AsyncRules, wall: UnixTime, notice_id: str) -> Later | Settled:
    event = replace(event, waits=event.waits + 1)
    pause_s = max(_pause_s(event.waits), min(asked_s, WAIT_MAX_S))
    return _again(event, pause_s, rules, wall, notice_id)


def _again(event: AsyncEvent, pause_s: float, rules: AsyncRules, wall: UnixTime, notice_id: str) -> Later | Settled:
    due_at = UnixTime(wall + pause_s)
    if due_at - event.accepted_at >= rules.age_max_s:
        return _settled(event, AsyncCondition.AGE, rules, wall, notice_id)
    return Later(event, due_at)


def _settled(
    event: AsyncEvent, condition: AsyncCondition, rules: AsyncRules, wall: UnixTime, notice_id: str
) -> Settled:
    wanted: tuple[tuple[Recipient, Arn | None], ...]
    if condition is AsyncCondition.SUCCESS:
        wanted = ((Recipient.ON_SUCCESS, rules.on_success),)
    else:
        wanted = ((Recipient.ON_FAILURE, rules.on_failure), (Recipient.DEAD_LETTER, rules.dead_letter))
    pending = tuple(recipient for recipient, arn in wanted if arn is not None)
    return Settled(replace(event, verdict=Verdict(condition, wall, notice_id, pending)))


def _pause_s(failures: int) -> float:
    return float(min(WAIT_MAX_S, WAIT_BASE_S * 2 ** min(failures - 1, 16)))
