"""A function behind HTTP: every way in which a server can answer, and not answer."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from esm.errors import Unavailable
from esm.model.function import FunctionFacts
from esm.model.invocation import Answer, Ending, Misconfigured, Refused, Throttled, Unreachable
from esm.targets.addresses import Addresses
from tests.fakes.rie_server import Call, RieServer, answering, holding, rie_server
from tests.fakes.url_functions import ARN, ROLE, invocation, target_for

PATH = "/2015-03-31/functions/function/invocations"


async def ending(reply: Callable[[Call], Awaitable[None]], payload: bytes = b"{}", timeout_s: int = 30) -> Ending:
    async with rie_server(reply) as server, target_for(server.url, timeout_s=timeout_s) as target:
        return await target.invoke(invocation(payload))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_payload_and_answer_pass_byte_for_byte() -> None:
    payload = b'{"a" :  1.00, "b":"\xc3\xa4"}' + b" " * 3_000_000
    answer = b'  {"c":"\xff\xfe\\u0041" }\n'
    async with rie_server(answering(200, answer)) as server, target_for(server.url) as target:
        assert await target.invoke(invocation(payload)) == Answer("request-1", answer)
        assert server.calls[0].body == payload


async def test_a_request_names_the_invocation() -> None:
    async with rie_server(answering(200, b"null")) as server, target_for(server.url) as target:
        before_ms = time.time() * 1000
        await target.invoke(invocation(trace="Root=1-2-3;Sampled=1"))
        call = server.calls[0]
    assert call.line == f"POST {PATH} HTTP/1.1"
    deadline_ms = int(call.headers.pop("lambda-runtime-deadline-ms"))
    assert before_ms + 30_000 - 1 <= deadline_ms <= before_ms + 35_000
    assert call.headers == {
        "host": f"127.0.0.1:{server.port}",
        "connection": "close",
        "content-type": "application/json",
        "content-length": "2",
        "lambda-runtime-aws-request-id": "request-1",
        "lambda-runtime-invoked-function-arn": str(ARN),
        "x-amzn-trace-id": "Root=1-2-3;Sampled=1",
    }


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", PATH),
        ("/", PATH),
        ("/stage", "/stage" + PATH),
        (PATH, PATH),
        ("/2015-03-31/functions/other/invocations", "/2015-03-31/functions/other/invocations"),
    ],
)
async def test_a_url_gets_the_emulators_path_unless_it_has_one(path: str, asked: str) -> None:
    async with rie_server(answering(200, b"null")) as server, target_for(server.url + path) as target:
        await target.invoke(invocation())
        assert server.calls[0].line.split()[1] == asked


async def test_a_named_host_keeps_its_name_in_the_request() -> None:
    async with rie_server(answering(200, b"null")) as server, target_for(f"http://localhost:{server.port}") as target:
        assert await target.invoke(invocation()) == Answer("request-1", b"null")
        assert server.calls[0].headers["host"] == f"localhost:{server.port}"


ERROR = b'{"errorMessage": "boom", "errorType": "ValueError", "stackTrace": []}'


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (200, b"", {}, Answer("request-1", b"")),
        (200, b'"errorType errorMessage"', {}, Answer("request-1", b'"errorType errorMessage"')),
        (200, b'{"errorType": "x"}', {}, Answer("request-1", b'{"errorType": "x"}')),
        (200, b'[{"errorType":1,"errorMessage":2}]', {}, Answer("request-1", b'[{"errorType":1,"errorMessage":2}]')),
        (200, ERROR, {}, Answer("request-1", ERROR, "Unhandled")),
        (200, b"null", {"X_Amz_Function_Error": "Handled"}, Answer("request-1", b"null", "Handled")),
        (500, ERROR, {}, Answer("request-1", ERROR, "Unhandled")),
        (502, b'{"errorType":"X"}', {}, Answer("request-1", b'{"errorType":"X"}', "Unhandled")),
        (504, ERROR, {}, Answer("request-1", ERROR, "Unhandled")),
        (429, b"", {}, Throttled("request-1")),
        (429, ERROR, {"Retry_After": "7"}, Throttled("request-1", 7.0)),
        (429, b"", {"Retry_After": "9999999"}, Throttled("request-1", 900.0)),
        (429, b"", {"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, Throttled("request-1")),
        (400, b"", {}, Throttled("request-1")),
    ],
)  # fmt: skip
async def test_an_answer_means(status: int, body: bytes, headers: dict[str, str], expected: Ending) -> None:
    assert await ending(answering(status, body, **headers)) == expected


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (301, b"", Misconfigured),
        (400, b"no", Misconfigured),
        (401, b"", Misconfigured),
        (403, b"", Misconfigured),
        (404, ERROR, Misconfigured),
        (413, b"", Refused),
        (500, b"oh", Unreachable),
        (501, b"", Unreachable),
        (502, b"<html>errorType</html>", Unreachable),
        (502, b'["errorType"]', Unreachable),
        (503, ERROR, Unreachable),
        (504, b"", Unreachable),
    ],
)
async def test_an_answer_that_shows_no_function_ran_is_no_attempt(status: int, body: bytes, kind: type[Ending]) -> None:
    came = await ending(answering(status, body))
    assert type(came) is kind
    assert str(status) in getattr(came, "text")  # noqa: B009
    assert "boom" not in str(came)


async def test_a_redirect_is_not_followed() -> None:
    async with rie_server(answering(307, Location="/elsewhere")) as server, target_for(server.url) as target:
        assert isinstance(await target.invoke(invocation()), Misconfigured)
        assert len(server.calls) == 1


async def test_the_emulators_timeout_text_is_lambdas_error() -> None:
    came = await ending(answering(200, b"Task timed out after 7.00 seconds"), timeout_s=7)
    assert came == Answer("request-1", timeout_payload("7.00"), "Unhandled")


def timeout_payload(seconds: str) -> bytes:
    return (
        b'{"errorType":"Sandbox.Timedout",'
        b'"errorMessage":"RequestId: request-1 Error: Task timed out after %s seconds"}' % seconds.encode()
    )


async def test_the_largest_answer_passes_and_a_larger_one_is_a_function_error() -> None:
    largest = b'"' + b"x" * (6_291_556 - 2) + b'"'
    assert await ending(answering(200, largest)) == Answer("request-1", largest)
    assert await ending(answering(200, largest + b" ")) == Answer(
        "request-1",
        b'{"errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes).",'
        b'"errorType":"Function.ResponseSizeTooLarge"}',
        "Unhandled",
    )


async def test_an_answer_without_end_is_bounded() -> None:
    async def reply(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            call.writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await call.writer.drain()

    came = await ending(reply)
    assert isinstance(came, Answer)
    assert b"Function.ResponseSizeTooLarge" in came.payload


LOST = Answer(
    "request-1",
    b'{"errorType":"Runtime.ExitError",'
    b'"errorMessage":"RequestId: request-1 Error: Runtime exited without providing a reason"}',
    "Unhandled",
)


async def close_unanswered(call: Call) -> None:
    call.writer.close()


async def reset_unanswered(call: Call) -> None:
    call.writer.transport.abort()


async def close_halfway(call: Call) -> None:
    call.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await call.writer.drain()
    call.writer.close()


@pytest.mark.parametrize("reply", [close_unanswered, reset_unanswered, close_halfway])
async def test_a_connection_lost_after_the_request_counts(reply: Callable[[Call], Awaitable[None]]) -> None:
    assert await ending(reply) == LOST


async def test_an_answer_that_is_not_http_is_a_configuration_to_mend() -> None:
    async def reply(call: Call) -> None:
        call.writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    came = await ending(reply)
    assert isinstance(came, Misconfigured)
    assert "not HTTP" in came.text


async def test_a_refused_connection_is_no_attempt() -> None:
    async with target_for(f"http://127.0.0.1:{free_port()}") as target:
        came = await target.invoke(invocation())
        assert isinstance(came, Unreachable)
        assert "cannot be reached" in came.text


async def test_a_host_without_address_is_no_attempt() -> None:
    async with target_for("http://no-such-host.invalid:8080") as target:
        came = await target.invoke(invocation())
        assert isinstance(came, Unreachable)
        assert "no-such-host.invalid" in came.text
        with pytest.raises(Unavailable, match="no-such-host"):
            await target.facts()
        await target.wait_free()


async def test_a_server_without_tls_is_no_attempt_for_https() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, target_for(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as target:
        assert isinstance(await target.invoke(invocation()), Unreachable)


async def test_a_connection_lost_before_the_request_was_sent_is_no_attempt() -> None:
    """The server reads nothing and closes: 20 MB cannot have left."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1000)
    async with server, target_for(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as target:
        assert isinstance(await target.invoke(invocation(b"x" * 20_000_000)), Unreachable)


async def test_a_silent_function_times_out_and_its_address_waits_for_it() -> None:
    free = asyncio.Event()
    async with rie_server(holding(free)) as server, target_for(server.url, timeout_s=1) as target:
        begun = time.monotonic()
        assert await target.invoke(invocation()) == Answer("request-1", timeout_payload("1.00"), "Unhandled")
        assert 1.9 < time.monotonic() - begun < 3
        start_by = asyncio.get_running_loop().time() + 0.2
        assert await target.invoke(invocation(start_by=start_by)) == Throttled("request-1")
        free.set()
        await target.wait_free()
        assert await target.invoke(invocation()) == Answer("request-1", b"null")
        assert (len(server.calls), server.at_once_most) == (2, 1)


async def test_a_cancelled_invocation_keeps_its_address_until_the_function_ends() -> None:
    free = asyncio.Event()
    async with rie_server(holding(free)) as server, target_for(server.url) as target:
        running = asyncio.ensure_future(target.invoke(invocation()))
        await server.came.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        following = asyncio.ensure_future(target.invoke(invocation()))
        waiting = asyncio.ensure_future(target.wait_free())
        await asyncio.wait({following, waiting}, timeout=0.1)
        assert not following.done()
        assert not waiting.done()
        free.set()
        assert await following == Answer("request-1", b"null")
        await waiting
        assert server.at_once_most == 1


async def test_an_invocation_cancelled_while_it_waits_takes_no_address_with_it() -> None:
    free = asyncio.Event()
    async with rie_server(holding(free)) as server, target_for(server.url) as target:
        running = [asyncio.ensure_future(target.invoke(invocation())) for _ in range(3)]
        await server.came.wait()
        running[1].cancel()
        free.set()
        assert await running[0] == await running[2] == Answer("request-1", b"null")
        assert running[1].cancelled()
        assert len(server.calls) == 2


async def test_many_invocations_reach_one_address_one_after_the_other() -> None:
    async with rie_server(answering(200, b"null")) as server, target_for(server.url) as target:
        endings = await asyncio.gather(*(target.invoke(invocation()) for _ in range(20)))
        assert set(endings) == {Answer("request-1", b"null")}
        assert (server.at_once_most, server.connections, target.concurrency) == (1, 20, 1)


async def test_nothing_starts_after_its_instant() -> None:
    async with rie_server(answering(200)) as server, target_for(server.url) as target:
        start_by = asyncio.get_running_loop().time()
        assert await target.invoke(invocation(start_by=start_by)) == Throttled("request-1")
        assert server.calls == []


async def test_closing_ends_what_waits_for_an_answer() -> None:
    async with rie_server(holding(asyncio.Event())) as server, target_for(server.url) as target:
        running = asyncio.ensure_future(target.invoke(invocation()))
        await server.came.wait()
        await target.aclose()
        assert await running == Unreachable("request-1", "The target was closed.")


async def test_the_facts_are_those_configured() -> None:
    async with rie_server(answering(200)) as server, target_for(server.url) as target:
        assert await target.facts() == FunctionFacts(30, ROLE)
        assert server.connections == 0


class Names:
    """Answers for a host name as a test says, in place of the system's resolver."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def install(self) -> None:
        loop = asyncio.get_running_loop()
        original = loop.getaddrinfo

        async def getaddrinfo(host: str, port: int, **options: int) -> object:
            if host != "fleet.test":
                return await original(host, port, **options)
            await self.may_answer.wait()
            if not self.addresses:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return [
                (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in self.addresses
            ]

        loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign, assignment]


async def test_each_address_of_a_name_serves_one_invocation() -> None:
    names = Names("127.0.0.1", "127.0.0.2", "127.0.0.3", "::1")
    names.install()
    free = asyncio.Event()
    async with (
        rie_server(holding(free), "127.0.0.1", "127.0.0.2", "127.0.0.3") as server,
        target_for(f"http://fleet.test:{server.port}") as target,
    ):
        assert target.concurrency == 1
        await target.facts()
        assert target.concurrency == 3
        running = [asyncio.ensure_future(target.invoke(invocation())) for _ in range(5)]
        await reached(server, 3)
        assert len(server.calls) == 3
        free.set()
        assert set(await asyncio.gather(*running)) == {Answer("request-1", b"null")}
        assert server.at_once_most == 3
        assert {call.headers["host"] for call in server.calls} == {f"fleet.test:{server.port}"}
        assert {call.writer.get_extra_info("sockname")[0] for call in server.calls} == {
            "127.0.0.1",
            "127.0.0.2",
            "127.0.0.3",
        }


async def reached(server: RieServer, count: int) -> None:
    while len(server.calls) < count:
        server.came.clear()
        await server.came.wait()


async def test_addresses_come_and_go_with_the_names_answer() -> None:
    names = Names("10.0.0.1", "10.0.0.2")
    names.install()
    addresses = Addresses("fleet.test", 8080)
    lent = [await addresses.take(None), await addresses.take(None)]
    assert lent == ["10.0.0.1", "10.0.0.2"]
    names.addresses = ("10.0.0.2", "10.0.0.3")
    addresses.doubt("10.0.0.1")
    assert await addresses.take(None) == "10.0.0.3"
    waiting = asyncio.ensure_future(addresses.take(None))
    addresses.give_back("10.0.0.1")
    await asyncio.sleep(0)
    assert not waiting.done()
    addresses.give_back("10.0.0.2")
    assert await waiting == "10.0.0.2"
    assert addresses.capacity == 2


async def test_known_addresses_outlive_the_name_server() -> None:
    names = Names("10.0.0.1")
    names.install()
    addresses = Addresses("fleet.test", 8080)
    address = await addresses.take(None)
    assert address is not None
    addresses.give_back(address)
    names.addresses = ()
    addresses.doubt("10.0.0.1")
    assert await addresses.take(None) == "10.0.0.1"


async def test_a_slow_name_server_holds_up_nobody_who_can_do_with_known_addresses() -> None:
    names = Names("10.0.0.1", "10.0.0.2")
    names.install()
    addresses = Addresses("fleet.test", 8080)
    await addresses.resolve()
    names.may_answer.clear()
    addresses.doubt("10.0.0.2")
    asking = asyncio.ensure_future(addresses.take(None))
    await asyncio.sleep(0)
    assert not asking.done()
    assert await addresses.take(None) == "10.0.0.1"
    assert await asking == "10.0.0.2"
