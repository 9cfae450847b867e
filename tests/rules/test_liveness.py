"""Nobody who may still work is declared dead, and whoever has ended is."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import Instant
from esm.model.worker import Heartbeat
from esm.rules.liveness import FORGET_AFTER_S, Liveness

FAILOVER_S = 10.0
BEAT = Heartbeat("w", "r", 1, 1)


def at(seconds: float) -> Instant:
    return Instant(seconds)


def watch(liveness: Liveness, heartbeats: list[Heartbeat], since: int, until: int) -> None:
    for second in range(since, until + 1):
        liveness.looked(heartbeats, at(second))


def test_a_heartbeat_that_does_not_change_for_the_failover_time_is_a_death() -> None:
    liveness = Liveness(FAILOVER_S, at(0))
    watch(liveness, [BEAT], 1, 10)
    assert not liveness.is_gone("w/r")
    assert liveness.live == [BEAT]
    watch(liveness, [BEAT], 11, 11)
    assert liveness.is_gone("w/r")
    assert liveness.live == []
    assert liveness.gone == {"w/r"}
    assert liveness.seen_at("w/r") == 1
    watch(liveness, [replace(BEAT, beat=2)], 12, 12)
    assert not liveness.is_gone("w/r")


def test_a_watcher_that_did_not_look_declares_nobody_dead() -> None:
    liveness = Liveness(FAILOVER_S, at(0))
    liveness.looked([BEAT], at(1))
    liveness.looked([BEAT], at(500))
    assert not liveness.is_gone("w/r")


def test_a_heartbeat_that_was_left_over_is_doubted_before_its_owner_counts_as_gone() -> None:
    liveness = Liveness(FAILOVER_S, at(0))
    lives = Heartbeat("v", "r", 1, 1)
    for second in range(1, 6):
        liveness.looked([BEAT, replace(lives, beat=1 + second // 3)], at(second))
    assert liveness.is_doubtful("w/r")
    assert not liveness.is_gone("w/r")
    assert not liveness.is_doubtful("v/r")
    assert not liveness.is_doubtful("x/y")


def test_an_owner_that_was_never_seen_is_watched_from_its_first_mention() -> None:
    liveness = Liveness(FAILOVER_S, at(0))
    watch(liveness, [], 1, 30)
    assert not liveness.is_gone("x/y")
    watch(liveness, [], 31, 39)
    assert not liveness.is_gone("x/y")
    watch(liveness, [], 40, 40)
    assert liveness.is_gone("x/y")
    assert liveness.is_silent("x/y")


def test_whoever_says_so_or_is_proved_to_have_ended_is_gone_at_once() -> None:
    liveness = Liveness(FAILOVER_S, at(0))
    liveness.looked([replace(BEAT, is_released=True), Heartbeat("v", "new", 1, 1, ended=("old",))], at(1))
    assert liveness.is_gone("w/r")
    assert not liveness.is_silent("w/r")
    assert liveness.is_gone("v/old")
    assert not liveness.is_gone("v/new")
    liveness.ended("v/new")
    assert liveness.is_gone("v/new")


def test_an_older_heartbeat_of_a_lagging_read_is_no_sign_of_life() -> None:
    liveness = Liveness(FAILOVER_S, at(0))
    watch(liveness, [replace(BEAT, beat=5)], 1, 9)
    watch(liveness, [BEAT], 10, 11)
    assert liveness.is_gone("w/r")


def test_what_was_read_between_two_looks_counts_from_then() -> None:
    liveness = Liveness(FAILOVER_S, at(0))
    watch(liveness, [BEAT], 1, 5)
    liveness.saw(replace(BEAT, beat=2), at(5.9))
    watch(liveness, [replace(BEAT, beat=2)], 6, 15)
    assert not liveness.is_gone("w/r")
    watch(liveness, [replace(BEAT, beat=2)], 16, 16)
    assert liveness.is_gone("w/r")


def test_what_is_gone_for_an_hour_is_forgotten() -> None:
    liveness = Liveness(FAILOVER_S, at(0))
    hour = int(FORGET_AFTER_S)
    watch(liveness, [BEAT], 1, hour)
    assert liveness.forgettable == []
    watch(liveness, [BEAT], hour + 1, hour + 2)
    assert liveness.forgettable == [BEAT]
    watch(liveness, [], hour + 3, hour + 3)
    assert liveness.gone == frozenset()
    assert liveness.heartbeats == []


@given(
    looks=st.lists(st.floats(0.1, 8), min_size=1, max_size=60),
    pauses=st.lists(st.floats(0.1, 9), min_size=1, max_size=60),
)
def test_nobody_is_dead_whose_last_heartbeat_is_younger_than_the_failover_time(
    looks: list[float], pauses: list[float]
) -> None:
    beats = [sum(pauses[: number + 1]) for number in range(len(pauses))]
    liveness = Liveness(FAILOVER_S, at(0))
    now = 0.0
    for gap in looks:
        now += gap
        written = [number for number, moment in enumerate(beats) if moment <= now]
        if not written:
            continue
        liveness.looked([replace(BEAT, beat=written[-1])], at(now))
        assert not liveness.is_gone("w/r") or now - beats[written[-1]] >= FAILOVER_S
