"""LeaseTable: the DynamoDB table in which an application of Amazon's Kinesis Client Library keeps its leases.

Items are plain tables of DynamoDB's own form (`{"S": ...}`); what they mean is not known here.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from esm.aws.failures import code_behind, taking_apart
from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded, RequestRefused, ShardGone, Unavailable

IAM_ACTIONS = (
    "dynamodb:DescribeTable", "dynamodb:Scan", "dynamodb:CreateTable", "dynamodb:PutItem", "dynamodb:DeleteItem"
)  # fmt: skip
"""The first two are enough for reading one."""

KEY = "leaseKey"

CREATE_S = 120
"""How long a new table may take until it is active; DynamoDB takes seconds."""

LOOK_EVERY_S = 0.5

Item = Mapping[str, Mapping[str, Any]]


class LeaseTable:
    """One table; each call is one request, or the pages of one."""

    def __init__(self, name: str, region: str, sessions: Sessions) -> None:
        self.name = name
        self._region = region
        self._sessions = sessions

    async def exists(self) -> bool:
        """Whether it is there, and its key is that of a lease table.

        Raises: RequestRefused (another program's key), OperatorNeeded, Unavailable.
        """
        try:
            answer = await self._call("describe_table")
        except ShardGone:
            return False
        with taking_apart("DescribeTable", "DynamoDB"):
            key = [(part["AttributeName"], part["KeyType"]) for part in answer["Table"]["KeySchema"]]
        if key != [(KEY, "HASH")]:
            shown = ", ".join(f"{name} ({kind})" for name, kind in key)
            raise RequestRefused(
                f"The table {self.name} has the key {shown}, not {KEY} (HASH): name the lease table, whose"
                " name is the application's own, without -CoordinatorState or -WorkerMetricStats."
            )
        return True

    async def items(self) -> list[Item]:
        """Every item, read consistently. Raises: OperatorNeeded (no such table, no permission), Unavailable."""
        found: list[Item] = []
        after: dict[str, Any] = {}
        while True:
            try:
                answer = await self._call("scan", ConsistentRead=True, **after)
            except ShardGone as error:
                raise OperatorNeeded(
                    f"There is no table {self.name} in {self._region}: name the application's lease table."
                ) from error.__cause__
            with taking_apart("Scan", "DynamoDB"):
                found += answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return found
            after = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def create(self) -> None:
        """Make the table, on demand, and return when it is active. Raises: OperatorNeeded, Unavailable."""
        await self._call(
            "create_table", KeySchema=[{"AttributeName": KEY, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": KEY, "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
        )  # fmt: skip
        until = time.monotonic() + CREATE_S
        while time.monotonic() < until:
            answer = await self._call("describe_table")
            if answer["Table"].get("TableStatus") == "ACTIVE":
                return
            await anyio.sleep(LOOK_EVERY_S)
        raise Unavailable(f"The table {self.name} is not active {CREATE_S} s after it was made: try again.")

    async def put(self, item: Item, before: Item | None) -> None:
        """Write an item in place of `before`, or of none.

        Raises: RequestRefused (it is not as it was: somebody works with the table), OperatorNeeded, Unavailable.
        """
        await self._conditional("put_item", before, Item=item)

    async def delete(self, before: Item) -> None:
        """Remove an item as it was read. Raises as `put` does."""
        await self._conditional("delete_item", before, Key={KEY: before[KEY]})

    async def _conditional(self, operation: str, before: Item | None, **parameters: object) -> None:
        condition: dict[str, object] = {"ConditionExpression": f"attribute_not_exists({KEY})"}
        if before is not None:
            condition = {
                "ConditionExpression": "leaseCounter = :seen",
                "ExpressionAttributeValues": {":seen": before["leaseCounter"]},
            }
        try:
            await self._call(operation, **parameters, **condition)
        except OperatorNeeded as error:
            if code_behind(error) != "ConditionalCheckFailedException":
                raise
            raise RequestRefused(
                f"The table {self.name} changed meanwhile: an application works with it. Stop it, and begin again."
            ) from error

    async def _call(self, operation: str, **parameters: object) -> dict[str, Any]:
        client = await self._sessions.client("dynamodb", self._region)
        return await self._sessions.control(client, operation, TableName=self.name, **parameters)


def changed(before: Sequence[Item], after: Sequence[Item]) -> list[str]:
    """Keys of items that came, went, or were renewed between two looks."""
    seen, now = _marks(before), _marks(after)
    return sorted(key for key in seen.keys() | now.keys() if seen.get(key) != now.get(key))


def _marks(items: Sequence[Item]) -> dict[str, object]:
    return {str(item[KEY].get("S")): (item.get("leaseCounter"), item.get("leaseOwner")) for item in items}
