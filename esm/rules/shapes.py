"""What a value may be, as tables of types and ranges, and Lambda's text about a value that is something else.

Law: a null is a value left out. The same tables check a request, turn pasted text into numbers, and become the JSON
schema for editors, so that these three never differ.
Source: the botocore service model of Lambda (constraints). The texts about types are ours, since a client never sends
such values; a list's text is Lambda's form for lists, seen with other parameters.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Table
from dataclasses import dataclass, field

from esm.errors import RequestRefused

_SHOWN_LENGTH = 100
"""A longer text is not shown at all: half a secret could not be recognised, and so not be hidden."""
_INTEGER_BITS = 64
"""A wider number is no number of JSON's usual readers; Python would even refuse to print a very wide one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a request."""

    member: str
    """Where: `BatchSize`, `DestinationConfig.OnFailure.Destination`, `FilterCriteria.Filters[0].Pattern`."""
    error: RequestRefused
    constraint: str | None = None
    """AWS's sentence about a value outside its constraint: several of them go into one text."""
    reason: str | None = None
    """What the API does not say: why a filter pattern is invalid. For `esm validate` and the log."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Text:
    """A string; with `choices`, one of them."""

    least: int = 0
    most: int | None = None
    choices: tuple[str, ...] = ()
    word: str = "a string"


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""


MOMENT_FORM = "Unix seconds, or a time with its zone such as 2026-01-31T12:00:00Z"


@dataclass(frozen=True, slots=True)
class Moment:
    """Unix seconds, or a time with its zone as text."""


@dataclass(frozen=True, slots=True)
class Names:
    """A list of at most `most` of the `choices`."""

    choices: tuple[str, ...]
    most: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list, each element of one shape."""

    item: "Shape"


@dataclass(frozen=True, slots=True)
class Words:
    """A table with free names and strings."""


@dataclass(frozen=True, slots=True)
class Members:
    """A table with known names."""

    of: "Table[str, Shape]" = field(hash=False)


@dataclass(frozen=True, slots=True)
class Free:
    """Anything: looked at elsewhere, or refused by name."""


Shape = Whole | Text | Flag | Moment | Names | Items | Words | Members | Free


def findings(shape: Shape, value: object, member: str) -> Iterator[Finding]:  # noqa: C901 - one case a shape
    """What is wrong with a value at the place `member`."""
    if value is None:
        return
    match shape:
        case Whole():
            yield from _whole(shape, value, member)
        case Text():
            yield from _text(shape, value, member)
        case Flag():
            if not isinstance(value, bool):
                yield wrong(member, value, "true or false, without quotes")
        case Names():
            yield from _names(shape, value, member)
        case Items(item):
            yield from _items(item, value, member)
        case Words():
            if not isinstance(value, dict) or not all(isinstance(one, str | None) for one in value.values()):
                yield wrong(member, value, "a table of names and strings, numbers in quotes")
        case Members(members):
            yield from _members(members, value, member)
        case Moment():
            yield from _moment(value, member)
        case Free():
            pass


def wrong(member: str, value: object, word: str) -> Finding:
    """A value of the wrong type, named as YAML and JSON see it."""
    text = f"{member}: {_shown(value)} is {_KINDS.get(type(value), type(value).__name__)}; it must be {word}."
    return Finding(member, RequestRefused(text, "SerializationException"))


def failed(member: str, shown: str, constraint: str) -> Finding:
    """A value outside its constraint, in Lambda's words."""
    sentence = f"Value {shown} at '{_lower(member)}' failed to satisfy constraint: {constraint}"
    error = RequestRefused(f"1 validation error detected: {sentence}", "ValidationException")
    return Finding(member, error, sentence)


def combined(found: Sequence[Finding]) -> RequestRefused:
    """The one error that AWS answers with: the first, or all broken constraints together where the first is one."""
    constraints = [one.constraint for one in found if one.constraint is not None]
    if found[0].constraint is None or len(constraints) == 1:
        return found[0].error
    text = f"{len(constraints)} validation errors detected: {'; '.join(constraints)}"
    return RequestRefused(text, "ValidationException")


def _whole(shape: Whole, value: object, member: str) -> Iterator[Finding]:
    if isinstance(value, bool) or not isinstance(value, int) or value.bit_length() > _INTEGER_BITS:
        yield wrong(member, value, "a whole number, without quotes")
    elif value < shape.least:
        yield failed(member, f"'{value}'", f"Member must have value greater than or equal to {shape.least}")
    elif value > shape.most:
        yield failed(member, f"'{value}'", f"Member must have value less than or equal to {shape.most}")


def _text(shape: Text, value: object, member: str) -> Iterator[Finding]:
    if not isinstance(value, str):
        yield wrong(member, value, shape.word)
    elif shape.choices and value not in shape.choices:
        yield failed(member, f"'{value}'", f"Member must satisfy enum value set: [{', '.join(shape.choices)}]")
    elif len(value) < shape.least:
        yield failed(member, f"'{value}'", f"Member must have length greater than or equal to {shape.least}")
    elif shape.most is not None and len(value) > shape.most:
        yield failed(member, f"'{value}'", f"Member must have length less than or equal to {shape.most}")


def _moment(value: object, member: str) -> Iterator[Finding]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        yield wrong(member, value, MOMENT_FORM)


def _names(shape: Names, value: object, member: str) -> Iterator[Finding]:
    word = f"a list of names, such as [{shape.choices[0]}]"
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        yield wrong(member, value, word)
        return
    shown = f"'[{', '.join(value)}]'"
    if any(one not in shape.choices for one in value):
        allowed = f"[Member must satisfy enum value set: [{', '.join(shape.choices)}]]"
        yield failed(member, shown, f"Member must satisfy constraint: {allowed}")
    elif len(value) > shape.most:
        yield failed(member, shown, f"Member must have length less than or equal to {shape.most}")


def _members(members: "Table[str, Shape]", value: object, member: str) -> Iterator[Finding]:
    if not isinstance(value, dict):
        yield wrong(member, value, "a table")
        return
    for key in value:
        if key not in members:
            text = f"{member} has no member {key!r}; it takes {', '.join(members)}."
            yield Finding(f"{member}.{key}", RequestRefused(text))
    for name, shape in members.items():
        yield from findings(shape, value.get(name), f"{member}.{name}")


def _items(item: Shape, value: object, member: str) -> Iterator[Finding]:
    if not isinstance(value, list):
        yield wrong(member, value, "a list")
        return
    for index, one in enumerate(value):
        yield from findings(item, one, f"{member}[{index}]")


_KINDS = {
    str: "a string", bool: "a boolean", int: "a number", float: "a decimal number", list: "a list", dict: "a table",
}  # fmt: skip


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > _INTEGER_BITS:
        return "a number of more than 64 bits"
    if isinstance(value, str) and len(value) > _SHOWN_LENGTH:
        return f"a text of {len(value)} characters"
    return repr(value) if isinstance(value, str | int | float | bool) else "this"


def _lower(member: str) -> str:
    """A place in Lambda's words: `filterCriteria.filters.1.member.pattern`."""
    counted = re.sub(r"\[(\d+)\]", lambda match: f".{int(match[1]) + 1}.member", member)
    return ".".join(name[0].lower() + name[1:] for name in counted.split(".") if name)
