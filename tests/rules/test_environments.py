"""The life of environments: whatever is asked of them in whichever order, the laws of the module hold."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from esm.model.clocks import Instant
from esm.rules.environments import (
    FREEZE_AFTER_S,
    RETRY_MAX_S,
    End,
    Environments,
    Freeze,
    Phase,
    Start,
    Stop,
    Taken,
    Upkeep,
    init_s,
)

UPKEEP = Upkeep(concurrency=3, idle_s=10, age_max_s=1000)


def at(seconds: float) -> Instant:
    return Instant(seconds)


@dataclass
class Seen:
    """What the world knows of one environment."""

    phase: Phase = Phase.STARTING
    has_caller: bool = False
    is_frozen: bool = False
    is_old: bool = False


class World:
    """Acts on what the rule says, and holds every step against the laws."""

    def __init__(self, upkeep: Upkeep) -> None:
        self.upkeep = upkeep
        self.rules = Environments(upkeep)
        self.now = at(0)
        self.alive: dict[int, Seen] = {}
        self.numbers: set[int] = set()

    @property
    def taken(self) -> list[int]:
        return [number for number, one in self.alive.items() if one.has_caller]

    def do(self, step: str, pick: int) -> None:
        getattr(self, step)(pick)
        for phase in Phase:
            assert self.rules.count(phase) == sum(one.phase is phase for one in self.alive.values())
        assert len(self.alive) <= self.upkeep.concurrency
        assert all(one.phase is Phase.FREE for one in self.alive.values() if one.is_frozen)
        for number, one in self.alive.items():
            assert self.rules.is_frozen(number) == one.is_frozen

    def take(self, _: int) -> None:
        if len(self.taken) == self.upkeep.concurrency:
            return
        had_free = any(one.phase is Phase.FREE for one in self.alive.values())
        taken = self.rules.take(self.now)
        assert (taken.phase is Phase.FREE) == had_free
        if taken.phase is None:
            self.add(taken.number)
        one = self.alive[taken.number]
        assert not one.has_caller
        assert not one.is_old
        assert taken.is_frozen == one.is_frozen
        one.has_caller, one.is_frozen = True, False
        one.phase = Phase.BUSY if taken.phase is Phase.FREE else Phase.STARTING

    def ready(self, pick: int) -> None:
        starting = [number for number, one in self.alive.items() if one.phase is Phase.STARTING]
        if starting:
            number = starting[pick % len(starting)]
            self.rules.ready(number, self.now)
            one = self.alive[number]
            one.phase = Phase.BUSY if one.has_caller else Phase.FREE

    def give(self, pick: int) -> None:
        if self.taken:
            number = self.taken[pick % len(self.taken)]
            stop = self.rules.give(number, self.now)
            one = self.alive[number]
            one.has_caller = False
            one.phase = Phase.FREE if one.phase is Phase.BUSY else one.phase
            if one.is_old:
                assert stop == Stop(number, End.CHANGED)
            self.act([stop] if stop else [])

    def gone(self, pick: int) -> None:
        if self.alive:
            number = sorted(self.alive)[pick % len(self.alive)]
            self.rules.gone(number, self.now)
            del self.alive[number]

    def wait(self, pick: int) -> None:
        self.now = Instant(self.now + pick / 7)
        due = self.rules.next_at()
        steps = self.rules.step(self.now)
        assert not steps or (due is not None and due <= self.now)
        self.act(steps)
        following = self.rules.next_at()
        assert following is None or following > self.now

    def renew(self, _: int) -> None:
        for one in self.alive.values():
            one.is_old = True
        self.act(self.rules.renew(self.now))
        assert not [one for one in self.alive.values() if not one.has_caller]

    def follow(self, pick: int) -> None:
        self.upkeep = replace(self.upkeep, provisioned=pick % 3)
        self.rules.follow(self.upkeep)

    def act(self, steps) -> None:
        for step in steps:
            match step:
                case Start(number):
                    self.add(number)
                case Stop(number, _):
                    assert not self.alive[number].has_caller
                    del self.alive[number]
                case Freeze(number):
                    assert not self.alive[number].is_frozen
                    self.alive[number].is_frozen = True

    def add(self, number: int) -> None:
        assert number not in self.numbers
        self.numbers.add(number)
        self.alive[number] = Seen()


STEPS = st.sampled_from(["take", "take", "ready", "give", "gone", "wait", "wait", "renew", "follow"])


@given(
    st.builds(
        Upkeep, st.integers(1, 4), st.integers(0, 3), st.floats(0.5, 20), st.floats(1, 60), freezes=st.booleans()
    ),
    st.lists(st.tuples(STEPS, st.integers(0, 40)), max_size=60),
)
def test_the_laws_hold_whatever_happens(upkeep, steps) -> None:
    world = World(upkeep)
    for step, pick in steps:
        world.do(step, pick)


@given(
    st.integers(1, 4), st.integers(0, 5), st.lists(st.tuples(STEPS.filter(lambda s: s != "follow"), st.integers(0, 9)))
)
def test_provisioned_environments_are_there_again_once_the_world_is_kind(concurrency, provisioned, steps) -> None:
    world = World(Upkeep(concurrency, provisioned, idle_s=5))
    for step, pick in steps:
        world.do(step, pick)
    for _ in range(3):
        for number in list(world.alive):
            if world.alive[number].phase is Phase.STARTING:
                world.rules.ready(number, world.now)
                world.alive[number].phase = Phase.BUSY if world.alive[number].has_caller else Phase.FREE
        while world.taken:
            world.do("give", 0)
        world.do("wait", int(RETRY_MAX_S * 7) + 7)
    assert len(world.alive) == min(provisioned, concurrency)


def test_the_one_used_last_is_used_first_and_provisioned_ones_before_others() -> None:
    rules = Environments(replace(UPKEEP, provisioned=1))
    assert rules.step(at(0)) == [Start(1)]
    rules.ready(1, at(1))
    numbers = [rules.take(at(2)) for _ in range(3)]
    assert numbers == [
        Taken(1, Phase.FREE), Taken(2, None, is_spill_over=True), Taken(3, None, is_spill_over=True),
    ]  # fmt: skip
    for number in (2, 3):
        rules.ready(number, at(3))
    for number in (1, 2, 3):
        assert rules.give(number, at(4)) is None
    assert [rules.take(at(5)).number for _ in range(3)] == [1, 3, 2]
    assert (rules.provisioned_ready, rules.provisioned_busy, rules.is_provisioned(1)) == (1, 1, True)


def test_an_idle_one_ends_and_a_provisioned_one_stays_until_it_is_old() -> None:
    rules = Environments(replace(UPKEEP, provisioned=1))
    rules.step(at(0))
    rules.ready(1, at(0))
    rules.take(at(0))
    rules.take(at(0))
    rules.ready(2, at(0))
    for number in (1, 2):
        rules.give(number, at(1))
    assert rules.next_at() == at(11)
    assert rules.step(at(11)) == [Stop(2, End.IDLE)]
    assert rules.step(at(1000)) == [Stop(1, End.AGE), Start(3)]


def test_a_used_one_that_is_too_old_ends_when_it_is_given_back() -> None:
    rules = Environments(UPKEEP)
    rules.take(at(0))
    rules.ready(1, at(0))
    assert rules.step(at(5000)) == []
    assert rules.give(1, at(5000)) == Stop(1, End.AGE)
    assert rules.give(1, at(5000)) is None


def test_ages_at_which_they_end_differ_by_less_than_a_quarter() -> None:
    rules = Environments(replace(UPKEEP, concurrency=50, idle_s=10_000))
    for number in range(1, 51):
        rules.take(at(0))
        rules.ready(number, at(0))
    for number in range(1, 51):
        rules.give(number, at(0))
    dues = [rules.due(number) for number in range(1, 51)]
    assert all(750 <= due <= 1000 for due in dues)
    assert len({round(due) for due in dues}) > 40


def test_only_what_stays_free_is_frozen_and_it_is_thawed_to_serve() -> None:
    rules = Environments(replace(UPKEEP, freezes=True))
    rules.take(at(0))
    rules.ready(1, at(0))
    rules.give(1, at(1))
    assert rules.due(1) == at(1 + FREEZE_AFTER_S)
    assert rules.step(at(1.05)) == []
    assert rules.step(at(2)) == [Freeze(1)]
    assert rules.due(1) == at(11)
    assert rules.take(at(3)) == Taken(1, Phase.FREE, is_frozen=True)
    assert rules.due(1) is None


def test_one_that_starts_for_nobody_is_waited_for_rather_than_another_started() -> None:
    rules = Environments(UPKEEP)
    assert rules.take(at(0)) == Taken(1, None)
    assert rules.give(1, at(1)) is None
    assert rules.take(at(2)) == Taken(1, Phase.STARTING)


def test_a_provisioned_one_that_starts_is_waited_for_only_where_no_other_fits() -> None:
    rules = Environments(replace(UPKEEP, concurrency=2, provisioned=1))
    assert rules.step(at(0)) == [Start(1)]
    assert rules.take(at(0)) == Taken(2, None, is_spill_over=True)
    assert rules.take(at(0)) == Taken(1, Phase.STARTING)


def test_a_provisioned_one_that_fails_is_started_again_ever_more_slowly() -> None:
    rules = Environments(replace(UPKEEP, provisioned=1))
    now, waits = 0.0, []
    for number in range(1, 9):
        assert rules.step(at(now)) == [Start(number)]
        rules.gone(number, at(now))
        waits.append(rules.next_at() - now)
        now = rules.next_at()
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert rules.renew(at(now - 1)) == []
    assert rules.step(at(now - 1)) == [Start(9)]
    rules.ready(9, at(now))
    rules.gone(9, at(now + 1))
    assert rules.step(at(now + 1)) == [Start(10)]


def test_changed_code_ends_what_is_free_at_once_and_what_is_used_when_it_is_done() -> None:
    rules = Environments(UPKEEP)
    for number in (1, 2):
        rules.take(at(0))
        rules.ready(number, at(0))
    rules.give(1, at(1))
    assert rules.renew(at(2)) == [Stop(1, End.CHANGED)]
    assert rules.take(at(2)) == Taken(3, None)
    assert rules.give(2, at(3)) == Stop(2, End.CHANGED)


def test_what_the_rule_has_forgotten_changes_nothing() -> None:
    rules = Environments(UPKEEP)
    rules.ready(7, at(0))
    rules.gone(7, at(0))
    assert (rules.next_at(), rules.is_provisioned(7), rules.is_frozen(7)) == (None, False, False)


def test_a_provisioned_one_may_take_longer_to_start() -> None:
    assert init_s(3, is_provisioned=False) == 10
    assert [init_s(timeout, is_provisioned=True) for timeout in (3, 500, 900)] == [130, 500, 900]
