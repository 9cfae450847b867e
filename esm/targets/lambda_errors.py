"""What an error of Lambda's Invoke means for a mapping: pure. Source: lambda.md 6, below its table.

Law: whatever Lambda answers in place of running the function is never an attempt.
"""

from esm.model.invocation import Abandoned, Ending, Misconfigured, Refused, Throttled, Unreachable

_THROTTLED = frozenset({"TooManyRequestsException", "ThrottlingException"})
_WAITING = frozenset(
    {"ResourceConflictException", "SnapStartNotReadyException", "SnapStartRegenerationFailureException"}
)
"""Of status 409: the function is Pending, or its snapshot is not ready. The others of 409 last until someone acts."""
_LASTING = frozenset({
    "EC2AccessDeniedException", "InvalidRuntimeException", "InvalidSecurityGroupIDException",
    "InvalidSubnetIDException", "InvalidZipFileException", "KMSAccessDeniedException", "KMSDisabledException",
    "KMSInvalidStateException", "KMSNotFoundException",
})  # fmt: skip
"""Of status 502: they last until someone acts. The others end by themselves."""

_TOO_MANY = 429
_TOO_LARGE = 413
_PASSING = frozenset({408, 410})
_CLIENT_ERROR = range(400, 500)


def ending(request_id: str, code: str, status: int, message: str, retry_after_s: float | None) -> Ending:
    """What an error answer means. `message` is shown to the operator, but where it may quote the payload."""
    text = f"{code}: {message}"
    if code == "RecursiveInvocationException":
        return Abandoned(request_id, text)
    if code in _THROTTLED or status == _TOO_MANY:
        return Throttled(request_id, retry_after_s)
    if code == "InvalidRequestContentException" or status == _TOO_LARGE:
        return Refused(request_id, f"{code}: Lambda does not take this payload.")
    if code in _LASTING or (status in _CLIENT_ERROR and status not in _PASSING and code not in _WAITING):
        return Misconfigured(request_id, text)
    return Unreachable(request_id, text)
