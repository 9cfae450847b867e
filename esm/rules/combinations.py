"""What a mapping's parameters allow of each other: by source, by invocation type, in pairs.

Source: lambda.md 1.2, 1.3, 11.11; wire-shapes.md 4.7. Texts about parameters beyond AWS are ours.
"""

from collections.abc import Iterator
from collections.abc import Mapping as Table
from typing import Any

from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.rules.parameters import OTHER_SOURCES, PARAMETERS, Source, given, source_of
from esm.rules.shapes import Finding

FIFO_BATCH_MAX = 10
QUEUE_BATCH_WITHOUT_WINDOW = 10
POLLERS_MIN = 2
"""Of a queue's mapping, for both bounds; the service model says 1, for Kafka. Source: lambda.md 1.2."""
POLLERS_MAX_DEFAULT = 200

_BATCH_SIZE_OF_QUEUES = 10
_WITH_EVENT = {
    "FunctionResponseTypes": "the function's answer never reaches the mapping",
    "TumblingWindowInSeconds": "the state comes in the function's answer, which never reaches the mapping",
    "BisectBatchOnFunctionError": "the function's errors never reach the mapping",
    "MaximumRetryAttempts": "the function's errors never reach the mapping, and its EventInvokeConfig says how often"
    " an event is tried",
    "HoldGroupOnFailure": "the function's errors never reach the mapping",
    "VisibilityHeartbeat": "messages are deleted as soon as the batch is queued",
    "FailureBackoff": "the function's errors never reach the mapping",
}
"""What means nothing where a batch counts as taken once it is queued, and why."""


def applies(name: str, request: Table[str, Any], source: Source) -> bool:
    """Whether a mapping takes a parameter at all: what a default may fill in."""
    return source in PARAMETERS[name].takes and not (_is_event(request) and name in _WITH_EVENT)


def of_source(request: Table[str, Any], source: Arn) -> Iterator[Finding]:
    """Parameters that the source's kind does not take."""
    kind = source_of(source)
    for name, parameter in PARAMETERS.items():
        if kind in parameter.takes or name in OTHER_SOURCES or given(request, name) is None:
            continue
        if name == "StartingPositionTimestamp" and kind is Source.DYNAMODB:
            continue  # the position itself is refused
        if name == "DestinationConfig" and (request[name].get("OnSuccess")):
            continue  # said already
        if parameter.is_ours:
            kinds = " and ".join(one.value for one in Source if one in parameter.takes)
            text = f"{name} is for {kinds} only: {source} is {kind.value}. Remove it."
        elif (name, kind) == ("MaximumBatchingWindowInSeconds", Source.FIFO):
            text = "Batching window is not supported for FIFO queues"
        else:
            text = unsupported(name)
        yield Finding(name, RequestRefused(text))


def unsupported(name: str) -> str:
    """Lambda's text about a parameter of other sources. Source: wire-shapes.md 4.7."""
    return f"Unsupported {name} parameter for given event source mapping type."


def queue(request: Table[str, Any], source: Source) -> Iterator[Finding]:
    """Batch size and window of a queue."""
    size = request.get("BatchSize")
    size = _BATCH_SIZE_OF_QUEUES if size is None else size
    if source is Source.FIFO:
        if size > FIFO_BATCH_MAX:
            text = f"BatchSize {size} is not possible: a FIFO queue gives at most {FIFO_BATCH_MAX} messages a batch."
            yield Finding("BatchSize", RequestRefused(text))
    elif size > QUEUE_BATCH_WITHOUT_WINDOW and not request.get("MaximumBatchingWindowInSeconds"):
        text = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        yield Finding("MaximumBatchingWindowInSeconds", RequestRefused(text))


def pollers(request: Table[str, Any]) -> Iterator[Finding]:
    """ProvisionedPollerConfig of a queue, and its neighbour ScalingConfig."""
    name = "ProvisionedPollerConfig"
    config = given(request, name)
    if config is None:
        return
    if config.get("PollerGroupName"):
        text = "PollerGroupName belongs to Kafka event sources, which esm does not poll. Remove it."
        yield Finding(f"{name}.PollerGroupName", RequestRefused(text))
    for bound in ("MinimumPollers", "MaximumPollers"):
        value = config.get(bound)
        if value is not None and value < POLLERS_MIN:
            text = f"{bound} {value} is not possible: an SQS event source has at least {POLLERS_MIN} pollers."
            yield Finding(f"{name}.{bound}", RequestRefused(text))
    least, most = poller_bounds(config)
    if least > most:
        text = f"MaximumPollers {most} is less than MinimumPollers {least}: raise it, or lower the other."
        yield Finding(f"{name}.MaximumPollers", RequestRefused(text))
    if given(request, "ScalingConfig") is not None:
        text = "ScalingConfig and ProvisionedPollerConfig exclude each other. Remove one."
        yield Finding("ScalingConfig", RequestRefused(text))


def poller_bounds(config: Table[str, Any]) -> tuple[int, int]:
    """Least and most pollers, with Lambda's defaults. Source: lambda.md 1.2."""
    least, most = config.get("MinimumPollers"), config.get("MaximumPollers")
    return POLLERS_MIN if least is None else least, POLLERS_MAX_DEFAULT if most is None else most


def between(request: Table[str, Any]) -> Iterator[Finding]:
    """Pairs of parameters that cannot work together, whatever the source."""
    if _is_event(request):
        for name, why in _WITH_EVENT.items():
            if given(request, name) is not None:
                text = f"{name} cannot be used with InvocationType Event: {why}. Remove one of the two."
                yield Finding(name, RequestRefused(text))
    elif given(request, "HoldGroupOnFailure") and given(request, "FunctionResponseTypes") is None:
        text = (
            "HoldGroupOnFailure needs FunctionResponseTypes: [ReportBatchItemFailures]: without it a failure is always"
            " the whole batch's."
        )
        yield Finding("HoldGroupOnFailure", RequestRefused(text))
    backoff = given(request, "FailureBackoff")
    if backoff is not None:
        yield from _backoff(backoff)


def _backoff(backoff: Table[str, Any]) -> Iterator[Finding]:
    name = "FailureBackoff"
    least, most = backoff.get("MinimumDelayInSeconds"), backoff.get("MaximumDelayInSeconds")
    if least is None or most is None:
        yield Finding(name, RequestRefused(f"{name} needs MinimumDelayInSeconds and MaximumDelayInSeconds."))
    elif least > most:
        text = f"MaximumDelayInSeconds {most} is less than MinimumDelayInSeconds {least}: raise it, or lower the other."
        yield Finding(f"{name}.MaximumDelayInSeconds", RequestRefused(text))


def _is_event(request: Table[str, Any]) -> bool:
    return request.get("InvocationType") == "Event"
