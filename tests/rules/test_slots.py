"""Bounds hold at every moment, nobody waits in vain, and who came first is served first."""

from hypothesis import given
from hypothesis import strategies as st

from esm.rules.slots import Refusal, Slots

FUNCTIONS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=4)
STEPS = st.lists(st.tuples(st.sampled_from(["take", "wait", "give", "give up"]), st.integers(0, 3)), max_size=60)


class World:
    """A model that a child could check: who holds, who waits, in which order."""

    def __init__(self, overall: int, functions: list[tuple[int, bool]]) -> None:
        self.slots = Slots(overall)
        self.overall, self.functions = overall, functions
        self.held = [0] * len(functions)
        self.waiting: list[tuple[int, int]] = []
        self.callers = 0
        for name, (bound, is_reserved) in enumerate(functions):
            self.slots.join(name, bound, is_reserved=is_reserved)

    def do(self, step: str, name: int) -> None:
        if step in {"take", "wait"}:
            refusal = self.slots.take(name)
            assert refusal == self.why_not(name)
            self.held[name] += refusal is None
            if refusal is not None and step == "wait":
                self.callers += 1
                self.slots.wait(name, self.callers)
                self.waiting.append((self.callers, name))
        elif step == "give" and self.held[name]:
            self.held[name] -= 1
            for caller in self.slots.give(name):
                owner = dict(self.waiting)[caller]
                assert caller == min(one for one, of in self.waiting if self.why_not(of) is None)
                self.waiting.remove((caller, owner))
                self.held[owner] += 1
        elif step == "give up":
            mine = [caller for caller, of in self.waiting if of == name]
            if mine:
                self.slots.give_up(name, mine[0])
                self.waiting.remove((mine[0], name))

    def why_not(self, name: int) -> Refusal | None:
        bound, is_reserved = self.functions[name]
        if self.held[name] >= bound:
            return Refusal.RESERVED
        shared = max(0, self.overall - sum(bound for bound, is_reserved in self.functions if is_reserved))
        used = sum(held for held, (_, is_reserved) in zip(self.held, self.functions, strict=True) if not is_reserved)
        return Refusal.OVERALL if not is_reserved and used >= shared else None

    def check(self) -> None:
        assert [self.slots.used(name) for name in range(len(self.held))] == self.held
        for name, (bound, _) in enumerate(self.functions):
            assert self.held[name] <= bound
            assert self.slots.why_not(name) == self.why_not(name)
        assert not [caller for caller, of in self.waiting if self.why_not(of) is None]


@given(st.integers(0, 8), FUNCTIONS, STEPS)
def test_no_bound_is_broken_and_nobody_waits_while_he_could_run(overall, functions, steps) -> None:
    world = World(overall, functions)
    for step, name in steps:
        world.do(step, name % len(functions))
        world.check()


def test_what_others_reserve_cannot_be_used_and_comes_back_when_they_leave() -> None:
    slots = Slots(10)
    slots.join("a", 4, is_reserved=True)
    slots.join("b", 10, is_reserved=False)
    assert [slots.take("b") for _ in range(7)] == [None] * 6 + [Refusal.OVERALL]
    slots.wait("b", "late")
    assert slots.leave("a") == ["late"]
    assert (slots.used("b"), slots.shared) == (7, 10)


def test_giving_up_for_a_function_that_has_left_does_nothing() -> None:
    Slots(1).give_up("gone", "caller")
