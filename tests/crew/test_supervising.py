"""The supervisor and its workers: real processes, which play workers that behave in every way that one may."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio
import pytest
from anyio.streams.memory import MemoryObjectSendStream

from esm.cli import main
from esm.crew.place import Place
from esm.crew.supervising import SILENT_S, Crew, worker_environ
from esm.errors import OperatorNeeded, RequestRefused
from esm.settings import load_settings
from tests import servers

WORKER = """
import json, os, signal, socketserver, sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

folder, member = Path(sys.argv[1]), sys.argv[2]
name, counted = os.environ["ESM_WORKER_ID"], 0
mode = (folder / name).read_text() if (folder / name).exists() else ""
if mode == "refuse":
    sys.exit(print("esm: esm.yaml: something is wrong") or 2)
if mode == "crash":
    sys.exit(print("Traceback") or 1)
if mode != "deaf":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
else:
    signal.signal(signal.SIGTERM, lambda *_: print("asked to drain", flush=True))
signal.signal(signal.SIGINT, lambda *_: print("told to end", flush=True) or os._exit(0))

class Answers(BaseHTTPRequestHandler):
    def address_string(self):
        return ""
    def log_message(self, *_):
        pass
    def do_GET(self):
        global counted
        counted += 1
        bodies = {
            "/readyz": "ready", "/status": json.dumps({"of": name}), "/lag?a=b": "no such parameter",
            "/metrics": f"# HELP esm_asked_total T\\n# TYPE esm_asked_total counter\\nesm_asked_total {counted}\\n"
                        f"# HELP esm_lag_seconds T\\n# TYPE esm_lag_seconds gauge\\nesm_lag_seconds {len(name)}\\n",
        }
        self.send_response(400 if "?" in self.path else 200)
        self.end_headers()
        self.wfile.write(bodies[self.path].encode())

