"""Whoever can be served is served, first come, first served, and a call that missed its runtime goes first."""

from hypothesis import given
from hypothesis import strategies as st

from esm.rules.encounters import Encounters

STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "call", "withdraw", "go", "end", "miss", "bound"]), st.integers(0, 5)),
    max_size=80,
)


class World:
    """A model that a child could check: two queues, and who has what."""

    def __init__(self, most: int | None) -> None:
        self.rule: Encounters[int, int] = Encounters(most)
        self.most = most
        self.runtimes: list[int] = []
        self.calls: list[int] = []
        self.running: dict[int, int] = {}
        self.numbers = 0
        self.ended: set[int] = set()

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def settle(self, pairs: list[tuple[int, int]]) -> None:
        """What the rule brought together is what first come, first served gives."""
        expected = []
        while self.runtimes and self.calls and (self.most is None or len(self.running) < self.most):
            runtime, call = self.runtimes.pop(0), self.calls.pop(0)
            self.running[runtime] = call
            expected.append((runtime, call))
        assert pairs == expected

    def do(self, step: str, which: int) -> None:
        rule, working = self.rule, list(self.running)
        match step:
            case "ask":
                runtime = min(self.ended) if self.ended and which == 0 else self.number()
                self.ended.discard(runtime)
                self.runtimes.append(runtime)
                self.settle(rule.asked(runtime))
            case "call":
                self.calls.append(self.number())
                self.settle(rule.called(self.calls[-1]))
            case "withdraw":
                assert not rule.withdrawn(-1)
                if self.calls:
                    assert rule.withdrawn(self.calls.pop(which % len(self.calls)))
            case "go":
                known = [*self.runtimes, *working]
                if known:
                    runtime = known[which % len(known)]
                    self.runtimes = [one for one in self.runtimes if one != runtime]
                    self.running.pop(runtime, None)
                    self.settle(rule.gone(runtime))
            case "end" if working:
                runtime = working[which % len(working)]
                del self.running[runtime]
                self.ended.add(runtime)
                self.settle(rule.ended(runtime))
            case "miss" if working:
                runtime = working[which % len(working)]
                self.calls.insert(0, self.running.pop(runtime))
                self.settle(rule.missed(runtime))
            case "bound":
                self.most = which or None
                self.settle(rule.bound(self.most))

    def check(self) -> None:
        rule = self.rule
        assert (rule.waiting, rule.working) == (len(self.runtimes), len(self.running))
        assert rule.calls == tuple(self.calls)
        has_place = self.most is None or len(self.running) < self.most
        assert not (self.runtimes and self.calls and has_place)
        assert rule.can_start == bool(self.runtimes and not self.calls and has_place)


@given(st.none() | st.integers(1, 3), STEPS)
def test_who_can_be_served_is_and_who_came_first_is_served_first(most, steps):
    world = World(most)
    for step, which in steps:
        world.do(step, which)
        world.check()
