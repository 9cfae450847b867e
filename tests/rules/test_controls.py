"""Stored wishes survive the store, neighbours of another version, and are refused where they are none of ours."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import OperatorNeeded, StoreTooNew
from esm.model.clocks import UnixTime
from esm.model.control import Caller, Control, Pause, Rewind, Skip
from esm.model.position import AtSequence, AtTimestamp, TrimHorizon
from esm.rules import controls
from esm.rules.kinds import OLDEST

texts = st.text(max_size=8)
instants = st.floats(0, 4e9).map(UnixTime)
callers = st.builds(Caller, texts, texts)
places = st.one_of(st.just(TrimHorizon()), st.builds(AtTimestamp, instants), st.builds(AtSequence, texts))
rewinds = st.builds(
    Rewind, texts, st.integers(1, 99), instants, callers, texts, places, st.none() | texts, st.booleans()
)
skips = st.builds(Skip, texts, st.integers(1, 99), instants, callers, texts, texts, texts)
wishes = st.builds(
    Control, texts, st.none() | st.builds(Pause, instants, callers),
    st.lists(rewinds | skips, max_size=4).map(tuple), st.integers(0, 99),
    st.dictionaries(st.text("xyz", min_size=1), st.integers(), max_size=2),
)  # fmt: skip


@given(wishes)
def test_a_wish_is_read_as_it_was_written_with_what_newer_versions_add(control: Control) -> None:
    assert controls.decode(controls.encode(control, OLDEST)) == control


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b'{"format":9,"mapping":"u"}', StoreTooNew),
        (b'{"format":1}', OperatorNeeded),
        (b'{"format":1,"mapping":"u","pause":{"at":1}}', OperatorNeeded),
        (
            b'{"format":1,"mapping":"u","orders":[{"kind":"dance","number":1,"at":1,"host":"","user":""}]}',
            OperatorNeeded,
        ),
        (b"pause", OperatorNeeded),
    ],
)
def test_what_is_not_ours_or_newer_is_refused(value: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        controls.decode(value)


def test_a_rewind_goes_to_a_place_and_not_behind_a_record() -> None:
    rewind = Rewind("i", 1, UnixTime(1), Caller("h", "u"), "s", TrimHorizon())
    document = json.loads(controls.encode(Control("u", None, (rewind,), 1), OLDEST))
    document["orders"][0]["to"] = {"after": "7", "arrived_at": 1.0}
    with pytest.raises(OperatorNeeded, match="no place to rewind to"):
        controls.decode(json.dumps(document).encode())


def test_the_change_counter_grows_and_keeps_what_it_does_not_know() -> None:
    first = controls.raised(None, OLDEST)
    assert json.loads(controls.raised(first, OLDEST))["count"] == 2
    assert json.loads(controls.raised(b'{"format":1,"count":7,"more":"x"}', OLDEST)) == {
        "format": 1,
        "count": 8,
        "more": "x",
    }
    with pytest.raises(OperatorNeeded):
        controls.raised(b'{"format":1}', OLDEST)
    with pytest.raises(StoreTooNew):
        controls.raised(b'{"format":2,"count":1}', OLDEST)
