"""Kinds of stored values, each with the shapes that it has had: one a format.

Laws: a value names the format that last changed how its kind looks, and a kind that did not change keeps its number.
A reader keeps what it does not know, and stops with a clear text at a newer format. A shape stays here for as long as
values of it may stand: an upgrade writes nothing again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from esm.errors import OperatorNeeded, StoreTooNew

T = TypeVar("T")

OLDEST = 1
"""The first format. What everybody must read at any time is written in it for ever: attributes may only be added."""


@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """How values of a kind look in one format."""

    encode: Callable[[T], bytes]
    """The value, its format included."""
    decode: Callable[[bytes], T]
    """Raises: MsgspecError, KeyError, ValueError where it is no such value."""


class _Head(msgspec.Struct):
    format: int


class Kind(Generic[T]):
    """What is stored of one sort of thing: JSON, or a line of JSON before something else, with a `format`."""

    def __init__(self, name: str, shapes: dict[int, Shape[T]]) -> None:
        self.name = name
        self.shapes = shapes
        """By the format from which on the kind looks so."""

    @property
    def newest(self) -> int:
        """The format that changed the kind last."""
        return max(self.shapes)

    def encode(self, value: T, write: int) -> bytes:
        """The value as readers of format `write` know it: no newer, and no older than it must be."""
        known = [number for number in self.shapes if number <= write]
        return self.shapes[max(known, default=min(self.shapes))].encode(value)

    def decode(self, stored: bytes) -> T:
        """What `encode` wrote, here or in a neighbouring version.

        Raises: StoreTooNew; OperatorNeeded where it is none of ours.
        """
        shape = self.shapes[self.format_of(stored)]
        try:
            return shape.decode(stored)
        except (msgspec.MsgspecError, KeyError, ValueError) as error:
            raise unreadable(self.name, str(error)) from error

    def rewritten(self, stored: bytes, write: int) -> bytes | None:
        """The stored value in a format that readers of `write` know; None where it is in one. Raises: as `decode`."""
        return self.encode(self.decode(stored), write) if self.format_of(stored) > write else None

    def format_of(self, stored: bytes) -> int:
        """The format of a stored value. Raises: as `decode`."""
        try:
            found = msgspec.json.decode(stored.partition(b"\n")[0], type=_Head).format
        except msgspec.MsgspecError as error:
            raise unreadable(self.name, str(error)) from error
        if found > self.newest:
            raise StoreTooNew(
                f"A stored {self.name} has format {found}, and this version reads up to {self.newest}: a newer version"
                " has written it. Run a worker of that version beside this one, which then writes it again, or only"
                " that version, or this one with a state of its own (ESM_STATE)."
            )
        if found not in self.shapes:
            raise unreadable(self.name, f"format {found}")
        return found


def unreadable(what: str, why: str) -> OperatorNeeded:
    """The error of a value that this program has not written."""
    return OperatorNeeded(
        f"A stored {what} is not readable ({why}): it was not written by this program. Restore the state from a copy,"
        " or begin with an empty one (ESM_STATE)."
    )
