"""A lease table on servers of DynamoDB: made, read whole, and written only as long as it is as it was read."""

import uuid
from collections.abc import AsyncIterator

import pytest

from esm.aws import lease_table
from esm.aws.lease_table import LeaseTable, changed
from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded, RequestRefused


def item(key: str, counter: int = 0, **more: dict[str, str]) -> dict[str, dict[str, str]]:
    return {"leaseKey": {"S": key}, "leaseCounter": {"N": str(counter)}, "checkpoint": {"S": "LATEST"}, **more}


@pytest.fixture(params=["moto_url", "ministack"])
async def sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sessions]:
    """Sessions whose every call must be one that the README's policy allows."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    calls: set[str] = set()
    url = request.getfixturevalue(request.param)
    made = Sessions("us-east-1", url, {}, lambda _, operation, __: calls.add(f"dynamodb:{operation}"))
    yield made
    await made.aclose()
    assert calls <= set(lease_table.IAM_ACTIONS)


@pytest.fixture
async def table(sessions: Sessions) -> LeaseTable:
    found = LeaseTable(f"app-{uuid.uuid4()}", "us-east-1", sessions)
    assert not await found.exists()
    await found.create()
    return found


async def test_a_new_table_is_empty_and_keeps_what_is_put(table: LeaseTable) -> None:
    assert await table.exists()
    assert await table.items() == []
    await table.put(item("a"), None)
    await table.put(item("a", 1), item("a"))
    assert await table.items() == [item("a", 1)]
    await table.delete(item("a", 1))
    assert await table.items() == []


async def test_pages_are_read_to_the_end(table: LeaseTable) -> None:
    for number in range(4):
        await table.put(item(f"{number}", padding={"S": "x" * 380_000}), None)
    assert sorted(one["leaseKey"]["S"] for one in await table.items()) == ["0", "1", "2", "3"]


async def test_what_somebody_else_has_renewed_is_neither_written_nor_removed(table: LeaseTable) -> None:
    await table.put(item("a", 5), None)
    with pytest.raises(RequestRefused, match="changed meanwhile"):
        await table.put(item("a"), None)
    with pytest.raises(RequestRefused, match="changed meanwhile"):
        await table.put(item("a", 6), item("a", 4))
    with pytest.raises(RequestRefused, match="changed meanwhile"):
        await table.delete(item("a", 4))
    assert await table.items() == [item("a", 5)]


async def test_a_table_that_is_not_there_is_named(sessions: Sessions) -> None:
    with pytest.raises(OperatorNeeded, match="There is no table nothing"):
        await LeaseTable("nothing", "us-east-1", sessions).items()


async def test_the_key_of_another_program_is_named(sessions: Sessions) -> None:
    name = f"app-{uuid.uuid4()}-WorkerMetricStats"
    client = await sessions.client("dynamodb")
    await client.create_table(
            TableName=name, KeySchema=[{"AttributeName": "wid", "KeyType": "HASH"}], BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "wid", "AttributeType": "S"}],
        )  # fmt: skip
    with pytest.raises(RequestRefused, match=r"wid \(HASH\)"):
        await LeaseTable(name, "us-east-1", sessions).exists()


def test_leases_that_came_went_or_were_renewed_have_changed() -> None:
    before = [item("a"), item("b"), item("c"), item("d")]
    after = [item("a"), item("b", 1), item("c", leaseOwner={"S": "w"}), item("e")]
    assert changed(before, after) == ["b", "c", "d", "e"]
    assert changed(before, before) == []
