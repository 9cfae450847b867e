"""What the DynamoDB store promises besides: lost answers, a table made on first use, refusals that say what to do."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from esm.errors import Conflict, OperatorNeeded, StateMissing, Unavailable
from esm.model.stored import Key
from esm.stores import open_store
from tests.fakes.aws_server import Ask, Said, aws_server, refusing, saying

KEY = Key("lease", "mapping-1", "shard-1")
KEYS = {
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "S"},
    ],
}
THERE = saying({"Table": {**KEYS, "TableStatus": "ACTIVE"}})
TO_MAKE_IT = (
    r"cannot be made \(.*not you\)\. Allow dynamodb:CreateTable, dynamodb:UpdateContinuousBackups on it, or make it: "
    "aws dynamodb create-table --table-name table --billing-mode PAY_PER_REQUEST --attribute-definitions"
    " AttributeName=pk,AttributeType=S AttributeName=sk,AttributeType=S --key-schema"
    " AttributeName=pk,KeyType=HASH AttributeName=sk,KeyType=RANGE$"
)
GONE = refusing("ResourceNotFoundException")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def conflict(item: dict[str, Any] | None = None) -> Said:
    body: dict[str, Any] = {"__type": "x#ConditionalCheckFailedException", "message": "The conditional request failed"}
    return Said(json.dumps(body if item is None else {**body, "Item": item}).encode(), 400)


def losing_the_answer(then: Callable[[dict[str, Any]], Said]) -> Callable[[Ask], Any]:
    """Writes at the first request, whose answer nobody hears; `then` answers the others, knowing what was written."""
    seen: list[dict[str, Any]] = []

    async def answer(ask: Ask) -> Said:
        seen.append(ask.parameters)
        return Said(b"", 500) if len(seen) == 1 else then(seen[0])

    return answer


async def test_a_write_whose_answer_was_lost_is_known_by_its_own_id() -> None:
    script = losing_the_answer(lambda first: conflict(first["Item"]))
    async with aws_server(DescribeTable=THERE, PutItem=script) as (fake, sessions):
        store = await open_store("dynamodb://table", sessions, exclusive=True)

        version = await store.put(KEY, b"value", 7)

        assert version == 8
        assert len(fake.asked("PutItem")) == 2


async def test_another_writer_between_two_tries_is_a_conflict() -> None:
    script = losing_the_answer(lambda first: conflict({**first["Item"], "wid": {"S": "other"}, "ver": {"N": "9"}}))
    async with aws_server(DescribeTable=THERE, PutItem=script) as (_, sessions):
        store = await open_store("dynamodb://table", sessions, exclusive=True)

        with pytest.raises(Conflict, match="has version 9, expected was 7"):
            await store.put(KEY, b"value", 7)


async def test_gone_after_a_lost_answer_counts_as_deleted() -> None:
    async with aws_server(DescribeTable=THERE, DeleteItem=losing_the_answer(lambda _: conflict())) as (_, sessions):
        store = await open_store("dynamodb://table", sessions, exclusive=True)

        await store.delete(KEY, 7)


async def test_gone_without_a_lost_answer_is_a_conflict() -> None:
    async with aws_server(DescribeTable=THERE, DeleteItem=conflict()) as (_, sessions):
        store = await open_store("dynamodb://table", sessions, exclusive=True)

        with pytest.raises(Conflict, match="has version None, expected was 7"):
            await store.delete(KEY, 7)


async def test_throttling_is_backed_off() -> None:
    throttled = refusing("ProvisionedThroughputExceededException")
    async with aws_server(DescribeTable=THERE, GetItem=[throttled, throttled, saying({})]) as (fake, sessions):
        store = await open_store("dynamodb://table", sessions, exclusive=True)

        assert await store.get(KEY) is None
        assert len(fake.asked("GetItem")) == 3


async def test_a_read_is_strongly_consistent() -> None:
    async with aws_server(DescribeTable=THERE, GetItem=saying({}), Query=saying({"Items": []})) as (fake, sessions):
        store = await open_store("dynamodb://table", sessions, exclusive=True)
        await store.get(KEY)
        await store.scan("lease", "mapping-1")

        assert fake.asked("GetItem")[0]["ConsistentRead"] is True
        assert fake.asked("Query")[0]["ConsistentRead"] is True


async def test_a_table_is_made_on_first_use_on_demand_and_with_recovery() -> None:
    async with aws_server(
        DescribeTable=[GONE, GONE, THERE], CreateTable=saying({}), UpdateContinuousBackups=saying({})
    ) as (fake, sessions):
        await open_store("dynamodb://table", sessions, exclusive=True)

        made = fake.asked("CreateTable")[0]
        assert {name: made[name] for name in KEYS} == KEYS
        assert made["BillingMode"] == "PAY_PER_REQUEST"
        assert fake.asked("UpdateContinuousBackups")[0]["PointInTimeRecoverySpecification"] == {
            "PointInTimeRecoveryEnabled": True
        }


async def test_a_new_table_that_does_not_take_recovery_yet_is_asked_again() -> None:
    async with aws_server(
        DescribeTable=[GONE, THERE], CreateTable=saying({}),
        UpdateContinuousBackups=[refusing("ContinuousBackupsUnavailableException"), saying({})],
    ) as (fake, sessions):  # fmt: skip
        warnings: list[str] = []
        await open_store("dynamodb://table", sessions, exclusive=True, warn=warnings.append)

        assert len(fake.asked("UpdateContinuousBackups")) == 2
        assert not warnings


async def test_a_table_that_is_still_being_made_is_waited_for() -> None:
    creating = saying({"Table": {**KEYS, "TableStatus": "CREATING"}})
    async with aws_server(DescribeTable=[creating, creating, THERE]) as (fake, sessions):
        await open_store("dynamodb://table", sessions, exclusive=True)

        assert len(fake.asked("DescribeTable")) == 3


async def test_a_table_that_another_worker_is_making_is_waited_for() -> None:
    async with aws_server(
        DescribeTable=[GONE, THERE], CreateTable=refusing("ResourceInUseException"),
        UpdateContinuousBackups=refusing("AccessDeniedException", "no"),
    ) as (_, sessions):  # fmt: skip
        warnings: list[str] = []
        await open_store("dynamodb://table", sessions, exclusive=True, warn=warnings.append)

        assert len(warnings) == 1
        assert "point-in-time recovery of the table table is not on" in warnings[0]


@pytest.mark.parametrize(
    ("script", "read_only", "error", "text"),
    [
        ({"DescribeTable": GONE}, True, StateMissing, "does not exist in us-east-1: no daemon has run with it"),
        (
            {"DescribeTable": GONE, "CreateTable": refusing("AccessDeniedException", "not you")}, False, OperatorNeeded,
            TO_MAKE_IT,
        ),
        (
            {"DescribeTable": saying({"Table": {"TableStatus": "ACTIVE"}})}, False, OperatorNeeded,
            "is another program's: its keys are none, .* Name another table",
        ),
        (
            {"DescribeTable": saying({"Table": {
                "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}], "TableStatus": "ACTIVE",
                "AttributeDefinitions": [{"AttributeName": "leaseKey", "AttributeType": "S"}],
            }})},
            False, OperatorNeeded,
            r"The table table is another program's: its keys are leaseKey \(HASH, S\), and the state needs",
        ),
        (
            {"DescribeTable": saying({"Table": {**KEYS, "TableStatus": "DELETING"}})}, False, OperatorNeeded,
            "The table table is DELETING: wait for its end",
        ),
        (
            {"DescribeTable": refusing("AccessDeniedException", "not you")}, True, OperatorNeeded,
            r"cannot be looked at \(.*not you\): allow dynamodb:DescribeTable, .*dynamodb:Query on it",
        ),
    ],
)  # fmt: skip
async def test_a_table_that_cannot_be_used_is_refused_with_why(
    script: dict[str, Said], *, read_only: bool, error: type[Exception], text: str
) -> None:
    async with aws_server(**script) as (_, sessions):
        with pytest.raises(error, match=text):
            await open_store("dynamodb://table", sessions, exclusive=True, read_only=read_only)


async def test_a_table_that_goes_away_is_waited_for_and_so_is_a_permission() -> None:
    refused = refusing("AccessDeniedException", "not you")
    async with aws_server(DescribeTable=THERE, GetItem=GONE, PutItem=refused) as (fake, sessions):
        store = await open_store("dynamodb://table", sessions, exclusive=True)

        with pytest.raises(Unavailable, match="does not exist any more"):
            await store.get(KEY)
        with pytest.raises(Unavailable, match=r"The table table: .*not you"):
            await store.put(KEY, b"value", None)
        assert len(fake.asked("PutItem")) == 1


async def test_an_answer_in_another_language_is_unavailable() -> None:
    async with aws_server(DescribeTable=THERE, GetItem=saying({"Item": {"ver": {"N": "x"}}})) as (_, sessions):
        store = await open_store("dynamodb://table", sessions, exclusive=True)

        with pytest.raises(Unavailable):
            await store.get(KEY)
