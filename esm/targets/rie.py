"""What the Runtime Interface Emulator's answers mean: pure, and all of it.

Law: what shows that the function ran is an `Answer`; what shows that it did not is never one. Texts for people hold no
part of a body. Source: lambda.md 6 (payloads of function errors), 7.3.
"""

import base64
import re
from collections.abc import Mapping

from esm.errors import RequestRefused
from esm.model.function import UrlFunction
from esm.model.invocation import Answer, Ending, Throttled
from esm.targets import retry_after, statuses
from esm.targets.function_errors import UNHANDLED, is_error, is_typed, timed_out
from esm.targets.protocol import Call, runtime_headers

PATH = "/2015-03-31/functions/function/invocations"

_TIMED_OUT = re.compile(rb"\s*Task timed out after \d+(?:\.\d+)? seconds\s*")
_INVOKE_PATH = re.compile(r"/2015-03-31/functions/[^/]+/invocations")
_OK = range(200, 300)
_BUSY = 400


class Rie:
    """An `HttpProtocol`. The emulator serves one invocation at a time."""

    each_max: int | None = 1

    def __init__(self, function: UrlFunction) -> None:
        """Raises: RequestRefused for statuses, which mean what the emulator means by them."""
        if function.error_statuses is not None:
            text = "has ErrorStatusCodes, which is for the protocols web-adapter and http: take it out"
            raise RequestRefused(f"The function {function.key!r} {text}.")

    def path(self, own: str) -> str:
        """The emulator's, below the Url's own; one that is an invocation path stays."""
        return own if _INVOKE_PATH.fullmatch(own) else own.rstrip("/") + PATH

    def headers(self, call: Call) -> Mapping[str, str]:
        """Those of the Runtime API; the emulator hands on the trace and the client context."""
        context = call.invocation.client_context
        more = {} if context is None else {"X-Amz-Client-Context": base64.b64encode(context.encode()).decode()}
        return runtime_headers(call) | more

    def ending(self, call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Ending:
        """What an answer says.

        A 503 is never the emulator's own: whatever stands before it has no function to offer.
        """
        if status in _OK:
            return _ran(call, headers, body)
        if status in {500, 502, 504} and is_typed(body):
            return Answer(call.request_id, body, function_error=UNHANDLED)
        if status == _BUSY and not body:
            return Throttled(call.request_id, retry_after.seconds(headers.get("Retry-After")))
        remedy = "see that it names a server of protocol rie that lets esm in"
        return statuses.not_run(call.request_id, status, headers, remedy)


def _ran(call: Call, headers: Mapping[str, str], body: bytes) -> Answer:
    if _TIMED_OUT.fullmatch(body):
        return timed_out(call.request_id, call.timeout_s)
    stated = headers.get("X-Amz-Function-Error")
    if stated is None and is_error(body):
        stated = UNHANDLED
    return Answer(call.request_id, body, function_error=stated)
