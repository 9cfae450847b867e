"""What a hosted function's invocation ends with, in every way in which a function can end."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from esm.host import Host, launcher
from esm.model.invocation import Answer
from tests.host.conftest import ARN, Here, error, invocation, is_alive, other_python, until, value

SPEAKS = """
import json, os, sys, threading
def handler(event, context):
    return {"pid": os.getpid()}
"""


async def test_an_answer_passes_byte_for_byte(here: Here):
    target = here.target("def handler(event, context):\n    return (' %s\\n' % event['n']).encode()")
    ending = await target.invoke(invocation(b'{"n" : "\xc3\xa4"}'))
    assert isinstance(ending, Answer)
    assert (ending.payload, ending.function_error, ending.executed_version) == (b" \xc3\xa4\n", None, "$LATEST")


async def test_a_raised_exception_is_a_function_error_with_its_type(here: Here):
    target = here.target("def handler(event, context):\n    raise KeyError('gone')")
    asked = invocation()
    failure = error(await target.invoke(asked))
    assert failure["errorType"] == "KeyError"
    assert failure["errorMessage"] == "'gone'"
    assert failure["requestId"] == asked.request_id
    assert value(await here.target(SPEAKS).invoke(invocation()))


async def test_the_thousand_frames_of_a_recursion_reach_the_answer(here: Here):
    target = here.target("def handler(event, context):\n    return handler(event, context)")
    assert error(await target.invoke(invocation()))["errorType"] == "RecursionError"


async def test_an_exception_leaves_the_environment_warm(here: Here):
    target = here.target("import os\ndef handler(event, context):\n    raise ValueError(os.getpid())")
    first, second = error(await target.invoke(invocation())), error(await target.invoke(invocation()))
    assert first["errorMessage"] == second["errorMessage"]


async def test_the_function_is_killed_at_its_timeout_and_replaced(here: Here):
    target = here.target(
        """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def handler(event, context):
            if event["sleeps"]:
                time.sleep(60)
            return os.getpid()
        """,
        timeout_s=1,
    )
    first = value(await target.invoke(invocation(b'{"sleeps": 0}')))
    slow, begun = invocation(b'{"sleeps": 1}'), time.monotonic()
    assert error(await target.invoke(slow)) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {slow.request_id} Error: Task timed out after 1.00 seconds",
    }
    assert 1.0 <= time.monotonic() - begun < 2.0
    assert not is_alive(first)
    assert value(await target.invoke(invocation(b'{"sleeps": 0}'))) != first


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("os._exit(3)", "Runtime exited with error: exit status 3"),
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
        ("os.kill(os.getpid(), 11)", "Runtime exited with error: signal: segmentation fault"),
        ("sys.exit(1)", "Runtime exited with error: exit status 1"),
    ],
)
async def test_the_end_of_the_process_is_an_exit_error(here: Here, statement: str, text: str):
    target = here.target(
        f"import os, sys\ndef handler(event, context):\n    if event: {statement}\n    return os.getpid()"
    )
    first = value(await target.invoke(invocation()))
    asked = invocation(b"[1]")
    assert error(await target.invoke(asked)) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {asked.request_id} Error: {text}",
    }
    assert value(await target.invoke(invocation())) != first


async def test_a_module_that_cannot_be_imported_fails_one_attempt_each_time(here: Here):
    target = here.target("import absent")
    for count in (1, 2):
        failure = error(await target.invoke(invocation()))
        assert failure["errorType"] == "Runtime.ImportModuleError"
        assert "No module named 'absent'" in failure["errorMessage"]
        assert len(here.heard.ended) == count


async def test_a_module_that_raises_fails_with_its_exception(here: Here):
    failure = error(await here.target("raise LookupError('no table')").invoke(invocation()))
    assert (failure["errorType"], failure["errorMessage"]) == ("LookupError", "no table")


async def test_a_missing_handler_is_named(here: Here):
    failure = error(await here.target("other = 1").invoke(invocation()))
    assert failure["errorType"] == "Runtime.HandlerNotFound"
    assert failure["errorMessage"] == "Handler 'handler' missing on module 'app'"


async def test_an_exit_while_the_module_is_imported_is_an_exit_error(here: Here):
    failure = error(await here.target("import sys\nsys.exit(7)").invoke(invocation()))
    assert failure["errorType"] == "Runtime.ExitError"
    assert failure["errorMessage"].endswith("Runtime exited with error: exit status 7")


async def test_an_answer_above_the_limit_is_refused_with_lambdas_text(here: Here):
    target = here.target("def handler(event, context):\n    return 'x' * event")
    largest = 6_291_556 - 2
    assert len(value(await target.invoke(invocation(str(largest).encode())))) == largest
    for size in (largest + 1, 30_000_000):
        ending = await target.invoke(invocation(str(size).encode()))
        assert isinstance(ending, Answer)
        assert ending.payload == (
            b'{"errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes).",'
            b'"errorType":"Function.ResponseSizeTooLarge"}'
        )
        assert ending.function_error == "Unhandled"
    assert value(await target.invoke(invocation(b"1"))) == "x"


async def test_a_six_megabyte_event_arrives_whole(here: Here):
    target = here.target("def handler(event, context):\n    return len(event)")
    assert value(await target.invoke(invocation(b'"' + b"x" * 6_291_454 + b'"'))) == 6_291_454


async def test_the_context_says_who_is_called_and_until_when(here: Here):
    target = here.target(
        """
        import os
        def handler(event, context):
            return [context.aws_request_id, context.invoked_function_arn, context.get_remaining_time_in_millis(),
                    context.function_name, context.memory_limit_in_mb, os.environ.get("_X_AMZN_TRACE_ID")]
        """
    )
    asked = invocation(trace="Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1")
    request_id, arn, left_ms, name, memory, trace = value(await target.invoke(asked))
    assert (request_id, arn, name, memory) == (asked.request_id, str(ARN), "orders", "128")
    assert 15_000 < left_ms <= 20_000
    assert trace == asked.trace
    assert value(await target.invoke(invocation(trace="a\r\nb: c")))[5] is None


async def test_variables_are_lambdas_and_nothing_of_the_daemons(here: Here):
    os.environ["ESM_TEST_SECRET"] = "hunter2"
    try:
        target = here.target(
            "import os\ndef handler(event, context):\n    return dict(os.environ)",
            environment=(("AWS_REGION", "mars"), ("LANG", "C.UTF-8"), ("STAGE", "dev")),
        )
        seen = value(await target.invoke(invocation()))
    finally:
        del os.environ["ESM_TEST_SECRET"]
    assert seen.pop("AWS_LAMBDA_RUNTIME_API").startswith("127.0.0.1:")
    assert "/[$LATEST]" in seen.pop("AWS_LAMBDA_LOG_STREAM_NAME")
    task, client = seen["LAMBDA_TASK_ROOT"], seen.pop("LAMBDA_RUNTIME_DIR")
    assert "awslambdaric" in os.listdir(client)  # noqa: PTH208
    assert seen == {
        "_HANDLER": "app.handler", "AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "eu-west-3",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11", "AWS_LAMBDA_FUNCTION_NAME": "orders",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128", "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/orders",
        "LAMBDA_TASK_ROOT": task, "LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "LD_LIBRARY_PATH": f"{task}:{task}/lib:/opt/lib", "TZ": ":UTC", "HOME": "/tmp",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR", "STAGE": "dev", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


async def test_credentials_are_those_configured_for_functions(here: Here):
    given = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": "http://given"}
    host = Host(
        directory=here.folder / "host", concurrency_default=1, telemetry=here.heard, idle_s=60,
        function_environment=given,
    )  # fmt: skip
    try:
        code = "import os\ndef handler(event, context):\n    return dict(os.environ)"
        own = (("AWS_ACCESS_KEY_ID", "mine"), ("AWS_ENDPOINT_URL", "http://mine"))
        seen = value(await host.target(here.function(code, environment=own)).invoke(invocation()))
    finally:
        await host.aclose()
    assert (seen["AWS_ACCESS_KEY_ID"], seen["AWS_SECRET_ACCESS_KEY"]) == ("key", "secret")
    assert seen["AWS_ENDPOINT_URL"] == "http://mine"


@pytest.mark.parametrize("library", ["aiohttp", "msgspec", "esm", "prometheus_client", "pip", "_pytest"])
async def test_the_daemons_libraries_cannot_be_imported(here: Here, library: str):
    failure = error(await here.target(f"import {library}").invoke(invocation()))
    assert failure["errorType"] == "Runtime.ImportModuleError"


async def test_modules_come_from_the_code_first_then_from_its_pythonpath(here: Here):
    lent = here.folder / "lent"
    lent.mkdir()
    (lent / "shared.py").write_text("here = 'lent'")
    function = here.function(
        "import shared, pkg.part, sys\ndef handler(event, context):\n    return [shared.here, pkg.part.x, sys.path[0]]",
        environment=(("PYTHONPATH", str(lent)),),
    )
    package = Path(function.code) / "pkg"
    package.mkdir()
    (package / "part.py").write_text("x = 5")
    assert value(await here.host.target(function).invoke(invocation())) == ["lent", 5, function.code]
    assert not [name for _, names, _ in os.walk(function.code) for name in names if name == "__pycache__"]


async def test_the_handler_may_use_what_an_ordinary_interpreter_has(here: Here):
    target = here.target(
        """
        import os, resource, subprocess, sys
        def handler(event, context):
            out = subprocess.run([sys.executable, "-c", "print(6)"], capture_output=True, text=True).stdout
            return [callable(exit), os.getcwd(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], out.strip()]
        """
    )
    has_exit, folder, files, out = value(await target.invoke(invocation()))
    assert (has_exit, files, out) == (True, 1024, "6")
    assert "app.py" in os.listdir(folder)  # noqa: PTH208


async def test_another_version_of_python_serves_the_same_calls(here: Here):
    version, path = other_python()
    host = Host(directory=here.folder / "host", concurrency_default=1, telemetry=here.heard, idle_s=60, path=path)
    code = """
        import sys
        def handler(event, context):
            if event == "raise":
                raise ValueError("\\u00e4\\nb")
            return ["python%d.%d" % sys.version_info[:2], event, context.get_remaining_time_in_millis() > 0, len(event)]
        """
    try:
        target = host.target(here.function(code, runtime=version))
        for payload in (b'"a"', b'"' + b"x" * 3_000_000 + b'"'):
            seen = value(await target.invoke(invocation(payload)))
            assert (seen[0], seen[2], seen[3]) == (version, True, len(payload) - 2)
        failure = error(await target.invoke(invocation(b'"raise"')))
        assert (failure["errorType"], failure["errorMessage"]) == ("ValueError", "\u00e4\nb")
        too_large = host.target(
            here.function("def handler(event, context):\n    return 'x' * 7000000", runtime=version)
        )
        assert error(await too_large.invoke(invocation()))["errorType"] == "Function.ResponseSizeTooLarge"
    finally:
        await host.aclose()


async def test_a_handler_that_loads_too_slowly_is_started_again_on_the_invocations_time(here: Here, tmp_path):
    mark = tmp_path / "started-before"
    code = f"""
        import os, time
        if not os.path.exists({str(mark)!r}):
            open({str(mark)!r}, "w").close()
            time.sleep(60)
        def handler(event, context):
            return context.get_remaining_time_in_millis()
        """
    begun = time.monotonic()
    left_ms = value(await here.target(code).invoke(invocation()))
    assert 10 <= time.monotonic() - begun < 14
    assert left_ms <= 20_000
    assert [reason for _, reason in here.heard.ended] == ["initialisation time-out"]


async def test_lines_carry_the_request_that_wrote_them(here: Here):
    target = here.target(
        """
        import logging, os, sys
        print("loading")
        def handler(event, context):
            print("out", event)
            print("err", event, file=sys.stderr)
            os.write(1, b"raw \\xff")
            logging.getLogger().warning("warned")
        """
    )
    first, second = invocation(b"1"), invocation(b"2")
    await target.invoke(first)
    await target.invoke(second)
    lines = here.heard.lines
    assert lines[0] == ("orders", None, "loading")
    for asked, number in ((first, 1), (second, 2)):
        own = [line for function, request_id, line in lines if request_id == asked.request_id]
        assert own[:2] == [f"out {number}", f"err {number}"]
        assert own[2].startswith("raw \ufffd[WARNING]")
        assert asked.request_id in own[2]


async def test_a_flood_of_output_is_cut_and_holds_nothing_up(here: Here):
    target = here.target(
        """
        import os
        def handler(event, context):
            print("x" * 10_000_000)
            print("\\n" * 50_000 + "end", end="")
            return "done"
        """
    )
    asked = asyncio.ensure_future(target.invoke(invocation()))
    # In time of this thread: how long others have the processor says nothing of it.
    worst, last = 0.0, time.thread_time()
    while not asked.done():
        await asyncio.sleep(0)
        worst, last = max(worst, time.thread_time() - last), time.thread_time()
    assert value(await asked) == "done"
    texts = [line for _, _, line in here.heard.lines]
    assert sum(map(len, texts)) == 10_000_003
    assert max(map(len, texts)) <= 256 * 1024 + 8192
    assert texts[-1] == "end"
    assert worst < 1.0


async def test_what_a_function_started_ends_with_its_environment(here: Here):
    target = here.target(
        """
        import os, subprocess, time
        def handler(event, context):
            plain = subprocess.Popen(["sleep", "600"])
            away = subprocess.Popen(["sleep", "600"], start_new_session=True)
            if event:
                print(plain.pid, away.pid)
                os._exit(1)
            print(plain.pid, away.pid)
            time.sleep(60)
        """,
        timeout_s=1,
    )
    for payload in (b"1", b"0"):
        here.heard.lines.clear()
        error(await target.invoke(invocation(payload)))
        pids = [int(pid) for pid in here.heard.lines[0][2].split()]
        await until(lambda pids=pids: not any(is_alive(pid) for pid in pids))


async def test_another_port_of_loopback_sees_only_its_own_environment(here: Here):
    """The Runtime API refuses what is out of turn, and survives what is not HTTP."""
    target = here.target("import os\ndef handler(event, context):\n    return os.environ['AWS_LAMBDA_RUNTIME_API']")
    address = value(await target.invoke(invocation()))
    host, port = address.split(":")

    async def said(data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(65536), 5)
        writer.close()
        return answer

    prefix = b"/2018-06-01/runtime/"
    close = b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    refused = await said(b"POST " + prefix + b"invocation/wrong/response" + close)
    assert refused.startswith(b"HTTP/1.1 400")
    assert b'"errorType": "InvalidRequestID"' in refused
    for call in (b"POST " + prefix + b"init/error", b"GET " + prefix + b"invocation/next"):
        refused = await said(call + close)
        assert refused.startswith(b"HTTP/1.1 403")
        assert b'"errorType": "InvalidStateTransition"' in refused
    assert (await said(b"GET /other" + close)).startswith(b"HTTP/1.1 404")
    assert (await said(b"\x16\x03\x01 hello\r\n\r\n")).startswith(b"HTTP/1.0 400")
    assert value(await target.invoke(invocation())) == address


async def test_the_module_that_the_launcher_runs_leaves_no_trace_of_the_daemon_on_the_command_line(here: Here):
    target = here.target("import sys\ndef handler(event, context):\n    return [sys.argv[1:], sys.path]")
    arguments, path = value(await target.invoke(invocation()))
    assert arguments == ["app.handler"]
    assert not [entry for entry in path if "site-packages" in entry or entry == str(Path(launcher.__file__).parent)]
