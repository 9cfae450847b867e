"""Tumbling windows: bounds, endings, what an event carries, the final call, and what an answer means."""

import json
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import Instant, UnixTime
from esm.model.invocation import Abandoned, Answer, Ending, Misconfigured, Refused, Throttled, Unreachable
from esm.model.notice import Condition, Span
from esm.model.outcome import Failed, FailedItems, Outcome, Ran, Succeeded
from esm.model.position import AfterSequence, TrimHorizon
from esm.model.record import Read, StreamRecord
from esm.model.window import OpenWindow
from esm.rules import events, responses, tumbling
from esm.rules.delivery import Delivery, Done, GiveUp, Invoke, RetryRules, Wait
from esm.rules.tumbling import QUIET_S, STATE_BYTES_MAX, End, FinalCall, Tip, Tumbling

RAN = Ran("r", 200, "$LATEST", None)
TIMES = st.floats(0, 4e9).map(UnixTime)
SIZES = st.integers(1, 900)
NOTHING = TrimHorizon()


def record(number: int, arrived_at: float = 100.0, size_bytes: int = 2) -> StreamRecord:
    return StreamRecord(b"x" * size_bytes, str(number), 0, UnixTime(arrived_at))


def last(number: int = 1, arrived_at: float = 100.0) -> AfterSequence:
    return AfterSequence(str(number), UnixTime(arrived_at))


def window(state: bytes = b"{}", start_s: int = 60, end_s: int = 120) -> OpenWindow:
    return OpenWindow(start_s, end_s, state, last())


@given(TIMES, SIZES)
def test_a_window_holds_its_instant_and_is_a_multiple_of_its_size(at: UnixTime, size_s: int) -> None:
    start_s, end_s = tumbling.bounds(at, size_s)
    assert start_s <= at < end_s
    assert (start_s % size_s, end_s - start_s) == (0, size_s)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=40), SIZES)
def test_no_batch_mixes_windows_and_late_records_belong_to_the_open_one(times: list[float], size_s: int) -> None:
    machine = Tumbling()
    for number, at in enumerate(times):
        one = record(number, at)
        if machine.end(size_s, one, NOTHING, Tip(), is_over=False):
            assert machine.open is not None
            assert at >= machine.open.end_s, "only a later record ends a window"
            machine.closed(goes_on=False)
        machine.begin(one, size_s)
        assert machine.open is not None
        own = tumbling.bounds(one.arrived_at, size_s)
        assert machine.holds(one)
        assert (machine.open.start_s, machine.open.end_s) >= own
        machine.took(last(number, at), b"{}")


def test_a_window_whose_first_batch_is_on_its_way_is_neither_stored_nor_ended() -> None:
    machine = Tumbling()
    machine.begin(record(1), 60)
    assert machine.settled is None
    assert machine.end(30, None, NOTHING, Tip(), is_over=True) is None
    machine.took(last(), None)
    assert machine.settled == OpenWindow(60, 120, b"{}", last())


def tip(began_at: float, behind_s: float | None = 0.0) -> Tip:
    found = Tip()
    found.read(Read([], 0, behind_s, has_ended=False), UnixTime(began_at))
    return found


@pytest.mark.parametrize(
    ("size_s", "head", "reached", "found", "is_over", "end"),
    [
        (60, None, NOTHING, Tip(), False, None),
        (60, record(2, 119.9), NOTHING, tip(1000), True, None),
        (60, record(2, 120), NOTHING, Tip(), False, End.COMPLETE),
        (60, None, last(2, 119), Tip(), False, None),
        (60, None, last(2, 120), Tip(), False, End.COMPLETE),
        (60, None, NOTHING, Tip(), True, End.COMPLETE),
        (60, None, NOTHING, tip(120 + QUIET_S - 1), False, None),
        (60, None, NOTHING, tip(120 + QUIET_S), False, End.COMPLETE),
        (60, None, NOTHING, tip(1000, 0.5), False, None),
        (30, None, NOTHING, Tip(), False, End.EARLY),
        (0, record(2, 100), NOTHING, Tip(), False, End.EARLY),
        (0, record(2, 121), NOTHING, Tip(), False, End.COMPLETE),
    ],
)
def test_a_window_ends(
    size_s: int, head: StreamRecord | None, reached: TrimHorizon, found: Tip, is_over: bool, end: End | None  # noqa: FBT001
) -> None:  # fmt: skip
    assert Tumbling(window()).end(size_s, head, reached, found, is_over=is_over) is end


def test_a_state_beyond_a_megabyte_ends_its_window_early() -> None:
    largest = Tumbling(window(b" " * STATE_BYTES_MAX))
    assert largest.end(60, None, NOTHING, Tip(), is_over=False) is None
    too_large = Tumbling(window(b" " * (STATE_BYTES_MAX + 1)))
    assert too_large.end(60, record(1, 500), NOTHING, Tip(), is_over=True) is End.EARLY
    too_large.hollow()
    assert too_large.end(60, None, NOTHING, Tip(), is_over=False) is End.EARLY


