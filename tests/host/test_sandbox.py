"""What a sandbox keeps a function from, and what it leaves to it."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from esm.errors import OperatorNeeded
from esm.host import Host
from esm.host.cgroups import Cgroups
from esm.host.isolation import Isolation, find_isolation
from esm.model.invocation import Answer
from tests.host.conftest import PATH, Here, error, invocation, is_alive, until, value

LOOKS = """
import os, socket
def handler(event, context):
    return {name: eval(text) for name, text in event.items()}
"""


async def look(here: Here, questions: dict[str, str], **changes: object) -> dict[str, object]:
    return value(await here.target(LOOKS, **changes).invoke(invocation(json.dumps(questions).encode())))


async def test_a_function_sees_lambdas_folders_and_none_of_the_daemons(walled: Here):
    secret = walled.folder / "secret"
    secret.write_text("hunter2")
    seen = await look(walled, {
        "task": "os.listdir('/var/task')", "root": "os.environ['LAMBDA_TASK_ROOT']", "cwd": "os.getcwd()",
        "secret": f"os.path.exists({str(secret)!r})", "home": "os.listdir('/home') if os.path.exists('/home') else []",
        "shadow": "os.path.exists('/etc/shadow')", "user": "os.getuid()", "runtime": "os.environ['LAMBDA_RUNTIME_DIR']",
        "pids": "sorted(int(name) for name in os.listdir('/proc') if name.isdigit())",
        "environ": "open('/proc/1/environ', 'rb').read().decode(errors='replace')",
    })  # fmt: skip
    assert (seen["task"], seen["root"], seen["cwd"], seen["runtime"]) == (
        ["app.py"], "/var/task", "/var/task", "/var/runtime",
    )  # fmt: skip
    assert (seen["secret"], seen["home"], seen["shadow"]) == (False, [], False)
    assert seen["user"] in {993, os.getuid()}
    assert max(seen["pids"]) < 20
    assert seen["environ"] in {"", "PWD=/\0"}


@pytest.mark.parametrize("place", ["/var/task/x", "/opt/x", "/x", "/usr/x", "/etc/x", "/var/runtime/x"])
async def test_nothing_but_tmp_can_be_written(walled: Here, place: str):
    target = walled.target(f"def handler(event, context):\n    open({place!r}, 'w')")
    assert error(await target.invoke(invocation()))["errorType"] in {"OSError", "PermissionError", "FileNotFoundError"}


async def test_tmp_is_the_environments_own_and_as_large_as_asked_for(walled: Here):
    marker = Path("/tmp") / f"esm-test-{os.getpid()}"
    target = walled.target(
        f"""
        import os
        def handler(event, context):
            found = os.listdir("/tmp")
            open({str(marker)!r}, "w").close()
            try:
                with open("/tmp/big", "wb") as file:
                    for _ in range(600):
                        file.write(bytes(1024 * 1024))
            except OSError as error:
                return [found, error.strerror, round(os.path.getsize("/tmp/big") / 2**20)]
        """,
        ephemeral_mb=512, memory_mb=512,
    )  # fmt: skip
    found, said, size_mb = value(await target.invoke(invocation()))
    assert (found, said) == ([], "No space left on device")
    assert 500 <= size_mb <= 512
    assert not marker.exists()
    assert sorted(value(await target.invoke(invocation()))[0]) == ["big", marker.name]


async def test_without_a_network_nothing_is_reached_and_the_function_runs(walled: Here):
    questions = {
        "interfaces": "[name for _, name in socket.if_nameindex()]",
        "metadata": "socket.socket().connect_ex(('169.254.169.254', 80))",
        "api": "os.environ['AWS_LAMBDA_RUNTIME_API']",
    }
    seen = await look(walled, questions, has_network=False)
    assert seen["interfaces"] == ["lo"]
    assert seen["metadata"] != 0
    assert seen["api"] == "127.0.0.1:9001"


async def test_declared_folders_are_mounted(walled: Here):
    shared = walled.folder / "shared"
    shared.mkdir()
    code = "def handler(event, context):\n    open('/mnt/shared/x', 'w').write('1')\n    return 1"
    assert value(await walled.target(code, file_systems=((str(shared), "/mnt/shared"),)).invoke(invocation())) == 1
    assert (shared / "x").read_text() == "1"
    with pytest.raises(OperatorNeeded, match="is no folder: make it"):
        await walled.target(code, file_systems=((str(shared / "no"), "/mnt/x"),)).facts()


async def test_everything_that_a_function_started_ends_with_it(walled: Here):
    before = set(os.listdir("/proc"))  # noqa: PTH208
    target = walled.target(
        """
        import os, subprocess, time
        def handler(event, context):
            for _ in range(20):
                subprocess.Popen(["/bin/sleep", "617"], start_new_session=True, env={})
            if event: os._exit(1)
            time.sleep(60)
        """,
        timeout_s=1,
    )
    for payload in (b"1", b"0"):
        error(await target.invoke(invocation(payload)))
        await until(lambda: not _sleepers(before))


def _sleepers(before: set[str]) -> list[str]:
    found = [path for path in Path("/proc").iterdir() if path.name.isdigit() and path.name not in before]
    return [path.name for path in found if is_alive(int(path.name)) and b"617" in _line(path)]


def _line(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:
        return b""


async def test_a_fork_bomb_is_bounded_where_that_is_said_and_ends_with_its_environment(walled: Here):
    before = set(os.listdir("/proc"))  # noqa: PTH208
    said = find_isolation("auto", PATH).enforced()["number of processes"]
    many = 300 if said.startswith("not enforced") else 3000
    target = walled.target(
        """
        import os, time
        def handler(event, context):
            started = 0
            try:
                while started < event:
                    if os.fork() == 0:
                        os.execve("/bin/sleep", ["sleep", "617"], {})
                    started += 1
            except OSError:
                pass
            print(started)
            time.sleep(60)
        """,
        timeout_s=10,
    )
    assert error(await target.invoke(invocation(str(many).encode())))["errorType"] == "Sandbox.Timedout"
    assert int(walled.heard.lines[0][2]) <= 1024
    await until(lambda: not _sleepers(before))


async def test_memory_is_bounded(walled: Here):
    target = walled.target(
        "def handler(event, context):\n    return len(bytearray(event * 1024 * 1024)) // 1024 // 1024"
    )
    assert value(await target.invoke(invocation(b"100"))) == 100
    ending = await target.invoke(invocation(b"2000"))
    assert error(ending)["errorType"] in {"MemoryError", "Runtime.ExitError"}
    assert value(await target.invoke(invocation(b"10"))) == 10


TICKS = """
import threading, time
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.01)
threading.Thread(target=tick, daemon=True).start()
def handler(event, context):
    time.sleep(0.05)
    gaps = [b - a for a, b in zip(ticks, ticks[1:])]
    return max(gaps, default=0)
