"""What a list of a pattern demands of a field: its values and match expressions, compiled to one test.

Source: lambda.md 4.2; JsonRuleCompiler of AWS's rule engine (what is accepted), ByteMachine (what matches).
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from esm.rules.patterns import folding
from esm.rules.patterns.addresses import Address, address, network
from esm.rules.patterns.numbers import Written, exact
from esm.rules.patterns.reading import Json, Members
from esm.rules.patterns.wildcards import matcher

Scalar: TypeAlias = "str | int | Written | bool | None"
"""A value of a record that is neither object nor array; its numbers are int or Written."""
Test: TypeAlias = Callable[[Scalar], bool]
StringTest: TypeAlias = Callable[[str], bool]

RANGE_TERMS = 4
"""Terms of a numeric expression with two bounds."""


class PatternRefused(ValueError):
    """The pattern is malformed; the message says why, and where in it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What one list demands: any of its parts."""

    strings: frozenset[str]
    constants: tuple[bool | None, ...]
    tests: tuple[Test, ...]
    admits_absence: bool

    def holds(self, value: Scalar) -> bool:
        """Whether a value that is there satisfies it."""
        if type(value) is str and value in self.strings:
            return True
        if (value is None or isinstance(value, bool)) and any(value is constant for constant in self.constants):
            return True
        return any(test(value) for test in self.tests)


def condition(members: list[Json], where: str) -> Condition:
    """Compile the list at a path. Raises: PatternRefused."""
    if not members:
        msg = f"{where} is an empty array"
        raise PatternRefused(msg)
    strings: set[str] = set()
    constants: list[bool | None] = []
    tests: list[Test] = []
    absent = False
    for member in members:
        match member:
            case Written():
                tests.append(_equal_number(member))
            case str() if (found := address(member)) is not None:
                tests.append(_string(_same_address(found)))
            case str():
                strings.add(member)
            case bool() | None:
                constants.append(member)
            case Members() if member == Members([("exists", False)]) and member[0][1] is False:
                absent = True
            case Members():
                tests.append(_expression(member, where))
            case _:
                msg = f"{where} holds an array within its array: a list holds values and match expressions"
                raise PatternRefused(msg)
    return Condition(frozenset(strings), tuple(constants), tuple(tests), absent)


def _expression(members: Members, where: str) -> Test:
    name, value = _only(members, where)
    compiled = _EXPRESSIONS.get(name)
    if compiled is None:
        msg = f"{where}: {name!r} is no match expression"
        raise PatternRefused(msg)
    return compiled(value, f"{where}: {name}")


def _only(members: Members, where: str) -> tuple[str, Json]:
    if len(members) != 1:
        msg = f"{where} has a match expression with {len(members)} members: it has one"
        raise PatternRefused(msg)
    return members[0]


def _text(value: Json, where: str) -> str:
    if type(value) is not str:
        msg = f"{where} is a string"
        raise PatternRefused(msg)
    return value


def _string(test: StringTest) -> Test:
    return lambda value: type(value) is str and test(value)


def _same_address(wanted: Address) -> StringTest:
    return lambda found: address(found) == wanted


def _affix(name: str, value: Json, where: str) -> StringTest:
    if isinstance(value, Members):
        inner, text = _only(value, where)
        if inner != "equals-ignore-case":
            msg = f"{where}: {inner} is no form of it: a string or equals-ignore-case is"
            raise PatternRefused(msg)
        folded = folding.prefix if name == "prefix" else folding.suffix
        return folded(_text(text, f"{where}: {inner}"))
    text = _text(value, where)
    return (lambda found: found.startswith(text)) if name == "prefix" else (lambda found: found.endswith(text))


def _wildcard(text: str, where: str) -> StringTest:
    try:
        return matcher(text)
    except ValueError as error:
        msg = f"{where} has {error}"
        raise PatternRefused(msg) from error


def _cidr(text: str, where: str) -> StringTest:
    try:
        range_ = network(text)
    except ValueError as error:
        msg = f"{where}: {error}"
        raise PatternRefused(msg) from error
    return lambda found: (other := address(found)) is not None and range_.holds(other)


def _number(value: Scalar) -> float | None:
    if isinstance(value, Written) or type(value) is int:
        return exact(value)
    return None


def _equal_number(pattern: Written) -> Test:
    number, text = exact(pattern), str(pattern)

    def equal(value: Scalar) -> bool:
        if not isinstance(value, Written) and type(value) is not int:
            return False
        return str(value) == text or (number is not None and exact(value) == number)

    return equal


def _numeric(value: Json, where: str) -> Test:
    if not isinstance(value, list) or len(value) not in {2, RANGE_TERMS}:
        msg = f"{where} is an array of an operator and a number, or of two of each"
        raise PatternRefused(msg)
    bounds = [_bound(value[at], value[at + 1], where) for at in range(0, len(value), 2)]
    names = [name for name, _ in bounds]
    if len(bounds) == 1:
        return _within(bounds)
    if names[0] not in {">", ">="} or names[1] not in {"<", "<="}:
        msg = f"{where} has two bounds: the first is > or >=, the second < or <="
        raise PatternRefused(msg)
    if bounds[0][1] >= bounds[1][1]:
        msg = f"{where} is empty: the lower bound is less than the upper one"
        raise PatternRefused(msg)
    return _within(bounds)


def _bound(name: Json, limit: Json, where: str) -> tuple[str, float]:
    if type(name) is not str or name not in _COMPARISONS:
        msg = f"{where} has an operator that is none of {', '.join(_COMPARISONS)}"
        raise PatternRefused(msg)
    number = exact(limit) if isinstance(limit, Written) else None
    if number is None:
        msg = f"{where}: what follows {name} is a number that a double holds exactly"
        raise PatternRefused(msg)
    return name, number


def _within(bounds: list[tuple[str, float]]) -> Test:
    comparisons = [(_COMPARISONS[name], limit) for name, limit in bounds]

    def within(value: Scalar) -> bool:
        number = _number(value)
        return number is not None and all(compare(number, limit) for compare, limit in comparisons)

    return within


def _anything_but(value: Json, where: str) -> Test:
    if isinstance(value, Members):
        return _no_such_string(value, where)
    values = value if isinstance(value, list) else [value]
    if values and all(type(one) is str for one in values):
        strings = frozenset(values)
        return lambda found: not (type(found) is str and found in strings)
    numbers = [exact(one) for one in values if isinstance(one, Written)]
    if not values or len(numbers) < len(values):
        msg = f"{where} is a string, a number, a list of strings, a list of numbers, or an object"
        raise PatternRefused(msg)
    if None in numbers:
        msg = f"{where} has a number that a double does not hold exactly"
        raise PatternRefused(msg)
    unwanted = frozenset(numbers)
    return lambda found: (number := _number(found)) is None or number not in unwanted


def _no_such_string(members: Members, where: str) -> Test:
    name, value = _only(members, where)
    where = f"{where}: {name}"
    values = value if isinstance(value, list) else [value]
    if not values:
        msg = f"{where} is an empty list"
        raise PatternRefused(msg)
    tests = [_unwanted(name, _text(one, where), where) for one in values]
    return lambda found: not (type(found) is str and any(test(found) for test in tests))


def _unwanted(name: str, text: str, where: str) -> StringTest:
    match name:
        case "prefix" | "suffix":
            if not text:
                msg = f"{where} is an empty string"
                raise PatternRefused(msg)
            return _affix(name, text, where)
        case "equals-ignore-case":
            return folding.equal(text)
        case "wildcard":
            return _wildcard(text, where)
    msg = f"{where} is no form of it: prefix, suffix, equals-ignore-case and wildcard are"
    raise PatternRefused(msg)


def _exactly(value: Json, where: str) -> Test:
    return _string(_text(value, where).__eq__)


def _prefix(value: Json, where: str) -> Test:
    return _string(_affix("prefix", value, where))


def _suffix(value: Json, where: str) -> Test:
    return _string(_affix("suffix", value, where))


def _equals_ignore_case(value: Json, where: str) -> Test:
    return _string(folding.equal(_text(value, where)))


def _exists(value: Json, where: str) -> Test:
    if value is not True:
        msg = f"{where} is true or false"
        raise PatternRefused(msg)
    return lambda _: True


_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_EXPRESSIONS: dict[str, Callable[[Json, str], Test]] = {
    "exactly": _exactly,
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": lambda value, where: _string(_wildcard(_text(value, where), where)),
    "cidr": lambda value, where: _string(_cidr(_text(value, where), where)),
    "numeric": _numeric,
    "exists": _exists,
    "anything-but": _anything_but,
}