def test_a_window_that_ended_early_goes_on_in_its_bounds_with_nothing() -> None:
    machine = Tumbling(window(b'{"a":1}'))
    machine.closed(goes_on=True)
    assert machine.open == OpenWindow(60, 120, b"{}", None)
    machine.closed(goes_on=False)
    assert machine.open is None


def test_a_state_that_was_given_back_is_the_same_when_it_is_read_again() -> None:
    before = window(b'{"a":1}')
    machine = Tumbling(before)
    machine.hollow()
    assert machine.open is not None
    assert (machine.open.is_hollow, machine.open.state_bytes, machine.open.state) == (True, 7, b"")
    machine.filled(b'{"a":1}')
    assert machine.open == before


def test_a_source_that_does_not_say_how_far_behind_it_is_counts_as_there_after_two_empty_minutes() -> None:
    found = Tip()
    empty = Read([], 0, None, has_ended=False)
    found.read(empty, UnixTime(1000))
    found.read(empty, UnixTime(1100))
    assert not found.was_reached(0)
    found.read(Read([record(1)], 2, None, has_ended=False), UnixTime(1101))
    found.read(empty, UnixTime(1102))
    found.read(empty, UnixTime(1221))
    assert not found.was_reached(0)
    found.read(empty, UnixTime(1222))
    assert found.was_reached(1222)
    assert not found.was_reached(1223)


STATES = st.dictionaries(st.text(max_size=5), st.integers(-9, 9), max_size=3).map(msgspec.json.encode)


@given(st.lists(st.integers(0, 99).map(lambda n: str(n).encode()), max_size=5), STATES, st.sampled_from([None, *End]))
def test_an_event_is_json_of_the_length_that_was_reckoned(items: list[bytes], state: bytes, final: End | None) -> None:
    records = [StreamRecord(item, "1", 0, UnixTime(0)) for item in items]
    members = tumbling.members(window(state), "shard-1", "arn:s", final)
    payload = events.payload(records, members)
    event = json.loads(payload)
    assert event["Records"] == [int(item) for item in items]
    assert event["state"] == json.loads(state)
    assert len(payload) == events.payload_bytes(records, members)
    assert len(members) <= tumbling.frame_bytes("shard-1", "arn:s") + len(state)
    assert (event["isFinalInvokeForWindow"], event["isWindowTerminatedEarly"]) == (
        final is not None,
        final is End.EARLY,
    )


@given(st.data())
def test_the_state_follows_the_pieces_in_order_and_failures_leave_it(data: st.DataObject) -> None:
    """A function that appends what it takes: its state is, at each moment, what was taken and not given up."""
    numbers = list(range(data.draw(st.integers(1, 12))))
    rules = RetryRules(data.draw(st.integers(0, 2)), None, data.draw(st.booleans()))
    delivery = Delivery([record(number) for number in numbers], rules)
    state: list[int] = []
    given_up: list[int] = []
    now = Instant(0.0)
    while step := delivery.step(now, UnixTime(100)):
        match step:
            case Wait(until):
                now = until
            case Invoke(records):
                outcome = data.draw(outcomes([int(one.sequence) for one in records], state))
                delivery.invoked(outcome, now, 0.5)
            case Done(settled, answered):
                assert answered is not None
                state = json.loads(answered)["ids"]
                assert state[-1] == int(settled.sequence)
            case GiveUp(span):
                given_up += range(int(span.first_sequence), int(span.last_sequence) + 1)
                delivery.given_up()
    assert sorted(state + given_up) == numbers
    assert state == sorted(state)


@st.composite
def outcomes(draw: st.DrawFn, ids: list[int], state: list[int]) -> Outcome:
    ending: Ending
    kind = draw(st.sampled_from(["taken", "partial", "failed", "throttled"]))
    if kind == "throttled":
        return Throttled("r")
    if kind == "failed":
        return Failed(RAN, "E")
    cut = draw(st.integers(0, len(ids) - 1)) if kind == "partial" else len(ids)
    failures = [{"itemIdentifier": str(number)} for number in ids[cut:]]
    answer = json.dumps({"state": {"ids": state + ids[:cut]}, "batchItemFailures": failures}).encode()
    ending = Answer("r", answer)
    return responses.read(ending, [str(number) for number in ids], reports_item_failures=True, needs_state=True)


def test_a_record_that_fits_no_event_with_an_empty_state_is_given_up_and_halves_are_offered_where_asked() -> None:
    rules = RetryRules(None, None, bisect=False, members_bytes=100)
    limit = events.PAYLOAD_BYTES_MAX - events.ENVELOPE_BYTES - 100
    assert isinstance(Delivery([record(1, size_bytes=limit)], rules).step(Instant(0), UnixTime(0)), Invoke)
    step = Delivery([record(1, size_bytes=limit + 1)], rules).step(Instant(0), UnixTime(0))
    assert isinstance(step, GiveUp)
    assert step.condition is Condition.PAYLOAD
    delivery = Delivery([record(1), record(2), record(3)], rules)
    delivery.halve()
    assert delivery.step(Instant(0), UnixTime(0)) == Invoke((record(1), record(2)), 1)


