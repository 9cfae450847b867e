"""Mappings that were asked for through the API survive the store, and never run beside another of the same pair."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import OperatorNeeded, RequestRefused, StoreTooNew
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.desired import DesiredMapping
from esm.model.mapping import Mapping, State
from esm.model.view import MappingView
from esm.rules import desired as desires
from esm.rules import mapping_documents, validation

QUEUE = "arn:aws:sqs:us-east-1:111111111111:"
FUNCTION = "arn:aws:lambda:us-east-1:111111111111:function:"

texts = st.text(max_size=8)
instants = st.floats(0, 4e9).map(UnixTime)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, lambda inner: st.lists(inner, max_size=2)
)
stored = st.builds(
    DesiredMapping, uuid=texts, request=st.dictionaries(texts, json_values, max_size=3),
    function_arn=st.sampled_from(["f", "f:1", "g:$LATEST"]).map(lambda name: Arn.parse(FUNCTION + name)),
    state=st.sampled_from(State), created_at=instants, modified_at=instants,
    version=st.integers(1, 9), extra=st.dictionaries(st.text("xyz", min_size=1), st.integers(), max_size=2),
)  # fmt: skip


def wanted(uuid: str, source: str = "q", function: str = "f", at: float = 0, **more: Any) -> DesiredMapping:
    request = {"FunctionName": function, "EventSourceArn": QUEUE + source} | more
    arn = Arn.parse(FUNCTION + function)
    return DesiredMapping(uuid, request, arn, State.CREATING, UnixTime(at), UnixTime(at), version=1)


def declared(source: str, function: str = "f") -> Mapping:
    request = {"FunctionName": function, "EventSourceArn": QUEUE + source}
    return validation.mapping_of(request, uuid="file", function_arn=Arn.parse(FUNCTION + function), wall=UnixTime(0))


@given(stored)
def test_a_mapping_is_read_as_it_was_written_with_what_newer_versions_add(one: DesiredMapping) -> None:
    assert one.version is not None
    assert desires.decode(desires.encode(one, 1), one.version) == one


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b'{"format":9,"uuid":"u"}', StoreTooNew),
        (b'{"format":1}', OperatorNeeded),
        (desires.encode(wanted("u"), 1).replace(b"Creating", b"Thinking"), OperatorNeeded),
        (desires.encode(wanted("u"), 1).replace(b'"arn:aws:lambda', b'"nothing'), OperatorNeeded),
        (b"[]", OperatorNeeded),
    ],
)
def test_what_is_none_of_ours_is_refused(value: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        desires.decode(value, 1)


places = st.tuples(st.sampled_from("pq"), st.sampled_from("fg"), st.integers(0, 3))


@given(st.lists(places, max_size=6), st.sampled_from([(), ("q",)]))
def test_a_source_and_a_function_never_have_two_mappings_that_run(
    found: list[tuple[str, str, int]], sources_of_file: tuple[str, ...]
) -> None:
    asked = [wanted(str(index), source, function, at) for index, (source, function, at) in enumerate(found)]
    file = [declared(source) for source in sources_of_file]
    choice = desires.chosen(file, asked)
    pairs = [(one.source_arn, one.function_arn) for one in (*file, *choice.mappings)]
    assert len(pairs) == len(set(pairs))
    assert {one.uuid for one in choice.mappings} | choice.problems.keys() == {one.uuid for one in asked}
    assert set(pairs) == {(Arn.parse(QUEUE + s), Arn.parse(FUNCTION + f)) for s, f, _ in found} | {
        (one.source_arn, one.function_arn) for one in file
    }
    for one in asked:
        if one.uuid in choice.problems:
            assert "already exists" in choice.problems[one.uuid]


def test_what_is_leaving_does_not_run_and_what_is_not_understood_says_why() -> None:
    leaving = replace(wanted("a"), state=State.DELETING)
    unsound = wanted("b", BatchSize=0)
    choice = desires.chosen([], [leaving, unsound, wanted("c")])
    assert [one.uuid for one in choice.mappings] == ["c"]
    assert choice.problems.keys() == {"b"}
    shown = desires.unsound_document(unsound, choice.problems["b"])
    assert shown["StateTransitionReason"] == f"PROBLEM: {choice.problems['b']}"
    assert (shown["UUID"], shown["State"]) == ("b", "Creating")


def test_a_time_that_was_past_when_it_was_asked_for_is_taken_later_whatever_the_clock_says() -> None:
    request = {
        "FunctionName": "f", "EventSourceArn": "arn:aws:kinesis:us-east-1:111111111111:stream/s",
        "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 4e9,
    }  # fmt: skip
    one = replace(wanted("u"), request=request)
    assert desires.mapping_of(one).starting_at == 4e9
    with pytest.raises(RequestRefused):
        validation.mapping_of(request, uuid="u", function_arn=one.function_arn, wall=UnixTime(0))


def view(state: State) -> MappingView:
    return MappingView("u", "f", "s", state, "OK", has_problem=False, in_flight=0, backlog=None, shards=())


def test_what_was_asked_for_is_shown_until_a_daemon_has_taken_it_over() -> None:
    one = wanted("u")
    assert desires.shown_state(one, None, None) is State.CREATING
    assert desires.shown_state(one, 0, view(State.ENABLED)) is State.CREATING
    assert desires.shown_state(one, 1, view(State.ENABLED)) is State.ENABLED
    assert desires.shown_state(one, 1, None) is State.CREATING
    assert desires.shown_state(replace(one, state=State.DELETING), 1, view(State.ENABLED)) is State.DELETING


def test_a_change_leads_where_it_was_asked_to() -> None:
    for state in State:
        assert desires.changed_state(state, was_enabled=False, enabled=True) is State.ENABLING
        assert desires.changed_state(state, was_enabled=True, enabled=False) is State.DISABLING
    assert desires.changed_state(State.ENABLED, was_enabled=True, enabled=True) is State.UPDATING
    assert desires.changed_state(State.CREATING, was_enabled=True, enabled=True) is State.CREATING


def test_a_mapping_belongs_to_the_account_of_its_function() -> None:
    arn = mapping_documents.arn_of(declared("q", "f:1"))
    assert str(arn) == "arn:aws:lambda:us-east-1:111111111111:event-source-mapping:file"
