"""What leases, window states and status look like in the store: JSON with a `format`.

Law: a reader takes its own format and the one before it, keeps attributes that it does not know, and stops with a
clear text at a newer one, so that a rollout may be rolled back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from esm.errors import OperatorNeeded, StoreTooNew
from esm.model.clocks import UnixTime
from esm.model.lease import Lease
from esm.model.position import AfterSequence, AtSequence, AtTimestamp, Position, TrimHorizon
from esm.model.stored import VALUE_BYTES_MAX, Blob
from esm.model.view import MappingView, ShardView
from esm.model.window import StoredState

FORMAT = 1
"""Written by this version. There is none before it."""


@dataclass(frozen=True, slots=True)
class StatusPart:
    """One stored part of what a worker shows."""

    worker: str
    at: UnixTime
    """When the worker wrote it."""
    part: int
    """From 0."""
    parts: int
    """How many the worker wrote at this time: one with a higher number is left over from an earlier write."""
    views: tuple[MappingView, ...]
    """A mapping with very many shards spans several parts, each with some of its shards."""


class _LeaseDocument(msgspec.Struct):
    format: int
    mapping: str
    shard: str
    stream: str
    owner: str
    generation: int
    factor: int
    positions: list[dict[str, Any]]
    parents: tuple[str, ...] = ()
    is_finished: bool = False
    window: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """Absent where no tumbling window is open, and in leases of versions that knew none."""
    done: list[list[dict[str, Any]]] | msgspec.UnsetType = msgspec.UNSET
    """Absent where no lane of an earlier factor is ahead."""
    obeyed: int | msgspec.UnsetType = msgspec.UNSET
    """Absent where no order was ever carried out."""
    released_at: float | msgspec.UnsetType = msgspec.UNSET


class _WindowEntry(msgspec.Struct):
    start: int
    end: int
    last: dict[str, Any]
    generation: int
    number: int
    parts: int
    size_bytes: int


class _StateDocument(msgspec.Struct):
    format: int
    part: int
    parts: int
    state: bytes
    blob: Blob | msgspec.UnsetType = msgspec.UNSET
    """Absent where the state stands in the items themselves."""


class _Head(msgspec.Struct):
    format: int


class _StatusDocument(msgspec.Struct):
    format: int
    worker: str
    at: float
    part: int
    parts: int
    views: tuple[MappingView, ...]


def encode_lease(lease: Lease) -> bytes:
    """The lease as the store keeps it, unknown attributes included."""
    document = _LeaseDocument(
        format=FORMAT,
        mapping=lease.mapping,
        shard=lease.shard,
        stream=lease.stream,
        owner=lease.owner,
        generation=lease.generation,
        factor=lease.factor,
        positions=[position_document(position) for position in lease.positions],
        parents=lease.parents,
        is_finished=lease.is_finished,
        window=msgspec.UNSET if lease.window is None else _window_entry(lease.window),
        done=[[position_document(position) for position in one] for one in lease.done] or msgspec.UNSET,
        obeyed=lease.obeyed or msgspec.UNSET,
        released_at=msgspec.UNSET if lease.released_at is None else lease.released_at,
    )
    return msgspec.json.encode({**lease.extra, **msgspec.to_builtins(document)})


def decode_lease(value: bytes) -> Lease:
    """The lease that `encode_lease` wrote, here or in a neighbouring version.

    Raises: StoreTooNew; OperatorNeeded where the value is none of ours.
    """
    check_format(value, "lease")
    try:
        attributes = msgspec.json.decode(value, type=dict[str, Any])
        document = msgspec.convert(attributes, _LeaseDocument)
        positions = tuple(position_of(entry) for entry in document.positions)
        earlier = [] if document.done is msgspec.UNSET else document.done
        done = tuple(tuple(position_of(entry) for entry in one) for one in earlier if one)
        window = None if document.window is msgspec.UNSET else _window(document.window)
    except msgspec.MsgspecError as error:
        raise unreadable("lease", str(error)) from error
    if len(positions) != document.factor:
        raise unreadable("lease", f"{len(positions)} positions for {document.factor} lanes")
    return Lease(
        mapping=document.mapping,
        shard=document.shard,
        stream=document.stream,
        owner=document.owner,
        generation=document.generation,
        factor=document.factor,
        positions=positions,
        parents=document.parents,
        is_finished=document.is_finished,
        window=window,
        done=done,
        obeyed=0 if document.obeyed is msgspec.UNSET else document.obeyed,
        released_at=None if document.released_at is msgspec.UNSET else UnixTime(document.released_at),
        extra={name: entry for name, entry in attributes.items() if name not in _LeaseDocument.__struct_fields__},
    )


STATE_PART_BYTES = 256 * 1024
"""Bytes of a window's state in one item: base64 makes 341 KB of them, below what a store takes."""


