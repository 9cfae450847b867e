"""What a pattern names that no record of its source has: AWS takes such a pattern, and it drops what it was meant for.

A record has more members than these only where a server adds some: hence a word to the operator, no refusal.
"""

from collections.abc import Iterator, Sequence

from esm.model.arn import SourceKind
from esm.rules.patterns.criteria import DATA_KEYS, conjunctions

_OF_ALL = frozenset({"eventSource", "eventSourceARN", "awsRegion"})
_OF_STREAMS = _OF_ALL | {"eventID", "eventName", "eventVersion"}
_INSIDE_KINESIS = frozenset({"kinesisSchemaVersion", "partitionKey", "sequenceNumber", "approximateArrivalTimestamp"})
MEMBERS = {
    SourceKind.SQS: _OF_ALL
    | {"messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfMessageAttributes", "md5OfBody"},
    SourceKind.KINESIS: _OF_STREAMS | _INSIDE_KINESIS | {"invokeIdentityArn", "kinesis", "data"},
    SourceKind.DYNAMODB: _OF_STREAMS | {"dynamodb", "userIdentity"},
}
"""What a path may begin with. Source: lambda.md 4.3; wire-shapes.md 1."""


def unknown_names(patterns: Sequence[str], kind: SourceKind) -> list[str]:
    """Names that no record of the source has, sorted, each as the pattern would have to be read to see it."""
    paths = {path for pattern in patterns for way in conjunctions(pattern, kind) for path in way}
    return sorted(set(_unknown(paths, kind)))


def _unknown(paths: set[str], kind: SourceKind) -> Iterator[str]:
    for path in paths:
        first, *rest = path.split(".")
        if first not in MEMBERS[kind]:
            yield first
        elif first == "kinesis" and (not rest or rest[0] not in _INSIDE_KINESIS):
            yield ".".join([first, *rest[:1]])


def data_key(kind: SourceKind) -> str:
    """Where the pattern for what was sent belongs."""
    return DATA_KEYS[kind]
