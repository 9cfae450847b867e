"""What the SDK reads from its own variables and files holds for the daemon; what its file names comes first."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web
from prometheus_client import CollectorRegistry

from esm.api.operations import serving
from esm.aws.failures import CredentialsMissing
from esm.aws.sessions import Sessions
from esm.config.urls import url_problem
from esm.errors import OperatorNeeded, Unavailable
from esm.model.arn import Arn
from esm.model.connection import Connection, Way
from esm.model.function import UrlFunction
from esm.model.invocation import Answer, Invocation
from esm.settings import load_settings
from esm.targets.http import HttpFunction
from esm.targets.rie import Rie
from esm.telemetry import Telemetry
from tests.fakes.accounts import Accounts, accounts
from tests.fakes.proxy import Proxy, proxy
from tests.fakes.rie_server import answering, rie_server

Env = pytest.MonkeyPatch
ROLE = "arn:aws:iam::111122223333:role/poller"


@pytest.fixture(autouse=True)
def env(monkeypatch: Env, tmp_path: Path) -> Env:
    """An environment without anything of AWS and of proxies but a key."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "daemon")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return monkeypatch


@pytest.fixture
async def world() -> AsyncIterator[Accounts]:
    async with accounts() as fake:
        yield fake


@pytest.fixture
async def nowhere(env: Env) -> AsyncIterator[Proxy]:
    """A proxy that notes which host each request goes to, and lets none through."""
    async with proxy() as fake:
        env.setenv("HTTPS_PROXY", fake.url)
        yield fake


@asynccontextmanager
async def sessions_of(url: str | None = None, region: str = "us-east-1", **endpoints: str) -> AsyncIterator[Sessions]:
    made = Sessions(region, url, endpoints, lambda *_: None)
    try:
        yield made
    finally:
        await made.aclose()


async def ask(sessions: Sessions, service: str = "sqs", region: str | None = None) -> None:
    client = await sessions.client(service, region)
    if service == "sqs":
        await sessions.call(client, "get_queue_url", QueueName="q")
    elif service == "kinesis":
        await sessions.call(client, "list_shards", StreamName="s")
    else:
        await sessions.call(client, "describe_stream", StreamArn="arn:aws:dynamodb:us-east-1:1:table/t/stream/x")


async def hosts(proxied: Proxy, sessions: Sessions, *places: tuple[str, str]) -> list[str]:
    """The hosts that a request for each service and region goes to."""
    for service, region in places:
        with pytest.raises(Unavailable):
            await ask(sessions, service, region)
    return [asked.removeprefix("CONNECT ").removesuffix(":443") for asked in proxied.asked]


async def test_every_region_of_every_partition_has_its_own_endpoint(nowhere: Proxy) -> None:
    async with sessions_of() as sessions:
        assert await hosts(
            nowhere, sessions, ("sqs", "eu-west-1"), ("kinesis", "cn-north-1"), ("dynamodbstreams", "cn-northwest-1"),
            ("sqs", "us-gov-west-1"), ("dynamodbstreams", "us-gov-east-1"),
        ) == [
            "sqs.eu-west-1.amazonaws.com", "kinesis.cn-north-1.amazonaws.com.cn",
            "streams.dynamodb.cn-northwest-1.amazonaws.com.cn", "sqs.us-gov-west-1.amazonaws.com",
            "streams.dynamodb.us-gov-east-1.amazonaws.com",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("role", "host"),
    [
        ("arn:aws:iam::1:role/r", "sts.eu-west-1.amazonaws.com"),
        ("arn:aws-cn:iam::1:role/r", "sts.cn-northwest-1.amazonaws.com.cn"),
        ("arn:aws-us-gov:iam::1:role/r", "sts.us-gov-west-1.amazonaws.com"),
    ],
)
async def test_a_role_is_asked_for_at_the_regional_sts_of_its_partition(nowhere: Proxy, role: str, host: str) -> None:
    async with sessions_of(region="eu-west-1") as sessions:
        assert await hosts(nowhere, sessions.through(Way(role_arn=role)), ("sqs", "eu-west-1")) == [host]


async def test_fips_endpoints_are_used_where_they_are_asked_for(nowhere: Proxy, env: Env) -> None:
    env.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    async with sessions_of() as sessions:
        assert await hosts(nowhere, sessions, ("kinesis", "us-east-1"), ("sqs", "us-gov-west-1")) == [
            "kinesis-fips.us-east-1.amazonaws.com", "sqs.us-gov-west-1.amazonaws.com",
        ]  # fmt: skip


