"""Functions whose runtimes run elsewhere: AWS's own runtime client as processes of their own, and a client by hand."""

import asyncio
import os
import shutil
import signal
import ssl
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest
import trustme
from prometheus_client import CollectorRegistry

from esm.api.slow_clients import Connections
from esm.errors import OperatorNeeded
from esm.host.doorway import Rounds
from esm.host.elsewhere import Elsewhere
from esm.host.metrics import HostMetrics
from esm.model.function import PulledFunction
from esm.model.invocation import Misconfigured, Throttled
from tests import servers
from tests.host.conftest import ARN, error, invocation, now, until, value
from tests.host.elsewhere import Warned, door, peers
from tests.host.test_runtime_api import answer, ask, call
from tests.host.test_runtimes import BOOTSTRAP, CLIENT

ECHO = """
    import os, time
    def handler(event, context):
        time.sleep(event.get("s", 0))
        if event.get("die"):
            os.kill(os.getpid(), 9)
        if event.get("raise"):
            raise ValueError("no")
        return {"pid": os.getpid(), "id": context.aws_request_id, "left": context.get_remaining_time_in_millis(),
                "trace": os.environ.get("_X_AMZN_TRACE_ID"), "arn": context.invoked_function_arn,
                "custom": context.client_context and context.client_context.custom}
"""


async def test_runtimes_take_what_there_is_one_at_a_time_each(tmp_path: Path):
    async with door(tmp_path) as made:
        assert made.target.concurrency == 1
        early = asyncio.create_task(made.target.invoke(invocation(b'{"s": 0.2}')))
        runtimes = [await made.start(ECHO) for _ in range(3)]
        await early
        await made.until_there(3)
        assert made.target.concurrency == 3
        await asyncio.wait_for(made.target.wait_free(), 5)
        calls = [made.target.invoke(invocation(b'{"s": 0.3}')) for _ in range(6)]
        found = [value(ending) for ending in await asyncio.gather(*calls)]
        assert {one["pid"] for one in found} == {process.pid for process in runtimes}
        assert made.metric("esm_function_invocations_total", version="$LATEST") == 7
        assert made.metric("esm_function_runtimes", phase="waiting") >= 0
        assert made.present == 3


async def test_everything_that_lambda_says_of_a_call_reaches_the_function(tmp_path: Path):
    async with door(tmp_path) as made:
        await made.start(ECHO)
        wanted = replace(invocation(trace="Root=1-x"), client_context='{"custom": {"a": "b"}}')
        found = value(await made.target.invoke(wanted))
        assert (found["id"], found["trace"], found["custom"]) == (wanted.request_id, "Root=1-x", {"a": "b"})
        assert found["arn"] == str(wanted.function_arn)
        assert 15_000 < found["left"] <= 20_000
        failed = error(await made.target.invoke(invocation(b'{"raise": 1}')))
        assert (failed["errorType"], failed["errorMessage"]) == ("ValueError", "no")


async def test_a_runtime_that_dies_ends_its_invocation_alone(tmp_path: Path):
    async with door(tmp_path) as made:
        await made.start(ECHO)
        await made.start(ECHO)
        await made.until_there(2)
        began_at = now()
        wanted = invocation(b'{"die": 1}')
        slow, dead = await asyncio.gather(made.target.invoke(invocation(b'{"s": 0.5}')), made.target.invoke(wanted))
        value(slow)
        assert error(dead) == {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {wanted.request_id} Error: Runtime exited without providing a reason",
        }  # fmt: skip
        assert now() - began_at < 5
        await made.until_there(1)
        assert made.metric("esm_function_runtimes_lost_total", reason="exit") == 1


async def test_a_runtime_that_is_too_slow_is_told_so_and_ends(tmp_path: Path):
    async with door(tmp_path, timeout_s=1) as made:
        runtime = await made.start(ECHO)
        wanted = invocation(b'{"s": 1.5}')
        assert error(await made.target.invoke(wanted)) == {
            "errorType": "Sandbox.Timedout",
            "errorMessage": f"RequestId: {wanted.request_id} Error: Task timed out after 1.00 seconds",
        }  # fmt: skip
        assert made.present == 0
        assert await asyncio.wait_for(runtime.wait(), 10) != 0


