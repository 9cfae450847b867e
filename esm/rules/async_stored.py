"""What asynchronous events look like in the store: one line of JSON, then payload and response as they are.

Law: a value holds at most what a store takes. A body that does not fit goes into parts of their own, which are written
before the value that names them and removed after it, so that a value never names what is not there. Where there are
blobs, such a body is one of them, and a marker among the parts, written before it and removed after it, makes sure that
it is found again after a crash.
"""

from dataclasses import dataclass

import msgspec

from esm.errors import OperatorNeeded, StoreTooNew
from esm.model.arn import Arn
from esm.model.async_event import AsyncCondition, AsyncEvent, Recipient, Response, Verdict
from esm.model.clocks import UnixTime
from esm.model.stored import VALUE_BYTES_MAX, Blob

FORMAT = 1

HEAD_BYTES_MAX = 8 * 1024
"""Room for the line; it names things, whose lengths are bounded."""

PART_BYTES_MAX = VALUE_BYTES_MAX - 1024


class _Response(msgspec.Struct):
    status: int
    executed_version: str
    function_error: str | None


class _Verdict(msgspec.Struct):
    condition: str
    at: float
    notice_id: str
    pending: list[str]
    failures: int


class _Head(msgspec.Struct):
    format: int
    request_id: str
    function_arn: str
    accepted_at: float
    payload_bytes: int
    body_bytes: int
    trace: str | None = None
    tries: int = 0
    waits: int = 0
    response: _Response | None = None
    verdict: _Verdict | None = None
    parts: int = 0
    parts_name: str = ""
    blob: Blob | None = None


class _Marker(msgspec.Struct):
    format: int
    blob: Blob


@dataclass(frozen=True, slots=True)
class Found:
    """A stored event as its value shows it."""

    head: _Head
    body: bytes
    """Empty where it lies apart."""

    @property
    def blob(self) -> Blob | None:
        """What holds the body, where a blob does."""
        return self.head.blob

    @property
    def is_apart(self) -> bool:
        """Whether the body is to be read besides."""
        return self.head.parts > 0 or self.head.blob is not None

    @property
    def parts(self) -> int:
        """How many parts hold the body; 0: none."""
        return self.head.parts

    @property
    def parts_name(self) -> str:
        """What the parts' items begin with."""
        return self.head.parts_name

    @property
    def body_bytes(self) -> int:
        """Bytes of payload and response."""
        return self.head.body_bytes


def body_of(event: AsyncEvent) -> bytes:
    """Payload and response."""
    return event.payload + (event.response.payload if event.response else b"")


def fits(event: AsyncEvent) -> bool:
    """Whether a value holds the whole event."""
    return len(body_of(event)) + HEAD_BYTES_MAX <= VALUE_BYTES_MAX


def encode(event: AsyncEvent, parts_name: str, blob: Blob | None = None) -> tuple[bytes, list[bytes]]:
    """The value, and the parts that are to be written before it as `parts_name`; none where all fits the value, or a
    `blob` holds the body.
    """
    response, body = event.response, body_of(event)
    parts = [] if fits(event) or blob is not None else _cut(body)
    head = _Head(
        format=FORMAT, request_id=event.request_id, function_arn=str(event.function_arn),
        accepted_at=event.accepted_at, payload_bytes=len(event.payload), body_bytes=len(body), trace=event.trace,
        tries=event.tries, waits=event.waits,
        response=None if response is None else _shown_response(response),
        verdict=None if event.verdict is None else _shown_verdict(event.verdict),
        parts=len(parts), parts_name=parts_name if parts or blob else "", blob=blob,
    )  # fmt: skip
    return msgspec.json.encode(head) + b"\n" + (b"" if parts or blob else body), parts


def encode_marker(blob: Blob) -> bytes:
    """What stands among the parts for a body that is a blob."""
    return msgspec.json.encode(_Marker(FORMAT, blob))


def decode_marker(value: bytes) -> Blob:
    """The blob that a marker stands for. Raises: OperatorNeeded where the value is none that this version reads."""
    try:
        found = msgspec.json.decode(value, type=_Marker)
        if found.format == FORMAT:
            return found.blob
        raise msgspec.ValidationError(f"format {found.format}")
    except msgspec.MsgspecError as error:
        raise OperatorNeeded(
            f"The marker of an asynchronous event's blob is not readable ({error}): it was not written by this version."
        ) from error


def decode(value: bytes) -> Found:
    """What `encode` wrote. Raises: StoreTooNew; OperatorNeeded where the value is none of ours."""
    line, _, body = value.partition(b"\n")
    try:
        head = msgspec.json.decode(line, type=_Head)
    except msgspec.MsgspecError as error:
        raise OperatorNeeded(
            f"A stored asynchronous event is not readable ({error}): it was not written by this program."
        ) from error
    if head.format > FORMAT:
        raise StoreTooNew(
            f"A stored asynchronous event has format {head.format}, and this version reads up to {FORMAT}: a newer"
            " version has written it. Run that version again, or a state of its own (ESM_STATE) for this one."
        )
    return Found(head, body)


def event_of(found: Found, body: bytes) -> AsyncEvent:
    """The event, from its value and its whole body."""
    head = found.head
    return AsyncEvent(
        request_id=head.request_id, function_arn=Arn.parse(head.function_arn), payload=body[: head.payload_bytes],
        accepted_at=UnixTime(head.accepted_at), trace=head.trace, tries=head.tries, waits=head.waits,
        response=None if head.response is None else _response(head.response, body[head.payload_bytes :]),
        verdict=None if head.verdict is None else _verdict(head.verdict),
    )  # fmt: skip


def item(due_at: UnixTime, request_id: str) -> str:
    """Where an event stands in its bucket: by due time, in milliseconds."""
    return f"{max(0, round(due_at * 1000)):015d}-{request_id}"


def due_at(item_name: str) -> UnixTime:
    """The time in an item's name."""
    return UnixTime(int(item_name[:15]) / 1000)


def _shown_response(response: Response) -> _Response:
    return _Response(response.status, response.executed_version, response.function_error)


def _response(shown: _Response, payload: bytes) -> Response:
    return Response(shown.status, shown.executed_version, shown.function_error, payload)


def _shown_verdict(verdict: Verdict) -> _Verdict:
    pending = [one.value for one in verdict.pending]
    return _Verdict(verdict.condition.value, verdict.at, verdict.notice_id, pending, verdict.failures)


def _verdict(shown: _Verdict) -> Verdict:
    pending = tuple(Recipient(one) for one in shown.pending)
    return Verdict(AsyncCondition(shown.condition), UnixTime(shown.at), shown.notice_id, pending, shown.failures)


def _cut(body: bytes) -> list[bytes]:
    return [body[start : start + PART_BYTES_MAX] for start in range(0, len(body), PART_BYTES_MAX)]
