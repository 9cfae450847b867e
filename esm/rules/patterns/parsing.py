"""Pattern text -> conjunctions: the ways in which a record can match, each a condition for some paths.

`$or` is multiplied out in the order of the text; a list at a path that already has one replaces it in every
conjunction so far. That is what AWS's rule engine does, and what "the last wins" means beside `$or`.

Source: lambda.md 4.1, 4.2; JsonRuleCompiler of AWS's rule engine.
"""

from typing import TypeAlias

from esm.rules.patterns.conditions import Condition, PatternRefused, condition
from esm.rules.patterns.reading import DEPTH_MAX, Json, Members, NotJson, read

Conjunction: TypeAlias = dict[str, Condition]
"""Dotted path -> what it demands."""

CONJUNCTIONS_MAX = 1_000
"""Combinations into which the `$or` of one pattern may multiply: the bound is ours."""

RESERVED = frozenset(
    {"exactly", "equals-ignore-case", "prefix", "suffix", "anything-but", "exists", "wildcard", "numeric", "cidr"}
    | {"=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case"}
    | {"date-after", "date-on-or-after", "date-before", "date-on-or-before", "in-date-range"}
    | {"ip-address-in-range", "ip-address-not-in-range"}
)
"""Names that no member inside `$or` may have. Source: Constants of AWS's rule engine."""

SHOWN_MAX = 60
"""Characters of a path in a reason."""


def parse(text: str) -> list[Conjunction]:
    """The conjunctions of a pattern, at least one. Raises: PatternRefused, saying why."""
    try:
        value = read(text)
    except NotJson as error:
        msg = f"the pattern cannot be read: {error}"
        raise PatternRefused(msg) from error
    if not isinstance(value, Members):
        msg = "the pattern is not a JSON object"
        raise PatternRefused(msg)
    return _object(value, None, [{}], in_or=False)


def _object(members: Members, path: str | None, found: list[Conjunction], *, in_or: bool) -> list[Conjunction]:
    if not members:
        msg = f"{_shown(path)} is an empty object"
        raise PatternRefused(msg)
    for name, value in members:
        if name == "$or":
            found = _alternatives(value, path, found)
            continue
        if in_or and name in RESERVED:
            msg = f"{name!r} is a reserved word and cannot name a member inside $or"
            raise PatternRefused(msg)
        inner = name if path is None else f"{path}.{name}"
        match value:
            case Members():
                found = _object(value, inner, found, in_or=in_or)
            case list():
                if inner.count(".") >= DEPTH_MAX:
                    msg = f"{_shown(inner)} is a path of more than {DEPTH_MAX} steps"
                    raise PatternRefused(msg)
                compiled = condition(value, _shown(inner))
                for conjunction in found:
                    conjunction[inner] = compiled
            case _:
                msg = f"{_shown(inner)} is neither an object nor an array: values stand in arrays"
                raise PatternRefused(msg)
    return found


def _alternatives(value: Json, path: str | None, found: list[Conjunction]) -> list[Conjunction]:
    if not isinstance(value, list) or len(value) < 2:  # noqa: PLR2004
        msg = "$or is an array of at least 2 objects"
        raise PatternRefused(msg)
    combined: list[Conjunction] = []
    for alternative in value:
        if not isinstance(alternative, Members):
            msg = "$or holds something that is no object"
            raise PatternRefused(msg)
        combined += _object(alternative, path, [dict(conjunction) for conjunction in found], in_or=True)
        if len(combined) > CONJUNCTIONS_MAX:
            msg = f"the $or of the pattern multiply into more than {CONJUNCTIONS_MAX} combinations"
            raise PatternRefused(msg)
    return combined


def _shown(path: str | None) -> str:
    if path is None:
        return "the pattern"
    return repr(path if len(path) <= SHOWN_MAX else path[:SHOWN_MAX] + "...")
