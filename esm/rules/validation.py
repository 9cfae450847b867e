"""A request of CreateEventSourceMapping -> Mapping, or the error that AWS would give.

The order of checks is AWS's as far as it was recorded: ranges, source, destination, batch, starting position, window.
Source: lambda.md 1.2, 1.3, 11.1, 11.11; wire-shapes.md 4.7, 4.8.
"""

import re
from collections.abc import Mapping as Table
from typing import Any

from esm.errors import RequestRefused
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping, StartingPosition
from esm.rules import ranges

_KINDS = {"sqs": SourceKind.SQS, "kinesis": SourceKind.KINESIS, "dynamodb": SourceKind.DYNAMODB}

STREAM_ONLY = (
    "StartingPosition", "StartingPositionTimestamp", "ParallelizationFactor", "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts", "BisectBatchOnFunctionError", "TumblingWindowInSeconds", "DestinationConfig",
)  # fmt: skip
"""Parameters that a queue's mapping does not take."""

BATCH_SIZE = {SourceKind.SQS: 10, SourceKind.KINESIS: 100, SourceKind.DYNAMODB: 100}
"""Lambda's defaults."""

QUEUE_BATCH_WITHOUT_WINDOW = 10

NOT_YET: dict[str, tuple[object, ...]] = {
    "FilterCriteria": (None, {}, {"Filters": []}),
    "TumblingWindowInSeconds": (None, 0),
    "KMSKeyArn": (None, ""),
    "KmsKeyArn": (None, ""),
    "MetricsConfig": (None, {}, {"Metrics": []}),
    "ProvisionedPollerConfig": (None, {}),
    "LoggingConfig": (None, {}),
    "Tags": (None, {}, []),
}
"""Parameters of Lambda's that are refused for now, except with the values that switch them off."""

OTHER_SOURCES = (
    "Topics", "Queues", "SourceAccessConfigurations", "SelfManagedEventSource", "AmazonManagedKafkaEventSourceConfig",
    "SelfManagedKafkaEventSourceConfig", "DocumentDBEventSourceConfig",
)  # fmt: skip
"""Parameters of Kafka, MQ and DocumentDB mappings."""

PARAMETERS = frozenset({
    "EventSourceArn", "FunctionName", "Enabled", "BatchSize", "MaximumBatchingWindowInSeconds",
    "FunctionResponseTypes", "ScalingConfig", *STREAM_ONLY, *NOT_YET, *OTHER_SOURCES,
})  # fmt: skip
"""Every parameter of CreateEventSourceMapping, known or refused by name."""

_DESTINATION = re.compile(r"arn:aws[a-zA-Z0-9-]*:(sqs|sns|s3|kafka|lambda|events):[^ ]*")


def mapping_of(request: Table[str, Any], *, uuid: str, function_arn: Arn, wall: UnixTime) -> Mapping:
    """The mapping that a request describes, with its defaults. `FunctionName` has been resolved to `function_arn`.

    Raises: RequestRefused, with AWS's text where AWS has one.
    """
    request = {name: value for name, value in request.items() if value is not None}
    ranges.check(request)
    source, kind = _source(request)
    _refuse_unsupported(request)
    if kind is SourceKind.SQS:
        _refuse_stream_only(request)
    on_failure = _destination(request)
    batch_size = request.get("BatchSize", BATCH_SIZE[kind])
    window_s = request.get("MaximumBatchingWindowInSeconds", 0)
    starting_position = _starting_position(request, kind, source)
    if kind is SourceKind.SQS and batch_size > QUEUE_BATCH_WITHOUT_WINDOW and window_s == 0:
        raise RequestRefused(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )
    return Mapping(
        uuid=uuid,
        function=str(request["FunctionName"]),
        function_arn=function_arn,
        source_arn=source,
        source_kind=kind,
        enabled=request.get("Enabled", True),
        batch_size=batch_size,
        window_s=window_s,
        parallelization_factor=request.get("ParallelizationFactor", 1),
        starting_position=starting_position,
        starting_at=_starting_at(request, starting_position, wall),
        retries_max=_limit(request, "MaximumRetryAttempts"),
        record_age_max_s=_limit(request, "MaximumRecordAgeInSeconds"),
        bisect_on_error=request.get("BisectBatchOnFunctionError", False),
        reports_item_failures="ReportBatchItemFailures" in (request.get("FunctionResponseTypes") or ()),
        on_failure=on_failure,
        concurrency_max=(request.get("ScalingConfig") or {}).get("MaximumConcurrency"),
    )


