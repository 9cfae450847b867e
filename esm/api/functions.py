"""The functions of the configuration, as Lambda's API shows them. They are read-only here.

Law: variables of a function's environment are never shown: they may hold secrets, and the file is where they stand.
"""

from collections.abc import Mapping as Table
from datetime import UTC, datetime
from typing import Any

from esm.api.behind import Behind
from esm.api.calls import Call, Handler, not_found
from esm.api.mappings import function_name, paged
from esm.errors import EsmError, RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.function import AsyncRules, Function, HostedFunction, LambdaFunction, PulledFunction, UrlFunction

PAGE = 50
"""Functions of one answer. Source: the service model's ListFunctions."""

_LATEST = "$LATEST"


def named(behind: Behind, call: Call) -> tuple[Arn, Function]:
    """What the FunctionName and the Qualifier of a call stand for. Raises: RequestRefused (400, 403, 404)."""
    text, qualifier = call.given["FunctionName"], call.given.get("Qualifier")
    call.check_function(function_name(text))
    arn, function = behind.functions.resolved(text)
    if qualifier is None:
        return arn, function
    if arn.qualifier not in (None, qualifier):
        raise RequestRefused("The derived qualifier from the function name does not match the specified qualifier.")
    return behind.functions.resolved(f"{arn.unqualified}:{qualifier}")


def found(behind: Behind, call: Call) -> Function:
    """The function alone. Raises: as `named`."""
    return named(behind, call)[1]


def handlers(behind: Behind) -> dict[str, Handler]:
    """What answers each operation on functions."""

    async def get(call: Call) -> Table[str, Any]:
        arn, function = named(behind, call)
        shown = await _document(behind, arn, function)
        reserved = function.reserved_concurrency if isinstance(function, HostedFunction) else None
        concurrency = None if reserved is None else {"ReservedConcurrentExecutions": reserved}
        return {"Configuration": shown, "Code": {}, "Tags": None, "Concurrency": concurrency}

    async def configuration(call: Call) -> Table[str, Any]:
        return await _document(behind, *named(behind, call))

    async def concurrency(call: Call) -> Table[str, Any]:
        function = found(behind, call)
        reserved = function.reserved_concurrency if isinstance(function, HostedFunction) else None
        return {"ReservedConcurrentExecutions": reserved}

    async def listed(call: Call) -> Table[str, Any]:
        own = sorted(
            ((one.arn.name, one) for one in behind.functions.functions() if call.caller.may_on(one.arn.name)),
            key=lambda pair: pair[0],
        )
        page, marker = paged(own, call.given.get("Marker"), call.given.get("MaxItems") or PAGE)
        return {"Functions": [await _document(behind, one.arn, one) for one in page], "NextMarker": marker}

    async def versions(call: Call) -> Table[str, Any]:
        arn, function = named(behind, call)
        return {"Versions": [await _document(behind, arn, function, version=_LATEST)]}

    async def aliases(call: Call) -> Table[str, Any]:
        found(behind, call)
        return {"Aliases": []}

    async def event_invoke_config(call: Call) -> Table[str, Any]:
        arn, function = named(behind, call)
        return _asynchronous(behind, arn, function)

    async def event_invoke_configs(call: Call) -> Table[str, Any]:
        arn, function = named(behind, call)
        has_one = not isinstance(function, LambdaFunction) and function.asynchronous != AsyncRules()
        return {"FunctionEventInvokeConfigs": [_asynchronous(behind, arn, function)] if has_one else []}

    return {
        "GetFunctionEventInvokeConfig": event_invoke_config, "ListFunctionEventInvokeConfigs": event_invoke_configs,
        "GetFunction": get, "GetFunctionConfiguration": configuration, "GetFunctionConcurrency": concurrency,
        "ListFunctions": listed, "ListVersionsByFunction": versions, "ListAliases": aliases,
    }  # fmt: skip


async def _document(behind: Behind, arn: Arn, function: Function, version: str | None = None) -> dict[str, Any]:
    """`FunctionConfiguration`. Of a function in AWS Lambda: what Lambda says now, as far as asking is allowed."""
    shown: dict[str, Any] = {
        "FunctionName": arn.name,
        "FunctionArn": f"{arn.unqualified}:{version}" if version else str(arn),
        "Version": version or arn.qualifier or _LATEST,
        "LastModified": _stamp(behind.functions.modified_at()),
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "TracingConfig": {"Mode": "PassThrough"},
    }
    match function:
        case HostedFunction():
            return shown | {
                "PackageType": "Zip", "Runtime": function.runtime, "Handler": function.handler, "Role": function.role,
                "Timeout": function.timeout_s, "MemorySize": function.memory_mb, "CodeSize": 0,
                "Description": f"hosted by esm from {function.code}",
            }  # fmt: skip
        case UrlFunction():
            return shown | {
                "PackageType": "Image", "Role": function.role, "Timeout": function.timeout_s,
                "Description": f"behind HTTP, protocol {function.protocol}",
            }  # fmt: skip
        case PulledFunction():
            return shown | {
                "PackageType": "Image", "Role": function.role, "Timeout": function.timeout_s,
                "Description": f"runs elsewhere and asks for its events at port {function.port}",
            }  # fmt: skip
        case _:
            try:
                facts = await behind.functions.facts(function)
            except EsmError as error:
                return shown | {"State": "Failed", "StateReason": str(error)}
            return shown | {"Timeout": facts.timeout_s, "Role": facts.role, "Description": "in AWS Lambda"}


def _asynchronous(behind: Behind, arn: Arn, function: Function) -> dict[str, Any]:
    """`FunctionEventInvokeConfig`. Raises: RequestRefused (404) where the configuration says nothing of it."""
    qualified = arn if arn.qualifier is not None else Arn.parse(f"{arn}:{_LATEST}")
    if isinstance(function, LambdaFunction) or function.asynchronous == AsyncRules():
        raise not_found(f"The function {qualified} doesn't have an EventInvokeConfig")
    rules = function.asynchronous
    destinations = {"OnSuccess": rules.on_success, "OnFailure": rules.on_failure}
    return {
        "FunctionArn": str(qualified),
        "LastModified": behind.functions.modified_at(),
        "MaximumRetryAttempts": rules.retries_max,
        "MaximumEventAgeInSeconds": rules.age_max_s,
        "DestinationConfig": {
            name: {} if one is None else {"Destination": str(one)} for name, one in destinations.items()
        },
    }


def _stamp(at: UnixTime) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
