"""An asynchronous event ends as Lambda's would, whatever happens to it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import OperatorNeeded, StoreTooNew
from esm.model.arn import Arn
from esm.model.async_event import AsyncCondition, AsyncEvent, Recipient
from esm.model.clocks import UnixTime
from esm.model.function import AsyncRules
from esm.model.invocation import Abandoned, Answer, Ending, Misconfigured, Refused, Throttled, Unreachable
from esm.model.stored import Blob
from esm.rules import async_stored, asynchronous
from esm.rules.asynchronous import Later, Lost, Settled

ARN = Arn.parse("arn:aws:lambda:us-east-1:111111111111:function:f")
QUEUE = Arn.parse("arn:aws:sqs:us-east-1:111111111111:q")
FAILED = Answer("r", b'{"errorMessage":"no"}', "Unhandled")
TAKEN = Answer("r", b"{}")
NOWHERE: tuple[Ending, ...] = (Throttled("r"), Unreachable("r", ""), Misconfigured("r", ""))

events = st.builds(
    AsyncEvent,
    request_id=st.uuids().map(str),
    function_arn=st.just(ARN),
    payload=st.binary(max_size=50),
    accepted_at=st.just(UnixTime(1000.0)),
    trace=st.none() | st.just("Root=1"),
)
endings = st.sampled_from((FAILED, TAKEN, *NOWHERE, Refused("r", ""), Abandoned("r", "")))
rules_drawn = st.builds(AsyncRules, retries_max=st.integers(0, 2), age_max_s=st.integers(60, 21_600))


def event(**more: object) -> AsyncEvent:
    made = AsyncEvent("r", ARN, b"{}", UnixTime(1000.0))
    return replace(made, **more)  # type: ignore[arg-type]


def tried(one: AsyncEvent, ending: Ending, rules: AsyncRules, wall: float) -> Later | Settled:
    return asynchronous.after(one, ending, rules, UnixTime(wall), "n")


@given(events, rules_drawn, st.lists(endings, min_size=1, max_size=200))
def test_an_event_is_tried_at_most_as_often_and_as_long_as_its_rules_permit(
    one: AsyncEvent, rules: AsyncRules, ended: list[Ending]
) -> None:
    wall = float(one.accepted_at)
    for ending in ended:
        before = one
        decision = tried(one, ending, rules, wall)
        one = decision.event
        assert one.tries == before.tries + isinstance(ending, Answer)
        assert one.tries <= 1 + rules.retries_max
        if isinstance(decision, Settled):
            assert one.verdict is not None
            assert (one.verdict.condition is AsyncCondition.SUCCESS) == (ending is TAKEN)
            return
        assert decision.due_at > wall
        assert decision.due_at - one.accepted_at < rules.age_max_s
        wall = decision.due_at


@given(rules_drawn, st.lists(st.sampled_from(NOWHERE), min_size=1, max_size=30))
def test_what_happens_before_the_function_runs_waits_from_one_second_to_five_minutes_and_counts_nothing(
    rules: AsyncRules, ended: list[Ending]
) -> None:
    one, wall = event(), 1000.0
    for number, ending in enumerate(ended):
        decision = tried(one, ending, rules, wall)
        if isinstance(decision, Settled):
            assert decision.event.verdict is not None
            assert decision.event.verdict.condition is AsyncCondition.AGE
            assert decision.event.response is None
            return
        assert abs(decision.due_at - wall - min(300.0, 2.0**number)) < 0.001
        assert decision.event.tries == 0
        one, wall = decision.event, decision.due_at


def test_function_errors_are_tried_again_after_one_and_two_minutes_then_given_up() -> None:
    first = tried(event(), FAILED, AsyncRules(), 1000.5)
    assert isinstance(first, Later)
    assert first.due_at == 1060.5
    second = tried(first.event, FAILED, AsyncRules(), 1060.6)
    assert isinstance(second, Later)
    assert second.due_at == 1180.6
    third = tried(second.event, FAILED, AsyncRules(), 1181.0)
    assert isinstance(third, Settled)
    assert third.event.verdict is not None
    assert third.event.verdict.condition is AsyncCondition.RETRIES
    assert third.event.tries == 3


def test_the_age_is_looked_at_ahead_as_recorded() -> None:
    at_60 = tried(event(), FAILED, AsyncRules(age_max_s=60), 1000.1)
    assert isinstance(at_60, Settled)
    assert at_60.event.verdict is not None
    assert (at_60.event.verdict.condition, at_60.event.tries) == (AsyncCondition.AGE, 1)
    first = tried(event(), FAILED, AsyncRules(age_max_s=90), 1000.1)
    assert isinstance(first, Later)
    at_90 = tried(first.event, FAILED, AsyncRules(age_max_s=90), 1060.2)
    assert isinstance(at_90, Settled)
    assert at_90.event.verdict is not None
    assert (at_90.event.verdict.condition, at_90.event.tries) == (AsyncCondition.AGE, 2)


def test_a_blocked_function_gets_nothing_and_an_event_that_is_too_old_neither() -> None:
    rules = AsyncRules()
    blocked = asynchronous.before(event(), rules, UnixTime(1000.0), "n", is_blocked=True)
    assert blocked is not None
    assert blocked.event.verdict is not None
    assert (blocked.event.verdict.condition, blocked.event.tries) == (AsyncCondition.NO_CONCURRENCY, 0)
    old = asynchronous.before(event(), rules, UnixTime(1000.0 + 21_601), "n", is_blocked=False)
    assert old is not None
    assert old.event.verdict is not None
    assert old.event.verdict.condition is AsyncCondition.AGE
    assert asynchronous.before(event(), rules, UnixTime(1001.0), "n", is_blocked=False) is None


def test_a_target_that_says_when_is_not_asked_before() -> None:
    decision = tried(event(), Throttled("r", 45.0), AsyncRules(), 1000.0)
    assert isinstance(decision, Later)
    assert decision.due_at == 1045.0


@given(success=st.booleans(), failure=st.booleans(), dead=st.booleans(), ending=endings)
def test_success_is_told_to_one_and_failure_to_destination_and_dead_letter_queue(
    *, success: bool, failure: bool, dead: bool, ending: Ending
) -> None:
    rules = AsyncRules(0, 60, *[QUEUE if one else None for one in (success, failure, dead)])
    decision = tried(event(), ending, rules, 1059.5)
    assert isinstance(decision, Settled)
    assert decision.event.verdict is not None
    expected = [Recipient.ON_SUCCESS] if success else []
    if ending is not TAKEN:
        wanted = ((failure, Recipient.ON_FAILURE), (dead, Recipient.DEAD_LETTER))
        expected = [recipient for is_set, recipient in wanted if is_set]
    assert list(decision.event.verdict.pending) == expected


@given(st.integers(60, 21_600), st.floats(0, 21_600))
def test_a_recipient_is_told_again_until_the_age_ends_but_for_five_minutes_at_least(age_s: int, after_s: float) -> None:
    rules = AsyncRules(0, age_s, None, QUEUE)
    settled = tried(event(), FAILED, rules, 1000.0 + after_s)
    one, wall = settled.event, UnixTime(1000.0 + after_s)
    assert one.verdict is not None
    ends_at = max(1000.0 + age_s, wall + 300)
    for _ in range(1000):
        decision = asynchronous.not_told(one, rules, wall)
        if isinstance(decision, Lost):
            assert wall >= ends_at
            assert decision.pending == (Recipient.ON_FAILURE,)
            return
        assert wall < ends_at
        assert 0.999 <= decision.due_at - wall <= 300.001
        one, wall = decision.event, decision.due_at
    raise AssertionError("a notice is tried for ever")


@given(events, endings, st.integers(0, 2_000_000))
def test_what_is_stored_is_what_is_read_however_large(one: AsyncEvent, ending: Ending, size_bytes: int) -> None:
    if isinstance(ending, Answer):
        ending = replace(ending, payload=b"x" * size_bytes)
    one = tried(one, ending, AsyncRules(0, 60, QUEUE, QUEUE, QUEUE), 1030.0).event
    value, parts = async_stored.encode(one, "name")
    found = async_stored.decode(value)
    assert found.parts == len(parts)
    assert max(len(piece) for piece in (value, *parts)) <= 350 * 1024
    assert async_stored.event_of(found, b"".join(parts) or found.body) == one


def test_a_body_that_is_a_blob_leaves_a_value_that_names_it_and_a_marker_that_does_too() -> None:
    one = event(payload=b"x" * 400_000)
    assert not async_stored.fits(one)
    blob = Blob.of("async/07/f/name", async_stored.body_of(one))
    value, parts = async_stored.encode(one, "name", blob)
    found = async_stored.decode(value)
    assert (parts, found.blob, found.parts_name, found.is_apart, len(value) < 2000) == ([], blob, "name", True, True)
    assert async_stored.event_of(found, one.payload) == one
    marker = async_stored.encode_marker(blob)
    assert async_stored.decode_marker(marker) == blob
    for other in (b"{}", marker.replace(b'"format":1', b'"format":2')):
        with pytest.raises(OperatorNeeded, match="not written by this version"):
            async_stored.decode_marker(other)


@given(st.floats(0, 1e10), st.floats(0, 1e10))
def test_items_sort_by_due_time(one: float, other: float) -> None:
    first, second = (async_stored.item(UnixTime(at), "r") for at in sorted((one, other)))
    assert first <= second
    assert abs(async_stored.due_at(first) - min(one, other)) < 0.001


def test_an_event_of_a_newer_version_stops_with_a_clear_text_and_one_of_nobodys_too() -> None:
    value, _ = async_stored.encode(event(), "name")
    with pytest.raises(StoreTooNew, match="format 2"):
        async_stored.decode(value.replace(b'"format":1', b'"format":2'))
    with pytest.raises(OperatorNeeded, match="not written by this program"):
        async_stored.decode(b"something else")


def test_what_a_newer_version_adds_is_read_over() -> None:
    value, _ = async_stored.encode(event(), "name")
    found = async_stored.decode(value.replace(b'"format":1', b'"format":1,"added":[1]'))
    assert async_stored.event_of(found, found.body) == event()
