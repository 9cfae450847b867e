"""Pauses between the starts of a worker: they grow, they are bounded, and a while of running makes them short again."""

from hypothesis import given
from hypothesis import strategies as st

from esm.rules.restarts import FIRST_PAUSE_S, PAUSE_MAX_S, STEADY_S, Restarts

RUNS = st.lists(st.floats(0, 10 * STEADY_S), max_size=40)


@given(RUNS)
def test_every_pause_is_bounded_and_grows_while_runs_are_short(runs: list[float]) -> None:
    restarts, before = Restarts(), 0.0
    for ran_s in runs:
        pause_s = restarts.pause_s(ran_s)
        assert FIRST_PAUSE_S <= pause_s <= PAUSE_MAX_S
        assert pause_s == FIRST_PAUSE_S if ran_s >= STEADY_S else pause_s >= before
        before = pause_s


@given(RUNS)
def test_a_while_of_running_makes_the_next_pause_the_first_again(runs: list[float]) -> None:
    restarts = Restarts()
    for ran_s in runs:
        restarts.pause_s(ran_s)
    assert restarts.pause_s(STEADY_S) == FIRST_PAUSE_S
    assert restarts.pause_s(0) == 2 * FIRST_PAUSE_S


def test_a_worker_that_never_lives_is_started_every_half_minute() -> None:
    restarts = Restarts()
    assert [restarts.pause_s(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
