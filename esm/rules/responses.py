"""The function's answer -> Outcome. Source: lambda.md 2.4, 3.4, 11.3; wire-shapes.md 5."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from esm.model.invocation import Answer, Ending
from esm.model.outcome import Failed, FailedItems, Outcome, Ran, Succeeded
from esm.rules.events import PAYLOAD_BYTES_MAX

_EMPTY: tuple[object, ...] = (None, "", [], {})


class _Error(msgspec.Struct):
    errorType: str = "Unhandled"  # noqa: N815 - AWS's name


class _Windowed(msgspec.Struct):
    state: msgspec.Raw


STATE_ROOM_BYTES = PAYLOAD_BYTES_MAX - 4096
"""A state beyond this fits no event, not even the final one of its window."""


def read(
    ending: Ending, ids: Sequence[str], *, reports_item_failures: bool, needs_state: bool = False
) -> Outcome:  # fmt: skip
    """What an ending means for a batch whose records are named `ids`: message ids, or sequence numbers.

    `needs_state`: the invocation belonged to a tumbling window, and its answer must hold an object `state`.
    """
    if not isinstance(ending, Answer):
        return ending
    ran = Ran(ending.request_id, ending.status, ending.executed_version, ending.function_error)
    if ending.function_error is not None:
        return Failed(ran, _error_type(ending.payload))
    if needs_state:
        return _with_state(ending.payload, ran, ids, reports_item_failures=reports_item_failures)
    if not reports_item_failures or not ending.payload.strip():
        return Succeeded(ran)
    try:
        answer: object = msgspec.json.decode(ending.payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Failed(ran, "answer is not JSON")
    return _from_answer(answer, ran, ids)


def _with_state(payload: bytes, ran: Ran, ids: Sequence[str], *, reports_item_failures: bool) -> Outcome:
    try:
        answer: object = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Failed(ran, "answer is not JSON")
    if not isinstance(answer, dict) or not isinstance(answer.get("state"), dict):
        return Failed(ran, "answer has no object state")
    state = bytes(msgspec.json.decode(payload, type=_Windowed).state)
    if len(state) > STATE_ROOM_BYTES:
        return Failed(ran, "state fits no event")
    outcome = _from_answer(answer, ran, ids) if reports_item_failures else Succeeded(ran)
    return replace(outcome, state=state) if isinstance(outcome, (Succeeded, FailedItems)) else outcome


def outcome_name(outcome: Outcome) -> str:
    """The label `outcome` of `esm_invocations_total`."""
    match outcome:
        case Succeeded():
            return "success"
        case FailedItems():
            return "partial"
        case Failed():
            return "failure"
        case _:
            return type(outcome).__name__.lower()


def _from_answer(answer: object, ran: Ran, ids: Sequence[str]) -> Outcome:
    if answer in _EMPTY and not isinstance(answer, (bool, int, float)):
        return Succeeded(ran)
    if not isinstance(answer, dict):
        return Failed(ran, "answer is not an object")
    failures = answer.get("batchItemFailures")
    if failures is None or failures == []:
        return Succeeded(ran)
    if not isinstance(failures, list):
        return Failed(ran, "batchItemFailures is not a list")
    return _from_failures(failures, ran, ids)


def _from_failures(failures: list[object], ran: Ran, ids: Sequence[str]) -> Outcome:
    named = {item.get("itemIdentifier") if isinstance(item, dict) else None for item in _hashable(failures)}
    if not all(isinstance(name, str) and name for name in named):
        return Failed(ran, "an itemIdentifier is missing or empty")
    if not named <= set(ids):
        return Failed(ran, "an itemIdentifier is not in the batch")
    return FailedItems(ran, frozenset(str(name) for name in named))


def _hashable(failures: list[object]) -> list[object]:
    return [
        item if not isinstance(item, dict) or isinstance(item.get("itemIdentifier"), str) else None for item in failures
    ]


def _error_type(payload: bytes) -> str:
    try:
        return msgspec.json.decode(payload, type=_Error).errorType[:200]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return "Unhandled"
