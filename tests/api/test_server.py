"""The server itself: who is let in, what it bears, what it says of what it does not do."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from esm.api import composition, offered, slow_clients
from esm.api.credentials import Caller, Credentials, read
from esm.api.mappings import function_name
from esm.errors import ConfigurationRefused
from esm.model.desired import DesiredMapping
from esm.model.function import Function
from esm.model.invocation import Ending, Invocation
from esm.model.mapping import State
from esm.model.stored import Key
from esm.rules.desired import MAPPINGS
from tests.api.served import NOW, Served, World, function_arn, served
from tests.api.test_mappings import FIRST, PATH, QUEUE, declared, made
from tests.api.test_signatures import SECRETS

KEYS = [
    {"AccessKeyId": "AKID", "SecretAccessKey": SECRETS["AKID"], "Actions": ["lambda:Get*", "lambda:List*"]},
    {"AccessKeyId": "OTHER", "SecretAccessKey": SECRETS["OTHER"], "Actions": ["*"], "Functions": ["g*"]},
]


def written(path: Path, *entries: Any) -> Path:
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.safe_dump({"credentials": list(entries)}))
    return fresh.replace(path)


def loaded(folder: Path) -> Credentials:
    return Credentials(written(folder / "keys.yaml", *KEYS), pytest.fail)


def test_every_operation_that_is_offered_is_answered_and_no_other() -> None:
    assert composition.handlers(None).keys() == offered.OFFERED.keys()  # type: ignore[arg-type] - nothing is called


async def test_what_is_not_offered_answers_501() -> None:
    async with served() as api:
        answer = await api.call("POST", "/2015-03-31/functions", {"FunctionName": "f"})
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (501, "NotImplementedException")
        answer = await api.call("GET", "/nothing")
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (404, "UnknownOperationException")
        assert answer.headers["x-amzn-RequestId"]


async def test_a_signature_and_what_it_allows_are_needed(tmp_path: Path) -> None:
    async with served(World(declared_mappings=(declared(),)), loaded(tmp_path)) as api:
        answer = await api.call("GET", PATH)
        assert (answer.status, answer.json) == (403, {"message": "Missing Authentication Token"})
        api.keys = ("AKID", SECRETS["AKID"])
        assert len((await api.call("GET", PATH)).json["EventSourceMappings"]) == 1
        answer = await api.call("POST", PATH, {"FunctionName": "f", "EventSourceArn": QUEUE})
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (403, "AccessDeniedException")
        api.keys = ("AKID", "another")
        answer = await api.call("GET", PATH)
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (403, "InvalidSignatureException")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("f", "f"), ("f:1", "f"), ("111111111111:f", "f"), ("111111111111:function:f:1", "f"), ("function:f", "f"),
        ("arn:aws:lambda:us-east-1:111111111111:function:f", "f"), ("us-east-1:111111111111:function:f:$LATEST", "f"),
    ],
)  # fmt: skip
def test_what_a_credential_allows_is_by_the_bare_name(text: str, name: str) -> None:
    assert function_name(text) == name


def test_a_caller_may_what_the_file_says(tmp_path: Path) -> None:
    credentials = loaded(tmp_path)
    one, other = credentials.caller("AKID"), credentials.caller("OTHER")
    assert one is not None
    assert other is not None
    assert (one.may("lambda:GetFunction"), one.may("lambda:InvokeFunction")) == (True, False)
    assert (other.may("lambda:InvokeFunction"), other.may_on("g1"), other.may_on("f")) == (True, True, False)
    assert credentials.caller("NOBODY") is None
    assert SECRETS["AKID"] not in repr(one)


def test_a_changed_file_is_followed_and_a_wrong_one_reported(tmp_path: Path) -> None:
    said: list[str] = []
    path = written(tmp_path / "keys.yaml", *KEYS)
    credentials = Credentials(path, said.append)
    path.write_text("credentials: []")
    assert credentials.caller("AKID") is not None
    assert "must be a list" in said[0]
    written(path, KEYS[1])
    assert (credentials.caller("AKID"), credentials.caller("OTHER") is None) == (None, False)
    path.unlink()
    assert credentials.caller("OTHER") is not None
    assert "cannot be read" in said[1]


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([], "must be a list"),
        (["x"], "must be a table"),
        ([KEYS[0] | {"Other": 1}], "unknown members: Other"),
        ([KEYS[0] | {"AccessKeyId": "a/b"}], "letters, digits"),
        ([KEYS[0] | {"SecretAccessKey": "short"}], "16 characters or more"),
        ([KEYS[0] | {"Actions": ["s3:*"]}], "must be such as"),
        ([KEYS[0] | {"Actions": "*"}], "must be a list of texts"),
        ([KEYS[0] | {"Functions": []}], "must be a list of texts"),
        ([KEYS[0], KEYS[0]], "stands twice"),
    ],
)
def test_a_wrong_file_is_refused_by_place_and_shows_no_secret(entries: list[Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationRefused, match=text) as refused:
        read(written(tmp_path / "keys.yaml", *entries))
    assert SECRETS["AKID"] not in str(refused.value)


@pytest.mark.parametrize("content", ["{", "- a\n b: c", "x" * (1024 * 1024 + 1), "\x00", "[]"])
def test_a_file_that_is_none_is_refused_without_its_words(content: str, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(content)
    with pytest.raises(ConfigurationRefused):
        read(tmp_path / "keys.yaml")


async def test_without_credentials_no_page_of_a_browser_is_served() -> None:
    async with served() as api:
        for headers in ({"Origin": "http://evil"}, {"Host": "evil.example:3001"}):
            answer = await api.call("GET", PATH, headers=headers)
            assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (403, "AccessDeniedException")
        for host in ("localhost:3001", "[::1]:3001", "127.0.0.1"):
            assert (await api.call("GET", PATH, headers={"Host": host})).status == 200


async def raw(api: Served, data: bytes, *, is_ended: bool = True) -> bytes:
    """What the server answers to bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write(data)
        if is_ended:
            writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def test_huge_and_malformed_heads_are_refused() -> None:
    async with served() as api:
        head = b"GET %s HTTP/1.1\r\nHost: localhost\r\n" % PATH.encode()
        for data in (
            head + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n", b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
            b"nonsense\r\n\r\n", head + b"no colon\r\n\r\n", head + b"Content-Length: -1\r\n\r\n",
            head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        ):  # fmt: skip
            answer = await raw(api, data, is_ended=False)
            assert b" 400 " in answer.splitlines()[0]
        assert (await api.call("GET", PATH)).status == 200