async def test_what_no_runtime_takes_in_time_is_throttled(tmp_path: Path):
    async with door(tmp_path) as made:
        assert isinstance(await made.target.invoke(replace(invocation(), waits=False)), Throttled)
        assert isinstance(await made.target.invoke(invocation(start_by=now() + 0.1)), Throttled)
        assert isinstance(await made.target.invoke(invocation(start_by=now() - 1)), Throttled)
        assert made.metric("esm_function_throttles_total", version="$LATEST") == 2


async def test_a_runtime_that_stops_while_it_waits_harms_nothing(tmp_path: Path):
    async with door(tmp_path) as made:
        first = await made.start(ECHO)
        await made.until_there(1)
        os.kill(first.pid, signal.SIGTERM)
        await made.until_there(0)
        waiting = asyncio.create_task(made.target.invoke(invocation()))
        second = await made.start(ECHO)
        assert value(await waiting)["pid"] == second.pid


async def test_a_token_in_the_path_lets_awss_client_in_and_nothing_else_does(tmp_path: Path):
    tokens = tmp_path / "tokens"
    tokens.write_text("an-old-token-of-20-c\na-new-token-of-20-cs\n")
    async with door(tmp_path, token_file=str(tokens)) as made:
        stranger = await made.start(ECHO)
        assert await asyncio.wait_for(stranger.wait(), 10) != 0
        guess = await made.start(ECHO, f"{made.address}/an-old-token-of-20-d")
        assert await asyncio.wait_for(guess.wait(), 10) != 0
        assert [text for text, _ in made.heard.texts] == ["runtime refused"]
        for token in ("an-old-token-of-20-c", "a-new-token-of-20-cs"):
            runtime = await made.start(ECHO, f"{made.address}/{token}")
            assert value(await made.target.invoke(invocation()))["pid"] == runtime.pid
            runtime.kill()
            await made.until_there(0)
        tokens.write_text("a-third-token-of-20-c\n")
        late = await made.start(ECHO, f"{made.address}/a-new-token-of-20-cs")
        assert await asyncio.wait_for(late.wait(), 10) != 0


async def test_a_runtime_that_cannot_initialise_is_the_functions_problem_until_one_can(tmp_path: Path):
    async with door(tmp_path) as made:
        waiting = asyncio.create_task(made.target.invoke(invocation()))
        await made.start("import no_such_module")
        ending = await waiting
        assert isinstance(ending, Misconfigured)
        assert "could not initialise (Runtime.ImportModuleError): see the log of its container" in ending.text
        await asyncio.wait_for(made.target.wait_free(), 1)
        assert await made.target.invoke(invocation()) == replace(ending, request_id=ANY)
        assert ("runtime could not initialise", ANY) in made.heard.texts
        assert made.metric("esm_function_runtimes_lost_total", reason="init") == 1
        await made.start(ECHO)
        await made.until_there(1)
        value(await made.target.invoke(invocation()))


NEXT = call("GET", "/2018-06-01/runtime/invocation/next")


def answered(request_id: str, kind: str = "response", **headers: str) -> bytes:
    return call("POST", f"/2018-06-01/runtime/invocation/{request_id}/{kind}", b'{"a":  1}', **headers)


async def test_late_double_and_strange_answers_are_refused_as_lambda_does(tmp_path: Path):
    async with door(tmp_path, timeout_s=1) as made, peers(made) as connect:
        wanted = invocation()
        running = asyncio.create_task(made.target.invoke(wanted))
        reader, writer = await connect()
        writer.write(NEXT)
        status, headers, _ = await answer(reader)
        assert (status, headers["lambda-runtime-aws-request-id"]) == (200, wanted.request_id)
        for request, code, kind in (
            (answered("other"), 400, "InvalidRequestID"),
            (answered(wanted.request_id, Lambda_Runtime_Invocation_Id="x"), 400, "InvalidInvocationId"),
            (call("GET", "/2018-06-01/runtime/restore/next"), 404, "NotFound"),
            (call("POST", "/2020-01-01/extension/register"), 404, "NotFound"),
            (call("PUT", "/2022-07-01/telemetry", b"{}"), 202, "Telemetry.NotSupported"),
        ):
            got, _, said = await ask(connect, request)
            assert (got, said["errorType"]) == (code, kind)
        writer.write(NEXT)
        assert (await answer(reader))[0] == 403
        assert (await ask(connect, answered(wanted.request_id)))[0] == 202
        assert value(await running) == {"a": 1}
        got, _, said = await ask(connect, answered(wanted.request_id, "error"))
        assert (got, said["errorType"]) == (403, "InvalidStateTransition")
        late = invocation()
        running = asyncio.create_task(made.target.invoke(late))
        reader, writer = await connect()
        writer.write(NEXT)
        await answer(reader)
        assert error(await running)["errorType"] == "Sandbox.Timedout"
        assert await reader.read() == b""
        got, _, said = await ask(connect, answered(late.request_id))
        assert (got, said["errorType"]) == (400, "InvalidRequestID")


