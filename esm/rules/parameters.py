"""Every parameter of a mapping: what it may be, which sources take it, and what it means here.

Law: this is the one list. Validation, pasting, defaults, the JSON schema and the README's table are made from it.
Source: lambda.md 1.2; wire-shapes.md 4.8; the botocore service model of Lambda.
"""

from collections.abc import Mapping as Table
from dataclasses import dataclass
from enum import Enum
from typing import Any

from esm.model.arn import Arn, SourceKind
from esm.rules.shapes import Flag, Free, Items, Members, Moment, Names, Shape, Text, Whole, Words


class Source(Enum):
    """What a mapping may read, as far as parameters tell it apart."""

    QUEUE = "SQS"
    FIFO = "SQS FIFO"
    KINESIS = "Kinesis"
    DYNAMODB = "DynamoDB"


QUEUES = frozenset({Source.QUEUE, Source.FIFO})
STREAMS = frozenset({Source.KINESIS, Source.DYNAMODB})
ALL = QUEUES | STREAMS
NONE: frozenset[Source] = frozenset()

KINDS = {"sqs": SourceKind.SQS, "kinesis": SourceKind.KINESIS, "dynamodb": SourceKind.DYNAMODB}
"""By the service of a source's ARN."""

SAME = "as on AWS"
OTHERS = "refused by name: belongs to Kafka, Amazon MQ or DocumentDB"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of CreateEventSourceMapping, or of ours."""

    shape: Shape
    takes: frozenset[Source]
    here: str = SAME
    """The README's words: as on AWS, or what differs and why."""
    off: tuple[object, ...] = (None,)
    """Values that mean the same as leaving it out: they stand on any mapping, since Lambda itself prints them."""
    is_ours: bool = False
    """Beyond AWS."""
    defaults: bool = True
    """May stand under `defaults:`."""


_EMPTY: tuple[object, ...] = (None, {})
_DESTINATION = Text(most=350, word="an ARN")
_ON_FAILURE: dict[str, Shape] = {
    "Destination": _DESTINATION,
    "IncludePayload": Flag(),
    "WhenUnreachable": Text(choices=("hold", "drop")),
    "Connection": Text(),
}
_NO_DESTINATION: tuple[object, ...] = (
    *_EMPTY, {"OnFailure": None}, {"OnFailure": {}}, {"OnFailure": {"Destination": ""}},
    {"OnFailure": {"Destination": None}}, {"OnSuccess": {}, "OnFailure": {}},
)  # fmt: skip
_NO_LIMIT = (None, -1)


def _other() -> Parameter:
    return Parameter(Free(), NONE, OTHERS, (None, {}, []), defaults=False)


