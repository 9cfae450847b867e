"""For how long messages are hidden, beyond AWS."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import Instant, UnixTime
from esm.model.mapping import FailureBackoff
from esm.model.record import Message
from esm.rules.visibility import HIDDEN_MAX_S, again_s, extend_at, extended_s, returns_s


def message(received_at: float, ends_at: float, receives: int = 1) -> Message:
    return Message(
        b"", "m", "h", Instant(ends_at), UnixTime(0.0), receives=receives, received_at=Instant(received_at)
    )  # fmt: skip


@given(st.integers(300, 43_200), st.floats(0, 1))
def test_a_message_that_is_always_extended_stays_hidden_for_twelve_hours_and_no_longer(
    visibility_s: int, lateness: float
) -> None:
    one = message(0.0, visibility_s - min(1, visibility_s / 10))
    now, beats = Instant(0.0), 0
    while (at := extend_at([one], visibility_s, now)) is not None:
        assert now <= at < one.visible_at
        now = Instant(at + lateness * min(0.1, (one.visible_at - at) / 2))
        seconds = extended_s(one, visibility_s, now)
        assert 0 < seconds <= visibility_s
        assert now + seconds <= HIDDEN_MAX_S
        assert now + seconds > one.visible_at
        one = message(0.0, now + seconds)
        beats += 1
    assert one.visible_at >= HIDDEN_MAX_S - 1
    assert beats <= HIDDEN_MAX_S / (visibility_s / 2 - 1) + 2


def test_what_has_become_visible_is_not_extended_any_more() -> None:
    assert extended_s(message(0, 10), 30, Instant(10.0)) == 0
    assert extend_at([message(0, 10)], 30, Instant(10.0)) is None
    assert extend_at([], 30, Instant(10.0)) is None


def test_what_has_time_left_is_not_extended_yet() -> None:
    assert extended_s(message(0, 30), 30, Instant(1.0)) == 0
    assert extended_s(message(0, 30), 30, Instant(15.0)) == 30


@pytest.mark.parametrize(("visibility_s", "pause_s"), [(0, 0.25), (1, 0.25), (10, 1.0), (600, 5.0)])
def test_what_failed_is_tried_again_several_times_before_visibility_ends(visibility_s: int, pause_s: float) -> None:
    assert again_s(visibility_s) == pause_s


@given(st.integers(1, 2000), st.integers(0, 900), st.integers(0, 43_200))
def test_a_failed_message_returns_within_its_bounds(receives: int, least_s: int, most_s: int) -> None:
    backoff = FailureBackoff(least_s, max(least_s, most_s))
    delay_s = returns_s(message(0, 30, receives), backoff, Instant(5.0))
    assert min(least_s, HIDDEN_MAX_S - 5) <= delay_s <= min(backoff.delay_max_s, HIDDEN_MAX_S - 5)
    assert delay_s <= returns_s(message(0, 30, receives + 1), backoff, Instant(5.0))


def test_the_delay_doubles_with_each_receive() -> None:
    delays = [returns_s(message(0, 30, receives), FailureBackoff(3, 100), Instant(5.0)) for receives in range(8)]
    assert delays == [3, 3, 6, 12, 24, 48, 96, 100]
