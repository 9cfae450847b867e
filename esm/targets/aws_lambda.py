"""A function in AWS Lambda, or behind any endpoint that speaks Lambda's API.

Law: one request an invocation, never repeated here: the SDK's retries are off, and its read timeout is longer than any
function runs. Payloads pass as they are.
"""

import asyncio
import base64
import io
from dataclasses import replace
from typing import Any

import botocore.exceptions as boto

from esm.aws import failures
from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded, ShardGone, Unavailable
from esm.model.arn import Arn
from esm.model.function import FunctionFacts, LambdaFunction
from esm.model.invocation import Answer, Ending, Invocation, Misconfigured, Throttled, Unreachable
from esm.targets import function_errors, lambda_errors, retry_after
from esm.telemetry import Telemetry

IAM_ACTIONS = ("lambda:InvokeFunction", "lambda:GetFunctionConfiguration")
"""What the daemon's role needs on the function; the second only for the timeout check."""

READ_TIMEOUT_S = 930.0
"""Above the 900 s that a function may run, and the time that Lambda takes to start one."""

EVENT_READ_TIMEOUT_S = 30.0
"""For an asynchronous invocation: Lambda answers as soon as it has stored the event."""

_CHUNK_BYTES = 256 * 1024
_LARGE_BYTES = 1024 * 1024
"""From here on a payload goes out in pieces: as one, aiohttp would hold up the loop for it."""
_TRACE = "TraceHeader"
"""Our own parameter of Invoke, turned into its header: the SDK's model has none for it."""


class AwsLambda:
    """A `Target` for a `LambdaFunction`. Lambda bounds its concurrency by itself, by throttling."""

    concurrency: int | None = None

    def __init__(self, function: LambdaFunction, sessions: Sessions, telemetry: Telemetry) -> None:
        self._arn = function.arn
        self._sessions = sessions
        self._telemetry = telemetry
        self._clients: dict[float, Any] = {}
        """By read timeout: of synchronous and of asynchronous invocations."""

    async def facts(self) -> FunctionFacts:
        """Timeout and role as Lambda says; where asking is not allowed, no timeout and a role of the function's name.

        Raises: OperatorNeeded, Unavailable.
        """
        client = await self._open_client()
        try:
            answer = await self._sessions.control(client, "get_function_configuration", **_place(self._arn))
        except ShardGone as error:  # the table's word for any resource that is not found
            raise OperatorNeeded(f"Function does not exist: {self._arn}") from error
        except OperatorNeeded as error:
            if not _is_denied(error):
                raise
            self._telemetry.warned(
                "function's configuration may not be read: its timeout is not checked",
                function=str(self._arn), action="lambda:GetFunctionConfiguration",
            )  # fmt: skip
            return FunctionFacts(None, _role(self._arn))
        return FunctionFacts(answer.get("Timeout"), answer.get("Role") or _role(self._arn))

    async def wait_free(self) -> None:
        """Return at once: that Lambda is busy shows by its throttling alone."""

    async def invoke(self, invocation: Invocation) -> Ending:
        """See `ports.Target`. Cancelled: what was sent goes on in Lambda."""
        start_by = invocation.start_by
        if start_by is not None and asyncio.get_running_loop().time() >= start_by:
            return Throttled(invocation.request_id)
        request_id = invocation.request_id
        try:
            ending, outcome = await self._invoked(invocation), "ok"
        except boto.ClientError as error:
            ending, outcome = _refusal(error, request_id), failures.code_of(error)
        except failures.CredentialsMissing as error:
            ending, outcome = Misconfigured(request_id, f"Invoke: {error}"), "credentials"
        except OperatorNeeded as error:
            ending, outcome = Misconfigured(request_id, str(error)), "refused"
        except Unavailable as error:
            ending, outcome = Unreachable(request_id, f"Invoke: {error}"), "credentials"
        except failures.MISCONFIGURED as error:
            ending, outcome = Misconfigured(request_id, f"Invoke: {error}"), "refused"
        except failures.NETWORK as error:
            ending, outcome = Unreachable(request_id, f"Invoke: {type(error).__name__}: {error}"), "unreachable"
        except failures.UNREADABLE as error:
            text = f"Invoke: the answer is not Lambda's: {type(error).__name__}"
            ending, outcome = Unreachable(request_id, text), "unreadable"
        self._sessions.on_request("lambda", "Invoke", outcome)
        return ending

    async def aclose(self) -> None:
        """Nothing: the client is the sessions'."""

    async def _open_client(self, read_timeout_s: float = READ_TIMEOUT_S) -> Any:  # noqa: ANN401 aiobotocore makes clients at run time
        if read_timeout_s not in self._clients:
            client = await self._sessions.client("lambda", self._arn.region, read_timeout_s=read_timeout_s)
            events = client.meta.events
            events.register("provide-client-params.lambda.Invoke", _take_trace, unique_id="esm-take-trace")
            events.register("before-call.lambda.Invoke", _put_trace, unique_id="esm-put-trace")
            self._clients[read_timeout_s] = client
        return self._clients[read_timeout_s]

    async def _invoked(self, invocation: Invocation) -> Ending:
        client = await self._open_client(EVENT_READ_TIMEOUT_S if invocation.is_async else READ_TIMEOUT_S)
        more = {} if invocation.trace is None else {_TRACE: invocation.trace}
        if invocation.client_context is not None and not invocation.is_async:
            more["ClientContext"] = base64.b64encode(invocation.client_context.encode()).decode()
        payload = invocation.payload
        answer = await client.invoke(
            **_place(invocation.function_arn),
            InvocationType="Event" if invocation.is_async else "RequestResponse",
            Payload=payload if len(payload) < _LARGE_BYTES else io.BytesIO(payload),
            **more,
        )
        request_id = answer["ResponseMetadata"].get("RequestId") or invocation.request_id
        body = await _bounded(answer["Payload"])
        version = answer.get("ExecutedVersion") or "$LATEST"
        if body is None:
            return replace(function_errors.too_large(request_id), executed_version=version)
        return Answer(request_id, body, answer.get("FunctionError"), answer["StatusCode"], version)


