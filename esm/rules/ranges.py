"""Types and ranges of the request's members, with Lambda's text.

Source: wire-shapes.md 4.8; the botocore service model of Lambda.
"""

from collections.abc import Mapping as Table
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
_BOOLEANS = ("Enabled", "BisectBatchOnFunctionError")
_RECORD_AGE_MIN_S = 60
_CONCURRENCY = (2, 1000)
_POSITIONS = ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")
_RESPONSE_TYPES = ("ReportBatchItemFailures",)
_DESTINATION_LENGTH = 350


def check(request: Table[str, Any]) -> None:
    """Raises: RequestRefused for the first member out of its type or range."""
    for name in ("EventSourceArn", "StartingPosition"):
        _is(request, name, str, "a string")
    for name in _BOOLEANS:
        _is(request, name, bool, "true or false, without quotes")
    for name, (least, most) in _INTEGERS.items():
        _integer(request, name, least, most, _lower(name))
    _record_age(request.get("MaximumRecordAgeInSeconds"))
    _one_of(request.get("StartingPosition"), "startingPosition", _POSITIONS)
    _response_types(request)
    _scaling(request)
    _destinations(request)
    at = request.get("StartingPositionTimestamp")
    if at is not None and (isinstance(at, bool) or not isinstance(at, (int, float))):
        raise _wrong("StartingPositionTimestamp", at, "Unix seconds, a number")


def _response_types(request: Table[str, Any]) -> None:
    types = _is(request, "FunctionResponseTypes", list, "a list")
    for index, value in enumerate(types or ()):
        _one_of(value, f"functionResponseTypes.{index + 1}.member", _RESPONSE_TYPES)
    if len(types or ()) > 1:
        raise _failed(types, "functionResponseTypes", "Member must have length less than or equal to 1")


def _scaling(request: Table[str, Any]) -> None:
    scaling = _is(request, "ScalingConfig", dict, "an object")
    _only(scaling, "ScalingConfig", ("MaximumConcurrency",))
    _integer(scaling or {}, "MaximumConcurrency", *_CONCURRENCY, "scalingConfig.maximumConcurrency")


def _destinations(request: Table[str, Any]) -> None:
    config = _is(request, "DestinationConfig", dict, "an object")
    _only(config, "DestinationConfig", ("OnFailure", "OnSuccess"))
    for name in ("OnFailure", "OnSuccess"):
        one = _is(config or {}, name, dict, "an object")
        _only(one, f"DestinationConfig.{name}", ("Destination",))
        text = _is(one or {}, "Destination", str, "an ARN")
        if text is not None and len(text) > _DESTINATION_LENGTH:
            where = f"destinationConfig.{_lower(name)}.destination"
            raise _failed(text, where, f"Member must have length less than or equal to {_DESTINATION_LENGTH}")


def _is(request: Table[str, Any], name: str, kind: type, word: str) -> Any:  # noqa: ANN401 - as it came
    value = request.get(name)
    if value is not None and not isinstance(value, kind):
        raise _wrong(name, value, word)
    return value


def _integer(request: Table[str, Any], name: str, least: int, most: int, where: str) -> None:
    value = request.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, value, "a whole number, without quotes")
    if value < least:
        raise _failed(value, where, f"Member must have value greater than or equal to {least}")
    if value > most:
        raise _failed(value, where, f"Member must have value less than or equal to {most}")


def _record_age(value: int | None) -> None:
    if value is not None and 0 <= value < _RECORD_AGE_MIN_S:
        raise RequestRefused(f"MaximumRecordAgeInSeconds {value} is not possible: use -1, or 60 to 604800.")


def _one_of(value: object, where: str, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        values = ", ".join(allowed)
        raise _failed(value, where, f"Member must satisfy enum value set: [{values}]", "ValidationException")


def _only(value: Table[str, Any] | None, name: str, known: tuple[str, ...]) -> None:
    for key in value or {}:
        if key not in known:
            raise RequestRefused(f"{name} has no member {key!r}; it takes {', '.join(known)}.")


def _failed(value: object, where: str, constraint: str, exception: str = "ValidationException") -> RequestRefused:
    text = f"1 validation error detected: Value '{value}' at '{where}' failed to satisfy constraint: {constraint}"
    return RequestRefused(text, exception)


def _wrong(name: str, value: object, word: str) -> RequestRefused:
    return RequestRefused(f"{name}: {value!r} is {type(value).__name__}; it must be {word}.", "SerializationException")


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]
