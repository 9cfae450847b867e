"""A FIFO group is with one batch at a time."""

from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import Instant, UnixTime
from esm.model.record import Message
from esm.rules.groups import Groups


def message(group: str) -> Message:
    return Message(b"", group, group, Instant(0.0), UnixTime(0.0), group)


@given(st.lists(st.one_of(st.lists(st.sampled_from("abcd"), max_size=5), st.integers(0, 5)), max_size=30))
def test_a_group_is_never_with_two_batches_and_claims_split_a_batch_whole(script: list[list[str] | int]) -> None:
    groups = Groups()
    batches: list[tuple[Message, ...]] = []
    for step in script:
        if isinstance(step, int):
            if batches:
                groups.leave(batches.pop(step % len(batches)))
            continue
        batch = [message(group) for group in step]
        was_free = groups.are_free(batch)
        mine, busy = groups.claim(batch)
        assert was_free == (not busy)
        assert sorted(one.group or "" for part in (mine, *busy) for one in part) == sorted(step)
        assert all(len({one.group for one in part}) == 1 for part in busy)
        held = {one.group for other in batches for one in other}
        assert not {one.group for one in mine} & held
        assert {one.group for part in busy for one in part} <= held
        batches.append(mine)
