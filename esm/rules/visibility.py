"""For how long messages are hidden: extended while a function runs, and shortened or stretched after it failed.

Both are beyond AWS, where a queue's own visibility time-out alone decides. Source: lambda.md 2.2, 2.6.
"""

from collections.abc import Iterable

from esm.model.clocks import Instant
from esm.model.mapping import FailureBackoff
from esm.model.record import Message

HIDDEN_MAX_S = 43_200
"""A message stays hidden for 12 hours from its receive at most. Source: lambda.md 2.6."""

BEAT_PART = 1 / 2
"""An extension is due when this part of the queue's visibility time-out is left."""

BEAT_SLACK = 1 / 10
"""What would be due within this part of the time-out is extended along; what failed is tried again after it."""

BEAT_MIN_S, BEAT_MAX_S = 0.25, 5.0
"""Two extensions of one batch are at least so far apart."""

DOUBLINGS_MAX = 30


def extend_at(messages: Iterable[Message], visibility_s: int, now: Instant) -> Instant | None:
    """When to extend next; None when no message can be hidden for longer than it is."""
    ends = [
        one.visible_at
        for one in messages
        if one.visible_at < one.received_at + HIDDEN_MAX_S - 1 and one.visible_at > now
    ]
    if not ends:
        return None
    return Instant(max(now, min(ends) - visibility_s * BEAT_PART))


def extended_s(message: Message, visibility_s: int, now: Instant) -> int:
    """For how many seconds from now to hide a message; 0: it stays as it is."""
    if not now < message.visible_at <= now + visibility_s * (BEAT_PART + BEAT_SLACK):
        return 0
    seconds = min(visibility_s, int(message.received_at + HIDDEN_MAX_S - now))
    return seconds if now + seconds > message.visible_at else 0


def again_s(visibility_s: int) -> float:
    """The pause between two extensions of a batch, the second of which mends what the first could not."""
    return min(BEAT_MAX_S, max(BEAT_MIN_S, visibility_s * BEAT_SLACK))


def returns_s(message: Message, backoff: FailureBackoff, now: Instant) -> int:
    """In how many seconds a failed message is to come again."""
    doublings = min(max(message.receives, 1) - 1, DOUBLINGS_MAX)
    delay_s = min(backoff.delay_max_s, backoff.delay_min_s << doublings)
    return max(0, min(delay_s, int(message.received_at + HIDDEN_MAX_S - now)))