async def test_a_body_that_claims_too_much_is_refused_before_it_comes() -> None:
    async with served() as api:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7000000\r\n\r\n".encode()
        answer = await raw(api, head, is_ended=False)
        assert b" 413 " in answer.splitlines()[0]
        chunked = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        piece = b"%x\r\n%s\r\n" % (7_000_000, b"x" * 7_000_000)
        assert b" 413 " in (await raw(api, chunked + piece, is_ended=False)).splitlines()[0]


async def test_there_are_never_more_connections_than_the_bound() -> None:
    made: list[asyncio.Protocol] = []

    class Inner(asyncio.Protocol):
        def __init__(self) -> None:
            made.append(self)

    connections = slow_clients.Connections(Inner, connections_max=2)
    server = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    open_ones[0][1].close()
    while len(connections._open) > 1:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    again = await asyncio.open_connection("127.0.0.1", port)
    assert len(connections._open) == 2
    for _, one in (*open_ones, again):
        one.close()
    server.close()


async def test_a_client_that_says_nothing_or_takes_nothing_is_let_go() -> None:
    class Writes(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:  # noqa: ARG002
            self.transport.write(b"x" * 50_000_000)  # type: ignore[attr-defined]

    connections = slow_clients.Connections(Writes, head_s=0.1, take_s=0.1)
    server = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for data in (b"", b"GET"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        if data:
            connections.begun(next(iter(connections._open.values()))._transport)
            writer.write(data)
        while connections._open:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)
        writer.close()
        assert reader is not None
    server.close()


async def test_what_a_newer_version_has_stored_is_said_until_it_is_written_again() -> None:
    async with served() as api:
        await api.catalogue._store.put(Key(*MAPPINGS, "u"), b'{"format": 1000}', None)
        answer = await api.call("GET", PATH)
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (500, "ServiceException")
        assert "a newer version has written it" in answer.json["Message"]


async def test_a_daemon_that_stops_takes_nothing_new() -> None:
    async with served() as api:
        api.is_open = False
        answer = await api.call("GET", PATH)
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (500, "ServiceException")


async def test_what_is_under_way_is_answered_before_the_end() -> None:
    go_on = asyncio.Event()

    class Slow(World):
        async def invoke(self, function: Function, invocation: Invocation) -> Ending:
            await go_on.wait()
            return await super().invoke(function, invocation)

    async with served(Slow()) as api:
        task = asyncio.create_task(api.call("POST", "/2015-03-31/functions/f/invocations", {}))
        await asyncio.sleep(0.1)
        api.is_open = False
        waiting = asyncio.create_task(api.api.wait_idle())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        go_on.set()
        answer = await task
        await waiting
        assert (answer.status, answer.headers["Connection"]) == (200, "close")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /2015-03-31/functions/%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /2015-03-31/functions?MaxItems=" + b"9" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /2015-03-31/functions?MaxItems=%d0%b9&Marker=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /2015-03-31/event-source-mappings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5015\r\n\r\n"
        b'{"BatchSize": ' + b"9" * 5000 + b"}",
        (
            b"POST /2015-03-31/event-source-mappings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 24\r\n\r\n"
            b'{"EventSourceArn":"\\ud"}'
        ),
        (
            b"POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: localhost\r\nX-Amz-Log-Type: \xe4\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        ),
    ],
)
async def test_odd_signs_and_numbers_are_refused_and_no_crash(data: bytes) -> None:
    async with served() as api:
        answer = await raw(api, data.replace(b"Host:", b"Connection: close\r\nHost:"), is_ended=False)
        assert answer.splitlines()[0].split()[1] in (b"400", b"404"), answer


