"""Who lives, for readers that look now and then; and when it is proved that nobody runs a mapping."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import Instant, UnixTime
from esm.model.mapping import OK, State
from esm.model.view import MappingView
from esm.model.worker import Heartbeat, Known
from esm.rules.fleet_views import Life
from esm.rules.sightings import ANSWERS_WITHIN_S, Proof, Sightings, Word, owner_life

VIEW = MappingView("u", "f", "s", State.ENABLED, OK, has_problem=False, in_flight=0, backlog=None, shards=())
WALL = UnixTime(1000.0)


def beating(beat: int = 1, *, at: float | None = None, offers: bool = True, **more: bool) -> Heartbeat:
    mappings = {"u": Known("d", 0)} if offers else {}
    return Heartbeat("a", "r", beat, 1, at=None if at is None else UnixTime(at), mappings=mappings, **more)


def said(heartbeat: Heartbeat | None = None, reported_at: float | None = None, *, shows: bool = True) -> Word:
    at = None if reported_at is None else UnixTime(reported_at)
    return Word("a", heartbeat, at, (VIEW,) if shows else ())


def life(*looks: tuple[float, Word]) -> Life:
    """What is said after these looks, the last of them now."""
    sightings = Sightings(failover_s=10)
    for now, word in looks:
        sightings.looked([word], Instant(now))
    now, word = looks[-1]
    return sightings.life(word, Instant(now), UnixTime(WALL + now))


def test_at_the_first_look_a_worker_is_believed_by_its_own_times() -> None:
    assert life((0, said(beating(at=WALL - 19)))) is Life.LIVE
    assert life((0, said(beating(at=WALL - 21)))) is Life.SILENT
    assert life((0, said(beating(at=WALL - 300), WALL - 5))) is Life.LIVE
    assert life((0, said(None, WALL - 5))) is Life.LIVE
    assert life((0, said(None, WALL - 21))) is Life.SILENT
    assert life((0, said(beating()))) is Life.SILENT


def test_a_counter_that_moved_tells_more_than_any_clock() -> None:
    assert life((0, said(beating(1, at=1))), (50, said(beating(2, at=1)))) is Life.LIVE
    ahead = WALL + 3600
    assert life((0, said(beating(1, at=ahead))), (9, said(beating(1, at=ahead)))) is Life.LIVE
    assert life((0, said(beating(1, at=ahead))), (10, said(beating(1, at=ahead)))) is Life.SILENT
    again = replace(beating(1, at=1), run="r2")
    assert life((0, said(beating(1, at=1))), (50, said(again))) is Life.LIVE
    assert life((0, said(beating(1))), (5, said(beating(2))), (14, said(beating(2)))) is Life.LIVE
    assert life((0, said(beating(1))), (5, said(beating(2))), (15, said(beating(2)))) is Life.SILENT


def test_a_worker_that_drains_or_has_ended_is_said_to() -> None:
    assert life((0, said(beating(at=WALL, is_leaving=True)))) is Life.LEAVING
    assert life((0, said(beating(at=WALL, is_leaving=True, is_released=True)))) is Life.STOPPED
    assert life((0, said(beating(at=WALL - 60, is_leaving=True)))) is Life.SILENT


def test_a_worker_that_came_back_after_its_heartbeat_was_removed_is_new() -> None:
    sightings = Sightings(failover_s=10)
    sightings.looked([said(beating(1))], Instant(0))
    sightings.looked([], Instant(20))
    sightings.looked([said(beating(1, at=WALL))], Instant(40))
    assert sightings.life(said(beating(1, at=WALL)), Instant(40), WALL) is Life.LIVE


def test_a_report_without_a_time_is_older_than_all() -> None:
    report = Sightings(10).report(said(beating(at=WALL), shows=False), Instant(0), WALL)
    assert (report.life, report.at, report.views) == (Life.LIVE, 0.0, ())


def test_a_lease_of_an_earlier_run_is_not_owned_by_the_worker_of_today() -> None:
    word = said(beating())
    assert owner_life("a/r", word, Life.LIVE) is Life.LIVE
    assert owner_life("a/r0", word, Life.LIVE) is Life.STOPPED
    assert owner_life("a", word, Life.LIVE) is Life.STOPPED
    assert owner_life("a", said(None, 1.0), Life.LIVE) is Life.LIVE


def proof(*looks: tuple[float, Word]) -> tuple[list[str], list[str]]:
    watched = Proof("u", failover_s=10)
    for now, word in looks:
        watched.looked([word], Instant(now))
    return watched.runs_at, watched.doubtful


RUNS, DOUBT, RESTS = (["a"], []), ([], ["a"]), ([], [])


def test_a_worker_that_beats_and_names_the_mapping_runs_it() -> None:
    assert proof((0, said(beating(1)))) == DOUBT
    assert proof((0, said(beating(1))), (2, said(beating(2)))) == RUNS
    assert proof((0, said(None, 1.0))) == DOUBT
    assert proof((0, said(None, 1.0)), (1, said(None, 2.0))) == RUNS


def test_a_worker_that_stays_silent_over_the_failover_time_runs_nothing() -> None:
    assert proof((0, said(beating(1))), (10.9, said(beating(1)))) == DOUBT
    assert proof((0, said(beating(1))), (11, said(beating(1)))) == RESTS
    assert proof((0, said(None, 1.0)), (ANSWERS_WITHIN_S, said(None, 1.0))) == RESTS


def test_a_worker_that_names_it_no_more_or_has_ended_runs_it_no_more() -> None:
    assert proof((0, said(None, 1.0)), (1, said(None, 2.0, shows=False))) == RESTS
    assert proof((0, said(beating(is_released=True)))) == RESTS
    assert proof((0, said(beating(1, offers=False), shows=False))) == RESTS


def test_a_worker_whose_status_is_of_yesterday_is_waited_for_and_then_believed() -> None:
    """Its heartbeat names the mapping no more; the status that still shows it may be one that it has not rewritten."""
    old, young = said(beating(1, offers=False), 1.0), said(beating(2, offers=False), 1.0)
    assert proof((0, old), (2, young)) == DOUBT
    assert proof((0, old), (2, young), (3, said(beating(2, offers=False), 2.0, shows=False))) == RESTS
    assert proof((0, old), (2, young), (3, said(beating(2, offers=False), 2.0))) == RUNS
    assert proof((0, old), (11, young)) == RUNS


def test_a_worker_that_comes_meanwhile_runs_what_it_names() -> None:
    watched = Proof("u", failover_s=10)
    watched.looked([], Instant(0))
    assert (watched.runs_at, watched.doubtful, watched.patience_s) == ([], [], 0.0)
    watched.looked([said(beating(1))], Instant(1))
    assert watched.runs_at == ["a"]
    assert watched.patience_s == 11


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_who_is_known_to_run_is_not_in_doubt_and_at_the_end_nobody_is(looks: list[tuple[float, bool, bool]]) -> None:
    watched = Proof("u", failover_s=10)
    beat = 1
    for now, moves, offers in [*sorted(looks), (60.0, False, True)]:
        beat += moves
        watched.looked([said(beating(beat, offers=offers), 1.0)], Instant(now))
        assert not set(watched.runs_at) & set(watched.doubtful)
    assert watched.doubtful == []
