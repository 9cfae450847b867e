"""JSON text read so that nothing is lost: members under equal names stay apart, numbers stay as they are written.

Source: lambda.md 4.2 (duplicate keys). What JSON does not know (NaN, leading zeros, control characters, text after the
value) is refused.
"""

import json
import re
from typing import NoReturn, TypeAlias

from esm.rules.patterns.numbers import Written

DEPTH_MAX = 100
"""Levels of objects and arrays in a pattern, or in a record that only this module can read. Ours."""

_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class Members(tuple[tuple[str, "Json"], ...]):
    """A JSON object: its names and values as they come."""

    __slots__ = ()


Json: TypeAlias = "Members | list[Json] | str | Written | bool | None"


class NotJson(ValueError):
    """The text is not JSON; the message says why."""


def read(text: str) -> Json:
    """The value that the text holds. Raises: NotJson."""
    if depth(text) > DEPTH_MAX:
        msg = f"it is nested deeper than {DEPTH_MAX} levels"
        raise NotJson(msg)
    try:
        value: Json = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        msg = f"it is not JSON: {error.msg} at character {error.pos}"
        raise NotJson(msg) from error
    return value


def depth(text: str) -> int:
    """How deep objects and arrays are nested, in one pass; braces within strings do not count."""
    deepest = level = 0
    for token in _TOKENS.finditer(text):
        match token.group()[0]:
            case "[" | "{":
                level += 1
                deepest = max(deepest, level)
            case "]" | "}":
                level -= 1
    return deepest


def _refuse_constant(name: str) -> NoReturn:
    msg = f"it is not JSON: {name} is no value"
    raise NotJson(msg)


_DECODER = json.JSONDecoder(
    object_pairs_hook=Members, parse_float=Written, parse_int=Written, parse_constant=_refuse_constant
)
