"""An asynchronous event of a function, from its acceptance until its destinations know what became of it."""

from dataclasses import dataclass, field
from enum import Enum

from esm.model.arn import Arn
from esm.model.clocks import UnixTime


class AsyncCondition(Enum):
    """What became of an event, in AWS's words."""

    SUCCESS = "Success"
    RETRIES = "RetriesExhausted"
    AGE = "EventAgeExceeded"
    NO_CONCURRENCY = "ZeroReservedConcurrency"


class Recipient(Enum):
    """Who is told."""

    ON_SUCCESS = "on_success"
    ON_FAILURE = "on_failure"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True)
class Response:
    """What the last try that ran answered."""

    status: int
    executed_version: str
    function_error: str | None
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the event, and who has still to be told."""

    condition: AsyncCondition
    at: UnixTime
    notice_id: str
    """A uuid, the same however often the notice is sent."""
    pending: tuple[Recipient, ...]
    failures: int = 0
    """Deliveries that failed in a row."""


@dataclass(frozen=True, slots=True)
class AsyncEvent:
    """One event. All its tries bear one request id."""

    request_id: str
    function_arn: Arn
    """As invoked, qualifier included."""
    payload: bytes = field(repr=False)
    accepted_at: UnixTime
    trace: str | None = None
    tries: int = 0
    """Tries in which the function ran."""
    waits: int = 0
    """Tries in a row in which it did not: throttles, an unreachable target."""
    response: Response | None = None
    """None where the function never ran."""
    verdict: Verdict | None = None
    """None while the event is to be tried."""
    extra: dict[str, object] = field(default_factory=dict, hash=False)
    """Attributes of a newer version, kept and written back."""

    @property
    def qualified_arn(self) -> Arn:
        """The function with the qualifier that runs: `$LATEST` where none was named."""
        arn = self.function_arn
        if arn.qualifier is not None:
            return arn
        return Arn(arn.partition, arn.service, arn.region, arn.account, f"{arn.resource}:$LATEST")
