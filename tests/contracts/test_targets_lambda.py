"""A function in Lambda: what Invoke sends, and what each of its answers means."""

import asyncio
import base64
import io
import json
import socket
import urllib.request
import uuid
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from botocore.session import Session
from prometheus_client import CollectorRegistry

from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded, RequestRefused
from esm.model.arn import Arn
from esm.model.clocks import Instant
from esm.model.function import FunctionFacts, LambdaFunction, UrlFunction
from esm.model.invocation import Abandoned, Answer, Ending, Invocation, Misconfigured, Refused, Throttled, Unreachable
from esm.targets import lambda_errors, make_target
from esm.targets.aws_lambda import AwsLambda
from esm.targets.http import HttpFunction
from esm.telemetry import Telemetry
from tests.fakes.rie_server import Call, Reply, RieServer, answering, holding, rie_server

ARN = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:audit:live")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@asynccontextmanager
async def target_at(
    url: str, arn: Arn = ARN, requests: list[tuple[str, str, str]] | None = None
) -> AsyncIterator[AwsLambda]:
    sessions = Sessions("eu-west-1", url, {}, lambda *request: None if requests is None else requests.append(request))
    target = AwsLambda(LambdaFunction("audit", arn), sessions, Telemetry(CollectorRegistry()))
    try:
        yield target
    finally:
        await target.aclose()
        await sessions.aclose()


@asynccontextmanager
async def served(reply: Reply) -> AsyncIterator[tuple[RieServer, AwsLambda]]:
    async with rie_server(reply) as server, target_at(server.url) as target:
        yield server, target


def invocation(payload: bytes = b"{}", start_by: float | None = None, trace: str | None = None) -> Invocation:
    return Invocation("ours", ARN, payload, None if start_by is None else Instant(start_by), trace)


async def ending(reply: Reply, payload: bytes = b"{}") -> Ending:
    async with served(reply) as (_, target):
        return await target.invoke(invocation(payload))


def lambda_says(body: bytes, status: int = 200, **headers: str) -> Reply:
    return answering(status, body, x_amzn_RequestId="theirs", **headers)


def failing(code: str, status: int, message: str = "why", **headers: str) -> Reply:
    body = json.dumps({"Type": "User", "Message": message}).encode()
    return lambda_says(body, status, x_amzn_ErrorType=f"{code}:http://internal.amazon.com/", **headers)


async def test_payload_and_answer_pass_byte_for_byte() -> None:
    payload = b'{"a" :  1.00, "b":"\xc3\xa4"}' + b" " * 3_000_000
    answer = b'  {"c":"\xff\xfe\\u0041" }\n'
    async with served(lambda_says(answer)) as (server, target):
        assert await target.invoke(invocation(payload)) == Answer("theirs", answer)
        assert server.calls[0].body == payload


async def test_a_request_names_function_qualifier_and_trace() -> None:
    async with served(lambda_says(b"null")) as (server, target):
        await target.invoke(invocation(trace="Root=1-2-3;Sampled=1"))
        await target.invoke(invocation())
        traced, untraced = server.calls
    assert traced.line == (
        "POST /2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Aaudit"
        "/invocations?Qualifier=live HTTP/1.1"
    )
    assert traced.headers["x-amz-invocation-type"] == "RequestResponse"
    assert traced.headers["x-amzn-trace-id"] == "Root=1-2-3;Sampled=1"
    assert "us-east-1/lambda" in traced.headers["authorization"]
    assert "x-amzn-trace-id" not in untraced.headers


async def test_a_client_context_goes_with_a_synchronous_invocation_alone() -> None:
    async with served(lambda_says(b"null")) as (server, target):
        for is_async in (False, True):
            await target.invoke(replace(invocation(), client_context='{"custom":{}}', is_async=is_async))
        first, second = server.calls
    assert base64.b64decode(first.headers["x-amz-client-context"]) == b'{"custom":{}}'
    assert "x-amz-client-context" not in second.headers


async def test_an_asynchronous_invocation_is_lambdas_own_and_answers_with_nothing() -> None:
    async with served(lambda_says(b"", 202)) as (server, target):
        told = await target.invoke(replace(invocation(), is_async=True))
    assert told == Answer("theirs", b"", None, 202, "$LATEST")
    assert server.calls[0].headers["x-amz-invocation-type"] == "Event"


