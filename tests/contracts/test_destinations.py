"""Destinations take a document and nothing else; against moto's server."""

import json
import uuid
from collections.abc import AsyncIterator

import pytest

from esm.aws.sessions import Sessions
from esm.destinations import make_destination
from esm.errors import OperatorNeeded, RequestRefused, Unavailable
from esm.model.arn import Arn
from esm.model.clocks import UnixTime
from esm.model.notice import Condition, Notice, Span

SPAN = Span("1", "2", 2, UnixTime(1.0), UnixTime(2.0))
FUNCTION = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
STREAM = Arn.parse("arn:aws:kinesis:us-east-1:123456789012:stream/s")
NOTICE = Notice(
    "uuid", FUNCTION, STREAM, "shard-1", Condition.RETRIES, SPAN, 2, "request-1", None, UnixTime(3.0)
)  # fmt: skip
DOCUMENT = '{"requestContext":{"requestId":"ä"},  "version":"1.0"}'.encode()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
def requests() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
async def sessions(moto_url: str, requests: list[tuple[str, str, str]]) -> AsyncIterator[Sessions]:
    made = Sessions("us-east-1", moto_url, {}, lambda *request: requests.append(request))
    yield made
    await made.aclose()


async def queue(sessions: Sessions, region: str = "us-east-1") -> tuple[str, Arn]:
    client = await sessions.client("sqs", region)
    name = f"failed-{uuid.uuid4()}"
    url = (await client.create_queue(QueueName=name))["QueueUrl"]
    return url, Arn.parse(f"arn:aws:sqs:{region}:123456789012:{name}")


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


@pytest.mark.parametrize("service", ["sqs", "sns"])
async def test_a_service_that_is_down_is_unavailable(service: str) -> None:
    sessions = Sessions("us-east-1", "http://127.0.0.1:9", {}, lambda *_: None)
    arn = Arn.parse(f"arn:aws:{service}:us-east-1:123456789012:failed")
    with pytest.raises(Unavailable):
        await make_destination(arn, sessions, "123456789012").send(NOTICE, DOCUMENT)
    await sessions.aclose()


async def test_what_is_not_served_is_refused_by_name(sessions: Sessions) -> None:
    with pytest.raises(RequestRefused, match=r"event-bus/b is not served: name an SQS queue, an SNS topic or an S3"):
        make_destination(Arn.parse("arn:aws:events:us-east-1:123456789012:event-bus/b"), sessions, "123456789012")