async def test_a_late_answer_is_not_taken_for_that_of_the_next_try(tmp_path: Path):
    async with door(tmp_path, timeout_s=1) as made, peers(made) as connect:
        wanted = invocation()
        for is_last in (False, True):
            running = asyncio.create_task(made.target.invoke(wanted))
            reader, writer = await connect()
            writer.write(NEXT)
            await answer(reader)
            if is_last:
                got, _, said = await ask(connect, answered(wanted.request_id))
                assert (got, said["errorType"]) == (400, "InvalidInvocationId")
                writer.write(answered(wanted.request_id))
                assert (await answer(reader))[0] == 202
            ending = await running
        assert value(ending) == {"a": 1}


async def test_a_client_that_keeps_no_connection_is_waited_for_until_its_ways_are_known(tmp_path: Path):
    async with door(tmp_path) as made, peers(made) as connect:
        wanted = invocation()
        running = asyncio.create_task(made.target.invoke(wanted))
        reader, writer = await connect()
        writer.write(NEXT)
        await answer(reader)
        writer.close()
        await until(lambda: made.present == 1)
        assert (await ask(connect, answered(wanted.request_id)))[0] == 202
        value(await running)
        for dies in (False, True):  # then its kind is known to answer over the same connection
            wanted = invocation()
            running = asyncio.create_task(made.target.invoke(wanted))
            reader, writer = await connect()
            writer.write(NEXT)
            await answer(reader)
            if not dies:
                writer.write(answered(wanted.request_id))
                assert (await answer(reader))[0] == 202
                value(await running)
            writer.close()
        assert error(await running)["errorType"] == "Runtime.ExitError"


async def test_a_proxy_that_opens_a_connection_for_each_request_is_no_runtime_that_dies(tmp_path: Path):
    async with door(tmp_path) as made, peers(made) as connect:
        wanted = invocation()
        running = asyncio.create_task(made.target.invoke(wanted))
        client = {"User-Agent": "aws-lambda-python/3.11-3.0.0", "Connection": "close"}
        reader, writer = await connect()
        writer.write(call("GET", "/2018-06-01/runtime/invocation/next", **client))
        await answer(reader)
        assert await reader.read() == b""
        assert (await ask(connect, answered(wanted.request_id, **client)))[0] == 202
        value(await running)


async def test_what_is_too_large_is_told_so(tmp_path: Path):
    async with door(tmp_path) as made, peers(made) as connect:
        wanted = invocation()
        running = asyncio.create_task(made.target.invoke(wanted))
        reader, writer = await connect()
        writer.write(NEXT)
        await answer(reader)
        path = f"/2018-06-01/runtime/invocation/{wanted.request_id}/response"
        writer.write(call("POST", path, b"x" * 6_291_557))
        status, _, said = await answer(reader)
        assert (status, b"RequestEntityTooLarge" in said) == (413, True)
        assert error(await running)["errorType"] == "Function.ResponseSizeTooLarge"


