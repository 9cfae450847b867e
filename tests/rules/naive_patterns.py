"""A matcher of filter patterns written straight from the specification: slow, without bounds, and simple to check.

Source: lambda.md 4.1, 4.2; the rules that AWS's engine documents for arrays. A record is a list of fields, each a
dotted path, a value and the array elements that it stands in. A pattern is every way to pick one list for each path.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from decimal import Decimal
from typing import Any

RESERVED = {
    "exactly", "equals-ignore-case", "prefix", "suffix", "anything-but", "exists", "wildcard", "numeric", "cidr",
    "=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case", "date-after", "date-on-or-after",
    "date-before", "date-on-or-before", "in-date-range", "ip-address-in-range", "ip-address-not-in-range",
}  # fmt: skip


class Pairs(list[Any]):
    """A JSON object, its members in order."""


class Number(str):
    """A JSON number's text."""

    __slots__ = ()


class Wrong(ValueError):
    """The pattern is malformed."""


def load(text: str) -> Any:
    def never(name: str) -> None:
        raise Wrong(name)

    try:
        return json.loads(text, object_pairs_hook=Pairs, parse_int=Number, parse_float=Number, parse_constant=never)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Wrong(str(error)) from error


def ways(text: str) -> list[dict[str, list[Any]]]:
    """Every combination of lists that a pattern demands. Raises: Wrong."""
    pattern = load(text)
    require(isinstance(pattern, Pairs))
    return combine(pattern, [], [{}], inside_or=False)


def combine(
    pattern: Any, path: list[str], before: list[dict[str, list[Any]]], *, inside_or: bool
) -> list[dict[str, list[Any]]]:
    require(len(pattern) > 0)
    found = before
    for name, value in pattern:
        if name == "$or":
            require(type(value) is list and len(value) >= 2 and all(type(one) is Pairs for one in value))
            found = [way for one in value for way in combine(one, path, found, inside_or=True)]
            continue
        require(not (inside_or and name in RESERVED))
        require(type(value) in {Pairs, list})
        if type(value) is Pairs:
            found = combine(value, [*path, name], found, inside_or=inside_or)
        else:
            require(len(value) > 0)
            for one in value:
                check(one)
            found = [{**way, ".".join([*path, name]): value} for way in found]
    return found


def require(holds: object) -> None:
    if not holds:
        raise Wrong


def check(one: Any) -> None:
    """Raises: Wrong, where a list may not have this in it."""
    require(type(one) is not list)
    if type(one) is not Pairs:
        return
    require(len(one) == 1)
    ((name, value),) = one
    match name:
        case "exactly" | "equals-ignore-case":
            require(type(value) is str)
        case "wildcard":
            check_wildcard(value)
        case "prefix" | "suffix":
            if type(value) is Pairs:
                require(len(value) == 1 and value[0][0] == "equals-ignore-case")
                value = value[0][1]
            require(type(value) is str)
        case "exists":
            require(type(value) is bool)
        case "cidr":
            require(type(value) is str and value.count("/") == 1)
            address, mask = value.split("/")
            require(ip(address) is not None and mask.isascii() and mask.isdigit())
            require(int(mask) < ip(address).max_prefixlen)
        case "numeric":
            check_numeric(value)
        case "anything-but":
            check_anything_but(value)
        case _:
            raise Wrong


def check_wildcard(value: Any) -> None:
    require(type(value) is str)
    require("\\" not in re.sub(r"\\[*\\]", "", value))
    require("**" not in re.sub(r"\\[*\\]", "x", value))


def check_numeric(value: Any) -> None:
    require(type(value) is list and len(value) in {2, 4})
    require(all(type(operator) is str for operator in value[::2]))
    require(all(type(number) is Number and double(number) is not None for number in value[1::2]))
    if len(value) == 2:
        require(value[0] in {"=", "<", "<=", ">", ">="})
    else:
        require(value[0] in {">", ">="} and value[2] in {"<", "<="} and double(value[1]) < double(value[3]))


def check_anything_but(value: Any) -> None:
    if type(value) is Pairs:
        require(len(value) == 1)
        ((name, inner),) = value
        require(name in {"prefix", "suffix", "equals-ignore-case", "wildcard"})
        inner = inner if type(inner) is list else [inner]
        require(len(inner) > 0 and all(type(one) is str for one in inner))
        require(not (name in {"prefix", "suffix"} and "" in inner))
        for one in inner:
            if name == "wildcard":
                check_wildcard(one)
        return
    inner = value if type(value) is list else [value]
    require(len(inner) > 0)
    is_numbers = all(type(one) is Number for one in inner)
    require(all(type(one) is str for one in inner) or is_numbers)
    require(not is_numbers or all(double(one) is not None for one in inner))


def double(text: str) -> float | None:
    value = float(text)
    if math.isinf(value) or Decimal(repr(value)) != Decimal(text):
        return None
    return value


def ip(text: str) -> Any:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and ("." in text or "%" in text):
        return None
    return getattr(found, "ipv4_mapped", None) or found


