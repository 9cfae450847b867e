"""A queue batch: what is taken, returned and left, and in which order."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import Instant, UnixTime
from esm.model.invocation import Abandoned, Misconfigured, Refused, Throttled, Unreachable
from esm.model.mapping import FailureBackoff
from esm.model.outcome import Failed, FailedItems, Outcome, Ran, Succeeded
from esm.model.record import Message
from esm.rules.settlement import PLAIN, Delete, Hold, LetGo, Offer, QueueStep, Return, Settlement, Ways

RAN = Ran("r", 200, "$LATEST", None)
NOW = Instant(100.0)
FIFO = Ways(is_fifo=True)
BACKOFF = FailureBackoff(2, 60)
ENDINGS = st.sampled_from(["taken", "failed", "some", "refused", "throttled", "unreachable", "misconfigured", "loop"])


def message(
    number: int, group: str | None = None, *, ends_at: float = 130.0, receives: int = 1, size: int = 10
) -> Message:
    return Message(
        b"x" * size, str(number), f"handle-{number}", Instant(ends_at), UnixTime(0.0), group, receives, NOW
    )  # fmt: skip


def numbers(messages: Sequence[Message]) -> list[int]:
    return [int(one.message_id) for one in messages]


def outcome(kind: str, offered: Sequence[Message], items: frozenset[str]) -> Outcome:
    some = frozenset(one.message_id for one in offered) & items
    if kind == "some" and some:
        return FailedItems(RAN, some)
    others: dict[str, Outcome] = {
        "failed": Failed(RAN, "E"), "refused": Refused("r", "413"), "throttled": Throttled("r", 3.0),
        "unreachable": Unreachable("r", "reset"), "misconfigured": Misconfigured("r", "KMS"),
        "loop": Abandoned("r", "loop"),
    }  # fmt: skip
    return others.get(kind, Succeeded(RAN))


class Played:
    """A settlement played to its end by a script of endings."""

    def __init__(
        self, messages: Sequence[Message], ways: Ways, script: Sequence[str], items: frozenset[str] = frozenset()
    ) -> None:
        self.steps: list[QueueStep] = []
        self.offers: list[list[int]] = []
        self.taken: list[int] = []
        self.left: list[int] = []
        self.returned: dict[int, int] = {}
        self.failed: set[int] = set()
        self.held: set[int] = set()
        settlement = self.settlement = Settlement(messages, ways)
        now, turn = NOW, 0
        while (step := settlement.step(now)) is not None:
            self.steps.append(step)
            match step:
                case Offer(offered, start_by):
                    assert now <= start_by
                    self.offers.append(numbers(offered))
                    kind = script[turn] if turn < len(script) else "taken"
                    turn += 1
                    ending = outcome(kind, offered, items)
                    if isinstance(ending, (Failed, Abandoned)) or (isinstance(ending, Refused) and len(offered) == 1):
                        self.failed |= set(numbers(offered))
                    if isinstance(ending, FailedItems):
                        self.failed |= {int(name) for name in ending.items}
                        groups = {one.group for one in offered if one.message_id in ending.items}
                        held = [one for one in offered if one.group in groups] if ways.holds_group else []
                        self.held |= set(numbers(held))
                    settlement.invoked(ending, now, 0.5)
                case Hold(until):
                    assert until > now
                    now = until
                case Delete(gone):
                    self.taken += numbers(gone)
                case Return(back, delay_s):
                    self.returned |= dict.fromkeys(numbers(back), delay_s)
                case LetGo(left):
                    self.left += numbers(left)


BATCHES = st.lists(st.sampled_from("abc"), min_size=1, max_size=10).map(
    lambda groups: [message(number, group) for number, group in enumerate(groups)]
)
SCRIPTS = st.lists(ENDINGS, max_size=25)
ITEMS = st.frozensets(st.integers(0, 9).map(str))
WAYS = st.builds(Ways, st.booleans(), st.booleans(), st.sampled_from([None, BACKOFF]))


@given(BATCHES, WAYS, SCRIPTS, ITEMS)
def test_every_message_ends_in_one_way_at_most_and_none_stays_open(
    batch: list[Message], ways: Ways, script: list[str], items: frozenset[str]
) -> None:
    played = Played(batch, ways, script, items)
    ends = [*played.taken, *played.left, *played.returned]
    assert len(ends) == len(set(ends))
    assert played.settlement.open == ()
    assert set(ends) | played.failed | played.held == set(numbers(batch))


@given(BATCHES, WAYS, SCRIPTS, ITEMS)
def test_nothing_of_a_group_is_offered_after_an_earlier_message_of_it_failed_or_was_left(
    batch: list[Message], ways: Ways, script: list[str], items: frozenset[str]
) -> None:
    played = Played(batch, replace(ways, is_fifo=True), script, items)
    lost: set[tuple[str | None, int]] = set()
    turns = iter(script)
    for offered in played.offers:
        for number in offered:
            assert not any(group == batch[number].group and earlier < number for group, earlier in lost)
        ending = outcome(next(turns, "taken"), [batch[number] for number in offered], items)
        if isinstance(ending, (Failed, Abandoned)) or (isinstance(ending, Refused) and len(offered) == 1):
            lost |= {(batch[number].group, number) for number in offered}
        if isinstance(ending, FailedItems):
            lost |= {(batch[int(name)].group, int(name)) for name in ending.items}


@given(BATCHES, SCRIPTS, ITEMS)
def test_with_hold_group_nothing_is_deleted_behind_a_failed_message_of_its_group(
    batch: list[Message], script: list[str], items: frozenset[str]
) -> None:
    played = Played(batch, Ways(is_fifo=True, holds_group=True), script, items)
    first_failed: dict[str | None, int] = defaultdict(lambda: 99)
    for number in played.failed:
        first_failed[batch[number].group] = min(number, first_failed[batch[number].group])
    assert all(number < first_failed[batch[number].group] for number in played.taken)


@given(BATCHES, SCRIPTS, ITEMS)
def test_a_group_returns_as_one(batch: list[Message], script: list[str], items: frozenset[str]) -> None:
    played = Played(batch, Ways(is_fifo=True, backoff=BACKOFF), script, items)
    by_group: dict[str | None, set[int]] = defaultdict(set)
    for number, delay_s in played.returned.items():
        by_group[batch[number].group].add(delay_s)
    assert all(len(delays) == 1 for delays in by_group.values())


def test_without_hold_group_everything_that_is_not_listed_is_deleted_as_on_aws() -> None:
    batch = [message(number, "g") for number in range(4)]
    played = Played(batch, FIFO, ["some"], frozenset({"1"}))
    assert (played.taken, played.left, played.returned) == ([0, 2, 3], [], {})


def test_with_hold_group_what_is_behind_a_failed_message_waits_for_it() -> None:
    batch = [message(0, "g"), message(1, "h"), message(2, "g"), message(3, "h"), message(4, "g")]
    played = Played(batch, Ways(is_fifo=True, holds_group=True), ["some"], frozenset({"2"}))
    assert played.taken == [0, 1, 3]


def test_on_a_standard_queue_a_group_orders_nothing() -> None:
    batch = [message(number, "tenant") for number in range(4)]
    played = Played(batch, Ways(holds_group=True), ["refused", "failed"])
    assert played.offers == [[0, 1, 2, 3], [0, 1], [2, 3]]
    assert played.taken == [2, 3]


def test_halves_of_a_refused_batch_keep_the_order_of_a_group() -> None:
    batch = [message(0, "g"), message(1, "h"), message(2, "g"), message(3, "h")]
    played = Played(batch, FIFO, ["refused", "some"], frozenset({"0"}))
    assert played.offers == [[0, 1, 2, 3], [0, 1], [3]]
    assert played.taken == [1, 3]
    assert played.left == [2]


def test_a_message_that_is_refused_alone_takes_those_behind_it_along() -> None:
    batch = [message(0, "g"), message(1, "g"), message(2, "h")]
    played = Played(batch, FIFO, ["refused", "refused", "refused"])
    assert played.offers == [[0, 1, 2], [0, 1], [0], [2]]
    assert played.left == [0, 1]


def test_a_batch_that_exceeds_a_payload_is_one_batch_in_pieces() -> None:
    batch = [message(number, "g", size=1_048_576) for number in range(10)]
    played = Played(batch, FIFO, ["failed"])
    assert played.offers == [[0, 1, 2, 3, 4]]
    assert played.left == [5, 6, 7, 8, 9]


def test_what_is_too_big_by_itself_is_left_to_the_queue() -> None:
    played = Played([message(0, size=7_000_000), message(1)], PLAIN, [])
    assert (played.left, played.taken) == ([0], [1])


def test_what_could_not_be_deleted_is_delivered_again_before_what_is_behind_it() -> None:
    batch = [message(0, "g", size=4_000_000), message(1, "g", size=4_000_000), message(2, "h", size=10)]
    settlement = Settlement(batch, FIFO)
    assert numbers(settlement.step(NOW).messages) == [0]  # type: ignore[union-attr]
    settlement.invoked(Succeeded(RAN), NOW, 0.5)
    deleted = settlement.step(NOW)
    assert isinstance(deleted, Delete)
    settlement.undeleted(deleted.messages)
    assert numbers(settlement.open) == [2]


def test_what_could_not_be_deleted_matters_to_nobody_on_a_standard_queue() -> None:
    settlement = Settlement([message(0), message(1)], PLAIN)
    settlement.undeleted([message(7)])
    assert numbers(settlement.open) == [0, 1]


def test_nothing_is_offered_after_its_visibility_nor_anything_behind_it_in_its_group() -> None:
    batch = [message(0, "g", ends_at=90), message(1, "h"), message(2, "g", ends_at=140)]
    played = Played(batch, FIFO, [])
    assert (played.left, played.offers) == ([0, 2], [[1]])


def test_an_extension_moves_the_end_and_one_that_failed_holds_its_group_to_the_old_one() -> None:
    settlement = Settlement([message(0, "g"), message(1, "g"), message(2, "h")], FIFO)
    settlement.extended({"handle-1": Instant(200.0), "handle-2": Instant(200.0), "unknown": Instant(1.0)})
    assert [one.visible_at for one in settlement.open] == [130.0, 130.0, 200.0]
    plain = Settlement([message(0), message(1)], PLAIN)
    plain.extended({"handle-1": Instant(200.0)})
    assert [one.visible_at for one in plain.open] == [130.0, 200.0]


def test_failed_messages_return_after_a_delay_that_doubles_with_each_receive() -> None:
    batch = [message(number, receives=number + 1) for number in range(6)]
    played = Played(batch, Ways(backoff=BACKOFF), ["failed"])
    assert played.returned == {0: 2, 1: 4, 2: 8, 3: 16, 4: 32, 5: 60}


def test_what_failed_without_back_off_waits_for_its_visibility() -> None:
    played = Played([message(0), message(1)], PLAIN, ["some"], frozenset({"1"}))
    assert (played.taken, played.left, played.returned) == ([0], [], {})


@pytest.mark.parametrize("kind", ["throttled", "unreachable", "misconfigured"])
def test_what_could_not_run_is_tried_until_its_visibility_ends(kind: str) -> None:
    played = Played([message(0, "g"), message(1, "g")], FIFO, [kind] * 50)
    assert played.left == [0, 1]
    assert len(played.offers) > 2
    assert all(isinstance(step, (Hold, Offer, LetGo)) for step in played.steps)
    assert played.settlement.tries == len(played.offers)


def test_an_empty_batch_has_no_step() -> None:
    assert Settlement([]).step(NOW) is None
