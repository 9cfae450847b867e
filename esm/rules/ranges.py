"""Types and ranges of a request's members, with Lambda's text: every finding, each with its place.

Source: wire-shapes.md 4.8; the botocore service model of Lambda. A list's text is Lambda's form for lists, seen with
other parameters; the texts about types are ours, since a client never sends them.
"""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Table
from dataclasses import dataclass
from typing import Any

from esm.errors import RequestRefused

_INTEGERS = {
    "BatchSize": (1, 10_000),
    "MaximumBatchingWindowInSeconds": (0, 300),
    "ParallelizationFactor": (1, 10),
    "MaximumRecordAgeInSeconds": (-1, 604_800),
    "MaximumRetryAttempts": (-1, 10_000),
    "TumblingWindowInSeconds": (0, 900),
}
_STRINGS = ("FunctionName", "EventSourceArn", "StartingPosition")
_BOOLEANS = ("Enabled", "BisectBatchOnFunctionError")
_CONCURRENCY = (2, 1000)
_POSITIONS = ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")
_RESPONSE_TYPES = ("ReportBatchItemFailures",)
_DESTINATION_LENGTH = 350
_SHOWN_LENGTH = 100
"""A longer text is not shown at all: half a secret could not be recognised, and so not be hidden."""
_INTEGER_BITS = 64
"""A wider number is no number of JSON's usual readers; Python would even refuse to print a very wide one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a request."""

    member: str
    """Where: `BatchSize`, `DestinationConfig.OnFailure.Destination`."""
    error: RequestRefused
    constraint: str | None = None
    """AWS's sentence about a value outside its constraint: several of them go into one text."""


def combined(found: Sequence[Finding]) -> RequestRefused:
    """The one error that AWS answers with: the first, or all broken constraints together where the first is one."""
    constraints = [one.constraint for one in found if one.constraint is not None]
    if found[0].constraint is None or len(constraints) == 1:
        return found[0].error
    text = f"{len(constraints)} validation errors detected: {'; '.join(constraints)}"
    return RequestRefused(text, "ValidationException")


def findings(request: Table[str, Any]) -> list[Finding]:
    """Every member of a wrong type, then every one out of its range."""
    found = [
        *_function_name(request),
        *_each(_STRINGS, lambda name: _is(request, name, str, "a string", name)),
        *_each(_BOOLEANS, lambda name: _is(request, name, bool, "true or false, without quotes", name)),
        *_each(_INTEGERS, lambda name: _integer(request, name, *_INTEGERS[name], name)),
        *_starting_position(request.get("StartingPosition")),
        *_response_types(request),
        *_scaling(request),
        *_destinations(request),
    ]
    return sorted(found, key=lambda one: one.constraint is not None)


def wrong(member: str, value: object, word: str) -> Finding:
    """A value of the wrong type."""
    text = f"{member}: {_shown(value)} is {type(value).__name__}; it must be {word}."
    return Finding(member, RequestRefused(text, "SerializationException"))


def _each(names: Iterable[str], look: Any) -> Iterator[Finding]:  # noqa: ANN401 - name -> findings
    for name in names:
        yield from look(name)


def _function_name(request: Table[str, Any]) -> Iterator[Finding]:
    name = request.get("FunctionName")
    if name is None:
        yield _failed("FunctionName", "null", "functionName", "Member must not be null")
    elif name == "":
        yield _failed("FunctionName", "''", "functionName", "Member must have length greater than or equal to 1")


def _starting_position(value: object) -> Iterator[Finding]:
    if isinstance(value, str) and value not in _POSITIONS:
        constraint = f"Member must satisfy enum value set: [{', '.join(_POSITIONS)}]"
        yield _failed("StartingPosition", f"'{value}'", "startingPosition", constraint)