def check_timeout(timeout_s: int, visibility_s: int) -> None:
    """A queue must hide its messages for as long as the function may run. Raises: RequestRefused."""
    if timeout_s > visibility_s:
        raise RequestRefused(
            f"Queue visibility timeout: {visibility_s} seconds is less than Function timeout: {timeout_s} seconds"
        )


def check_change(before: Mapping, after: Mapping) -> None:
    """What may not change under one UUID. Raises: RequestRefused, with what to do instead."""
    if before.source_arn != after.source_arn:
        raise RequestRefused(
            f"EventSourceArn of mapping {before.uuid} cannot change from {before.source_arn} to {after.source_arn}:"
            " give the new mapping a UUID of its own (or leave UUID out), and remove the old one."
        )
    if (before.starting_position, before.starting_at) != (after.starting_position, after.starting_at):
        raise RequestRefused(
            f"StartingPosition of mapping {before.uuid} cannot change: its position is stored and goes on being used."
            " To read from another place, give the mapping a new UUID."
        )


def check_unique(mappings: list[Mapping]) -> list[RequestRefused]:
    """One error a mapping that another one with the same function and source, or the same UUID, has forestalled."""
    problems: list[RequestRefused] = []
    by_pair: dict[tuple[Arn, Arn], Mapping] = {}
    by_uuid: dict[str, Mapping] = {}
    for mapping in mappings:
        pair = (mapping.function_arn.unqualified, mapping.source_arn)
        if pair in by_pair:
            problems.append(RequestRefused(_duplicate(mapping, by_pair[pair].uuid), "ResourceConflictException", 409))
        elif mapping.uuid in by_uuid:
            problems.append(RequestRefused(f"UUID {mapping.uuid} stands on two mappings. Give each one its own."))
        by_pair.setdefault(pair, mapping)
        by_uuid.setdefault(mapping.uuid, mapping)
    return problems


def _duplicate(mapping: Mapping, uuid: str) -> str:
    function, source = mapping.function_arn.name, mapping.source_arn
    advice = f"already exists. Please update or delete the existing mapping with UUID {uuid}"
    if mapping.source_kind is SourceKind.SQS:
        return f'An event source mapping with SQS arn (" {source} ") and function (" {function} ") {advice}'
    return f'The event source arn (" {source} ") and function (" {function} ") provided mapping {advice}'


def _source(request: Table[str, Any]) -> tuple[Arn, SourceKind]:
    for name in OTHER_SOURCES:
        if request.get(name):
            raise RequestRefused(
                f"{name} belongs to Kafka, Amazon MQ or DocumentDB event sources, which esm does not poll: it polls"
                " SQS, Kinesis and DynamoDB Streams. Remove the mapping."
            )
    text = request.get("EventSourceArn")
    if not text:
        raise RequestRefused("Unrecognized event source.")
    try:
        source = Arn.parse(text)
    except ValueError as error:
        raise RequestRefused(f"Unrecognized event source. EventSourceArn: {error}") from error
    kind = _KINDS.get(source.service)
    if kind is None:
        raise RequestRefused(
            f"Unrecognized event source. EventSourceArn {text!r}: esm polls SQS, Kinesis and DynamoDB Streams."
        )
    _check_resource(source, kind)
    return source, kind


