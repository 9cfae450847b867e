"""A queue: one body for every server that speaks SQS, then what only a scripted one says."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest

from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded, Unavailable
from esm.model.arn import Arn
from esm.model.clocks import Instant, UnixTime
from esm.model.record import Message
from esm.sources import sqs
from esm.sources.sqs import SqsQueue
from tests.fakes.aws_server import PAGE, AwsServer, Said, Script, aws_server, refusing, saying

SERVERS = [("moto_url", "123456789012"), ("ministack", "000000000000")]
ARN = Arn.parse("arn:aws:sqs:us-east-1:123456789012:q")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@dataclass
class World:
    """A queue on a real server, and the source that reads it."""

    url: str
    arn: Arn
    queue: SqsQueue
    writer: object
    """A client of its own: its calls are not the source's."""

    async def send(self, body: str, **more: object) -> None:
        await self.writer.send_message(QueueUrl=self.url, MessageBody=body, **more)


@pytest.fixture(params=SERVERS, ids=[name for name, _ in SERVERS])
def server(request: pytest.FixtureRequest) -> tuple[str, str]:
    fixture, account = request.param
    return request.getfixturevalue(fixture), account


@pytest.fixture
async def world(server: tuple[str, str]) -> AsyncIterator[World]:
    async for made in worlds(server, f"q-{uuid.uuid4()}", {"VisibilityTimeout": "20", "MaximumMessageSize": "2048"}):
        yield made


@pytest.fixture
async def fifo(server: tuple[str, str]) -> AsyncIterator[World]:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    async for made in worlds(server, f"q-{uuid.uuid4()}.fifo", attributes):
        yield made


