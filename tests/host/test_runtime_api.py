"""The Runtime API as a runtime sees it: whatever the pieces in which bytes come, and whatever the bytes are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esm.host.runtime_api import Event, Phase, RuntimeApi
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

    def __init__(self) -> None:
        self.api = RuntimeApi(self)
        self.said: list[object] = []

    def asked(self) -> None:
        self.said.append("asked")
        if len(self.said) == 1:
            self.api.deliver(EVENT)

    def answered(self, payload: bytes, *, has_failed: bool) -> None:
        self.said.append((payload, has_failed))

    def answered_too_much(self) -> None:
        self.said.append("too much")

    def init_failed(self, payload: bytes) -> None:
        self.said.append(("init", payload))


Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Script, Callable[[], Awaitable[Peer]]]]:
    script = Script()
    host, port = (await script.api.open()).split(":")
    peers: list[Peer] = []

    async def connect() -> Peer:
        peers.append(await asyncio.open_connection(host, int(port)))
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


@pytest.mark.parametrize(("hand_in", "has_failed"), [(RESPONSE, False), (CHUNKED, True)])
@given(cuts=st.lists(st.integers(0, 10**6), max_size=12))
@settings(max_examples=25, deadline=None)
def test_an_answer_is_the_same_however_its_bytes_are_cut(hand_in, has_failed, cuts):
    assert asyncio.run(exchange(hand_in, cuts)) == ["asked", (b"[1, 2,  3]\n", has_failed), "asked"]


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
        assert script.said == ["asked", (b"[1, 2,  3]\n", False)]


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