def test_anybody_may_everything() -> None:
    assert Caller("x").may("lambda:Invoke")
    assert Caller("x").may_on("f")


async def test_a_restricted_caller_sees_and_changes_its_own_functions_alone(tmp_path: Path) -> None:
    async with served(World(), loaded(tmp_path)) as api:
        api.keys = ("OTHER", SECRETS["OTHER"])
        answer = await api.call("POST", PATH, {"FunctionName": "f", "EventSourceArn": QUEUE})
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (403, "AccessDeniedException")
        text = answer.json["message"]
        assert (
            "user/OTHER is not authorized to perform: lambda:CreateEventSourceMapping on resource: function f" in text
        )
        own = await made(api, FunctionName="g")
        others = await stored_for_f(api)
        found = (await api.call("GET", PATH)).json["EventSourceMappings"]
        assert [one["FunctionArn"][-1] for one in found] == ["g"]
        for method in ("GET", "DELETE", "PUT"):
            assert (await api.call(method, f"{PATH}/{others}", {} if method == "PUT" else None)).status == 403
        assert (await api.call("GET", f"{PATH}/{own['UUID']}")).status == 200
        assert len((await api.call("GET", "/2015-03-31/functions")).json["Functions"]) == 1
        assert (await api.call("GET", "/2015-03-31/functions/f")).status == 403
        assert (await api.call("POST", "/2015-03-31/functions/f/invocations", {})).status == 403
        await api.runs(own["UUID"])
        assert (await api.call("PUT", f"{PATH}/{own['UUID']}", {"FunctionName": "f"})).status == 403
        assert api.audit.changes[0]["who"] == "OTHER"


async def stored_for_f(api: Served) -> str:
    """A mapping of another function than the caller's, as somebody else made it."""
    request = {"FunctionName": "f", "EventSourceArn": QUEUE}
    uuid = FIRST[:-1] + "9"
    wanted = DesiredMapping(uuid, request, function_arn("f"), State.ENABLED, NOW, NOW)
    await api.catalogue.put_mapping(wanted)
    return uuid
