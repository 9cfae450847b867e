"""JSON of records, decoded fast, numbers kept as they are written wherever a double would lose digits.

Under equal names the last member counts, as for the parsers of the functions that get the record.
"""

import json
from typing import NoReturn

import msgspec

from esm.rules.patterns.fields import Decoded
from esm.rules.patterns.numbers import Written
from esm.rules.patterns.reading import DEPTH_MAX, depth

_FAST: "msgspec.json.Decoder[Decoded]" = msgspec.json.Decoder(float_hook=Written)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Undecodable(ValueError):
    """What should be JSON is none, or too deep."""


def members(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of an object, each left as it is. Raises: Undecodable."""
    try:
        return _MEMBERS.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Undecodable(_NOT_JSON) from error


def decoded(text: bytes | str | msgspec.Raw) -> Decoded:
    """The whole value. Raises: Undecodable."""
    try:
        return _FAST.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _slowly(text if isinstance(text, str) else bytes(text))


def _slowly(text: bytes | str) -> Decoded:
    """What the fast decoder refuses though it is JSON: surrogates on their own, integers of thousands of digits."""
    try:
        written = text if isinstance(text, str) else text.decode()
        if depth(written) > DEPTH_MAX:
            raise Undecodable(_NOT_JSON)
        value: Decoded = _SLOW.decode(written)
    except (ValueError, RecursionError) as error:
        raise Undecodable(_NOT_JSON) from error
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise Undecodable(_NOT_JSON)


_NOT_JSON = "not JSON, or nested too deep"
_SLOW = json.JSONDecoder(parse_float=Written, parse_int=Written, parse_constant=_refuse_constant)
