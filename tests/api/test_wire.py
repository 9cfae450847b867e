"""What botocore sends is what is understood, and what is answered is what botocore reads."""

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.utils import percent_encode_sequence
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from esm.api import answers, constraints, lambda_model, offered, requests
from esm.api.lambda_model import operations, routed
from esm.errors import RequestRefused

NAMES = [one.name for one in operations()]
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
HEADER_TEXT = st.from_regex(r"[a-zA-Z0-9=/+_-]{1,20}", fullmatch=True)


@st.composite
def values(  # noqa: PLR0911 - one for each kind of shape
    draw: DrawFn, shape: Shape, location: str | None = None, depth: int = 0
) -> Any:
    """A value that a client may send for a shape."""
    match shape:
        case StructureShape():
            return draw(parameters(shape, depth + 1))
        case ListShape():
            return draw(st.lists(values(shape.member, location, depth + 1), max_size=0 if depth > 4 else 2))
        case MapShape():
            value = values(shape.value, location, depth + 1)
            return draw(st.dictionaries(values(shape.key, None, depth + 1), value, max_size=2))
        case StringShape(enum=[_, *_]):
            return draw(st.sampled_from(shape.enum))
    match shape.type_name:
        case "boolean":
            return draw(st.booleans())
        case "integer" | "long":
            return draw(st.integers(-(2**31), 2**31))
        case "double" | "float":
            return draw(st.floats(allow_nan=False, allow_infinity=False, width=32))
        case "timestamp":
            return draw(st.integers(0, 2**31))
        case "blob":
            return draw(st.binary(max_size=20))
        case _:
            return draw(HEADER_TEXT if location == "header" else TEXT)


@st.composite
def parameters(draw: DrawFn, shape: StructureShape, depth: int = 0) -> dict[str, Any]:
    """Parameters of a structure: everything that is required, and some of the rest."""
    found = {}
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        if name in shape.required_members or location == "uri" or (depth < 4 and draw(st.booleans())):
            found[name] = draw(values(member, location, depth))
    return found


@given(st.data(), st.sampled_from(NAMES))
@settings(max_examples=150)
def test_what_botocore_sends_is_understood(data: st.DataObject, name: str) -> None:
    operation = lambda_model.service().operation_model(name)
    shape = operation.input_shape
    sent = data.draw(parameters(shape)) if isinstance(shape, StructureShape) else {}
    made = create_serializer("rest-json", include_validation=False).serialize_to_request(dict(sent), operation)
    path, _, fixed = made["url_path"].partition("?")
    text = percent_encode_sequence(made["query_string"])
    query = parse_qsl("&".join(part for part in (fixed, text) if part), keep_blank_values=True)
    found = routed(made["method"], path, dict(query))
    assert found.operation.name == name
    body = made["body"]
    body = body.encode() if isinstance(body, str) else bytes(body)
    headers = {key.lower(): value for key, value in made["headers"].items()}
    understood = requests.parsed(operation, found.labels, query, headers, body)
    assert understood == nothing(shape) | {
        key: value for key, value in sent.items() if not is_unsaid(shape, key, value)
    }


def nothing(shape: Shape | None) -> dict[str, Any]:
    """What is always there: a payload, if only of no bytes or no members."""
    payload = shape.serialization.get("payload") if isinstance(shape, StructureShape) else None
    if payload is None:
        return {}
    return {payload: b"" if shape.members[payload].type_name == "blob" else {}}


def is_unsaid(shape: StructureShape, name: str, value: Any) -> bool:
    """Whether a client sends nothing for a value: an empty list in a query."""
    return shape.members[name].serialization.get("location") == "querystring" and value == []


RAW = {"Invoke", "InvokeWithResponseStream"}
"""What they bring is no text for botocore's parser of JSON: the end-to-end tests look at it."""


@given(st.data(), st.sampled_from([name for name in NAMES if name not in RAW]))
@settings(max_examples=150)
def test_what_is_answered_is_what_botocore_reads(data: st.DataObject, name: str) -> None:
    operation = lambda_model.service().operation_model(name)
    shape = operation.output_shape
    if not isinstance(shape, StructureShape):
        assert answers.answer(operation, {}).body == b""
        return
    given = data.draw(parameters(shape))
    given |= {name: 200 for name, one in shape.members.items() if one.serialization.get("location") == "statusCode"}
    assert read(operation, answers.answer(operation, given)) == given


