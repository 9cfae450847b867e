"""A request of CreateEventSourceMapping -> Mapping, or the error that AWS would give.

The order of checks is AWS's as far as it was recorded: types and ranges, an OnSuccess destination, source, starting
position, window of a queue, destination; what only this version refuses comes last.
Source: lambda.md 1.2, 1.3, 11.1, 11.11; wire-shapes.md 4.7, 4.8.
"""

import math
import re
from collections.abc import Iterator
from collections.abc import Mapping as Table
from datetime import datetime
from typing import Any

from esm.errors import RequestRefused
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import UnixTime
from esm.model.mapping import Mapping, StartingPosition
from esm.rules import ranges
from esm.rules.ranges import Finding

_KINDS = {"sqs": SourceKind.SQS, "kinesis": SourceKind.KINESIS, "dynamodb": SourceKind.DYNAMODB}

STREAM_ONLY = (
    "StartingPosition", "StartingPositionTimestamp", "ParallelizationFactor", "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts", "BisectBatchOnFunctionError", "TumblingWindowInSeconds", "DestinationConfig",
)  # fmt: skip
"""Parameters that a queue's mapping does not take."""

QUEUE_ONLY: dict[str, tuple[object, ...]] = {"ScalingConfig": (None, {}, {"MaximumConcurrency": None})}
"""Parameters that a stream's mapping does not take, except with the values that switch them off."""

BATCH_SIZE = {SourceKind.SQS: 10, SourceKind.KINESIS: 100, SourceKind.DYNAMODB: 100}
"""Lambda's defaults."""

QUEUE_BATCH_WITHOUT_WINDOW = 10

