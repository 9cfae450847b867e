"""Leases and status survive the store, their neighbours' versions, and any size."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esm.errors import OperatorNeeded, StoreTooNew
from esm.model.clocks import UnixTime
from esm.model.lease import Lease
from esm.model.mapping import State
from esm.model.position import AfterSequence, AtTimestamp, Position, TrimHorizon
from esm.model.stored import VALUE_BYTES_MAX, Blob
from esm.model.view import MappingView, ShardView
from esm.model.window import StoredState
from esm.rules.stored import (
    STATE_PART_BYTES,
    StatusPart,
    decode_lease,
    decode_state,
    decode_status,
    encode_lease,
    encode_state,
    encode_state_blob,
    encode_status,
    merged_status,
    state_blob,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.floats(0, 4e9).map(UnixTime)
POSITIONS: st.SearchStrategy[Position] = st.one_of(
    st.just(TrimHorizon()), st.builds(AtTimestamp, TIMES), st.builds(AfterSequence, TEXT, TIMES)
)
UNKNOWN = st.dictionaries(
    TEXT.map(lambda name: f"x-{name}"), st.one_of(st.integers(-9, 9), TEXT, st.none()), max_size=3
)

COUNTS = st.integers(0, 2**60)
WINDOWS = st.builds(
    StoredState, COUNTS, COUNTS, st.builds(AfterSequence, TEXT, TIMES), COUNTS, COUNTS, COUNTS, COUNTS, UNKNOWN
)


@st.composite
def leases(draw: st.DrawFn) -> Lease:
    positions = tuple(draw(st.lists(POSITIONS, min_size=1, max_size=10)))
    return Lease(
        mapping=draw(TEXT),
        shard=draw(TEXT),
        stream=draw(TEXT),
        owner=draw(TEXT),
        generation=draw(st.integers(0, 2**60)),
        factor=len(positions),
        positions=positions,
        parents=tuple(draw(st.lists(TEXT, max_size=2))),
        is_finished=draw(st.booleans()),
        extra=draw(UNKNOWN),
        window=draw(st.none() | WINDOWS),
        done=tuple(draw(st.lists(st.lists(POSITIONS, min_size=1, max_size=10).map(tuple), max_size=3))),
    )


def lease() -> Lease:
    return Lease("uuid", "shard-1", "arn:x|1", "worker", 3, 1, (TrimHorizon(),))


def view(uuid: str, shards: int = 1) -> MappingView:
    return MappingView(
        uuid=uuid,
        function="orders",
        source="arn:aws:kinesis:us-east-1:000000000000:stream/clicks",
        state=State.ENABLED,
        last_result="OK",
        has_problem=False,
        in_flight=2,
        backlog=None,
        shards=tuple(ShardView(f"shardId-{n:012}", 1.5, 0.0, None, 0.25) for n in range(shards)),
    )


@given(leases())
def test_a_lease_comes_back_as_it_was_with_what_it_did_not_know(original: Lease) -> None:
    assert decode_lease(encode_lease(original)) == original


def test_a_lease_is_stored_in_this_shape() -> None:
    stored = Lease(
        "uuid", "shard-1", "arn:x|1", "worker", 3, 3,
        (TrimHorizon(), AtTimestamp(UnixTime(5.5)), AfterSequence("49", UnixTime(7.25))), ("shard-0",), True,
        {"later": [1]},
    )  # fmt: skip
    assert json.loads(encode_lease(stored)) == {
        "format": 1, "mapping": "uuid", "shard": "shard-1", "stream": "arn:x|1", "owner": "worker", "generation": 3,
        "factor": 3, "parents": ["shard-0"], "is_finished": True, "later": [1],
        "positions": [{"at": "trim_horizon"}, {"at": "timestamp", "t": 5.5}, {"after": "49", "arrived_at": 7.25}],
    }  # fmt: skip


def test_an_open_window_is_stored_in_this_shape_and_a_lease_without_one_as_before() -> None:
    window = StoredState(60, 120, AfterSequence("49", UnixTime(7.25)), 3, 8, 2, 300_000, {"later": 1})
    document = json.loads(encode_lease(replace(lease(), window=window)))
    assert document["window"] == {
        "start": 60, "end": 120, "last": {"after": "49", "arrived_at": 7.25}, "generation": 3, "number": 8, "parts": 2,
        "size_bytes": 300_000, "later": 1,
    }  # fmt: skip
    assert "window" not in json.loads(encode_lease(lease()))


@given(st.binary(max_size=300), st.integers(0, 3 * STATE_PART_BYTES // 256))
def test_a_state_of_any_size_fits_its_parts_and_comes_back_whole(tail: bytes, blocks: int) -> None:
    state = bytes(256) * blocks + tail
    values = encode_state(state)
    assert all(len(value) <= VALUE_BYTES_MAX for value in values)
    window = StoredState(0, 60, AfterSequence("1", UnixTime(1)), 1, 1, len(values), len(state))
    assert decode_state(values, window) == state
    with pytest.raises(OperatorNeeded, match="window state is not readable"):
        decode_state(values[:-1], window if state else replace(window, size_bytes=1))


def test_a_state_that_is_not_the_one_pointed_to_is_an_operators_matter() -> None:
    window = StoredState(0, 60, AfterSequence("1", UnixTime(1)), 1, 1, 2, STATE_PART_BYTES + 1)
    first, second = encode_state(bytes(STATE_PART_BYTES + 1))
    for values in ([second, first], [first, b'{"format":1}'], [first, b"nonsense"]):
        with pytest.raises(OperatorNeeded, match="window state is not readable"):
            decode_state(values, window)
    with pytest.raises(StoreTooNew, match="stored window state has format 2"):
        decode_state([b'{"format":2}'], window)


def test_a_part_of_a_state_says_whether_it_stands_for_a_blob() -> None:
    blob = Blob.of("window/u/s!1!1", b"state")
    assert state_blob(encode_state_blob(blob)) == blob
    assert state_blob(encode_state(b"{}")[0]) is None
    with pytest.raises(OperatorNeeded, match="window state is not readable"):
        state_blob(b'{"format":1}')
    with pytest.raises(StoreTooNew, match="stored window state has format 2"):
        state_blob(b'{"format":2}')


def test_an_unknown_attribute_never_replaces_a_known_one() -> None:
    stored = Lease("uuid", "shard-1", "s", "worker", 3, 1, (TrimHorizon(),), extra={"owner": "thief", "format": 7})
    assert decode_lease(encode_lease(stored)).owner == "worker"


def test_a_newer_format_stops_with_what_to_do() -> None:
    document = {**json.loads(encode_lease(lease())), "format": 2}
    with pytest.raises(
        StoreTooNew, match="has format 2, and this version reads up to 1: a newer version has written it"
    ):
        decode_lease(json.dumps(document).encode())
    status = {**json.loads(encode_status("w", UnixTime(1), [])[0]), "format": 2}
    with pytest.raises(StoreTooNew, match="stored status has format 2"):
        decode_status(json.dumps(status).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0},
        {"format": "1"},
        {"factor": 2},
        {"positions": [{"at": "somewhere"}]},
        {"positions": [{"after": 49, "arrived_at": 7}]},
        {"generation": None},
        {"window": None},
        {"window": {"start": 0}},
        {
            "window": {
                "start": 0,
                "end": 1,
                "last": {"at": "trim_horizon"},
                "generation": 1,
                "number": 1,
                "parts": 1,
                "size_bytes": 2,
            }
        },
    ],
)
def test_a_lease_that_is_not_one_is_an_operators_matter(change: dict[str, object]) -> None:
    document = {**json.loads(encode_lease(lease())), **change}
    with pytest.raises(OperatorNeeded, match="lease is not readable"):
        decode_lease(json.dumps(document).encode())


@pytest.mark.parametrize("value", [b"", b"nonsense", b"[]", b'{"format":1}', b'{"format":1,"at":"x"}'])
def test_bytes_that_are_not_ours_are_an_operators_matter(value: bytes) -> None:
    with pytest.raises(OperatorNeeded, match="lease is not readable"):
        decode_lease(value)
    with pytest.raises(OperatorNeeded, match="status is not readable"):
        decode_status(value)


def test_a_worker_without_mappings_still_writes_that_it_is_there() -> None:
    parts = [decode_status(part) for part in encode_status("worker", UnixTime(12.5), [])]
    assert parts == [StatusPart("worker", UnixTime(12.5), 0, 1, ())]
    assert merged_status(parts) == []
    assert merged_status([]) == []


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 3, 500, 2000, 9000]), max_size=6))
def test_status_of_any_size_fits_its_parts_and_comes_back_whole(sizes: list[int]) -> None:
    views = [view(f"mapping-{n}", shards) for n, shards in enumerate(sizes)]
    parts = encode_status("worker", UnixTime(1e9 + 0.123), views)
    assert all(len(part) <= VALUE_BYTES_MAX for part in parts)
    assert merged_status([decode_status(part) for part in reversed(parts)]) == views


def test_status_fills_its_parts() -> None:
    parts = encode_status("worker", UnixTime(1), [view(f"mapping-{n}") for n in range(2000)])
    total = sum(len(part) for part in parts)
    assert len(parts) == -(-total // VALUE_BYTES_MAX)


def test_parts_left_over_from_an_earlier_write_are_not_read() -> None:
    earlier = [StatusPart("worker", UnixTime(1), part, 3, (view(f"mapping-{part}"),)) for part in range(3)]
    now = [StatusPart("worker", UnixTime(2), 0, 2, (view("mapping-0"), view("mapping-1")))]
    merged = merged_status([*now, *earlier[1:]])
    assert [found.uuid for found in merged] == ["mapping-0", "mapping-1"]
    assert [len(found.shards) for found in merged] == [1, 1]


def test_a_status_from_before_identities_were_shown_is_the_daemons() -> None:
    (part,) = encode_status("worker", UnixTime(1.0), [replace(view("a"), identity="role x")])
    assert decode_status(part).views[0].identity == "role x"
    older = part.replace(b',"identity":"role x"', b"")
    assert older != part
    assert decode_status(older).views[0].identity == "daemon"
