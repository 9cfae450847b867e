"""`esm schema`: the JSON schema of a configuration file, for editors.

Law: it is made from the tables that validation reads, and so cannot say anything else. It takes every file that
`esm validate` takes; what only a whole file shows (a window that a FIFO queue does not take) is left to `esm validate`.
"""

from collections.abc import Mapping as Table
from typing import Any

from esm.config.connections import MEMBERS, NAME
from esm.config.defaults import ALLOWED, TYPES
from esm.config.members import BEHIND_URL, HEADER_FROM, HOSTED, IN_LAMBDA, PULLING
from esm.config.pasting import OF_A_RESOURCE, READ_ONLY, RESOURCE
from esm.config.pulled_functions import PORT_MAX
from esm.config.statuses import LEAST, MOST
from esm.config.where import SERVICES
from esm.rules.parameters import PARAMETERS
from esm.rules.shapes import Flag, Free, Items, Members, Moment, Names, Shape, Text, Whole, Words

Schema = dict[str, Any]

_NULL: Schema = {"type": "null"}
_SUBSTITUTED: Schema = {"type": "string", "pattern": r"\$\{"}
_TEXT: Schema = {"type": ["string", "null"]}
_WORD: Schema = {"type": ["string", "number", "boolean", "null"]}
_STATUS: Schema = {"anyOf": [{"type": "integer", "minimum": LEAST, "maximum": MOST}, {"type": "string"}]}
_NUMBER_IN_QUOTES: Schema = {"type": "string", "pattern": "^[+-]?[0-9]{1,19}$"}
_FLAG_IN_QUOTES: Schema = {"enum": ["true", "True", "false", "False"]}


def schema() -> Schema:
    """The schema of one file, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "esm",
        "description": "Configuration of esm, AWS Lambda's event side.",
        **_object({
            "region": {**_TEXT, "description": "Such as us-east-1; without it ESM_REGION."},
            "account_id": {**_TEXT, "description": "Twelve digits in quotes; without it ESM_ACCOUNT_ID."},
            "endpoint_url": {**_TEXT, "description": "Endpoint of every AWS service; without it ESM_ENDPOINT_URL."},
            "endpoints": _object(dict.fromkeys(SERVICES, _TEXT)),
            "connections": _named(_object(dict.fromkeys(MEMBERS, _TEXT))),
            "functions": _named({"oneOf": [_hosted(), _behind_url(), _pulling(), _in_lambda()]}),
            "defaults": _object({**_parameters(ALLOWED), **{kind: _of_type(kind) for kind in TYPES}}),
            "mappings": {"type": ["array", "null"], "items": {"anyOf": [_mapping(), _resource()]}},
        }),
    }  # fmt: skip


def of_shape(shape: Shape, *, is_pasted: bool = False) -> Schema:  # noqa: C901 - one case a shape
    """The schema of a shape; pasted numbers and booleans may stand in quotes."""
    match shape:
        case Whole(least, most):
            number = {"type": "integer", "minimum": least, "maximum": most}
            found: Schema = {"anyOf": [number, _SUBSTITUTED, _NULL, *([_NUMBER_IN_QUOTES] if is_pasted else [])]}
        case Flag():
            found = {"anyOf": [{"type": "boolean"}, _SUBSTITUTED, _NULL, *([_FLAG_IN_QUOTES] if is_pasted else [])]}
        case Text():
            found = _of_text(shape)
        case Names(choices, most):
            found = {"type": ["array", "null"], "maxItems": most, "items": {"anyOf": [_enum(choices), _SUBSTITUTED]}}
        case Items(item):
            found = {"type": ["array", "null"], "items": of_shape(item, is_pasted=is_pasted)}
        case Words():
            found = {"type": ["object", "null"], "additionalProperties": _WORD if is_pasted else _TEXT}
        case Members(members):
            inner = {name: of_shape(one, is_pasted=is_pasted) for name, one in members.items()}
            if "Pattern" in inner:
                inner["Pattern"] = {"anyOf": [inner["Pattern"], {"type": "object"}]}
            found = _object(inner)
        case Moment():
            found = {"type": ["number", "string", "null"]}
        case Free():
            found = {}
    return found


def _of_text(shape: Text) -> Schema:
    if shape.choices:
        return {"anyOf": [_enum(shape.choices), _SUBSTITUTED, _NULL]}
    limits = {"maxLength": shape.most} if shape.most is not None else {}
    return {**_TEXT, **limits}


def _enum(choices: tuple[str, ...]) -> Schema:
    return {"enum": list(choices)}


def _object(members: Table[str, Schema], **more: Any) -> Schema:  # noqa: ANN401 - keywords of JSON schema
    return {"type": ["object", "null"], "properties": dict(members), "additionalProperties": False, **more}


def _named(one: Schema) -> Schema:
    names = {"pattern": f"^{NAME.pattern}$"}
    return {"type": ["object", "null"], "additionalProperties": one, "propertyNames": names}


def _parameters(names: tuple[str, ...]) -> dict[str, Schema]:
    found = {}
    for name in names:
        one = of_shape(PARAMETERS[name].shape, is_pasted=True)
        if isinstance(PARAMETERS[name].shape, Words):
            pair = _object({"Key": _WORD, "Value": _WORD, "PropagateAtLaunch": {}}, required=["Key"])
            one = {"anyOf": [one, {"type": "array", "items": pair}]}
        found[name] = {**one, "description": PARAMETERS[name].here}
    return found


def _of_type(kind: str) -> Schema:
    return _object(_parameters(tuple(name for name in ALLOWED if PARAMETERS[name].takes & TYPES[kind])))


def _mapping() -> Schema:
    members = _parameters(tuple(PARAMETERS))
    members["KmsKeyArn"] = members["KMSKeyArn"]
    members["UUID"] = {**_TEXT, "description": "Own identity; without it one is made from function and source."}
    members |= {name: {"description": "Only reported by Lambda: ignored."} for name in READ_ONLY}
    function = [{"required": ["FunctionName"]}, {"required": ["FunctionArn"]}]
    return {**_object(members, required=["EventSourceArn"], anyOf=function), "type": "object"}


def _resource() -> Schema:
    members = {"Type": _enum((RESOURCE,)), "Properties": _mapping(), **{name: {} for name in OF_A_RESOURCE}}
    return {**_object(members, required=["Properties"]), "type": "object"}


def _function(members: Table[str, Shape], needed: tuple[str, ...]) -> Schema:
    return {**_object({name: of_shape(one) for name, one in members.items()}, required=list(needed)), "type": "object"}


def _hosted() -> Schema:
    return _function(HOSTED, ("Runtime", "CodeUri"))


def _behind_url() -> Schema:
    found = _function(BEHIND_URL, ("Url", "Protocol", "Timeout"))
    origin = _object({name: of_shape(one) for name, one in HEADER_FROM.items()}, minProperties=1, maxProperties=1)
    found["properties"]["HeadersFrom"] = {"type": ["object", "null"], "additionalProperties": origin}
    found["properties"]["ErrorStatusCodes"] = {"anyOf": [_STATUS, {"type": "array", "items": _STATUS}, _NULL]}
    return found


def _pulling() -> Schema:
    found = _function(PULLING, ("Listen", "Protocol", "Timeout"))
    found["properties"]["Listen"] = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": PORT_MAX}, _TEXT]}
    return found


def _in_lambda() -> Schema:
    return _function(IN_LAMBDA, ("Arn",))
