"""No pattern and no record costs more than its size: steps are counted, not seconds."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from esm.model.arn import SourceKind
from esm.rules.patterns import PatternRefused, compile_filter, consistency, folding, reason_invalid
from esm.rules.patterns.conditions import Condition
from esm.rules.patterns.consistency import ENTRIES_MIN, ENTRIES_PER_ELEMENT, LOOKS_MIN, Budget, is_satisfied
from esm.rules.patterns.fields import NESTED_MAX, Level, Route, TooComplex, walk
from esm.rules.patterns.parsing import CONJUNCTIONS_MAX, parse
from esm.rules.patterns.reading import DEPTH_MAX
from esm.rules.patterns.wildcards import matcher, pieces


def searched(pattern: dict[str, Any], record: Any) -> tuple[bool, int, int]:
    """Whether the record matches, the entries that took, and the record's elements."""
    (way,) = parse(json.dumps(pattern))
    level = Level()
    elements = walk(record, Route.of(way), level)
    budget = Budget(elements)
    before = budget.left
    found = is_satisfied([(path, way[path]) for path in sorted(way)], level, budget)
    return found, before - budget.left, elements


def body(pattern: Any, record: str) -> bool:
    message = json.dumps({"body": record}).encode()
    return compile_filter([json.dumps({"body": pattern})], SourceKind.SQS).matches(message)


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_elements_that_almost_match_are_entered_once(count: int) -> None:
    record = {"a": [{"b": 1, "c": 1, "d": 2} for _ in range(count)]}
    found, entries, elements = searched({"a": {"b": [1], "c": [1], "d": [1]}}, record)
    assert (found, entries, elements) == (False, count, count)


@pytest.mark.parametrize("count", [3, 10, 30])
def test_arrays_beside_each_other_are_decided_apart(count: int) -> None:
    names = [f"k{index:02}" for index in range(count)]
    record: dict[str, Any] = {name: [{"x": 1}] * count for name in names}
    record[names[-1]] = [{"x": 2}] * count
    found, entries, elements = searched({name: {"x": [1]} for name in names}, record)
    assert not found
    assert entries <= elements == count * count


@pytest.mark.parametrize("count", [3, 10, 30])
def test_arrays_within_arrays_are_entered_once_for_each_element_around_them(count: int) -> None:
    record = {"a": [{"x": 1, "b": [{"y": 1, "c": [{"z": 1}] * count}] * count}] * count}
    found, entries, elements = searched({"a": {"x": [1], "b": {"y": [1], "c": {"z": [2]}}}}, record)
    assert not found
    assert entries <= elements == count + count**2 + count**3


def test_a_riddle_made_of_ambiguous_paths_ends_at_its_budget() -> None:
    """Twenty arrays at one path, each good for one of 21 conditions: no choice is enough, and there are 20! of them."""
    steps = [f"s{index}" for index in range(6)]
    conditions = [f"c{index:02}" for index in range(21)]
    record: dict[str, Any] = {}
    for cut in range(20):
        names = [steps[0]]
        for index, step in enumerate(steps[1:]):
            if cut >> index & 1:
                names.append(step)
            else:
                names[-1] += "." + step
        at = record
        for name in names[:-1]:
            at = at.setdefault(name, {})
        at[names[-1]] = [{name: 1} for name in conditions]
    pattern = {".".join([*steps, name]): [1] for name in conditions}
    with pytest.raises(TooComplex):
        searched(pattern, record)
    assert not body(pattern, json.dumps(record))


def test_elements_that_are_looked_at_in_vain_count_too() -> None:
    """Each element of one array is good for the first condition, and none of the other array for the second one."""
    count = 3000
    record = {"a": {"b": [{"x": 1, "y": 3}] * count}, "a.b": [{"x": 2, "y": 3}] * count}
    (way,) = parse('{"a": {"b": {"x": [1], "y": [2]}}}')
    level = Level()
    elements = walk(record, Route.of(way), level)
    budget = Budget(elements, len(way))
    looks = budget.looks_left
    with pytest.raises(TooComplex):
        is_satisfied([(path, way[path]) for path in sorted(way)], level, budget)
    assert looks == LOOKS_MIN + (ENTRIES_PER_ELEMENT + 2) * elements < count**2
    assert not body({"a": {"b": {"x": [1], "y": [2]}}}, json.dumps(record))


@pytest.mark.parametrize("count", [1, 30])
def test_many_conditions_on_a_large_array_are_decided(count: int) -> None:
    """Every condition is met outside the array, and looks into it for the absence that follows."""
    names = [f"c{index:02}" for index in range(count)]
    pattern = {"a": {**{name: [1] for name in names}, "z": [{"exists": False}]}}
    plain = {f"a.{name}": 1 for name in names}
    record = {**plain, "a": [{**dict.fromkeys(names, 2), "z": 1}] * 2000}
    assert body(pattern, json.dumps(record)) == body(pattern, json.dumps({**record, "a": record["a"][:1]}))  # type: ignore[index]


def test_paths_that_begin_alike_are_laid_out_once() -> None:
    steps = ["a"] * (DEPTH_MAX - 3)
    paths = [".".join([*steps, f"l{index}"]) for index in range(400)]
    route = Route.of(paths)
    assert route.onward[".".join(steps)].onward.keys() == {f"l{index}" for index in range(400)}
    assert len(route.onward) == len(steps) + 400
    assert walk({"a.a": {".".join(steps[2:]): {"l7": 1}}, paths[0]: 2}, route, level := Level()) == 0
    assert level.values == {paths[7]: [1], paths[0]: [2]}