async def test_a_streamed_answer_is_passed_on_and_one_that_breaks_off_is_truncated(tmp_path: Path):
    pieces: list[bytes] = []

    async def take(piece: bytes) -> None:
        pieces.append(piece)

    async with door(tmp_path) as made, peers(made) as connect:
        for is_whole in (True, False):
            wanted = replace(invocation(), stream=take)
            running = asyncio.create_task(made.target.invoke(wanted))
            reader, writer = await connect()
            writer.write(NEXT)
            await answer(reader)
            path = f"/2018-06-01/runtime/invocation/{wanted.request_id}/response"
            lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Transfer-Encoding: chunked",
                     "Lambda-Runtime-Function-Response-Mode: streaming", "", "4", "[1, ", ""]  # fmt: skip
            pieces.clear()
            writer.write("\r\n".join(lines).encode())
            await until(lambda: pieces == [b"[1, "])
            assert (await ask(connect, answered(wanted.request_id)))[0] == 403
            if is_whole:
                writer.write(b"2\r\n2]\r\n0\r\n\r\n")
                assert (await answer(reader))[0] == 202
                assert (await running).payload == b""
            else:
                writer.transport.abort()
                assert error(await running)["errorType"] == "Runtime.TruncatedResponse"


async def test_a_call_that_missed_its_runtime_goes_to_the_next_one_first(tmp_path: Path):
    async with door(tmp_path) as made, peers(made) as connect:
        _, writer = await connect()
        writer.write(NEXT)
        await made.until_there(1)
        writer.transport.abort()
        wanted = invocation()
        running = asyncio.create_task(made.target.invoke(wanted))
        reader, writer = await connect()
        writer.write(NEXT)
        assert (await answer(reader))[1]["lambda-runtime-aws-request-id"] == wanted.request_id
        writer.write(answered(wanted.request_id))
        value(await running)


async def test_a_caller_that_goes_away_lets_its_runtime_go(tmp_path: Path):
    async with door(tmp_path) as made, peers(made) as connect:
        running = asyncio.create_task(made.target.invoke(invocation()))
        reader, writer = await connect()
        writer.write(NEXT)
        await answer(reader)
        running.cancel()
        assert await reader.read() == b""
        assert made.present == 0
        waiting = asyncio.create_task(made.target.invoke(invocation()))
        await asyncio.sleep(0)
        waiting.cancel()
        reader, writer = await connect()
        writer.write(NEXT)
        await made.until_there(1)
        assert made.target.concurrency == 1


async def test_while_its_worker_stops_nobody_waits_where_no_runtime_is(tmp_path: Path):
    async with door(tmp_path) as made, peers(made) as connect:
        reader, writer = await connect()
        writer.write(NEXT)
        await made.until_there(1)
        first, second = invocation(), invocation()
        running = [asyncio.create_task(made.target.invoke(one)) for one in (first, second)]
        await answer(reader)
        made.elsewhere.drain()
        for wanted, ending in zip((first, second), running, strict=True):  # what a runtime is there for is run
            writer.write(answered(wanted.request_id))
            assert (await answer(reader))[0] == 202
            value(await ending)
            if wanted is first:
                writer.write(NEXT)
                await answer(reader)
        waiting = asyncio.create_task(made.target.invoke(invocation()))
        await asyncio.sleep(0)
        writer.transport.abort()
        assert isinstance(await waiting, Throttled)
        assert isinstance(await made.target.invoke(invocation()), Throttled)


@pytest.mark.parametrize("headers", [
    {"Host": "pages.example:9001"}, {"Host": ""}, {"Host": "127.0.0.1", "Origin": "http://pages.example"},
    {"Host": "127.0.0.1:9001", "Sec-Fetch-Mode": "no-cors"},
])  # fmt: skip
async def test_a_web_page_is_no_runtime(tmp_path: Path, headers: dict[str, str]):
    async with door(tmp_path) as made, peers(made) as connect:
        lines = [f"{name}: {text}" for name, text in headers.items()]
        request = "\r\n".join(["GET /2018-06-01/runtime/invocation/next HTTP/1.1", *lines, "", ""])
        got, _, said = await ask(connect, request.encode())
        assert (got, said["errorType"], made.present) == (403, "AccessDenied", 0)


