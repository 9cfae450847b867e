"""Filter: whether a record matches any pattern of a mapping, from the bytes that the function would get.

| source | data key | what it holds |
|---|---|---|
| SQS | `body` | the text, or what it holds where it is a JSON object or array |
| Kinesis | `data` | base64, then UTF-8, then a JSON object or array |
| DynamoDB | `dynamodb` | the record, each value in its type |

All other paths are the record's own members; those inside `kinesis` stand beside it, too. A pattern for what is inside
the data key never matches data that is neither object nor array; one for the plain text never matches JSON.

Law: only members that some pattern names are decoded, and whatever cannot be decoded does not match.

Source: lambda.md 4.3, 4.4; wire-shapes.md 6.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from esm.model.arn import SourceKind
from esm.rules.patterns.conditions import Condition, PatternRefused
from esm.rules.patterns.consistency import Budget, is_satisfied
from esm.rules.patterns.decoding import Undecodable, decoded, members
from esm.rules.patterns.fields import Decoded, Level, Route, TooComplex, walk
from esm.rules.patterns.parsing import Conjunction, parse

DATA_KEYS = {SourceKind.SQS: "body", SourceKind.KINESIS: "data", SourceKind.DYNAMODB: "dynamodb"}
"""The key that holds what was sent. Source: lambda.md 4.3."""

_JSON_SPACE = " \t\r\n"


def conjunctions(pattern: str, kind: SourceKind) -> list[Conjunction]:
    """The ways in which a record of the source can match. Raises: PatternRefused."""
    found = parse(pattern)
    key = DATA_KEYS[kind]
    if kind is not SourceKind.SQS and any(key in conjunction for conjunction in found):
        msg = f"{key!r} is an array: only SQS takes plain text; the pattern for what is inside is an object"
        raise PatternRefused(msg)
    return found


@dataclass(frozen=True, slots=True)
class _Way:
    """One conjunction."""

    conditions: tuple[tuple[str, Condition], ...]
    needs_json: bool
    needs_text: bool


@dataclass(slots=True)
class _View:
    """A record as far as the patterns name it."""

    level: Level
    elements: int = 0
    has_json: bool = False
    """The data key holds an object or an array."""


class Filter:
    """The patterns of a mapping, compiled. Stateless: one may serve any number of readers."""

    def __init__(self, ways: Sequence[Conjunction], kind: SourceKind) -> None:
        self._kind = kind
        self._key = key = DATA_KEYS[kind]
        paths = {path for way in ways for path in way}
        rank = {path: number for number, path in enumerate(sorted(paths, key=_order))}
        inside = {path for path in paths if path.startswith(f"{key}.")}
        self._route = Route.of(paths)
        self._data_route = self._route.onward.pop(key, None)
        self._names = tuple(self._route.onward)
        self._ways = [
            _Way(
                tuple((path, way[path]) for path in sorted(way, key=rank.__getitem__)),
                not inside.isdisjoint(way),
                key in way,
            )
            for way in ways
        ]

    def matches(self, event: bytes) -> bool:
        """Whether the record, an element of `"Records"`, matches; one that cannot be evaluated does not."""
        try:
            view = self._view(event)
        except (Undecodable, TooComplex, RecursionError):
            return False
        return any(self._is_met(way, view) for way in self._ways)

    def _is_met(self, way: _Way, view: _View) -> bool:
        if (way.needs_json and not view.has_json) or (way.needs_text and view.has_json):
            return False
        try:
            return is_satisfied(way.conditions, view.level, Budget(view.elements, len(way.conditions)))
        except (TooComplex, RecursionError):
            return False

    def _view(self, event: bytes) -> _View:
        view = _View(Level())
        top = members(event)
        data: str | msgspec.Raw | bytes | None = None
        match self._kind:
            case SourceKind.SQS | SourceKind.DYNAMODB:
                data = top.pop(self._key, None)
            case SourceKind.KINESIS:
                inner = members(top["kinesis"]) if "kinesis" in top else {}
                data = inner.pop("data", None)
                top = {**inner, **top}
        for name in self._names:
            if name in top:
                view.elements += walk(decoded(top[name]), self._route.onward[name], view.level)
        if self._data_route is not None and data is not None:
            self._see_data(self._data_route, data, view)
        return view

    def _see_data(self, route: Route, data: msgspec.Raw, view: _View) -> None:
        if self._kind is SourceKind.DYNAMODB:
            value = decoded(data)
        else:
            text = decoded(data)
            value = self._inside(text) if isinstance(text, str) else None
            if value is None and route.ends is not None:
                walk(text, route, view.level)
        if isinstance(value, dict | list):
            view.has_json = True
            view.elements += walk(value, route, view.level)

    def _inside(self, text: str) -> Decoded:
        """The object or array that the data holds; None where it holds none."""
        try:
            if self._kind is SourceKind.KINESIS:
                return decoded(base64.b64decode(text, validate=True))
            return decoded(text) if text.lstrip(_JSON_SPACE)[:1] in {"{", "["} else None
        except ValueError:
            return None


def _order(path: str) -> bytes:
    """Paths in the order in which AWS's engine takes them: by UTF-16 code units."""
    return path.encode("utf-16-be", "surrogatepass")


def compile_filter(patterns: Sequence[str], kind: SourceKind) -> Filter:
    """The filter of a mapping whose patterns are valid for its source. Raises: PatternRefused."""
    return Filter([way for pattern in patterns for way in conjunctions(pattern, kind)], kind)
