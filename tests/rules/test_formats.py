"""What is written is read by every worker that lives, and what a newer one has written can be written again."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import OperatorNeeded, StoreTooNew
from esm.model.arn import Arn
from esm.model.async_event import AsyncEvent
from esm.model.clocks import UnixTime
from esm.model.control import Caller, Control, Pause, Rewind, Skip
from esm.model.desired import DesiredMapping
from esm.model.lease import Lease
from esm.model.mapping import State
from esm.model.position import TrimHorizon
from esm.model.stored import Key
from esm.model.worker import Heartbeat
from esm.rules import async_stored, buckets, controls, desired, formats, heartbeats, listings, shares, starting, stored
from esm.rules.kinds import OLDEST, Kind, Shape
from esm.rules.starting import Start
from tests.next_format import NEXT, RENAMED, next_version
from tests.rules.test_controls import wishes
from tests.rules.test_stored import leases

BY = Caller("host", "user")
EVENT = AsyncEvent("r", Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f"), b"{\n}", UnixTime(1.5), tries=2)
HEARTBEAT = Heartbeat("w", "run", 1, NEXT)
LEASE = Lease("u", "s", "stream", "w", 1, 1, (TrimHorizon(),), extra={"added": [1]})
CONTROL = Control(
    "u", Pause(UnixTime(1), BY, {"why": "rest"}),
    (Rewind("i", 1, UnixTime(1), BY, "s", TrimHorizon(), extra={"more": 1}),
     Skip("j", 2, UnixTime(1), BY, "s", "shard", "7", {"more": 2})), 2, {"added": 1},
)  # fmt: skip
DESIRED = DesiredMapping("u", {"BatchSize": 3}, EVENT.function_arn, State.CREATING, UnixTime(1), UnixTime(2),
                         extra={"added": 1})  # fmt: skip
STORED: list[tuple[Key, Kind[Any], Any]] = [
    (Key("lease", "u", "!start"), starting.START, Start("s", "LATEST", 5.0, ("a",), ("b",), {"added": 1})),
    (Key("lease", "u", "shard-1"), stored.LEASE, LEASE),
    (Key("window", "u", "shard-1!1!1!0"), stored.STATE, stored.StatePart(0, 1, b"{}")),
    (Key("status", "w", "0000"), stored.STATUS, stored.StatusPart("w", UnixTime(1), 0, 1, ())),
    (Key("catalogue", "control", "u"), controls.CONTROL, CONTROL),
    (Key("catalogue", "mapping", "u"), desired.MAPPING, DESIRED),
    (Key("worker", "fleet", "!changes"), controls.CHANGES, controls.CHANGES.decode(b'{"format":1,"count":3,"more":1}')),
    (Key("worker", "fleet", "w"), heartbeats.HEARTBEAT, HEARTBEAT),
    (
        Key("listing", "u", "0000"),
        listings.LISTING,
        listings.ListingPart("w", "s", 5.0, 0, 1, 1, (("shard", ("parent",), True),)),
    ),
    (Key("lease", "async", "owners"), buckets.OWNERS, buckets.NOBODY),
    (Key("share", "fleet", "u"), shares.SHARE, shares.Grants({"w": 3}, 1)),
    (Key("async", "07/f", "1-r"), async_stored.EVENT, async_stored.decode(async_stored.encode(EVENT, "n", OLDEST)[0])),
]
"""One of everything, where it stands."""


@pytest.fixture
def new() -> Iterator[None]:
    with next_version():
        yield


def of_this_version(kind: Kind[Any]) -> Kind[Any]:
    """As a worker of this version reads it, while the next one is known here."""
    return Kind(kind.name, {OLDEST: kind.shapes[OLDEST]})


def test_one_of_everything_is_looked_at_here() -> None:
    everything = {kind for kinds in formats.KINDS.values() for kind in kinds}
    assert {kind for _, kind, _ in STORED} == everything
    assert everything - {heartbeats.HEARTBEAT} == RENAMED.keys()


@pytest.mark.parametrize(("_key", "kind", "value"), STORED)
def test_a_stored_value_carries_its_format_and_comes_back(_key: Key, kind: Kind[Any], value: Any) -> None:
    found = kind.encode(value, formats.newest())
    assert json.loads(found.partition(b"\n")[0])["format"] == OLDEST
    assert kind.decode(found) == value


@pytest.mark.usefixtures("new")
@pytest.mark.parametrize(("key", "kind", "value"), STORED)
def test_the_next_version_writes_what_this_one_reads_for_as_long_as_it_must(
    key: Key, kind: Kind[Any], value: Any
) -> None:
    for_all, for_new = kind.encode(value, OLDEST), kind.encode(value, NEXT)
    assert of_this_version(kind).decode(for_all) == value
    assert kind.decode(for_all) == kind.decode(for_new) == value
    assert formats.rewritten(key, for_all, NEXT) is None
    assert formats.rewritten(key, for_all, OLDEST) is None
    if kind is heartbeats.HEARTBEAT:
        assert for_new == for_all
        return
    with pytest.raises(StoreTooNew, match=f"{kind.name} has format 2, and this version reads up to 1"):
        of_this_version(kind).decode(for_new)
    assert formats.rewritten(key, for_new, NEXT) is None
    again = formats.rewritten(key, for_new, OLDEST)
    assert again is not None
    assert of_this_version(kind).decode(again) == value


@given(leases())
def test_any_lease_goes_through_the_next_format_and_back(lease: Lease) -> None:
    with next_version():
        key, value = Key("lease", "u", "shard"), stored.encode_lease(lease, NEXT)
        again = formats.rewritten(key, value, OLDEST)
    assert again is not None
    assert stored.decode_lease(again) == lease


@given(wishes)
def test_any_wish_goes_through_the_next_format_and_back(control: Control) -> None:
    with next_version():
        again = formats.rewritten(Key("catalogue", "control", "u"), controls.encode(control, NEXT), OLDEST)
    assert again is not None
    assert controls.decode(again) == control


@given(st.lists(st.integers(0, 9)), st.integers(1, 9))
def test_the_format_that_is_written_is_the_newest_that_everybody_reads(announced: list[int], newest: int) -> None:
    kind = stored.LEASE
    kind.shapes |= dict.fromkeys(range(2, newest + 1), kind.shapes[OLDEST])
    try:
        assert formats.newest() == newest
        assert formats.written(announced) == max(OLDEST, min([newest, *announced]))
    finally:
        for number in range(2, newest + 1):
            del kind.shapes[number]


@pytest.mark.usefixtures("new")
def test_a_heartbeat_says_what_its_worker_reads_and_is_read_by_all() -> None:
    assert formats.newest() == NEXT
    assert of_this_version(heartbeats.HEARTBEAT).decode(heartbeats.encode(HEARTBEAT)).format == NEXT


@pytest.mark.usefixtures("new")
def test_only_kinds_that_have_changed_may_be_newer() -> None:
    assert formats.may_be_newer("lease", OLDEST)
    assert not formats.may_be_newer("lease", NEXT)
    unchanged = {kind: kind.shapes.pop(NEXT) for kind in formats.KINDS["lease"]}
    assert not formats.may_be_newer("lease", OLDEST)
    assert formats.may_be_newer("window", OLDEST)
    for kind, shape in unchanged.items():
        kind.shapes[NEXT] = shape


@pytest.mark.parametrize("key", [Key("async", "functions", "arn:f"), Key("async", "07/arn:f/parts", "n-000")])
def test_names_and_parts_are_left_as_they_are(key: Key) -> None:
    assert formats.rewritten(key, b"\x00 any bytes", OLDEST) is None


def test_a_kind_that_a_later_format_has_brought_looks_as_it_did_first() -> None:
    kind = Kind("novelty", {3: Shape(str.encode, bytes.decode)})
    assert kind.encode("x", OLDEST) == kind.encode("x", 3) == b"x"


@pytest.mark.parametrize("value", [b'{"format":0}', b"[]", b"nonsense", b'{"format":"1"}', b'{"format":1}'])
def test_bytes_that_no_version_has_written_are_an_operators_matter(value: bytes) -> None:
    for _, kind, _ in STORED:
        with pytest.raises(OperatorNeeded, match=f"{kind.name} is not readable"):
            kind.decode(value)


def test_what_a_worker_shows_fits_its_parts_in_any_format() -> None:
    with next_version():
        parts = stored.encode_status("w", UnixTime(1), [], NEXT)
        assert [json.loads(part)["mappings"] for part in parts] == [[]]
        assert stored.decode_status(parts[0]) == replace(STORED[3][2], at=UnixTime(1))
