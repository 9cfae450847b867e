"""A stream batch: whatever the function does, each record is settled once, in order, within its budget."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import Instant, UnixTime
from esm.model.invocation import Abandoned, Misconfigured, Refused, Throttled, Unreachable
from esm.model.notice import Condition
from esm.model.outcome import Failed, FailedItems, Outcome, Ran, Succeeded
from esm.model.record import StreamRecord
from esm.rules.delivery import Delivery, Done, GiveUp, Invoke, Reread, RetryRules, Wait
from esm.rules.events import PAYLOAD_BYTES_MAX

RAN = Ran("r", 200, "$LATEST", "Unhandled")


def record(number: int, *, size: int = 10, arrived_at: float = 0.0) -> StreamRecord:
    return StreamRecord(b"x" * size, str(number), 0, UnixTime(arrived_at))


def batch(count: int, *, arrived_at: float = 0.0) -> list[StreamRecord]:
    return [record(number, arrived_at=arrived_at) for number in range(count)]


@dataclass
class Run:
    """A delivery walked to its end by hand, the clock with it."""

    delivery: Delivery
    now: float = 0.0
    jitter: float = 0.5
    offered: list[list[int]] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    given_up: list[GiveUp] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    hollows: bool = False

    def to_end(self, answer: object, steps_max: int = 20_000) -> "Run":
        """`answer` maps the records offered to an outcome."""
        settled_to = -1
        for _ in range(steps_max):
            step = self.delivery.step(Instant(self.now), UnixTime(self.now))
            match step:
                case None:
                    return self
                case Wait(until):
                    assert until > self.now
                    if self.hollows:
                        self.delivery.hollow()
                    self.now = until
                case Reread(records):
                    self.delivery.restore([record(int(one.sequence)) for one in records])
                case Invoke(records, attempt):
                    numbers = [int(one.sequence) for one in records]
                    assert all(one.event for one in records)
                    assert numbers[0] == settled_to + 1
                    self.offered.append(numbers)
                    self.attempts.append(attempt)
                    self.delivery.invoked(answer(numbers), Instant(self.now), self.jitter)  # type: ignore[operator]
                case Done(last):
                    self.order += range(settled_to + 1, int(last.sequence) + 1)
                    self.done += range(settled_to + 1, int(last.sequence) + 1)
                    settled_to = int(last.sequence)
                case GiveUp(span) as step:
                    assert int(span.first_sequence) == settled_to + 1
                    self.given_up.append(step)
                    self.order += range(settled_to + 1, int(span.last_sequence) + 1)
                    settled_to = int(span.last_sequence)
                    self.delivery.given_up()
        raise AssertionError("the delivery does not end")


def run(count: int, *, retries: int | None = None, age: float | None = None, bisect: bool = False) -> Run:
    return Run(Delivery(batch(count), RetryRules(retries, age, bisect)))


def poisoned(bad: set[int]) -> object:
    return lambda numbers: Failed(RAN, "E") if bad & set(numbers) else Succeeded(RAN)


def test_one_poison_among_eight_is_found_by_halving_without_spending_a_retry() -> None:
    ended = run(8, retries=0, bisect=True).to_end(poisoned({5}))
    assert len(ended.done) == 7
    assert [(one.span.first_sequence, one.span.count) for one in ended.given_up] == [("5", 1)]
    assert ended.given_up[0].condition is Condition.RETRIES
    assert ended.given_up[0].invoke_count == 1


def test_a_batch_is_invoked_once_and_once_more_for_each_retry() -> None:
    ended = run(3, retries=2).to_end(poisoned({1}))
    assert ended.offered == [[0, 1, 2]] * 3
    assert ended.attempts == [1, 2, 3]
    assert ended.given_up[0].invoke_count == 3
    assert ended.given_up[0].ran == RAN


def test_progress_gives_a_fresh_budget() -> None:
    """Recorded: batch [4, 5, 6], 3 retries, 6 named: [6] is invoked 4 times. Source: lambda.md 3.4.5."""
    ended = run(3, retries=3).to_end(lambda _: FailedItems(RAN, frozenset({"2"})))
    assert ended.offered == [[0, 1, 2]] + [[2]] * 4
    assert ended.done == [0, 1]
    (notice,) = ended.given_up
    assert (notice.invoke_count, notice.span.count) == (4, 1)
    assert notice.ran is not None
    assert notice.ran.function_error is None


@pytest.mark.parametrize("seed", range(20))
def test_eight_invocations_fit_into_an_age_limit_of_a_minute(seed: int) -> None:
    """Recorded on AWS. Source: lambda.md 3.4.4."""
    chance = Random(seed)
    one = run(1, age=60)
    one.jitter = chance.random()
    ended = one.to_end(poisoned({0}))
    assert len(ended.offered) == 8
    assert ended.given_up[0].condition is Condition.AGE
    assert ended.given_up[0].ran is None
    assert 60 <= ended.now < 61


@pytest.mark.parametrize(
    "before", [Throttled("r"), Throttled("r", 7.0), Unreachable("r", "t"), Misconfigured("r", "t")]
)
def test_what_happens_before_the_function_runs_is_no_attempt(before: Outcome) -> None:
    answers = iter([before] * 5 + [Succeeded(RAN)])
    ended = run(2, retries=0).to_end(lambda _: next(answers))
    assert ended.attempts == [1] * 6
    assert ended.done == [0, 1]
    if isinstance(before, Throttled) and before.after_s:
        assert ended.now >= 5 * before.after_s


def test_a_refused_payload_is_halved_and_a_single_record_given_up() -> None:
    ended = run(4, retries=0).to_end(lambda numbers: Refused("r", "413") if 2 in numbers else Succeeded(RAN))
    assert ended.done == [0, 1, 3]
    assert [one.condition for one in ended.given_up] == [Condition.PAYLOAD]


def test_a_record_beyond_the_limit_is_given_up_without_being_offered() -> None:
    delivery = Delivery([record(0, size=PAYLOAD_BYTES_MAX)], RetryRules(None, None, bisect=False))
    ended = Run(delivery).to_end(poisoned(set()))
    assert ended.offered == []
    assert [one.condition for one in ended.given_up] == [Condition.PAYLOAD]


def test_an_abandoned_batch_is_given_up_whole() -> None:
    ended = run(3).to_end(lambda _: Abandoned("r", "loop"))
    assert [(one.span.count, one.condition) for one in ended.given_up] == [(3, Condition.RETRIES)]


def test_records_too_old_leave_the_head_and_the_rest_is_offered() -> None:
    records = [record(0, arrived_at=-100), record(1, arrived_at=-70), record(2), record(3)]
    ended = Run(Delivery(records, RetryRules(None, 60, bisect=False))).to_end(poisoned(set()))
    assert [(one.span.count, one.condition, one.invoke_count) for one in ended.given_up] == [(2, Condition.AGE, 1)]
    assert ended.offered == [[2, 3]]


def test_what_the_source_has_forgotten_while_a_batch_was_parked_is_given_up_for_its_age() -> None:
    delivery = Delivery(batch(4), RetryRules(None, None, bisect=False))
    assert delivery.hollow() == 40
    assert delivery.is_hollow
    assert isinstance(delivery.step(Instant(0), UnixTime(0)), Reread)
    delivery.restore([record(2), record(3)])
    ended = Run(delivery).to_end(poisoned(set()))
    assert [(one.span.count, one.condition) for one in ended.given_up] == [(2, Condition.AGE)]
    assert ended.done == [2, 3]


ENDINGS: dict[str, Outcome] = {
    "ok": Succeeded(RAN),
    "fail": Failed(RAN, "E"),
    "refuse": Refused("r", "413"),
    "throttle": Throttled("r"),
    "unreachable": Unreachable("r", "t"),
    "misconfigured": Misconfigured("r", "t"),
}


@given(
    count=st.integers(1, 12), retries=st.integers(0, 3) | st.none(), age=st.floats(1, 600) | st.none(),
    bisect=st.booleans(), hollows=st.booleans(), plan=st.lists(st.sampled_from([*ENDINGS, "items"]), max_size=60),
    choice=st.integers(0, 10**6), jitter=st.floats(0, 1),
)  # fmt: skip
def test_every_record_is_settled_once_in_order_and_within_its_budget(
    *, count: int, retries: int | None, age: float | None, bisect: bool, hollows: bool, plan: list[str],
    choice: int, jitter: float,
) -> None:  # fmt: skip
    chance = Random(choice)
    outcomes = iter(plan)
    spent: dict[tuple[int, ...], int] = {}

    def answer(numbers: list[int]) -> Outcome:
        ending = next(outcomes, "ok")
        if ending == "fail":
            spent[tuple(numbers)] = spent.get(tuple(numbers), 0) + 1
        if ending == "items":
            return FailedItems(RAN, frozenset({str(chance.choice(numbers))}))
        return ENDINGS[ending]

    one = run(count, retries=retries, age=age, bisect=bisect)
    one.hollows, one.jitter = hollows, jitter
    ended = one.to_end(answer)
    assert ended.order == list(range(count))
    assert sorted(ended.done + [n for g in ended.given_up for n in range(int(g.span.first_sequence),
                  int(g.span.last_sequence) + 1)]) == list(range(count))  # fmt: skip
    if retries is not None:
        assert all(tries <= 1 + retries for tries in spent.values())
        assert all(attempt <= 1 + retries for attempt in ended.attempts)
