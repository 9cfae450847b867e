"""What a hosted function's invocation ends with when the function did not answer by itself: Lambda's own texts.

Source: lambda.md 6, wire-shapes.md 4.10.
"""

import signal

import msgspec

from esm.model.invocation import Answer

ANSWER_BYTES_MAX = 6_291_556
"""Lambda's cap on a synchronous answer."""
TOO_LARGE = f"Response payload size exceeded maximum allowed payload size ({ANSWER_BYTES_MAX} bytes)."
_UNHANDLED = "Unhandled"


def failed(request_id: str, payload: bytes) -> Answer:
    """The function, or its initialisation, failed; `payload` is what its runtime client said."""
    return Answer(request_id, payload, _UNHANDLED)


def timed_out(request_id: str, timeout_s: int) -> Answer:
    """Killed at its timeout."""
    return _by_sandbox(request_id, "Sandbox.Timedout", f"Task timed out after {timeout_s:.2f} seconds")


def exited(request_id: str, status: int) -> Answer:
    """The process ended; `status` is its exit status, or minus the signal that killed it."""
    if status == 0:
        text = "Runtime exited without providing a reason"
    else:
        text = f"Runtime exited with error: {status_text(status)}"
    return _by_sandbox(request_id, "Runtime.ExitError", text)


def crashed(request_id: str, error_type: str, text: str) -> Answer:
    """Something beside the function ended it: an extension, or the place where it runs."""
    return _by_sandbox(request_id, error_type, text)


def truncated(request_id: str) -> Answer:
    """A streamed answer broke off."""
    return _by_sandbox(request_id, "Runtime.TruncatedResponse", "Response truncated")


def status_text(status: int) -> str:
    """How a process ended; minus the signal that killed it."""
    if status >= 0:
        return f"exit status {status}"
    return f"signal: {(signal.strsignal(-status) or str(-status)).lower()}"


def too_large(request_id: str) -> Answer:
    """It answered more than Lambda takes."""
    payload = {"errorMessage": TOO_LARGE, "errorType": "Function.ResponseSizeTooLarge"}
    return failed(request_id, msgspec.json.encode(payload))


def _by_sandbox(request_id: str, error_type: str, text: str) -> Answer:
    payload = {"errorType": error_type, "errorMessage": f"RequestId: {request_id} Error: {text}"}
    return failed(request_id, msgspec.json.encode(payload))