def encode_state(state: bytes) -> list[bytes]:
    """The state of a tumbling window, in parts that a store takes; one part at least."""
    chunks = [state[at : at + STATE_PART_BYTES] for at in range(0, len(state), STATE_PART_BYTES)] or [b""]
    parts = len(chunks)
    return [msgspec.json.encode(_StateDocument(FORMAT, part, parts, chunk)) for part, chunk in enumerate(chunks)]


def encode_state_blob(blob: Blob) -> bytes:
    """The one part of a state that is a blob."""
    return msgspec.json.encode(_StateDocument(FORMAT, 0, 1, b"", blob))


def state_blob(value: bytes) -> Blob | None:
    """The blob that a part of a state stands for; None where it holds the state itself. Raises as `decode_state`."""
    check_format(value, "window state")
    try:
        blob = msgspec.json.decode(value, type=_StateDocument).blob
    except msgspec.MsgspecError as error:
        raise unreadable("window state", str(error)) from error
    return None if blob is msgspec.UNSET else blob


def decode_state(values: Sequence[bytes], stored: StoredState) -> bytes:
    """The state that `encode_state` wrote and a lease points to.

    Raises: StoreTooNew; OperatorNeeded where the values are none of ours, or not all of them.
    """
    chunks = []
    for part, value in enumerate(values):
        check_format(value, "window state")
        try:
            document = msgspec.json.decode(value, type=_StateDocument)
        except msgspec.MsgspecError as error:
            raise unreadable("window state", str(error)) from error
        if (document.part, document.parts) != (part, stored.parts):
            raise unreadable("window state", f"part {document.part} stands where part {part} belongs")
        chunks.append(document.state)
    state = b"".join(chunks)
    if len(state) != stored.size_bytes:
        raise unreadable("window state", f"{len(state)} bytes of {stored.size_bytes}")
    return state


def encode_status(worker: str, at: UnixTime, views: Sequence[MappingView]) -> list[bytes]:
    """What a worker shows, in parts that a store takes; one part at least, also without mappings."""
    room = VALUE_BYTES_MAX - len(_status(worker, at, 0, 10**9, ()))
    pieces = [piece for view in views for piece in _pieces(view, room)]
    parts: list[list[MappingView]] = [[]]
    left = room
    for piece in pieces:
        size = len(msgspec.json.encode(piece)) + 1
        if size > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(piece)
        left -= size
    return [_status(worker, at, part, len(parts), tuple(held)) for part, held in enumerate(parts)]


def decode_status(value: bytes) -> StatusPart:
    """One part of what a worker showed. Raises: StoreTooNew; OperatorNeeded where the value is none of ours."""
    check_format(value, "status")
    try:
        document = msgspec.json.decode(value, type=_StatusDocument)
    except msgspec.MsgspecError as error:
        raise unreadable("status", str(error)) from error
    return StatusPart(document.worker, UnixTime(document.at), document.part, document.parts, document.views)


def without_mapping(value: bytes, uuid: str) -> bytes | None:
    """A part of a worker's status without one mapping; None where it does not name it. Raises as `decode_status`."""
    part = decode_status(value)
    views = tuple(view for view in part.views if view.uuid != uuid)
    return None if views == part.views else _status(part.worker, part.at, part.part, part.parts, views)


def merged_status(parts: Iterable[StatusPart]) -> list[MappingView]:
    """The mappings of one worker, in the order written, each whole again.

    Parts are separate items, so a reader may meet some of an older write: the newer word on a shard counts.
    """
    newest_first = sorted(parts, key=lambda part: (-part.at, part.part))
    merged: dict[str, MappingView] = {}
    for part in newest_first:
        if part.part >= newest_first[0].parts:
            continue
        for view in part.views:
            known = merged.get(view.uuid)
            merged[view.uuid] = view if known is None else _joined(known, view)
    return list(merged.values())


