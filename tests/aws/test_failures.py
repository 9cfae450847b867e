"""Errors of AWS and of the network, in the daemon's words."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress

import botocore.exceptions as boto
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from esm.aws.failures import IteratorExpired, code_behind, taking_apart, translated
from esm.aws.sessions import Sessions
from esm.errors import EsmError, OperatorNeeded, PositionLost, ShardGone, Unavailable
from tests.fakes.aws_server import Said, aws_server


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def answered(code: str, status: int = 400, message: str = "why") -> EsmError:
    told = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translated(boto.ClientError(told, "op"), "GetRecords")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ProvisionedThroughputExceededException", 400, Unavailable),
        ("LimitExceededException", 400, Unavailable),
        ("KMSThrottlingException", 400, Unavailable),
        ("KMS.ThrottlingException", 400, Unavailable),
        ("ResourceInUseException", 400, Unavailable),
        ("ExpiredNextTokenException", 400, Unavailable),
        ("429", 429, Unavailable),
        ("408", 408, Unavailable),
        ("500", 500, Unavailable),
        ("SomethingNew", 503, Unavailable),
        ("501", 501, OperatorNeeded),
        ("InternalFailure", 501, OperatorNeeded),
        ("ExpiredIteratorException", 400, IteratorExpired),
        ("TrimmedDataAccessException", 400, PositionLost),
        ("ResourceNotFoundException", 400, ShardGone),
        ("AccessDeniedException", 400, OperatorNeeded),
        ("UnrecognizedClientException", 400, OperatorNeeded),
        ("InvalidClientTokenId", 403, OperatorNeeded),
        ("ExpiredTokenException", 400, OperatorNeeded),
        ("SignatureDoesNotMatch", 403, OperatorNeeded),
        ("KMSAccessDeniedException", 400, OperatorNeeded),
        ("KMSDisabledException", 400, OperatorNeeded),
        ("SomethingNew", 400, OperatorNeeded),
    ],
)
def test_a_code_says_who_must_act(code: str, status: int, kind: type[EsmError]) -> None:
    assert type(answered(code, status)) is kind


@pytest.mark.parametrize("code", ["AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"])
def test_a_missing_queue_is_told_in_lambdas_words(code: str) -> None:
    error = answered(code)
    assert type(error) is OperatorNeeded
    assert str(error) == (
        "Error occurred while GetRecords. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue."
        " SQS Error Message: The specified queue does not exist."
    )


def test_the_text_is_awss_own_on_one_line_and_bounded() -> None:
    assert str(answered("AccessDenied", 403, "User: x\n is not  authorized")) == (
        "GetRecords: AccessDenied: User: x is not authorized"
    )
    assert len(str(answered("AccessDenied", 403, "x" * 100_000))) < 500


def test_an_error_remembers_the_code_it_was_made_of() -> None:
    told = boto.ClientError({"Error": {"Code": "com.x#AccessDenied"}}, "op")
    with pytest.raises(EsmError) as caught:
        raise translated(told, "op") from told
    assert code_behind(caught.value) == "AccessDenied"
    assert code_behind(Unavailable("nobody answered")) == ""


def test_what_cannot_be_taken_apart_is_unavailable() -> None:
    for mistake in (KeyError("QueueUrl"), ValueError("x"), TypeError("x"), AttributeError("x")):
        with (
            pytest.raises(Unavailable, match="GetQueueUrl: the answer is not SQS's: "),
            taking_apart("GetQueueUrl", "SQS"),
        ):
            raise mistake


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["__type", "message", "Message", "StreamDescription", "Shards"]), inner)
    ),
    max_leaves=5,
)
BODIES = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode())


CALLS = [
    ("kinesis", "describe_stream_summary", {"StreamName": "s"}),
    ("kinesis", "get_records", {"ShardIterator": "i"}),
    ("sqs", "get_queue_attributes", {"QueueUrl": "http://q"}),
    ("lambda", "get_function_configuration", {"FunctionName": "f"}),
]


@pytest.fixture
def said() -> Iterator[tuple[asyncio.Runner, list[Said], Sessions]]:
    """A loop, what the server in it says next to anything, and sessions that call it."""
    answers = [Said(b"{}")]
    names = ("DescribeStreamSummary", "GetRecords", "GetQueueAttributes", "Other")
    with asyncio.Runner() as runner:
        context = aws_server(**dict.fromkeys(names, answers))
        _, sessions = runner.run(context.__aenter__())
        yield runner, answers, sessions
        runner.run(context.__aexit__(None, None, None))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(call=CALLS[0], status=200, body=b"null")
@example(call=CALLS[2], status=500, body=b'"no object"')
@given(call=st.sampled_from(CALLS), status=st.sampled_from([200, 300, 400, 404, 429, 500, 503]), body=BODIES)
def test_whatever_a_server_says_is_an_answer_or_one_of_our_errors(
    said: tuple[asyncio.Runner, list[Said], Sessions],
    call: tuple[str, str, dict[str, str]],
    status: int,
    body: bytes,
) -> None:
    runner, answers, sessions = said
    service, operation, parameters = call

    async def ask() -> None:
        answers[:] = [Said(body, status)]
        client = await sessions.client(service)
        with suppress(EsmError):
            await sessions.call(client, operation, **parameters)

    runner.run(ask())


async def test_an_error_page_of_a_service_that_speaks_xml_is_unavailable_too() -> None:
    async with aws_server(Other=Said(b"<html><br>no such host", 400)) as (server, sessions):
        with pytest.raises(Unavailable, match="Publish: the answer is not sns's"):
            await sessions.call(await sessions.client("sns"), "publish", TopicArn="arn:aws:sns:x:1:t", Message="m")
    assert server.outcomes == [("sns", "Publish", "unreadable")]
