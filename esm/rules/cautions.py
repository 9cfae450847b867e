"""What a mapping may be, yet is worth a word to its operator. Each text names the mapping and the remedy."""

from collections.abc import Iterator
from collections.abc import Mapping as Table
from typing import Any

from esm.model.mapping import InvocationType, Mapping
from esm.rules.patterns import data_key, unknown_names


def cautions(mapping: Mapping, request: Table[str, Any]) -> list[str]:
    """One text a thing; `request` is what the mapping was made from."""
    return list(_cautions(mapping, request))


def _cautions(mapping: Mapping, request: Table[str, Any]) -> Iterator[str]:
    name = f"mapping {mapping.function} <- {mapping.source_arn}"
    is_event = mapping.invocation_type is InvocationType.EVENT
    has_no_limit = mapping.retries_max is None and mapping.record_age_max_s is None
    if mapping.source_kind.is_stream and has_no_limit and not is_event:
        yield (
            f"{name} has neither MaximumRetryAttempts nor MaximumRecordAgeInSeconds: one record that always fails"
            " blocks its shard until the source forgets it"
        )
    if mapping.tumbling_window_s and (request.get("ParallelizationFactor") or 1) > 1:
        yield (
            f"{name} has a tumbling window: ParallelizationFactor {request['ParallelizationFactor']} is taken as 1,"
            " since a shard has one state"
        )
    if is_event and mapping.is_fifo:
        yield f"{name} has InvocationType Event: the order of its groups ends at the function's asynchronous queue"
    if unknown := unknown_names(mapping.filters, mapping.source_kind):
        yield (
            f"{name}: a filter names {' and '.join(unknown)}, which no record of this source has, so that what was"
            f" meant to match is dropped: the pattern for what was sent stands under {data_key(mapping.source_kind)!r};"
            " `esm filter` tries it on an event"
        )
    without_effect = [
        word for word, value in (("KMSKeyArn", mapping.kms_key_arn), ("MetricsConfig", mapping.metrics)) if value
    ]
    if without_effect:
        yield f"{name}: {' and '.join(without_effect)} is kept and shown, and has no effect here"
