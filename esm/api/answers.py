"""What an operation returns -> an answer on the wire, as the service model describes it; and errors in their shapes.

Source: wire-shapes.md 4.7 (bodies of errors); the rest-json protocol; the `lambda` service model.
"""

import base64
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from typing import Any

import msgspec
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from esm.api.lambda_model import error_shape
from esm.errors import RequestRefused

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


def answer(operation: OperationModel, returned: Table[str, Any]) -> Answer:
    """The answer that brings `returned`, by member of the operation's output; None and unknown members are left out."""
    shape = operation.output_shape
    status = int(operation.http.get("responseCode", 200))
    if not isinstance(shape, StructureShape):
        return Answer(status, {"Content-Type": JSON}, b"")
    headers: dict[str, str] = {"Content-Type": JSON}
    in_body: dict[str, Any] = {}
    payload = shape.serialization.get("payload")
    raw: bytes | None = None
    for name, member in shape.members.items():
        value = returned.get(name)
        if value is None:
            continue
        key = member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "statusCode":
                status = int(value)
            case "header":
                headers[key] = str(value)
            case _ if name == payload:
                raw = value if isinstance(value, bytes) else msgspec.json.encode(_plain(member, value))
            case _ if payload is None:
                in_body[key] = _plain(member, value)
    body = raw or b"" if payload is not None else msgspec.json.encode(in_body)
    return Answer(status, headers, b"" if status == 204 else body)  # noqa: PLR2004 - No Content


def refusal(error: RequestRefused, more: Table[str, str] | None = None) -> Answer:
    """An error as Lambda answers it. `more`: further members of its shape, such as the Reason of a 429."""
    shape = error_shape(error.exception)
    headers = {"Content-Type": JSON, "x-amzn-ErrorType": error.exception}
    text = str(error)
    if shape is None:
        return Answer(error.status, headers, msgspec.json.encode({"message": text}))
    status = int(shape.metadata.get("error", {}).get("httpStatusCode", error.status))
    body: dict[str, str] = {}
    for name, member in shape.members.items():
        value = _error_member(name, text, status, more or {})
        if value is None:
            continue
        if member.serialization.get("location") == "header":
            headers[member.serialization["name"]] = value
        else:
            body[member.serialization.get("name", name)] = value
    return Answer(status, headers, msgspec.json.encode(body))


def _error_member(name: str, text: str, status: int, more: Table[str, str]) -> str | None:
    match name.lower():
        case "type":
            return "User" if status < 500 else "Service"  # noqa: PLR2004 - who is at fault
        case "message":
            return text
        case _:
            return more.get(name)


def _plain(shape: Shape, value: Any) -> Any:  # noqa: ANN401 - whatever the model says
    if isinstance(shape, StructureShape):
        return {
            member.serialization.get("name", name): _plain(member, value[name])
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if isinstance(shape, MapShape):
        return {key: _plain(shape.value, one) for key, one in value.items()}
    if isinstance(shape, ListShape):
        return [_plain(shape.member, one) for one in value]
    return base64.b64encode(value).decode() if shape.type_name == "blob" else value
