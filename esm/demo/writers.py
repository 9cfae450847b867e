"""Writers: records for the three sources, all the time, one of them poison now and then."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from botocore.exceptions import BotoCoreError, ClientError

from esm.demo.ledger import Account
from esm.demo.world import AUDIT, CLICKS, World

WRITE_EVERY_S = 0.5
RECORDS_A_WRITE = 4
POISON_ONE_IN = 25
KEYS_COUNT = 20
"""Different visitors and accounts. More than `RECORDS_A_WRITE`: one write of a table may not name an item twice."""


@dataclass(frozen=True)
class Record:
    """One record to write."""

    number: int
    id: str
    is_poison: bool

    @property
    def body(self) -> str:
        """As a queue and a stream carry it."""
        return json.dumps({"id": self.id, "poison": self.is_poison})

    @property
    def key(self) -> str:
        """What its order holds for."""
        return f"key-{self.number % KEYS_COUNT}"


Write = Callable[[World, Sequence[Record]], Awaitable[list[str]]]
"""Writes records and returns the ids of those that the service has taken."""


async def keep_writing(source: str, write: Write, world: World, account: Account) -> None:
    """Write until cancelled. A write that failed is not counted: its records may be there or not."""
    number = 0
    while True:
        records = [_record(source, number + offset) for offset in range(RECORDS_A_WRITE)]
        number += RECORDS_A_WRITE
        try:
            with anyio.CancelScope(shield=True):
                account.written.update(await write(world, records))
        except (BotoCoreError, ClientError):
            await anyio.sleep(WRITE_EVERY_S)
        await anyio.sleep(WRITE_EVERY_S)


def _record(source: str, number: int) -> Record:
    return Record(number, f"{source}-{number:06d}", is_poison=number % POISON_ONE_IN == POISON_ONE_IN // 2)


async def write_orders(world: World, records: Sequence[Record]) -> list[str]:
    """Send messages."""
    entries = [{"Id": str(index), "MessageBody": record.body} for index, record in enumerate(records)]
    answer = await world.clients.sqs.send_message_batch(QueueUrl=world.orders_url, Entries=entries)
    return [records[int(entry["Id"])].id for entry in answer.get("Successful", [])]


async def write_clicks(world: World, records: Sequence[Record]) -> list[str]:
    """Put records into the stream."""
    entries = [{"Data": record.body.encode(), "PartitionKey": record.key} for record in records]
    answer = await world.clients.kinesis.put_records(StreamName=CLICKS, Records=entries)
    return [
        record.id for record, entry in zip(records, answer["Records"], strict=True) if "SequenceNumber" in entry
    ]  # fmt: skip


async def write_audit(world: World, records: Sequence[Record]) -> list[str]:
    """Put items: an account that is there already is changed, and its stream record has both images."""
    items = [
        {"account": {"S": record.key}, "id": {"S": record.id}, "poison": {"BOOL": record.is_poison}}
        for record in records
    ]
    answer = await world.clients.dynamodb.batch_write_item(
        RequestItems={AUDIT: [{"PutRequest": {"Item": item}} for item in items]}
    )
    left = [entry["PutRequest"]["Item"]["id"]["S"] for entry in answer.get("UnprocessedItems", {}).get(AUDIT, [])]
    return [record.id for record in records if record.id not in left]


WRITERS: dict[str, Write] = {"orders": write_orders, "clicks": write_clicks, "audit": write_audit}
