"""What operators' wishes look like in the store: JSON with a `format`, under the laws of `rules/stored`."""

from typing import Any

import msgspec

from esm.model.clocks import UnixTime
from esm.model.control import Caller, Control, Order, Pause, Rewind, Skip
from esm.model.position import AfterSequence
from esm.rules.stored import FORMAT, check_format, position_document, position_of, unreadable


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


def encode(control: Control) -> bytes:
    """The control as the store keeps it, unknown attributes included."""
    document = _Document(
        format=FORMAT,
        mapping=control.mapping,
        pause=None if control.pause is None else _asked(control.pause.at, control.pause.by),
        orders=[_order_document(order) for order in control.orders],
        last_number=control.last_number,
    )
    return msgspec.json.encode({**control.extra, **msgspec.to_builtins(document)})


def decode(value: bytes) -> Control:
    """The control that `encode` wrote, here or in a neighbouring version.

    Raises: StoreTooNew; OperatorNeeded where the value is none of ours.
    """
    check_format(value, "control")
    try:
        attributes = msgspec.json.decode(value, type=dict[str, Any])
        document = msgspec.convert(attributes, _Document)
        pause = None if document.pause is None else Pause(*_asked_of(document.pause))
        orders = tuple([_order_of(entry) for entry in document.orders])
    except (msgspec.MsgspecError, KeyError) as error:
        raise unreadable("control", str(error)) from error
    extra = {name: entry for name, entry in attributes.items() if name not in _Document.__struct_fields__}
    return Control(document.mapping, pause, orders, document.last_number, extra)


def raised(value: bytes | None) -> bytes:
    """The change counter after one change more. Raises: StoreTooNew, OperatorNeeded."""
    if value is None:
        return msgspec.json.encode(_Head(FORMAT, 1))
    check_format(value, "change counter")
    try:
        count = msgspec.json.decode(value, type=_Head).count
        attributes = msgspec.json.decode(value, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise unreadable("change counter", str(error)) from error
    return msgspec.json.encode({**attributes, "count": count + 1})


def _asked(at: UnixTime, by: Caller) -> dict[str, Any]:
    return {"at": at, "host": by.host, "user": by.user}


def _asked_of(entry: dict[str, Any]) -> tuple[UnixTime, Caller]:
    return UnixTime(float(entry["at"])), Caller(str(entry["host"]), str(entry["user"]))


def _order_document(order: Order) -> dict[str, Any]:
    head = {"id": order.id, "number": order.number, **_asked(order.at, order.by), "stream": order.stream}
    if isinstance(order, Skip):
        return {"kind": "skip", **head, "shard": order.shard, "sequence": order.sequence}
    to = position_document(order.to)
    return {"kind": "rewind", **head, "shard": order.shard, "to": to, "is_latest": order.is_latest}


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
