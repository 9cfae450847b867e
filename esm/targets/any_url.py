"""Any URL that takes an event by POST (`http`): pure. Its status alone tells how the function ended.

2xx: the body is the function's answer. 429: throttled. 413: refused, the batch is halved. 502, 503 and 504: whatever
stands before the function did not reach it. Every other 4xx and 5xx is a function error. Source: decided here.
"""

from collections.abc import Mapping

from esm.model.function import UrlFunction
from esm.model.invocation import Answer, Ending
from esm.targets import statuses
from esm.targets.protocol import Call, runtime_headers

ERRORS: statuses.Ranges = ((400, 412), (414, 428), (430, 501), (505, 599))


class AnyUrl:
    """An `HttpProtocol`. What stands behind a URL serves as many at once as it will: no bound but `MaxConcurrency`."""

    each_max: int | None = None

    def __init__(self, function: UrlFunction) -> None:
        self._errors = statuses.errors_of(function, ERRORS)

    def path(self, own: str) -> str:
        """The Url's own."""
        return own

    def headers(self, call: Call) -> Mapping[str, str]:
        """Those of the Runtime API."""
        return runtime_headers(call)

    def ending(self, call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Ending:
        """See `HttpProtocol`."""
        return statuses.ending(call.request_id, status, headers, body, self._errors, _answer)


def _answer(request_id: str, headers: Mapping[str, str], body: bytes) -> Answer:
    return Answer(request_id, body, function_error=headers.get("X-Amz-Function-Error"))
