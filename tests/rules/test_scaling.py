"""How many batches of a mapping may be on their way."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.model.arn import Arn, SourceKind
from esm.model.clocks import Instant
from esm.model.invocation import Misconfigured, Throttled, Unreachable
from esm.model.mapping import Mapping
from esm.model.outcome import Failed, FailedItems, Outcome, Ran, Succeeded
from esm.rules.scaling import BREAKS_AFTER, CONCURRENCY_MAX, Bounds, Pressure, Scaling

MAPPING = Mapping(
    "u", "f", Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f"),
    Arn.parse("arn:aws:sqs:us-east-1:000000000000:q"), SourceKind.SQS,
)  # fmt: skip
RAN = Ran("r", 200, "$LATEST", None)
PLAIN = Bounds.of(MAPPING)


def busy(scaling: Scaling, seconds: int, start: float = 0.0) -> list[int]:
    """The limit at each look while every slot is in use and messages wait."""
    limits = []
    for second in range(1, seconds + 1):
        scaling.received(10, Instant(start + second))
        scaling.ended(Succeeded(RAN), reports_item_failures=False)
        scaling.look(scaling.limit, Instant(start + second))
        limits.append(scaling.limit)
    return limits


def idle(scaling: Scaling, seconds: int, start: float) -> int:
    for second in range(1, seconds + 1):
        scaling.received(0, Instant(start + second))
        scaling.look(2, Instant(start + second))
    return scaling.limit


def test_a_standard_queue_starts_with_five_and_gains_three_hundred_a_minute_up_to_1250() -> None:
    scaling = Scaling(PLAIN, Instant(0.0))
    assert scaling.limit == 5
    limits = busy(scaling, 300)
    assert limits[59] == 305
    assert limits[-1] == CONCURRENCY_MAX


def test_an_idle_queue_goes_back_to_five_and_when_very_quiet_to_two() -> None:
    scaling = Scaling(PLAIN, Instant(0.0))
    busy(scaling, 300)
    assert idle(scaling, 58, 300.0) == 5
    assert idle(scaling, 10, 358.0) == 2
    assert scaling.idle_receivers == 2


@pytest.mark.parametrize(("most", "floor"), [(2, 2), (3, 3), (50, 5)])
def test_maximum_concurrency_bounds_and_keeps_the_floor(most: int, floor: int) -> None:
    scaling = Scaling(Bounds.of(replace(MAPPING, concurrency_max=most)), Instant(0.0))
    assert busy(scaling, 100)[-1] == most
    assert idle(scaling, 200, 100.0) == floor


def test_function_errors_take_one_at_a_time_and_not_the_floor() -> None:
    scaling = Scaling(PLAIN, Instant(0.0))
    busy(scaling, 2)
    seen = []
    for second in range(12):
        scaling.received(10, Instant(3.0 + second))
        for _ in range(9):
            scaling.ended(Failed(RAN, "E"), reports_item_failures=False)
        scaling.look(scaling.limit, Instant(3.0 + second))
        seen.append(scaling.limit)
    assert seen == [14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 5, 5]


@pytest.mark.parametrize("outcome", [Failed(RAN, "E"), FailedItems(RAN, frozenset("a"))])
def test_with_report_batch_item_failures_nothing_slows_down(outcome: Outcome) -> None:
    scaling = Scaling(PLAIN, Instant(0.0))
    scaling.received(10, Instant(1.0))
    scaling.ended(outcome, reports_item_failures=True)
    scaling.look(5, Instant(1.0))
    assert scaling.limit == 10


def test_a_few_errors_among_successes_hold_the_limit() -> None:
    scaling = Scaling(PLAIN, Instant(0.0))
    scaling.received(10, Instant(1.0))
    for outcome in (Failed(RAN, "E"), Succeeded(RAN), Throttled("r")):
        scaling.ended(outcome, reports_item_failures=False)
    scaling.look(5, Instant(1.0))
    assert scaling.limit == 5


def test_provisioned_pollers_are_never_fewer_than_asked_for() -> None:
    scaling = Scaling(Bounds.of(replace(MAPPING, pollers_min=4, pollers_max=20)), Instant(0.0))
    assert (scaling.limit, scaling.idle_receivers) == (40, 4)
    assert busy(scaling, 6)[-1] == 140
    assert busy(scaling, 60, 6.0)[-1] == 200
    assert idle(scaling, 600, 66.0) == 40


@pytest.mark.parametrize(
    ("least", "most", "receivers", "bound"), [(None, 50, 2, 500), (3, None, 3, 2000), (None, 1, 1, 10)]
)
def test_a_bound_that_is_not_given_is_awss(least: int | None, most: int | None, receivers: int, bound: int) -> None:
    bounds = Bounds.of(replace(MAPPING, pollers_min=least, pollers_max=most))
    assert (bounds.idle_receivers, bounds.most) == (receivers, bound)


def test_a_poller_asks_ten_times_a_second_at_most() -> None:
    scaling = Scaling(Bounds.of(replace(MAPPING, pollers_min=2, pollers_max=2)), Instant(0.0))
    times = [scaling.poll_at(Instant(0.0)) for _ in range(41)]
    assert times[0] == 0.0
    assert times[40] == pytest.approx(2.0)
    assert scaling.poll_at(Instant(100.0)) == 100.0
    assert Scaling(PLAIN, Instant(0.0)).poll_at(Instant(7.0)) == 7.0


def test_changed_bounds_hold_at_once() -> None:
    scaling = Scaling(PLAIN, Instant(0.0))
    busy(scaling, 60)
    scaling.change(Bounds.of(replace(MAPPING, concurrency_max=7)))
    assert scaling.limit == 7
    scaling.change(Bounds.of(replace(MAPPING, pollers_min=3)))
    assert scaling.limit == 30


STEPS = st.lists(
    st.tuples(
        st.floats(0.01, 5), st.integers(0, 10), st.integers(0, 1), st.sampled_from(["taken", "failed", "throttled"])
    ),
    max_size=200,
)
MAPPINGS = st.one_of(
    st.builds(lambda most: replace(MAPPING, concurrency_max=most), st.one_of(st.none(), st.integers(2, 1000))),
    st.builds(lambda least: replace(MAPPING, pollers_min=least, pollers_max=least * 3), st.integers(2, 50)),
)


@given(MAPPINGS, STEPS)
def test_the_limit_stays_within_its_bounds_and_no_minute_gains_more_than_allowed(
    mapping: Mapping, steps: list[tuple[float, int, int, str]]
) -> None:
    bounds = Bounds.of(mapping)
    scaling = Scaling(bounds, Instant(0.0))
    now = 0.0
    gains: list[tuple[float, int]] = []
    for passed_s, received, is_free, kind in steps:
        now += passed_s
        before = scaling.limit
        scaling.received(received, Instant(now))
        ending = {"taken": Succeeded(RAN), "failed": Failed(RAN, "E"), "throttled": Throttled("r")}[kind]
        scaling.ended(ending, reports_item_failures=False)
        scaling.look(before - is_free, Instant(now))
        assert bounds.quiet_floor <= scaling.limit <= bounds.most
        gains.append((now, max(0, scaling.limit - before)))
        assert sum(gain for at, gain in gains if at > now - 60) <= bounds.added_a_minute + 1


@given(st.integers(1, 50), st.lists(st.sampled_from("suTumf"), max_size=60))
def test_pressure_stays_within_its_bounds_and_breaks_after_three(most: int, script: list[str]) -> None:
    pressure = Pressure(most)
    unreached = 0
    for letter in script:
        ending: Outcome = {
            "s": Succeeded(RAN), "u": Unreachable("r", "x"), "m": Misconfigured("r", "x"), "T": Throttled("r"),
            "f": Failed(RAN, "E"),
        }[letter]  # fmt: skip
        before = pressure.limit
        pressure.ended(ending, before)
        unreached = {"u": unreached + 1, "m": unreached + 1, "s": 0, "f": 0, "T": unreached}[letter]
        assert pressure.is_broken == (unreached >= BREAKS_AFTER)
        assert 1 <= pressure.limit <= most
        if letter == "T" and before > 1:
            assert pressure.limit == before // 2
        if pressure.is_broken:
            assert pressure.limit == 1


def test_pressure_follows_its_bound_unless_it_was_throttled() -> None:
    pressure = Pressure(10)
    pressure.set_limit_max(20)
    assert pressure.limit == 20
    pressure.ended(Throttled("r"), 20)
    pressure.set_limit_max(40)
    assert pressure.limit == 10
    pressure.set_limit_max(4)
    assert pressure.limit == 4
