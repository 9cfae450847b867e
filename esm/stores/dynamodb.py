"""State in one DynamoDB table, shared by every worker that can reach it.

Table: partition key `pk` (string: kind and owner), sort key `sk` (string: item), on demand. An item holds `ver`
(number), `val` (binary) and `wid`, the random id of the write that made it so.

Law: every write is one conditional call. A version begins with the time in milliseconds and 22 random bits and grows by
one at each write, so that none returns, also after a delete. A call whose answer was lost is made again; the conflict
that a write of our own then meets is known by its `wid` and is a success.

Queries are consistent, too, at twice the price of others: whoever is told by one item (the change counter) that there
is something to read in others would otherwise miss it for good, and an event that was just settled would be seen again.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

import anyio
import botocore.exceptions as boto
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from esm.aws.failures import code_behind, taking_apart
from esm.aws.sessions import Sessions
from esm.errors import Conflict, OperatorNeeded, ShardGone, StateMissing, Unavailable
from esm.model.stored import Key, Page, Stored
from esm.stores.limits import check_value

IAM_ACTIONS = (
    "dynamodb:DescribeTable",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:DeleteItem",
    "dynamodb:Query",
)
"""What a worker needs on the table."""

IAM_ACTIONS_TO_CREATE = ("dynamodb:CreateTable", "dynamodb:UpdateContinuousBackups")
"""What it needs besides to make the table on first use."""

RETRY_S = 4.0
"""How long a call is tried again while nothing answers: below the time after which a worker counts as dead."""

READ_TIMEOUT_S = 5.0
CREATE_S = 60.0
"""How long a new table may take until it can be used."""
RECOVERY_S = 20.0
"""How long a new table may refuse point-in-time recovery; then a warning says so."""

_CONFLICT = "ConditionalCheckFailedException"
_LOOK_S = 0.5
_RANDOM_BITS = 22
_KEYS = [("pk", "HASH"), ("sk", "RANGE")]
_USABLE = {"ACTIVE", "UPDATING", "CREATING"}


def create_command(table: str) -> str:
    """What an operator types to make the table."""
    attributes = " ".join([f"AttributeName={name},AttributeType=S" for name, _ in _KEYS])
    keys = " ".join([f"AttributeName={name},KeyType={kind}" for name, kind in _KEYS])
    return (
        f"aws dynamodb create-table --table-name {table} --billing-mode PAY_PER_REQUEST"
        f" --attribute-definitions {attributes} --key-schema {keys}"
    )


class DynamoDBStore:
    """A `Store` in a table."""

    def __init__(self, table: str, client: Any, sessions: Sessions) -> None:  # noqa: ANN401 - aiobotocore's
        self._table = table
        self._client = client
        self._sessions = sessions

    @classmethod
    async def open(
        cls, table: str, sessions: Sessions, *, warn: Callable[[str], None], read_only: bool
    ) -> "DynamoDBStore":
        """The store in `table`, which is made where it is missing, may be made, and `read_only` is false.

        Raises: StateMissing, OperatorNeeded (another table's keys, permissions), Unavailable.
        """
        client = await sessions.client("dynamodb", read_timeout_s=READ_TIMEOUT_S)
        store = cls(table, client, sessions)
        try:
            described = await store._described()
        except ShardGone as error:
            if read_only:
                raise StateMissing(
                    f"The table {table} does not exist in {sessions.region}: no daemon has run with it. Start one, or"
                    " name its table (ESM_STATE, ESM_STATE_CONNECTION)."
                ) from error
            described = await store._make(warn)
        except OperatorNeeded as error:
            raise OperatorNeeded(
                f"The state's table {table} cannot be looked at ({error}): allow {', '.join(IAM_ACTIONS)} on it."
            ) from error
        store._check(described)
        if described.get("TableStatus") == "CREATING":  # by another worker
            await store._wait_active()
        return store

    async def get(self, key: Key) -> Stored | None:
        """See `ports.Store`."""
        answer = await self._call("get_item", Key=_place(key), ConsistentRead=True)
        with taking_apart("GetItem", "DynamoDB"):
            return _stored(key, answer["Item"]) if "Item" in answer else None

    async def scan(self, kind: str, owner: str, after: str | None = None, limit: int = 1000) -> Page:
        """See `ports.Store`."""
        condition, values = "pk = :p", {":p": {"S": _partition(kind, owner)}}
        if after:
            condition, values = f"{condition} AND sk > :a", {**values, ":a": {"S": after}}
        answer = await self._call(
            "query", KeyConditionExpression=condition, ExpressionAttributeValues=values, Limit=limit + 1,
            ConsistentRead=True,
        )  # fmt: skip
        with taking_apart("Query", "DynamoDB"):
            items = tuple(_stored(Key(kind, owner, item["sk"]["S"]), item) for item in answer["Items"])
        if len(items) > limit:
            return Page(items[:limit], items[limit - 1].key.item)
        if answer.get("LastEvaluatedKey") and items:
            return Page(items, items[-1].key.item)
        return Page(items, None)

    async def put(self, key: Key, value: bytes, expected_version: int | None) -> int:
        """See `ports.Store`."""
        check_value(key, value)
        write_id = secrets.token_hex(8)
        version = _first_version() if expected_version is None else expected_version + 1
        item = {**_place(key), "ver": {"N": str(version)}, "val": {"B": value}, "wid": {"S": write_id}}
        try:
            await self._call("put_item", Item=item, **_condition(expected_version))
        except OperatorNeeded as error:
            found = _conflicting(error)
            if found.get("wid", {}).get("S") != write_id:
                raise _conflict(key, found, expected_version) from error
        return version

    async def delete(self, key: Key, expected_version: int) -> None:
        """See `ports.Store`. Gone after a lost answer counts as deleted by this call."""
        failures = 0

        def failed(_: object) -> None:
            nonlocal failures
            failures += 1

        try:
            await self._call("delete_item", on_failure=failed, Key=_place(key), **_condition(expected_version))
        except OperatorNeeded as error:
            found = _conflicting(error)
            if found or not failures:
                raise _conflict(key, found, expected_version) from error

    async def aclose(self) -> None:
        """Close the sessions, which are the store's own."""
        await self._sessions.aclose()

    async def _call(
        self,
        operation: str,
        *,
        on_failure: Callable[[object], None] | None = None,
        **parameters: Any,  # noqa: ANN401 - AWS's
    ) -> dict[str, Any]:
        """One call on the table, made again for a few seconds while nothing answers.

        Raises: OperatorNeeded (another version stands there), Unavailable (also where someone must act: a worker goes
        on as soon as that is done).
        """
        policy = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable), stop=stop_after_delay(RETRY_S),
            wait=wait_random_exponential(multiplier=0.05, max=1), reraise=True, before_sleep=on_failure,
        )  # fmt: skip
        try:
            async for attempt in policy:
                with attempt:
                    return await self._sessions.call(self._client, operation, TableName=self._table, **parameters)
        except ShardGone as error:  # the table's word for any resource that is not found
            raise Unavailable(f"The table {self._table} does not exist any more ({error})") from error
        except OperatorNeeded as error:
            if code_behind(error) == _CONFLICT:
                raise
            raise Unavailable(f"The table {self._table}: {error}") from error
        raise AssertionError("tenacity ends by a result or an error")

    async def _described(self) -> dict[str, Any]:
        answer = await self._sessions.control(self._client, "describe_table", TableName=self._table)
        table: dict[str, Any] = answer["Table"]
        return table

    async def _make(self, warn: Callable[[str], None]) -> dict[str, Any]:
        try:
            await self._sessions.call(
                self._client, "create_table", TableName=self._table, BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in _KEYS],
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in _KEYS],
            )  # fmt: skip
        except Unavailable as error:
            if code_behind(error) != "ResourceInUseException":  # another worker was first
                raise
        except OperatorNeeded as error:
            raise OperatorNeeded(
                f"The table {self._table} does not exist in {self._sessions.region}, and it cannot be made ({error})."
                f" Allow {', '.join(IAM_ACTIONS_TO_CREATE)} on it, or make it: {create_command(self._table)}"
            ) from error
        described = await self._wait_active()
        try:
            await self._recoverable()
        except (OperatorNeeded, Unavailable, ShardGone) as error:
            warn(f"point-in-time recovery of the table {self._table} is not on ({error})")
        return described

    async def _recoverable(self) -> None:
        """Switch point-in-time recovery on; a table that has just been made refuses that for a while."""
        until = anyio.current_time() + RECOVERY_S
        while True:
            try:
                await self._sessions.control(
                    self._client, "update_continuous_backups", TableName=self._table,
                    PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
                )  # fmt: skip
            except OperatorNeeded as error:
                if code_behind(error) != "ContinuousBackupsUnavailableException" or anyio.current_time() > until:
                    raise
                await anyio.sleep(_LOOK_S)
            else:
                return

    async def _wait_active(self) -> dict[str, Any]:
        with anyio.move_on_after(CREATE_S):
            while True:
                try:
                    described = await self._described()
                except ShardGone:  # not seen everywhere yet
                    described = {}
                if described.get("TableStatus") == "ACTIVE":
                    return described
                await anyio.sleep(_LOOK_S)
        raise Unavailable(f"The table {self._table} is not ready after {CREATE_S:.0f} s.")

    def _check(self, described: dict[str, Any]) -> None:
        keys = [(key["AttributeName"], key["KeyType"]) for key in described.get("KeySchema", ())]
        types = {one["AttributeName"]: one["AttributeType"] for one in described.get("AttributeDefinitions", ())}
        if keys != _KEYS or any(types.get(name) != "S" for name, _ in _KEYS):
            shown = ", ".join([f"{name} ({kind}, {types.get(name)})" for name, kind in keys]) or "none"
            raise OperatorNeeded(
                f"The table {self._table} is another program's: its keys are {shown}, and the state needs the partition"
                " key pk (string) and the sort key sk (string). Name another table (ESM_STATE)."
            )
        status = described.get("TableStatus", "ACTIVE")
        if status not in _USABLE:
            raise OperatorNeeded(f"The table {self._table} is {status}: wait for its end, or name another (ESM_STATE).")