"""


async def test_an_idle_environment_is_frozen_and_thawed_to_serve(walled: Here):
    target = walled.target(TICKS)
    await target.invoke(invocation())
    await asyncio.sleep(1)
    assert value(await target.invoke(invocation())) > 0.7


async def test_without_a_group_the_process_space_is_stopped(walled: Here):
    found = find_isolation("auto", PATH)
    host = Host(directory=walled.folder / "signals", concurrency_default=1, telemetry=walled.heard, idle_s=60,
                isolation=lambda: replace(found, cgroups=Cgroups(None)))  # fmt: skip
    try:
        target = host.target(walled.function(TICKS))
        await target.invoke(invocation())
        await asyncio.sleep(1)
        assert value(await target.invoke(invocation())) > 0.7
        assert host.isolation is not None
        assert host.isolation.enforced()["freezing"] == "SIGSTOP to its process space"
    finally:
        await host.aclose()


async def test_the_exit_of_a_sandboxed_runtime_is_told_as_it_was(walled: Here):
    target = walled.target("import os\ndef handler(event, context):\n    os._exit(3) if event else None\n    return 1")
    failure = error(await target.invoke(invocation(b"1")))
    assert failure["errorMessage"].endswith("Runtime exited with error: exit status 3")
    killed = walled.target("import os\ndef handler(event, context):\n    os.kill(os.getpid(), 9)")
    assert error(await killed.invoke(invocation()))["errorMessage"].endswith("signal: killed")
    bad = error(await walled.target("import absent").invoke(invocation()))
    assert bad["errorType"] == "Runtime.ImportModuleError"


async def test_output_and_time_outs_are_as_outside(walled: Here):
    target = walled.target(
        "import time\nprint('loading')\ndef handler(event, context):\n    print('ran')\n    time.sleep(event)",
        timeout_s=1,
    )
    asked = invocation(b"60")
    assert error(await target.invoke(asked))["errorType"] == "Sandbox.Timedout"
    assert walled.heard.lines[:2] == [("orders", None, "loading"), ("orders", asked.request_id, "ran")]
    ending = await target.invoke(invocation(b"0"))
    assert isinstance(ending, Answer)
    assert ending.payload == b"null"


async def test_where_there_is_no_sandbox_what_needs_one_is_refused(here: Here):
    for changes in ({"has_network": False}, {"file_systems": (("/srv", "/mnt/x"),)}):
        with pytest.raises(OperatorNeeded, match="need a sandbox, and there is none"):
            await here.target(LOOKS, **changes).facts()


def test_what_is_enforced_is_said_and_a_wish_that_cannot_be_met_is_refused():
    nothing = find_isolation("none")
    assert not nothing.is_sandboxed
    assert nothing.enforced()["files"] == "not enforced: ESM_HOST_ISOLATION is none"
    with pytest.raises(OperatorNeeded, match="bwrap is not installed"):
        find_isolation("bubblewrap", path="/nowhere")
    assert "bwrap is not installed" in find_isolation("auto", path="/nowhere").why_not
    assert Isolation(bubblewrap="/usr/bin/bwrap").enforced()["files"] == "sandbox (bubblewrap)"