async def test_dual_stack_endpoints_are_used_where_they_are_asked_for(nowhere: Proxy, env: Env) -> None:
    env.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
    async with sessions_of() as sessions:
        assert await hosts(nowhere, sessions, ("kinesis", "us-east-1"), ("sqs", "us-east-1")) == [
            "kinesis.us-east-1.api.aws", "sqs.us-east-1.api.aws",
        ]  # fmt: skip


@pytest.mark.parametrize("variable", ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"])
async def test_an_endpoint_that_is_named_is_used_as_it_is(world: Accounts, env: Env, variable: str) -> None:
    env.setenv(variable, "true")
    async with sessions_of(world.url) as sessions:
        await ask(sessions)
    assert world.callers("GetQueueUrl") == ["daemon"]


async def test_an_endpoint_that_makes_no_sense_is_an_operators_matter(nowhere: Proxy) -> None:
    async with sessions_of() as sessions:
        client = await sessions.client("kinesis", "us-east-1")
        with pytest.raises(OperatorNeeded, match=r"ListShards: .*aws-cn from ARN doesn't match"):
            await sessions.call(client, "list_shards", StreamARN="arn:aws-cn:kinesis:cn-north-1:111122223333:stream/s")
    assert nowhere.asked == []


async def test_the_environments_endpoint_serves_where_the_configuration_names_none(world: Accounts, env: Env) -> None:
    env.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    env.setenv("AWS_ENDPOINT_URL_SQS", world.url)
    async with sessions_of() as sessions:
        await ask(sessions)
        with pytest.raises(Unavailable):
            await ask(sessions, "kinesis")
    assert world.callers("GetQueueUrl") == ["daemon"]


@pytest.mark.parametrize("named", ["endpoint_url", "service", "connection"])
async def test_the_configurations_endpoint_comes_before_the_environments(world: Accounts, env: Env, named: str) -> None:
    nobody = "http://127.0.0.1:9"
    env.setenv("AWS_ENDPOINT_URL", nobody)
    env.setenv("AWS_ENDPOINT_URL_SQS", nobody)
    way = Way(Connection("c", endpoint_url=world.url)) if named == "connection" else Way()
    endpoints = {"sqs": world.url if named == "service" else nobody} if named != "endpoint_url" else {}
    async with sessions_of(world.url if named == "endpoint_url" else nobody, **endpoints) as sessions:
        await ask(sessions.through(way))
    assert world.callers("GetQueueUrl") == ["daemon"]


async def test_a_connections_endpoint_is_stss_too_unless_one_is_named_for_sts(world: Accounts) -> None:
    way = Way(Connection("c", endpoint_url=world.url), ROLE)
    async with sessions_of("http://127.0.0.1:9") as sessions:
        await ask(sessions.through(way))
    async with accounts() as elsewhere, sessions_of("http://127.0.0.1:9", sts=elsewhere.url) as sessions:
        await ask(sessions.through(way))
        assert [ask.operation for ask in elsewhere.asks] == ["AssumeRole"]
    assert [ask.operation for ask in world.asks] == ["AssumeRole", "GetQueueUrl", "GetQueueUrl"]


@pytest.fixture
def authority(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """What a server needs to be 127.0.0.1, ::1 and AWS's SQS, and the bundle that vouches for it."""
    made = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("127.0.0.1", "::1", "sqs.us-east-1.amazonaws.com").configure_cert(context)
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return context, str(tmp_path / "ca.pem")


async def test_a_bundle_of_certificates_vouches_for_a_server(authority: tuple[ssl.SSLContext, str], env: Env) -> None:
    context, bundle = authority
    async with accounts(context=context) as world:
        async with sessions_of(world.url) as sessions:
            with pytest.raises(Unavailable, match="SSLError"):
                await ask(sessions)
        env.setenv("AWS_CA_BUNDLE", bundle)
        async with sessions_of(world.url) as sessions:
            await ask(sessions)
            await ask(sessions.through(Way(role_arn=ROLE)))
    assert world.callers("GetQueueUrl") == ["daemon", "poller"]


async def test_a_bundle_that_is_not_there_is_named(world: Accounts, env: Env, tmp_path: Path) -> None:
    env.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    async with sessions_of(world.url.replace("http:", "https:")) as sessions:
        with pytest.raises(OperatorNeeded, match=r"there is no file .*none\.pem, which AWS_CA_BUNDLE"):
            await ask(sessions)


async def test_https_goes_through_the_proxy_and_stays_private(authority: tuple[ssl.SSLContext, str], env: Env) -> None:
    context, bundle = authority
    async with accounts(context=context) as world, proxy(world.url) as through, sessions_of() as sessions:
        env.setenv("HTTPS_PROXY", through.url)
        env.setenv("AWS_CA_BUNDLE", bundle)
        await ask(sessions)
        await ask(sessions)
    assert through.asked == ["CONNECT sqs.us-east-1.amazonaws.com:443"]
    assert [ask.host for ask in world.asks] == ["sqs.us-east-1.amazonaws.com"] * 2


async def test_http_goes_through_the_proxy_but_not_to_whom_it_is_not_for(world: Accounts, env: Env) -> None:
    async with proxy(world.url) as through:
        env.setenv("HTTP_PROXY", through.url)
        env.setenv("NO_PROXY", "127.0.0.1,localhost")
        async with sessions_of(world.url) as near, sessions_of("http://far.example") as far:
            await ask(near)
            assert through.asked == []
            await ask(far)
        assert through.asked == ["POST http://far.example/"]
    assert [ask.host for ask in world.asks] == [world.url.removeprefix("http://"), "far.example"]


async def test_a_proxy_that_is_down_is_unavailable(env: Env) -> None:
    env.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with sessions_of() as sessions:
        with pytest.raises(Unavailable, match="ProxyConnectionError"):
            await ask(sessions)


async def test_the_password_of_a_proxy_is_in_no_error(env: Env) -> None:
    async with proxy() as refusing:
        env.setenv("HTTPS_PROXY", refusing.url.replace("http://", "http://me:hunter2@"))
        async with sessions_of() as sessions:
            with pytest.raises(Unavailable) as caught:
                await ask(sessions)
    assert "hunter2" not in str(caught.value)


PROFILES = "[mine]\naws_access_key_id = profiled\naws_secret_access_key = s\n"


async def test_a_profile_of_the_environment_is_used(world: Accounts, env: Env, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(PROFILES)
    env.delenv("AWS_ACCESS_KEY_ID")
    env.setenv("AWS_PROFILE", "mine")
    async with sessions_of(world.url) as sessions:
        await ask(sessions)
    assert world.callers("GetQueueUrl") == ["profiled"]


async def test_a_connections_profile_comes_before_the_keys_of_the_environment(world: Accounts, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(PROFILES)
    async with sessions_of(world.url) as sessions:
        await ask(sessions.through(Way(Connection("c", profile="mine"))))
        await ask(sessions.through(Way(Connection("c", profile="mine"), ROLE)))
        await ask(sessions)
    assert [(ask.operation, ask.caller) for ask in world.asks] == [
        ("GetQueueUrl", "profiled"), ("AssumeRole", "profiled"), ("GetQueueUrl", "poller"), ("GetQueueUrl", "daemon"),
    ]  # fmt: skip


async def test_keys_of_a_file_that_were_replaced_are_found(world: Accounts, env: Env, tmp_path: Path) -> None:
    env.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "credentials").write_text(PROFILES.replace("mine", "default").replace("profiled", "ASIAended"))
    async with sessions_of(world.url) as sessions:
        with pytest.raises(OperatorNeeded, match="ExpiredTokenException"):
            await ask(sessions)
        (tmp_path / "credentials").write_text(PROFILES.replace("mine", "default"))
        await ask(sessions)
    assert world.callers("GetQueueUrl") == ["ASIAended", "profiled"]


async def test_a_profile_that_is_not_there_is_named(world: Accounts) -> None:
    async with sessions_of(world.url) as sessions:
        with pytest.raises(OperatorNeeded, match=r"The config profile \(gone\) could not be found"):
            await ask(sessions.through(Way(Connection("c", profile="gone"))))


async def test_a_web_identity_is_assumed_with_the_token_of_the_moment(
    world: Accounts, env: Env, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    env.delenv("AWS_ACCESS_KEY_ID")
    env.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/pod")
    env.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    world.lifetime_s = 60
    async with sessions_of(world.url) as sessions:
        env.setenv("AWS_ENDPOINT_URL_STS", world.url)
        await ask(sessions)
        token.write_text("second")
        await ask(sessions.through(Way(role_arn=ROLE)))
    asked = world.asked("AssumeRoleWithWebIdentity")
    assert [ask.parameters["WebIdentityToken"] for ask in asked] == ["first", "second"]
    assert {ask.caller for ask in asked} == {""}
    assert world.callers("AssumeRole") == ["pod"]
    assert world.callers("GetQueueUrl") == ["pod", "poller"]


async def test_a_web_identity_that_is_refused_or_without_token_is_an_operators_matter(
    world: Accounts, env: Env, tmp_path: Path
) -> None:
    env.delenv("AWS_ACCESS_KEY_ID")
    env.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/pod")
    env.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    env.setenv("AWS_ENDPOINT_URL_STS", world.url)
    async with sessions_of(world.url) as sessions:
        with pytest.raises(CredentialsMissing, match=r"GetQueueUrl: the daemon has no credentials: .*token"):
            await ask(sessions)
    (tmp_path / "token").write_text("secret-token")
    world.refusal = ("AccessDenied", 403, "Not authorized to perform sts:AssumeRoleWithWebIdentity")
    async with sessions_of(world.url) as sessions:
        with pytest.raises(CredentialsMissing, match="AssumeRoleWithWebIdentity: AccessDenied: Not auth") as caught:
            await ask(sessions)
    assert "secret-token" not in str(caught.value)


async def test_a_pods_identity_is_asked_for_with_the_token_of_the_moment(
    world: Accounts, env: Env, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    env.delenv("AWS_ACCESS_KEY_ID")
    env.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{world.url}/pod")
    env.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    world.lifetime_s = 60
    async with sessions_of(world.url) as sessions:
        await ask(sessions)
        token.write_text("second")
        await ask(sessions)
    assert set(world.pod_tokens) == {"first", "second"}
    assert world.callers("GetQueueUrl") == ["pod", "pod"]


async def test_a_pods_identity_is_asked_for_only_nearby(world: Accounts, env: Env) -> None:
    env.delenv("AWS_ACCESS_KEY_ID")
    env.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/pod")
    async with sessions_of(world.url) as sessions:
        with pytest.raises(CredentialsMissing, match=r"Unsupported host '192\.0\.2\.1'"):
            await ask(sessions)


async def test_an_endpoint_may_be_an_ipv6_address(authority: tuple[ssl.SSLContext, str], env: Env) -> None:
    context, bundle = authority
    env.setenv("AWS_CA_BUNDLE", bundle)
    for secured in (None, context):
        async with accounts("::1", secured) as world, sessions_of(world.url) as sessions:
            await ask(sessions.through(Way(role_arn=ROLE)))
        assert [ask.host for ask in world.asks] == [world.url.rpartition("//")[2]] * 2


def test_an_endpoint_of_file_and_settings_may_be_an_ipv6_address() -> None:
    assert url_problem("http://[::1]:4566") is None
    assert load_settings({"ESM_ENDPOINT_URL": "http://[::1]:4566"}, {}).endpoint_url == "http://[::1]:4566"


async def test_the_metrics_may_listen_on_an_ipv6_address() -> None:
    settings = load_settings({"ESM_METRICS_ADDRESS": "[::1]:0"}, {})

    async def well(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.add_routes([web.get("/healthz", well)])
    host, port = settings.metrics_host_port
    async with (
        serving(app, host, port) as bound, aiohttp.ClientSession() as client,
        client.get(f"http://[::1]:{bound}/healthz") as answer,
    ):  # fmt: skip
        assert await answer.text() == "ok"


async def test_a_function_may_be_behind_an_ipv6_address() -> None:
    arn = Arn.parse("arn:aws:lambda:us-east-1:123456789012:function:f")
    async with rie_server(answering(200, b"null"), "::1") as server:
        function = UrlFunction("f", arn, "role", f"http://[::1]:{server.port}", "rie", 3)
        target = HttpFunction(function, Rie(function), Telemetry(CollectorRegistry()))
        assert await target.invoke(Invocation("r", arn, b"{}", None, None)) == Answer("r", b"null")
        await target.aclose()
    assert server.calls[0].headers["host"] == f"[::1]:{server.port}"