def _check_resource(source: Arn, kind: SourceKind) -> None:
    resource = source.resource
    match kind:
        case SourceKind.SQS if resource.endswith(".fifo"):
            raise RequestRefused(f"{source} is a FIFO queue: this version of esm polls standard queues only.")
        case SourceKind.KINESIS if "/consumer/" in resource:
            raise RequestRefused(
                f"{source} is a consumer (enhanced fan-out), which this version of esm does not read: name the stream"
                f" itself, {str(source).split('/consumer/', 1)[0]}."
            )
        case SourceKind.KINESIS if not re.fullmatch(r"stream/[a-zA-Z0-9_.-]{1,128}", resource):
            raise RequestRefused(f"Unrecognized event source. {source} names no stream (…:stream/NAME).")
        case SourceKind.DYNAMODB if not re.fullmatch(r"table/[^/]+/stream/.+", resource):
            raise RequestRefused(
                f"Unrecognized event source. {source} names no stream of a table (…:table/NAME/stream/LABEL);"
                " DescribeTable shows it as LatestStreamArn."
            )
        case _ if not (source.region and source.account):
            raise RequestRefused(f"Unrecognized event source. {source} lacks its region or account.")
        case _:
            return


def _refuse_unsupported(request: Table[str, Any]) -> None:
    for name, off in NOT_YET.items():
        if name in request and request[name] not in off:
            raise RequestRefused(f"{name} is not supported by this version of esm. Remove it.")
    destinations = request.get("DestinationConfig") or {}
    if destinations.get("OnSuccess"):
        raise RequestRefused("Unsupported DestinationConfig parameter for given event source mapping type.")


def _refuse_stream_only(request: Table[str, Any]) -> None:
    for name in STREAM_ONLY:
        if request.get(name) not in (None, {}, *NOT_YET.get(name, ())):
            raise RequestRefused(f"Unsupported {name} parameter for given event source mapping type.")


def _destination(request: Table[str, Any]) -> Arn | None:
    text = ((request.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    if not text:
        return None
    if not _DESTINATION.fullmatch(text):
        raise RequestRefused(f"The destination ARN {text} is invalid.")
    arn = Arn.parse(text)
    if arn.service not in {"sqs", "sns"}:
        raise RequestRefused(f"The destination {text} is not supported by this version of esm: use SQS or SNS.")
    if arn.resource.endswith(".fifo"):
        raise RequestRefused(f"The destination {text} is FIFO: Lambda supports standard queues and topics only.")
    if not (arn.region and arn.account):
        raise RequestRefused(f"The destination ARN {text} is invalid.")
    return arn


def _starting_position(request: Table[str, Any], kind: SourceKind, source: Arn) -> StartingPosition | None:
    if kind is SourceKind.SQS:
        return None
    text = request.get("StartingPosition")
    if text is None:
        raise RequestRefused(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must"
            " not be null."
        )
    position = StartingPosition(text)
    if kind is SourceKind.DYNAMODB and position is StartingPosition.AT_TIMESTAMP:
        raise RequestRefused(f"Unsupported starting position for arn type: {source}")
    return position


def _starting_at(request: Table[str, Any], position: StartingPosition | None, wall: UnixTime) -> UnixTime | None:
    at = request.get("StartingPositionTimestamp")
    if position is not StartingPosition.AT_TIMESTAMP:
        if at is not None:
            raise RequestRefused("StartingPositionTimestamp is valid only with StartingPosition AT_TIMESTAMP.")
        return None
    if at is None:
        raise RequestRefused("StartingPosition AT_TIMESTAMP needs a StartingPositionTimestamp (Unix seconds).")
    if at > wall:
        raise RequestRefused(f"StartingPositionTimestamp {at} lies in the future.")
    return UnixTime(float(at))


def _limit(request: Table[str, Any], name: str) -> int | None:
    value = request.get(name, -1)
    return None if value in (None, -1) else int(value)
