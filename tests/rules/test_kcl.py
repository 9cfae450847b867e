"""Lease tables of KCL and leases: nothing is skipped on the way, in either direction."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import RequestRefused
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import UnixTime
from esm.model.kcl import Look, Row
from esm.model.lease import Lease
from esm.model.mapping import StartingPosition
from esm.model.position import AfterSequence, AtTimestamp, Position, Shard, TrimHorizon
from esm.model.record import StreamRecord
from esm.model.window import StoredState
from esm.rules import kcl
from esm.rules.kcl import Entry
from esm.rules.starting import Start
from tests.simulation.world import stream_mapping

STREAM = "arn@1"
ARN = Arn.parse("arn:aws:kinesis:us-east-1:123456789012:stream/clicks")
AGGREGATED = kcl.AGGREGATED_MAGIC + b"more than sixteen bytes of user records"


def record(sequence: int, data: bytes = b"data", arrived_at: float = 1000.5) -> StreamRecord:
    event = json.dumps({"kinesis": {"data": base64.b64encode(data).decode()}}).encode()
    return StreamRecord(event, str(sequence), 0, UnixTime(arrived_at))


def imported(
    rows: list[Row], shards: list[Shard], looks: dict[str, Look] | None = None, **mapping: object
) -> dict[str, Entry]:
    _, entries = kcl.imported(stream_mapping(**mapping), STREAM, rows, shards, looks or {})
    return {entry.shard: entry for entry in entries}


def position(entry: Entry) -> Position:
    assert entry.lease is not None
    assert not entry.lease.is_finished
    (found,) = set(entry.lease.positions)
    return found


def test_a_checkpoint_is_the_record_after_which_every_lane_goes_on() -> None:
    found = imported([Row("a", "", "a", "7")], [Shard("a")], {"a": Look(record(7))}, parallelization_factor=3)["a"]
    assert found.lease is not None
    assert found.lease.positions == (AfterSequence("7", UnixTime(1000.5)),) * 3
    assert found.text == "after 7"


@pytest.mark.parametrize(("data", "sub_sequence"), [(AGGREGATED, 0), (AGGREGATED, 4), (b"data", 4)])
def test_a_record_of_which_a_part_may_be_open_is_delivered_again_whole(data: bytes, sub_sequence: int) -> None:
    look = Look(record(7, data))
    found = imported([Row("a", "", "a", "7", sub_sequence=sub_sequence)], [Shard("a")], {"a": look})["a"]
    assert position(found) == AtTimestamp(UnixTime(1000.5))
    assert "delivered again whole" in found.text


@pytest.mark.parametrize("event", [b'{"dynamodb":{}}', b'{"kinesis":{"data":"8"}}', b'{"kinesis":{"data":""}}'])
def test_what_is_no_aggregated_record_is_taken_whole(event: bytes) -> None:
    look = Look(StreamRecord(event, "7", 0, UnixTime(1.0)))
    found = imported([Row("a", "", "a", "7")], [Shard("a")], {"a": look})["a"]
    assert position(found) == AfterSequence("7", UnixTime(1.0))


def test_plain_rows_are_the_mappings_streams() -> None:
    rows = [Row("a", "", "a", "LATEST"), Row("b", "", "b", "LATEST")]
    assert kcl.of_stream(rows, ARN, None, "app") == rows


@pytest.mark.parametrize("look", [Look(), Look(record(9)), Look(record(9), record(8))])
def test_a_checkpoint_that_has_been_trimmed_counts_as_lost(look: Look) -> None:
    found = imported([Row("a", "", "a", "7")], [Shard("a")], {"a": look})["a"]
    assert position(found) == AfterSequence("7", kcl.LONG_AGO)
    assert "may be lost" in found.text


@pytest.mark.parametrize("sentinel", ["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"])
@pytest.mark.parametrize("starting", [StartingPosition.TRIM_HORIZON, StartingPosition.LATEST])
def test_what_has_no_position_begins_at_the_oldest_record(sentinel: str, starting: StartingPosition) -> None:
    found = imported([Row("a", "", "a", sentinel)], [Shard("a")], starting_position=starting)["a"]
    assert position(found) == TrimHorizon()


@pytest.mark.parametrize("sentinel", ["LATEST", "AT_TIMESTAMP"])
def test_the_operators_time_counts_where_the_table_has_none(sentinel: str) -> None:
    more = {"starting_position": StartingPosition.AT_TIMESTAMP, "starting_at": UnixTime(500.0)}
    shards = [Shard("a"), Shard("b")]
    found = imported([Row("a", "", "a", sentinel), Row("b", "", "b", "TRIM_HORIZON")], shards, **more)
    assert position(found["a"]) == AtTimestamp(UnixTime(500.0))
    assert position(found["b"]) == TrimHorizon()


def test_a_prepared_checkpoint_was_not_made() -> None:
    row = Row("a", "", "a", "7", has_pending=True)
    found = imported([row], [Shard("a")], {"a": Look(record(7))})["a"]
    assert position(found) == AfterSequence("7", UnixTime(1000.5))
    assert "prepared" in found.text


def test_every_other_shard_is_read_from_its_oldest_record_whatever_the_mapping_says() -> None:
    mapping = stream_mapping(starting_position=StartingPosition.LATEST)
    start, _ = kcl.imported(mapping, STREAM, [Row("a", "", "a", "LATEST")], [Shard("a")], {})
    assert start == Start(STREAM, "LATEST")


def test_an_ended_shard_is_finished_and_one_that_left_the_listing_is_not_stored() -> None:
    rows = [Row("a", "", "a", "SHARD_END"), Row("x", "", "x", "SHARD_END"), Row("y", "", "y", "5")]
    found = imported(rows, [Shard("a", is_closed=True)])
    assert found["a"].lease is not None
    assert found["a"].lease.is_finished
    assert found["x"].lease is found["y"].lease is None
    assert "expired" in found["y"].text


def test_a_parent_whose_row_was_removed_is_finished_and_a_child_without_one_is_new() -> None:
    shards = [
        Shard("grandparent", is_closed=True), Shard("parent", ("grandparent",), is_closed=True),
        Shard("child", ("parent",)), Shard("other", is_closed=True), Shard("late", ("other",)),
    ]  # fmt: skip
    rows = [Row("child", "", "child", "7"), Row("other", "", "other", "SHARD_END")]
    found = imported(rows, shards, {"child": Look(record(7))})
    assert [found[name].lease is not None for name in ("grandparent", "parent", "late")] == [True, True, False]
    assert found["parent"].lease is not None
    assert found["parent"].lease.is_finished


def test_a_parent_without_a_row_is_read_while_something_before_its_child_is_unfinished() -> None:
    shards = [
        Shard("left", is_closed=True), Shard("right", is_closed=True), Shard("child", ("left", "right")),
    ]  # fmt: skip
    rows = [Row("left", "", "left", "3"), Row("child", "", "child", "TRIM_HORIZON")]
    found = imported(rows, shards, {"left": Look(record(3))})
    assert found["right"].lease is None
    assert "oldest record" in found["right"].text


def test_an_open_shard_is_never_finished_because_a_listing_gives_it_a_child() -> None:
    found = imported([Row("child", "", "child", "TRIM_HORIZON")], [Shard("open"), Shard("child", ("open",))])
    assert found["open"].lease is None


@pytest.mark.parametrize(
    ("row", "shard", "text"),
    [
        (Row("a", "", "a", "7"), Shard("a", first_sequence="8"), "after the checkpoint 7"),
        (Row("a", "", "a", "SHARD_END"), Shard("a"), "is open"),
        (Row("a", "", "a", "LATEST", hash_keys=("0", "5")), Shard("a", hash_keys=("0", "9")), "hash keys 0-9"),
        (Row("a", "", "a", "LATEST", parents=("b",)), Shard("a", ("c",)), "parents c"),
        (Row("b", "", "b", "LATEST"), Shard("a"), "none of the shards"),
    ],
)
def test_another_streams_table_is_refused(row: Row, shard: Shard, text: str) -> None:
    with pytest.raises(RequestRefused, match=text):
        kcl.check_shards([row], [shard], ARN, "app")


def test_shards_that_agree_or_do_not_say_are_taken() -> None:
    shards = [Shard("a", ("p",), is_closed=True, first_sequence="7", hash_keys=("0", "5")), Shard("b")]
    rows = [Row("a", "", "a", "7", parents=("p", "q"), hash_keys=("0", "5")), Row("c", "", "c", "1")]
    kcl.check_shards(rows, shards, ARN, "app")


def test_a_checkpoint_between_records_of_a_shard_is_foreign() -> None:
    row = Row("a", "", "a", "7")
    assert kcl.is_foreign(row, Look(record(8), record(6)))
    assert kcl.is_foreign(row, Look(None, record(6)))
    assert not kcl.is_foreign(row, Look(record(8), record(8)))
    assert not kcl.is_foreign(row, Look(record(7)))
    assert not kcl.is_foreign(Row("a", "", "a", "LATEST"), Look())


def multi(name: str, epoch: int = 1) -> Row:
    return Row(f"123456789012:{name}:{epoch}:a", f"123456789012:{name}:{epoch}", "a", "LATEST")


def test_of_many_streams_the_mappings_is_taken() -> None:
    rows = [multi("clicks"), multi("other")]
    assert kcl.of_stream(rows, ARN, None, "app") == rows[:1]
    again = [multi("clicks", 1), multi("clicks", 2)]
    assert kcl.of_stream(again, ARN, 2, "app") == again[1:]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], "holds no lease"),
        ([multi("other")], "has those of 123456789012:other:1"),
        ([multi("clicks", 1), multi("clicks", 2)], "no leases of"),
        ([multi("clicks"), Row("a", "", "a", "LATEST")], "of one stream and of many"),
    ],
)
def test_a_table_without_the_mappings_stream_is_refused(rows: list[Row], text: str) -> None:
    with pytest.raises(RequestRefused, match=text):
        kcl.of_stream(rows, ARN, 3, "app")


def lease(shard: str, *positions: Position, **more: Any) -> Lease:
    return Lease("u", shard, STREAM, "w", 3, len(positions), positions, **more)


def exported(leases: list[Lease], shards: list[Shard], start: Start | None = None, **mapping: object) -> dict[str, Any]:
    entries = kcl.exported(stream_mapping(**mapping), leases, start or Start(STREAM, ""), shards)
    return {entry.shard: entry for entry in entries}


def after(sequence: int) -> AfterSequence:
    return AfterSequence(str(sequence), UnixTime(1.0))


def test_the_lowest_lane_is_what_kcl_goes_on_from() -> None:
    found = exported([lease("a", after(100), after(9))], [Shard("a")])["a"]
    assert found.item["checkpoint"] == {"S": "9"}
    assert "lowest of its lanes" in found.text


@pytest.mark.parametrize("other", [TrimHorizon(), AtTimestamp(UnixTime(5.0))])
def test_a_lane_without_a_sequence_number_sends_kcl_to_the_oldest_record(other: Position) -> None:
    assert exported([lease("a", after(1), other)], [Shard("a")])["a"].item["checkpoint"] == {"S": "TRIM_HORIZON"}


def test_a_finished_shard_names_its_children_and_they_have_rows() -> None:
    shards = [Shard("a", is_closed=True), Shard("b", ("a",)), Shard("c", ("a",)), Shard("d", ("c",))]
    found = exported([lease("a", TrimHorizon(), is_finished=True)], shards)
    assert found["a"].item["checkpoint"] == {"S": "SHARD_END"}
    assert found["a"].item["childShardIds"] == {"SS": ["b", "c"]}
    assert found["b"].item["parentShardId"] == {"SS": ["a"]}
    assert found["b"].item["checkpoint"] == {"S": "TRIM_HORIZON"}
    assert found["d"].item is None


def test_what_latest_passed_over_stays_passed_over() -> None:
    start = Start(STREAM, "LATEST", 5.0, ("b",), ("a",))
    found = exported([], [Shard("a", is_closed=True), Shard("b", ("a",))], start)
    assert found["a"].item["checkpoint"] == {"S": "SHARD_END"}
    assert found["b"].item["checkpoint"] == {"S": "TRIM_HORIZON"}
    assert "no time" in found["b"].text


def test_hash_keys_are_the_shards_or_those_of_the_adapter() -> None:
    item = exported([], [Shard("a", hash_keys=("3", "4"))])["a"].item
    assert (item["startingHashKey"], item["endingHashKey"]) == ({"S": "3"}, {"S": "4"})
    item = exported([], [Shard("a")], source_kind=SourceKind.DYNAMODB)["a"].item
    assert (item["startingHashKey"], item["endingHashKey"]) == ({"S": "0"}, {"S": "1"})
    assert "startingHashKey" not in exported([], [Shard("a")])["a"].item


def test_an_open_window_is_said_to_stay_behind() -> None:
    window = StoredState(0, 60, after(5), 1, 1, 1, 2)
    assert "tumbling window" in exported([lease("a", after(5), window=window)], [Shard("a")])["a"].text


POSITIONS = st.one_of(
    st.just(TrimHorizon()), st.floats(0, 1e9).map(lambda at: AtTimestamp(UnixTime(at))), st.integers(1, 50).map(after)
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Shard], list[Lease]]:
    """A lineage as a stream lists it, and leases as a mapping has them: a child's only after its parents' ends."""
    shards: list[Shard] = []
    leases: list[Lease] = []
    finished: set[str] = set()
    for number in range(draw(st.integers(1, 8))):
        closed = [shard.id for shard in shards if shard.is_closed]
        parents = tuple(sorted(draw(st.sets(st.sampled_from(closed), max_size=2)))) if closed else ()
        shard = Shard(f"shard-{number}", parents, is_closed=draw(st.booleans()))
        shards.append(shard)
        if all(parent in finished for parent in parents) and draw(st.booleans()):
            is_finished = shard.is_closed and draw(st.booleans())
            if is_finished:
                finished.add(shard.id)
            lanes = draw(st.lists(POSITIONS, min_size=1, max_size=3))
            leases.append(lease(shard.id, *lanes, parents=parents, is_finished=is_finished))
    return shards, leases


def reached(positions: tuple[Position, ...]) -> int:
    """Up to which record everything was taken; -1: not known."""
    return min(int(one.sequence) if isinstance(one, AfterSequence) else -1 for one in positions)


@given(streams(), st.integers(1, 3))
def test_there_and_back_nothing_is_passed_over(world: tuple[list[Shard], list[Lease]], factor: int) -> None:
    shards, leases = world
    before = {one.shard: one for one in leases}
    entries = kcl.exported(stream_mapping(), leases, Start(STREAM, ""), shards)
    rows = kcl.rows_of([entry.item for entry in entries if entry.item is not None], "app")
    kcl.check_shards(rows, shards, ARN, "app")
    looks = {row.shard: Look(record(int(row.checkpoint))) for row in rows if row.checkpoint.isdecimal()}
    back = imported(rows, shards, looks, parallelization_factor=factor)
    assert set(back) == {shard.id for shard in shards}
    for shard, entry in back.items():
        known = before.get(shard)
        was_finished = known is not None and known.is_finished
        if entry.lease is None:
            assert not was_finished
        elif entry.lease.is_finished:
            assert was_finished
        else:
            assert not was_finished
            assert reached(entry.lease.positions) == (-1 if known is None else reached(known.positions))


@given(st.sets(st.integers(0, 6)), streams())
def test_rows_that_kcl_has_removed_never_make_an_unfinished_shard_finished(
    removed: set[int], world: tuple[list[Shard], list[Lease]]
) -> None:
    shards, leases = world
    entries = kcl.exported(stream_mapping(), leases, Start(STREAM, ""), shards)
    ended = {one.shard for one in leases if one.is_finished}
    kept = [
        entry.item
        for number, entry in enumerate(entries)
        if entry.item is not None and not (number in removed and entry.shard in ended)
    ]
    back = imported(kcl.rows_of(kept, "app"), shards)
    assert {name for name, entry in back.items() if entry.lease is not None and entry.lease.is_finished} <= ended
