"""`esm status`: one table of mappings however many workers there are, and the workers where there are several."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from esm import status
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import Instant, UnixTime
from esm.model.mapping import Mapping, State
from esm.model.view import MappingView, ShardView
from esm.model.worker import ASYNC, Heartbeat, Known
from esm.rules.sightings import Sightings, Word

FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
QUEUE = Arn.parse("arn:aws:sqs:us-east-1:123456789012:q")
STREAM = Arn.parse("arn:aws:kinesis:us-east-1:123456789012:stream/s")
ROLE = "role arn:aws:iam::444455556666:role/poller through connection gate"


def row(uuid: str, identity: str | None) -> status.Row:
    mapping = Mapping(uuid, "f", FUNCTION, QUEUE, SourceKind.SQS)
    if identity is None:
        return status.Row(mapping, None, None)
    seen = MappingView(uuid, "f", str(QUEUE), State.ENABLED, "OK", has_problem=False, in_flight=0, backlog=0, shards=(),
                       identity=identity)  # fmt: skip
    return status.Row(mapping, seen, 1.0)


def shown(*rows: status.Row) -> list[str]:
    console = Console(file=io.StringIO(), width=300)
    status.show(status.Overview(rows), console)
    return console.file.getvalue().splitlines()


def test_the_table_says_who_polls_where_somebody_else_than_the_daemon_does() -> None:
    head, first, second, third = shown(row("a", "daemon"), row("b", ROLE), row("c", None))
    assert head.split()[-1] == "AS"
    assert [first.split()[-1], third.split()[-1]] == ["daemon", "daemon"]
    assert second.endswith(ROLE)


def test_the_table_does_not_speak_of_it_where_the_daemon_polls_everything() -> None:
    assert shown(row("a", "daemon"))[0].split()[-1] == "SHARDS"


def test_json_always_says_who_polls() -> None:
    documents = json.loads(status.as_json(status.Overview((row("a", "daemon"), row("b", ROLE)))))
    assert [document["identity"] for document in documents] == ["daemon", ROLE]


NOW, WALL = Instant(50.0), UnixTime(1000.0)


def word(
    worker: str, *views: MappingView, ago_s: float = 2.0, digest: str = "1", knows: str = "a", **more: bool
) -> Word:
    mappings = {uuid: Known(digest, 0) for uuid in [*knows, ASYNC, "async:added", "function:arn"]}
    beat = Heartbeat(worker, "r", 1, 1, at=UnixTime(WALL - ago_s), mappings=mappings, **more)
    return Word(worker, beat, UnixTime(WALL - ago_s), views)


def view(uuid: str = "a", *shards: str, **more: object) -> MappingView:
    held = tuple([ShardView(shard, 1.0, 0.0, None, 0.0) for shard in shards])
    seen = MappingView(uuid, "f", str(STREAM), State.ENABLED, "OK", has_problem=False, in_flight=1, backlog=None,
                       shards=held)  # fmt: skip
    return replace(seen, **more)  # type: ignore[arg-type]


def looked(*words: Word, uuids: str = "a") -> status.Overview:
    mappings = [Mapping(uuid, "f", FUNCTION, STREAM, SourceKind.KINESIS) for uuid in uuids]
    return status.overview(mappings, words, Sightings(10), NOW, WALL)


def lines(found: status.Overview) -> list[str]:
    console = Console(file=io.StringIO(), width=300)
    status.show(found, console)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_runtimes_elsewhere_are_counted_over_all_workers() -> None:
    found = looked(word("w1", view("a", "s1", runtimes=2)), word("w2", view("a", "s2", runtimes=1)))
    assert lines(found)[2] == "f: 3 runtimes are there."
    assert lines(looked(word("w1", view("a", runtimes=1))))[2] == "f: 1 runtime is there."
    assert lines(looked(word("w1", view("a"))))[2:] == []


def test_several_workers_are_one_table_of_mappings_and_one_of_workers() -> None:
    found = looked(
        word("w1", view("a", "s1", "s2")), word("w2", view("a", "s3"), is_leaving=True),
        word("w3", ago_s=35.0), word("w4", ago_s=300.0, is_released=True),
    )  # fmt: skip
    assert lines(found) == [
        "MAPPING FUNCTION SOURCE STATE LAST RESULT LAG IN FLIGHT SHARDS",
        "a f kinesis:s Enabled OK 1.0 s 2 3",
        "",
        "WORKER STATE SHARDS MAPPINGS LAST REPORT",
        "w1 live 2 1 2 s ago",
        "w2 leaving 1 1 2 s ago",
        "w3 silent for 35 s 0 0 35 s ago",
        "w4 stopped 0 0 300 s ago",
    ]


def test_one_worker_is_shown_without_a_table_of_workers() -> None:
    assert len(lines(looked(word("w1", view("a", "s1"))))) == 2


def test_a_worker_that_has_not_reported_yet_is_there() -> None:
    young = replace(word("w2"), reported_at=None)
    assert lines(looked(word("w1", view("a", "s1")), young))[-1] == "w2 live 0 1 never"


def test_a_quiet_worker_whose_heart_beats_is_not_taken_for_gone() -> None:
    quiet = replace(word("w1", view("a", "s1")), reported_at=UnixTime(WALL - 900))
    assert len(lines(looked(quiet))) == 2
    gone = word("w1", view("a", "s1"), ago_s=900)
    assert lines(looked(gone))[-1] == "The last report is 900 s old: the daemon may not be running."


def test_json_says_what_each_worker_has_of_a_mapping() -> None:
    fleet = looked(word("w1", view("a", "s1", "s2")), word("w2", view("a", "s3"), digest="2"), uuids="ab")
    first, second = json.loads(status.as_json(fleet))
    assert (first["in_flight"], len(first["shards"]), first["reported_age_s"]) == (2, 3, 2.0)
    assert first["workers"] == [
        {"worker": "w1", "state": "live", "reported_age_s": 2.0, "shards": 2, "in_flight": 1},
        {"worker": "w2", "state": "live", "reported_age_s": 2.0, "shards": 1, "in_flight": 1},
    ]
    assert first["difference"].startswith("it is run in one way by w1 and otherwise by w2")
    assert (second["state"], second["workers"], second["difference"]) == (None, [], None)


def test_a_rollout_is_one_line_a_mapping_and_a_bound_on_them() -> None:
    found = looked(word("w1", digest="1"), word("w2", digest="2"), word("w3", knows=""))
    assert lines(found)[-1] == (
        "Mapping a (f <- kinesis:s): it is run in one way by w1 and otherwise by w2; w3 does not know it (their"
        " configurations differ, as during a rollout)."
    )
    many = looked(word("w1", knows="abcdefg"), word("w2", knows=""))
    assert lines(many)[-1] == "Workers differ in 2 mappings more."
    assert lines(many)[-2].startswith("Mapping e: w2 does not know it")


@pytest.mark.parametrize("other", ["is_leaving", "is_released"])
def test_a_worker_that_goes_does_not_count_as_a_difference(other: str) -> None:
    assert looked(word("w1"), word("w2", digest="2", **{other: True})).differences == ()
