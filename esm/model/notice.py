"""What is given up, and why: the facts of which the document for a destination is made."""

from dataclasses import dataclass
from enum import Enum

from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.outcome import Ran


class Condition(Enum):
    """Why records were given up, in AWS's words."""

    RETRIES = "RetryAttemptsExhausted"
    AGE = "RecordAgeExceeded"
    PAYLOAD = "MaximumPayloadSizeExceeded"


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
    """Attempts counted for the piece given up, at least 1."""
    request_id: str
    """Of the last invocation, or a fresh uuid where nothing ran."""
    ran: Ran | None
    """None where no `responseContext` is written: age, refused payload."""
    at: UnixTime
