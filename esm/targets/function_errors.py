"""The payloads that Lambda answers when a function did not end as it should: literal. Source: lambda.md 6."""

import msgspec

from esm.model.invocation import Answer

UNHANDLED = "Unhandled"
"""`X-Amz-Function-Error` of every failed function."""
ANSWER_BYTES_MAX = 6_291_556
"""Lambda's cap on a synchronous answer."""


class _Typed(msgspec.Struct):
    errorType: msgspec.Raw  # noqa: N815 AWS's name


class _Error(_Typed):
    errorMessage: msgspec.Raw  # noqa: N815 AWS's name


def timed_out(request_id: str, timeout_s: int) -> Answer:
    """The function did not end within its timeout."""
    return _failure(request_id, "Sandbox.Timedout", f"Task timed out after {timeout_s:.2f} seconds")


def exited(request_id: str) -> Answer:
    """The function's process, or the way to it, was lost while it ran."""
    return _failure(request_id, "Runtime.ExitError", "Runtime exited without providing a reason")


def too_large(request_id: str) -> Answer:
    """The function answered more than Lambda takes."""
    text = f"Response payload size exceeded maximum allowed payload size ({ANSWER_BYTES_MAX} bytes)."
    payload = msgspec.json.encode({"errorMessage": text, "errorType": "Function.ResponseSizeTooLarge"})
    return Answer(request_id, payload, function_error=UNHANDLED)


def is_error(body: bytes) -> bool:
    """Whether a body is a JSON object that holds `errorType` and `errorMessage`, whatever their values."""
    return _is(_Error, body)


def is_typed(body: bytes) -> bool:
    """Whether a body is a JSON object that holds `errorType` at least."""
    return _is(_Typed, body)


def _is(shape: type[_Typed], body: bytes) -> bool:
    if b"errorType" not in body:
        return False
    try:
        msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True


def _failure(request_id: str, error_type: str, text: str) -> Answer:
    payload = {"errorType": error_type, "errorMessage": f"RequestId: {request_id} Error: {text}"}
    return Answer(request_id, msgspec.json.encode(payload), function_error=UNHANDLED)
