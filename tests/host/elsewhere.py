"""Runtimes elsewhere: AWS's own client in processes of their own, which ask at an address of this one."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from esm.api.slow_clients import Connections
from esm.host.doorway import Rounds
from esm.host.elsewhere import Elsewhere
from esm.host.metrics import HostMetrics
from esm.model.function import PulledFunction
from esm.ports import Target
from esm.telemetry import Telemetry
from tests import servers
from tests.host.conftest import ARN, until, write

ROLE = "arn:aws:iam::123456789012:role/orders"


class Warned(Telemetry):
    """Keeps what was warned about."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry())
        self.texts: list[tuple[str, dict[str, object]]] = []

    def warned(self, text: str, **fields: object) -> None:
        self.texts.append((text, fields))


@dataclass
class Door:
    """One function's address, and runtimes that ask there."""

    elsewhere: Elsewhere
    folder: Path
    heard: Warned
    function: PulledFunction
    target: Target
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.function.host}:{self.function.port}"

    @property
    def present(self) -> int:
        return self.elsewhere.present(self.function)

    @property
    def connected(self) -> tuple[int, ...]:
        """The other ends' ports of connections over which runtimes have asked."""
        (place,) = self.elsewhere._places.values()
        found = [one.transport.get_extra_info("peername") for one in place.doorway._connections.runtimes]
        return tuple(sorted(name[1] for name in found))

    def metric(self, name: str, **labels: str) -> float:
        return self.heard.registry.get_sample_value(name, {"function": "orders", **labels}) or 0.0

    async def start(self, source: str, address: str | None = None) -> asyncio.subprocess.Process:
        """A runtime: awslambdaric with a handler, as an image's entry point starts it."""
        return await self.run({"app.py": source}, (sys.executable, "-m", "awslambdaric", "app.handler"), address)

    async def run(
        self, files: dict[str, str], command: Sequence[str], address: str | None = None
    ) -> asyncio.subprocess.Process:
        """Any other one."""
        code = write(self.folder / f"image-{uuid.uuid4().hex[:8]}", files)
        environ = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(code), "PYTHONWARNINGS": "ignore",
            "AWS_LAMBDA_RUNTIME_API": address or self.address, "LAMBDA_TASK_ROOT": str(code),
            "AWS_LAMBDA_FUNCTION_NAME": "orders", "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        }  # fmt: skip
        with (code / "output").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=code, env=environ, stdout=output, stderr=output, start_new_session=True
            )  # fmt: skip
        self.processes.append(process)
        return process

    async def until_there(self, count: int) -> None:
        await until(lambda: self.present == count)


Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def peers(made: Door) -> AsyncIterator[Callable[[], Awaitable[Peer]]]:
    """Connections by hand; closed at last."""
    opened: list[Peer] = []

    async def connect() -> Peer:
        opened.append(await asyncio.open_connection(made.function.host, made.function.port))
        return opened[-1]

    try:
        yield connect
    finally:
        for _, writer in opened:
            writer.close()


@asynccontextmanager
async def door(
    folder: Path, *, rounds: Rounds | None = None, shares_port: bool = False, **changes: Any
) -> AsyncIterator[Door]:
    """A served address; every process that was started at it is ended at last."""
    heard = Warned()
    elsewhere = Elsewhere(
        heard, HostMetrics(heard.registry), Connections, serves=True, rounds=rounds, shares_port=shares_port
    )  # fmt: skip
    members = {"host": "127.0.0.1", "port": servers.free_port(), "timeout_s": 20, **changes}
    function = PulledFunction("orders", ARN, ROLE, **members)
    made = Door(elsewhere, folder, heard, function, elsewhere.target(function))
    try:
        await made.target.facts()
        yield made
    finally:
        await made.target.aclose()
        for process in made.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
