"""The values that a record has at the paths of a pattern, kept apart by the array elements that they stand in.

A path is dotted: `a.b` is the member `b` of `a`, and the member `a.b`, too. An array stands for each of its elements.
The values outside arrays of objects make one level; each element that is an object or an array makes a level of its
own. A record is walked once for all patterns, and only where a path leads: an element is visited once, and what it
costs is bounded by its size.

Source: lambda.md 4.2; Event of AWS's rule engine.
"""

from collections.abc import Iterable
from typing import TypeAlias

from esm.rules.patterns.conditions import Scalar

Decoded: TypeAlias = "dict[str, Decoded] | list[Decoded] | Scalar"
"""A decoded value of a record."""

NESTED_MAX = 100
"""Arrays within arrays that are walked. Ours; AWS's reader stops at 1,000 levels of any kind."""


class TooComplex(ValueError):
    """The record would take more than its share of work: it counts as one that does not match."""


class Route:
    """Where a walk stands on the paths: each further name that leads on, and the path that ends here."""

    __slots__ = ("ends", "onward")

    def __init__(self) -> None:
        self.ends: str | None = None
        self.onward: dict[str, Route] = {}

    @classmethod
    def of(cls, paths: Iterable[str]) -> "Route":
        """The start of all the paths."""
        start = cls()
        for path in paths:
            start._add(path)
        return start

    def _add(self, path: str) -> None:
        steps = path.split(".")
        routes = [self]
        for end, step in enumerate(steps):
            following = routes[-1].onward.get(step)
            if following is None:
                following = Route()
                for begin, route in enumerate(routes):
                    route.onward[".".join(steps[begin : end + 1])] = following
            routes.append(following)
        routes[-1].ends = path


class Level:
    """What stands in one element, or in the record outside all of them."""

    __slots__ = ("arrays", "values")

    def __init__(self) -> None:
        self.values: dict[str, list[Scalar]] = {}
        self.arrays: list[Array] = []

    @property
    def paths(self) -> set[str]:
        """The paths that have a value here or further inside."""
        return set(self.values).union(*[array.paths for array in self.arrays])


class Array:
    """An array's elements that are objects or arrays and have values at some path."""

    __slots__ = ("elements", "paths")

    def __init__(self) -> None:
        self.elements: list[Level] = []
        self.paths: set[str] = set()


def walk(value: Decoded, route: Route, level: Level, nested: int = 0) -> int:
    """Add to a level what a value has on a route; returns the elements met. Raises: TooComplex."""
    if isinstance(value, dict):
        return _walk_members(value, route.onward, level, nested)
    if isinstance(value, list):
        if nested >= NESTED_MAX:
            msg = f"more than {NESTED_MAX} arrays within arrays"
            raise TooComplex(msg)
        return _walk_array(value, route, level, nested + 1)
    if route.ends is not None:
        level.values.setdefault(route.ends, []).append(value)
    return 0


def _walk_members(members: dict[str, Decoded], onward: dict[str, Route], level: Level, nested: int) -> int:
    if len(members) < len(onward):
        return sum([walk(members[name], onward[name], level, nested) for name in members if name in onward])
    return sum([walk(members[name], route, level, nested) for name, route in onward.items() if name in members])


def _walk_array(values: list[Decoded], route: Route, level: Level, nested: int) -> int:
    array = Array()
    count = 0
    for value in values:
        if isinstance(value, dict | list):
            element = Level()
            count += 1 + walk(value, route, element, nested)
            if element.values or element.arrays:
                array.elements.append(element)
                array.paths |= element.paths
        elif route.ends is not None:
            level.values.setdefault(route.ends, []).append(value)
    if array.elements:
        level.arrays.append(array)
    return count
