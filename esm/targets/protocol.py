"""What a way of speaking HTTP to functions must say of itself, so that `targets/http` can speak it: all of it pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from esm.model.invocation import Ending, Invocation


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation on its way."""

    invocation: Invocation
    timeout_s: int
    deadline_ms: int
    """When the function must have ended: milliseconds since 1970 UTC."""

    @property
    def request_id(self) -> str:
        """The invocation's."""
        return self.invocation.request_id


class HttpProtocol(Protocol):
    """One of `rie`, `web-adapter`, `http`."""

    each_max: int | None
    """The most invocations at once at one address. Where it is bounded, a function that outlives its caller keeps
    its place until it ends; where it is not, its connection is closed, which is how HTTP says that nobody waits."""

    def path(self, own: str) -> str:
        """The path to ask, where the Url's own is `own`."""
        ...

    def headers(self, call: Call) -> Mapping[str, str]:
        """What names the invocation to its server."""
        ...

    def ending(self, call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Ending:
        """What an answer means. `headers` finds names however they are capitalised."""
        ...


def runtime_headers(call: Call) -> dict[str, str]:
    """The headers of Lambda's Runtime API that name an invocation. Source: lambda.md 7.1."""
    headers = {
        "Lambda-Runtime-Aws-Request-Id": call.request_id,
        "Lambda-Runtime-Deadline-Ms": str(call.deadline_ms),
        "Lambda-Runtime-Invoked-Function-Arn": str(call.invocation.function_arn),
    }
    return headers | trace_header(call)


def trace_header(call: Call) -> dict[str, str]:
    """The trace, where there is one."""
    return {} if call.invocation.trace is None else {"X-Amzn-Trace-Id": call.invocation.trace}
