"""Destinations take a document, and what a notice adds to it; against moto's server and ministack."""

import json
import uuid
from collections.abc import AsyncIterator

import pytest

from esm.aws.sessions import Sessions
from esm.destinations import make_destination
from esm.errors import NoticeTooLarge, OperatorNeeded, RequestRefused, Unavailable
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.notice import AsyncNotice, Attribute, Condition, Notice, Span

SPAN = Span("1", "2", 2, UnixTime(1.0), UnixTime(2.0))
FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
STREAM = Arn.parse("arn:aws:kinesis:us-east-1:123456789012:stream/s")
NOTICE = Notice(
    "uuid", FUNCTION, STREAM, "shard-1", Condition.RETRIES, SPAN, 2, "request-1", None, UnixTime(1764089411.101), "n-1"
)  # fmt: skip
ATTRIBUTES = (Attribute("RequestID", "String", "r"), Attribute("ErrorCode", "Number", "200"))
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0"
ASYNC = AsyncNotice("f", "n-2", UnixTime(1764089411.101), TRACE, ATTRIBUTES)
ACCOUNT = "123456789012"
DOCUMENT = '{"requestContext":{"requestId":"ä"},  "version":"1.0"}'.encode()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
def requests() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture(params=["moto_url", "ministack"])
def server(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def account(request: pytest.FixtureRequest) -> str:
    """The account that a server keeps everything in."""
    return ACCOUNT if "moto_url" in request.node.name else "000000000000"


@pytest.fixture
async def sessions(server: str, requests: list[tuple[str, str, str]]) -> AsyncIterator[Sessions]:
    made = Sessions("us-east-1", server, {}, lambda *request: requests.append(request))
    yield made
    await made.aclose()


async def queue(sessions: Sessions, region: str = "us-east-1", **attributes: str) -> tuple[str, Arn]:
    client = await sessions.client("sqs", region)
    name = f"failed-{uuid.uuid4()}"
    url = (await client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
    found = await client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, Arn.parse(found["Attributes"]["QueueArn"])


async def received(sessions: Sessions, url: str, region: str = "us-east-1") -> list[dict[str, object]]:
    client = await sessions.client("sqs", region)
    answer = await client.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
    )
    messages: list[dict[str, object]] = json.loads(answer["RawBody"]).get("Messages", [])
    return messages


async def test_a_queue_gets_the_document_as_its_body_without_attributes(sessions: Sessions) -> None:
    url, arn = await queue(sessions)
    await make_destination(arn, sessions, "123456789012").send(NOTICE, DOCUMENT)
    messages = await received(sessions, url)
    assert [message["Body"] for message in messages] == [DOCUMENT.decode()]
    assert "MessageAttributes" not in messages[0]


async def test_a_queues_region_is_its_arns(sessions: Sessions) -> None:
    url, arn = await queue(sessions, "eu-west-1")
    await make_destination(arn, sessions, "123456789012").send(NOTICE, DOCUMENT)
    assert len(await received(sessions, url, "eu-west-1")) == 1


async def test_a_queues_url_is_asked_for_once(sessions: Sessions, requests: list[tuple[str, str, str]]) -> None:
    _, arn = await queue(sessions)
    destination = make_destination(arn, sessions, "123456789012")
    await destination.send(NOTICE, DOCUMENT)
    await destination.send(NOTICE, DOCUMENT)
    assert requests == [("sqs", "GetQueueUrl", "ok"), ("sqs", "SendMessage", "ok"), ("sqs", "SendMessage", "ok")]


async def test_a_queue_that_was_deleted_is_an_operators_matter_until_it_is_made_again(sessions: Sessions) -> None:
    url, arn = await queue(sessions)
    destination = make_destination(arn, sessions, "123456789012")
    await destination.send(NOTICE, DOCUMENT)
    client = await sessions.client("sqs")
    await client.delete_queue(QueueUrl=url)
    for _ in range(2):
        with pytest.raises(OperatorNeeded, match="NonExistentQueue"):
            await destination.send(NOTICE, DOCUMENT)
    await client.create_queue(QueueName=arn.name)
    await destination.send(NOTICE, DOCUMENT)
    assert len(await received(sessions, url)) == 1


async def test_a_topic_passes_the_document_on_without_subject_or_attributes(sessions: Sessions) -> None:
    url, queue_arn = await queue(sessions)
    client = await sessions.client("sns")
    topic = (await client.create_topic(Name=f"failed-{uuid.uuid4()}"))["TopicArn"]
    await client.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=str(queue_arn))
    await make_destination(Arn.parse(topic), sessions, "123456789012").send(NOTICE, DOCUMENT)
    envelopes = [json.loads(str(message["Body"])) for message in await received(sessions, url)]
    assert [envelope["Message"] for envelope in envelopes] == [DOCUMENT.decode()]
    assert not {"Subject", "MessageAttributes"} & set(envelopes[0])


async def test_a_topic_that_does_not_exist_is_an_operators_matter(sessions: Sessions) -> None:
    arn = Arn.parse("arn:aws:sns:us-east-1:123456789012:nowhere")
    with pytest.raises(OperatorNeeded, match="Publish: NotFound"):
        await make_destination(arn, sessions, "123456789012").send(NOTICE, DOCUMENT)


@pytest.mark.parametrize("service", ["sqs", "sns", "s3"])
async def test_a_service_that_is_down_is_unavailable(service: str) -> None:
    sessions = Sessions("us-east-1", "http://127.0.0.1:9", {}, lambda *_: None)
    arn = Arn.parse(f"arn:aws:{service}:us-east-1:123456789012:failed")
    with pytest.raises(Unavailable):
        await make_destination(arn, sessions, "123456789012").send(NOTICE, DOCUMENT)
    await sessions.aclose()


