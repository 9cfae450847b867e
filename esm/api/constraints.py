"""The ranges, enumerations and patterns of the service model, with Lambda's texts about what lies outside.

Law: every broken constraint is named in one answer, in the order of the model, as Lambda does. What Lambda decides by
meaning (which parameters fit which source, say) is not looked at here.
Source: wire-shapes.md 4.7; the `lambda` service model.
"""

import re
from collections.abc import Iterator
from collections.abc import Mapping as Table
from functools import cache
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape

from esm.errors import RequestRefused

_LOOSE = frozenset({("CreateEventSourceMapping", "EventSourceArn"), ("ListEventSourceMappings", "EventSourceArn")})
"""Members whose pattern is not looked at: emulators have regions that are none of AWS (`ddblocal`)."""

_ENUMS = {
    frozenset({"LATEST", "AT_TIMESTAMP", "TRIM_HORIZON"}): ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON"),
}
"""Enumerations whose order in Lambda's text was recorded; the others stand in the model's order."""

_TAGGABLE = (
    r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:(function:[a-zA-Z0-9-_]+(:"
    r"(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)|code-signing-config:csc-[a-z0-9]{17}|event-source-mapping:[0-9a"
    r"-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|capacity-provider:[a-zA-Z0-9-_]+)"
)
_PATTERNS = {"TaggableResource": _TAGGABLE}
"""Patterns that Lambda's text shows otherwise than the model, as recorded."""

_SHOWN_LENGTH = 2000
"""Of a value in a text: a longer one is cut."""


def check(operation: OperationModel, given: Table[str, Any]) -> None:
    """Refuse parameters outside their constraints. Raises: RequestRefused (`ValidationException`)."""
    shape = operation.input_shape
    if not isinstance(shape, StructureShape):
        return
    found = list(_of_structure(operation.name, shape, given, ""))
    if found:
        plural = "" if len(found) == 1 else "s"
        text = f"{len(found)} validation error{plural} detected: {'; '.join(found)}"
        raise RequestRefused(text, "ValidationException")


def _of_structure(operation: str, shape: StructureShape, given: Table[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if given.get(name) is None:
            yield _failed("null", path + _lower(name), "Member must not be null")
    for name, member in shape.members.items():
        if given.get(name) is not None:
            is_loose = not path and (operation, name) in _LOOSE
            yield from _of(operation, member, given[name], path + _lower(name), is_loose=is_loose)


def _of(operation: str, shape: Shape, value: Any, path: str, *, is_loose: bool = False) -> Iterator[str]:  # noqa: ANN401
    match shape:
        case StructureShape():
            yield from _of_structure(operation, shape, value, f"{path}.")
        case ListShape():
            yield from _length(shape, value, path, f"[{', '.join(map(str, value))}]")
            for index, one in enumerate(value):
                yield from _of(operation, shape.member, one, f"{path}.{index + 1}.member")
        case MapShape():
            yield from _length(shape, value, path, str(value))
            for key, one in value.items():
                yield from _of(operation, shape.key, key, f"{path}.key")
                yield from _of(operation, shape.value, one, f"{path}.{key}.member")
        case StringShape():
            yield from _of_text(shape, value, path, is_loose=is_loose)
        case _ if shape.type_name == "blob":
            yield from _length(shape, value, path, "java.nio.HeapByteBuffer")
        case _ if shape.type_name in ("integer", "long", "double", "float"):
            yield from _bounds(shape, value, path)


def _of_text(shape: StringShape, value: str, path: str, *, is_loose: bool) -> Iterator[str]:
    if shape.enum:
        if value not in shape.enum:
            allowed = ", ".join(_ENUMS.get(frozenset(shape.enum), tuple(shape.enum)))
            yield _failed(f"'{value}'", path, f"Member must satisfy enum value set: [{allowed}]")
        return
    yield from _length(shape, value, path, value)
    pattern = shape.metadata.get("pattern")
    if pattern is not None and not is_loose and not _compiled(pattern).fullmatch(value):
        shown = _PATTERNS.get(shape.name, pattern)
        yield _failed(f"'{value}'", path, f"Member must satisfy regular expression pattern: {shown}")


def _length(shape: Shape, value: Any, path: str, shown: str) -> Iterator[str]:  # noqa: ANN401 - what has a length
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if most is not None and len(value) > most:
        yield _failed(f"'{shown}'", path, f"Member must have length less than or equal to {most}")
    if least is not None and len(value) < least:
        yield _failed(f"'{shown}'", path, f"Member must have length greater than or equal to {least}")


def _bounds(shape: Shape, value: float, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if most is not None and value > most:
        yield _failed(f"'{value}'", path, f"Member must have value less than or equal to {most}")
    if least is not None and value < least:
        yield _failed(f"'{value}'", path, f"Member must have value greater than or equal to {least}")


def _failed(shown: str, path: str, constraint: str) -> str:
    cut = shown if len(shown) <= _SHOWN_LENGTH else shown[:_SHOWN_LENGTH] + "..."
    return f"Value {cut} at '{path}' failed to satisfy constraint: {constraint}"


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    r"""A pattern of the model; one with Java's classes of Unicode (`\p{L}`), which Python has not, takes everything."""
    return re.compile(r"(?s).*" if r"\p" in pattern else pattern, re.ASCII)
