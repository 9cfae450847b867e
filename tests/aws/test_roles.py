"""Roles: assumed when first needed, again before they end, by whom the way says, and shared by nobody else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from esm.aws import credentials as module
from esm.aws.failures import CredentialsMissing
from esm.aws.identities import session_name
from esm.aws.sessions import Sessions
from esm.errors import EsmError, OperatorNeeded, Unavailable
from esm.model.arn import Arn
from esm.model.connection import Connection, Way
from esm.model.function import LambdaFunction
from esm.model.invocation import Invocation, Misconfigured, Unreachable
from esm.sources.dynamodb import DynamoDBStream
from esm.sources.kinesis import KinesisStream
from esm.sources.sqs import SqsQueue
from esm.targets.aws_lambda import AwsLambda
from esm.telemetry import Telemetry
from tests.fakes.accounts import Accounts, accounts

POLLER = Way(role_arn="arn:aws:iam::111122223333:role/poller")
OTHER = Way(role_arn="arn:aws:iam::111122223333:role/other")
PARTNER = Connection(
    "partner", region="eu-west-1", role_arn="arn:aws:iam::444455556666:role/gate", external_id="sesame-4711",
    session_name="us at partner",
)  # fmt: skip
NOT_ALLOWED = "User: arn:aws:iam::111122223333:user/esm is not authorized to perform: sts:AssumeRole"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "daemon")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
async def world() -> AsyncIterator[Accounts]:
    async with accounts() as fake:
        yield fake


@pytest.fixture
def requests() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
async def daemon(world: Accounts, requests: list[tuple[str, str, str]]) -> AsyncIterator[Sessions]:
    made = Sessions("us-east-1", world.url, {}, lambda *call: requests.append(call), worker="esm-one/two")
    yield made
    await made.aclose()


async def ask(sessions: Sessions) -> None:
    await sessions.call(await sessions.client("sqs"), "get_queue_url", QueueName="q")


async def test_a_role_is_assumed_once_by_the_daemon_and_used_from_then_on(world: Accounts, daemon: Sessions) -> None:
    for _ in range(3):
        await ask(daemon.through(POLLER))
    (assumed,) = world.asked("AssumeRole")
    assert assumed.caller == "daemon"
    assert assumed.parameters["RoleArn"] == POLLER.role_arn
    assert assumed.parameters["RoleSessionName"] == "esm-one-two"
    assert "ExternalId" not in assumed.parameters
    assert world.callers("GetQueueUrl") == ["poller"] * 3


async def test_nothing_is_assumed_before_it_is_needed(world: Accounts, daemon: Sessions) -> None:
    await daemon.through(POLLER).client("sqs")
    assert world.asks == []


async def test_many_pollers_of_a_new_role_ask_for_it_once(world: Accounts, daemon: Sessions) -> None:
    await asyncio.gather(*(ask(daemon.through(POLLER)) for _ in range(20)))
    assert len(world.asked("AssumeRole")) == 1
    assert len(world.asked("GetQueueUrl")) == 20


async def test_a_mappings_role_is_assumed_through_the_role_of_its_connection(world: Accounts, daemon: Sessions) -> None:
    await ask(daemon.through(Way(PARTNER, POLLER.role_arn)))
    gate, poller = world.asked("AssumeRole")
    assert (gate.caller, gate.parameters["RoleArn"], gate.parameters["ExternalId"]) == (
        "daemon", PARTNER.role_arn, "sesame-4711",
    )  # fmt: skip
    assert (poller.caller, poller.parameters["RoleArn"], "ExternalId" in poller.parameters) == (
        "gate", POLLER.role_arn, False,
    )  # fmt: skip
    assert [gate.region, poller.region] == ["eu-west-1", "eu-west-1"]
    assert {gate.parameters["RoleSessionName"], poller.parameters["RoleSessionName"]} == {"us-at-partner"}
    assert world.callers("GetQueueUrl") == ["poller"]
    assert world.asked("GetQueueUrl")[0].region == "eu-west-1"


async def test_an_external_id_without_a_role_of_its_own_is_for_the_one_assumed_through_it(
    world: Accounts, daemon: Sessions
) -> None:
    await ask(daemon.through(Way(replace(PARTNER, role_arn=None), POLLER.role_arn)))
    (assumed,) = world.asked("AssumeRole")
    assert assumed.parameters["ExternalId"] == "sesame-4711"


async def test_two_identities_share_neither_credentials_nor_clients(world: Accounts, daemon: Sessions) -> None:
    one, two, again = daemon.through(POLLER), daemon.through(OTHER), daemon.through(POLLER)
    await asyncio.gather(*(ask(sessions) for sessions in (one, two, daemon)))
    assert sorted(world.callers("GetQueueUrl")) == ["daemon", "other", "poller"]
    clients = [await sessions.client("sqs") for sessions in (one, two, daemon)]
    assert len({id(client) for client in clients}) == 3
    assert len({id(client._endpoint.http_session) for client in clients}) == 3
    assert await again.client("sqs") is clients[0]


async def test_credentials_are_renewed_before_they_end_and_the_old_ones_serve_meanwhile(
    world: Accounts, daemon: Sessions
) -> None:
    world.lifetime_s = module.REFRESH_BEFORE_S - 60
    await ask(daemon.through(POLLER))
    assert len(world.asked("AssumeRole")) == 1
    world.refusal = ("Throttling", 400, "slow")
    await ask(daemon.through(POLLER))
    assert len(world.asked("AssumeRole")) == 2
    assert world.callers("GetQueueUrl") == ["poller", "poller"]


async def test_credentials_that_are_about_to_end_are_renewed_before_the_request(
    world: Accounts, daemon: Sessions
) -> None:
    world.lifetime_s = module.REFRESH_AT_LAST_S - 60
    await ask(daemon.through(POLLER))
    world.lifetime_s = 3600
    for _ in range(3):
        await ask(daemon.through(POLLER))
    assert len(world.asked("AssumeRole")) == 2


async def test_credentials_that_were_revoked_are_asked_for_anew(world: Accounts, daemon: Sessions) -> None:
    await ask(daemon.through(POLLER))
    world.revoke()
    with pytest.raises(OperatorNeeded, match="ExpiredTokenException"):
        await ask(daemon.through(POLLER))
    await ask(daemon.through(POLLER))
    assert len(world.asked("AssumeRole")) == 2
    assert world.callers("GetQueueUrl")[-1] == "poller"


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["ExpiredToken", "AccessDenied", None])), max_size=20))
def test_credentials_are_forgotten_only_for_being_stale_and_rarely(answers: list[tuple[float, str | None]]) -> None:
    now, forgotten_at = 0.0, []
    doubted = module.Doubted(lambda: forgotten_at.append(now), lambda: now)
    for pause, code in answers:
        now += pause
        before = len(forgotten_at)
        doubted.after_call(parsed={} if code is None else {"Error": {"Code": code}})
        assert len(forgotten_at) == before or code == "ExpiredToken"
    assert all(later >= earlier + module.ASK_AGAIN_S for earlier, later in pairwise(forgotten_at))
    stale_at = next((index for index, (_, code) in enumerate(answers) if code == "ExpiredToken"), None)
    assert bool(forgotten_at) == (stale_at is not None)


async def test_a_role_that_is_refused_is_an_operators_matter_in_awss_words(
    world: Accounts, daemon: Sessions, requests: list[tuple[str, str, str]]
) -> None:
    world.refusal = ("AccessDenied", 403, NOT_ALLOWED)
    partner = daemon.through(Way(PARTNER, POLLER.role_arn))
    with pytest.raises(CredentialsMissing) as caught:
        await partner.control(await partner.client("sqs"), "get_queue_url", QueueName="q")
    assert str(caught.value) == (
        f"GetQueueUrl: the role {POLLER.role_arn} cannot be assumed by {PARTNER.role_arn}: AssumeRole: the role"
        f" {PARTNER.role_arn} cannot be assumed by the daemon: AssumeRole: AccessDenied: {NOT_ALLOWED}"
    )
    assert "sesame" not in repr(caught.value) + repr(PARTNER) + repr(partner.identity)
    assert requests == [
        ("sts", "AssumeRole", "AccessDenied"), ("sts", "AssumeRole", "credentials"),
        ("sqs", "GetQueueUrl", "credentials"),
    ]  # fmt: skip


async def test_a_role_that_is_refused_is_asked_for_once_however_many_poll(world: Accounts, daemon: Sessions) -> None:
    world.refusal = ("AccessDenied", 403, NOT_ALLOWED)
    said = await asyncio.gather(*(ask(daemon.through(POLLER)) for _ in range(20)), return_exceptions=True)
    assert {type(error) for error in said} == {CredentialsMissing}
    assert len(world.asked("AssumeRole")) == 1


@given(st.sampled_from([CredentialsMissing("no"), Unavailable("later")]), st.lists(st.floats(0, 3), max_size=20))
async def test_a_failure_is_the_answer_until_its_time_is_over(failure: EsmError, pauses: list[float]) -> None:
    now, asked_at = 0.0, []

    async def ask_sts() -> None:
        asked_at.append(now)
        raise failure

    remembered = module.Remembered(ask_sts, lambda: now)
    for pause in [0.0, *pauses]:
        now += pause
        with pytest.raises(type(failure), match=f"^{failure}$"):
            await remembered()
    holds_s = module.ASK_AGAIN_SOON_S if isinstance(failure, Unavailable) else module.ASK_AGAIN_S
    assert all(later >= earlier + holds_s for earlier, later in pairwise(asked_at))
    assert now < asked_at[-1] + holds_s


@pytest.mark.parametrize("refusal", [("Throttling", 400, "rate"), ("InternalFailure", 500, "oops")])
async def test_an_sts_that_cannot_answer_now_is_unavailable(
    world: Accounts, daemon: Sessions, refusal: tuple[str, int, str]
) -> None:
    world.refusal = refusal
    with pytest.raises(Unavailable, match=r"role/poller was not assumed by the daemon: AssumeRole"):
        await ask(daemon.through(POLLER))


async def test_an_sts_that_is_down_is_unavailable_and_its_endpoint_is_the_configurations(world: Accounts) -> None:
    sessions = Sessions("us-east-1", world.url, {"sts": "http://127.0.0.1:9"}, lambda *_: None)
    with pytest.raises(Unavailable, match="AssumeRole: EndpointConnectionError"):
        await ask(sessions.through(POLLER))
    assert world.asks == []
    await sessions.aclose()


async def test_credentials_that_have_ended_when_they_come_point_at_the_clocks(
    world: Accounts, daemon: Sessions
) -> None:
    world.lifetime_s = -60
    with pytest.raises(OperatorNeeded, match="which has passed: set the clocks"):
        await ask(daemon.through(POLLER))


async def test_an_answer_that_is_not_stss_is_unavailable(world: Accounts, daemon: Sessions) -> None:
    world.refusal = ("", 200, "")
    with pytest.raises(Unavailable, match="AssumeRole: the answer is not sts's"):
        await ask(daemon.through(POLLER))


SOURCES: dict[str, Callable[[Sessions], object]] = {
    "sqs": lambda sessions: SqsQueue(Arn.parse("arn:aws:sqs:us-east-1:1:q"), sessions, says_null_md5=False),
    "kinesis": lambda sessions: KinesisStream(Arn.parse("arn:aws:kinesis:us-east-1:1:stream/s"), "", sessions),
    "dynamodb": lambda sessions: DynamoDBStream(Arn.parse("arn:aws:dynamodb:us-east-1:1:table/t/stream/now"), sessions),
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_source_whose_role_is_refused_does_not_blame_the_permissions_of_the_role(
    world: Accounts, daemon: Sessions, kind: str
) -> None:
    world.refusal = ("AccessDenied", 403, NOT_ALLOWED)
    source = SOURCES[kind](daemon.through(POLLER))
    with pytest.raises(OperatorNeeded, match=r"^\w+: the role arn:aws:iam::111122223333:role/poller cannot be assumed"):
        await source.facts()


async def test_a_function_whose_role_is_refused_is_misconfigured_and_its_facts_are_not_guessed(
    world: Accounts, daemon: Sessions
) -> None:
    arn = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
    target = AwsLambda(LambdaFunction("f", arn), daemon.through(POLLER), Telemetry(CollectorRegistry()))
    world.refusal = ("AccessDenied", 403, NOT_ALLOWED)
    ending = await target.invoke(Invocation("r", arn, b"{}", None, None))
    assert isinstance(ending, Misconfigured)
    assert "cannot be assumed by the daemon: AssumeRole: AccessDenied" in ending.text
    with pytest.raises(OperatorNeeded, match="cannot be assumed"):
        await target.facts()


async def test_a_function_whose_role_cannot_be_had_now_is_unreachable(world: Accounts, daemon: Sessions) -> None:
    arn = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
    target = AwsLambda(LambdaFunction("f", arn), daemon.through(POLLER), Telemetry(CollectorRegistry()))
    world.refusal = ("Throttling", 400, "rate")
    assert isinstance(await target.invoke(Invocation("r", arn, b"{}", None, None)), Unreachable)


async def test_what_no_way_uses_any_more_is_closed_and_the_rest_stays(world: Accounts, daemon: Sessions) -> None:
    chained = Way(PARTNER, POLLER.role_arn)
    for way in (chained, OTHER):
        await ask(daemon.through(way))
    mine = await daemon.client("sqs")
    kept = await daemon.through(chained).client("sqs")
    gone = await daemon.through(OTHER).client("sqs")
    await daemon.keep({chained, Way(role_arn="no arn")})
    assert await daemon.client("sqs") is mine
    assert await daemon.through(chained).client("sqs") is kept
    assert gone._endpoint.http_session._sessions is None
    assert await daemon.through(OTHER).client("sqs") is not gone
    await ask(daemon.through(chained))
    assert len(world.asked("AssumeRole")) == 3


async def test_a_connection_whose_endpoint_changed_leaves_nothing_open(world: Accounts, daemon: Sessions) -> None:
    before, after = (
        Way(Connection("c", endpoint_url="http://127.0.0.1:9")),
        Way(Connection("c", endpoint_url=world.url)),
    )
    gone = await daemon.through(before).client("sqs")
    kept = await daemon.through(after).client("sqs")
    with pytest.raises(Unavailable):
        await daemon.call(gone, "get_queue_url", QueueName="q")
    await daemon.keep({after})
    assert gone._endpoint.http_session._sessions is None
    assert await daemon.through(after).client("sqs") is kept
    assert await daemon.through(before).client("sqs") is not gone


async def test_a_role_that_is_no_arn_or_of_no_partition_is_an_operators_matter() -> None:
    sessions = Sessions("us-east-1", None, {}, lambda *_: None)
    with pytest.raises(OperatorNeeded, match="RoleArn: 'poller' is not an ARN"):
        await sessions.through(Way(role_arn="poller")).client("sqs")
    with pytest.raises(OperatorNeeded, match="is in the partition 'moon', which AWS does not have"):
        await sessions.through(Way(role_arn="arn:moon:iam::111122223333:role/x")).client("sqs")


@pytest.mark.parametrize(
    ("role", "connection", "region"),
    [
        ("arn:aws:iam::1:role/r", None, "eu-west-1"),
        ("arn:aws:iam::1:role/r", Connection("c", region="us-west-2"), "us-west-2"),
        ("arn:aws-cn:iam::1:role/r", None, "cn-northwest-1"),
        ("arn:aws-cn:iam::1:role/r", Connection("c", region="cn-north-1"), "cn-north-1"),
        ("arn:aws-us-gov:iam::1:role/r", None, "us-gov-west-1"),
    ],
)
def test_a_role_is_asked_for_in_a_region_of_its_partition(
    role: str, connection: Connection | None, region: str
) -> None:
    sessions = Sessions("eu-west-1", None, {}, lambda *_: None)
    assert sessions.through(Way(connection, role)).identity.roles[-1].region == region


def test_a_role_is_asked_for_in_the_region_of_an_emulator_whatever_it_is_called() -> None:
    sessions = Sessions("ddblocal", "http://127.0.0.1:9", {}, lambda *_: None)
    assert sessions.through(POLLER).identity.roles[0].region == "ddblocal"


@given(st.text())
def test_whatever_a_worker_is_called_its_sessions_have_a_name_that_sts_takes(text: str) -> None:
    name = session_name(text)
    assert 2 <= len(name) <= 64
    assert name.isascii()
    assert all(character.isalnum() or character in "_+=,.@-" for character in name)