def _place(arn: Arn) -> dict[str, str]:
    place = {"FunctionName": str(arn.unqualified)}
    return place if arn.qualifier is None else {**place, "Qualifier": arn.qualifier}


def _role(arn: Arn) -> str:
    return f"arn:{arn.partition}:iam::{arn.account}:role/{arn.name}"


def _is_denied(error: OperatorNeeded) -> bool:
    cause = error.__cause__
    return isinstance(cause, boto.ClientError) and failures.code_of(cause) in failures.DENIED


def _refusal(error: boto.ClientError, request_id: str) -> Ending:
    told = error.response.get("ResponseMetadata", {})
    return lambda_errors.ending(
        told.get("RequestId") or request_id,
        failures.code_of(error),
        told.get("HTTPStatusCode", 0),
        str(error.response.get("Error", {}).get("Message") or "no message"),
        retry_after.seconds(told.get("HTTPHeaders", {}).get("retry-after")),
    )


async def _bounded(stream: Any) -> bytes | None:  # noqa: ANN401 aiobotocore's StreamingBody
    """The whole payload; None where it is larger than Lambda's own cap."""
    payload = bytearray()
    async with stream:
        while chunk := await stream.read(_CHUNK_BYTES):
            payload += chunk
            if len(payload) > function_errors.ANSWER_BYTES_MAX:
                return None
    return bytes(payload)


def _take_trace(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    context[_TRACE] = params.pop(_TRACE, None)


def _put_trace(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    if context.get(_TRACE) is not None:
        params["headers"]["X-Amzn-Trace-Id"] = context[_TRACE]
