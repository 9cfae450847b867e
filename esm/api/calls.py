"""One call of the API, and what answers it."""

from collections.abc import Awaitable, Callable
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from typing import Any

from esm.api.credentials import Caller
from esm.api.event_streams import EventStream
from esm.errors import RequestRefused
from esm.model.clocks import UnixTime

_ACTIONS = {"Invoke": "InvokeFunction", "InvokeWithResponseStream": "InvokeFunction"}
"""IAM's names where they are not the operation's."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has been understood, and whose signature is right."""

    operation: str
    given: Table[str, Any] = field(repr=False)
    """Parameters by member."""
    caller: Caller
    request_id: str
    at: UnixTime
    account: str
    """The daemon's own."""
    stream: EventStream
    """Takes the answer of an operation that is answered in pieces."""
    trace: str | None = None
    """`X-Amzn-Trace-Id`."""

    @property
    def action(self) -> str:
        """IAM's name of it."""
        return f"lambda:{_ACTIONS.get(self.operation, self.operation)}"

    def check_allowed(self) -> None:
        """Raises: RequestRefused (403) where the caller may not do this on any function."""
        if not self.caller.may(self.action):
            raise self._denied("*")

    def check_function(self, name: str) -> None:
        """Raises: RequestRefused (403) where the caller may not do this on a function."""
        if not self.caller.may_on(name):
            raise self._denied(f"function {name}")

    def _denied(self, resource: str) -> RequestRefused:
        text = (
            f"User: arn:aws:iam::{self.account}:user/{self.caller.name} is not authorized to perform: {self.action} on"
            f" resource: {resource} because no identity-based policy allows the {self.action} action"
        )
        return RequestRefused(text, "AccessDeniedException", 403)


Handler = Callable[[Call], Awaitable[Table[str, Any]]]
"""What an operation does; returns its output by member. Raises: RequestRefused, Unavailable, OperatorNeeded."""


class Throttling(RequestRefused):
    """429: try again later."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        """`reason`: one of Lambda's ThrottleReasons."""
        super().__init__("Rate Exceeded.", "TooManyRequestsException", 429)
        self.more = {"Reason": reason}
        if after_s is not None:
            self.more["retryAfterSeconds"] = str(max(1, round(after_s)))


def not_found(text: str) -> RequestRefused:
    """404."""
    return RequestRefused(text, "ResourceNotFoundException", 404)
