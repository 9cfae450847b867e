"""What is given up, and why: the facts of which the document for a destination is made."""

from dataclasses import dataclass
from enum import Enum

from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.outcome import Ran


class Condition(Enum):
    """Why records were given up, in AWS's words where AWS has them."""

    RETRIES = "RetryAttemptsExhausted"
    AGE = "RecordAgeExceeded"
    PAYLOAD = "MaximumPayloadSizeExceeded"
    SKIPPED = "SkippedByOperator"
    """Ours: AWS has no such command."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A message attribute of SQS and SNS."""

    name: str
    type: str
    """`String` or `Number`."""
    value: str


@dataclass(frozen=True, slots=True)
class Span:
    """A run of records of one lane: all that a notice says of them."""

    first_sequence: str
    last_sequence: str
    count: int
    first_arrived_at: UnixTime
    last_arrived_at: UnixTime


@dataclass(frozen=True, slots=True)
class Notice:
    """Records of one shard that are given up."""

    mapping: str
    """UUID."""
    function_arn: Arn
    source_arn: Arn
    shard: str
    condition: Condition
    span: Span
    invoke_count: int
    """Attempts counted for the piece given up, at least 1; 0 for what an operator passes over."""
    request_id: str
    """Of the last invocation, or a fresh uuid where nothing ran."""
    ran: Ran | None
    """None where no `responseContext` is written: age, refused payload."""
    at: UnixTime
    id: str = ""
    """A uuid, the same however often the notice is sent: the end of its key in a bucket."""

    @property
    def folder(self) -> str:
        """Beginning of its key in a bucket."""
        return f"aws/lambda/{self.mapping}/{self.shard}"

    @property
    def trace(self) -> str | None:
        """None: notices of mappings carry no trace header."""
        return None

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """None: notices of mappings carry no message attributes."""
        return ()


@dataclass(frozen=True, slots=True)
class AsyncNotice:
    """What became of one asynchronous event, on its way to a destination or a dead-letter queue."""

    function: str
    """Name."""
    id: str
    """A uuid, the same however often the notice is sent: the end of its key in a bucket."""
    at: UnixTime
    trace: str | None = None
    attributes: tuple[Attribute, ...] = ()

    @property
    def folder(self) -> str:
        """Beginning of its key in a bucket."""
        return f"aws/lambda/async/{self.function}"


AnyNotice = Notice | AsyncNotice
