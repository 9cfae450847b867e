"""The demo's AWS: the clients, and the queues, stream and table that it makes."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo"}
"""The emulator takes any."""

VISIBILITY_S = 6
"""Of the orders queue: poison is in the dead-letter queue after three of these."""
RECEIVES_MAX = 3

ORDERS, ORDERS_DEAD, CLICKS, AUDIT, FAILED = (
    "demo-orders", "demo-orders-dead", "demo-clicks", "demo-audit", "demo-failed",
)  # fmt: skip


@dataclass(frozen=True)
class Clients:
    """aiobotocore clients, which have no types of their own."""

    sqs: Any
    kinesis: Any
    dynamodb: Any
    streams: Any


@dataclass(frozen=True)
class World:
    """What was made, and how to reach it."""

    endpoint: str
    clients: Clients
    orders_url: str
    orders_arn: str
    dead_url: str
    failed_url: str
    clicks_arn: str
    audit_arn: str
    """Of the table's stream."""

    @property
    def sources(self) -> dict[str, str]:
        """The name of each source in the demo, by its ARN."""
        return {self.orders_arn: "orders", self.clicks_arn: "clicks", self.audit_arn: "audit"}


@asynccontextmanager
async def connected(endpoint: str) -> AsyncIterator[Clients]:
    """Clients of the emulator, whatever the user's own settings of AWS and of proxies are."""
    config = AioConfig(retries={"total_max_attempts": 3}, connect_timeout=5, read_timeout=20, proxies={})
    session: Any = get_session()
    names = ("sqs", "kinesis", "dynamodb", "dynamodbstreams")
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                session.create_client(
                    name, region_name=REGION, endpoint_url=endpoint, config=config,
                    aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
                )
            )
            for name in names
        ]  # fmt: skip
        yield Clients(*opened)


async def make_world(endpoint: str, clients: Clients) -> World:
    """Make the queues, the stream of two shards and the table with its stream."""
    dead_url, dead_arn = await _queue(clients.sqs, ORDERS_DEAD, {})
    redrive = {"deadLetterTargetArn": dead_arn, "maxReceiveCount": RECEIVES_MAX}
    orders_url, orders_arn = await _queue(
        clients.sqs, ORDERS, {"VisibilityTimeout": str(VISIBILITY_S), "RedrivePolicy": json.dumps(redrive)}
    )
    failed_url, _ = await _queue(clients.sqs, FAILED, {})
    return World(
        endpoint=endpoint,
        clients=clients,
        orders_url=orders_url,
        orders_arn=orders_arn,
        dead_url=dead_url,
        failed_url=failed_url,
        clicks_arn=await _stream(clients.kinesis),
        audit_arn=await _table(clients.dynamodb),
    )


async def _queue(sqs: Any, name: str, attributes: dict[str, str]) -> tuple[str, str]:  # noqa: ANN401 - untyped client
    url = (await sqs.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
    answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, answer["Attributes"]["QueueArn"]


async def _stream(kinesis: Any) -> str:  # noqa: ANN401 - untyped client
    await kinesis.create_stream(StreamName=CLICKS, ShardCount=2)
    await kinesis.get_waiter("stream_exists").wait(StreamName=CLICKS, WaiterConfig={"Delay": 1})
    summary = await kinesis.describe_stream_summary(StreamName=CLICKS)
    return str(summary["StreamDescriptionSummary"]["StreamARN"])


async def _table(dynamodb: Any) -> str:  # noqa: ANN401 - untyped client
    await dynamodb.create_table(
        TableName=AUDIT,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "account", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "account", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    await dynamodb.get_waiter("table_exists").wait(TableName=AUDIT, WaiterConfig={"Delay": 1})
    return str((await dynamodb.describe_table(TableName=AUDIT))["Table"]["LatestStreamArn"])
