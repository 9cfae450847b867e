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


class InvocationType(Enum):
    """How a mapping hands its batches to the function."""

    REQUEST_RESPONSE = "RequestResponse"
    """As on AWS: the batch is taken when the function has run."""
    EVENT = "Event"
    """Beyond AWS: the batch is taken when the function's asynchronous queue has it; order ends there."""


@dataclass(frozen=True, slots=True)
class FailureBackoff:
    """Beyond AWS: failed messages of a queue return after a pause of their own instead of the queue's visibility."""

    delay_min_s: int
    """Before the second receive; doubled with every further one."""
    delay_max_s: int


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
    on_failure_has_payload: bool = False
    """`OnFailure.IncludePayload`: SQS and SNS notices carry the event, where it fits."""
    on_failure_drops: bool = False
    """`OnFailure.WhenUnreachable` is `drop`: a destination that fails loses the notice, as on AWS."""
    on_failure_connection: str | None = None
    """`OnFailure.Connection`: a key of `connections:`."""
    concurrency_max: int | None = None
    """`ScalingConfig.MaximumConcurrency`."""
    pollers_min: int | None = None
    """`ProvisionedPollerConfig.MinimumPollers`; None with `pollers_max` None: not provisioned."""
    pollers_max: int | None = None
    """`ProvisionedPollerConfig.MaximumPollers`."""
    filters: tuple[str, ...] = ()
    """`FilterCriteria.Filters[].Pattern`, each a JSON object as text; a record that any of them matches is taken."""
    tumbling_window_s: int = 0
    """`TumblingWindowInSeconds`; 0: none."""
    invocation_type: InvocationType = InvocationType.REQUEST_RESPONSE
    """`InvocationType`, beyond AWS."""
    holds_group_on_failure: bool = False
    """`HoldGroupOnFailure`, beyond AWS: later messages of a failed message's FIFO group count as failed, too."""
    extends_visibility: bool = False
    """`VisibilityHeartbeat`, beyond AWS: messages stay hidden for as long as the function runs."""
    failure_backoff: FailureBackoff | None = None
    """`FailureBackoff`, beyond AWS."""
    role_arn: str | None = None
    """`RoleArn`, beyond AWS: assumed for polling and for the destination."""
    connection: str | None = None
    """`Connection`, beyond AWS: a key of `connections:`, for the source."""
    tags: tuple[tuple[str, str], ...] = ()
    """Key and value, sorted by key."""
    kms_key_arn: str | None = None
    """Kept and shown; has no effect here."""
    metrics: tuple[str, ...] = ()
    """`MetricsConfig.Metrics`; kept and shown: the metrics are always there."""

    @property
    def is_fifo(self) -> bool:
        """Whether the source is a FIFO queue."""
        return self.source_kind is SourceKind.SQS and self.source_arn.resource.endswith(".fifo")

    @property
    def lanes(self) -> int:
        """Batches of one shard that may be on their way at once: with tumbling windows one, whatever the factor."""
        return 1 if self.tumbling_window_s else self.parallelization_factor

    @property
    def qualifier(self) -> str | None:
        """The version or alias that the mapping invokes."""
        return self.function_arn.qualifier