def read(operation: OperationModel, made: answers.Answer) -> dict[str, Any]:
    parser = create_parser("rest-json")
    parser._timestamp_parser = lambda value: value
    told = {"status_code": made.status, "headers": made.headers, "body": made.body}
    found = parser.parse(told, operation.output_shape)
    del found["ResponseMetadata"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_pattern_of_the_model_can_be_read(name: str) -> None:
    shape = lambda_model.service().operation_model(name).input_shape
    if isinstance(shape, StructureShape):
        deep(shape, set())


def deep(shape: Shape, seen: set[str]) -> None:
    if "pattern" in shape.metadata:
        constraints._compiled(shape.metadata["pattern"])
    if shape.name in seen:
        return
    seen.add(shape.name)
    match shape:
        case StructureShape():
            for member in shape.members.values():
                deep(member, seen)
        case ListShape():
            deep(shape.member, seen)
        case MapShape():
            deep(shape.key, seen)
            deep(shape.value, seen)


def refusal_of(name: str, **given: Any) -> str:
    with pytest.raises(RequestRefused) as refused:
        constraints.check(lambda_model.service().operation_model(name), given)
    assert (refused.value.exception, refused.value.status) == ("ValidationException", 400)
    return str(refused.value)


def test_constraints_are_refused_in_lambdas_words() -> None:
    assert refusal_of("CreateEventSourceMapping", FunctionName="f", StartingPosition="invalid") == (
        "1 validation error detected: Value 'invalid' at 'startingPosition' failed to satisfy constraint: Member must"
        " satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
    )
    arn = "arn:aws:lambda:us-east-1:111111111111:event-source-mapping:00000000-0000-0000-0000-000000000000"
    assert refusal_of("UntagResource", Resource=arn) == (
        "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"
    )
    assert refusal_of("ListTags", Resource="nothing") == (
        "1 validation error detected: Value 'nothing' at 'resource' failed to satisfy constraint: Member must satisfy"
        r" regular expression pattern: arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}"
        r":\d{12}:(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)|code-signing-config:csc-"
        r"[a-z0-9]{17}|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
        r"|capacity-provider:[a-zA-Z0-9-_]+)"
    )
    assert refusal_of("CreateEventSourceMapping", BatchSize=0, MaximumBatchingWindowInSeconds=301) == (
        "3 validation errors detected: Value null at 'functionName' failed to satisfy constraint: Member must not be"
        " null; Value '0' at 'batchSize' failed to satisfy constraint: Member must have value greater than or equal to"
        " 1; Value '301' at 'maximumBatchingWindowInSeconds' failed to satisfy constraint: Member must have value less"
        " than or equal to 300"
    )
    nested = {"Filters": [{"Pattern": "x" * 4097}]}
    assert "at 'filterCriteria.filters.1.member.pattern' failed" in refusal_of(
        "CreateEventSourceMapping", FunctionName="f", FilterCriteria=nested
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "Could not parse request body into json"),
        (b"[]", "the body must be a JSON object."),
        (b'{"BatchSize": "1"}', "BatchSize must be an integer."),
        (b'{"BatchSize": true}', "BatchSize must be an integer."),
        (b'{"Enabled": 1}', "Enabled must be true or false."),
        (b'{"FunctionName": 1}', "FunctionName must be a string."),
        (b'{"StartingPositionTimestamp": "soon"}', "StartingPositionTimestamp must be a time."),
        (b'{"StartingPositionTimestamp": 1e400}', "Could not parse"),
        (b'{"FunctionResponseTypes": {}}', "FunctionResponseTypes must be a list."),
        (b'{"Tags": []}', "Tags must be a JSON object."),
        (b"[" * 100_000, "Could not parse request body into json"),
        (b'{"a": "\xff"}', "Could not parse request body into json"),
    ],
)
def test_a_body_that_is_none_is_refused(body: bytes, text: str) -> None:
    operation = lambda_model.service().operation_model("CreateEventSourceMapping")
    with pytest.raises(RequestRefused, match=text) as refused:
        requests.parsed(operation, {}, [], {}, body)
    assert refused.value.exception == "SerializationException"


