"""Invoke and the reads of functions, as Lambda answers them."""

import base64
import json
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from esm.errors import RequestRefused, Unavailable
from esm.model.arn import Arn
from esm.model.function import AsyncRules, Function
from esm.model.invocation import Abandoned, Answer, Ending, Invocation, Misconfigured, Refused, Throttled, Unreachable
from tests.api.served import Answered, Served, World, behind_url, hosted, in_lambda, pulling, served

INVOKE = "/2015-03-31/functions/{}/invocations"


async def invoked(api: Served, payload: bytes = b'{"a": 1}', name: str = "f", **headers: str) -> Answered:
    return await api.call("POST", INVOKE.format(name), payload, headers={f"X-Amz-{k}": v for k, v in headers.items()})


async def test_a_function_is_run_with_the_bytes_that_came_and_answers_its_own() -> None:
    async with served() as api:
        api.world.ending = Answer("r", b'{"b":  2}', executed_version="7")
        answer = await invoked(api, b'{"a":  1}', name="arn:aws:lambda:us-east-1:111111111111:function:f%3A1")
        assert (answer.status, answer.body) == (200, b'{"b":  2}')
        assert answer.headers["X-Amz-Executed-Version"] == "7"
        assert "X-Amz-Function-Error" not in answer.headers
        (ran,) = api.world.invocations
        assert (ran.payload, ran.is_async, ran.waits, str(ran.function_arn)[-4:]) == (
            b'{"a":  1}',
            False,
            False,
            ":f:1",
        )
        assert ran.request_id == answer.headers["x-amzn-RequestId"]


async def test_a_functions_error_is_a_header_on_a_200() -> None:
    async with served() as api:
        api.world.ending = Answer("r", b'{"errorType":"E"}', "Unhandled", log_tail=b"last words")
        answer = await invoked(api, **{"Log-Type": "Tail"})
        assert (answer.status, answer.headers["X-Amz-Function-Error"]) == (200, "Unhandled")
        assert base64.b64decode(answer.headers["X-Amz-Log-Result"]) == b"last words"
        assert "X-Amz-Log-Result" not in (await invoked(api)).headers


async def test_an_event_is_accepted_and_a_dry_run_runs_nothing() -> None:
    async with served() as api:
        answer = await invoked(api, **{"Invocation-Type": "Event"})
        assert (answer.status, answer.body, answer.headers.get("X-Amz-Executed-Version")) == (202, b"", None)
        assert [one.is_async for one in api.world.invocations] == [True]
        answer = await invoked(api, **{"Invocation-Type": "DryRun"})
        assert (answer.status, answer.body) == (204, b"")
        assert len(api.world.invocations) == 1
        assert (await invoked(api, **{"Invocation-Type": "Sometimes"})).status == 400


async def test_an_empty_payload_is_an_empty_event() -> None:
    async with served() as api:
        assert (await invoked(api, b"")).status == 200
        assert api.world.invocations[0].payload == b"{}"


@pytest.mark.parametrize(
    ("ending", "status", "exception", "body"),
    [
        (Throttled("r", 2.4), 429, "TooManyRequestsException",
         {"Type": "User", "message": "Rate Exceeded.", "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"}),
        (Throttled("r", reason="ConcurrentInvocationLimitExceeded"), 429, "TooManyRequestsException",
         {"Type": "User", "message": "Rate Exceeded.", "Reason": "ConcurrentInvocationLimitExceeded"}),
        (Unreachable("r", "gone"), 500, "ServiceException", {"Type": "Service", "Message": "gone"}),
        (Misconfigured("r", "403"), 500, "ServiceException", {"Type": "Service", "Message": "403"}),
        (Refused("r", "bad"), 400, "InvalidRequestContentException", {"Type": "User", "message": "bad"}),
        (Abandoned("r", "loop"), 400, "RecursiveInvocationException", {"Type": "User", "Message": "loop"}),
    ],
)  # fmt: skip
async def test_what_did_not_run_is_answered_by_why(ending: Ending, status: int, exception: str, body: Any) -> None:
    async with served(World({"f": hosted("f", reserved_concurrency=1)}, ending=ending)) as api:
        answer = await invoked(api)
        assert (answer.status, answer.headers["x-amzn-ErrorType"], answer.json) == (status, exception, body)
        if isinstance(ending, Throttled) and ending.after_s is not None:
            assert answer.headers["Retry-After"] == "2"


async def test_without_a_bound_of_its_own_the_daemons_was_met() -> None:
    async with served(World(ending=Throttled("r"))) as api:
        assert (await invoked(api)).json["Reason"] == "ConcurrentInvocationLimitExceeded"


