"""Arrivals: empties the dead-letter queue and the failure queue, and learns which records were given up.

A notice of a stream names shard and sequence numbers, not records: they are read once more from the stream itself, as
an operator would.
"""

import json
from collections import Counter
from typing import Any

import anyio
from botocore.exceptions import BotoCoreError, ClientError

from esm.demo.ledger import Ledger
from esm.demo.world import CLICKS, ORDERS_DEAD, World

PAUSE_S = 0.5


class Arrivals:
    """What arrived at each destination, by its name, in messages."""

    def __init__(self, world: World, ledger: Ledger) -> None:
        self._world = world
        self._ledger = ledger
        self.messages: Counter[str] = Counter()
        self.conditions: Counter[str] = Counter()
        """Notices by why their records were given up."""

    async def follow(self, url: str) -> None:
        """Empty one queue until cancelled. Survives errors of the emulator: what was not deleted comes again."""
        while True:
            try:
                is_empty = not await self.take(url)
            except (BotoCoreError, ClientError):
                is_empty = True
            if is_empty:
                await anyio.sleep(PAUSE_S)

    async def take(self, url: str) -> int:
        """Take up to ten messages of a queue; returns how many there were."""
        sqs = self._world.clients.sqs
        answer = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0)
        messages = answer.get("Messages", [])
        name = url.rsplit("/", 1)[-1]
        for message in messages:
            if name == ORDERS_DEAD:
                self._note_order(message["Body"])
            else:
                await self._note_notice(json.loads(message["Body"]))
            self.messages[name] += 1
            await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    def _note_order(self, body: str) -> None:
        try:
            order = json.loads(body)["id"]
        except (ValueError, KeyError, TypeError):
            return  # sent by hand
        self._ledger.accounts["orders"].given_up.add(str(order))

    async def _note_notice(self, notice: dict[str, Any]) -> None:
        self.conditions[notice["requestContext"]["condition"]] += 1
        if "KinesisBatchInfo" in notice:
            span = notice["KinesisBatchInfo"]
            given_up = await self._clicks(span)
            self._ledger.accounts["clicks"].given_up.update(given_up)
        else:
            span = notice["DDBStreamBatchInfo"]
            given_up = await self._changes(span)
            self._ledger.accounts["audit"].given_up.update(given_up)

    async def _clicks(self, span: dict[str, Any]) -> list[str]:
        records = await _read_span(
            self._world.clients.kinesis, span,
            StreamName=CLICKS, StartingSequenceNumber=span["startSequenceNumber"],
        )  # fmt: skip
        return [json.loads(record["Data"])["id"] for record in records]

    async def _changes(self, span: dict[str, Any]) -> list[str]:
        records = await _read_span(
            self._world.clients.streams, span,
            StreamArn=span["streamArn"], SequenceNumber=span["startSequenceNumber"],
        )  # fmt: skip
        return [record["dynamodb"]["NewImage"]["id"]["S"] for record in records]


async def _read_span(client: Any, span: dict[str, Any], **start: str) -> list[dict[str, Any]]:  # noqa: ANN401
    """The records of a notice: they follow each other, since each shard of the demo has one lane."""
    opened = await client.get_shard_iterator(ShardId=span["shardId"], ShardIteratorType="AT_SEQUENCE_NUMBER", **start)
    answer = await client.get_records(ShardIterator=opened["ShardIterator"], Limit=span["batchSize"])
    return list(answer["Records"])
