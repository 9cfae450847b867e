"""Several workers are shown as one: nothing hides what a live one says, and who is asked first does not matter."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import UnixTime
from esm.model.mapping import CALL_FAILED, NO_RECORDS, OK, State
from esm.model.view import MappingView, ShardView
from esm.model.worker import ASYNC, Heartbeat, Known
from esm.rules.fleet_views import Difference, FleetView, Life, Report, combined, differences, named

QUEUE = "arn:aws:sqs:us-east-1:123456789012:q"
SECONDS = st.sampled_from([0.0, 1.5, 9e5])
COUNTS = st.integers(0, 9)
SPEAKING = st.sampled_from([Life.LIVE, Life.LEAVING])
PAST = st.sampled_from([Life.SILENT, Life.STOPPED])

shards = st.builds(ShardView, st.sampled_from(["", "s1", "s2", "s3"]), st.none() | SECONDS, SECONDS,
                   st.none() | SECONDS, SECONDS)  # fmt: skip
views = st.builds(
    MappingView, st.sampled_from("uvw"), st.just("f"), st.just(QUEUE), st.sampled_from(State),
    st.sampled_from([NO_RECORDS, OK, CALL_FAILED, "PROBLEM: no such queue"]), has_problem=st.booleans(),
    in_flight=COUNTS, backlog=st.none() | COUNTS, circuit_open=st.booleans(), async_backlog=st.none() | COUNTS,
    runtimes=st.none() | COUNTS,
    not_visible=st.none() | COUNTS, batches_max=st.none() | st.integers(1, 10),
    reason=st.sampled_from([None, "paused by operator"]),
    shards=st.lists(shards, max_size=3, unique_by=lambda shard: shard.id).map(tuple),
)  # fmt: skip
of_one_worker = st.lists(views, max_size=2, unique_by=lambda view: view.uuid).map(tuple)


def reports(lives: st.SearchStrategy[Life], names: str = "abcd") -> st.SearchStrategy[list[Report]]:
    one = st.builds(Report, st.sampled_from(names), lives, st.integers(0, 5).map(UnixTime), of_one_worker)
    return st.lists(one, max_size=len(names), unique_by=lambda report: report.worker)


def by_uuid(found: list[FleetView]) -> dict[str, FleetView]:
    return {one.view.uuid: one for one in found}


def word(worker: str, at: float = 1.0, life: Life = Life.LIVE, **changes: object) -> Report:
    seen = MappingView("u", "f", QUEUE, State.ENABLED, OK, has_problem=False, in_flight=0, backlog=None, shards=())
    return Report(worker, life, UnixTime(at), (replace(seen, **changes),))  # type: ignore[arg-type]


def shown(*words: Report) -> MappingView:
    (one,) = combined(words)
    return one.view


def shard(name: str, lag_s: float | None = 0.0, blocked_s: float = 0.0) -> ShardView:
    return ShardView(name, lag_s, blocked_s, None, 0.0)


@given(st.sampled_from(Life), of_one_worker)
def test_one_worker_is_shown_as_it_shows_itself(life: Life, found: tuple[MappingView, ...]) -> None:
    report = Report("a", life, UnixTime(3.0), found)
    seen = combined([report])
    assert [one.view for one in seen] == list(found)
    assert all((one.at, one.workers, one.is_live) == (3.0, ("a",), life.speaks) for one in seen)


@given(reports(st.sampled_from(Life)), st.randoms())
def test_the_order_of_the_workers_does_not_matter(found: list[Report], chance: object) -> None:
    shuffled = list(found)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert combined(shuffled) == combined(found)


@given(reports(SPEAKING, "ace"), reports(PAST, "bdf"))
def test_nothing_of_a_dead_worker_hides_or_colours_what_a_live_one_says(live: list[Report], dead: list[Report]) -> None:
    alone, together = by_uuid(combined(live)), by_uuid(combined(live + dead))
    assert {uuid: one for uuid, one in together.items() if one.is_live} == alone
    assert together.keys() == {view.uuid for report in live + dead for view in report.views}


@given(reports(SPEAKING))
def test_every_shard_stands_there_once_and_what_can_be_added_is(found: list[Report]) -> None:
    for one in combined(found):
        words = [view for report in found for view in report.views if view.uuid == one.view.uuid]
        names = [shard.id for shard in one.view.shards]
        assert sorted(set(names)) == sorted(names)
        assert set(names) == {shard.id for view in words for shard in view.shards}
        assert one.view.in_flight == sum(view.in_flight for view in words)
        counted = [view.async_backlog for view in words if view.async_backlog is not None]
        assert one.view.async_backlog == (sum(counted) if counted else None)
        there = [view.runtimes for view in words if view.runtimes is not None]
        assert one.view.runtimes == (sum(there) if there else None)


@given(reports(SPEAKING))
def test_a_problem_of_any_worker_shows(found: list[Report]) -> None:
    for one in combined(found):
        words = [view for report in found for view in report.views if view.uuid == one.view.uuid]
        assert one.view.has_problem == any(view.has_problem for view in words)
        assert one.view.circuit_open == any(view.circuit_open for view in words)
        failed = any(view.last_result.startswith("PROBLEM") for view in words)
        assert one.view.last_result.startswith("PROBLEM") == failed


def test_the_newer_word_on_a_shard_counts_during_a_handover() -> None:
    leaving = word("a", 1.0, Life.LEAVING, shards=(shard("s1", 7.0), shard("s2", 8.0)))
    taking = word("b", 2.0, shards=(shard("s3", 9.0), shard("s1", 1.0)))
    assert shown(leaving, taking).shards == (shard("s1", 1.0), shard("s2", 8.0), shard("s3", 9.0))


def test_a_queue_is_as_its_worst_reader_sees_it() -> None:
    one = word("a", shards=(ShardView("", 5.0, 0.0, 30.0, 1.0),), backlog=3, not_visible=None)
    other = word("b", 2.0, shards=(ShardView("", None, 2.0, None, 4.0),), backlog=None, not_visible=6)
    assert shown(one, other).shards == (ShardView("", 5.0, 2.0, 30.0, 4.0),)
    assert (shown(one, other).backlog, shown(one, other).not_visible) == (3, 6)
    assert shown(word("a", backlog=3), word("b", 2.0, backlog=9)).backlog == 9


def test_a_problem_names_its_workers_where_there_are_several() -> None:
    broken = {"has_problem": True, "last_result": "PROBLEM: no such queue"}
    assert shown(word("a", **broken)).last_result == "PROBLEM: no such queue"
    assert shown(word("a", **broken), word("b")).last_result == "PROBLEM: no such queue (at worker a)"
    assert shown(word("a", **broken), word("b", **broken)).last_result == "PROBLEM: no such queue (at all 2 workers)"
    assert shown(word("c"), word("b", **broken), word("a", **broken)).last_result == (
        "PROBLEM: no such queue (at workers a, b)"
    )
    assert shown(word("a", last_result=CALL_FAILED), word("b", **broken)).last_result == (
        "PROBLEM: no such queue (at worker b); PROBLEM: Function call failed (at worker a)"
    )


def test_what_a_problem_names_is_bounded() -> None:
    workers = [word(name, last_result=f"PROBLEM: {name}") for name in "abcde"]
    assert shown(*workers).last_result.endswith("PROBLEM: c (at worker c); and 2 more")
    assert named("abcde") == "a, b, c and 2 more"


def test_a_result_beats_none_and_a_later_unknown_one_is_shown() -> None:
    assert shown(word("a", last_result=NO_RECORDS), word("b", last_result=OK)).last_result == OK
    assert shown(word("a", last_result=NO_RECORDS), word("b", last_result=NO_RECORDS)).last_result == NO_RECORDS
    assert shown(word("a", last_result="x"), word("b", 2.0, last_result="y"), word("c")).last_result == "y"


def test_the_state_is_that_of_the_workers_that_stay() -> None:
    def state(*states: tuple[State, Life]) -> State:
        return shown(*[word(str(number), state=one, life=life) for number, (one, life) in enumerate(states)]).state

    live, leaving = Life.LIVE, Life.LEAVING
    assert state((State.ENABLED, live), (State.CREATING, live)) is State.ENABLED
    assert state((State.ENABLED, live), (State.UPDATING, live)) is State.UPDATING
    assert state((State.DELETING, live), (State.ENABLED, live)) is State.ENABLED
    assert state((State.DISABLED, live), (State.DISABLING, live)) is State.DISABLING
    assert state((State.CREATING, live), (State.ENABLED, leaving)) is State.CREATING
    assert state((State.DELETING, leaving), (State.ENABLED, leaving)) is State.ENABLED


def test_the_reason_belongs_to_the_state() -> None:
    paused = {"state": State.DISABLED, "reason": "paused by operator"}
    assert shown(word("a", **paused), word("b", state=State.DISABLED)).reason == "paused by operator"
    assert shown(word("a", **paused), word("b")).reason is None


def beating(worker: str, **digests: str) -> Heartbeat:
    return Heartbeat(worker, "r", 1, 1, mappings={uuid: Known(digest, 0) for uuid, digest in digests.items()})


def test_workers_that_would_run_a_mapping_differently_are_told_apart() -> None:
    fleet = [beating("a", u="1", v="1", w="1"), beating("b", u="2", v="1"), beating("c", u="1", v="1", **{ASYNC: "x"})]
    reported: dict[str, set[str]] = {"a": set(), "b": set(), "c": set()}
    assert differences(fleet, reported) == [
        Difference("u", (("a", "c"), ("b",)), ()), Difference("w", (("a",),), ("b", "c")),
    ]  # fmt: skip
    assert differences(reversed(fleet), reported) == differences(fleet, reported)


def test_a_worker_knows_what_it_shows_and_is_given_the_time_to_report() -> None:
    fleet = [beating("a", u="1"), beating("b"), beating("c"), beating("d")]
    assert differences(fleet, {"a": {"u"}, "b": {"u"}}) == []
    assert differences(fleet, {"a": {"u"}, "b": {"v"}, "d": {"u"}}) == [Difference("u", (("a",),), ("b",))]


@given(st.lists(st.sampled_from("abcd"), unique=True), st.dictionaries(st.sampled_from("uvw"), st.sampled_from("12")))
def test_workers_of_one_configuration_do_not_differ(workers: list[str], digests: dict[str, str]) -> None:
    fleet = [beating(worker, **digests) for worker in workers]
    assert differences(fleet, {worker: digests.keys() for worker in workers}) == []
