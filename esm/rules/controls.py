"""What operators' wishes look like in the store: JSON, under the laws of `rules/kinds`."""

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from esm.model.clocks import UnixTime
from esm.model.control import Caller, Control, Order, Pause, Rewind, Skip
from esm.model.position import AfterSequence
from esm.rules.kinds import Kind, Shape
from esm.rules.stored import position_document, position_of

CONTROLS = ("catalogue", "control")
"""Kind and owner of the controls, one item a mapping."""


class _Document(msgspec.Struct):
    format: int
    mapping: str
    pause: dict[str, Any] | None = None
    orders: list[dict[str, Any]] = []
    last_number: int = 0


class _Head(msgspec.Struct):
    format: int
    count: int
    """Grows with every change of desired state."""


_ASKED = {"at", "host", "user"}
_ORDER = {*_ASKED, "kind", "id", "number", "stream", "shard", "sequence", "to", "is_latest"}


@dataclass(frozen=True, slots=True)
class _Changes:
    """How often desired state has changed."""

    count: int
    extra: dict[str, object] = field(default_factory=dict)


def encode(control: Control, write: int) -> bytes:
    """The control as the store keeps it, unknown attributes included, in a format that readers of `write` know."""
    return CONTROL.encode(control, write)


def _value(control: Control) -> bytes:
    document = _Document(
        format=1,
        mapping=control.mapping,
        pause=None if control.pause is None else _asked(control.pause),
        orders=[_order_document(order) for order in control.orders],
        last_number=control.last_number,
    )
    return msgspec.json.encode({**control.extra, **msgspec.to_builtins(document)})


def decode(value: bytes) -> Control:
    """The control that `encode` wrote, here or in a neighbouring version.

    Raises: StoreTooNew; OperatorNeeded where the value is none of ours.
    """
    return CONTROL.decode(value)


def _control_of(value: bytes) -> Control:
    attributes = msgspec.json.decode(value, type=dict[str, Any])
    document = msgspec.convert(attributes, _Document)
    pause = None if document.pause is None else Pause(*_asked_of(document.pause), _others(document.pause, _ASKED))
    orders = tuple([replace(_order_of(entry), extra=_others(entry, _ORDER)) for entry in document.orders])
    extra = _others(attributes, {*_Document.__struct_fields__})
    return Control(document.mapping, pause, orders, document.last_number, extra)


def raised(value: bytes | None, write: int) -> bytes:
    """The change counter after one change more, for readers of `write`. Raises: StoreTooNew, OperatorNeeded."""
    before = _Changes(0) if value is None else CHANGES.decode(value)
    return CHANGES.encode(replace(before, count=before.count + 1), write)


def _changes_value(changes: _Changes) -> bytes:
    return msgspec.json.encode({**changes.extra, "format": 1, "count": changes.count})


def _changes_of(value: bytes) -> _Changes:
    count = msgspec.json.decode(value, type=_Head).count
    return _Changes(count, _others(msgspec.json.decode(value, type=dict[str, Any]), {*_Head.__struct_fields__}))


def _others(attributes: dict[str, Any], known: set[str]) -> dict[str, object]:
    """What a newer version has added."""
    return {name: entry for name, entry in attributes.items() if name not in known}


def _asked(asked: Pause | Order) -> dict[str, Any]:
    return {**asked.extra, "at": asked.at, "host": asked.by.host, "user": asked.by.user}


def _asked_of(entry: dict[str, Any]) -> tuple[UnixTime, Caller]:
    return UnixTime(float(entry["at"])), Caller(str(entry["host"]), str(entry["user"]))


def _order_document(order: Order) -> dict[str, Any]:
    head = {**_asked(order), "id": order.id, "number": order.number, "stream": order.stream}
    if isinstance(order, Skip):
        return {**head, "kind": "skip", "shard": order.shard, "sequence": order.sequence}
    to = position_document(order.to)
    return {**head, "kind": "rewind", "shard": order.shard, "to": to, "is_latest": order.is_latest}


def _order_of(entry: dict[str, Any]) -> Order:
    number = msgspec.convert(entry["number"], int)
    at, by = _asked_of(entry)
    match entry:
        case {"kind": "skip", "id": str() as name, "stream": str() as stream, "shard": str() as shard,
              "sequence": str() as sequence}:  # fmt: skip
            return Skip(name, number, at, by, stream, shard, sequence)
        case {"kind": "rewind", "id": str() as name, "stream": str() as stream, "shard": (None | str()) as one,
              "to": dict() as to, "is_latest": bool() as is_latest}:  # fmt: skip
            position = position_of(to)
            if isinstance(position, AfterSequence):
                raise msgspec.ValidationError(f"{to} is no place to rewind to")
            return Rewind(name, number, at, by, stream, position, one, is_latest)
        case _:
            raise msgspec.ValidationError(f"an order of kind {entry.get('kind')!r} is not known")


CONTROL = Kind("control", {1: Shape(_value, _control_of)})
CHANGES = Kind("change counter", {1: Shape(_changes_value, _changes_of)})
