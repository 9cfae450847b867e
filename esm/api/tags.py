"""Tags of event source mappings. Functions of the configuration have none, and get none here.

Source: wire-shapes.md 4.7.
"""

import asyncio
from collections.abc import Mapping as Table
from dataclasses import replace
from typing import Any

from esm.api.behind import Behind
from esm.api.calls import Call, Handler, not_found
from esm.api.mappings import audit, function_name, read_only
from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.model.desired import DesiredMapping
from esm.model.mapping import Mapping
from esm.rules import mapping_documents, validation

_MAPPING = "event-source-mapping:"


class TagOperations:
    """ListTags, TagResource, UntagResource."""

    def __init__(self, behind: Behind) -> None:
        self._behind = behind
        self._changing = asyncio.Lock()

    def handlers(self) -> dict[str, Handler]:
        """What answers each of them."""
        return {"ListTags": self._list, "TagResource": self._tag, "UntagResource": self._untag}

    async def _list(self, call: Call) -> Table[str, Any]:
        found = await self._found(call)
        if isinstance(found, DesiredMapping):
            return {"Tags": found.request.get("Tags") or {}}
        return {"Tags": {} if found is None else dict(found.tags)}

    async def _tag(self, call: Call) -> Table[str, Any]:
        given = call.given["Tags"]
        if not given:
            raise RequestRefused("An error occurred and the request cannot be processed.")
        return await self._change(call, lambda tags: tags | given)

    async def _untag(self, call: Call) -> Table[str, Any]:
        keys = call.given["TagKeys"]
        return await self._change(call, lambda tags: {key: value for key, value in tags.items() if key not in keys})

    async def _change(self, call: Call, change: Any) -> Table[str, Any]:  # noqa: ANN401 - tags to tags
        async with self._changing:
            found = await self._found(call)
            if found is None:
                text = "Tags of functions of the configuration cannot be set: they have none in this version of esm."
                raise RequestRefused(text)
            if isinstance(found, Mapping):
                raise read_only(found.uuid, self._behind.mappings.place(found.uuid))
            before = found.request.get("Tags") or {}
            after = change(before)
            for problem in validation.tag_problems(after):
                raise RequestRefused(problem)
            state = self._behind.mappings.state(found)
            await self._behind.catalogue.put_mapping(
                replace(found, request=found.request | {"Tags": after}, state=state)
            )  # fmt: skip
        resource = f"{_MAPPING}{found.uuid}"
        audit(self._behind.telemetry, call, resource, {"Tags": before}, {"Tags": after})
        return {}

    async def _found(self, call: Call) -> Mapping | DesiredMapping | None:
        """What a resource's ARN names; None: a function of the configuration. Raises: RequestRefused."""
        text = call.given["Resource"]
        arn = Arn.parse(text)
        if arn.resource.startswith("function:"):
            call.check_function(function_name(text))
            self._behind.functions.resolved(text)
            return None
        uuid = arn.resource.removeprefix(_MAPPING).lower()
        for mapping in self._behind.mappings.declared():
            if mapping.uuid == uuid and str(mapping_documents.arn_of(mapping)) == text:
                call.check_function(mapping.function_arn.name)
                return mapping
        found = await self._behind.catalogue.mapping(uuid) if arn.resource.startswith(_MAPPING) else None
        if found is None or found.is_leaving or (arn.region, arn.account) != _of(found.function_arn):
            raise not_found(f"Event source mapping not found: {text}")
        call.check_function(found.function_arn.name)
        return found


def _of(arn: Arn) -> tuple[str, str]:
    return arn.region, arn.account
