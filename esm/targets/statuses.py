"""What a status means where it is all that tells whether a function ran: pure.

Law: a status that says that the function was not reached is never an attempt, and never a success. `ErrorStatusCodes`
names the statuses that are the function's own failures, in place of the protocol's list, and wins over all else.
"""

from collections.abc import Callable, Mapping

import msgspec

from esm.model.function import UrlFunction
from esm.model.invocation import Answer, Ending, Misconfigured, Refused, Throttled, Unreachable
from esm.targets import retry_after
from esm.targets.function_errors import UNHANDLED, is_error

Ranges = tuple[tuple[int, int], ...]
"""First and last of each range."""

_OK = range(200, 300)
_REDIRECT = range(300, 400)
_CLIENT_ERROR = range(400, 500)
_KNOWN = range(200, 600)
_TOO_MANY = 429
_TOO_LARGE = 413
_NOT_REACHED = frozenset({401, 403, 404, 405, 407, _TOO_LARGE, _TOO_MANY, 502, 503, 504})
"""Who asks is not let in, what is asked for is not there, or something before it answers: nobody saw the records."""

_QUOTED_BYTES_MAX = 65_536
"""Of a body that is put into a function error's message."""


def errors_of(function: UrlFunction, default: Ranges) -> Ranges:
    """The statuses that are function errors: those configured, also none at all, or else the protocol's."""
    return default if function.error_statuses is None else function.error_statuses


def ending(
    request_id: str, status: int, headers: Mapping[str, str], body: bytes, errors: Ranges,
    answer: Callable[[str, Mapping[str, str], bytes], Answer],
) -> Ending:  # fmt: skip
    """What an answer means; `answer` reads that of a function that returned."""
    if any(first <= status <= last for first, last in errors):
        return failed(request_id, status, body)
    if status in _KNOWN and status not in _REDIRECT and status not in _NOT_REACHED:
        return answer(request_id, headers, body)
    return not_run(request_id, status, headers, "see that it names the function and lets esm in")


def not_run(request_id: str, status: int, headers: Mapping[str, str], remedy: str) -> Ending:
    """What a status means that shows that the function did not run."""
    said = f"The function's URL answered {status}"
    if status == _TOO_MANY:
        return Throttled(request_id, retry_after.seconds(headers.get("Retry-After")))
    if status == _TOO_LARGE:
        return Refused(request_id, f"{said}: the payload is too large for its server.")
    if status in _REDIRECT:
        return Misconfigured(request_id, f"{said}, a redirect, which is not followed: name the final URL.")
    if status in _CLIENT_ERROR or status not in _KNOWN:
        return Misconfigured(request_id, f"{said}: {remedy}.")
    return Unreachable(request_id, f"{said}.")


def failed(request_id: str, status: int, body: bytes) -> Answer:
    """A function error: as the function wrote it, or in the Lambda Web Adapter's words with the body in them."""
    if is_error(body):
        return Answer(request_id, body, function_error=UNHANDLED)
    quoted = {"statusCode": status, "body": body[:_QUOTED_BYTES_MAX].decode(errors="replace")}
    payload = {"errorType": f"HTTP {status}", "errorMessage": msgspec.json.encode(quoted).decode()}
    return Answer(request_id, msgspec.json.encode(payload), function_error=UNHANDLED)