async def bucket(sessions: Sessions) -> Arn:
    client = await sessions.client("s3")
    name = f"failed-{uuid.uuid4()}"
    await client.create_bucket(Bucket=name)
    return Arn.parse(f"arn:aws:s3:::{name}")


async def objects(sessions: Sessions, arn: Arn) -> dict[str, bytes]:
    client = await sessions.client("s3")
    found: dict[str, bytes] = {}
    for one in (await client.list_objects_v2(Bucket=arn.name)).get("Contents", []):
        answer = await client.get_object(Bucket=arn.name, Key=one["Key"])
        async with answer["Body"] as stream:
            found[one["Key"]] = await stream.read()
    return found


async def test_a_bucket_gets_one_object_for_each_notice_however_often_it_is_sent(
    sessions: Sessions, account: str
) -> None:
    arn = await bucket(sessions)
    destination = make_destination(arn, sessions, account)
    await destination.check()
    await destination.send(NOTICE, DOCUMENT)
    await destination.send(NOTICE, DOCUMENT)
    await destination.send(ASYNC, DOCUMENT)
    assert await objects(sessions, arn) == {
        "aws/lambda/uuid/shard-1/2025/11/25/2025-11-25T16.50.11-n-1": DOCUMENT,
        "aws/lambda/async/f/2025/11/25/2025-11-25T16.50.11-n-2": DOCUMENT,
    }


async def test_a_bucket_that_does_not_exist_is_an_operators_matter(sessions: Sessions, account: str) -> None:
    destination = make_destination(Arn.parse(f"arn:aws:s3:::nowhere-{uuid.uuid4()}"), sessions, account)
    with pytest.raises(OperatorNeeded, match="PutObject: NoSuchBucket"):
        await destination.send(NOTICE, DOCUMENT)
    with pytest.raises(OperatorNeeded, match="HeadBucket"):
        await destination.check()


async def test_every_call_of_a_bucket_names_the_owner_that_it_must_have(sessions: Sessions, account: str) -> None:
    sent: list[str | None] = []
    client = await sessions.client("s3")
    client.meta.events.register(
        "before-call.s3", lambda params, **_: sent.append(params["headers"].get("x-amz-expected-bucket-owner"))
    )
    destination = make_destination(await bucket(sessions), sessions, account)
    sent.clear()
    await destination.check()
    await destination.send(NOTICE, DOCUMENT)
    assert sent == [account, account]


async def test_a_dead_letter_queue_gets_attributes_and_the_trace_header(sessions: Sessions) -> None:
    url, arn = await queue(sessions)
    await make_destination(arn, sessions, ACCOUNT).send(ASYNC, DOCUMENT)
    (message,) = await received(sessions, url)
    attributes = message["MessageAttributes"]
    assert isinstance(attributes, dict)
    assert {name: (one["DataType"], one["StringValue"]) for name, one in attributes.items()} == {
        "RequestID": ("String", "r"), "ErrorCode": ("Number", "200"),
    }  # fmt: skip
    system = message["Attributes"]
    assert isinstance(system, dict)
    assert system["AWSTraceHeader"] == TRACE


async def test_a_dead_letter_topic_passes_the_attributes_on(sessions: Sessions) -> None:
    url, queue_arn = await queue(sessions)
    client = await sessions.client("sns")
    topic = (await client.create_topic(Name=f"failed-{uuid.uuid4()}"))["TopicArn"]
    await client.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=str(queue_arn))
    await make_destination(Arn.parse(topic), sessions, ACCOUNT).send(ASYNC, DOCUMENT)
    (message,) = await received(sessions, url)
    envelope = json.loads(str(message["Body"]))
    assert envelope["Message"] == DOCUMENT.decode()
    assert {name: (one["Type"], one["Value"]) for name, one in envelope["MessageAttributes"].items()} == {
        "RequestID": ("String", "r"), "ErrorCode": ("Number", "200"),
    }  # fmt: skip


@pytest.mark.parametrize(("service", "size_bytes"), [("sqs", 1_048_577), ("sns", 262_145)])
async def test_what_a_destination_cannot_hold_is_said_before_it_is_sent(service: str, size_bytes: int) -> None:
    sessions = Sessions("us-east-1", "http://127.0.0.1:9", {}, lambda *_: None)
    arn = Arn.parse(f"arn:aws:{service}:us-east-1:123456789012:failed")
    with pytest.raises(NoticeTooLarge, match=f"has {size_bytes} bytes"):
        await make_destination(arn, sessions, ACCOUNT).send(NOTICE, b"x" * size_bytes)
    await sessions.aclose()


async def test_a_queue_with_a_bound_of_its_own_says_so_and_takes_what_is_smaller(sessions: Sessions) -> None:
    url, arn = await queue(sessions, MaximumMessageSize="1024")
    destination = make_destination(arn, sessions, ACCOUNT)
    with pytest.raises(NoticeTooLarge):
        await destination.send(NOTICE, b"x" * 2000)
    await destination.send(NOTICE, DOCUMENT)
    assert len(await received(sessions, url)) == 1


async def test_what_is_not_served_is_refused_by_name(sessions: Sessions) -> None:
    with pytest.raises(RequestRefused, match=r"event-bus/b is not served: name an SQS queue, an SNS topic or an S3"):
        make_destination(Arn.parse("arn:aws:events:us-east-1:123456789012:event-bus/b"), sessions, "123456789012")
