"""A request of CreateEventSourceMapping -> Mapping, or the error that AWS would give.

The order of checks is AWS's as far as it was recorded: types and ranges, an OnSuccess destination, source, starting
position, window of a queue, destination, filters; what is refused here alone comes last.
Source: lambda.md 1.2, 1.3, 4.4, 11.1, 11.11; wire-shapes.md 4.7, 4.8, 6.2.
"""

import math
import unicodedata
from collections.abc import Collection, Iterator
from collections.abc import Mapping as Table
from datetime import datetime
from typing import Any

from esm.errors import RequestRefused
from esm.model.arn import Arn, SourceKind
from esm.model.clocks import UnixTime
from esm.model.mapping import FailureBackoff, InvocationType, Mapping, StartingPosition
from esm.rules import arns, combinations, shapes
from esm.rules.parameters import KINDS, OTHER_SOURCES, PARAMETERS, given, source_of
from esm.rules.patterns import reason_invalid
from esm.rules.shapes import Finding

BATCH_SIZE = {SourceKind.SQS: 10, SourceKind.KINESIS: 100, SourceKind.DYNAMODB: 100}
"""Lambda's defaults."""

FILTERS_MAX = 5
TAGS_MAX = 50

_INVALID_PATTERN = "Invalid filter pattern definition."
_RECORD_AGE_MIN_S = 60
_TAG_KEY_LENGTH = 128
_TAG_VALUE_LENGTH = 256
_TAG_SIGNS = "_.:/=+-@"


def mapping_of(request: Table[str, Any], *, uuid: str, function_arn: Arn, wall: UnixTime) -> Mapping:
    """The mapping that a request describes, with its defaults. `FunctionName` has been resolved to `function_arn`.

    Raises: RequestRefused, with AWS's text where AWS has one.
    """
    found = findings(request, wall)
    if found:
        raise shapes.combined(found)
    source = Arn.parse(request["EventSourceArn"])
    kind = KINDS[source.service]
    starting_position = request.get("StartingPosition")
    tumbling_window_s = request.get("TumblingWindowInSeconds") or 0
    return Mapping(
        uuid=uuid,
        function=request["FunctionName"],
        function_arn=function_arn,
        source_arn=source,
        source_kind=kind,
        enabled=_or(request, "Enabled", default=True),
        batch_size=_or(request, "BatchSize", default=BATCH_SIZE[kind]),
        window_s=_or(request, "MaximumBatchingWindowInSeconds", default=0),
        parallelization_factor=1 if tumbling_window_s else _or(request, "ParallelizationFactor", default=1),
        starting_position=None if starting_position is None else StartingPosition(starting_position),
        starting_at=_unix_time(request.get("StartingPositionTimestamp")),
        retries_max=given(request, "MaximumRetryAttempts"),
        record_age_max_s=given(request, "MaximumRecordAgeInSeconds"),
        bisect_on_error=_or(request, "BisectBatchOnFunctionError", default=False),
        reports_item_failures="ReportBatchItemFailures" in _or(request, "FunctionResponseTypes", default=()),
        concurrency_max=_or(request, "ScalingConfig", default={}).get("MaximumConcurrency"),
        filters=tuple(one["Pattern"] for one in _filters(request)),
        tumbling_window_s=tumbling_window_s,
        **_on_failure(request), **_pollers(request), **_metadata(request), **_beyond_aws(request),
    )  # fmt: skip


def _on_failure(request: Table[str, Any]) -> dict[str, Any]:
    config = _on_failure_of(request)
    text = config.get("Destination")
    return {
        "on_failure": Arn.parse(text) if text else None,
        "on_failure_has_payload": config.get("IncludePayload") or False,
        "on_failure_drops": config.get("WhenUnreachable") == "drop",
        "on_failure_connection": config.get("Connection") or None,
    }


def _pollers(request: Table[str, Any]) -> dict[str, Any]:
    config = given(request, "ProvisionedPollerConfig")
    least, most = (None, None) if config is None else combinations.poller_bounds(config)
    return {"pollers_min": least, "pollers_max": most}


def _metadata(request: Table[str, Any]) -> dict[str, Any]:
    tags = {key: value or "" for key, value in (request.get("Tags") or {}).items()}
    metrics = (given(request, "MetricsConfig") or {}).get("Metrics") or ()
    return {
        "tags": tuple(sorted(tags.items())), "kms_key_arn": given(request, "KMSKeyArn"), "metrics": tuple(metrics),
    }  # fmt: skip


