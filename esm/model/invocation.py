"""One invocation of a function, and every way in which it can end.

The endings are a closed union, matched exhaustively: a new case breaks every rule that does not know it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from esm.model.arn import Arn
from esm.model.clocks import Instant


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a target is asked to run."""

    request_id: str
    """A uuid; targets that mint their own (AWS Lambda) answer with theirs."""
    function_arn: Arn
    """As the mapping names it, qualifier included."""
    payload: bytes = field(repr=False)
    start_by: Instant | None = None
    """Nothing may start after this instant (a message's visibility ends): answer `Throttled` instead."""
    trace: str | None = None
    """X-Ray trace header of the caller."""
    is_async: bool = False
    """Invocation type `Event`: the target answers 202 with an empty payload once the event is stored."""
    waits: bool = True
    """Whether it waits for a free slot until `start_by`, as pollers do; False: `Throttled` where there is none now."""
    client_context: str | None = field(default=None, repr=False)
    """JSON that the caller gave (`X-Amz-Client-Context`, decoded); hosted functions see it."""
    cognito_identity: str | None = field(default=None, repr=False)
    """JSON: identity and pool of the caller; hosted functions see it."""
    stream: Callable[[bytes], Awaitable[None]] | None = field(default=None, repr=False, compare=False)
    """Takes the pieces of an answer that a hosted function streams, as they come; the payload is then empty.

    None: a streamed answer is gathered, up to the limit of other answers.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """The function ran: it returned, raised, timed out or died."""

    request_id: str
    payload: bytes = field(repr=False)
    function_error: str | None = None
    """`Unhandled` when the function failed; None when it returned."""
    status: int = 200
    executed_version: str = "$LATEST"
    log_tail: bytes = field(default=b"", repr=False, compare=False)
    """The last of what a hosted function's invocation logged, at most 4 KB."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """429, or no free capacity: the function did not run."""

    request_id: str
    after_s: float | None = None
    """What the target asked to wait (`Retry-After`)."""
    reason: str | None = field(default=None, compare=False)
    """Lambda's `Reason`, where the target knows it."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The network, or a service in trouble: the function did not run."""

    request_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """403, 404, KMS and the like: the function cannot run until someone acts."""

    request_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Refused:
    """413, or a payload that Lambda cannot parse: this payload will never run."""

    request_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Abandoned:
    """RecursiveInvocationException: the batch is to be given up."""

    request_id: str
    text: str


Ending = Answer | Throttled | Unreachable | Misconfigured | Refused | Abandoned