def _partition(kind: str, owner: str) -> str:
    return f"{kind}#{owner}"


def _place(key: Key) -> dict[str, dict[str, str]]:
    return {"pk": {"S": _partition(key.kind, key.owner)}, "sk": {"S": key.item}}


def _stored(key: Key, item: dict[str, Any]) -> Stored:
    return Stored(key, bytes(item["val"]["B"]), int(item["ver"]["N"]))


def _first_version() -> int:
    return (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)


def _condition(expected_version: int | None) -> dict[str, Any]:
    told: dict[str, Any] = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    if expected_version is None:
        return {**told, "ConditionExpression": "attribute_not_exists(pk)"}
    return {
        **told, "ConditionExpression": "ver = :v", "ExpressionAttributeValues": {":v": {"N": str(expected_version)}},
    }  # fmt: skip


def _conflicting(error: OperatorNeeded) -> dict[str, Any]:
    """The item that stood in the way of a conditional write; empty where there is none. Raises: `error` itself."""
    cause = error.__cause__
    if code_behind(error) != _CONFLICT or not isinstance(cause, boto.ClientError):
        raise error
    response: dict[str, Any] = dict(cause.response)
    found: dict[str, Any] = response.get("Item") or {}
    return found


def _conflict(key: Key, found: dict[str, Any], expected_version: int | None) -> Conflict:
    version = found.get("ver", {}).get("N")
    return Conflict(f"{key.kind} {key.item!r} has version {version}, expected was {expected_version}")
