"""A mapping as Lambda's API shows it: `EventSourceMappingConfiguration`.

Source: wire-shapes.md 4.2, 4.3; lambda.md 1.4.
"""

from typing import Any

from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.mapping import NO_RECORDS, Mapping, State
from esm.rules.parameters import Source, source_of

_NO_LIMIT = -1


def arn_of(mapping: Mapping) -> Arn:
    """The mapping's own ARN, in the account and region of its function."""
    function = mapping.function_arn
    resource = f"event-source-mapping:{mapping.uuid}"
    return Arn(function.partition, "lambda", function.region, function.account, resource)


def document(
    mapping: Mapping, state: State, modified_at: UnixTime, last_result: str = NO_RECORDS, reason: str | None = None
) -> dict[str, Any]:
    """Members of the answer, a queue's or a stream's. `reason`: why it is in its state, where not the user says so."""
    made: dict[str, Any] = {
        "UUID": mapping.uuid,
        "BatchSize": mapping.batch_size,
        "EventSourceArn": str(mapping.source_arn),
        "EventSourceMappingArn": str(arn_of(mapping)),
        "FunctionArn": str(mapping.function_arn),
        "FunctionResponseTypes": ["ReportBatchItemFailures"] if mapping.reports_item_failures else [],
        "LastModified": modified_at,
        "MaximumBatchingWindowInSeconds": mapping.window_s,
        "State": state.value,
    }
    if mapping.source_kind.is_stream:
        made |= _of_stream(mapping, last_result)
    made["StateTransitionReason"] = reason or ("User action" if mapping.source_kind.is_stream else "USER_INITIATED")
    return made | _when_set(mapping)


def _of_stream(mapping: Mapping, last_result: str) -> dict[str, Any]:
    on_failure = {} if mapping.on_failure is None else {"Destination": str(mapping.on_failure)}
    position = mapping.starting_position
    return {
        "BisectBatchOnFunctionError": mapping.bisect_on_error,
        "DestinationConfig": {"OnFailure": on_failure},
        "LastProcessingResult": last_result,
        "MaximumRecordAgeInSeconds": _limit(mapping.record_age_max_s),
        "MaximumRetryAttempts": _limit(mapping.retries_max),
        "ParallelizationFactor": mapping.parallelization_factor,
        "StartingPosition": None if position is None else position.value,
        "StartingPositionTimestamp": mapping.starting_at,
        "TumblingWindowInSeconds": mapping.tumbling_window_s,
    }


def _when_set(mapping: Mapping) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if mapping.filters:
        made["FilterCriteria"] = {"Filters": [{"Pattern": pattern} for pattern in mapping.filters]}
    if mapping.concurrency_max is not None:
        made["ScalingConfig"] = {"MaximumConcurrency": mapping.concurrency_max}
    if mapping.pollers_min is not None and source_of(mapping.source_arn) is Source.QUEUE:
        bounds = {"MinimumPollers": mapping.pollers_min, "MaximumPollers": mapping.pollers_max}
        made["ProvisionedPollerConfig"] = bounds
    if mapping.kms_key_arn is not None:
        made["KMSKeyArn"] = mapping.kms_key_arn
    if mapping.metrics:
        made["MetricsConfig"] = {"Metrics": list(mapping.metrics)}
    return made


def _limit(value: int | None) -> int:
    return _NO_LIMIT if value is None else value