def _beyond_aws(request: Table[str, Any]) -> dict[str, Any]:
    backoff = given(request, "FailureBackoff")
    return {
        "invocation_type": InvocationType(request.get("InvocationType") or "RequestResponse"),
        "holds_group_on_failure": _or(request, "HoldGroupOnFailure", default=False),
        "extends_visibility": _or(request, "VisibilityHeartbeat", default=False),
        "failure_backoff": None if backoff is None else FailureBackoff(
            backoff["MinimumDelayInSeconds"], backoff["MaximumDelayInSeconds"]
        ),
        "role_arn": given(request, "RoleArn"),
        "connection": given(request, "Connection"),
    }  # fmt: skip


def findings(request: Table[str, Any], wall: UnixTime) -> list[Finding]:
    """Everything that is wrong with a request, each with its place; what AWS would name first comes first."""
    found = ranges(request)
    unsound = {one.member.partition(".")[0] for one in found}
    sound = {name: value for name, value in request.items() if name not in unsound}
    found += _on_success(sound)
    found += _other_sources(sound)
    source = None
    if "EventSourceArn" not in unsound and not any(one.member in OTHER_SOURCES for one in found):
        problem = arns.source_problem(sound.get("EventSourceArn"))
        if problem is not None:
            found.append(Finding("EventSourceArn", RequestRefused(problem)))
        else:
            source = Arn.parse(sound["EventSourceArn"])
            found += _of_source(sound, source, unsound, wall)
    found += _record_age(sound)
    found += _destination(sound, may_have_one=source is None or KINDS[source.service].is_stream)
    found += _filter_criteria(sound, source)
    found += combinations.pollers(sound)
    found += _metadata_problems(sound)
    found += combinations.between(sound)
    return found


def ranges(request: Table[str, Any]) -> list[Finding]:
    """Every member of a wrong type, then every one out of its range."""
    found = []
    if request.get("FunctionName") is None:
        found.append(shapes.failed("FunctionName", "null", "Member must not be null"))
    for name, parameter in PARAMETERS.items():
        found += shapes.findings(parameter.shape, request.get(name), name)
    return sorted(found, key=lambda one: one.constraint is not None)


def _of_source(request: Table[str, Any], source: Arn, unsound: set[str], wall: UnixTime) -> Iterator[Finding]:
    yield from combinations.of_source(request, source)
    kind = KINDS[source.service]
    if kind.is_stream:
        yield from _starting(request, kind, wall, unsound)
    elif not unsound & {"BatchSize", "MaximumBatchingWindowInSeconds"}:
        yield from combinations.queue(request, source_of(source))


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
        yield Finding("DestinationConfig.OnSuccess", RequestRefused(combinations.unsupported("DestinationConfig")))


def _other_sources(request: Table[str, Any]) -> Iterator[Finding]:
    for name in OTHER_SOURCES:
        if request.get(name):
            text = (
                f"{name} belongs to Kafka, Amazon MQ or DocumentDB event sources, which esm does not poll: it polls"
                " SQS, Kinesis and DynamoDB Streams. Remove the mapping."
            )
            yield Finding(name, RequestRefused(text))


def _record_age(request: Table[str, Any]) -> Iterator[Finding]:
    name = "MaximumRecordAgeInSeconds"
    value = request.get(name)
    if value is not None and 0 <= value < _RECORD_AGE_MIN_S:
        yield Finding(name, RequestRefused(f"{name} {value} is not possible: use -1, or 60 to 604800."))


def _starting(
    request: Table[str, Any], kind: SourceKind, wall: UnixTime, unsound: Collection[str]
) -> Iterator[Finding]:
    position = request.get("StartingPosition")
    if position is None and "StartingPosition" not in unsound:
        text = (
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must"
            " not be null."
        )
        yield Finding("StartingPosition", RequestRefused(text))
    if kind is SourceKind.DYNAMODB and position == "AT_TIMESTAMP":
        text = f"Unsupported starting position for arn type: {request['EventSourceArn']}"
        yield Finding("StartingPosition", RequestRefused(text))
    elif position is not None and "StartingPositionTimestamp" not in unsound:
        problem = _timestamp_problem(request.get("StartingPositionTimestamp"), position, wall)
        if problem is not None:
            yield Finding("StartingPositionTimestamp", problem)


