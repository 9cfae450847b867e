"""Functions whose runtimes run elsewhere: AWS's own runtime client as processes of their own, and a client by hand."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

from esm.model.invocation import Throttled
from tests.host.conftest import error, invocation, now, value
from tests.host.elsewhere import door

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