async def worlds(server: tuple[str, str], name: str, attributes: dict[str, str]) -> AsyncIterator[World]:
    endpoint, account = server
    calls: set[tuple[str, str]] = set()
    sessions = Sessions("us-east-1", endpoint, {}, lambda service, operation, _: calls.add((service, operation)))
    writing = Sessions("us-east-1", endpoint, {}, lambda *_: None)
    writer = await writing.client("sqs")
    url = (await writer.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
    arn = Arn.parse(f"arn:aws:sqs:us-east-1:{account}:{name}")
    yield World(url, arn, SqsQueue(arn, sessions, says_null_md5=False), writer)
    allowed = {action.partition(":")[2] for action in sqs.IAM_ACTIONS}
    assert {operation.removesuffix("Batch") for _, operation in calls} <= allowed
    await sessions.aclose()
    await writing.aclose()


async def test_a_queue_says_what_it_is(world: World) -> None:
    facts = await world.queue.facts()
    assert (facts.visibility_s, facts.message_bytes_max, facts.is_fifo, facts.backlog) == (20, 2048, False, 0)
    assert 10 * 2048 < world.queue.read_bytes_max < 20 * 2048 + 50_000
    await world.send("one")
    assert (await world.queue.facts()).backlog == 1
    await world.queue.receive(10, 1)
    facts = await world.queue.facts()
    assert (facts.backlog, facts.not_visible) == (0, 1)


async def test_messages_come_whole(world: World) -> None:
    await world.queue.facts()
    body = '  {"a" : 1.00, "ä": "\\u0041/\\/\n\t\U0001f600"}\n'
    attributes = {
        "name": {"DataType": "String", "StringValue": 'x"y'},
        "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    sent_at = time.time()
    await world.send(body, MessageAttributes=attributes)
    (message,) = await world.queue.receive(10, 1)
    event = json.loads(message.event)
    assert event["body"] == body
    assert event["messageAttributes"]["name"] == {
        "stringValue": 'x"y', "stringListValues": [], "binaryListValues": [], "dataType": "String",
    }  # fmt: skip
    assert event["messageAttributes"]["raw"]["binaryValue"] == "AP8="
    assert (event["messageId"], event["receiptHandle"]) == (message.message_id, message.receipt_handle)
    assert event["attributes"]["ApproximateReceiveCount"] == "1"
    assert event["eventSourceARN"] == str(world.arn)
    assert message.sent_at == pytest.approx(sent_at, abs=5)
    assert 18 < message.visible_at - anyio.current_time() < 20


async def test_an_empty_queue_gives_nothing(world: World) -> None:
    await world.queue.facts()
    assert await world.queue.receive(10, 0) == []


async def test_what_is_deleted_does_not_come_again_and_is_settled_when_deleted_again(world: World) -> None:
    await world.queue.facts()
    for number in range(3):
        await world.send(str(number))
    messages = await world.queue.receive(10, 1)
    assert await world.queue.delete(messages) == []
    assert await world.queue.delete(messages) == []
    assert (await world.queue.facts()).backlog == 0
    assert await world.queue.receive(10, 0) == []


async def test_what_is_released_comes_at_once_and_counts_a_receive(world: World) -> None:
    await world.queue.facts()
    await world.send("again")
    first = await world.queue.receive(10, 1)
    assert await world.queue.receive(10, 0) == []
    await world.queue.release(first)
    (second,) = await world.queue.receive(10, 1)
    assert second.message_id == first[0].message_id
    assert json.loads(second.event)["attributes"]["ApproximateReceiveCount"] == "2"


async def test_a_handle_of_no_message_harms_no_other(world: World) -> None:
    await world.queue.facts()
    await world.send("one")
    (message,) = await world.queue.receive(10, 1)
    unknown = Message(b"", "x", "no-handle", Instant(0.0), UnixTime(0.0))
    await world.queue.release([unknown])
    assert await world.queue.delete([unknown, message]) == []
    assert (await world.queue.facts()).backlog == 0


async def test_a_fifo_queue_says_so_and_its_messages_their_group(fifo: World) -> None:
    assert (await fifo.queue.facts()).is_fifo
    for number in range(2):
        await fifo.send(str(number), MessageGroupId="g")
    messages = await fifo.queue.receive(10, 1)
    assert [message.group for message in messages] == ["g", "g"]
    assert [json.loads(message.event)["body"] for message in messages] == ["0", "1"]
    attributes = json.loads(messages[0].event)["attributes"]
    assert {"MessageGroupId", "MessageDeduplicationId"} <= set(attributes)


async def test_what_is_released_with_a_delay_comes_after_it(world: World) -> None:
    await world.queue.facts()
    await world.send("later")
    first = await world.queue.receive(10, 1)
    released_at = time.monotonic()
    await world.queue.release(first, 2)
    assert await world.queue.receive(10, 0) == []
    (second,) = await world.queue.receive(10, 5)
    assert time.monotonic() - released_at > 1.5
    assert (first[0].receives, second.receives) == (1, 2)


async def test_what_is_extended_stays_hidden_for_longer_and_an_unknown_handle_is_named(world: World) -> None:
    await world.queue.facts()
    for number in range(2):
        await world.send(str(number))
    short, long = [(await world.queue.receive(1, 1))[0] for _ in range(2)]
    unknown = Message(b"", "x", "no-handle", Instant(0.0), UnixTime(0.0))
    assert await world.queue.extend([short, unknown, long], [1, 30, 30]) == [unknown]
    (again,) = await world.queue.receive(10, 5)
    assert again.message_id == short.message_id
    assert await world.queue.receive(10, 1) == []


async def test_a_message_knows_its_trace_and_when_it_was_received(world: World) -> None:
    await world.queue.facts()
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:25ebe4ec:3"
    await world.send("plain")
    await world.send(
        "traced", MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": header}}
    )
    began_at = anyio.current_time()
    found = {
        json.loads(one.event)["body"]: one
        for one in [*await world.queue.receive(10, 1), *await world.queue.receive(10, 0)]
    }
    assert (found["plain"].trace, found["traced"].trace) == (None, header)
    assert json.loads(found["traced"].event)["attributes"]["AWSTraceHeader"] == header
    assert began_at <= found["plain"].received_at <= anyio.current_time()


async def test_a_fair_queue_passes_the_group_on_and_orders_nothing(world: World) -> None:
    await world.queue.facts()
    await world.send("one", MessageGroupId="tenant")
    (message,) = await world.queue.receive(10, 1)
    assert message.group == "tenant"
    assert json.loads(message.event)["attributes"]["MessageGroupId"] == "tenant"


async def test_a_receive_that_is_named_brings_what_one_without_a_name_brings(fifo: World) -> None:
    await fifo.queue.facts()
    await fifo.send("0", MessageGroupId="g")
    (message,) = await fifo.queue.receive(10, 1, str(uuid.uuid4()))
    assert message.group == "g"


async def test_a_group_is_kept_back_while_a_message_of_it_is_hidden(ministack: str) -> None:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    server = (ministack, "000000000000")
    async for fifo in worlds(server, f"q-{uuid.uuid4()}.fifo", attributes):
        await fifo.queue.facts()
        for number in range(3):
            await fifo.send(str(number), MessageGroupId="g")
        first = await fifo.queue.receive(2, 1)
        assert await fifo.queue.receive(10, 0) == []
        await fifo.queue.release(first[::-1])
        again = await fifo.queue.receive(10, 1)
        assert [json.loads(one.event)["body"] for one in again] == ["0", "1", "2"]


async def test_a_queue_that_does_not_exist_is_told_in_lambdas_words(world: World) -> None:
    await world.queue.facts()
    await world.writer.delete_queue(QueueUrl=world.url)
    text = (
        "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue."
        " SQS Error Message: The specified queue does not exist."
    )
    for ask in (world.queue.receive(1, 0), world.queue.facts()):
        with pytest.raises(OperatorNeeded) as caught:
            await ask
        assert str(caught.value) == text


# What only a scripted server says.


@asynccontextmanager
async def scripted(**script: Script) -> AsyncIterator[tuple[AwsServer, SqsQueue]]:
    """A queue on the scripted server."""
    url = saying({"QueueUrl": "http://sqs.elsewhere.example:4566/123456789012/q"})
    facts = saying({"Attributes": {"VisibilityTimeout": "30"}})
    said = {"GetQueueUrl": url, "GetQueueAttributes": facts, **script}
    async with aws_server(**said) as (server, sessions):
        queue = SqsQueue(ARN, sessions, says_null_md5=False)
        await queue.facts()
        yield server, queue


def message(handle: str) -> Message:
    return Message(b"{}", handle, handle, Instant(0.0), UnixTime(0.0))


async def test_a_receive_asks_for_everything_and_goes_to_the_endpoint_not_to_the_url_of_the_queue() -> None:
    async with scripted(ReceiveMessage=saying({})) as (server, queue):
        assert await queue.receive(7, 20) == []
        assert server.asked("ReceiveMessage") == [
            {
                "QueueUrl": "http://sqs.elsewhere.example:4566/123456789012/q", "MaxNumberOfMessages": 7,
                "WaitTimeSeconds": 20, "MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"],
            }
        ]  # fmt: skip
        assert server.asked("GetQueueUrl") == [{"QueueName": "q", "QueueOwnerAWSAccountId": "123456789012"}]


async def test_the_protocol_is_aws_json_1_0() -> None:
    async with scripted(ReceiveMessage=saying({})) as (server, queue):
        await queue.receive(1, 0)
        headers = server.asks[-1].headers
        assert (headers["X-Amz-Target"], headers["Content-Type"]) == (
            "AmazonSQS.ReceiveMessage",
            "application/x-amz-json-1.0",
        )


async def test_of_a_delete_only_entries_that_may_succeed_later_come_back() -> None:
    failed = [
        {"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid"},
        {"Id": "1", "SenderFault": False, "Code": "InternalError"},
        {"Id": "2", "SenderFault": True, "Code": "InvalidParameterValue", "Message": "The receipt handle has expired"},
        {"Id": "4", "SenderFault": False, "Code": "ServiceUnavailable"},
        {"Id": "no entry of ours", "SenderFault": False, "Code": "InternalError"},
    ]
    async with scripted(DeleteMessageBatch=saying({"Successful": [{"Id": "3"}], "Failed": failed})) as (server, queue):
        left = await queue.delete([message(handle) for handle in "abcde"])
        assert [one.receipt_handle for one in left] == ["b", "e"]
        (asked,) = server.asked("DeleteMessageBatch")
        assert asked["Entries"][0] == {"Id": "0", "ReceiptHandle": "a"}  # type: ignore[index]


async def test_a_release_asks_for_no_visibility_and_does_not_mind_what_fails() -> None:
    failed = {"Failed": [{"Id": "0", "SenderFault": True, "Code": "MessageNotInflight"}]}
    async with scripted(ChangeMessageVisibilityBatch=saying(failed)) as (server, queue):
        await queue.release([message("a")])
        assert server.asked("ChangeMessageVisibilityBatch")[0]["Entries"] == [
            {"Id": "0", "ReceiptHandle": "a", "VisibilityTimeout": 0}
        ]


async def test_a_named_receive_says_its_name_and_a_release_its_delay() -> None:
    script = {"ReceiveMessage": saying({}), "ChangeMessageVisibilityBatch": saying({})}
    async with scripted(**script) as (server, queue):
        await queue.receive(1, 0, "attempt")
        assert server.asked("ReceiveMessage")[0]["ReceiveRequestAttemptId"] == "attempt"
        await queue.release([message("a"), message("b")], 7)
        await queue.extend([message("a"), message("b")], [20, 30])
        asked = [
            [entry["VisibilityTimeout"] for entry in one["Entries"]]
            for one in server.asked("ChangeMessageVisibilityBatch")
        ]  # type: ignore[attr-defined]
        assert asked == [[7, 7], [20, 30]]


async def test_of_an_extension_what_failed_comes_back() -> None:
    failed = {"Failed": [{"Id": "1", "SenderFault": True, "Code": "InvalidParameterValue"}]}
    async with scripted(ChangeMessageVisibilityBatch=saying(failed)) as (_, queue):
        left = await queue.extend([message(handle) for handle in "abc"], [30, 30, 30])
        assert [one.receipt_handle for one in left] == ["b"]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (PAGE, "ReceiveMessage: 502"),
        (refusing("ThrottlingException"), "ReceiveMessage: ThrottlingException: why"),
        (refusing("OverLimit", status=403), "ReceiveMessage: OverLimit: why"),
        (Said(b"<html>ok</html>"), "ReceiveMessage: the answer is not SQS's"),
        (Said(b'{"Messages": [{"Body": "no id"}]}'), "ReceiveMessage: the answer is not SQS's"),
        (Said(b"[]"), "ReceiveMessage: the answer is not SQS's"),
    ],
)
async def test_what_passes_is_unavailable(said: Said, text: str) -> None:
    async with scripted(ReceiveMessage=said) as (_, queue):
        with pytest.raises(Unavailable, match=text):
            await queue.receive(10, 0)