def holds(one: Any, value: Any) -> bool:  # noqa: PLR0911 - one answer a kind
    """Whether a value, of one field, satisfies one member of a list."""
    if type(one) is Number:
        return type(value) is Number and (one == value or (double(one) is not None and double(one) == double(value)))
    if type(one) is str:
        return type(value) is str and (value == one if ip(one) is None else ip(value) == ip(one))
    if type(one) is not Pairs:
        return type(value) is type(one) and value == one
    ((name, wanted),) = one
    if name == "exists":
        return bool(wanted)
    if name == "numeric":
        return type(value) is Number and compares(value, wanted)
    if name == "anything-but":
        return not is_one_of(value, wanted)
    return type(value) is str and string_holds(name, wanted, value)


def string_holds(name: str, wanted: Any, value: str) -> bool:  # noqa: PLR0911 - one answer a kind
    match name:
        case "exactly":
            return value == wanted
        case "prefix" | "suffix" if type(wanted) is Pairs:
            cuts = range(len(value) + 1)
            parts = [value[:cut] if name == "prefix" else value[cut:] for cut in cuts]
            return any(same_but_case(wanted[0][1], part) for part in parts)
        case "prefix":
            return value[: len(wanted)] == wanted
        case "suffix":
            return wanted == "" or value[-len(wanted) :] == wanted
        case "equals-ignore-case":
            return same_but_case(wanted, value)
        case "wildcard":
            return wild(wanted, value)
    found = ip(value)
    return found is not None and found in network(wanted)


def network(text: str) -> Any:
    address, mask = text.split("/")
    return ipaddress.ip_network((int(ip(address)), int(mask)) if ip(address).version == 4 else f"{ip(address)}/{mask}",
                                strict=False)  # fmt: skip


def compares(value: str, bounds: list[Any]) -> bool:
    number = double(value)
    operators = {
        "=": lambda a, b: a == b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    }  # fmt: skip
    return number is not None and all(
        operators[bounds[at]](number, double(bounds[at + 1])) for at in range(0, len(bounds), 2)
    )


def is_one_of(value: Any, unwanted: Any) -> bool:
    if type(unwanted) is Pairs:
        ((name, inner),) = unwanted
        inner = inner if type(inner) is list else [inner]
        return type(value) is str and any(string_holds(name, one, value) for one in inner)
    inner = unwanted if type(unwanted) is list else [unwanted]
    if type(inner[0]) is Number:
        return type(value) is Number and any(double(one) == double(value) for one in inner)
    return type(value) is str and value in inner


def same_but_case(wanted: str, value: str) -> bool:
    if not wanted:
        return not value
    forms = {wanted[0].lower(), wanted[0].upper()}
    return any(value.startswith(form) and same_but_case(wanted[1:], value[len(form) :]) for form in forms)


def wild(wanted: str, value: str) -> bool:
    if not wanted:
        return not value
    if wanted[0] == "*":
        return any(wild(wanted[1:], value[cut:]) for cut in range(len(value) + 1))
    if wanted[0] == "\\":
        wanted = wanted[1:]
    return value[:1] == wanted[0] and wild(wanted[1:], value[1:])


def fields(record: Any) -> list[tuple[str, Any, dict[int, int]]]:
    """Path, value, and for each array around it the index of the element; numbers are `Number`."""
    found: list[tuple[str, Any, dict[int, int]]] = []
    arrays = 0

    def visit(value: Any, path: tuple[str, ...], where: dict[int, int]) -> None:
        nonlocal arrays
        if isinstance(value, dict):
            for name, inner in value.items():
                visit(inner, (*path, name), where)
        elif type(value) is list:
            array, arrays = arrays, arrays + 1
            for index, inner in enumerate(value):
                is_deeper = isinstance(inner, dict) or type(inner) is list
                visit(inner, path, {**where, array: index} if is_deeper else where)
        else:
            found.append((".".join(path), value, where))

    visit(record, (), {})
    return found


def consistent(one: dict[int, int], other: dict[int, int]) -> bool:
    return all(other.get(array, index) == index for array, index in one.items())


def matches(pattern: str, record: Any) -> bool:
    """Whether a record, its numbers as `Number`, matches a valid pattern."""
    return any(way_matches(way, fields(record)) for way in ways(pattern))


def way_matches(way: dict[str, list[Any]], record: list[tuple[str, Any, dict[int, int]]]) -> bool:
    paths = sorted(way)

    def search(at: int, so_far: dict[int, int]) -> bool:
        if at == len(paths):
            return True
        here = [one for one in record if one[0] == paths[at] and consistent(so_far, one[2])]
        if not here and any(one == [("exists", False)] for one in way[paths[at]]) and search(at + 1, so_far):
            return True
        return any(
            search(at + 1, {**so_far, **where})
            for _, value, where in here
            if any(holds(one, value) for one in way[paths[at]])
        )

    return search(0, {})


def record_of(text: str) -> Any:
    """A record as `matches` wants it."""
    return json.loads(text, parse_int=Number, parse_float=Number)
