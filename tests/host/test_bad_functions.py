"""Functions that misbehave harm themselves alone: late and double answers, deaf ones, greedy ones, curious ones."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from esm.model.invocation import Answer
from tests.host.conftest import Here, error, invocation, is_alive, until, value

BY_HAND = """
import http.client, json, os, sys, time

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
prefix = "/2018-06-01/runtime/invocation/"

def call(method, path, body=None):
    api.request(method, prefix + path, body=body)
    answer = api.getresponse()
    return answer.status, answer.headers.get("Lambda-Runtime-Aws-Request-Id"), answer.read()

while True:
    _, request_id, event = call("GET", "next")
    {what}
"""
"""A runtime of its own: module level code that speaks the Runtime API before AWS's client comes to it."""


@pytest.fixture(params=["here", "walled"])
def either(request: pytest.FixtureRequest) -> Here:
    return request.getfixturevalue(request.param)


async def test_the_second_answer_to_one_invocation_is_refused_and_changes_nothing(either: Here):
    what = """
    first = call("POST", request_id + "/response", b"1")[0]
    second = call("POST", request_id + "/response", b"2")
    third = call("POST", request_id + "/error", b"{}")
    print(first, second[0], third[0], json.loads(second[2])["errorType"], flush=True)
    """.strip()
    target = either.target(BY_HAND.format(what=what))
    for _ in range(3):
        ending = await target.invoke(invocation())
        assert isinstance(ending, Answer)
        assert (ending.payload, ending.function_error) == (b"1", None)
    assert {line for _, _, line in either.heard.lines} == {"202 403 403 InvalidStateTransition"}
    assert either.heard.ended == []


async def test_an_answer_after_the_time_out_reaches_nobody(here: Here):
    what = "time.sleep(json.loads(event)); call('POST', request_id + '/response', b'1')"
    target = here.target(BY_HAND.format(what=what), timeout_s=1)
    assert error(await target.invoke(invocation(b"2")))["errorType"] == "Sandbox.Timedout"
    late = await target.invoke(invocation(b"0"))
    assert isinstance(late, Answer)
    assert (late.payload, late.function_error) == (b"1", None)


async def test_an_answer_under_another_invocations_name_is_refused(here: Here):
    what = """
    wrong = call("POST", "00000000-0000-0000-0000-000000000000/response", b"2")
    print(wrong[0], json.loads(wrong[2])["errorType"], flush=True)
    call("POST", request_id + "/response", event)
    """.strip()
    target = here.target(BY_HAND.format(what=what))
    assert value(await target.invoke(invocation(b"7"))) == 7
    assert [line for _, _, line in here.heard.lines] == ["400 InvalidRequestID"]


async def test_a_runtime_that_asks_again_without_an_answer_is_refused_and_times_out(here: Here):
    what = "print(call('GET', 'next')[0], flush=True); time.sleep(60)"
    target = here.target(BY_HAND.format(what=what), timeout_s=1)
    assert error(await target.invoke(invocation()))["errorType"] == "Sandbox.Timedout"
    assert [line for _, _, line in here.heard.lines] == ["403"]


async def test_one_that_ignores_sigterm_ends_all_the_same(either: Here):
    target = either.target(
        """
        import os, signal
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        def handler(event, context):
            return os.getpid()
        """
    )
    assert value(await target.invoke(invocation()))
    begun = time.monotonic()
    await target.aclose()
    assert time.monotonic() - begun < 3
    assert [reason for _, reason in either.heard.ended] == ["stopped"]
    assert not any(is_alive(pid) for pid, _ in either.heard.ended)


async def test_one_that_eats_memory_is_stopped_at_its_own(either: Here):
    target = either.target("def handler(event, context):\n    return len(bytearray(event)) // 2**20", memory_mb=128)
    assert value(await target.invoke(invocation(str(50 * 2**20).encode()))) == 50
    assert error(await target.invoke(invocation(str(3 * 2**30).encode())))["errorType"] in {
        "MemoryError", "Runtime.ExitError",
    }  # fmt: skip
    assert value(await target.invoke(invocation(str(2**20).encode()))) == 1


async def test_one_that_writes_ten_megabytes_slows_nobody_else(either: Here):
    loud = either.target("import os\ndef handler(event, context):\n    print('x' * 79 + '\\n' * event)\n    return 1")
    quiet = either.target("def handler(event, context):\n    return 2")
    assert value(await quiet.invoke(invocation())) == 2
    asked = asyncio.ensure_future(loud.invoke(invocation(b"100000")))
    worst = 0.0
    while not asked.done():
        begun = time.monotonic()
        assert value(await quiet.invoke(invocation())) == 2
        worst = max(worst, time.monotonic() - begun)
    assert value(await asked) == 1
    assert worst < 2


async def test_one_that_reads_the_daemons_environment_finds_nothing_in_a_sandbox(walled: Here):
    code = f"""
        import os
        def handler(event, context):
            found = []
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        found.append(open(f"/proc/{{name}}/environ").read())
                    except OSError:
                        pass
            return {{"environs": "".join(found), "daemon": os.path.exists("/proc/{os.getpid()}")}}
        """
    seen = value(await walled.target(code).invoke(invocation()))
    assert not seen["daemon"]
    assert "PYTEST_CURRENT_TEST" not in seen["environs"]


async def test_one_that_asks_other_ports_of_loopback_reaches_no_other_environment_without_a_network(walled: Here):
    other = walled.target("import os\ndef handler(event, context):\n    return os.environ['AWS_LAMBDA_RUNTIME_API']")
    port = int(value(await other.invoke(invocation())).split(":")[1])
    code = f"""
        import socket
        def handler(event, context):
            return socket.socket().connect_ex(("127.0.0.1", {port}))
        """
    assert value(await walled.target(code, has_network=False).invoke(invocation())) != 0


async def test_one_that_breaks_its_connection_in_the_middle_of_an_answer_is_started_anew(here: Here):
    what = """
    if event == b"1":
        head = f"POST {prefix}{request_id}/response HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 9\\r\\n\\r\\n12"
        api.sock.sendall(head.encode())
        os._exit(3)
    call("POST", request_id + "/response", b"5")
    """.strip()
    target = here.target(BY_HAND.replace("{what}", what))
    assert error(await target.invoke(invocation(b"1")))["errorType"] == "Runtime.ExitError"
    assert value(await target.invoke(invocation(b"2"))) == 5


async def test_one_that_fills_its_disk_gets_an_error_and_nobody_else_does(walled: Here):
    target = walled.target(
        """
        def handler(event, context):
            with open("/tmp/big", "wb") as file:
                for _ in range(600): file.write(bytes(2**20))
        """,
        memory_mb=1024,
    )
    failure = error(await target.invoke(invocation()))
    assert (failure["errorType"], "No space left" in failure["errorMessage"]) == ("OSError", True)
    assert not Path("/tmp/big").exists()  # noqa: ASYNC240


async def test_one_that_ends_its_runtime_leaves_no_process(walled: Here):
    target = walled.target(
        """
        import os, subprocess
        def handler(event, context):
            subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; exec sleep 623"], start_new_session=True)
            os._exit(0)
        """
    )
    assert error(await target.invoke(invocation()))["errorMessage"].endswith(
        "Runtime exited without providing a reason"
    )
    await until(lambda: not [path for path in Path("/proc").iterdir() if path.name.isdigit() and _sleeps(path)])


def _sleeps(path: Path) -> bool:
    try:
        return (path / "cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", b"623"]
    except OSError:
        return False
