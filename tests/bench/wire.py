"""What taking hot answers apart costs: botocore's parser against ours, in one run on the same bytes.

    python -m tests.bench.wire

Both begin with an answer's body. botocore ends with its dicts, of which a poller would still have to make events; ours
ends with the finished events.
"""

import asyncio
import base64
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiobotocore.parsers import AioJSONParser
from botocore.session import Session

from esm.aws.raw import BODY, RawParserFactory
from esm.aws.sessions import Sessions
from esm.model.arn import Arn
from esm.model.position import TrimHorizon
from esm.sources.dynamodb import DynamoDBStream
from esm.sources.kinesis import KinesisStream
from esm.sources.sqs import SqsQueue

ROUNDS = 15
TEXT = json.dumps({"order": 17, "note": "ä" * 40, "items": list(range(200))})[:1024]

Task = Callable[[], Awaitable[object]]


def kinesis_answer() -> bytes:
    """1,000 records of 1 KB."""
    data = base64.b64encode(TEXT.encode().ljust(1024)[:1024]).decode()
    records = [
        {
            "SequenceNumber": str(49590338271490256608559692538361571095921575989136588898 + number),
            "ApproximateArrivalTimestamp": 1545084650.987, "Data": data, "PartitionKey": f"key-{number}",
        }
        for number in range(1000)
    ]  # fmt: skip
    return json.dumps({"Records": records, "NextShardIterator": "n", "MillisBehindLatest": 0}).encode()


def dynamodb_answer() -> bytes:
    """1,000 records with two images of 14 attributes."""
    image = {
        **{f"text-{number}": {"S": "some text of a usual length"} for number in range(8)},
        **{f"number-{number}": {"N": "1234.5"} for number in range(4)},
        "list": {"L": [{"S": "a"}, {"N": "1"}]}, "map": {"M": {"k": {"BOOL": True}}},
    }  # fmt: skip
    records = [
        {
            "eventID": "07784002bf31b2ea2c0ec0d3d2d6d5b7", "eventName": "MODIFY", "eventVersion": "1.1",
            "eventSource": "aws:dynamodb", "awsRegion": "us-east-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1663943957.0, "Keys": {"key": {"S": f"key-{number}"}}, "NewImage": image,
                "OldImage": image, "SequenceNumber": str(335200000000005156412331 + number), "SizeBytes": 700,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        }
        for number in range(1000)
    ]  # fmt: skip
    return json.dumps({"Records": records, "NextShardIterator": "n"}).encode()


def sqs_answer() -> bytes:
    """10 messages of 1 KB with two attributes."""
    messages = [
        {
            "MessageId": "059f36b4-87a3-44ab-83d2-661975830a7d", "ReceiptHandle": "AQEB" * 80, "Body": TEXT,
            "MD5OfBody": "0" * 32, "MD5OfMessageAttributes": "1" * 32,
            "Attributes": {
                "SenderId": "AIDAIENQZJOLO23YVJ4VO", "ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183",
                "ApproximateFirstReceiveTimestamp": "1545082649185",
            },
            "MessageAttributes": {name: {"StringValue": "value", "DataType": "String"} for name in ("one", "two")},
        }
        for _ in range(10)
    ]  # fmt: skip
    return json.dumps({"Messages": messages}).encode()


class Canned:
    """Stands for the sessions: hands over a body through our parser, and touches no network."""

    def __init__(self, service: str, operation: str, body: bytes) -> None:
        model = Session().get_service_model(service)
        self._shape = model.operation_model(operation).output_shape
        self._response = {"status_code": 200, "headers": {}, "body": body, "context": {}}
        self._ours = RawParserFactory()

    async def botocore(self) -> object:
        """The answer as botocore parses it."""
        return await AioJSONParser().parse(dict(self._response), self._shape)

    async def client(self, *_: object) -> None:
        """No client is needed."""

    async def call(self, _: object, operation: str, **__: object) -> dict[str, Any]:
        """The hot answer."""
        del operation
        parsed: dict[str, Any] = await self._ours.create_parser("json").parse(dict(self._response), self._shape)
        return {BODY: parsed[BODY]}

    async def control(self, _: object, operation: str, **__: object) -> dict[str, Any]:
        """An iterator, a queue's URL, no attributes."""
        del operation
        return {"ShardIterator": "i", "QueueUrl": "http://q", "Attributes": {}}


def contest(canned: Canned, kind: str) -> tuple[Task, Task]:
    """botocore's way and ours, over the same answer."""
    sessions: Sessions = canned  # type: ignore[assignment]
    match kind:
        case "sqs":
            queue = SqsQueue(Arn.parse("arn:aws:sqs:us-east-1:1:q"), sessions, says_null_md5=False)
            return canned.botocore, lambda: queue.receive(10, 0)
        case "kinesis":
            stream: Any = KinesisStream(Arn.parse("arn:aws:kinesis:us-east-1:1:stream/s"), "role", sessions)
        case _:
            arn = Arn.parse("arn:aws:dynamodb:us-east-1:1:table/t/stream/2026")
            stream = DynamoDBStream(arn, sessions)
    return canned.botocore, lambda: stream.open("shard", TrimHorizon()).read(10_000)


async def median_ms(task: Task, repeats: int) -> float:
    """The median of some rounds, each the mean of `repeats`."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(repeats):
            await task()
        rounds.append((time.perf_counter() - began) / repeats * 1000)
    return statistics.median(rounds)


async def main() -> None:
    """Print the table."""
    answers = [
        ("1,000 Kinesis records of 1 KB", "kinesis", "GetRecords", kinesis_answer(), 1),
        ("1,000 DynamoDB records, two images", "dynamodbstreams", "GetRecords", dynamodb_answer(), 1),
        ("10 SQS messages of 1 KB", "sqs", "ReceiveMessage", sqs_answer(), 100),
    ]
    print(f"{'median of ' + str(ROUNDS) + ' rounds':<36}{'botocore':>12}{'ours':>12}{'ratio':>8}")
    for name, service, operation, body, repeats in answers:
        theirs, ours = contest(Canned(service, operation, body), service)
        theirs_ms, ours_ms = await median_ms(theirs, repeats), await median_ms(ours, repeats)
        print(f"{name:<36}{theirs_ms:>9.3f} ms{ours_ms:>9.3f} ms{theirs_ms / ours_ms:>7.1f}x")


if __name__ == "__main__":
    asyncio.run(main())
