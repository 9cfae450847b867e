"""No process of a function outlives its daemon, however that ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from esm.host import Host, leftovers
from tests.host.conftest import Here, is_alive, until

ROOT = Path(__file__).resolve().parents[2]
DAEMON = """
import asyncio, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from esm.host import Host
from esm.telemetry import Telemetry
from esm.model.arn import Arn
from esm.model.function import HostedFunction
from esm.model.invocation import Invocation

class Said(Telemetry):
    def function_output(self, function, request_id, line):
        print(line, flush=True)

async def main(directory, code):
    host = Host(directory=Path(directory), concurrency_default=2, telemetry=Said(CollectorRegistry()), idle_s=60)
    arn = Arn.parse("arn:aws:lambda:us-east-1:000000000000:function:f")
    target = host.target(HostedFunction("f", arn, "role", "python3.11", "app.handler", code, 600))
    invoked = asyncio.ensure_future(target.invoke(Invocation("1", arn, b"{}")))
    while host._guard is None:
        await asyncio.sleep(0.01)
    print("guard", host._guard.pid, flush=True)
    await invoked

asyncio.run(main(*sys.argv[1:]))
"""
HANDLER = """
import os, signal, subprocess, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
def handler(event, context):
    plain = subprocess.Popen(["sleep", "600"])
    away = subprocess.Popen(["sleep", "600"], start_new_session=True)
    bare = subprocess.Popen(["sleep", "600"], env={})
    print("pids", os.getpid(), plain.pid, away.pid, bare.pid)
    time.sleep(600)
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, list[int]]]:
    """A daemon in a process of its own, its guard, and the pids of its function and what that has started."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "app.py").write_text(HANDLER)
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(tmp_path / "host"), str(code)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    pids: list[int] = []
    try:
        assert process.stdout is not None
        guard = int(process.stdout.readline().split()[1])
        pids = [int(pid) for pid in process.stdout.readline().split()[1:]]
        assert len(pids) == 4
        assert all(is_alive(pid) for pid in [guard, *pids])
        yield process, guard, pids
    finally:
        for pid in [process.pid, *pids]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def test_a_killed_daemon_takes_its_functions_and_all_that_they_started_with_it(daemon, tmp_path):
    process, guard, pids = daemon
    process.kill()
    process.wait()
    await until(lambda: not any(is_alive(pid) for pid in [guard, *pids]), within_s=5)
    assert not list((tmp_path / "host" / "environments").iterdir())


async def test_what_is_left_when_the_guard_was_killed_too_is_ended_at_the_next_start(daemon, here: Here):
    process, guard, pids = daemon
    os.kill(guard, signal.SIGKILL)
    process.kill()
    process.wait()
    await until(lambda: not is_alive(pids[0]), within_s=5)
    assert is_alive(pids[1])
    here.host.end_leftovers()
    await until(lambda: not any(is_alive(pid) for pid in pids[:3]), within_s=5)
    assert set(here.heard.orphans) == set(pids[1:3])
    assert not list((here.folder / "host" / "environments").iterdir())


async def test_the_environments_of_a_daemon_that_lives_are_left_alone(daemon, here: Here):
    _, _, pids = daemon
    here.host.end_leftovers()
    assert here.heard.orphans == []
    assert all(is_alive(pid) for pid in pids)


def test_a_process_that_has_the_number_of_an_old_environment_is_left_alone(tmp_path):
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        entry = leftovers.write(tmp_path, leftovers.new_token(), process.pid)
        for started in (entry.started - 100, entry.started):
            fields = (process.pid, started, 2**22 + 1, 5, entry.boot)
            (tmp_path / entry.token).write_text(" ".join(map(str, fields)))
            ended = leftovers.end_all(tmp_path)
            assert ended == ([process.pid] if started == entry.started else [])
        assert process.wait() == -9
    finally:
        process.kill()
        process.wait()


def test_a_register_that_a_dying_daemon_left_unfinished_is_cleared(tmp_path):
    (tmp_path / "0123").write_text("17 ")
    assert leftovers.end_all(tmp_path) == []
    assert not list(tmp_path.iterdir())


async def test_a_start_without_hosted_functions_makes_no_folder(tmp_path, here: Here):
    host = Host(directory=tmp_path / "none", concurrency_default=1, telemetry=here.heard, idle_s=1)
    host.end_leftovers()
    await host.aclose()
    assert not (tmp_path / "none").exists()


def test_an_entry_that_a_daemon_beside_this_one_is_writing_is_left_alone_until_that_has_died(tmp_path):
    with subprocess.Popen(["sleep", "600"]) as beside:
        unfinished = tmp_path / f"{leftovers.new_token()}.{beside.pid}"
        unfinished.touch()
        assert leftovers.end_all(tmp_path) == []
        assert unfinished.exists()
        beside.kill()
        beside.wait()
        assert leftovers.end_all(tmp_path) == []
    assert not list(tmp_path.iterdir())