async def test_an_asynchronous_invocation_is_not_waited_for_as_long_as_a_function_may_run() -> None:
    async with served(lambda_says(b"", 202)) as (_, target):
        await target.invoke(replace(invocation(), is_async=True))
        await target.invoke(invocation())
        assert {key.read_timeout_s for key in target._sessions._clients._clients} == {30.0, 930.0}


async def test_an_answer_tells_error_version_and_request_id() -> None:
    reply = lambda_says(b'{"errorType":"X"}', X_Amz_Function_Error="Unhandled", X_Amz_Executed_Version="7")
    assert await ending(reply) == Answer("theirs", b'{"errorType":"X"}', "Unhandled", 200, "7")


async def test_an_answer_larger_than_lambdas_is_a_function_error() -> None:
    largest = b"x" * 6_291_556
    assert await ending(lambda_says(largest)) == Answer("theirs", largest)
    came = await ending(lambda_says(largest + b"x"))
    assert isinstance(came, Answer)
    assert b"Function.ResponseSizeTooLarge" in came.payload


async def test_a_server_without_request_ids_leaves_ours() -> None:
    assert await ending(answering(200, b"1")) == Answer("ours", b"1")


async def test_a_throttle_carries_what_lambda_asks_to_wait() -> None:
    assert await ending(failing("TooManyRequestsException", 429, Retry_After="3")) == Throttled("theirs", 3.0)
    assert await ending(failing("TooManyRequestsException", 429)) == Throttled("theirs")


async def test_a_refused_payload_is_not_quoted() -> None:
    came = await ending(failing("InvalidRequestContentException", 400, "Could not parse: 'secret'"))
    assert came == Refused("theirs", "InvalidRequestContentException: Lambda does not take this payload.")


async def test_a_missing_function_says_so_in_lambdas_words() -> None:
    came = await ending(failing("ResourceNotFoundException", 404, f"Function not found: {ARN}"))
    assert came == Misconfigured("theirs", f"ResourceNotFoundException: Function not found: {ARN}")


EXPECTED: dict[type[Ending], set[str]] = {
    Throttled: {"TooManyRequestsException"},
    Refused: {"InvalidRequestContentException", "RequestTooLargeException", "SerializedRequestEntityTooLargeException"},
    Abandoned: {"RecursiveInvocationException"},
    Unreachable: {
        "SnapStartTimeoutException", "EFSMountConnectivityException", "EFSMountTimeoutException",
        "S3FilesMountConnectivityException", "S3FilesMountTimeoutException", "ResourceConflictException",
        "SnapStartNotReadyException", "SnapStartRegenerationFailureException", "EFSIOException", "ServiceException",
        "EC2ThrottledException", "EC2UnexpectedException", "ENINotReadyException", "ENILimitReachedException",
        "ResourceNotReadyException", "SubnetIPAddressLimitReachedException",
    },
}  # fmt: skip


def test_every_error_of_lambdas_model_has_its_meaning() -> None:
    shapes = Session().get_service_model("lambda").operation_model("Invoke").error_shapes
    assert len(shapes) >= 40
    for shape in shapes:
        status = shape.metadata["error"]["httpStatusCode"]
        meant = {kind for kind, codes in EXPECTED.items() if shape.name in codes} or {Misconfigured}
        assert {type(lambda_errors.ending("id", shape.name, status, "why", None))} == meant, shape.name


@pytest.mark.parametrize(
    ("status", "kind"), [(500, Unreachable), (503, Unreachable), (504, Unreachable), (403, Misconfigured)]
)
async def test_an_error_without_a_name_goes_by_its_status(status: int, kind: type[Ending]) -> None:
    assert type(await ending(lambda_says(b"<html>", status))) is kind


async def close_unanswered(call: Call) -> None:
    call.writer.close()


async def close_halfway(call: Call) -> None:
    call.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await call.writer.drain()
    call.writer.close()


@pytest.mark.parametrize("reply", [close_unanswered, close_halfway])
async def test_a_lost_connection_is_no_attempt_and_is_not_repeated(reply: Reply) -> None:
    async with served(reply) as (server, target):
        assert isinstance(await target.invoke(invocation()), Unreachable)
        assert len(server.calls) == 1


async def test_an_error_of_the_service_is_not_repeated() -> None:
    async with served(failing("ServiceException", 500)) as (server, target):
        assert isinstance(await target.invoke(invocation()), Unreachable)
        assert len(server.calls) == 1


async def test_a_refused_connection_is_no_attempt() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with target_at(f"http://127.0.0.1:{port}") as target:
        assert isinstance(await target.invoke(invocation()), Unreachable)


