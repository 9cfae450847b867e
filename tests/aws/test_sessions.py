"""Clients of AWS's APIs: one a service and region, no repeating of their own, connections that stay alive."""

import asyncio
import socket
from collections.abc import Mapping

import pytest

from esm.aws import clients as module
from esm.aws.sessions import Sessions
from esm.errors import OperatorNeeded, Unavailable
from tests.fakes.aws_server import PAGE, Ask, Said, aws_server, refusing, saying


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def endpoint(client: object) -> str:
    return str(client.meta.endpoint_url)  # type: ignore[attr-defined]


def unused(endpoint_url: str | None, endpoints: Mapping[str, str]) -> Sessions:
    return Sessions("eu-west-1", endpoint_url, endpoints, lambda *_: None)


async def test_a_client_is_made_once_for_each_service_region_and_read_timeout() -> None:
    sessions = unused("http://127.0.0.1:9", {})
    first, again = await asyncio.gather(sessions.client("sqs"), sessions.client("sqs", "eu-west-1"))
    elsewhere = await sessions.client("sqs", "us-west-2")
    patient = await sessions.client("sqs", read_timeout_s=930)
    assert first is again
    assert len({id(first), id(elsewhere), id(patient)}) == 3
    assert [client.meta.region_name for client in (first, elsewhere)] == ["eu-west-1", "us-west-2"]
    await sessions.aclose()


async def test_a_service_has_its_own_endpoint_or_the_common_one_or_awss() -> None:
    named = unused("http://127.0.0.1:9", {"sqs": "http://127.0.0.1:10"})
    assert endpoint(await named.client("sqs")) == "http://127.0.0.1:10"
    assert endpoint(await named.client("kinesis")) == "http://127.0.0.1:9"
    await named.aclose()
    real = unused(None, {})
    assert endpoint(await real.client("kinesis", "cn-north-1")) == "https://kinesis.cn-north-1.amazonaws.com.cn"
    assert endpoint(await real.client("kinesis")) == "https://kinesis.eu-west-1.amazonaws.com"
    await real.aclose()


async def test_an_endpoint_that_is_no_url_is_an_operators_matter() -> None:
    sessions = unused("localhost:4566", {})
    with pytest.raises(OperatorNeeded, match="a client of sqs in eu-west-1 cannot be made: Invalid endpoint"):
        await sessions.client("sqs")
    await sessions.aclose()


async def test_a_hot_call_that_fails_is_sent_once() -> None:
    async with aws_server(ReceiveMessage=refusing("InternalFailure", status=500)) as (server, sessions):
        client = await sessions.client("sqs")
        with pytest.raises(Unavailable):
            await sessions.call(client, "receive_message", QueueUrl="http://q")
    assert len(server.asks) == 1
    assert server.outcomes == [("sqs", "ReceiveMessage", "InternalFailure")]


async def test_a_control_call_is_tried_again_until_it_is_answered() -> None:
    script = [PAGE, refusing("ThrottlingException"), saying({"QueueUrl": "http://q"})]
    async with aws_server(GetQueueUrl=script) as (server, sessions):
        answer = await sessions.control(await sessions.client("sqs"), "get_queue_url", QueueName="q")
    assert answer["QueueUrl"] == "http://q"
    assert [outcome for _, _, outcome in server.outcomes] == ["502", "ThrottlingException", "ok"]


async def test_a_control_call_that_is_refused_is_not_tried_again() -> None:
    async with aws_server(GetQueueUrl=refusing("AccessDenied", status=403)) as (server, sessions):
        with pytest.raises(OperatorNeeded, match="GetQueueUrl: AccessDenied: why"):
            await sessions.control(await sessions.client("sqs"), "get_queue_url", QueueName="q")
    assert len(server.asks) == 1


async def test_connections_are_kept_alive_by_the_system() -> None:
    async with aws_server(GetQueueUrl=saying({"QueueUrl": "http://q"})) as (_, sessions):
        client = await sessions.client("sqs")
        await sessions.call(client, "get_queue_url", QueueName="q")
        connector = client._endpoint.http_session._sessions[None].connector
        (idle,) = connector._conns.values()
        made = idle[0][0].transport.get_extra_info("socket")
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [made.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [60, 15, 4]


async def test_a_server_that_does_not_answer_in_time_is_unavailable() -> None:
    is_over = asyncio.Event()

    async def late(_: Ask) -> Said:
        await is_over.wait()
        return saying({})

    async with aws_server(ReceiveMessage=late) as (server, sessions):
        client = await sessions.client("sqs", read_timeout_s=0.05)
        with pytest.raises(Unavailable, match="ReceiveMessage: ReadTimeoutError"):
            await sessions.call(client, "receive_message", QueueUrl="http://q")
        is_over.set()
    assert server.outcomes == [("sqs", "ReceiveMessage", "unreachable")]


async def test_a_daemon_without_credentials_says_which_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    async with aws_server() as (server, sessions):
        with pytest.raises(OperatorNeeded, match=r"GetQueueUrl: .*Give the daemon credentials"):
            await sessions.call(await sessions.client("sqs"), "get_queue_url", QueueName="q")
    assert server.outcomes == [("sqs", "GetQueueUrl", "credentials")]


def test_a_connection_outlives_what_a_nat_remembers() -> None:
    first_probe_s, every_s, tries = module.KEEPALIVE_IDLE_S, module.KEEPALIVE_EVERY_S, module.KEEPALIVE_TRIES
    assert first_probe_s + every_s * tries < 350
