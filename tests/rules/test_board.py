"""Workers that see the same share out the same, over all mappings together."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from esm.model.worker import ASYNC, Heartbeat, Known
from esm.rules.board import Board

KNOWN = Known("d", 0)


def worker(name: str, *mappings: str, is_leaving: bool = False) -> Heartbeat:
    return Heartbeat(name, "r", 1, 1, is_leaving=is_leaving, mappings=dict.fromkeys(mappings, KNOWN))


def load(board: Board, names: list[str], mappings: list[str]) -> Counter[str]:
    return Counter({name: sum(len(board.should_own(name, uuid)) for uuid in mappings) for name in names})


def test_many_streams_of_one_shard_are_spread_like_one_of_many() -> None:
    board = Board()
    mappings = [f"u{number}" for number in range(9)]
    board.follow(worker(name, *mappings) for name in "abc")
    for uuid in mappings:
        board.tell(uuid, {"shard": ""})
    assert load(board, list("abc"), mappings) == {"a": 3, "b": 3, "c": 3}


def test_buckets_of_asynchronous_events_weigh_nothing_beside_shards() -> None:
    board = Board()
    board.follow([worker("a", "u", ASYNC), worker("b", "u", ASYNC)])
    board.tell("u", {f"s{number}": "a/r" for number in range(4)})
    board.tell(ASYNC, {str(number): "" for number in range(64)})
    assert load(board, ["a", "b"], ["u"]) == {"a": 2, "b": 2}
    assert load(board, ["a", "b"], [ASYNC]) == {"a": 32, "b": 32}


def test_whoever_leaves_gets_nothing_and_what_is_forgotten_is_nobodys() -> None:
    board = Board()
    board.follow([worker("a", "u", is_leaving=True), worker("b", "u")])
    board.tell("u", {"s": "a/r"})
    assert board.owners("u") == {"s": "a/r"}
    assert board.should_own("a", "u") == frozenset()
    assert board.should_own("b", "u") == {"s"}
    board.forget("u")
    board.forget("u")
    assert board.should_own("b", "u") == frozenset()
    assert board.owners("u") == {}


def test_an_owner_of_an_earlier_run_is_no_owner() -> None:
    board = Board()
    board.follow([worker("a", "u"), worker("b", "u")])
    board.tell("u", {f"s{number}": "a/old" for number in range(6)})
    fresh = Board()
    fresh.follow([worker("a", "u"), worker("b", "u")])
    fresh.tell("u", {f"s{number}": "" for number in range(6)})
    assert board.should_own("a", "u") == fresh.should_own("a", "u")


@given(st.integers(1, 6), st.dictionaries(st.sampled_from("uvw"), st.integers(0, 12)), st.randoms())
def test_whoever_does_what_the_board_says_is_told_the_same_again(count: int, sizes: dict[str, int], chance) -> None:  # type: ignore[no-untyped-def]
    names = [f"w{number}" for number in range(count)]
    live = [worker(name, *sizes) for name in names]
    board = Board()
    board.follow(live)
    for uuid, size in sizes.items():
        board.tell(
            uuid, {f"s{number}": chance.choice(["", *[f"{name}/r" for name in names]]) for number in range(size)}
        )
    first = {(name, uuid): board.should_own(name, uuid) for name in names for uuid in sizes}
    for uuid in sizes:
        board.tell(uuid, {shard: f"{name}/r" for name in names for shard in first[name, uuid]})
    assert {(name, uuid): board.should_own(name, uuid) for name in names for uuid in sizes} == first
