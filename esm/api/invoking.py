"""Invoke: a function of the configuration is run, or its event stored, whoever asks.

Source: lambda.md 6; wire-shapes.md 4.10.
"""

import base64
import json
from collections.abc import Mapping as Table
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from esm.api.behind import Behind
from esm.api.calls import Call, Handler, Throttling
from esm.api.functions import named
from esm.errors import OperatorNeeded, RequestRefused, Unavailable
from esm.model.function import Function, HostedFunction
from esm.model.invocation import Abandoned, Answer, Ending, Invocation, Misconfigured, Refused, Throttled, Unreachable

CONTEXT_BYTES_MAX = 3583
"""Of X-Amz-Client-Context, encoded. Source: lambda.md 6."""
ACCEPTED = 202
DRY = 204

_RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
_OVERALL = "ConcurrentInvocationLimitExceeded"


def handlers(behind: Behind) -> dict[str, Handler]:
    """What answers Invoke, whole or in pieces."""

    async def invoke(call: Call) -> Table[str, Any]:
        kind = call.given.get("InvocationType", "RequestResponse")
        wanted, function = _invocation(behind, call, is_async=kind == "Event")
        if kind == "DryRun":
            return {"StatusCode": DRY}
        ending = await behind.functions.invoke(function, wanted)
        return _answer(ending, function, is_async=wanted.is_async, has_log=call.given.get("LogType") == "Tail")

    async def stream(call: Call) -> Table[str, Any]:
        wanted, function = _invocation(behind, call, is_async=False)
        if call.given.get("InvocationType") == "DryRun":
            return {"StatusCode": DRY}
        call.stream.headers["X-Amz-Executed-Version"] = wanted.function_arn.qualifier or "$LATEST"
        ending = await behind.functions.invoke(function, replace(wanted, stream=partial(_piece, call)))
        found = _answer(ending, function, is_async=False, has_log=call.given.get("LogType") == "Tail")
        complete = {"LogResult": found["LogResult"]}
        if found["FunctionError"] is not None:
            details = found["Payload"].decode(errors="replace")
            complete |= {"ErrorCode": found["FunctionError"], "ErrorDetails": details}
        elif found["Payload"]:
            await _piece(call, found["Payload"])
        told = {name: value for name, value in complete.items() if value is not None}
        await call.stream.send("InvokeComplete", msgspec.json.encode(told), "application/json")
        return {}

    return {"Invoke": invoke, "InvokeWithResponseStream": stream}


async def _piece(call: Call, payload: bytes) -> None:
    await call.stream.send("PayloadChunk", payload)


def _invocation(behind: Behind, call: Call, *, is_async: bool) -> tuple[Invocation, Function]:
    """What is to be run, and the function. Raises: RequestRefused."""
    arn, function = named(behind, call)
    payload = call.given.get("Payload") or b""
    context = _client_context(call.given.get("ClientContext"))
    _check_json(payload)
    wanted = Invocation(
        call.request_id, arn, payload or b"{}", trace=call.trace, is_async=is_async, waits=False, client_context=context
    )
    return wanted, function


def _answer(ending: Ending, function: Function, *, is_async: bool, has_log: bool) -> Table[str, Any]:
    """What the API says of an ending. `has_log`: the end of the log was asked for."""
    match ending:
        case Answer() if is_async:
            return {"StatusCode": ACCEPTED}
        case Answer():
            return {
                "StatusCode": ending.status, "Payload": ending.payload, "FunctionError": ending.function_error,
                "ExecutedVersion": ending.executed_version,
                "LogResult": base64.b64encode(ending.log_tail).decode() if has_log and ending.log_tail else None,
            }  # fmt: skip
        case Throttled():
            is_reserved = isinstance(function, HostedFunction) and function.reserved_concurrency is not None
            raise Throttling(ending.reason or (_RESERVED if is_reserved else _OVERALL), ending.after_s)
        case Unreachable():
            raise Unavailable(ending.text)
        case Misconfigured():
            raise OperatorNeeded(ending.text)
        case Refused():
            raise RequestRefused(ending.text, "InvalidRequestContentException", 400)
        case Abandoned():
            raise RequestRefused(ending.text, "RecursiveInvocationException", 400)


def _check_json(payload: bytes) -> None:
    """A payload is JSON, or empty. It is looked at and passed on as it is."""
    if not payload:
        return
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        text = f"Could not parse request body into json: {error}"
        raise RequestRefused(text, "InvalidRequestContentException", 400) from error


def _client_context(given: str | None) -> str | None:
    """The JSON of a client context, decoded and in one line of ASCII: it becomes a header. Raises: RequestRefused."""
    if given is None:
        return None
    if len(given) > CONTEXT_BYTES_MAX:
        text = f"Client context must be no more than {CONTEXT_BYTES_MAX} bytes when base64-encoded"
        raise RequestRefused(text, "InvalidRequestContentException", 400)
    try:
        text = base64.b64decode(given, validate=True).decode()
        return json.dumps(msgspec.json.decode(text), separators=(",", ":"))
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise RequestRefused("Client context must be a valid Base64-encoded JSON object.",
                             "InvalidRequestContentException", 400) from error  # fmt: skip