def test_what_the_model_does_not_know_and_nulls_are_passed_over() -> None:
    operation = lambda_model.service().operation_model("CreateEventSourceMapping")
    given = {"FunctionName": "f", "Other": [1], "BatchSize": None, "Enabled": False, "Tags": {"a": None, "b": "c"}}
    found = requests.parsed(operation, {}, [], {}, json.dumps(given | {"FunctionResponseTypes": [None]}).encode())
    assert found == {"FunctionName": "f", "Enabled": False, "Tags": {"b": "c"}, "FunctionResponseTypes": []}


@pytest.mark.parametrize("text", ["?", "\u00e9", "YQ"])
def test_bytes_come_as_base64(text: str) -> None:
    operation = lambda_model.service().operation_model("PublishLayerVersion")
    with pytest.raises(RequestRefused, match="ZipFile must be base64 text"):
        requests.parsed(operation, {}, [], {}, json.dumps({"Content": {"ZipFile": text}}).encode())
    found = requests.parsed(operation, {}, [], {}, b'{"Content": {"ZipFile": "YQ=="}}')
    assert found == {"Content": {"ZipFile": b"a"}}


def test_times_come_in_every_form_that_clients_use() -> None:
    operation = lambda_model.service().operation_model("CreateEventSourceMapping")
    for text in (
        "1769860800",
        '"2026-01-31T12:00:00Z"',
        '"Sat, 31 Jan 2026 12:00:00 GMT"',
        '"1769860800"',
        "1769860800.0",
    ):
        body = f'{{"StartingPositionTimestamp": {text}}}'.encode()
        assert requests.parsed(operation, {}, [], {}, body) == {"StartingPositionTimestamp": 1769860800.0}


def test_a_path_is_matched_as_it_came() -> None:
    assert routed("GET", "/2015-03-31/functions/a%2Fb", {}).labels == {"FunctionName": "a/b"}
    assert routed("GET", "/2015-03-31/event-source-mappings/", {}).operation.name == "ListEventSourceMappings"
    assert routed("GET", "/2018-10-31/layers", {"find": "LayerVersion"}).operation.name == "GetLayerVersionByArn"
    assert routed("GET", "/2018-10-31/layers", {}).operation.name == "ListLayers"
    for method, path in (("GET", "/2015-03-31/functions/a/b"), ("TRACE", "/2015-03-31/functions"), ("GET", "/")):
        with pytest.raises(RequestRefused, match="is no operation") as refused:
            routed(method, path, {})
        assert refused.value.status == 404


def error(name: str, text: str = "why") -> tuple[int, dict[str, str], Any]:
    made = answers.refusal(RequestRefused(text, name))
    return made.status, made.headers, json.loads(made.body)


def test_errors_have_the_recorded_shapes() -> None:
    kind = {"Content-Type": "application/json"}
    assert error("InvalidParameterValueException") == (
        400, kind | {"x-amzn-ErrorType": "InvalidParameterValueException"}, {"Type": "User", "message": "why"}
    )  # fmt: skip
    assert error("ResourceConflictException")[::2] == (409, {"Type": "User", "message": "why"})
    assert error("ResourceNotFoundException")[::2] == (404, {"Type": "User", "Message": "why"})
    assert error("ValidationException")[::2] == (400, {"message": "why"})
    assert error("ServiceException")[::2] == (500, {"Type": "Service", "Message": "why"})


def test_what_is_not_offered_says_so_and_what_to_do() -> None:
    refused = offered.refused("CreateFunctionUrlConfig")
    assert (refused.status, str(refused)) == (
        501, "esm does not offer CreateFunctionUrlConfig: function URLs are not supported here."
    )  # fmt: skip
    assert "functions: in the configuration file" in str(offered.refused("CreateFunction"))
    assert "The README lists" in str(offered.refused("GetAccountSettings"))
    assert offered.OFFERED.keys() <= set(NAMES)
    assert offered.table().count("\n") == len(NAMES) + 1