def _joined(newer: MappingView, older: MappingView) -> MappingView:
    known = {shard.id for shard in newer.shards}
    return replace(newer, shards=newer.shards + tuple(shard for shard in older.shards if shard.id not in known))


def _status(worker: str, at: UnixTime, part: int, parts: int, views: tuple[MappingView, ...]) -> bytes:
    return msgspec.json.encode(_StatusDocument(FORMAT, worker, at, part, parts, views))


def _pieces(view: MappingView, room: int) -> list[MappingView]:
    """The view, or the view several times over with some of its shards each, none longer than `room`."""
    if len(msgspec.json.encode(view)) < room:
        return [view]
    shard_room = room - len(msgspec.json.encode(replace(view, shards=())))
    runs: list[list[ShardView]] = [[]]
    left = shard_room
    for shard in view.shards:
        size = len(msgspec.json.encode(shard)) + 1
        if size > left and runs[-1]:
            runs.append([])
            left = shard_room
        runs[-1].append(shard)
        left -= size
    return [replace(view, shards=tuple(run)) for run in runs]


def position_document(position: Position) -> dict[str, Any]:
    """A position as stored values hold it."""
    match position:
        case TrimHorizon():
            return {"at": "trim_horizon"}
        case AtTimestamp(at):
            return {"at": "timestamp", "t": at}
        case AfterSequence(sequence, arrived_at):
            return {"after": sequence, "arrived_at": arrived_at}
        case AtSequence(sequence):
            return {"at": "sequence", "sequence": sequence}


def position_of(document: dict[str, Any]) -> Position:
    """The position that `position_document` wrote. Raises: ValidationError of msgspec."""
    match document:
        case {"at": "trim_horizon"}:
            return TrimHorizon()
        case {"at": "timestamp", "t": float() | int() as at}:
            return AtTimestamp(UnixTime(at))
        case {"at": "sequence", "sequence": str() as sequence}:
            return AtSequence(sequence)
        case {"after": str() as sequence, "arrived_at": float() | int() as arrived_at}:
            return AfterSequence(sequence, UnixTime(arrived_at))
        case _:
            raise msgspec.ValidationError(f"{document} is not a position")


def _window_entry(window: StoredState) -> dict[str, Any]:
    entry = _WindowEntry(
        window.start_s, window.end_s, position_document(window.last), window.generation, window.number, window.parts,
        window.size_bytes,
    )  # fmt: skip
    return {**window.extra, **msgspec.structs.asdict(entry)}


def _window(attributes: dict[str, Any]) -> StoredState:
    entry = msgspec.convert(attributes, _WindowEntry)
    last = position_of(entry.last)
    if not isinstance(last, AfterSequence):
        raise msgspec.ValidationError(f"{entry.last} is not a record of a window")
    extra = {name: value for name, value in attributes.items() if name not in _WindowEntry.__struct_fields__}
    return StoredState(
        entry.start, entry.end, last, entry.generation, entry.number, entry.parts, entry.size_bytes, extra
    )


def check_format(value: bytes, what: str) -> None:
    """Refuse what a newer version wrote. Raises: StoreTooNew; OperatorNeeded where the value is none of ours."""
    try:
        found = msgspec.json.decode(value, type=_Head).format
    except msgspec.MsgspecError as error:
        raise unreadable(what, str(error)) from error
    if found > FORMAT:
        raise StoreTooNew(
            f"A stored {what} has format {found}, and this version reads up to {FORMAT}: a newer version has written"
            f" it. Run that version again, or a state of its own (ESM_STATE) for this one."
        )
    if found < 1:
        raise unreadable(what, f"format {found}")


def unreadable(what: str, why: str) -> OperatorNeeded:
    """The error of a value that this program has not written."""
    return OperatorNeeded(
        f"A stored {what} is not readable ({why}): it was not written by this program. Restore the state from a copy,"
        " or begin with an empty one (ESM_STATE)."
    )
