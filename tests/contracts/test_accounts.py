"""Mappings of several accounts in one daemon: roles of real servers, and everything composed as the daemon does it."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from prometheus_client import CollectorRegistry

from esm import daemon, inspection
from esm.aws.sessions import Sessions
from esm.config import Configuration
from esm.daemon import Adapters
from esm.model.arn import Arn, SourceKind
from esm.model.connection import Connection, Way
from esm.model.function import AsyncRules, LambdaFunction, UrlFunction
from esm.model.mapping import InvocationType, Mapping, StartingPosition
from esm.settings import load_settings
from esm.sources.sqs import SqsQueue
from esm.telemetry import Telemetry
from tests.fakes.accounts import Accounts, accounts

HERE, THERE = "123456789012", "444455556666"
ROLE = f"arn:aws:iam::{THERE}:role/poller"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "daemon")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def client_there(url: str) -> object:
    """SQS as somebody of the other account sees it."""
    given = boto3.client(
        "sts", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    ).assume_role(RoleArn=ROLE, RoleSessionName="maker")["Credentials"]
    return boto3.client(
        "sqs", endpoint_url=url, region_name="us-east-1", aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"], aws_session_token=given["SessionToken"],
    )  # fmt: skip


@pytest.mark.parametrize("server", ["moto_url", "ministack"])
async def test_a_queue_of_another_account_is_polled_with_a_role_of_it(
    server: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(server)
    requests: list[tuple[str, str, str]] = []
    name = f"q-{uuid.uuid4()}"
    writer = client_there(url)
    queue_url = writer.create_queue(QueueName=name)["QueueUrl"]
    arn = Arn.parse(
        writer.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    )
    writer.send_message(QueueUrl=queue_url, MessageBody="over there")
    sessions = Sessions("us-east-1", url, {}, lambda *call: requests.append(call))
    queue = SqsQueue(arn, sessions.through(Way(role_arn=ROLE)), says_null_md5=False)
    await queue.facts()
    messages = await queue.receive(10, 1)
    assert [json.loads(message.event)["body"] for message in messages] == ["over there"]
    assert await queue.delete(messages) == []
    await sessions.aclose()
    assert requests[0] == ("sts", "AssumeRole", "ok")
    assert {outcome for _, _, outcome in requests} == {"ok"}
    assert [operation for service, operation, _ in requests if service == "sts"] == ["AssumeRole"]


async def test_a_queue_of_another_account_is_not_seen_without_its_role(moto_url: str) -> None:
    name = f"q-{uuid.uuid4()}"
    client_there(moto_url).create_queue(QueueName=name)
    sessions = Sessions("us-east-1", moto_url, {}, lambda *_: None)
    client = await sessions.client("sqs")
    listed = await client.list_queues(QueueNamePrefix=name)
    assert listed.get("QueueUrls", []) == []
    await sessions.aclose()


FUNCTION = Arn.parse(f"arn:aws:lambda:us-east-1:{HERE}:function:f")
IN_LAMBDA = LambdaFunction("f", FUNCTION, connection="gate")
BEHIND_URL = UrlFunction(
    "u", FUNCTION, f"arn:aws:iam::{HERE}:role/execution", "http://127.0.0.1:9", "rie", 3, has_role=True
)
GATE = Connection("gate", role_arn=f"arn:aws:iam::{THERE}:role/gate", external_id="sesame")
NOTIFIER = Connection("notifier", role_arn=f"arn:aws:iam::{THERE}:role/notifier")
QUEUE = Arn.parse(f"arn:aws:sqs:us-east-1:{HERE}:q")
FAILED = Arn.parse(f"arn:aws:sqs:us-east-1:{THERE}:failed")
STREAM = Arn.parse(f"arn:aws:kinesis:us-east-1:{THERE}:stream/s")
FROM_QUEUE = Mapping("a", "u", FUNCTION, QUEUE, SourceKind.SQS)
FROM_STREAM = Mapping(
    "b", "f", FUNCTION, STREAM, SourceKind.KINESIS, starting_position=StartingPosition.TRIM_HORIZON,
    on_failure=FAILED, on_failure_connection="notifier", connection="gate", role_arn=ROLE,
)  # fmt: skip


def configuration(url: str, *mappings: Mapping, gate: Connection = GATE) -> Configuration:
    return Configuration(
        region="us-east-1", account_id=HERE, endpoint_url=url, endpoints={}, functions={}, mappings=mappings,
        functions_by_mapping={"a": BEHIND_URL, "b": IN_LAMBDA}, places={}, warnings=(), path=Path("esm.yaml"), files=(),
        connections={"gate": gate, "notifier": NOTIFIER},
    )  # fmt: skip


@asynccontextmanager
async def composed(url: str, folder: Path) -> AsyncIterator[Adapters]:
    settings = load_settings({"ESM_STATE": f"sqlite:///{folder}/state.db", "ESM_WORKER_ID": "one"}, {})
    made = daemon.make_adapters(settings, configuration(url), Telemetry(CollectorRegistry()))
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def world() -> AsyncIterator[Accounts]:
    async with accounts() as fake:
        yield fake


async def test_a_missing_destination_is_named_beside_the_words_of_aws(moto_url: str, tmp_path: Path) -> None:
    lost = Arn.parse(f"arn:aws:sqs:us-east-1:{HERE}:lost-{uuid.uuid4()}")
    mapping = Mapping(
        "a", "u", FUNCTION, STREAM, SourceKind.KINESIS, starting_position=StartingPosition.LATEST, on_failure=lost
    )
    queued = replace(FROM_QUEUE, invocation_type=InvocationType.EVENT)
    function = replace(BEHIND_URL, asynchronous=AsyncRules(on_failure=lost, dead_letter=lost))
    async with composed(moto_url, tmp_path) as adapters:
        (plan,) = daemon.plans(configuration(moto_url, mapping)).values()
        texts = await inspection.problems_of_the_world([plan], adapters)
        (plan,) = daemon.plans(configuration(moto_url, queued)).values()
        texts += await inspection.problems_of_the_world([replace(plan, function=function)], adapters)
    assert any(
        f"{STREAM}: DestinationConfig.OnFailure {lost}: Error occurred while GetQueueUrl" in one for one in texts
    )
    for name in ("EventInvokeConfig OnFailure", "DeadLetterConfig"):
        assert any(f"{QUEUE}: {name} {lost}: Error occurred while GetQueueUrl" in one for one in texts), name
    assert any(f"{QUEUE}: Nothing takes a connection at 127.0.0.1:9 (Connection refused)" in one for one in texts)


async def test_source_destination_and_target_are_each_called_as_the_mapping_says(
    world: Accounts, tmp_path: Path
) -> None:
    plans = daemon.plans(configuration(world.url, FROM_QUEUE, FROM_STREAM))
    async with composed(world.url, tmp_path) as adapters:
        await inspection.problems_of_the_world([plans["a"]], adapters)
        assert world.callers("GetQueueUrl") == ["execution"]
        world.asks.clear()
        await inspection.problems_of_the_world([plans["b"]], adapters)
    assert world.callers("DescribeStreamSummary") == ["poller"]
    assert world.callers("GetQueueUrl") == ["poller"]
    assert world.callers("GET") == ["gate"]
    assumed = [(ask.caller, ask.parameters["RoleArn"].rpartition("/")[2]) for ask in world.asked("AssumeRole")]
    assert sorted(assumed) == [("daemon", "gate"), ("daemon", "notifier"), ("gate", "poller"), ("notifier", "poller")]
    assert {ask.parameters["RoleSessionName"] for ask in world.asked("AssumeRole")} == {"esm-one"}


async def test_what_a_changed_connection_left_behind_is_let_go_and_mappings_that_stay_keep_theirs(
    world: Accounts, tmp_path: Path
) -> None:
    before = daemon.plans(configuration(world.url, FROM_QUEUE, FROM_STREAM))
    after = daemon.plans(
        configuration(world.url, FROM_QUEUE, FROM_STREAM, gate=Connection("gate", role_arn=NOTIFIER.role_arn))
    )
    assert before["a"] == after["a"]
    assert before["b"] != after["b"]
    async with composed(world.url, tmp_path) as adapters:
        target = adapters.target(before["b"].function, before["b"].ways.target)
        await inspection.problems_of_the_world(list(before.values()), adapters)
        kept = await adapters.sessions.through(before["a"].ways.source).client("sqs")
        gone = await adapters.sessions.through(before["b"].ways.target).client("lambda", read_timeout_s=930.0)
        await adapters.keep([*before.values(), *after.values()])
        assert gone._endpoint.http_session._sessions is not None
        assert adapters.unused(list(after.values())) == [target]
        await adapters.keep(list(after.values()))
        assert gone._endpoint.http_session._sessions is None
        assert await adapters.sessions.through(after["a"].ways.source).client("sqs") is kept
        assert adapters.target(before["b"].function, before["b"].ways.target) is not target