async def test_a_queue_that_may_not_be_read_is_told_in_lambdas_words() -> None:
    async with scripted(ReceiveMessage=refusing("AccessDenied", "User: x is not authorized", 403)) as (_, queue):
        with pytest.raises(
            OperatorNeeded,
            match=r"The function execution role does not have permissions to call ReceiveMessage on SQS .*User: x",
        ):
            await queue.receive(10, 0)


@pytest.mark.parametrize(
    "script",
    [{"GetQueueUrl": saying({})}, {"GetQueueAttributes": saying({"Attributes": {"VisibilityTimeout": "soon"}})}],
)
async def test_facts_that_make_no_sense_are_unavailable(script: dict[str, Script]) -> None:
    with pytest.raises(Unavailable, match="the answer is not SQS's"):
        async with scripted(**script):
            pass


@pytest.mark.parametrize(("visibility_s", "early_s"), [(30, 1.0), (5, 0.5), (0, 0.0)])
async def test_a_message_counts_as_visible_a_little_early(visibility_s: int, early_s: float) -> None:
    answer = saying({"Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Body": "b"}]})
    facts = saying({"Attributes": {"VisibilityTimeout": str(visibility_s)}})
    async with scripted(ReceiveMessage=answer, GetQueueAttributes=facts) as (_, queue):
        before = anyio.current_time()
        (received,) = await queue.receive(1, 0)
        after = anyio.current_time()
    assert before + visibility_s - early_s <= received.visible_at <= after + visibility_s - early_s
