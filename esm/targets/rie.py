"""What the Runtime Interface Emulator's answers mean: pure, and all of it.

Law: what shows that the function ran is an `Answer`; what shows that it did not is never one. Texts for people hold no
part of a body. Source: lambda.md 6 (payloads of function errors), 7.3.
"""

import re
from collections.abc import Mapping

import msgspec

from esm.model.invocation import Answer, Ending, Misconfigured, Refused, Throttled, Unreachable
from esm.targets import retry_after
from esm.targets.function_errors import UNHANDLED, timed_out

PATH = "/2015-03-31/functions/function/invocations"

_TIMED_OUT = re.compile(rb"\s*Task timed out after \d+(?:\.\d+)? seconds\s*")
_OK = range(200, 300)
_REDIRECT = range(300, 400)
_CLIENT_ERROR = range(400, 500)


class _Typed(msgspec.Struct):
    errorType: msgspec.Raw  # noqa: N815 AWS's name


class _Error(_Typed):
    errorMessage: msgspec.Raw  # noqa: N815 AWS's name


def ending(request_id: str, timeout_s: int, status: int, headers: Mapping[str, str], body: bytes) -> Ending:
    """What an answer says. `headers` finds names however they are capitalised.

    A 503 is never the emulator's own: whatever stands before it has no function to offer.
    """
    if status in _OK:
        return _ran(request_id, timeout_s, headers, body)
    if status in {500, 502, 504} and _is(_Typed, body):
        return Answer(request_id, body, function_error=UNHANDLED)
    if status == 429 or (status == 400 and not body):  # noqa: PLR2004 throttled; busy
        return Throttled(request_id, retry_after.seconds(headers.get("Retry-After")))
    return _not_run(request_id, status)


def _ran(request_id: str, timeout_s: int, headers: Mapping[str, str], body: bytes) -> Answer:
    if _TIMED_OUT.fullmatch(body):
        return timed_out(request_id, timeout_s)
    stated = headers.get("X-Amz-Function-Error")
    if stated is None and _is(_Error, body):
        stated = UNHANDLED
    return Answer(request_id, body, function_error=stated)


def _not_run(request_id: str, status: int) -> Ending:
    if status == 413:  # noqa: PLR2004 payload too large
        return Refused(request_id, "The function's URL answered 413: the payload is too large for its server.")
    if status in _REDIRECT:
        text = f"The function's URL answered {status}, a redirect, which is not followed: name the final URL."
        return Misconfigured(request_id, text)
    if status in _CLIENT_ERROR:
        text = f"The function's URL answered {status}: see that it names a server of protocol rie that lets esm in."
        return Misconfigured(request_id, text)
    return Unreachable(request_id, f"The function's URL answered {status}.")


def _is(shape: type[_Typed], body: bytes) -> bool:
    """Whether the body is a JSON object that holds the attributes of `shape`, whatever their values."""
    if b"errorType" not in body:
        return False
    try:
        msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True
