"""Filter criteria: EventBridge's pattern language, and the part of a record that each of its keys means.

Source: lambda.md 4; wire-shapes.md 6.
"""

from esm.model.arn import SourceKind
from esm.rules.patterns.conditions import PatternRefused
from esm.rules.patterns.parsing import Conjunction, parse

DATA_KEYS = {SourceKind.SQS: "body", SourceKind.KINESIS: "data", SourceKind.DYNAMODB: "dynamodb"}
"""The key that holds what was sent. Source: lambda.md 4.3."""


def reason_invalid(pattern: str, kind: SourceKind) -> str | None:
    """Why AWS would refuse a pattern for a source; None: it is valid."""
    try:
        conjunctions(pattern, kind)
    except PatternRefused as refused:
        return str(refused)
    return None


def conjunctions(pattern: str, kind: SourceKind) -> list[Conjunction]:
    """The ways in which a record of the source can match. Raises: PatternRefused."""
    found = parse(pattern)
    key = DATA_KEYS[kind]
    if kind is not SourceKind.SQS and any(key in conjunction for conjunction in found):
        msg = f"{key!r} is an array: only SQS takes plain text; the pattern for what is inside is an object"
        raise PatternRefused(msg)
    return found
