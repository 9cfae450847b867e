"""web-adapter and http: what is sent, what every answer means, and how many run at once."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esm.errors import RequestRefused
from esm.model.arn import Arn
from esm.model.invocation import Answer, Ending, Invocation, Misconfigured, Refused, Throttled, Unreachable
from esm.rules import http_headers
from esm.targets import any_url, statuses, web_adapter
from esm.targets.addresses import Addresses
from tests.fakes.rie_server import Call, RieServer, answering, holding, rie_server
from tests.fakes.url_functions import ARN, invocation, made, target_for

BOTH = pytest.mark.parametrize("protocol", ["web-adapter", "http"])
ALL = pytest.mark.parametrize("protocol", ["rie", "web-adapter", "http"])


async def ending(reply: Callable[[Call], Awaitable[None]], protocol: str, **members: Any) -> Ending:
    async with rie_server(reply) as server, target_for(server.url, protocol, **members) as target:
        return await target.invoke(invocation())


@ALL
async def test_payload_and_answer_pass_byte_for_byte(protocol: str) -> None:
    payload = b'{"a" :  1.00, "b":"\xc3\xa4"}' + b" " * 3_000_000
    answer = b'  {"c":"\xc3\xa4\\u0041", "n": 1.00e2 }\n'
    async with rie_server(answering(200, answer)) as server, target_for(server.url, protocol) as target:
        assert await target.invoke(invocation(payload)) == Answer("request-1", answer)
        assert server.calls[0].body == payload


@pytest.mark.parametrize(
    ("protocol", "path", "asked"),
    [
        ("web-adapter", "", "/events"),
        ("web-adapter", "/", "/events"),
        ("web-adapter", "?a=b", "/events?a=b"),
        ("web-adapter", "/my/hook?a=b%2f%7E", "/my/hook?a=b%2f%7E"),
        ("http", "", "/"),
        ("http", "/hook/?code=a%2Fb+c%2b%7e==&x", "/hook/?code=a%2Fb+c%2b%7e==&x"),
        ("http", "/a%2Fb/../c", "/a%2Fb/../c"),
        ("http", "/\u00e4{x}?q=\u00e4", "/%C3%A4%7Bx%7D?q=%C3%A4"),
        ("http", "/a#fragment", "/a"),
    ],
)
async def test_the_urls_own_path_and_query_are_asked(protocol: str, path: str, asked: str) -> None:
    async with rie_server(answering(200, b"null")) as server, target_for(server.url + path, protocol) as target:
        await target.invoke(invocation())
        assert server.calls[0].line == f"POST {asked} HTTP/1.1"


async def test_an_application_behind_the_web_adapter_sees_what_the_adapter_sends() -> None:
    arn = Arn.parse(f"{ARN}:live")
    async with rie_server(answering(200)) as server, target_for(server.url, "web-adapter") as target:
        before_ms = time.time() * 1000
        await target.invoke(Invocation("request-1", arn, b"{}", trace="Root=1-2-3;Sampled=1"))
        call = server.calls[0]
    context = json.loads(call.headers.pop("x-amzn-lambda-context"))
    assert before_ms + 30_000 - 1 <= context.pop("deadline") <= before_ms + 35_000
    assert context == {
        "request_id": "request-1",
        "invoked_function_arn": str(arn),
        "xray_trace_id": "Root=1-2-3;Sampled=1",
        "client_context": None,
        "identity": None,
        "tenant_id": None,
        "env_config": {
            "function_name": "billing", "memory": 128, "version": "live", "log_stream": "", "log_group": "",
        },
    }  # fmt: skip
    assert call.headers == {
        "host": f"127.0.0.1:{server.port}",
        "connection": "close",
        "content-type": "application/json",
        "content-length": "2",
        "x-amzn-request-context": "null",
        "x-amzn-trace-id": "Root=1-2-3;Sampled=1",
    }


async def test_any_url_sees_the_headers_of_the_runtime_api() -> None:
    async with rie_server(answering(200)) as server, target_for(server.url, "http") as target:
        await target.invoke(invocation())
        headers = server.calls[0].headers
    assert abs(int(headers.pop("lambda-runtime-deadline-ms")) - time.time() * 1000 - 30_000) < 5_000
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "connection": "close",
        "content-type": "application/json",
        "content-length": "2",
        "lambda-runtime-aws-request-id": "request-1",
        "lambda-runtime-invoked-function-arn": str(ARN),
    }


JSON = '{"batchItemFailures":[]}'


@pytest.mark.parametrize(
    ("body", "headers", "answer"),
    [
        (JSON.encode(), {}, JSON.encode()),
        (JSON.encode(), {"Content_Type": "application/json; charset=utf-8"}, JSON.encode()),
        (JSON.encode(), {"Content_Type": "application/problem+json"}, JSON.encode()),
        (JSON.encode(), {"Content_Type": "text/plain"}, JSON.encode()),
        (JSON.encode(), {"Content_Type": "application/octet-stream"}, b"null"),
        (JSON.encode(), {"Content_Type": "x/y", "X_Lambda_Http_Content_Encoding": "text"}, JSON.encode()),
        (JSON.encode(), {"Content_Encoding": "gzip"}, b"null"),
        (b"", {}, b"null"),
        (b"OK", {"Content_Type": "text/html"}, b"null"),
        (b'{"a":1} and more', {}, b"null"),
        (b'"\xff"', {}, b"null"),
        (b"[" * 100_000, {}, b"null"),
        (b'{"errorType":"X","errorMessage":"m"}', {}, b'{"errorType":"X","errorMessage":"m"}'),
        (b"1", {"X_Amz_Function_Error": "Unhandled"}, b"1"),
    ],
)
async def test_what_the_adapter_does_not_read_as_json_is_null(
    body: bytes, headers: dict[str, str], answer: bytes
) -> None:
    assert await ending(answering(200, body, **headers), "web-adapter") == Answer("request-1", answer)


@pytest.mark.parametrize("body", [b"", b"OK", b"\xff\x00", b'{"errorType":"X","errorMessage":"m"}'])
async def test_any_urls_answer_is_the_functions_whatever_it_holds(body: bytes) -> None:
    assert await ending(answering(202, body), "http") == Answer("request-1", body)


async def test_any_url_may_hand_on_what_lambda_says_of_an_error() -> None:
    came = await ending(answering(200, b"{}", X_Amz_Function_Error="Handled"), "http")
    assert came == Answer("request-1", b"{}", "Handled")


KINDS: dict[str, dict[str, Any]] = {
    "web-adapter": {
        **dict.fromkeys((301, 302, 304, 307, 308, 600, 999), Misconfigured),
        **dict.fromkeys((200, 201, 204, 299), Answer),
        **dict.fromkeys((400, 401, 403, 404, 405, 422, 500, 501, 502, 503, 504, 599), "error"),
        413: Refused,
        429: Throttled,
    },
    "http": {
        **dict.fromkeys((301, 302, 304, 307, 308, 600, 999), Misconfigured),
        **dict.fromkeys((200, 201, 204, 299), Answer),
        **dict.fromkeys((400, 401, 403, 404, 405, 422, 500, 501, 505, 599), "error"),
        **dict.fromkeys((502, 503, 504), Unreachable),
        413: Refused,
        429: Throttled,
    },
}


@pytest.mark.parametrize(
    ("protocol", "status", "kind"),
    [(protocol, status, kind) for protocol, kinds in KINDS.items() for status, kind in sorted(kinds.items())],
)
async def test_a_status_means(protocol: str, status: int, kind: Any) -> None:
    body = b"" if status in {204, 304} else b'"body-of-the-answer"'
    came = await ending(answering(status, body, Location="/elsewhere"), protocol)
    if kind == "error":
        assert isinstance(came, Answer)
        assert came.function_error == "Unhandled"
        payload = json.loads(came.payload)
        assert payload["errorType"] == f"HTTP {status}"
        assert json.loads(payload["errorMessage"]) == {"statusCode": status, "body": body.decode()}
        return
    assert type(came) is kind
    if isinstance(came, Answer):
        assert came.function_error is None
    else:
        assert "body-of-the-answer" not in repr(came)
        assert isinstance(came, Throttled) or str(status) in getattr(came, "text")  # noqa: B009


@BOTH
async def test_a_throttled_answer_says_how_long_to_wait(protocol: str) -> None:
    assert await ending(answering(429, b"", Retry_After="7"), protocol) == Throttled("request-1", 7.0)


async def test_the_emulator_is_handed_the_client_context_as_lambda_would_be() -> None:
    async with rie_server(answering(200, b"null")) as server, target_for(server.url, "rie") as target:
        await target.invoke(replace(invocation(), client_context='{"custom":{}}'))
        await target.invoke(invocation())
        first, second = server.calls
    assert base64.b64decode(first.headers["x-amz-client-context"]) == b'{"custom":{}}'
    assert "x-amz-client-context" not in second.headers


@BOTH
async def test_a_function_error_in_lambdas_own_shape_passes_as_it_is(protocol: str) -> None:
    body = b'{"errorMessage": "boom", "errorType": "ValueError", "stackTrace": []}'
    assert await ending(answering(500, body), protocol) == Answer("request-1", body, "Unhandled")


async def test_a_long_body_is_quoted_in_part() -> None:
    came = await ending(answering(500, b"\xff" * 5_000_000), "http")
    assert isinstance(came, Answer)
    assert len(came.payload) < 1_000_000


@BOTH
async def test_a_redirect_is_not_followed(protocol: str) -> None:
    reply = answering(307, Location="/elsewhere")
    async with rie_server(reply) as server, target_for(server.url, protocol) as target:
        came = await target.invoke(invocation())
        assert isinstance(came, Misconfigured)
        assert "redirect" in came.text
        assert len(server.calls) == 1


RANGES = st.lists(
    st.tuples(st.integers(200, 599), st.integers(0, 50)).map(lambda pair: (pair[0], min(599, sum(pair)))), max_size=4
)


def read(status: int, errors: statuses.Ranges) -> Ending:
    return statuses.ending("r", status, {}, b"1", errors, lambda request_id, _, body: Answer(request_id, body))


@given(st.integers(0, 999), RANGES)
def test_a_status_that_is_named_is_the_functions_failure_and_no_other_is(status: int, ranges: list[Any]) -> None:
    errors = tuple(sorted(ranges))
    came = read(status, errors)
    is_named = any(first <= status <= last for first, last in errors)
    assert (isinstance(came, Answer) and came.function_error == "Unhandled") == is_named


@given(st.integers(0, 999), RANGES)
def test_no_list_makes_a_success_of_what_did_not_reach_the_function(status: int, ranges: list[Any]) -> None:
    came = read(status, tuple(ranges))
    is_success = isinstance(came, Answer) and came.function_error is None
    not_reached = {401, 403, 404, 405, 407, 413, 429, 502, 503, 504}
    assert not (is_success and (status in not_reached or status in range(300, 400) or not 200 <= status < 600))
    assert is_success or status not in range(200, 300) or any(first <= status <= last for first, last in ranges)


@given(st.sampled_from([web_adapter.ERRORS, any_url.ERRORS]), st.integers(200, 599))
def test_without_a_list_only_2xx_is_a_success(errors: statuses.Ranges, status: int) -> None:
    came = read(status, errors)
    assert (isinstance(came, Answer) and came.function_error is None) == (status < 300)


@BOTH
@pytest.mark.parametrize(
    ("status", "expected"),
    [(202, "error"), (409, Answer), (500, Answer), (503, "error"), (502, Unreachable), (404, Misconfigured)],
)
async def test_error_status_codes_take_the_place_of_the_protocols_list(
    protocol: str, status: int, expected: Any
) -> None:
    came = await ending(answering(status, b"1"), protocol, error_statuses=((202, 202), (503, 503)))
    if expected == "error":
        assert isinstance(came, Answer)
        assert came.function_error == "Unhandled"
    else:
        assert type(came) is expected
        assert getattr(came, "function_error", None) is None


@BOTH
async def test_an_empty_list_of_error_statuses_is_a_list(protocol: str) -> None:
    assert await ending(answering(500, b"1"), protocol, error_statuses=()) == Answer("request-1", b"1")


def test_the_emulators_statuses_mean_what_it_means_by_them() -> None:
    with pytest.raises(RequestRefused, match="ErrorStatusCodes"):
        made("http://billing:8080", "rie", error_statuses=((500, 599),))


async def close_unanswered(call: Call) -> None:
    call.writer.close()


async def reset_unanswered(call: Call) -> None:
    call.writer.transport.abort()


async def close_halfway(call: Call) -> None:
    call.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await call.writer.drain()
    call.writer.close()


async def end_a_chunk_early(call: Call) -> None:
    call.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{")
    await call.writer.drain()
    call.writer.close()


@BOTH
@pytest.mark.parametrize("reply", [close_unanswered, reset_unanswered, close_halfway, end_a_chunk_early])
async def test_a_connection_lost_after_the_request_counts(
    protocol: str, reply: Callable[[Call], Awaitable[None]]
) -> None:
    came = await ending(reply, protocol)
    assert isinstance(came, Answer)
    assert json.loads(came.payload)["errorType"] == "Runtime.ExitError"


@BOTH
async def test_a_connection_lost_before_the_request_was_sent_is_no_attempt(protocol: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1000)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, target_for(url, protocol) as target:
        assert isinstance(await target.invoke(invocation(b"x" * 20_000_000)), Unreachable)


@ALL
async def test_a_chunked_answer_is_read_whole(protocol: str) -> None:
    async def reply(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b'{"a"', b":", b"1}"):
            call.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await call.writer.drain()
            await asyncio.sleep(0.01)
        call.writer.write(b"0\r\n\r\n")

    assert await ending(reply, protocol) == Answer("request-1", b'{"a":1}')


@ALL
async def test_an_answer_that_ends_with_its_connection_is_read_whole(protocol: str) -> None:
    async def reply(call: Call) -> None:
        call.writer.write(b'HTTP/1.0 200 OK\r\n\r\n{"a":1}')

    assert await ending(reply, protocol) == Answer("request-1", b'{"a":1}')


@ALL
async def test_a_long_header_of_an_answer_does_not_hide_that_the_function_ran(protocol: str) -> None:
    assert await ending(answering(200, b"1", X_Trace="x" * 20_000), protocol) == Answer("request-1", b"1")


@BOTH
async def test_an_answer_without_end_is_bounded(protocol: str) -> None:
    async def reply(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            call.writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await call.writer.drain()

    came = await ending(reply, protocol)
    assert isinstance(came, Answer)
    assert b"Function.ResponseSizeTooLarge" in came.payload


@ALL
async def test_a_server_that_closes_what_it_said_to_keep_costs_no_invocation(protocol: str) -> None:
    """A kept connection closed just when it is used again looks like a function that died: none is kept."""

    async def reply(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n1")
        await call.writer.drain()
        call.writer.close()

    async with rie_server(reply) as server, target_for(server.url, protocol) as target:
        for _ in range(20):
            assert await target.invoke(invocation()) == Answer("request-1", b"1")
        assert server.connections == 20


@ALL
async def test_what_is_not_http_shows_nothing_of_what_came(protocol: str) -> None:
    async def reply(call: Call) -> None:
        call.writer.write(b"SSH-2.0-hunter2\r\n\r\n")

    came = await ending(reply, protocol)
    assert isinstance(came, Misconfigured)
    assert "not HTTP" in came.text
    assert "hunter2" not in came.text


@BOTH
async def test_a_silent_function_times_out_and_its_connection_is_closed(protocol: str) -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, target_for(url, protocol, timeout_s=1, concurrency_max=1) as target:
        came = await target.invoke(invocation())
        assert isinstance(came, Answer)
        assert b"Task timed out after 1.00 seconds" in came.payload
        await asyncio.wait_for(closed.wait(), 5)
        await asyncio.wait_for(target.wait_free(), 5)


@BOTH
async def test_a_cancelled_invocation_closes_its_connection_and_gives_its_place_back(protocol: str) -> None:
    async with (
        rie_server(holding(asyncio.Event())) as server,
        target_for(server.url, protocol, concurrency_max=1) as target,
    ):
        running = asyncio.ensure_future(target.invoke(invocation()))
        await server.came.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.wait_for(target.wait_free(), 5)


async def reached(server: RieServer, count: int) -> None:
    while len(server.calls) < count:
        server.came.clear()
        await server.came.wait()


@BOTH
async def test_without_a_bound_as_many_run_at_once_as_are_asked_for(protocol: str) -> None:
    free = asyncio.Event()
    async with rie_server(holding(free)) as server, target_for(server.url, protocol) as target:
        assert target.concurrency is None
        running = [asyncio.ensure_future(target.invoke(invocation())) for _ in range(30)]
        await asyncio.wait_for(target.wait_free(), 5)
        await reached(server, 30)
        free.set()
        assert set(await asyncio.gather(*running)) == {Answer("request-1", b"null")}
        assert server.at_once_most == 30


@pytest.mark.parametrize(("protocol", "bound"), [("rie", 1), ("web-adapter", 3), ("http", 3)])
async def test_max_concurrency_bounds_all_addresses_together(protocol: str, bound: int) -> None:
    free = asyncio.Event()
    async with (
        rie_server(holding(free)) as server,
        target_for(server.url, protocol, concurrency_max=3) as target,
    ):
        assert target.concurrency == bound
        running = [asyncio.ensure_future(target.invoke(invocation())) for _ in range(9)]
        waiting = asyncio.ensure_future(target.wait_free())
        await reached(server, bound)
        await asyncio.wait({waiting}, timeout=0.1)
        assert not waiting.done()
        start_by = asyncio.get_running_loop().time() + 0.05
        assert await target.invoke(invocation(start_by=start_by)) == Throttled("request-1")
        free.set()
        await asyncio.gather(*running)
        await waiting
        assert server.at_once_most == bound


async def test_the_address_that_serves_the_fewest_is_next_and_one_that_refused_comes_last() -> None:
    addresses = Addresses("127.0.0.1", 80, each_max=None, all_max=5)
    await addresses.resolve()
    addresses._replace(["a", "b", "c"])
    addresses._resolve_at = float("inf")
    assert addresses.capacity == 5
    assert [await addresses.take(None) for _ in range(4)] == ["a", "b", "c", "a"]
    addresses.give_back("b")
    assert await addresses.take(None) == "b"
    for address in ("a", "a", "b", "c"):
        addresses.give_back(address)
    addresses.doubt("c")
    addresses._resolve_at = float("inf")  # the name is not asked again: it has one address
    assert [await addresses.take(None) for _ in range(4)] == ["a", "b", "a", "b"]


@st.composite
def bounds(draw: st.DrawFn) -> tuple[int | None, int | None]:
    return draw(st.none() | st.integers(1, 3)), draw(st.none() | st.integers(1, 6))


@given(bounds(), st.lists(st.sampled_from(["take", "give", "a", "ab", "bcd"]), max_size=40))
def test_addresses_never_lend_beyond_their_bounds_and_never_withhold(
    bound: tuple[int | None, int | None], steps: list[str]
) -> None:
    each_max, all_max = bound

    async def play() -> None:
        addresses = Addresses("127.0.0.1", 80, each_max=each_max, all_max=all_max)
        await addresses.resolve()
        addresses._resolve_at = float("inf")
        known = ["a", "b"]
        addresses._replace(known)
        lent: list[str] = []
        waiting: list[asyncio.Future[str | None]] = []
        for step in steps:
            match step:
                case "take":
                    waiting.append(asyncio.ensure_future(addresses.take(None)))
                case "give" if lent:
                    addresses.give_back(lent.pop(0))
                case "give":
                    pass
                case names:
                    addresses._replace(known := list(names))
            for _ in range(4):
                await asyncio.sleep(0)
            done = [one for one in waiting if one.done()]
            taken = [one.result() or "" for one in done]
            assert set(taken) <= set(known)
            lent += taken
            waiting = [one for one in waiting if not one.done()]
            assert all_max is None or len(lent) <= all_max
            assert each_max is None or all(lent.count(name) <= each_max for name in known)
            is_full = len(lent) == all_max or all(lent.count(name) == each_max for name in known)
            assert not waiting or is_full
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(play())


@ALL
async def test_ipv6_literals_are_asked_at_their_address(protocol: str) -> None:
    async with rie_server(answering(200, b"1"), "::1") as server:
        url = f"http://[::1]:{server.port}"
        async with target_for(url, protocol) as target:
            await target.facts()
            assert await target.invoke(invocation()) == Answer("request-1", b"1")
            assert server.calls[0].headers["host"] == f"[::1]:{server.port}"


@ALL
async def test_a_host_that_cannot_be_a_name_is_unreachable(protocol: str) -> None:
    async with target_for(f"http://a..{'b' * 70}.test:80", protocol) as target:
        assert isinstance(await target.invoke(invocation()), Unreachable)
        await target.wait_free()


@ALL
async def test_proxies_of_the_environment_are_not_used(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert await ending(answering(200, b"1"), protocol) == Answer("request-1", b"1")


@ALL
async def test_configured_headers_are_sent(protocol: str) -> None:
    headers = (("content-type", "application/cloudevents+json"), ("X-Api-Key", "s3cr\u00e9t"), ("x-b", "a b"))
    async with (
        rie_server(answering(200, b"1")) as server,
        target_for(server.url, protocol, headers=headers) as target,
    ):
        await target.invoke(invocation())
        sent = server.calls[0].headers
    assert sent["content-type"] == "application/cloudevents+json"
    assert (sent["x-api-key"], sent["x-b"], sent["content-length"]) == ("s3cr\u00e9t", "a b", "2")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("Host", "x", "is a header that esm sets itself"),
        ("content-length", "5", "is a header that esm sets itself"),
        ("Transfer-Encoding", "chunked", "is a header that esm sets itself"),
        ("Lambda-Runtime-Deadline-Ms", "1", "is a header that esm sets itself"),
        ("X-Amzn-Lambda-Context", "{}", "is a header that esm sets itself"),
        ("X-Amzn-Trace-Id", "x", "is a header that esm sets itself"),
        ("a b", "x", "is not the name of a header"),
        ("", "x", "is not the name of a header"),
        ("a\r\nb", "x", "is not the name of a header"),
        ("X-Key", "hunter2\r\nX-B: 1", "line break"),
        ("X-Key", "hunter2\0", "control character"),
        ("X-Key", " hunter2", "space at its beginning or end"),
        ("X-Key", "hunter2\ud800", "holds a character that is none"),
        ("X-Key", "", "is empty"),
        ("X-Key", "hunter2" * 10_000, "is longer than 16384 bytes"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(name: str, value: str, problem: str) -> None:
    with pytest.raises(RequestRefused, match=problem) as refused:
        made("http://billing:8080", "http", headers=((name, value),))
    assert "hunter2" not in str(refused.value)
    if not name.startswith("X-Key"):
        with pytest.raises(RequestRefused, match=problem):
            made("http://billing:8080", "http", header_files=((name, "/nowhere"),))


@given(st.text(max_size=30), st.text(max_size=30))
def test_what_passes_can_stand_in_a_request(name: str, value: str) -> None:
    if http_headers.name_problem(name) is None:
        assert name.isascii()
        assert not set(name) & set(" :\r\n\t\0")
    if http_headers.value_problem(value) is None:
        assert value.strip() == value.encode().decode()
        assert not set(value) & set("\r\n\0")


@ALL
async def test_no_secret_is_in_any_text_or_log(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    replies: list[Callable[[Call], Awaitable[None]]] = [
        *(answering(status, b"answer-hunter2") for status in (200, 307, 400, 404, 413, 429, 500, 503)),
        close_unanswered,
        close_halfway,
    ]
    texts = []
    for reply in replies:
        async with rie_server(reply) as server:
            url = f"{server.url}/path?code=query-hunter2"
            async with target_for(url, protocol, headers=(("X-Key", "header-hunter2"),)) as target:
                texts.append(repr(await target.invoke(invocation(b'"payload-hunter2"'))))
                texts.append(repr(target))
    async with target_for("http://127.0.0.1:1/?code=query-hunter2", protocol) as target:
        texts.append(repr(await target.invoke(invocation())))
    assert "hunter2" not in "".join(texts) + caplog.text + "".join(repr(one.__dict__) for one in caplog.records)


PIECES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 500 \r\n", b"HTTP/1.1 101 Switching\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/2", b"Content-Length: 3\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Content-Type: ;;\xff\r\n", b"X: \0\r\n",
    b"Set-Cookie: \xff=;\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"Retry-After: \xc2\xb2\r\n",
    b"Location: :\r\n", b"\r\n", b"3\r\nabc\r\n", b"zz\r\n", b"-1\r\n", b"0\r\n\r\n", b"ffffffffffffffffff\r\n",
    b"null", b'{"errorType":', b"A" * 70_000,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(150))
async def test_whatever_a_server_sends_is_an_ending(seed: int) -> None:
    chance = Random(seed)
    sent = b"".join(chance.choices(PIECES, k=chance.randint(1, 8)))
    if chance.random() < 0.5:
        sent = b"HTTP/1.1 " + chance.choice([b"200", b"204", b"304", b"429", b"503", b"999"]) + b" \r\n" + sent

    async def reply(call: Call) -> None:
        call.writer.write(sent)

    protocol = chance.choice(["rie", "web-adapter", "http"])
    assert isinstance(await ending(reply, protocol, timeout_s=5), get_args(Ending))