def test_a_name_without_characters_is_a_step_like_any_other() -> None:
    found = compile_filter(['{"": {"b": [1]}}'], SourceKind.SQS)
    assert found.matches(b'{"": {"b": 1}}')
    assert found.matches(b'{".b": 1}')
    assert not found.matches(b'{"b": 1}')


def test_the_budget_is_in_proportion_to_the_record() -> None:
    assert Budget(1000).left - Budget(0).left == 1000 * ENTRIES_PER_ELEMENT
    assert Budget(0).left == ENTRIES_MIN


def test_what_no_path_names_is_not_walked() -> None:
    level = Level()
    record: Any = {"a": {"b": 1}, "z": [{"a": 1}] * 1000}
    assert walk(record, Route.of(["a.b"]), level) == 0
    assert level.values == {"a.b": [1]}


def test_an_element_without_the_first_path_costs_no_entry() -> None:
    found, entries, _ = searched({"a": {"b": [1], "c": [1]}}, {"a": [{"c": 1}] * 1000})
    assert (found, entries) == (False, 0)


class Counted(str):
    """A string that counts how often it is searched."""

    __slots__ = ()
    searches = 0

    def find(self, *arguments: Any) -> int:
        Counted.searches += 1
        return super().find(*arguments)


def test_a_wildcard_is_searched_once_for_each_piece() -> None:
    text = "*" + "a*" * 500 + "b"
    Counted.searches = 0
    assert not matcher(text)(Counted("a" * 400 + "b"))
    assert matcher(text)(Counted("a" * 10_000 + "b"))
    assert Counted.searches <= 2 * len(pieces(text))


def test_no_form_of_a_character_begins_or_ends_its_other_form() -> None:
    for code in range(sys.maxunicode + 1):
        found = folding.forms(chr(code))
        assert all(0 < len(form) <= folding.FORM_MAX for form in found)
        if len(found) > 1:
            one, other = found
            assert not one.startswith(other)
            assert not one.endswith(other)
            assert not other.startswith(one)
            assert not other.endswith(one)


def test_a_pattern_has_bounds_of_its_own() -> None:
    deep = '{"a":' * (DEPTH_MAX - 1) + "[1]" + "}" * (DEPTH_MAX - 1)
    assert reason_invalid(deep, SourceKind.SQS) is None
    assert "nested deeper" in str(reason_invalid(f'{{"a":{deep}}}', SourceKind.SQS))
    assert "nested deeper" in str(reason_invalid("[" * 100_000, SourceKind.SQS))
    steps = ".".join("a" * (DEPTH_MAX + 1))
    assert "steps" in str(reason_invalid(json.dumps({steps: [1]}), SourceKind.SQS))
    halves = '"$or":[{"a":[1]},{"b":[1]}]'
    assert len(parse("{" + ",".join([halves] * 9) + "}")) == 512 <= CONJUNCTIONS_MAX
    with pytest.raises(PatternRefused, match="combinations"):
        parse("{" + ",".join([halves] * 100) + "}")


@pytest.mark.parametrize(
    "record",
    [
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a":' + "[" * 5000 + "1" + "]" * 5000 + "}",
        '{"a":' + "[" * (NESTED_MAX + 1) + "1" + "]" * (NESTED_MAX + 1) + "}",
        '{"a":NaN}', '{"a":1', "[", "{", '{"a":\ud800}', "\ufeff{}", '{"a":1}}', "",
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_does_not_match(record: str) -> None:
    assert not body({"a": [{"exists": True}]}, record)
    assert not body({"b": [{"exists": False}]}, record) or record.startswith('{"a":[[')


@pytest.mark.parametrize(
    ("pattern", "record"),
    [
        ({"a": [{"exists": True}]}, '{"a":' + "9" * 10_000 + "}"),
        ({"a": [{"exists": True}]}, '{"a":' + "[" * NESTED_MAX + "1" + "]" * NESTED_MAX + "}"),
        ({"a": [1]}, '{"a":1,"b":"\\ud800"}'),
        ({"b": [1]}, '{"a":' + "9" * 10_000 + ',"b":1.0}'),
        ({"b": ["\ud800"]}, '{"b":"\\ud800"}'),
        ({"a": [{"numeric": [">", 1e300]}]}, '{"a":1e305}'),
        ({"a": [1]}, '{"a":1,"a":2,"a":1}'),
    ],
)
def test_what_is_odd_but_json_is_evaluated(pattern: Any, record: str) -> None:
    assert body(pattern, record)


@pytest.mark.parametrize("number", ["9" * 10_000, "1e400", "-1e400", "1e-400", "0." + "1" * 5000])
def test_a_number_that_no_double_holds_is_in_no_range_and_equals_its_own_text(number: str) -> None:
    record = f'{{"a":{number}}}'
    assert not body({"a": [{"numeric": [">", -1e300]}]}, record)
    assert compile_filter([f'{{"body":{{"a":[{number}]}}}}'], SourceKind.SQS).matches(
        json.dumps({"body": record}).encode()
    )
    assert body({"a": [{"anything-but": 1}]}, record)


def test_a_condition_is_asked_once_for_each_value() -> None:
    asked = 0

    class Asking:
        admits_absence = False

        def holds(self, value: object) -> bool:
            nonlocal asked
            asked += 1
            return value == 2

    level = Level()
    record: Any = {"a": [{"b": 1}] * 100}
    elements = walk(record, Route.of(["a.b"]), level)
    condition: Condition = Asking()  # type: ignore[assignment]
    assert not consistency.is_satisfied([("a.b", condition)], level, Budget(elements))
    assert asked == 100
