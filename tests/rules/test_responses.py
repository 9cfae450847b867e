"""What a function's answer means for its batch. Source: lambda.md 2.4, 3.4, 11.3; wire-shapes.md 5."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.model.invocation import Abandoned, Answer, Ending, Misconfigured, Refused, Throttled, Unreachable
from esm.model.outcome import Failed, FailedItems, Outcome, Succeeded
from esm.rules import responses

IDS = ["a", "b", "c"]
ENDINGS: list[Ending] = [
    Throttled("r"), Unreachable("r", "t"), Misconfigured("r", "t"), Refused("r", "t"), Abandoned("r", "t"),
]  # fmt: skip


def read(payload: bytes, *, reports: bool = True, error: str | None = None) -> Outcome:
    return responses.read(Answer("r", payload, error), IDS, reports_item_failures=reports)


def failures(*names: object) -> bytes:
    return json.dumps({"batchItemFailures": [{"itemIdentifier": name} for name in names]}).encode()


@pytest.mark.parametrize(
    "payload",
    [b"", b" ", b"null", b'""', b"[]", b"{}", b'{"batchItemFailures":[]}', b'{"batchItemFailures":null}', b'{"a":1}'],
)
def test_an_empty_answer_takes_the_whole_batch(payload: bytes) -> None:
    assert isinstance(read(payload), Succeeded)


@pytest.mark.parametrize(
    "payload",
    [
        b"{", b"\xff", b"[" * 100_000, b"1", b"true", b'"text"', b"[1]", b'{"batchItemFailures":{}}',
        b'{"batchItemFailures":["a"]}', b'{"batchItemFailures":[{"id":"a"}]}', failures(""), failures(None),
        failures(7), failures(["a"]), failures("a", ""), failures("a", "unknown"),
    ],
)  # fmt: skip
def test_an_answer_that_names_no_valid_items_fails_the_whole_batch(payload: bytes) -> None:
    assert isinstance(read(payload), Failed)


def test_valid_items_fail_alone_named_once_or_twice() -> None:
    outcome = read(failures("b", "b", "a"))
    assert isinstance(outcome, FailedItems)
    assert outcome.items == {"a", "b"}
    assert outcome.ran.function_error is None


@given(st.binary(max_size=200))
def test_without_the_response_type_any_answer_takes_the_whole_batch(payload: bytes) -> None:
    assert isinstance(read(payload, reports=False), Succeeded)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(
    st.sampled_from(["batchItemFailures", "itemIdentifier", "x"]), v)))  # fmt: skip
def test_no_answer_fails_items_that_are_not_in_the_batch(answer: object) -> None:
    outcome = read(json.dumps(answer).encode())
    assert isinstance(outcome, Succeeded | Failed) or (isinstance(outcome, FailedItems) and outcome.items <= {*IDS})


@pytest.mark.parametrize(
    ("payload", "expected"),
    [(b'{"errorType":"ValueError","errorMessage":"secret"}', "ValueError"), (b"{}", "Unhandled"), (b"no", "Unhandled")],
)
def test_a_function_error_fails_the_batch_and_only_its_type_is_kept(payload: bytes, expected: str) -> None:
    outcome = read(payload, error="Unhandled")
    assert isinstance(outcome, Failed)
    assert outcome.error_type == expected
    assert outcome.ran.function_error == "Unhandled"


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_happens_before_the_function_runs_is_handed_on(ending: Ending) -> None:
    assert responses.read(ending, IDS, reports_item_failures=True) is ending


def test_every_outcome_has_a_name_of_its_own() -> None:
    outcomes = [read(b""), read(failures("a")), read(b"{"), *ENDINGS]
    names = [responses.outcome_name(outcome) for outcome in outcomes]  # type: ignore[arg-type]
    assert names == [
        "success", "partial", "failure", "throttled", "unreachable", "misconfigured", "refused", "abandoned",
    ]  # fmt: skip
