"""A made-up next version: every kind of stored value but the heartbeat looks different from its format on.

It sits where a real one would: one shape more in each kind. As many members are renamed as make an older reader fail.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from esm.rules import async_stored, buckets, controls, desired, listings, shares, starting, stored
from esm.rules.kinds import OLDEST, Kind, Shape

NEXT = 2

RENAMED: dict[Kind[Any], dict[str, str]] = {
    stored.LEASE: {"positions": "places", "after": "behind", "arrived_at": "came_at"},
    stored.STATE: {"state": "held"},
    stored.STATUS: {"views": "mappings"},
    starting.START: {"starting_position": "from"},
    controls.CONTROL: {"last_number": "newest"},
    desired.MAPPING: {"request": "asked"},
    controls.CHANGES: {"count": "changes"},
    async_stored.EVENT: {"tries": "attempts"},
    listings.LISTING: {"shards": "pieces"},
    shares.SHARE: {"grants": "parts"},
    buckets.OWNERS: {"owners": "holders"},
}


def learn() -> None:
    """Be the next version from now on."""
    for kind, names in RENAMED.items():
        kind.shapes[NEXT] = shape(kind.shapes[OLDEST], names)


def unlearn() -> None:
    """Be this version again."""
    for kind in RENAMED:
        del kind.shapes[NEXT]


@contextmanager
def next_version() -> Iterator[None]:
    """The next version while the body runs."""
    learn()
    try:
        yield
    finally:
        unlearn()


def shape(before: Shape[Any], names: dict[str, str]) -> Shape[Any]:
    """A shape with other names."""
    back = {new: old for old, new in names.items()}

    def encode(value: Any) -> bytes:
        return changed(before.encode(value), names, NEXT)

    def decode(value: bytes) -> Any:
        return before.decode(changed(value, back, OLDEST))

    return Shape(encode, decode)


def changed(value: bytes, names: dict[str, str], number: int) -> bytes:
    """The value with its members renamed, wherever they stand, and with another format."""
    line, newline, rest = value.partition(b"\n")
    document = {**renamed(json.loads(line), names), "format": number}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + newline + rest


def renamed(found: Any, names: dict[str, str]) -> Any:
    match found:
        case dict():
            return {names.get(name, name): renamed(entry, names) for name, entry in found.items()}
        case list():
            return [renamed(entry, names) for entry in found]
        case _:
            return found