PARAMETERS: dict[str, Parameter] = {
    "FunctionName": Parameter(
        Text(1, 256), ALL, f"{SAME}; also a key of `functions:`; may change under one UUID", defaults=False
    ),
    "EventSourceArn": Parameter(
        Text(most=10_000), ALL,
        f"{SAME}; regions of emulators are taken too; a consumer (enhanced fan-out) is refused by name",
        defaults=False,
    ),
    "Enabled": Parameter(Flag(), ALL),
    "BatchSize": Parameter(
        Whole(1, 10_000), ALL, f"{SAME}: up to 10,000 (FIFO: 10), and 6 MB; above 10 a standard queue needs a window"
    ),
    "MaximumBatchingWindowInSeconds": Parameter(Whole(0, 300), ALL - {Source.FIFO}, off=(None, 0)),
    "ParallelizationFactor": Parameter(
        Whole(1, 10), STREAMS,
        f"{SAME}; one stored position a lane; may be changed while running; 1 with a tumbling window (warned about)",
    ),
    "MaximumRecordAgeInSeconds": Parameter(Whole(-1, 604_800), STREAMS, off=_NO_LIMIT),
    "MaximumRetryAttempts": Parameter(
        Whole(-1, 10_000), STREAMS, f"{SAME}; retries count anew after a restart of the daemon", _NO_LIMIT
    ),
    "TumblingWindowInSeconds": Parameter(
        Whole(0, 900), STREAMS, f"{SAME}; state and position move in one commit, and survive restarts", (None, 0)
    ),
    "StartingPosition": Parameter(
        Text(choices=("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")), STREAMS,
        f"{SAME} (AT_TIMESTAMP: Kinesis only), except that LATEST is pinned when the mapping is made: nothing written"
        " meanwhile is missed",
    ),
    "StartingPositionTimestamp": Parameter(
        Moment(), frozenset({Source.KINESIS}), f"{SAME}; Unix seconds, or ISO 8601 text with its zone"
    ),
    "BisectBatchOnFunctionError": Parameter(Flag(), STREAMS, off=(None, False)),
    "FunctionResponseTypes": Parameter(Names(("ReportBatchItemFailures",), 1), ALL, off=(None, [])),
    "FilterCriteria": Parameter(
        Members({"Filters": Items(Members({"Pattern": Text(most=4096)}))}), ALL,
        "as on AWS (5 filters of 4,096 characters), and every operator of EventBridge, `wildcard` and `cidr` included;"
        " in a file a `Pattern` may be an object instead of JSON text; `esm filter` tries one",
        (*_EMPTY, {"Filters": []}, {"Filters": None}),
    ),
    "ScalingConfig": Parameter(
        Members({"MaximumConcurrency": Whole(2, 1000)}), QUEUES, off=(*_EMPTY, {"MaximumConcurrency": None})
    ),
    "ProvisionedPollerConfig": Parameter(
        Members({
            "MinimumPollers": Whole(1, 200), "MaximumPollers": Whole(1, 10_000), "PollerGroupName": Text(most=128),
        }), frozenset({Source.QUEUE}),
        f"{SAME} (2 to 200 and 2 to 10,000; not with `ScalingConfig`); `PollerGroupName` is Kafka's: refused by name",
        (*_EMPTY, {"MinimumPollers": None, "MaximumPollers": None}),
    ),
    "DestinationConfig": Parameter(
        Members({
            "OnFailure": Members(_ON_FAILURE), "OnSuccess": Members({"Destination": _DESTINATION}),
        }), STREAMS,
        "`OnFailure` as on AWS: SQS and SNS (standard) and S3; Kafka topics are refused by name. A destination that"
        " fails is tried again, and holds its lane, until age or retention ends; `OnFailure.WhenUnreachable: drop`"
        " drops at once, as AWS does. `OnFailure.IncludePayload: true` puts the event into SQS and SNS notices where it"
        " fits. `OnFailure.Connection` is a key of `connections:`. `OnSuccess` is refused, as on AWS", _NO_DESTINATION,
    ),
    "KMSKeyArn": Parameter(
        Text(most=10_000), ALL, "kept and shown, without effect (warned about): patterns stand in your file", (None, "")
    ),
    "MetricsConfig": Parameter(
        Members({"Metrics": Names(("EventCount", "ErrorCount", "KafkaMetrics"), 3)}), ALL,
        "kept and shown, without effect (warned about): the metrics are always there; `ErrorCount` and `KafkaMetrics`"
        " are Kafka's: refused by name", (*_EMPTY, {"Metrics": []}, {"Metrics": None}),
    ),
    "Tags": Parameter(
        Words(), ALL,
        f"{SAME} (50; keys of 1 to 128, values of up to 256 characters); become metric labels where asked;"
        " a changed file changes them"
    ),
    "LoggingConfig": Parameter(
        Members({"SystemLogLevel": Text(choices=("DEBUG", "INFO", "WARN"))}), NONE,
        "refused by name: Kafka's; the daemon's log is set by `ESM_LOG_LEVEL`", (*_EMPTY, {"SystemLogLevel": None}),
        defaults=False,
    ),
    "Topics": _other(), "Queues": _other(), "SourceAccessConfigurations": _other(), "SelfManagedEventSource": _other(),
    "AmazonManagedKafkaEventSourceConfig": _other(), "SelfManagedKafkaEventSourceConfig": _other(),
    "DocumentDBEventSourceConfig": _other(),
    "InvocationType": Parameter(
        Text(choices=("RequestResponse", "Event")), ALL,
        "`RequestResponse`, or `Event`: the batch (at most 1 MB) is taken once the function's asynchronous queue has"
        " it; order ends there", (None, "RequestResponse"), is_ours=True,
    ),
    "HoldGroupOnFailure": Parameter(
        Flag(), frozenset({Source.FIFO}),
        "later messages of a failed message's group count as failed, too: order is kept without the function's help",
        (None, False), is_ours=True,
    ),
    "VisibilityHeartbeat": Parameter(
        Flag(), QUEUES, "messages stay hidden for as long as the function runs", (None, False), is_ours=True
    ),
    "FailureBackoff": Parameter(
        Members({
            "MinimumDelayInSeconds": Whole(0, 43_200), "MaximumDelayInSeconds": Whole(0, 43_200),
        }), QUEUES,
        "failed messages return after a pause of their own, doubled with every receive, instead of the queue's"
        " visibility", _EMPTY, is_ours=True,
    ),
    "RoleArn": Parameter(
        Text(word="a role's ARN"), ALL,
        "assumed for polling and for the destination; without it the connection's identity, the function's `Role`, or"
        " the daemon itself",
        (None, ""), is_ours=True,
    ),
    "Connection": Parameter(
        Text(), ALL, "a key of `connections:`, through which the source is read", (None, ""), is_ours=True
    ),
}  # fmt: skip

OTHER_SOURCES = tuple(name for name, one in PARAMETERS.items() if one.here is OTHERS)
"""Parameters of Kafka, MQ and DocumentDB mappings."""


def source_of(arn: Arn) -> Source:
    """Which of the four a source is; its service is one of KINDS."""
    match KINDS[arn.service]:
        case SourceKind.SQS:
            return Source.FIFO if arn.resource.endswith(".fifo") else Source.QUEUE
        case SourceKind.KINESIS:
            return Source.KINESIS
        case SourceKind.DYNAMODB:
            return Source.DYNAMODB


def given(request: Table[str, Any], name: str) -> Any:  # noqa: ANN401 - as it came
    """The parameter's value; None where it is left out, or has a value that switches it off."""
    value = request.get(name)
    return None if any(value is off or (value == off and type(value) is type(off)) for off in _off(name)) else value


def _off(name: str) -> tuple[object, ...]:
    return PARAMETERS[name].off


def table() -> str:
    """The README's table of parameters."""
    rows = ["| parameter | SQS | FIFO | Kinesis | DynamoDB | here |", "|---|---|---|---|---|---|"]
    for name, one in PARAMETERS.items():
        cells = ["yes" if source in one.takes else "\N{EN DASH}" for source in Source]
        words = f"beyond AWS: {one.here}" if one.is_ours else one.here
        rows.append(f"| `{name}` | {' | '.join(cells)} | {words} |")
    return "\n".join(rows)
