"""Parents before children, whatever the order in which shards are heard of."""

from hypothesis import given
from hypothesis import strategies as st

from esm.model.position import Shard
from esm.rules.lineage import Lineage


def test_a_merged_child_waits_for_both_parents() -> None:
    lineage = Lineage()
    lineage.listed([Shard("a"), Shard("b"), Shard("c", ("a", "b"))])
    assert [shard.id for shard in lineage.ready()] == ["a", "b"]
    lineage.finish("a")
    assert [shard.id for shard in lineage.ready()] == ["b"]
    lineage.finish("b")
    assert [shard.id for shard in lineage.ready()] == ["c"]


def test_a_child_of_a_parent_that_nobody_lists_waits_until_it_is_known_to_be_gone() -> None:
    lineage = Lineage()
    lineage.listed([Shard("child", ("parent",))])
    assert lineage.ready() == []
    assert lineage.doubts() == ["parent"]
    lineage.gone("parent")
    assert lineage.doubts() == []
    assert [shard.id for shard in lineage.ready()] == ["child"]


def test_a_parent_that_is_listed_late_is_read_first() -> None:
    lineage = Lineage()
    lineage.found([Shard("child", ("parent",))])
    lineage.listed([Shard("parent"), Shard("child", ("parent",))])
    assert [shard.id for shard in lineage.ready()] == ["parent"]


def test_a_finished_shard_is_remembered_until_it_is_forgotten_on_purpose() -> None:
    lineage = Lineage(["old"])
    lineage.listed([Shard("new", ("old",))])
    assert [shard.id for shard in lineage.ready()] == ["new"]
    assert lineage.forgettable() == ["old"]
    lineage.forget("old")
    assert not lineage.is_finished("old")
    assert lineage.forgettable() == []


@given(st.data(), st.integers(1, 12))
def test_no_shard_is_ready_before_its_parents_are_finished_and_all_become_ready(
    data: st.DataObject, count: int
) -> None:
    names = [f"s{number:02d}" for number in range(count)]
    shards = [
        Shard(name, tuple(sorted(data.draw(st.sets(st.sampled_from(names[:index]), max_size=2)))) if index else ())
        for index, name in enumerate(names)
    ]
    lineage = Lineage()
    lineage.found(data.draw(st.permutations(shards)))
    finished: list[str] = []
    while ready := lineage.ready():
        for shard in ready:
            assert set(shard.parents) <= set(finished)
        shard = data.draw(st.sampled_from(ready))
        lineage.finish(shard.id)
        finished.append(shard.id)
    assert sorted(finished) == names
