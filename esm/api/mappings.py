"""Event source mappings through the API: made, shown, listed, changed, deleted.

Law: what is asked for goes into the store and is run by whatever daemon sees it; nothing here runs a mapping. Those of
the configuration file are shown like the others and never changed: the error says where they stand. Only looks at the
store are taken in turns, so that a source that does not answer holds up nobody else.
The order of checks is Lambda's: parameters, function, source, duplicates. Source: wire-shapes.md 4.
"""

import asyncio
import base64
import binascii
import math
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Table
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import msgspec

from esm.api.behind import Behind
from esm.api.calls import Call, Handler, not_found
from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.desired import DesiredMapping
from esm.model.mapping import NO_RECORDS, Mapping, State
from esm.rules import desired as desires
from esm.rules import lifecycle, mapping_documents, shapes, validation
from esm.telemetry import Telemetry

PAGE = 100
"""Mappings of one answer where MaxItems says nothing. Source: the service model."""
MAPPINGS_MAX = 10_000
"""That the API makes, in one state: what is beyond is refused."""

Item = TypeVar("Item")

_SETTLED = {State.ENABLED, State.DISABLED}
_MISSING = "The resource you requested does not exist."
_IN_USE = "Cannot {verb} the event source mapping because it is in use."


class MappingOperations:
    """The operations on mappings. One change at a time in this process; the store decides between processes."""

    def __init__(self, behind: Behind) -> None:
        self._behind = behind
        self._changing = asyncio.Lock()

    def handlers(self) -> dict[str, Handler]:
        """What answers each of them."""
        return {
            "CreateEventSourceMapping": self._create,
            "GetEventSourceMapping": self._get,
            "ListEventSourceMappings": self._list,
            "UpdateEventSourceMapping": self._update,
            "DeleteEventSourceMapping": self._delete,
        }

    async def _create(self, call: Call) -> Table[str, Any]:
        request = dict(call.given)
        call.check_function(function_name(request["FunctionName"]))
        _check_request(request, call.at)
        uuid = self._behind.new_id()
        mapping = await self._checked(request, uuid, call.at)
        async with self._changing:
            await self._check_neighbours(mapping)
            state = lifecycle.first(enabled=mapping.enabled)
            wanted = DesiredMapping(uuid, request, mapping.function_arn, state, call.at, call.at)
            wanted = await self._behind.catalogue.put_mapping(wanted)
        shown = self._document(wanted)
        self._audit(call, uuid, None, shown)
        return shown

    async def _get(self, call: Call) -> Table[str, Any]:
        uuid = call.given["UUID"].lower()
        declared = self._declared(uuid)
        if declared is not None:
            call.check_function(declared.function_arn.name)
            return self._declared_document(declared)
        wanted = await self._stored(uuid)
        call.check_function(wanted.function_arn.name)
        return self._document(wanted)

    async def _list(self, call: Call) -> Table[str, Any]:
        given = call.given
        is_of = self._function_filter(given.get("FunctionName"))
        source = given.get("EventSourceArn")
        found: dict[str, tuple[Arn, str, Callable[[], dict[str, Any]]]] = {
            one.uuid: (one.function_arn, str(one.source_arn), partial(self._declared_document, one))
            for one in self._behind.mappings.declared()
        }
        for stored in await self._behind.catalogue.mappings():
            arn = str(stored.request.get("EventSourceArn"))
            found.setdefault(stored.uuid, (stored.function_arn, arn, partial(self._document, stored)))
        fitting = sorted(
            (uuid, made)
            for uuid, (function, arn, made) in found.items()
            if call.caller.may_on(function.name) and is_of(function) and source in (None, arn)
        )
        page, marker = paged(fitting, given.get("Marker"), given.get("MaxItems") or PAGE)
        return {"EventSourceMappings": [made() for made in page], "NextMarker": marker}

    async def _update(self, call: Call) -> Table[str, Any]:
        uuid = call.given["UUID"].lower()
        before = await self._changeable(call, uuid, "update")
        request = before.request | {name: value for name, value in call.given.items() if name != "UUID"}
        call.check_function(function_name(request["FunctionName"]))
        _check_request(request, UnixTime(math.inf))
        mapping = await self._checked(request, uuid, UnixTime(math.inf))
        async with self._changing:
            await self._check_neighbours(mapping)
            state = desires.changed_state(
                self._behind.mappings.state(before), was_enabled=before.request.get("Enabled", True),
                enabled=mapping.enabled,
            )  # fmt: skip
            after = replace(
                before, request=request, function_arn=mapping.function_arn, state=state, modified_at=call.at
            )  # fmt: skip
            shown_before = self._document(before)
            after = await self._behind.catalogue.put_mapping(after)
        shown = self._document(after)
        self._audit(call, uuid, shown_before, shown)
        return shown

    async def _delete(self, call: Call) -> Table[str, Any]:
        uuid = call.given["UUID"].lower()
        async with self._changing:
            before = await self._changeable(call, uuid, "delete")
            shown_before = self._document(before)
            gone = replace(before, state=State.DELETING, modified_at=call.at)
            gone = await self._behind.catalogue.put_mapping(gone)
        self._audit(call, uuid, shown_before, None)
        return self._document(gone)

    async def _changeable(self, call: Call, uuid: str, verb: str) -> DesiredMapping:
        """A stored mapping that may be changed now. Raises: RequestRefused."""
        declared = self._declared(uuid)
        if declared is not None:
            call.check_function(declared.function_arn.name)
            raise read_only(uuid, self._behind.mappings.place(uuid))
        found = await self._stored(uuid)
        call.check_function(found.function_arn.name)
        view = self._behind.mappings.view(uuid)
        is_stuck = self._behind.mappings.problem(uuid) is not None or (view is not None and view.has_problem)
        state = self._behind.mappings.state(found)
        if found.is_leaving or (state not in _SETTLED and not is_stuck):
            raise RequestRefused(_IN_USE.format(verb=verb), "ResourceInUseException", 400)
        return found

    async def _checked(self, request: dict[str, Any], uuid: str, wall: UnixTime) -> Mapping:
        """The mapping that a sound request describes, once function and source agree."""
        try:
            arn, _ = self._behind.functions.resolved(request["FunctionName"])
        except RequestRefused as error:
            raise RequestRefused("Function does not exist") from error
        mapping = validation.mapping_of(request, uuid=uuid, function_arn=arn, wall=wall)
        await self._behind.mappings.check(mapping)
        return mapping

    async def _check_neighbours(self, mapping: Mapping) -> None:
        """Refuse a second mapping of one source and function; one that is going counts until it is gone."""
        others = [one for one in await self._behind.catalogue.mappings() if one.uuid != mapping.uuid]
        if len(others) >= MAPPINGS_MAX:
            raise RequestRefused(f"There are {MAPPINGS_MAX} event source mappings already: delete some.")
        neighbours = [*self._behind.mappings.declared(), *_sound(others)]
        found = validation.check_unique([*neighbours, mapping])
        for index, conflict in found:
            if index == len(neighbours):
                raise conflict

    async def _stored(self, uuid: str) -> DesiredMapping:
        found = await self._behind.catalogue.mapping(uuid)
        if found is None:
            raise not_found(_MISSING)
        return found

    def _declared(self, uuid: str) -> Mapping | None:
        return next((one for one in self._behind.mappings.declared() if one.uuid == uuid), None)

    def _declared_document(self, mapping: Mapping) -> dict[str, Any]:
        view = self._behind.mappings.view(mapping.uuid)
        state = view.state if view is not None else lifecycle.first(enabled=mapping.enabled)
        last, reason = (NO_RECORDS, None) if view is None else (view.last_result, view.reason)
        return mapping_documents.document(mapping, state, self._behind.mappings.modified_at(), last, reason)

    def _document(self, wanted: DesiredMapping) -> dict[str, Any]:
        try:
            mapping = desires.mapping_of(wanted)
        except RequestRefused as error:
            return desires.unsound_document(wanted, str(error))
        view = self._behind.mappings.view(wanted.uuid)
        last, reason = (NO_RECORDS, None) if view is None else (view.last_result, view.reason)
        problem = self._behind.mappings.problem(wanted.uuid)
        if problem is not None:
            last, reason = f"PROBLEM: {problem}", f"PROBLEM: {problem}"
        state = self._behind.mappings.state(wanted)
        return mapping_documents.document(mapping, state, wanted.modified_at, last, reason)

    def _function_filter(self, name: str | None) -> Callable[[Arn], bool]:
        """Whether a mapping's function is the one asked for; without qualifier, any version and alias of it."""
        if name is None:
            return lambda _: True
        try:
            wanted, _ = self._behind.functions.resolved(name)
        except RequestRefused:
            return lambda arn: name in (str(arn), str(arn.unqualified), arn.name)
        if wanted.qualifier is not None:
            return lambda arn: arn == wanted
        return lambda arn: arn.unqualified == wanted

    def _audit(self, call: Call, uuid: str, before: Table[str, Any] | None, after: Table[str, Any] | None) -> None:
        audit(self._behind.telemetry, call, f"event-source-mapping:{uuid}", before, after)


