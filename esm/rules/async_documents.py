"""What became of an asynchronous event -> what its destinations and its dead-letter queue get.

Law: request and response are embedded as the bytes that they are; nothing is parsed and printed again.

Source: wire-shapes.md 3.5, 3.6; lambda.md 5.
"""

import msgspec

from esm.model.async_event import AsyncCondition, AsyncEvent, Recipient, Response
from esm.model.notice import AsyncNotice, Attribute
from esm.rules.notices import timestamp

ERROR_MESSAGE_BYTES_MAX = 1024
"""Of the attribute `ErrorMessage`."""

_THROTTLED_STATUS = 429
_FAILED_STATUS = 500
_ALLOWED_CONTROLS = "\t\n\r"


class _Error(msgspec.Struct):
    errorMessage: str = ""  # noqa: N815 - AWS's name
    errorType: str = ""  # noqa: N815


def document(event: AsyncEvent) -> bytes:
    """The JSON that a destination receives, in the recorded order of keys."""
    verdict = event.verdict
    assert verdict is not None
    head = msgspec.json.encode(
        {
            "version": "1.0",
            "timestamp": timestamp(verdict.at),
            "requestContext": {
                "requestId": event.request_id,
                "functionArn": str(event.qualified_arn),
                "condition": verdict.condition.value,
                "approximateInvokeCount": event.tries,
            },
        }
    )
    made = head[:-1] + b',"requestPayload":' + _json(event.payload)
    if event.response is not None and verdict.condition is not AsyncCondition.NO_CONCURRENCY:
        made += b',"responseContext":' + _context(event.response)
        made += b',"responsePayload":' + _json(event.response.payload)
    return made + b"}"


def notice(event: AsyncEvent, recipient: Recipient) -> AsyncNotice:
    """The envelope of the document or, for a dead-letter queue, of the event itself."""
    verdict = event.verdict
    assert verdict is not None
    attributes = _attributes(event) if recipient is Recipient.DEAD_LETTER else ()
    return AsyncNotice(event.function_arn.name, verdict.notice_id, verdict.at, event.trace, attributes)


def body(event: AsyncEvent, recipient: Recipient) -> bytes:
    """What a recipient gets: the document or, in a dead-letter queue, the event verbatim."""
    return event.payload if recipient is Recipient.DEAD_LETTER else document(event)


def _context(response: Response) -> bytes:
    context: dict[str, object] = {"statusCode": response.status, "executedVersion": response.executed_version}
    if response.function_error is not None:
        context["functionError"] = response.function_error
    return msgspec.json.encode(context)


def _attributes(event: AsyncEvent) -> tuple[Attribute, ...]:
    code, message = _failure(event)
    return (
        Attribute("RequestID", "String", event.request_id),
        Attribute("ErrorCode", "Number", str(code)),
        Attribute("ErrorMessage", "String", _shortened(message)),
    )


def _failure(event: AsyncEvent) -> tuple[int, str]:
    """Status and message of what the event ended with."""
    verdict, response = event.verdict, event.response
    if verdict is not None and verdict.condition is AsyncCondition.NO_CONCURRENCY:
        return _THROTTLED_STATUS, "Rate Exceeded."
    if response is None:
        return _FAILED_STATUS, "The function could not be invoked."
    try:
        error = msgspec.json.decode(response.payload, type=_Error)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return response.status, "Unhandled"
    return response.status, error.errorMessage or error.errorType or "Unhandled"


def _shortened(text: str) -> str:
    """The first 1 KB, without characters that a message attribute cannot hold."""
    clean = "".join(
        char if (char >= " " or char in _ALLOWED_CONTROLS) and char not in "\ufffe\uffff" else "?" for char in text
    )
    return clean.encode("utf-8", "replace")[:ERROR_MESSAGE_BYTES_MAX].decode("utf-8", "ignore")


def _json(payload: bytes) -> bytes:
    """A payload as a JSON value: as it is; null where it is empty, a string where it is no JSON."""
    if not payload.strip():
        return b"null"
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
        payload.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return msgspec.json.encode(payload.decode("utf-8", "replace"))
    return payload
