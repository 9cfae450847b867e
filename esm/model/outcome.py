"""What an invocation means for its batch: made from an `Ending` by `rules/responses`."""

from dataclasses import dataclass, field

from esm.model.invocation import Abandoned, Misconfigured, Refused, Throttled, Unreachable


@dataclass(frozen=True, slots=True)
class Ran:
    """What notices say of the last invocation that ran (`requestId`, `responseContext`)."""

    request_id: str
    status: int
    executed_version: str
    function_error: str | None
    """None when the failure was an answer of `batchItemFailures`."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """All records were taken."""

    ran: Ran
    state: bytes | None = field(default=None, repr=False)
    """The answer's `state`, byte for byte, where the invocation belonged to a tumbling window."""


@dataclass(frozen=True, slots=True)
class FailedItems:
    """Some records failed: message ids on queues, sequence numbers on streams; never empty, all in the batch."""

    ran: Ran
    items: frozenset[str]
    state: bytes | None = field(default=None, repr=False)
    """As in `Succeeded`."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The function failed, or its answer did not name valid records: the whole batch failed."""

    ran: Ran
    error_type: str
    """For the log: `errorType` of the function's error, or what was wrong with its answer. Never its message."""


Outcome = Succeeded | FailedItems | Failed | Throttled | Unreachable | Misconfigured | Refused | Abandoned