async def test_what_is_no_json_and_who_is_nobody_is_refused() -> None:
    async with served() as api:
        answer = await invoked(api, b"{")
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (400, "InvalidRequestContentException")
        assert answer.json["message"].startswith("Could not parse request body into json: ")
        answer = await invoked(api, name="no")
        assert (answer.status, answer.json) == (404, {"Type": "User", "Message": "Function not found: no"})
        answer = await api.call("POST", INVOKE.format("f%3A1") + "?Qualifier=%24LATEST", b"{}")
        assert "derived qualifier" in answer.json["message"]
        assert (await api.call("POST", INVOKE.format("f") + "?Qualifier=1", b"{}")).status == 200
        assert str(api.world.invocations[0].function_arn).endswith(":f:1")


async def test_a_client_context_reaches_the_function_decoded() -> None:
    async with served() as api:
        context = base64.b64encode(b'{"custom":{}}').decode()
        assert (await invoked(api, **{"Client-Context": context})).status == 200
        assert api.world.invocations[0].client_context == '{"custom":{}}'
        for wrong in (
            "?",
            "\u00e9",
            base64.b64encode(b"{").decode(),
            base64.b64encode(b'"%s"' % (b"x" * 2700)).decode(),
        ):
            answer = await invoked(api, **{"Client-Context": wrong})
            assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (400, "InvalidRequestContentException")


async def test_a_payload_above_6_mb_is_refused_and_the_queues_refusals_pass() -> None:
    class Full(World):
        async def invoke(self, function: Function, invocation: Invocation) -> Ending:  # noqa: ARG002
            if len(invocation.payload) > 2:
                raise RequestRefused("too large for the Event invocation type", "RequestTooLargeException", 413)
            raise Unavailable("the store is away")

    async with served(Full()) as api:
        answer = await invoked(api, b'"%s"' % (b"x" * 6_291_456))
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (413, "RequestTooLargeException")
        assert answer.json["message"] == "Request must be smaller than 6291456 bytes for the InvokeFunction operation"
        assert (await invoked(api, b"[1]")).status == 413
        assert (await invoked(api, b"{}")).status == 500


async def test_functions_are_shown_by_what_they_are() -> None:
    known: dict[str, Function] = {
        "c": in_lambda("c"), "b": behind_url("b"), "d": pulling("d"),
        "a": hosted("a", environment=(("SECRET", "s"),), reserved_concurrency=3),
    }  # fmt: skip
    async with served(World(known)) as api:
        found = (await api.call("GET", "/2015-03-31/functions/a")).json
        assert found["Configuration"]["Handler"] == "a.b"
        assert found["Concurrency"] == {"ReservedConcurrentExecutions": 3}
        assert "SECRET" not in json.dumps(found)
        found = (await api.call("GET", "/2015-03-31/functions/b/configuration")).json
        assert (found["PackageType"], found["Timeout"], found["Version"]) == ("Image", 5, "$LATEST")
        found = (await api.call("GET", "/2015-03-31/functions/c:1/configuration")).json
        assert (found["Timeout"], found["Version"], found["State"]) == (3, "1", "Active")
        page = (await api.call("GET", "/2015-03-31/functions", params={"MaxItems": 2})).json
        assert [one["FunctionName"] for one in page["Functions"]] == ["a", "b"]
        page = (await api.call("GET", "/2015-03-31/functions", params={"Marker": page["NextMarker"]})).json
        assert [one["FunctionName"] for one in page["Functions"]] == ["c", "d"]
        assert page["Functions"][1]["Description"] == "runs elsewhere and asks for its events at port 9001"
        assert (await api.call("GET", "/2015-03-31/functions/no")).status == 404


async def test_what_clients_read_unasked_is_answered() -> None:
    async with served(World({"f": hosted("f", reserved_concurrency=0), "g": in_lambda("g")})) as api:
        arn = "arn:aws:lambda:us-east-1:111111111111:function:f"
        for path, answer in (
            ("2020-06-30/functions/f/code-signing-config", {"FunctionName": "f"}),
            ("2021-10-31/functions/f/urls", {"FunctionUrlConfigs": []}),
            ("2024-08-31/functions/f/recursion-config", {"RecursiveLoop": "Terminate"}),
            ("2021-07-20/functions/f/runtime-management-config", {"UpdateRuntimeOn": "Auto", "FunctionArn": arn}),
            ("2019-09-30/functions/f/concurrency", {"ReservedConcurrentExecutions": 0}),
            ("2019-09-30/functions/g/concurrency", {}),
            ("2015-03-31/functions/f/aliases", {"Aliases": []}),
            ("2019-09-25/functions/f/event-invoke-config/list", {"FunctionEventInvokeConfigs": []}),
        ):
            found = await api.call("GET", f"/{path}")
            assert (found.status, found.json) == (200, answer)
            assert (await api.call("GET", f"/{path.replace('/f/', '/no/').replace('/g/', '/no/')}")).status == 404
        versions = (await api.call("GET", "/2015-03-31/functions/f/versions")).json["Versions"]
        assert [one["FunctionArn"] for one in versions] == [f"{arn}:$LATEST"]


