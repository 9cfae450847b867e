"""A web application that takes events as behind the Lambda Web Adapter (`web-adapter`): pure.

The event is POSTed to the pass-through path, `/events` unless the Url has a path. `x-amzn-lambda-context` is the
adapter's JSON; what esm does not know of the function (memory, logs) has Lambda's defaults. Where the adapter would
take a failing status for a success, esm does not: every 4xx and 5xx is a function error, but for 413 (refused) and 429
(throttled). Source: lambda.md 7.3b; aws-lambda-web-adapter 1.0 (request, error statuses), lambda_http 1.1 (the answer
of an event that is not HTTP: JSON text, or null), lambda_runtime 1.1 (the context).
"""

from collections.abc import Mapping

import msgspec

from esm.model.function import MEMORY_MB_DEFAULT, UrlFunction
from esm.model.invocation import Answer, Ending
from esm.targets import statuses
from esm.targets.protocol import Call, trace_header

PATH = "/events"
ERRORS: statuses.Ranges = ((400, 412), (414, 428), (430, 599))

_NULL = b"null"
_TEXT_PREFIXES = ("text", "application/json", "application/javascript", "application/xml", "application/yaml")
_TEXT_SUFFIXES = ("+xml", "+yaml", "+json")


class WebAdapter:
    """An `HttpProtocol`. Web applications serve many requests at once: their address sets no bound."""

    each_max: int | None = None

    def __init__(self, function: UrlFunction) -> None:
        self._errors = statuses.errors_of(function, ERRORS)

    def path(self, own: str) -> str:
        """The pass-through path."""
        return PATH if own in {"", "/"} else own

    def headers(self, call: Call) -> Mapping[str, str]:
        """What the adapter sends with an event that is not HTTP."""
        return {
            **trace_header(call),
            "X-Amzn-Request-Context": "null",
            "X-Amzn-Lambda-Context": msgspec.json.encode(_context(call)).decode(),
        }

    def ending(self, call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Ending:
        """See `HttpProtocol`."""
        return statuses.ending(call.request_id, status, headers, body, self._errors, _answer)


def _context(call: Call) -> dict[str, object]:
    arn = call.invocation.function_arn
    return {
        "request_id": call.request_id,
        "deadline": call.deadline_ms,
        "invoked_function_arn": str(arn),
        "xray_trace_id": call.invocation.trace,
        "client_context": None,
        "identity": None,
        "tenant_id": None,
        "env_config": {
            "function_name": arn.name,
            "memory": MEMORY_MB_DEFAULT,
            "version": arn.qualifier or "$LATEST",
            "log_stream": "",
            "log_group": "",
        },
    }


def _answer(request_id: str, headers: Mapping[str, str], body: bytes) -> Answer:
    return Answer(request_id, _json(_text(headers, body)))


def _text(headers: Mapping[str, str], body: bytes) -> bytes:
    """The body where the adapter takes it for text; nothing where it is binary."""
    if headers.get("Content-Encoding") is not None:
        return b""
    stated = headers.get("Content-Type")
    if stated is None or stated.startswith(_TEXT_PREFIXES) or stated.split(";")[0].strip().endswith(_TEXT_SUFFIXES):
        return body
    return body if headers.get("X-Lambda-Http-Content-Encoding") == "text" else b""


def _json(text: bytes) -> bytes:
    """The text byte for byte where it is JSON in UTF-8, else `null`: a success of the whole batch, as on Lambda."""
    try:
        text.decode()
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _NULL
    return text