def _timestamp_problem(given: object, position: str, wall: UnixTime) -> RequestRefused | None:
    name = "StartingPositionTimestamp"
    if position != "AT_TIMESTAMP":
        return None if given is None else RequestRefused(f"{name} is valid only with StartingPosition AT_TIMESTAMP.")
    if given is None:
        return RequestRefused(f"StartingPosition AT_TIMESTAMP needs a {name} ({shapes.MOMENT_FORM}).")
    at = _unix_time(given)
    if at is None:
        return shapes.wrong(name, given, shapes.MOMENT_FORM).error
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


def _on_failure_of(request: Table[str, Any]) -> dict[str, Any]:
    return (request.get("DestinationConfig") or {}).get("OnFailure") or {}


def _destination(request: Table[str, Any], *, may_have_one: bool) -> Iterator[Finding]:
    if not may_have_one:
        return
    config = _on_failure_of(request)
    place = "DestinationConfig.OnFailure"
    if config.get("Destination"):
        problem = arns.destination_problem(config["Destination"], ("sqs", "sns", "s3"))
        if problem is not None:
            yield Finding(f"{place}.Destination", RequestRefused(problem))
        return
    for name in ("IncludePayload", "WhenUnreachable", "Connection"):
        if config.get(name) not in (None, "", False):
            yield Finding(f"{place}.{name}", RequestRefused(f"{name} needs a Destination beside it, or be removed."))


def _filters(request: Table[str, Any]) -> list[dict[str, Any]]:
    return (request.get("FilterCriteria") or {}).get("Filters") or []


def _filter_criteria(request: Table[str, Any], source: Arn | None) -> Iterator[Finding]:
    filters = _filters(request)
    if len(filters) > FILTERS_MAX:
        text = f"FilterCriteria has {len(filters)} filters: at most {FILTERS_MAX} are possible. Join some with $or."
        yield Finding("FilterCriteria.Filters", RequestRefused(text))
        return
    for index, one in enumerate(filters):
        pattern = (one or {}).get("Pattern")
        if pattern is None:
            reason: str | None = "a filter needs a Pattern"
        else:
            reason = reason_invalid(pattern, SourceKind.SQS if source is None else KINDS[source.service])
        if reason is not None:
            place = f"FilterCriteria.Filters[{index}].Pattern"
            yield Finding(place, RequestRefused(_INVALID_PATTERN), reason=reason)


def _metadata_problems(request: Table[str, Any]) -> Iterator[Finding]:
    metrics = (request.get("MetricsConfig") or {}).get("Metrics") or []
    others = [name for name in metrics if name != "EventCount"]
    if others:
        text = f"MetricsConfig: {', '.join(others)} is for Kafka event sources only. Use EventCount."
        yield Finding("MetricsConfig.Metrics", RequestRefused(text))
    if given(request, "RoleArn") is not None:
        problem = arns.role_problem(request["RoleArn"])
        if problem is not None:
            yield Finding("RoleArn", RequestRefused(problem))
    for problem in tag_problems(request.get("Tags") or {}):
        yield Finding("Tags", RequestRefused(problem))


def tag_problems(tags: Table[str, str | None]) -> Iterator[str]:
    """What is wrong with tags."""
    if len(tags) > TAGS_MAX:
        yield f"Tags has {len(tags)} entries: at most {TAGS_MAX} are possible."
    for key, value in tags.items():
        problem = _tag_problem(key, value or "")
        if problem is not None:
            yield problem


def _tag_problem(key: str, value: str) -> str | None:
    if not 1 <= len(key) <= _TAG_KEY_LENGTH:
        return f"Tags: a key has 1 to {_TAG_KEY_LENGTH} characters; {key[:_TAG_KEY_LENGTH]!r} has {len(key)}."
    if len(value) > _TAG_VALUE_LENGTH:
        return f"Tags: the value of {key!r} has {len(value)} characters: at most {_TAG_VALUE_LENGTH} are possible."
    wrong = [sign for sign in key + value if sign not in _TAG_SIGNS and unicodedata.category(sign)[0] not in "LZN"]
    if wrong:
        return f"Tags: {key!r} holds {wrong[0]!r}: letters, digits, spaces and {_TAG_SIGNS} are possible."
    return None


def _or(request: Table[str, Any], name: str, *, default: Any) -> Any:  # noqa: ANN401 - as it came
    value = request.get(name)
    return default if value is None else value
