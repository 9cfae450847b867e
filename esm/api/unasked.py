"""Reads that clients make unasked, whatever they are used for: AWS's answers of an account that has nothing set.

Terraform reads code signing, URLs, recursion and runtime management of every function that it knows.
"""

from collections.abc import Callable
from collections.abc import Mapping as Table
from typing import Any

from esm.api.calls import Call, Handler, not_found
from esm.model.function import Function

DEFAULTS = {
    "GetFunctionCodeSigningConfig": "the function's name and no ARN: code is not signed here",
    "ListFunctionUrlConfigs": "an empty list",
    "GetFunctionRecursionConfig": "the function's `RecursiveLoop`",
    "GetRuntimeManagementConfig": "`Auto`, AWS's default",
    "GetPolicy": "404, as where nothing was permitted: credentials say who may call",
}
"""What is answered, by operation."""

Found = Callable[[Call], Function]
"""The function that a call names. Raises: RequestRefused (404, 403)."""


def handlers(found: Found) -> dict[str, Handler]:
    """What answers each of them."""

    async def code_signing(call: Call) -> Table[str, Any]:
        return {"FunctionName": found(call).arn.name}

    async def urls(call: Call) -> Table[str, Any]:
        found(call)
        return {"FunctionUrlConfigs": []}

    async def recursion(call: Call) -> Table[str, Any]:
        return {"RecursiveLoop": "Allow" if found(call).allows_loops else "Terminate"}

    async def runtime_management(call: Call) -> Table[str, Any]:
        return {"UpdateRuntimeOn": "Auto", "FunctionArn": str(found(call).arn.unqualified)}

    async def policy(call: Call) -> Table[str, Any]:
        found(call)
        raise not_found("The resource you requested does not exist.")

    return {
        "GetFunctionCodeSigningConfig": code_signing,
        "ListFunctionUrlConfigs": urls,
        "GetFunctionRecursionConfig": recursion,
        "GetRuntimeManagementConfig": runtime_management,
        "GetPolicy": policy,
    }