def final_call(retries_max: int | None = None, age_max_s: float | None = None) -> FinalCall:
    return FinalCall(window(), RetryRules(retries_max, age_max_s, bisect=False), UnixTime(1000))


SPAN = Span("1", "1", 0, UnixTime(100), UnixTime(100))


def test_a_final_call_offers_no_records_and_is_over_when_it_succeeds() -> None:
    call = final_call()
    assert call.step(Instant(0), UnixTime(1000)) == Invoke((), 1)
    call.invoked(Succeeded(RAN, b"{}"), Instant(0), 0.5)
    assert call.step(Instant(0), UnixTime(1000)) is None
    assert not call.is_failing


def test_a_final_call_has_its_own_budget_of_attempts() -> None:
    call = final_call(retries_max=1)
    call.invoked(Throttled("t", 7), Instant(0), 0.5)
    assert call.step(Instant(0), UnixTime(1000)) == Wait(Instant(7))
    for outcome in (Unreachable("u", ""), Misconfigured("m", "")):
        call.invoked(outcome, Instant(0), 0.5)
        assert call.attempts == 0
    call.invoked(Failed(RAN, "E"), Instant(0), 0.5)
    assert call.is_failing
    call.invoked(FailedItems(RAN, frozenset("1")), Instant(50), 0.5)
    assert call.step(Instant(50), UnixTime(1050)) == GiveUp(SPAN, Condition.RETRIES, 2, "r", RAN)
    call.given_up()
    assert call.step(Instant(50), UnixTime(1050)) is None


def test_a_final_call_is_tried_once_however_old_its_window_is_and_its_age_counts_from_then() -> None:
    call = final_call(age_max_s=60)
    assert call.step(Instant(0), UnixTime(9000)) == Invoke((), 1)
    call.invoked(Failed(RAN, "E"), Instant(0), 0.5)
    assert call.step(Instant(0), UnixTime(1000)) == Wait(Instant(0.3))
    assert call.step(Instant(0.2), UnixTime(1060)) == Wait(Instant(0.201))
    assert call.step(Instant(0.2), UnixTime(1060.1)) == GiveUp(SPAN, Condition.AGE, 1, "r", None)


@pytest.mark.parametrize(
    ("outcome", "condition"),
    [(Refused("r", "413"), Condition.PAYLOAD), (Abandoned("r", "loop"), Condition.RETRIES)],
)
def test_a_final_call_that_never_can_run_is_given_up(outcome: Outcome, condition: Condition) -> None:
    call = final_call()
    call.invoked(outcome, Instant(0), 0.5)
    assert call.step(Instant(0), UnixTime(1000)) == GiveUp(SPAN, condition, 1, "r", None)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", "answer is not JSON"),
        (b"{", "answer is not JSON"),
        (b"null", "answer has no object state"),
        (b"[]", "answer has no object state"),
        (b'{"batchItemFailures":[]}', "answer has no object state"),
        (b'{"state":null}', "answer has no object state"),
        (b'{"state":[1]}', "answer has no object state"),
        (b'{"state":{},"batchItemFailures":[{"itemIdentifier":"7"}]}', "an itemIdentifier is not in the batch"),
        (b'{"state":{"x":"' + b"y" * responses.STATE_ROOM_BYTES + b'"}}', "state fits no event"),
    ],
)
def test_an_answer_without_a_usable_state_is_a_failure(payload: bytes, error: str) -> None:
    outcome = responses.read(Answer("r", payload), ["1"], reports_item_failures=True, needs_state=True)
    assert outcome == Failed(RAN, error)


def test_the_state_of_an_answer_is_kept_byte_for_byte() -> None:
    state = '{ "é" : 1.0, "big": 123456789012345678901234567890 ,"a":"\\u00e9"}'.encode()
    payload = b' { "x": 1, "state":  ' + state + b' , "batchItemFailures": [{"itemIdentifier":"2"}] } '
    partial = responses.read(Answer("r", payload), ["1", "2"], reports_item_failures=True, needs_state=True)
    assert partial == FailedItems(RAN, frozenset({"2"}), state)
    whole = responses.read(Answer("r", payload), ["1", "2"], reports_item_failures=False, needs_state=True)
    assert whole == Succeeded(RAN, state)
    failed = Answer("r", payload, "Unhandled")
    outcome = responses.read(failed, ["1"], reports_item_failures=True, needs_state=True)
    assert outcome == Failed(replace(RAN, function_error="Unhandled"), "Unhandled")
    assert responses.read(Throttled("t"), [], reports_item_failures=True, needs_state=True) == Throttled("t")