@pytest.mark.parametrize("data", [
    b"GET /s3cret-token-of-20-chars/2018-06-01/runtime/invocation/next HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET /s3cret-token-of-20-chars/\x00 HTTP/9.9\r\n\r\n",
    b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz s3cret-token\r\n",
    b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 9\r\n\r\ns3cret",
])  # fmt: skip
async def test_what_cannot_be_read_is_refused_and_quoted_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
):
    async with door(tmp_path) as made, peers(made) as connect:
        reader, writer = await connect()
        writer.write(data)
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), 5)
        assert not said or b" 400 " in said.split(b"\r\n")[0]
        assert (made.present, made.heard.texts) == (0, [])
        await made.start(ECHO)
        value(await made.target.invoke(invocation()))
    assert "s3cret" not in caplog.text


async def test_a_changed_definition_goes_on_at_the_same_address(tmp_path: Path):
    async with door(tmp_path) as made, peers(made) as connect:
        reader, writer = await connect()
        writer.write(NEXT)
        await made.until_there(1)
        changed = made.elsewhere.target(replace(made.function, timeout_s=1, concurrency_max=1))
        await changed.facts()
        running = asyncio.create_task(changed.invoke(invocation()))
        await answer(reader)
        await made.target.aclose()
        assert error(await running)["errorType"] == "Sandbox.Timedout"
        assert changed.concurrency == 1
        await changed.aclose()


async def test_an_address_that_is_taken_is_named_and_tried_again(tmp_path: Path):
    async with door(tmp_path) as made:
        heard = Warned()
        other = Elsewhere(heard, HostMetrics(heard.registry), Connections, serves=True)
        target = other.target(made.function)
        for _ in range(2):
            await other.listen()
        assert len(heard.texts) == 1
        assert f"function orders: its Runtime API cannot listen on {made.address}" in str(heard.texts[0][1])
        assert isinstance(await target.invoke(invocation()), Misconfigured)
        await made.target.aclose()
        await other.listen()
        runtime = await made.start(ECHO)
        assert value(await target.invoke(invocation()))["pid"] == runtime.pid
        await target.aclose()


async def test_what_is_declared_is_served_also_where_nobody_invokes_it():
    heard = Warned()
    elsewhere = Elsewhere(heard, HostMetrics(heard.registry), Connections, serves=True)
    function = PulledFunction("orders", ARN, "role", "127.0.0.1", servers.free_port(), 3)
    elsewhere.declare([function])
    await elsewhere.listen()
    reader, writer = await asyncio.open_connection(function.host, function.port)
    writer.write(NEXT)
    await until(lambda: elsewhere.present(function) == 1)
    target = elsewhere.target(function)
    elsewhere.declare([])
    await elsewhere.listen()
    assert elsewhere.present(function) == 1
    await target.aclose()
    assert await reader.read() == b""
    writer.close()
    elsewhere.declare([function])
    await elsewhere.listen()
    await elsewhere.target(function).aclose()
    assert [one.function for one in elsewhere.runtimes()] == ["orders"]
    elsewhere.declare([])
    await elsewhere.listen()
    assert list(elsewhere.runtimes()) == []
    elsewhere.declare([function])
    await elsewhere.listen()
    await elsewhere.aclose()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(function.host, function.port)


async def test_where_nothing_is_served_only_files_are_looked_at(tmp_path: Path):
    heard = Warned()
    tokens = tmp_path / "tokens"
    members = {"host": "127.0.0.1", "port": 1, "timeout_s": 3}
    for content, problem in (("short", "one token a line"), ("", "one token a line"), (None, "cannot be read")):
        other = Elsewhere(heard, HostMetrics(CollectorRegistry()), Connections, serves=False)
        target = other.target(PulledFunction("orders", ARN, "role", token_file=str(tokens), **members))
        tokens.unlink(missing_ok=True)
        if content is not None:
            tokens.write_text(content)
        with pytest.raises(OperatorNeeded, match=problem):
            await target.facts()
    tokens.write_text("a-token-of-16-or-more")
    assert (await target.facts()).timeout_s == 3


async def test_runtimes_come_round_without_a_restart_once_they_have_worked(tmp_path: Path):
    async with door(tmp_path, rounds=Rounds(old_s=0.3)) as made:
        runtime = await made.start(ECHO)
        value(await made.target.invoke(invocation()))
        seen = {made.connected}
        await until(lambda: not seen.add(made.connected) and len(seen - {()}) >= 2)
        found = value(await made.target.invoke(invocation(b'{"s": 0.5}')))
        await until(lambda: not seen.add(made.connected) and len(seen - {()}) >= 3)
        assert found["pid"] == value(await made.target.invoke(invocation()))["pid"] == runtime.pid
        assert runtime.returncode is None