def audit(
    telemetry: Telemetry, call: Call, what: str, before: Table[str, Any] | None, after: Table[str, Any] | None
) -> None:
    """Report a change: who, what, before, after; None: there is none."""
    telemetry.api_changed(
        who=call.caller.name, operation=call.operation, what=what, request_id=call.request_id,
        before=msgspec.json.encode(before).decode(), after=msgspec.json.encode(after).decode(),
    )  # fmt: skip


def read_only(uuid: str, place: str) -> RequestRefused:
    """The refusal to change a mapping of the configuration."""
    return RequestRefused(
        f"Event source mapping {uuid} stands in the configuration ({place}) and is read-only here: change it there."
    )


def function_name(text: str) -> str:
    """The bare name in a FunctionName of any form: what credentials allow is by name."""
    _, is_arn, after = text.rpartition("function:")
    name = after if is_arn else text
    parts = name.split(":")
    return parts[1] if not is_arn and parts[0].isdigit() and len(parts) > 1 else parts[0]


def paged(found: Sequence[tuple[str, Item]], marker: str | None, most: int) -> tuple[list[Item], str | None]:
    """The items whose keys come after a marker, at most so many, and the marker of the next page.

    `found` by key. Raises: RequestRefused.
    """
    after = "" if marker is None else _unmarked(marker)
    rest = [one for one in found if one[0] > after]
    page = [item for _, item in rest[:most]]
    if len(rest) <= most:
        return page, None
    return page, base64.urlsafe_b64encode(rest[most - 1][0].encode()).decode()


def _unmarked(marker: str) -> str:
    try:
        return base64.b64decode(marker.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise RequestRefused("Invalid Marker: give the NextMarker of the page before, unchanged.") from error


def _check_request(request: Table[str, Any], wall: UnixTime) -> None:
    found = validation.findings(request, wall)
    if found:
        raise shapes.combined(found)


def _sound(stored: Iterable[DesiredMapping]) -> list[Mapping]:
    """Those that this version takes."""
    found = []
    for one in stored:
        try:
            found.append(desires.mapping_of(one))
        except RequestRefused:
            continue
    return found
