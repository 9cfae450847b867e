"""An element of `mappings:` as people paste it -> a request of CreateEventSourceMapping.

What is understood, besides the parameters themselves: the properties of an `AWS::Lambda::EventSourceMapping` of
CloudFormation, the whole resource, and an item of `aws lambda list-event-source-mappings`. So `KmsKeyArn` is
`KMSKeyArn`, quoted numbers and booleans are numbers and booleans, tags may be a list of {Key, Value}, a pattern may be
an object, and what Lambda only reports is ignored, with one note. Functions of CloudFormation are refused.
"""

import json
import re
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from typing import Any

from esm.config.document import Document, unresolved
from esm.config.names import only
from esm.rules.parameters import PARAMETERS
from esm.rules.shapes import Flag, Items, Members, Moment, Names, Shape, Text, Whole, Words

RESOURCE = "AWS::Lambda::EventSourceMapping"

READ_ONLY = (
    "FunctionArn", "EventSourceMappingArn", "LastModified", "LastProcessingResult", "State", "StateTransitionReason",
    "FilterCriteriaError", "Id",
)  # fmt: skip
"""What Lambda reports of a mapping, and nobody sets."""

OF_A_RESOURCE = ("DependsOn", "Metadata", "DeletionPolicy", "UpdateReplacePolicy")
"""What else may stand on a resource, without a meaning here."""

_SPELLINGS = {"KmsKeyArn": "KMSKeyArn"}
_OFF = ("Disabled", "Disabling")
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_INDEX = re.compile(r"[0-9]{1,9}")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_FLAGS = {"true": True, "True": True, "false": False, "False": False}


@dataclass
class Pasted:
    """A request, and where its parameters stand."""

    request: dict[str, Any]
    document: Document
    base: str
    """The place of the table that holds the parameters."""
    given: dict[str, Any]
    """The table as the file has it."""
    spelled: dict[str, str] = field(default_factory=dict)
    """Parameters that the file spells in another way, or that come from another member."""
    ignored: list[str] = field(default_factory=list)
    """What has been passed over."""
    warnings: list[str] = field(default_factory=list)

    def place(self, member: str) -> str:
        """The place in the file of `BatchSize` or `DestinationConfig.OnFailure.Destination`."""
        head = re.split(r"[.\[]", member, maxsplit=1)[0]
        return f"{self.base}.{self.spelled.get(head, head)}{member[len(head) :]}"

    def value(self, member: str) -> object:
        """What the file has at such a place; None where it has nothing."""
        value: object = self.given
        for step in re.findall(r"[^.\[\]]+", self.place(member)[len(self.base) + 1 :]):
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and _INDEX.fullmatch(step):
                value = next(iter(value[int(step) :]), None)
            else:
                value = None
        return value


def pasted(document: Document, item: object, path: str) -> Pasted | None:
    """What an element of `mappings:` asks for; what cannot be read so is noted as a problem."""
    if not isinstance(item, dict):
        document.problem(path, item, "must be a table of CreateEventSourceMapping's parameters")
        return None
    ignored: list[str] = []
    if "Properties" in item or "Type" in item:
        ignored += [name for name in OF_A_RESOURCE if name in item]
        properties = _properties(document, item, path)
        if properties is None:
            return None
        item, path = properties, f"{path}.Properties"
    found = Pasted({}, document, path, item, ignored=ignored)
    only(document, item, (*PARAMETERS, "UUID", *_SPELLINGS, *READ_ONLY), path)
    for name, value in item.items():
        known = _SPELLINGS.get(name, name)
        if known in PARAMETERS:
            _take(found, known, name, value)
    _read_only(found)
    return found


def converted(document: Document, shape: Shape, value: Any, path: str) -> Any:  # noqa: ANN401, PLR0911 - one case a shape
    """A value, its texts read as the numbers and booleans that the shape asks for; what cannot be read stays."""
    function = _function_of_cloudformation(value)
    if function is not None:
        document.cannot_read(path, unresolved(function))
        return None
    match shape:
        case Items(item) if isinstance(value, list):
            return [converted(document, item, one, f"{path}[{index}]") for index, one in enumerate(value)]
        case Members(members) if isinstance(value, dict):
            return {
                name: converted(document, members[name], one, f"{path}.{name}") if name in members else one
                for name, one in value.items()
            }
        case Names() if isinstance(value, list):
            return [document.text(f"{path}[{index}]", one) for index, one in enumerate(value)]
        case Words():
            return _words(document, value, path)
        case Text() if path.endswith(".Pattern") and isinstance(value, dict):
            return _pattern(document, value, path)
        case Text():
            return document.text(path, value)
    return _read(shape, value) if isinstance(value, str) else value