NOT_YET: dict[str, tuple[object, ...]] = {
    "FilterCriteria": (None, {}, {"Filters": []}, {"Filters": None}),
    "TumblingWindowInSeconds": (None, 0),
    "KMSKeyArn": (None, ""),
    "KmsKeyArn": (None, ""),
    "MetricsConfig": (None, {}, {"Metrics": []}, {"Metrics": None}),
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

_DESTINATION = re.compile(r"arn:aws[a-zA-Z0-9-]*:[a-zA-Z0-9-]+:[a-z0-9-]*:([0-9]{12})?:[^ ]+")
_REGION = re.compile(r"[a-z0-9-]+")
_ACCOUNT = re.compile(r"[0-9]{12}")
_RECORD_AGE_MIN_S = 60


def mapping_of(request: Table[str, Any], *, uuid: str, function_arn: Arn, wall: UnixTime) -> Mapping:
    """The mapping that a request describes, with its defaults. `FunctionName` has been resolved to `function_arn`.

    Raises: RequestRefused, with AWS's text where AWS has one.
    """
    found = findings(request, wall)
    if found:
        raise ranges.combined(found)
    source = Arn.parse(request["EventSourceArn"])
    kind = _KINDS[source.service]
    starting_position = request.get("StartingPosition")
    return Mapping(
        uuid=uuid,
        function=request["FunctionName"],
        function_arn=function_arn,
        source_arn=source,
        source_kind=kind,
        enabled=_given(request, "Enabled", default=True),
        batch_size=_given(request, "BatchSize", default=BATCH_SIZE[kind]),
        window_s=_given(request, "MaximumBatchingWindowInSeconds", default=0),
        parallelization_factor=_given(request, "ParallelizationFactor", default=1),
        starting_position=None if starting_position is None else StartingPosition(starting_position),
        starting_at=_unix_time(request.get("StartingPositionTimestamp")),
        retries_max=_limit(request, "MaximumRetryAttempts"),
        record_age_max_s=_limit(request, "MaximumRecordAgeInSeconds"),
        bisect_on_error=_given(request, "BisectBatchOnFunctionError", default=False),
        reports_item_failures="ReportBatchItemFailures" in _given(request, "FunctionResponseTypes", default=()),
        on_failure=Arn.parse(text) if (text := _destination_text(request)) else None,
        concurrency_max=_given(request, "ScalingConfig", default={}).get("MaximumConcurrency"),
    )


def findings(request: Table[str, Any], wall: UnixTime) -> list[Finding]:
    """Everything that is wrong with a request, each with its place; what AWS would name first comes first."""
    found = ranges.findings(request)
    unsound = {one.member.partition(".")[0] for one in found}
    sound = {name: value for name, value in request.items() if name not in unsound}
    found += _on_success(sound)
    found += _other_sources(sound)
    kind = None
    if "EventSourceArn" not in unsound and not any(one.member in OTHER_SOURCES for one in found):
        of_source = list(_source(sound.get("EventSourceArn")))
        found += of_source
        kind = None if of_source else _KINDS[Arn.parse(sound["EventSourceArn"]).service]
    found += _of_the_other_kind(sound, kind)
    found += _record_age(sound)
    if kind is not None and kind.is_stream:
        found += _starting(sound, kind, wall, is_sound="StartingPosition" not in unsound)
    if kind is SourceKind.SQS and not unsound & {"BatchSize", "MaximumBatchingWindowInSeconds"}:
        found += _queue_window(sound)
    if kind is not SourceKind.SQS:
        found += _destination(_destination_text(sound))
    found += _not_yet(sound)
    return found


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


def check_unique(mappings: list[Mapping]) -> list[tuple[int, RequestRefused]]:
    """Index and error of each mapping whose function and source, or whose UUID, an earlier one has already."""
    problems: list[tuple[int, RequestRefused]] = []
    by_pair: dict[tuple[Arn, Arn], Mapping] = {}
    by_uuid: dict[str, Mapping] = {}
    for index, mapping in enumerate(mappings):
        pair = (mapping.function_arn.unqualified, mapping.source_arn)
        if pair in by_pair:
            text = _duplicate(mapping, by_pair[pair].uuid)
            problems.append((index, RequestRefused(text, "ResourceConflictException", 409)))
        elif mapping.uuid in by_uuid:
            text = f"UUID {mapping.uuid} stands on two mappings. Give each one its own."
            problems.append((index, RequestRefused(text)))
        by_pair.setdefault(pair, mapping)
        by_uuid.setdefault(mapping.uuid, mapping)
    return problems


def _duplicate(mapping: Mapping, uuid: str) -> str:
    function, source = mapping.function_arn.name, mapping.source_arn
    advice = f"already exists. Please update or delete the existing mapping with UUID {uuid}"
    if mapping.source_kind is SourceKind.SQS:
        return f'An event source mapping with SQS arn (" {source} ") and function (" {function} ") {advice}'
    return f'The event source arn (" {source} ") and function (" {function} ") provided mapping {advice}'


def _on_success(request: Table[str, Any]) -> Iterator[Finding]:
    if (request.get("DestinationConfig") or {}).get("OnSuccess"):
        yield _unsupported("DestinationConfig.OnSuccess")


def _other_sources(request: Table[str, Any]) -> Iterator[Finding]:
    for name in OTHER_SOURCES:
        if request.get(name):
            text = (
                f"{name} belongs to Kafka, Amazon MQ or DocumentDB event sources, which esm does not poll: it polls"
                " SQS, Kinesis and DynamoDB Streams. Remove the mapping."
            )
            yield Finding(name, RequestRefused(text))


def _source(text: str | None) -> Iterator[Finding]:
    if not text:
        yield Finding("EventSourceArn", RequestRefused("Unrecognized event source."))
        return
    problem = _source_problem(text)
    if problem is not None:
        yield Finding("EventSourceArn", RequestRefused(problem))


def _source_problem(text: str) -> str | None:
    try:
        source = Arn.parse(text)
    except ValueError as error:
        return f"Unrecognized event source. EventSourceArn: {error}"
    kind = _KINDS.get(source.service)
    if kind is None:
        return f"Unrecognized event source. EventSourceArn {text!r}: esm polls SQS, Kinesis and DynamoDB Streams."
    if not _REGION.fullmatch(source.region) or not _ACCOUNT.fullmatch(source.account):
        return f"Unrecognized event source. {text!r} lacks its region, or its account of twelve digits."
    return _resource_problem(source, kind)


def _resource_problem(source: Arn, kind: SourceKind) -> str | None:
    resource = source.resource
    match kind:
        case SourceKind.SQS if resource.endswith(".fifo"):
            return f"{source} is a FIFO queue: this version of esm polls standard queues only."
        case SourceKind.SQS if not re.fullmatch(r"[a-zA-Z0-9_-]{1,80}", resource):
            return f"Unrecognized event source. {str(source)!r} names no queue (…:NAME)."
        case SourceKind.KINESIS if "/consumer/" in resource:
            return (
                f"{source} is a consumer (enhanced fan-out), which this version of esm does not read: name the stream"
                " itself, which is the part before /consumer/."
            )
        case SourceKind.KINESIS if not re.fullmatch(r"stream/[a-zA-Z0-9_.-]{1,128}", resource):
            return f"Unrecognized event source. {str(source)!r} names no stream (…:stream/NAME)."
        case SourceKind.DYNAMODB if not re.fullmatch(r"table/[a-zA-Z0-9_.-]{1,255}/stream/[^\s/]+", resource):
            return (
                f"Unrecognized event source. {str(source)!r} names no stream of a table (…:table/NAME/stream/LABEL);"
                " DescribeTable shows it as LatestStreamArn."
            )
        case _:
            return None


def _of_the_other_kind(request: Table[str, Any], kind: SourceKind | None) -> Iterator[Finding]:
    if kind is SourceKind.SQS:
        refused = {name: (None, {}, *NOT_YET.get(name, ())) for name in STREAM_ONLY}
    else:
        refused = {} if kind is None else dict(QUEUE_ONLY)
    if (request.get("DestinationConfig") or {}).get("OnSuccess"):
        refused.pop("DestinationConfig", None)  # said already
    for name, off in refused.items():
        if request.get(name) not in off:
            yield _unsupported(name)


def _unsupported(member: str) -> Finding:
    name = member.partition(".")[0]
    return Finding(member, RequestRefused(f"Unsupported {name} parameter for given event source mapping type."))


def _record_age(request: Table[str, Any]) -> Iterator[Finding]:
    name = "MaximumRecordAgeInSeconds"
    value = request.get(name)
    if value is not None and 0 <= value < _RECORD_AGE_MIN_S:
        yield Finding(name, RequestRefused(f"{name} {value} is not possible: use -1, or 60 to 604800."))


def _starting(request: Table[str, Any], kind: SourceKind, wall: UnixTime, *, is_sound: bool) -> Iterator[Finding]:
    position = request.get("StartingPosition")
    if position is None and is_sound:
        text = (
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must"
            " not be null."
        )
        yield Finding("StartingPosition", RequestRefused(text))
    if kind is SourceKind.DYNAMODB and position == "AT_TIMESTAMP":
        text = f"Unsupported starting position for arn type: {request['EventSourceArn']}"
        yield Finding("StartingPosition", RequestRefused(text))
    elif position is not None:
        problem = _timestamp_problem(request.get("StartingPositionTimestamp"), position, wall)
        if problem is not None:
            yield Finding("StartingPositionTimestamp", problem)


def _timestamp_problem(given: object, position: str, wall: UnixTime) -> RequestRefused | None:
    name = "StartingPositionTimestamp"
    if position != "AT_TIMESTAMP":
        return None if given is None else RequestRefused(f"{name} is valid only with StartingPosition AT_TIMESTAMP.")
    form = "Unix seconds, or a time with its zone such as 2026-01-31T12:00:00Z"
    if given is None:
        return RequestRefused(f"StartingPosition AT_TIMESTAMP needs a {name} ({form}).")
    at = _unix_time(given)
    if at is None:
        return ranges.wrong(name, given, form).error
    return RequestRefused(f"{name} {given} lies in the future.") if at > wall else None


def _unix_time(given: object) -> UnixTime | None:
    """Seconds of a number, or of an ISO 8601 text with its zone; None where it is neither, or before 1970."""
    try:
        if isinstance(given, str):
            moment = datetime.fromisoformat(given)
            seconds = -1.0 if moment.tzinfo is None else moment.timestamp()
        elif isinstance(given, int | float) and not isinstance(given, bool):
            seconds = float(given)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return UnixTime(seconds) if math.isfinite(seconds) and seconds >= 0 else None


def _queue_window(request: Table[str, Any]) -> Iterator[Finding]:
    size = _given(request, "BatchSize", default=BATCH_SIZE[SourceKind.SQS])
    if size > QUEUE_BATCH_WITHOUT_WINDOW and not request.get("MaximumBatchingWindowInSeconds"):
        text = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        yield Finding("MaximumBatchingWindowInSeconds", RequestRefused(text))


def _destination(text: str | None) -> Iterator[Finding]:
    problem = _destination_problem(text) if text else None
    if problem is not None:
        yield Finding("DestinationConfig.OnFailure.Destination", RequestRefused(problem))


def _destination_problem(text: str) -> str | None:
    if text.startswith("kafka://"):
        return f"The destination {text} is not supported by this version of esm: use SQS or SNS."
    if not _DESTINATION.fullmatch(text):
        return f"The destination ARN {text} is invalid."
    arn = Arn.parse(text)
    if arn.service not in {"sqs", "sns"}:
        return f"The destination {text} is not supported by this version of esm: use SQS or SNS."
    if arn.resource.endswith(".fifo"):
        return f"The destination {text} is FIFO: Lambda supports standard queues and topics only."
    if not (arn.region and arn.account and re.fullmatch(r"[a-zA-Z0-9_-]{1,256}", arn.resource)):
        return f"The destination ARN {text} is invalid."
    return None


def _destination_text(request: Table[str, Any]) -> str | None:
    text: str | None = ((request.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    return text


def _not_yet(request: Table[str, Any]) -> Iterator[Finding]:
    for name, off in NOT_YET.items():
        if name in request and request[name] not in off:
            yield Finding(name, RequestRefused(f"{name} is not supported by this version of esm. Remove it."))


def _given(request: Table[str, Any], name: str, *, default: Any) -> Any:  # noqa: ANN401 - as it came
    value = request.get(name)
    return default if value is None else value


def _limit(request: Table[str, Any], name: str) -> int | None:
    value = request.get(name)
    return None if value in (None, -1) else int(value)
