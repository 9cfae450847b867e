"""The Runtime API as a runtime sees it: whatever the pieces in which bytes come, and whatever the bytes are."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esm.host.extensions_api import Extensions, Facts
from esm.host.runtime_api import Event, Phase, RuntimeApi, loopback
from tests.host.conftest import until

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"
RESPONSE = (
    b"POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\nHost: x\r\n"
    b"content-type: application/json\r\ncontent-length: 11\r\n\r\n[1, 2,  3]\n"
)
CHUNKED = (
    b"POST /2018-06-01/runtime/invocation/id-1/error HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Lambda-Runtime-Function-XRay-Error-Cause: " + b"x" * 200_000 + b"\r\n\r\n"
    b"4\r\n[1, \r\n7\r\n2,  3]\n\r\n0\r\n\r\n"
)
EVENT = Event("id-1", "arn:aws:lambda:us-east-1:000000000000:function:f", 1_700_000_000_000, b'{"a":  1}')


class Script:
    """Gives one event and keeps what comes back."""

    def __init__(self, external: Sequence[str] = ()) -> None:
        self.extensions = Extensions(Facts("f", "$LATEST", "app.handler", "000000000000"), external, self)
        self.api = RuntimeApi(self, self.extensions)
        self.said: list[object] = []

    def progressed(self) -> None:
        self.said.append("asked")
        if len(self.said) == 1 and self.api.is_waiting:
            self.api.deliver(EVENT)

    def answered(self, payload: bytes, error_type: str | None) -> None:
        self.said.append((payload, error_type))

    def answered_too_much(self) -> None:
        self.said.append("too much")

    def answered_in_part(self) -> None:
        self.said.append("in part")

    def init_failed(self, payload: bytes, error_type: str) -> None:
        self.said.append(("init", payload, error_type))

    def extension_failed(self, name: str, error_type: str) -> None:
        self.said.append((name, error_type))


Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def served(external: Sequence[str] = ()) -> AsyncIterator[tuple[Script, Callable[[], Awaitable[Peer]]]]:
    script = Script(external)
    listening = loopback()
    host, port = listening.getsockname()
    await script.api.open(listening)
    peers: list[Peer] = []

    async def connect() -> Peer:
        peers.append(await asyncio.open_connection(host, port))
        return peers[-1]

    try:
        yield script, connect
    finally:
        for _, writer in peers:
            writer.close()
        await script.api.aclose()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().split("\r\n")
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def exchange(hand_in: bytes, cuts: list[int]) -> list[object]:
    async with served() as (script, connect):
        reader, writer = await connect()
        writer.write(NEXT)
        status, headers, payload = await answer(reader)
        assert (status, payload, headers["lambda-runtime-aws-request-id"]) == (200, EVENT.payload, "id-1")
        assert headers["lambda-runtime-deadline-ms"] == "1700000000000"
        assert "lambda-runtime-trace-id" not in headers
        places = sorted(cut % len(hand_in) for cut in cuts)
        for begin, end in zip([0, *places], [*places, len(hand_in)], strict=True):
            writer.write(hand_in[begin:end])
            await writer.drain()
            await asyncio.sleep(0)
        status, _, body = await answer(reader)
        assert (status, body) == (202, b'{"status":"OK"}\n')
        writer.write(NEXT)
        await until(lambda: len(script.said) >= 3)
        return script.said


@pytest.mark.parametrize(("hand_in", "error_type"), [(RESPONSE, None), (CHUNKED, "Function.Unknown")])
@given(cuts=st.lists(st.integers(0, 10**6), max_size=12))
@settings(max_examples=25, deadline=None)
def test_an_answer_is_the_same_however_its_bytes_are_cut(hand_in, error_type, cuts):
    assert asyncio.run(exchange(hand_in, cuts)) == ["asked", (b"[1, 2,  3]\n", error_type), "asked"]


@given(data=st.one_of(st.binary(min_size=1, max_size=300), st.sampled_from([
    b"GET / HTTP/9.9\r\n\r\n", b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nno colon\r\n\r\n",
])))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_what_is_not_http_never_becomes_an_answer_and_harms_no_other_connection(data: bytes):
    async def run() -> None:
        async with served() as (script, connect):
            reader, writer = await connect()
            writer.write(data)
            writer.write_eof()
            said = await asyncio.wait_for(reader.read(), 5)
            assert not said or b" 400 " in said.split(b"\r\n")[0] or b" 404 " in said.split(b"\r\n")[0]
            assert script.said == []
            other, writer = await connect()
            writer.write(NEXT)
            assert (await answer(other))[0] == 200

    asyncio.run(run())


async def test_what_is_too_large_is_told_so_and_not_kept():
    async with served() as (script, connect):
        reader, writer = await connect()
        writer.write(NEXT)
        await answer(reader)
        writer.write(RESPONSE.partition(b"content-length")[0] + b"content-length: 6291557\r\n\r\n" + b"x" * 6_291_557)
        status, _, body = await answer(reader)
        assert status == 413
        assert body == (
            b'{"errorMessage": "Exceeded maximum allowed payload size (6291556 bytes).",'
            b' "errorType": "RequestEntityTooLarge"}'
        )
        assert script.said == ["asked", "too much"]


async def test_calls_out_of_turn_are_refused():
    async with served() as (script, connect):
        reader, writer = await connect()
        writer.write(NEXT)
        await answer(reader)
        for call, status, kind in (
            (NEXT, 403, b"InvalidStateTransition"),
            (RESPONSE.replace(b"id-1", b"id-0"), 400, b"InvalidRequestID"),
            (RESPONSE.replace(b"invocation/id-1/response", b"init/error"), 403, b"InvalidStateTransition"),
        ):
            second, peer = await connect()
            peer.write(call)
            got, _, body = await answer(second)
            assert (got, kind in body) == (status, True)
        writer.write(RESPONSE)
        assert (await answer(reader))[0] == 202
        second, peer = await connect()
        peer.write(RESPONSE)
        assert (await answer(second))[0] == 403
        assert script.said == ["asked", (b"[1, 2,  3]\n", None)]


async def test_a_runtime_whose_connection_broke_while_it_waited_may_ask_again():
    async with served() as (script, connect):
        script.said.append("nothing to give yet")
        _, writer = await connect()
        writer.write(NEXT)
        await until(lambda: len(script.said) >= 2)
        writer.transport.abort()
        await until(lambda: script.api._next is None)
        script.api.deliver(EVENT)
        assert script.api._phase is Phase.RUNNING
        reader, writer = await connect()
        writer.write(NEXT)
        status, _, payload = await answer(reader)
        assert (status, payload) == (200, EVENT.payload)


def call(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def ask(connect: Callable[[], Awaitable[Peer]], request: bytes) -> tuple[int, dict[str, str], Any]:
    reader, writer = await connect()
    writer.write(request)
    status, headers, body = await answer(reader)
    return status, headers, json.loads(body)


REGISTER = "/2020-01-01/extension/register"
BOTH = b'{"events": ["INVOKE", "SHUTDOWN"]}'


def next_event(identifier: str) -> bytes:
    return call("GET", "/2020-01-01/extension/event/next", Lambda_Extension_Identifier=identifier)


async def test_an_extension_registers_and_is_told_of_invocations_and_of_the_end():
    async with served(["tracer"]) as (script, connect):
        extensions = script.extensions
        assert not extensions.are_registered
        status, headers, said = await ask(connect, call("POST", REGISTER, BOTH, Lambda_Extension_Name="tracer"))
        assert (status, said) == (
            200, {"functionName": "f", "functionVersion": "$LATEST", "handler": "app.handler"},
        )  # fmt: skip
        assert extensions.are_registered
        assert not extensions.are_waiting
        identifier = headers["lambda-extension-identifier"]
        asked = asyncio.ensure_future(ask(connect, next_event(identifier)))
        await until(lambda: extensions.are_waiting)
        extensions.invoke("id-1", "arn", 17, "Root=1")
        assert not extensions.are_waiting
        status, headers, said = await asked
        assert (status, said) == (200, {
            "eventType": "INVOKE", "deadlineMs": 17, "requestId": "id-1", "invokedFunctionArn": "arn",
            "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1"},
        })  # fmt: skip
        assert "lambda-extension-event-identifier" in headers
        extensions.shut_down("SPINDOWN", 18)
        status, _, said = await ask(connect, next_event(identifier))
        assert said == {"eventType": "SHUTDOWN", "shutdownReason": "SPINDOWN", "deadlineMs": 18}
        assert extensions.want_shutdown


async def test_an_extension_that_asked_for_no_event_only_waits_and_may_ask_for_the_account():
    async with served(["quiet"]) as (script, connect):
        _, headers, said = await ask(connect, call(
            "POST", REGISTER, b'{"events": []}', Lambda_Extension_Name="quiet",
            Lambda_Extension_Accept_Feature="accountId",
        ))  # fmt: skip
        assert said["accountId"] == "000000000000"
        reader, writer = await connect()
        writer.write(next_event(headers["lambda-extension-identifier"]))
        await until(lambda: script.extensions.are_waiting)
        script.extensions.invoke("id-1", "arn", 17, None)
        assert script.extensions.are_waiting
        second = await ask(connect, next_event(headers["lambda-extension-identifier"]))
        assert (second[0], second[2]["errorType"]) == (403, "Extension.InvalidExtensionState")
        assert reader.at_eof() is False


async def test_internal_extensions_register_while_the_runtime_starts_and_for_invocations_only():
    async with served() as (script, connect):
        refused = await ask(connect, call("POST", REGISTER, BOTH, Lambda_Extension_Name="inner"))
        assert (refused[0], refused[2]["errorType"]) == (403, "Extension.InvalidEventType")
        for number in range(10):
            status, _, _ = await ask(
                connect, call("POST", REGISTER, b'{"events": ["INVOKE"]}', Lambda_Extension_Name=f"inner{number}")
            )
            assert status == 200
        one_more = call("POST", REGISTER, b'{"events": ["INVOKE"]}', Lambda_Extension_Name="more")
        assert (await ask(connect, one_more))[2]["errorType"] == "Extension.TooManyExtensions"
        script.extensions.close_registration()
        assert (await ask(connect, one_more))[2]["errorType"] == "Extension.RegistrationClosed"


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        (call("POST", REGISTER, BOTH), 403, "Extension.InvalidExtensionName"),
        (call("POST", REGISTER, b"{", Lambda_Extension_Name="tracer"), 403, "InvalidRequestFormat"),
        (call("POST", REGISTER, b"[1]", Lambda_Extension_Name="tracer"), 403, "InvalidRequestFormat"),
        (call("POST", REGISTER, b'{"events": [3]}', Lambda_Extension_Name="tracer"), 403, "InvalidRequestFormat"),
        (call("POST", REGISTER, b'{"events": ["X"]}', Lambda_Extension_Name="tracer"), 403,
         "Extension.InvalidEventType"),
        (call("GET", "/2020-01-01/extension/event/next"), 403, "Extension.MissingExtensionIdentifier"),
        (next_event("nonsense"), 403, "Extension.InvalidExtensionIdentifier"),
        (next_event("00000000-0000-0000-0000-000000000000"), 403, "Extension.UnknownExtensionIdentifier"),
        (call("GET", "/2020-01-01/extension/other"), 404, "NotFound"),
        (call("PUT", "/2022-07-01/telemetry", b"{}"), 202, "Telemetry.NotSupported"),
        (call("PUT", "/2020-08-15/logs", b"{}"), 202, "Logs.NotSupported"),
        (call("GET", "/2018-06-01/runtime/restore/next"), 404, "NotFound"),
    ],
)  # fmt: skip
async def test_a_malformed_call_is_refused_by_name(request_: bytes, status: int, kind: str):
    async with served(["tracer"]) as (_, connect):
        got, _, said = await ask(connect, request_)
        assert (got, said["errorType"]) == (status, kind)


async def test_an_extension_can_say_that_it_failed_and_registers_once():
    async with served(["tracer"]) as (script, connect):
        register = call("POST", REGISTER, BOTH, Lambda_Extension_Name="tracer")
        _, headers, _ = await ask(connect, register)
        assert (await ask(connect, register))[2]["errorType"] == "Extension.InvalidExtensionState"
        identifier = headers["lambda-extension-identifier"]
        path = "/2020-01-01/extension/init/error"
        unnamed = await ask(connect, call("POST", path, Lambda_Extension_Identifier=identifier))
        assert unnamed[2]["errorType"] == "Extension.MissingHeader"
        failed = call("POST", path, Lambda_Extension_Identifier=identifier,
                      Lambda_Extension_Function_Error_Type="Extension.Bad")  # fmt: skip
        assert (await ask(connect, failed))[0] == 202
        assert script.said[-1] == ("tracer", "Extension.InitError")
        assert (await ask(connect, failed))[2]["errorType"] == "Extension.InvalidExtensionState"
        assert (await ask(connect, next_event(identifier)))[2]["errorType"] == "Extension.InvalidExtensionState"


async def test_everything_that_lambda_says_of_a_call_reaches_the_runtime():
    async with served() as (script, connect):
        script.said.append("nothing to give yet")
        reader, writer = await connect()
        writer.write(NEXT)
        await until(lambda: script.api.is_waiting)
        script.api.deliver(replace(
            EVENT, trace="Root=1", client_context='{"custom":{}}', cognito_identity='{"cognitoIdentityId":"i"}',
            invocation_id="attempt-1",
        ))  # fmt: skip
        _, headers, _ = await answer(reader)
        assert headers["lambda-runtime-client-context"] == '{"custom":{}}'
        assert headers["lambda-runtime-cognito-identity"] == '{"cognitoIdentityId":"i"}'
        assert (headers["lambda-runtime-trace-id"], headers["lambda-runtime-invocation-id"]) == ("Root=1", "attempt-1")
        path = "/2018-06-01/runtime/invocation/id-1/error"
        wrong = await ask(connect, call("POST", path, b"{}", Lambda_Runtime_Invocation_Id="attempt-2"))
        assert (wrong[0], wrong[2]["errorType"]) == (400, "InvalidInvocationId")
        right = call("POST", path, b"{}", Lambda_Runtime_Invocation_Id="attempt-1",
                     Lambda_Runtime_Function_Error_Type="Function.Broken")  # fmt: skip
        assert (await ask(connect, right))[0] == 202
        assert script.said[-1] == (b"{}", "Function.Broken")


async def test_a_failed_initialisation_is_named_and_ends_everything():
    async with served() as (script, connect):
        path = "/2018-06-01/runtime/init/error"
        status, _, _ = await ask(connect, call("POST", path, b"{}", Lambda_Runtime_Function_Error_Type="odd"))
        assert (status, script.said) == (202, [("init", b"{}", "Runtime.Unknown")])


STREAMED = (
    b"POST /2018-06-01/runtime/invocation/id-1/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Lambda-Runtime-Function-Response-Mode: streaming\r\n\r\n4\r\n[1, \r\n"
)


async def test_a_streamed_answer_is_passed_on_piece_by_piece_or_gathered():
    pieces: list[bytes] = []

    async def take(piece: bytes) -> None:
        pieces.append(piece)

    for stream, payload in ((take, b""), (None, b"[1, 2,  3]\n")):
        async with served() as (script, connect):
            script.said.append("nothing to give yet")
            reader, writer = await connect()
            writer.write(NEXT)
            await until(lambda script=script: script.api.is_waiting)
            script.api.deliver(replace(EVENT, stream=stream))
            await answer(reader)
            writer.write(STREAMED)
            if stream is not None:
                await until(lambda: pieces == [b"[1, "])
            writer.write(b"7\r\n2,  3]\n\r\n0\r\n\r\n")
            assert (await answer(reader))[0] == 202
            assert script.said[-1] == (payload, None)
    assert b"".join(pieces) == b"[1, 2,  3]\n"


async def test_a_stream_that_breaks_off_is_no_whole_answer():
    async def take(_: bytes) -> None:
        return

    async with served() as (script, connect):
        script.said.append("nothing to give yet")
        reader, writer = await connect()
        writer.write(NEXT)
        await until(lambda: script.api.is_waiting)
        script.api.deliver(replace(EVENT, stream=take))
        await answer(reader)
        writer.write(STREAMED)
        await until(lambda: script.api._phase is Phase.STREAMING)
        writer.transport.abort()
        await until(lambda: script.said[-1] == "in part")