print("worker runs", json.dumps(dict(os.environ)), flush=True)
socketserver.UnixStreamServer(member.split(":", 2)[2], Answers).serve_forever()
"""


@dataclass
class World:
    """A crew that runs, and what is seen of it."""

    folder: Path
    signals: MemoryObjectSendStream[int]
    crew: Crew
    session: aiohttp.ClientSession
    url: str
    log: list[str] = field(default_factory=list)
    status: int | None = None

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.text()

    async def until(self, what: Callable[[], bool], within_s: float = 30) -> None:
        with anyio.fail_after(within_s):
            while not what():  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.02)

    async def value(self, name: str) -> float:
        lines = (await self.get("/metrics"))[1].splitlines()
        (found,) = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)]
        return found

    def pid(self, index: int) -> int:
        run = self.crew._posts[index].run
        assert run is not None
        return run.process.pid


@asynccontextmanager
async def crew_of(
    folder: Path, count: int = 2, modes: Mapping[str, str] | None = None, grace_s: float = 10
) -> AsyncIterator[World]:
    (folder / "worker.py").write_text(WORKER)
    for name, mode in (modes or {}).items():
        (folder / name).write_text(mode)
    port = servers.free_port()
    settings = load_settings(
        {"ESM_STATE": f"sqlite://{folder}/state.db", "ESM_METRICS_ADDRESS": f"127.0.0.1:{port}", "ESM_WORKER_ID": "w"},
        {},
    ).model_copy(update={"shutdown_grace_s": grace_s})
    send, receive = anyio.create_memory_object_stream[int](10)
    log: list[str] = []
    crew = Crew(
        settings, {"PATH": os.environ["PATH"]}, count,
        lambda member: [sys.executable, "-I", str(folder / "worker.py"), str(folder), str(member)],
        lambda line: log.append(line.decode().removesuffix("\n")),
    )  # fmt: skip
    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        world = World(folder, send, crew, session, f"http://127.0.0.1:{port}", log)

        async def run() -> None:
            world.status = await crew.run(receive)

        tasks.start_soon(run)
        try:
            yield world
            await world.until(lambda: world.status is not None)
        finally:
            tasks.cancel_scope.cancel()
            send.close()
            receive.close()


async def test_workers_that_run_are_ready_together_answered_for_together_and_end_together(tmp_path: Path) -> None:
    async with crew_of(tmp_path) as world:
        await world.until(world.crew.are_ready)
        assert [await world.get(path) for path in ("/readyz", "/healthz")] == [(200, "ready\n"), (200, "ok\n")]
        assert json.loads((await world.get("/status"))[1])["of"] in {"w-1", "w-2"}
        assert await world.get("/lag?a=b") == (400, "no such parameter")
        assert (await world.get("/nothing"))[0] == 404
        assert await world.value("esm_lag_seconds ") == 3
        assert await world.value('esm_worker_up{worker="w-2"}') == 1
        await world.signals.send(signal.SIGTERM)
        await world.until(lambda: world.status is not None)
    assert world.status == 0
    started = {line.split(" ")[0]: json.loads(line.split(" ", 4)[4]) for line in world.log}
    assert started.keys() == {"w-1", "w-2"}
    for name, environ in started.items():
        assert (environ["ESM_WORKER_ID"], environ["ESM_BUFFER_BYTES_MAX"]) == (name, str(256 * 1024 * 1024))


async def test_a_killed_worker_comes_back_and_no_counter_goes_back(tmp_path: Path) -> None:
    async with crew_of(tmp_path) as world:
        await world.until(world.crew.are_ready)
        before = await world.value("esm_asked_total")
        killed = world.pid(0)
        os.kill(killed, signal.SIGKILL)
        await world.until(lambda: not world.crew.are_ready())
        assert (await world.get("/readyz"))[0] == 503
        assert await world.value("esm_asked_total") > before
        assert json.loads((await world.get("/status"))[1])["of"] == "w-2"
        await world.until(world.crew.are_ready)
        assert await world.value("esm_asked_total") > before
        assert await world.value('esm_worker_restarts_total{worker="w-1"}') == 1
        assert world.pid(0) != killed
        await world.signals.send(signal.SIGINT)
    assert world.status == 0


async def test_a_worker_that_refuses_to_start_ends_everything_with_its_text(tmp_path: Path) -> None:
    async with crew_of(tmp_path, modes={"w-2": "refuse"}) as world:
        pass
    assert world.status == 2
    assert "w-2 | esm: esm.yaml: something is wrong" in world.log
    assert all(post.starts == 1 for post in world.crew._posts)


async def test_a_worker_that_crashes_at_its_start_is_started_again(tmp_path: Path) -> None:
    async with crew_of(tmp_path, modes={"w-1": "crash"}) as world:
        await world.until(lambda: "w-1 | Traceback" in world.log)
        assert not world.crew.are_ready()
        (tmp_path / "w-1").unlink()
        await world.until(world.crew.are_ready)
        await world.signals.send(signal.SIGTERM)
    assert world.status == 0


async def test_a_worker_that_was_ready_and_then_refuses_harms_itself_alone(tmp_path: Path) -> None:
    async with crew_of(tmp_path) as world:
        await world.until(world.crew.are_ready)
        (tmp_path / "w-1").write_text("refuse")
        os.kill(world.pid(0), signal.SIGKILL)
        await world.until(lambda: world.log[-1] == "w-1 | esm: esm.yaml: something is wrong")
        (tmp_path / "w-1").unlink()
        await world.until(world.crew.are_ready)
        await world.signals.send(signal.SIGTERM)
    assert world.status == 0


async def test_a_second_signal_ends_workers_at_once(tmp_path: Path) -> None:
    async with crew_of(tmp_path, modes={"w-1": "deaf"}) as world:
        await world.until(world.crew.are_ready)
        await world.signals.send(signal.SIGTERM)
        await world.until(lambda: "w-1 | asked to drain" in world.log)
        assert not world.crew.are_ready()
        await world.signals.send(signal.SIGTERM)
    assert world.status == 0
    assert "w-1 | told to end" in world.log


async def test_a_worker_that_does_not_end_is_killed_after_the_grace_period_and_the_status_says_so(
    tmp_path: Path,
) -> None:
    async with crew_of(tmp_path, modes={"w-1": "deaf"}, grace_s=0.1) as world:
        await world.until(world.crew.are_ready)
        await world.signals.send(signal.SIGTERM)
    assert world.status == 1


async def test_a_worker_that_is_silent_for_long_makes_the_supervisor_unhealthy(tmp_path: Path) -> None:
    async with crew_of(tmp_path, modes={"w-1": "crash"}) as world:
        await world.until(lambda: "w-1 | Traceback" in world.log)
        assert (await world.get("/healthz"))[0] == 200
        world.crew._posts[0].heard_at -= SILENT_S
        status, text = await world.get("/healthz")
        assert status == 503
        assert text.startswith("worker w-1 has not answered for 6")
        await world.signals.send(signal.SIGTERM)
    assert world.status in {0, 1}  # 1: w-1 was crashing once more just then


async def test_without_a_worker_that_answers_the_supervisor_says_so(tmp_path: Path) -> None:
    async with crew_of(tmp_path, count=1, modes={"w-1": "crash"}) as world:
        await world.until(lambda: "w-1 | Traceback" in world.log)
        assert await world.get("/status") == (503, "no worker answers\n")
        assert await world.value('esm_worker_up{worker="w-1"}') == 0
        await world.signals.send(signal.SIGTERM)
    assert world.status in {0, 1}  # 1: w-1 was crashing once more just then


async def test_a_state_that_is_in_use_or_cannot_be_shared_is_refused_before_any_worker_starts(tmp_path: Path) -> None:
    settings = load_settings({"ESM_STATE": "memory://"}, {})
    crew = Crew(settings, {}, 2, lambda _: ["/nowhere"], lambda _: None)
    with pytest.raises(RequestRefused, match="leave out --workers"):
        await crew.run(_never())
    async with crew_of(tmp_path, count=1) as world:
        await world.until(world.crew.are_ready)
        with pytest.raises(OperatorNeeded, match=f"in use by process {os.getpid()}"):
            await Crew(world.crew._settings, {}, 1, lambda _: ["/nowhere"], lambda _: None).run(_never())
        await world.signals.send(signal.SIGTERM)


async def test_a_process_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    async with crew_of(tmp_path, count=1) as world:
        await world.until(world.crew.are_ready)
        command, world.crew._command = world.crew._command, lambda _: [str(tmp_path / "nowhere")]
        os.kill(world.pid(0), signal.SIGKILL)
        await world.until(lambda: world.crew._posts[0].starts == 2)
        world.crew._command = command
        await world.until(world.crew.are_ready)
        await world.signals.send(signal.SIGTERM)
    assert world.status == 0


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "65", "1.5", ""])
def test_a_number_of_workers_that_makes_no_sense_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--workers", wrong])
    assert ended.value.code == 2
    assert f"'{wrong}' is not a number of workers: use 1 to 64" in capsys.readouterr().err


def test_memory_that_is_too_little_for_so_many_workers_is_refused_with_how_many_it_suffices_for() -> None:
    settings = load_settings({"ESM_BUFFER_BYTES_MAX": str(100 * 1024 * 1024)}, {})
    assert worker_environ(settings, {"A": "b"}, 3, "w-1")["A"] == "b"
    with pytest.raises(RequestRefused, match=r"--workers 4: .* raise it to 134217728, or start 3 workers at most"):
        worker_environ(settings, {}, 4, "w-1")


def test_a_place_in_a_crew_goes_through_the_command_line() -> None:
    for member in (Place(7, 3, Path("/tmp/a:b")), Place(7, None, Path("/tmp/a"))):
        assert Place.parse(str(member)) == member
    with pytest.raises(ValueError, match="not enough values"):
        Place.parse("7")


def test_a_place_is_the_supervisors_to_give_and_its_death_is_the_workers() -> None:
    text = "import sys; from esm.crew.place import Place; Place(int(sys.argv[1]), None, 'x').take()"
    command = [sys.executable, "-c", f"{text}; print('taken', flush=True); sys.stdin.read()"]
    stranger = subprocess.run([*command, "1"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert "The process 1 is not, or no longer, the supervisor of this worker" in stranger.stderr
    starter = (
        "import os, subprocess, sys; child = subprocess.Popen([*sys.argv[1:], str(os.getpid())],"
        " stdin=subprocess.PIPE); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", starter, *command], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        worker = os.pidfd_open(int(supervisor.stdout.readline()))
        assert supervisor.stdout.readline() == "taken\n"
        supervisor.kill()
        assert select.select([worker], [], [], 10)[0] == [worker]
        os.close(worker)


async def _never() -> AsyncIterator[int]:
    await anyio.sleep_forever()
    yield 0
