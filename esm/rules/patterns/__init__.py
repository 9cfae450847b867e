"""Filter criteria: EventBridge's pattern language, and the part of a record that each of its keys means.

Text is read (`reading`), becomes conjunctions of conditions (`parsing`, `conditions`), and those a `Filter`
(`criteria`), which walks a record once (`decoding`, `fields`) and decides each conjunction (`consistency`).

Source: lambda.md 4; wire-shapes.md 6.
"""

from esm.model.arn import SourceKind
from esm.rules.patterns.conditions import PatternRefused
from esm.rules.patterns.criteria import Filter, compile_filter, conjunctions
from esm.rules.patterns.naming import data_key, unknown_names

__all__ = ["Filter", "PatternRefused", "compile_filter", "data_key", "reason_invalid", "unknown_names"]


def reason_invalid(pattern: str, kind: SourceKind) -> str | None:
    """Why AWS would refuse a pattern for a source; None: it is valid."""
    try:
        conjunctions(pattern, kind)
    except PatternRefused as refused:
        return str(refused)
    return None
