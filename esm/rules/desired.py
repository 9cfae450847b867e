"""Mappings that were made through the API: what they look like in the store, which of them run, what they show.

Law: a stored mapping is the request that made it, so that what this version makes of it is what validation makes of
it. Of two that read one source for one function, the file's runs, else the older one: never both.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.desired import DesiredMapping
from esm.model.mapping import Mapping, State
from esm.model.view import MappingView
from esm.rules import validation
from esm.rules.kinds import Kind, Shape

MAPPINGS = ("catalogue", "mapping")
"""Kind and owner of the mappings that were made through the API, one item each."""


class _Document(msgspec.Struct):
    format: int
    uuid: str
    request: dict[str, Any]
    function: str
    state: str
    created_at: float
    modified_at: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Which stored mappings may run."""

    mappings: tuple[Mapping, ...]
    problems: dict[str, str]
    """Why one does not, by UUID."""


def encode(desired: DesiredMapping, write: int) -> bytes:
    """The mapping as the store keeps it, unknown attributes included, in a format that readers of `write` know."""
    return MAPPING.encode(desired, write)


def _value(desired: DesiredMapping) -> bytes:
    document = _Document(
        1, desired.uuid, desired.request, str(desired.function_arn), desired.state.value, desired.created_at,
        desired.modified_at,
    )  # fmt: skip
    return msgspec.json.encode({**desired.extra, **msgspec.to_builtins(document)})


def decode(value: bytes, version: int) -> DesiredMapping:
    """The mapping that `encode` wrote, here or in a neighbouring version.

    Raises: StoreTooNew; OperatorNeeded where the value is none of ours.
    """
    return replace(MAPPING.decode(value), version=version)


def _desired_of(value: bytes) -> DesiredMapping:
    attributes = msgspec.json.decode(value, type=dict[str, Any])
    document = msgspec.convert(attributes, _Document)
    function, state = Arn.parse(document.function), State(document.state)
    extra = {name: entry for name, entry in attributes.items() if name not in _Document.__struct_fields__}
    return DesiredMapping(
        document.uuid, document.request, function, state, UnixTime(document.created_at),
        UnixTime(document.modified_at), extra=extra,
    )  # fmt: skip


def mapping_of(desired: DesiredMapping) -> Mapping:
    """The mapping that runs. A time that was in the past when it was asked for is taken, whatever the clock says now.

    Raises: RequestRefused where this version does not take it.
    """
    wall = UnixTime(math.inf)
    return validation.mapping_of(desired.request, uuid=desired.uuid, function_arn=desired.function_arn, wall=wall)


def chosen(declared: Sequence[Mapping], stored: Iterable[DesiredMapping]) -> Choice:
    """Those of the stored mappings that may run beside the declared ones, which stand in files."""
    made: list[Mapping] = []
    problems: dict[str, str] = {}
    for desired in sorted(stored, key=lambda one: (one.created_at, one.uuid)):
        if desired.is_leaving:
            continue
        try:
            mapping = mapping_of(desired)
        except RequestRefused as error:
            problems[desired.uuid] = str(error)
            continue
        conflicts = validation.check_unique([*declared, *made, mapping])
        mine = [error for index, error in conflicts if index == len(declared) + len(made)]
        if mine:
            problems[desired.uuid] = str(mine[0])
        else:
            made.append(mapping)
    return Choice(tuple(made), problems)


def shown_state(desired: DesiredMapping, taken_version: int | None, view: MappingView | None) -> State:
    """The state that the API shows: what was asked for, until a daemon that has taken it over says how it is."""
    if desired.is_leaving or view is None or taken_version != desired.version:
        return desired.state
    return view.state


def changed_state(state: State, *, was_enabled: bool, enabled: bool) -> State:
    """The state after a change was asked for, in the state that was shown."""
    if was_enabled != enabled:
        return State.ENABLING if enabled else State.DISABLING
    return State.UPDATING if state in (State.ENABLED, State.DISABLED) else state


def unsound_document(desired: DesiredMapping, problem: str) -> dict[str, Any]:
    """What the API shows of a stored mapping that this version does not take."""
    return {
        "UUID": desired.uuid,
        "EventSourceArn": desired.request.get("EventSourceArn"),
        "FunctionArn": str(desired.function_arn),
        "LastModified": desired.modified_at,
        "State": desired.state.value,
        "StateTransitionReason": f"PROBLEM: {problem}",
    }


MAPPING = Kind("mapping", {1: Shape(_value, _desired_of)})