def _response_types(request: Table[str, Any]) -> Iterator[Finding]:
    name = "FunctionResponseTypes"
    types = request.get(name)
    if not isinstance(types, list):
        yield from _is(request, name, list, "a list, such as [ReportBatchItemFailures]", name)
        return
    if not all(isinstance(one, str) for one in types):
        yield wrong(name, types, "a list of names, such as [ReportBatchItemFailures]")
        return
    shown = f"'[{', '.join(types)}]'"
    if any(one not in _RESPONSE_TYPES for one in types):
        allowed = f"[Member must satisfy enum value set: [{', '.join(_RESPONSE_TYPES)}]]"
        yield _failed(name, shown, "functionResponseTypes", f"Member must satisfy constraint: {allowed}")
    elif len(types) > 1:
        yield _failed(name, shown, "functionResponseTypes", "Member must have length less than or equal to 1")


def _scaling(request: Table[str, Any]) -> Iterator[Finding]:
    scaling = request.get("ScalingConfig")
    yield from _is(request, "ScalingConfig", dict, "an object", "ScalingConfig")
    if isinstance(scaling, dict):
        yield from _only(scaling, "ScalingConfig", ("MaximumConcurrency",))
        yield from _integer(scaling, "MaximumConcurrency", *_CONCURRENCY, "ScalingConfig.MaximumConcurrency")


def _destinations(request: Table[str, Any]) -> Iterator[Finding]:
    config = request.get("DestinationConfig")
    yield from _is(request, "DestinationConfig", dict, "an object", "DestinationConfig")
    if not isinstance(config, dict):
        return
    yield from _only(config, "DestinationConfig", ("OnFailure", "OnSuccess"))
    for name in ("OnFailure", "OnSuccess"):
        path = f"DestinationConfig.{name}"
        yield from _is(config, name, dict, "an object", path)
        one = config.get(name)
        if isinstance(one, dict):
            yield from _only(one, path, ("Destination",))
            yield from _is(one, "Destination", str, "an ARN", f"{path}.Destination")
            text = one.get("Destination")
            if isinstance(text, str) and len(text) > _DESTINATION_LENGTH:
                limit = f"Member must have length less than or equal to {_DESTINATION_LENGTH}"
                yield _failed(f"{path}.Destination", f"'{text}'", _lower(f"{path}.Destination"), limit)


def _is(table: Table[str, Any], name: str, kind: type, word: str, member: str) -> Iterator[Finding]:
    value = table.get(name)
    if value is not None and not isinstance(value, kind):
        yield wrong(member, value, word)


def _integer(table: Table[str, Any], name: str, least: int, most: int, member: str) -> Iterator[Finding]:
    value = table.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value.bit_length() > _INTEGER_BITS:
        yield wrong(member, value, "a whole number, without quotes")
    elif value < least:
        limit = f"Member must have value greater than or equal to {least}"
        yield _failed(member, f"'{value}'", _lower(member), limit)
    elif value > most:
        limit = f"Member must have value less than or equal to {most}"
        yield _failed(member, f"'{value}'", _lower(member), limit)


def _only(table: Table[str, Any], member: str, known: tuple[str, ...]) -> Iterator[Finding]:
    for key in table:
        if key not in known:
            text = f"{member} has no member {key!r}; it takes {', '.join(known)}."
            yield Finding(f"{member}.{key}", RequestRefused(text))


def _failed(member: str, shown: str, where: str, constraint: str) -> Finding:
    sentence = f"Value {shown} at '{where}' failed to satisfy constraint: {constraint}"
    error = RequestRefused(f"1 validation error detected: {sentence}", "ValidationException")
    return Finding(member, error, sentence)


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > _INTEGER_BITS:
        return "a number of more than 64 bits"
    if isinstance(value, str) and len(value) > _SHOWN_LENGTH:
        return f"a text of {len(value)} characters"
    return repr(value) if isinstance(value, str | int | float | bool) else "this"


def _lower(member: str) -> str:
    return ".".join(name[0].lower() + name[1:] for name in member.split("."))
