"""`esm demo`: the stage (an embedded local AWS in a temporary folder), and the course on it."""

import importlib.util
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from esm.demo.children import Child, clean_environ, free_port, is_listening, wait_started
from esm.demo.course import Course
from esm.demo.screen import summary, welcome
from esm.demo.world import KEYS, connected, make_world
from esm.errors import OperatorNeeded, Unavailable


async def run_demo(seconds: float | None) -> int:
    """Run until Ctrl-C, or write for `seconds` and end. Returns the exit status: 1 where a record is missing.

    Raises: OperatorNeeded where the extra `local` is not installed, Unavailable where a child does not start.
    """
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        raise OperatorNeeded("the demo needs moto's server, which is not installed: pip install '.[local]'")
    with tempfile.TemporaryDirectory(prefix="esm-demo-") as name:
        folder = Path(name)
        async with _emulator(folder) as endpoint, connected(endpoint) as clients:
            try:
                world = await make_world(endpoint, clients)
            except (BotoCoreError, ClientError) as error:
                raise Unavailable(f"the demo's emulator did not make its queues and streams: {error}") from error
            console = Console()
            course = Course(console, folder, world, seconds)
            _print(console, welcome(world, str(course.daemon.log)))
            status = await course.run()
            _print(console, ["", *summary(course.seen), *course.verdict()])
            return status


@asynccontextmanager
async def _emulator(folder: Path) -> AsyncIterator[str]:
    port = free_port()
    command = [sys.executable, "-P", str(Path(__file__).with_name("embedded.py")), str(port)]
    child = Child("emulator", command, clean_environ(folder, KEYS), folder / "emulator.log")
    child.start()
    try:
        await wait_started(child, lambda: is_listening(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        with anyio.CancelScope(shield=True):
            await child.stop(grace_s=3)


def _print(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