async def test_nothing_starts_after_its_instant() -> None:
    async with served(lambda_says(b"null")) as (server, target):
        start_by = asyncio.get_running_loop().time()
        assert await target.invoke(invocation(start_by=start_by)) == Throttled("ours")
        assert server.calls == []


async def test_invocations_run_side_by_side_and_are_counted() -> None:
    free = asyncio.Event()
    requests: list[tuple[str, str, str]] = []
    async with rie_server(holding(free)) as server, target_at(server.url, requests=requests) as target:
        running = [asyncio.ensure_future(target.invoke(invocation())) for _ in range(50)]
        while len(server.calls) < 50:
            server.came.clear()
            await server.came.wait()
        free.set()
        await asyncio.gather(*running)
        assert server.at_once_most == 50
        assert requests == [("lambda", "Invoke", "ok")] * 50


async def test_a_connection_is_kept_alive_while_lambda_is_silent() -> None:
    free = asyncio.Event()
    async with served(holding(free)) as (server, target):
        running = asyncio.ensure_future(target.invoke(invocation()))
        await server.came.wait()
        client = await target._sessions.client("lambda", "us-east-1", read_timeout_s=930.0)
        pools = client._endpoint.http_session._sessions.values()
        acquired = [protocol for pool in pools for protocol in pool.connector._acquired]
        option = acquired[0].transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        free.set()
        await running
    assert option == 1


async def test_a_role_that_may_not_be_asked_for_has_the_functions_name() -> None:
    async with served(failing("AccessDeniedException", 403)) as (server, target):
        assert await target.facts() == FunctionFacts(None, "arn:aws:iam::123456789012:role/audit")
        assert server.calls[0].line.split("?")[1] == "Qualifier=live HTTP/1.1"


async def test_facts_fail_as_someone_must_act() -> None:
    async with served(failing("ResourceNotFoundException", 404)) as (_, target):
        with pytest.raises(OperatorNeeded, match=r"Function does not exist: arn:aws:lambda:.*:audit:live"):
            await target.facts()
    async with served(failing("InvalidParameterValueException", 400)) as (_, target):
        with pytest.raises(OperatorNeeded, match="InvalidParameterValueException: why"):
            await target.facts()


def make_function(moto_url: str) -> Arn:
    """A function in moto's server, whose Lambda gives canned results."""
    body = json.dumps({"lambda": {"use_docker": False}}).encode()
    request = urllib.request.Request(f"{moto_url}/moto-api/config", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()
    made = Session()
    iam, client = (made.create_client(name, "us-east-1", endpoint_url=moto_url) for name in ("iam", "lambda"))
    name = f"audit-{uuid.uuid4()}"
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("app.py", "def handler(event, context): ...")
    function = client.create_function(
        FunctionName=name, Runtime="python3.11", Role=role, Handler="app.handler", Timeout=17,
        Code={"ZipFile": package.getvalue()},
    )  # fmt: skip
    iam.close()
    client.close()
    return Arn.parse(function["FunctionArn"])


async def test_a_real_endpoint_tells_timeout_and_role_and_runs_the_function(moto_url: str) -> None:
    arn = make_function(moto_url)
    async with target_at(moto_url, arn) as target:
        assert await target.facts() == FunctionFacts(17, f"arn:aws:iam::123456789012:role/{arn.name}")
        came = await target.invoke(Invocation("ours", arn, b'{"Records":[]}'))
        assert isinstance(came, Answer)
        assert (came.function_error, came.status) == (None, 200)
        assert came.payload
    missing = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:missing")
    async with target_at(moto_url, missing) as target:
        with pytest.raises(OperatorNeeded, match="Function does not exist"):
            await target.facts()


def test_each_function_has_its_target() -> None:
    sessions = Sessions("us-east-1", None, {}, lambda *_: None)
    telemetry = Telemetry(CollectorRegistry())
    url = UrlFunction("billing", ARN.unqualified, "role", "http://127.0.0.1:8080", "rie", 3)
    assert isinstance(make_target(LambdaFunction("audit", ARN), sessions, telemetry), AwsLambda)
    assert isinstance(make_target(url, sessions, telemetry), HttpFunction)
    with pytest.raises(RequestRefused, match=r"protocol 'web' of the function 'billing' is not served: use rie"):
        make_target(replace(url, protocol="web"), sessions, telemetry)
