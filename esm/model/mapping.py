"""An event source mapping: which source feeds which function, and how. Parameters are Lambda's.

Source: lambda.md 1.2 (parameters, defaults), 4.8 of wire-shapes.md (ranges).
"""

from dataclasses import dataclass
from enum import Enum

from esm.model.arn import Arn, SourceKind
from esm.model.clocks import UnixTime


class StartingPosition(Enum):
    """Where a stream mapping begins to read."""

    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"
    AT_TIMESTAMP = "AT_TIMESTAMP"


class State(Enum):
    """The state of a mapping as Lambda's API shows it."""

    CREATING = "Creating"
    ENABLING = "Enabling"
    ENABLED = "Enabled"
    DISABLING = "Disabling"
    DISABLED = "Disabled"
    UPDATING = "Updating"
    DELETING = "Deleting"


NO_RECORDS = "No records processed"
"""`LastProcessingResult` before the first batch."""

OK = "OK"
"""`LastProcessingResult` after a batch that succeeded, or whose failure was discarded."""

CALL_FAILED = "PROBLEM: Function call failed"
"""`LastProcessingResult` after a function error. Source: lambda.md 11.11."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One event source mapping, validated and with its defaults filled in."""

    uuid: str
    function: str
    """Key under `functions:`, or the full ARN."""
    function_arn: Arn
    """As configured: the qualifier stays where one was given."""
    source_arn: Arn
    source_kind: SourceKind
    enabled: bool = True
    batch_size: int = 10
    window_s: int = 0
    """`MaximumBatchingWindowInSeconds`."""
    parallelization_factor: int = 1
    starting_position: StartingPosition | None = None
    """None for queues."""
    starting_at: UnixTime | None = None
    """`StartingPositionTimestamp`, with AT_TIMESTAMP only."""
    retries_max: int | None = None
    """`MaximumRetryAttempts`; None is Lambda's -1: until the record expires at the source."""
    record_age_max_s: int | None = None
    """`MaximumRecordAgeInSeconds`; None is Lambda's -1."""
    bisect_on_error: bool = False
    reports_item_failures: bool = False
    """`FunctionResponseTypes` holds `ReportBatchItemFailures`."""
    on_failure: Arn | None = None
    """`DestinationConfig.OnFailure.Destination`."""
    concurrency_max: int | None = None
    """`ScalingConfig.MaximumConcurrency`."""

    @property
    def qualifier(self) -> str | None:
        """The version or alias that the mapping invokes."""
        return self.function_arn.qualifier