async def test_a_runtime_that_never_worked_is_let_go_at_last(tmp_path: Path):
    async with door(tmp_path, rounds=Rounds(unused_s=0.2)) as made:
        runtime = await made.start(ECHO)
        assert await asyncio.wait_for(runtime.wait(), 10) != 0
        assert made.present == 0


async def test_awss_client_asks_another_worker_when_its_own_ends(tmp_path: Path):
    port = servers.free_port()
    async with (
        door(tmp_path, shares_port=True, port=port) as one,
        door(tmp_path, shares_port=True, port=port) as other,
    ):
        runtime = await one.start(ECHO)
        await until(lambda: one.present + other.present == 1)
        first, second = (one, other) if one.present else (other, one)
        value(await first.target.invoke(invocation()))
        await first.until_there(1)
        await first.target.aclose()
        assert value(await second.target.invoke(invocation()))["pid"] == runtime.pid


async def test_mutual_tls_lets_those_in_whom_the_authority_knows_and_follows_renewed_files(tmp_path: Path):
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")

    def renew() -> None:
        made = authority.issue_cert("127.0.0.1")
        made.private_key_pem.write_to_path(tmp_path / "key")
        made.cert_chain_pems[0].write_to_path(tmp_path / "cert")

    async def asked(by: trustme.CA) -> int:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        by.issue_cert("runtime.example").configure_cert(context)
        reader, writer = await asyncio.open_connection("127.0.0.1", made.function.port, ssl=context)
        try:
            writer.write(call("GET", "/nothing"))
            return (await answer(reader))[0]
        finally:
            writer.transport.abort()

    renew()
    files = {name: str(tmp_path / place) for name, place in
             (("cert_file", "cert"), ("key_file", "key"), ("client_ca_file", "ca"))}  # fmt: skip
    async with door(tmp_path, **files) as made:
        assert await asked(authority) == 404
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await asked(stranger)
        renew()
        await made.elsewhere.listen()
        assert await asked(authority) == 404
        (tmp_path / "key").write_text("no key")
        await made.elsewhere.listen()
        assert "are no certificate with its key" in str(made.heard.texts[-1][1]["problem"])
        assert await asked(authority) == 404


async def test_a_shell_that_calls_curl_is_a_runtime_too(tmp_path: Path):
    (tmp_path / "token").write_text("a-token-of-20-characters")
    async with door(tmp_path, token_file=str(tmp_path / "token")) as made:
        await made.run({"bootstrap": BOOTSTRAP}, ("./bootstrap",), f"{made.address}/a-token-of-20-characters")
        for number in (1, 2):
            found = value(await made.target.invoke(invocation(b'{"n": %d}' % number)))
            assert found["event"] == {"n": number}
        await made.until_there(1)


async def test_awss_client_for_node_takes_a_token_in_its_address_and_is_seen_to_die(tmp_path: Path):
    node = shutil.which("node")
    if node is None or not CLIENT:
        pytest.skip("no Node.js with aws-lambda-ric here")
    handler = """
        export const handler = async (event, context) => {
            if (event.die) process.kill(process.pid, "SIGKILL");
            if (event.fail) throw new TypeError("no");
            return [event.n, context.awsRequestId.length];
        };
    """
    (tmp_path / "token").write_text("a-token-of-20-characters")
    async with door(tmp_path, token_file=str(tmp_path / "token")) as made:
        command = (node, f"{CLIENT}/bin/index.mjs", "app.handler")
        await made.run({"app.mjs": handler}, command, f"{made.address}/a-token-of-20-characters")
        assert value(await made.target.invoke(invocation(b'{"n": 7}'))) == [7, 36]
        assert error(await made.target.invoke(invocation(b'{"fail": 1}')))["errorType"] == "TypeError"
        assert error(await made.target.invoke(invocation(b'{"die": 1}')))["errorType"] == "Runtime.ExitError"