async def test_the_rules_of_asynchronous_events_are_shown_where_the_configuration_has_them() -> None:
    dead = Arn.parse("arn:aws:sqs:us-east-1:111111111111:dead")
    known = {"f": hosted("f", asynchronous=AsyncRules(retries_max=1, on_failure=dead)), "g": hosted("g")}
    async with served(World(known)) as api:
        found = (await api.call("GET", "/2019-09-25/functions/f/event-invoke-config")).json
        assert found == {
            "FunctionArn": "arn:aws:lambda:us-east-1:111111111111:function:f:$LATEST", "LastModified": 1769860800.5,
            "MaximumRetryAttempts": 1, "MaximumEventAgeInSeconds": 21600,
            "DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": str(dead)}},
        }  # fmt: skip
        found_all = (await api.call("GET", "/2019-09-25/functions/f/event-invoke-config/list")).json
        assert found_all == {"FunctionEventInvokeConfigs": [found]}
        answer = await api.call("GET", "/2019-09-25/functions/g/event-invoke-config")
        assert (answer.status, answer.json["Message"]) == (
            404, ("The function arn:aws:lambda:us-east-1:111111111111:function:g:$LATEST doesn't have an"
                 " EventInvokeConfig"),
        )  # fmt: skip
        answer = await api.call("GET", "/2015-03-31/functions/f/policy")
        assert (answer.status, answer.json["Message"]) == (404, "The resource you requested does not exist.")


STREAM = "/2021-11-15/functions/f/response-streaming-invocations"


def events(body: bytes) -> list[tuple[str, bytes]]:
    """The events of an answer, read by botocore."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(message.headers[":event-type"], message.payload) for message in buffer]


async def test_an_answer_comes_in_pieces_as_the_function_streams_them() -> None:
    class Streaming(World):
        async def invoke(self, function: Function, invocation: Invocation) -> Ending:  # noqa: ARG002
            assert invocation.stream is not None
            for piece in (b"one", b"two", b"x" * 300_000):
                await invocation.stream(piece)
            return Answer(invocation.request_id, b"", self.failure, log_tail=b"log")

        failure: str | None = None

    async with served(Streaming()) as api:
        answer = await api.call("POST", STREAM, b"{}", headers={"X-Amz-Log-Type": "Tail"})
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/vnd.amazon.eventstream")
        assert answer.headers["X-Amz-Executed-Version"] == "$LATEST"
        assert answer.headers["x-amzn-RequestId"] == "request-0"
        found = events(answer.body)
        assert found[:2] == [("PayloadChunk", b"one"), ("PayloadChunk", b"two")]
        assert b"".join(piece for _, piece in found[2:-1]) == b"x" * 300_000
        assert (found[-1][0], json.loads(found[-1][1])) == ("InvokeComplete", {"LogResult": "bG9n"})


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (Answer("r", b'{"a":1}'), [("PayloadChunk", b'{"a":1}'), ("InvokeComplete", b"{}")]),
        (Answer("r", b""), [("InvokeComplete", b"{}")]),
        (Answer("r", b'{"errorType":"E"}', "Unhandled"),
         [("InvokeComplete", b'{"ErrorCode":"Unhandled","ErrorDetails":"{\\"errorType\\":\\"E\\"}"}')]),
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_streamed_is_one_piece(ending: Ending, expected: list[tuple[str, bytes]]) -> None:
    async with served(World(ending=ending)) as api:
        assert events((await api.call("POST", STREAM, b"{}")).body) == expected


async def test_what_did_not_run_is_an_ordinary_error_of_a_stream() -> None:
    async with served(World(ending=Throttled("r"))) as api:
        assert (await api.call("POST", STREAM, b"{}")).status == 429
        assert (await api.call("POST", STREAM, b"{")).status == 400
        assert (await api.call("POST", STREAM, b"{}", headers={"X-Amz-Invocation-Type": "DryRun"})).status == 204