def _read(shape: Shape, text: str) -> object:
    match shape:
        case Whole() if _WHOLE.fullmatch(text):
            return int(text)
        case Moment() if _SECONDS.fullmatch(text):
            return float(text)
        case Flag():
            return _FLAGS.get(text, text)
    return text


def _properties(document: Document, resource: Table[str, Any], path: str) -> dict[str, Any] | None:
    kind = resource.get("Type")
    if kind is not None and kind != RESOURCE:
        document.problem(f"{path}.Type", kind, f"is no {RESOURCE}: only such resources are event source mappings")
        return None
    for name in resource:
        if name not in ("Type", "Properties", *OF_A_RESOURCE):
            text = f"is no member of a pasted resource: keep Properties, and remove the rest (or paste no {RESOURCE})"
            document.problem(f"{path}.{name}", None, text)
    properties = resource.get("Properties")
    if not isinstance(properties, dict):
        document.problem(f"{path}.Properties", properties, f"must be the table of the properties of an {RESOURCE}")
        return None
    return properties


def _take(found: Pasted, known: str, name: str, value: object) -> None:
    if known in found.request:
        found.document.problem(f"{found.base}.{name}", None, f"is another spelling of {known}: keep one")
        return
    if known != name:
        found.spelled[known] = name
    found.request[known] = converted(found.document, PARAMETERS[known].shape, value, f"{found.base}.{name}")


def _read_only(found: Pasted) -> None:
    given = found.given
    names = [name for name in READ_ONLY if name in given]
    if found.request.get("FunctionName") is None and isinstance(given.get("FunctionArn"), str):
        found.request["FunctionName"] = given["FunctionArn"]
        found.spelled["FunctionName"] = "FunctionArn"
        names.remove("FunctionArn")
    if given.get("State") in _OFF and "Enabled" not in given:
        found.request["Enabled"] = False
        found.warnings.append(f"{found.base} is taken as Enabled: false, since its State is {given['State']}")
        names.remove("State")
    if given.get("FilterCriteriaError"):
        text = "says that Lambda could not decrypt the filters: fill in FilterCriteria by hand, and remove this"
        found.document.problem(f"{found.base}.FilterCriteriaError", None, text)
    elif "EventSourceMappingArn" in given and given.get("KMSKeyArn") and not given.get("FilterCriteria"):
        found.warnings.append(
            f"{found.base} has a KMSKeyArn and no FilterCriteria: Lambda does not list encrypted filters, so look"
            " whether some are missing (get-event-source-mapping shows them)"
        )
    found.ignored += names


def _function_of_cloudformation(value: object) -> str | None:
    """`Ref` or `Fn::...` where a value is such a function in its long form."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((name, argument),) = value.items()
    is_one = name.startswith("Fn::") or (name == "Ref" and isinstance(argument, str))
    return name if is_one else None


def _pattern(document: Document, pattern: Table[str, Any], path: str) -> str | None:
    try:
        return json.dumps(pattern, ensure_ascii=False, allow_nan=False)
    except ValueError:
        document.cannot_read(path, "holds .nan or .inf, which JSON does not have")
        return None


def _words(document: Document, value: object, path: str) -> object:
    """Names and strings, from a table or from a list of {Key, Value}; numbers are the text that the file has."""
    if isinstance(value, dict):
        return {name: _word(document, one, f"{path}.{name}") for name, one in value.items()}
    if not isinstance(value, list):
        return value
    found: dict[str, object] = {}
    for index, one in enumerate(value):
        place = f"{path}[{index}]"
        if not isinstance(one, dict) or set(one) - {"Key", "Value", "PropagateAtLaunch"} or "Key" not in one:
            document.problem(place, None, "must be a {Key, Value}")
            continue
        key = _word(document, one["Key"], f"{place}.Key")
        if not isinstance(key, str):
            document.problem(f"{place}.Key", None, "must be a string")
        elif key in found:
            document.problem(f"{place}.Key", key, "stands twice: keep one")
        else:
            found[key] = _word(document, one.get("Value"), f"{place}.Value")
    return found


def _word(document: Document, value: object, path: str) -> object:
    function = _function_of_cloudformation(value)
    if function is not None:
        document.cannot_read(path, unresolved(function))
        return None
    text = document.text(path, value)
    return document.written.get(path, text) if isinstance(text, int | float) else text
