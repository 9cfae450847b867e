"""Ownership is balanced, sticky, and the same everywhere."""

from hypothesis import given
from hypothesis import strategies as st

from esm.rules.assignment import Candidate, Shard, assignment

MAPPINGS = ("m1", "m2")
WORKERS = st.lists(st.sampled_from([f"w{n}" for n in range(8)]), unique=True, max_size=8)
SHARDS = st.lists(st.tuples(st.sampled_from(MAPPINGS), st.integers(0, 30).map(lambda n: f"s{n}")), unique=True)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Shard], dict[Shard, str], list[Candidate]]:
    shards = draw(SHARDS)
    names = draw(WORKERS)
    workers = [Candidate(name, frozenset(draw(st.sets(st.sampled_from(MAPPINGS))))) for name in names]
    owners = {shard: draw(st.sampled_from([f"w{n}" for n in range(10)])) for shard in shards if draw(st.booleans())}
    return shards, owners, workers


@st.composite
def whole_fleets(draw: st.DrawFn) -> tuple[list[Shard], dict[Shard, str], list[Candidate]]:
    shards, owners, workers = draw(fleets())
    return shards, owners, [Candidate(one.worker, frozenset(MAPPINGS)) for one in workers]


@given(fleets())
def test_every_shard_that_somebody_knows_has_an_owner_who_knows_it(fleet) -> None:
    shards, owners, workers = fleet
    known = {one.worker: one.mappings for one in workers}
    found = assignment(shards, owners, workers)
    assert set(found) == {shard for shard in shards if any(shard[0] in mappings for mappings in known.values())}
    assert all(shard[0] in known[worker] for shard, worker in found.items())


@given(whole_fleets())
def test_nobody_owns_more_than_the_cap_where_all_know_all(fleet) -> None:
    shards, owners, workers = fleet
    found = assignment(shards, owners, workers)
    for one in workers:
        assert sum(worker == one.worker for worker in found.values()) <= -(-len(shards) // len(workers))


@given(fleets(), st.randoms())
def test_the_answer_does_not_depend_on_the_order_of_what_is_seen(fleet, random) -> None:
    shards, owners, workers = fleet
    expected = assignment(shards, owners, workers)
    for part in (shards, workers):
        random.shuffle(part)
    assert assignment(shards, dict(reversed(owners.items())), workers) == expected


@given(fleets())
def test_what_was_decided_stays(fleet) -> None:
    shards, owners, workers = fleet
    found = assignment(shards, owners, workers)
    assert assignment(shards, found, workers) == found


@given(whole_fleets())
def test_a_worker_that_leaves_moves_only_what_it_held(fleet) -> None:
    shards, owners, workers = fleet
    if len(workers) < 2:
        return
    before = assignment(shards, owners, workers)
    after = assignment(shards, before, workers[1:])
    moved = {shard for shard in shards if before[shard] != after[shard]}
    assert moved == {shard for shard in shards if before[shard] == workers[0].worker}


@given(whole_fleets())
def test_a_worker_that_joins_takes_only_its_share(fleet) -> None:
    shards, owners, workers = fleet
    if not workers:
        return
    before = assignment(shards, owners, workers)
    joined = [*workers, Candidate("new", frozenset(MAPPINGS))]
    after = assignment(shards, before, joined)
    moved = [shard for shard in shards if before[shard] != after[shard]]
    assert all(after[shard] == "new" for shard in moved) or len(moved) <= len(shards) - len(shards) // len(joined)
    assert len(moved) <= sum(
        max(0, sum(w == one.worker for w in before.values()) - -(-len(shards) // len(joined))) for one in workers
    )


def test_an_older_file_beside_a_newer_one_stops_no_mapping() -> None:
    shards = [("new", f"s{n}") for n in range(4)] + [("old", f"s{n}") for n in range(4)]
    workers = [Candidate("a", frozenset({"old"})), Candidate("b", frozenset({"old", "new"}))]
    found = assignment(shards, {}, workers)
    assert {found[shard] for shard in shards if shard[0] == "new"} == {"b"}
    assert {found[shard] for shard in shards if shard[0] == "old"} == {"a"}
