"""What heartbeats look like in the store: JSON with a `format`, under the laws of `rules/stored`.

They stand in one partition, with the change counter: one query a second brings both.
"""

from typing import Any

import msgspec

from esm.model.clocks import UnixTime
from esm.model.stored import Key
from esm.model.worker import Heartbeat, HostLock, Known
from esm.rules.stored import FORMAT, check_format, unreadable

PARTITION = ("worker", "fleet")
"""Kind and owner; the item is the worker's id."""


class _Document(msgspec.Struct, omit_defaults=True):
    worker: str
    run: str
    beat: int
    reads: int
    """The newest format; the document's own `format` says how it is written."""
    is_leaving: bool = False
    is_released: bool = False
    mappings: dict[str, tuple[str, int]] = {}
    busy: list[str] = []
    broken: list[str] = []
    unlisted: list[str] = []
    lock: tuple[str, int, int, str] | None = None
    moves: dict[str, int] = {}
    ended: tuple[str, ...] = ()
    at: float | None = None


def key(worker: str) -> Key:
    """Where a worker's heartbeat stands."""
    return Key(*PARTITION, worker)


def encode(heartbeat: Heartbeat) -> bytes:
    """The heartbeat as the store keeps it."""
    lock = heartbeat.lock
    document = _Document(
        at=heartbeat.at, worker=heartbeat.worker, run=heartbeat.run, beat=heartbeat.beat, reads=heartbeat.format,
        is_leaving=heartbeat.is_leaving, is_released=heartbeat.is_released,
        mappings={uuid: (known.digest, known.epoch) for uuid, known in heartbeat.mappings.items()},
        busy=sorted(heartbeat.busy), broken=sorted(heartbeat.broken), unlisted=sorted(heartbeat.unlisted),
        lock=None if lock is None else (lock.path, lock.device, lock.inode, lock.boot), moves=heartbeat.moves,
        ended=heartbeat.ended,
    )  # fmt: skip
    return msgspec.json.encode({**heartbeat.extra, "format": FORMAT, **msgspec.to_builtins(document)})


def decode(value: bytes) -> Heartbeat:
    """The heartbeat that `encode` wrote, here or in a neighbouring version.

    Raises: StoreTooNew; OperatorNeeded where the value is none of ours.
    """
    check_format(value, "heartbeat")
    try:
        attributes = msgspec.json.decode(value, type=dict[str, Any])
        document = msgspec.convert(attributes, _Document)
    except msgspec.MsgspecError as error:
        raise unreadable("heartbeat", str(error)) from error
    return Heartbeat(
        at=None if document.at is None else UnixTime(document.at),
        worker=document.worker, run=document.run, beat=document.beat, format=document.reads,
        is_leaving=document.is_leaving, is_released=document.is_released,
        mappings={uuid: Known(digest, epoch) for uuid, (digest, epoch) in document.mappings.items()},
        busy=frozenset(document.busy), broken=frozenset(document.broken),
        unlisted=frozenset(document.unlisted),
        lock=None if document.lock is None else HostLock(*document.lock), moves=document.moves, ended=document.ended,
        extra={name: entry for name, entry in attributes.items() if name not in _KNOWN},
    )  # fmt: skip


_KNOWN = {"format", *_Document.__struct_fields__}
