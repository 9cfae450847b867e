"""Which operations of Lambda's API esm offers, and what it says of the others.

Law: this is the one list. What is not in it answers 501 with a text that says so; the README's table is made from it.
"""

from esm.api.lambda_model import operations
from esm.api.unasked import DEFAULTS
from esm.errors import RequestRefused

_SAME = "as on AWS"
_CONFIGURED = "functions of the configuration file"

OFFERED: dict[str, str] = {
    "CreateEventSourceMapping": f"{_SAME}: SQS, Kinesis, DynamoDB Streams; kept in the state, seen by every replica",
    "GetEventSourceMapping": f"{_SAME}; those of the configuration file, too",
    "ListEventSourceMappings": f"{_SAME}: by source, by function, in pages; those of the configuration file, too",
    "UpdateEventSourceMapping": f"{_SAME}; those of the configuration file are read-only",
    "DeleteEventSourceMapping": f"{_SAME}; those of the configuration file are read-only",
    "TagResource": "event source mappings",
    "UntagResource": "event source mappings",
    "ListTags": f"event source mappings, and {_CONFIGURED} (which have none)",
    "Invoke": f"{_CONFIGURED}: all three types; client context; `Tail` of hosted functions",
    "InvokeWithResponseStream": f"{_CONFIGURED}: as the function streams, or in one piece",
    "GetFunction": f"{_CONFIGURED}; no `Code.Location`, and no variables of the environment",
    "GetFunctionConfiguration": f"{_CONFIGURED}; no variables of the environment",
    "GetFunctionConcurrency": _CONFIGURED,
    "GetFunctionEventInvokeConfig": _CONFIGURED,
    "ListFunctionEventInvokeConfigs": _CONFIGURED,
    "ListFunctions": f"{_CONFIGURED}; in pages",
    "ListVersionsByFunction": f"{_CONFIGURED}: `$LATEST` alone",
    "ListAliases": f"{_CONFIGURED}: an empty list",
    **DEFAULTS,
}
"""What each does here, by name."""

_PARTS = {
    "FunctionUrl": "function URLs", "CodeSigning": "code signing", "Durable": "durable executions",
    "CapacityProvider": "capacity providers", "FunctionScaling": "capacity providers",
    "ResourcePolic": "resource policies", "LayerVersion": "layers", "Layers": "layers", "Alias": "aliases",
    "Version": "versions", "ProvisionedConcurrency": "provisioned concurrency",
}  # fmt: skip
"""What operations belong to, by a part of their names: for the text of a refusal."""

_ELSEWHERE = {
    "CreateFunction": "define it under functions: in the configuration file",
    "UpdateFunctionCode": "change the code where the configuration file says it lies",
    "UpdateFunctionConfiguration": "change it under functions: in the configuration file",
    "DeleteFunction": "remove it from functions: in the configuration file",
    "PutFunctionConcurrency": "set ReservedConcurrentExecutions in the configuration file",
    "DeleteFunctionConcurrency": "remove ReservedConcurrentExecutions from the configuration file",
    "PutFunctionEventInvokeConfig": "set EventInvokeConfig in the configuration file",
    "UpdateFunctionEventInvokeConfig": "set EventInvokeConfig in the configuration file",
    "DeleteFunctionEventInvokeConfig": "remove EventInvokeConfig from the configuration file",
    "PutFunctionRecursionConfig": "set RecursiveLoop in the configuration file",
    "InvokeAsync": "use Invoke with InvocationType Event",
    "AddPermission": "give the caller a credential with Functions and Actions in ESM_API_CREDENTIALS_FILE",
    "RemovePermission": "change the caller's credential in ESM_API_CREDENTIALS_FILE",
}
"""What to do instead."""


def refused(operation: str) -> RequestRefused:
    """The answer to an operation that is not offered: 501."""
    remedy = _ELSEWHERE.get(operation)
    what = next((what for part, what in _PARTS.items() if part in operation), None)
    text = f"esm does not offer {operation}"
    if remedy is not None:
        text += f": {remedy}."
    elif what is not None:
        text += f": {what} are not supported here." if what.endswith("s") else f": {what} is not supported here."
    else:
        text += ". The README lists the operations that it offers."
    return RequestRefused(text, "NotImplementedException", 501)


def table() -> str:
    """The README's table of every operation of the service model."""
    rows = ["| operation | here |", "|---|---|"]
    rows += [f"| `{one.name}` | {OFFERED.get(one.name, _missing(one.name))} |" for one in operations()]
    return "\n".join(rows)


def _missing(operation: str) -> str:
    remedy = _ELSEWHERE.get(operation)
    return "501" if remedy is None else f"501: {remedy}"
