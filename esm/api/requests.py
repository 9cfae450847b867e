"""A request on the wire -> the parameters of its operation, as the service model names them.

Law: what the model does not know is passed over, as Lambda does; a null is a value left out. A value of another type
than the model's is refused here (`SerializationException`), one out of its range in `constraints`.
Source: the rest-json protocol, as botocore's serialiser speaks it.
"""

import base64
import math
from collections.abc import Mapping as Table
from collections.abc import Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from esm.errors import RequestRefused

DEPTH_MAX = 20
"""Of values in a body; Lambda's own are not deeper than 5."""


def parsed(
    operation: OperationModel,
    labels: Table[str, str],
    query: Sequence[tuple[str, str]],
    headers: Table[str, str],
    body: bytes,
) -> dict[str, Any]:
    """The parameters, by member: blobs as bytes, times as Unix seconds.

    `query` as decoded pairs; `headers` by name in small letters. Raises: RequestRefused.
    """
    shape = operation.input_shape
    if not isinstance(shape, StructureShape):
        return {}
    payload = shape.serialization.get("payload")
    given: dict[str, Any] = {}
    in_body: dict[str, Shape] = {}
    for name, member in shape.members.items():
        key = member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "uri":
                given[name] = _text_value(member, labels.get(key), name)
            case "querystring":
                given[name] = _from_query(member, key, query, name)
            case "header":
                given[name] = _text_value(member, headers.get(key.lower()), name)
            case _ if name == payload and member.type_name == "blob":
                given[name] = body
            case _ if name == payload:
                given[name] = _value(member, _decoded(body), name, 0) if body.strip() else None
            case _ if payload is None:
                in_body[name] = member
    if in_body:
        given |= _members(in_body, _object(_decoded(body), "the body"), 0)
    return {name: value for name, value in given.items() if value is not None}


def _from_query(shape: Shape, key: str, query: Sequence[tuple[str, str]], place: str) -> Any:  # noqa: ANN401 - any
    found = [value for name, value in query if name == key]
    if isinstance(shape, ListShape):
        return [_text_value(shape.member, value, place) for value in found] or None
    return _text_value(shape, found[0], place) if found else None


def _text_value(shape: Shape, text: str | None, place: str) -> Any:  # noqa: ANN401 - whatever the model says
    """A value that came as text, in a path, a query or a header."""
    if text is None:
        return None
    match shape.type_name:
        case "integer" | "long":
            try:
                return int(text)
            except ValueError:
                raise _wrong(place, "an integer") from None
        case "boolean":
            if text not in ("true", "false"):
                raise _wrong(place, "true or false")
            return text == "true"
        case "timestamp":
            return _time(text, place)
        case _:
            return text


def _decoded(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    if not body.strip():
        return {}
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestRefused(f"Could not parse request body into json: {error}", "SerializationException") from error


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(place, "a JSON object")
    return value


def _members(shapes: Table[str, Shape], value: dict[str, Any], depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise _wrong("the body", f"nested at most {DEPTH_MAX} deep")
    found = {
        name: _value(shape, value[key], name, depth)
        for name, shape in shapes.items()
        if (key := shape.serialization.get("name", name)) in value
    }
    return {name: one for name, one in found.items() if one is not None}


def _value(shape: Shape, value: Any, place: str, depth: int) -> Any:  # noqa: ANN401 - whatever the model says
    """A value of a JSON body as its shape has it."""
    if value is None:
        return None
    if isinstance(shape, StructureShape):
        return _members(shape.members, _object(value, place), depth + 1)
    if isinstance(shape, MapShape):
        given = {key: one for key, one in _object(value, place).items() if one is not None}
        return {key: _value(shape.value, one, place, depth + 1) for key, one in given.items()}
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            raise _wrong(place, "a list")
        return [_value(shape.member, one, place, depth + 1) for one in value if one is not None]
    return _scalar(shape.type_name, value, place)


def _scalar(kind: str, value: Any, place: str) -> Any:  # noqa: ANN401 - whatever the model says
    match kind:
        case "integer" | "long":
            whole = int(value) if isinstance(value, float) and value.is_integer() else value
            return _typed(whole, int, place, "an integer")
        case "boolean":
            return _typed(value, bool, place, "true or false")
        case "double" | "float":
            return float(_typed(value, (int, float), place, "a number"))
        case "timestamp":
            return _time(value, place)
        case "blob":
            return _bytes(_typed(value, str, place, "base64 text"), place)
        case _:
            return _typed(value, str, place, "a string")


def _bytes(text: str, place: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # also where it is not ASCII
        raise _wrong(place, "base64 text") from None


def _typed(value: Any, kind: type | tuple[type, ...], place: str, word: str) -> Any:  # noqa: ANN401 - as given
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(place, word)
    return value


def _time(value: object, place: str) -> float:
    """Unix seconds of a number, an ISO 8601 text or an HTTP date."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise _wrong(place, "a time")
        if isinstance(value, str) and value[:1].isdigit() and "T" in value:
            seconds = datetime.fromisoformat(value).timestamp()
        elif isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            seconds = parsedate_to_datetime(value).timestamp()
        else:
            seconds = float(value)
    except (ValueError, OverflowError):
        raise _wrong(place, "a time") from None
    if not math.isfinite(seconds):
        raise _wrong(place, "a time")
    return seconds


def _wrong(place: str, word: str) -> RequestRefused:
    return RequestRefused(f"{place} must be {word}.", "SerializationException")
