"""Real functions in real processes: handlers are written into the test's own folder."""

import asyncio
import os
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from esm.host import Host
from esm.host.isolation import find_isolation
from esm.model.arn import Arn
from esm.model.clocks import Instant
from esm.model.function import HostedFunction
from esm.model.invocation import Answer, Ending, Invocation
from esm.ports import Target
from esm.telemetry import Telemetry

ARN = Arn.parse("arn:aws:lambda:eu-west-3:123456789012:function:orders")


PATH = f"{os.environ['PATH']}:{Path('.servers/bubblewrap').absolute()}"
"""Where bubblewrap may be: installed, or made by `make bubblewrap`."""


class Heard(Telemetry):
    """Keeps what hosted functions said and did."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry())
        self.lines: list[tuple[str, str | None, str]] = []
        self.ended: list[tuple[int, str]] = []
        self.orphans: list[int] = []

    def function_output(self, function: str, request_id: str | None, line: str) -> None:
        self.lines.append((function, request_id, line))

    def environment_ended(self, function: str, pid: int, reason: str) -> None:  # noqa: ARG002
        self.ended.append((pid, reason))

    def orphan_ended(self, pid: int) -> None:
        self.orphans.append(pid)


@dataclass
class Here:
    """A host, and functions for it."""

    host: Host
    folder: Path
    heard: Heard

    def function(self, source: str, **changes: Any) -> HostedFunction:
        folder = self.folder / f"code-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        (folder / "app.py").write_text(textwrap.dedent(source))
        facts = {"runtime": "python3.11", "handler": "app.handler", "code": str(folder), "timeout_s": 20, **changes}
        return HostedFunction("orders", ARN, "arn:aws:iam::123456789012:role/orders", **facts)

    def written(self, files: dict[str, str], handler: str = "app.handler", **changes: Any) -> HostedFunction:
        """A function of several files, those below `bin` and called bootstrap executable."""
        folder = self.folder / f"code-{uuid.uuid4().hex[:8]}"
        write(folder, files)
        facts = {"runtime": "python3.11", "handler": handler, "code": str(folder), "timeout_s": 20, **changes}
        return HostedFunction("orders", ARN, "arn:aws:iam::123456789012:role/orders", **facts)

    def target(self, source: str, **changes: Any) -> Target:
        return self.host.target(self.function(source, **changes))


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(textwrap.dedent(text).lstrip())
        if text.lstrip().startswith("#!"):
            place.chmod(0o755)
    return folder


def invocation(payload: bytes = b"{}", start_by: float | None = None, trace: str | None = None) -> Invocation:
    return Invocation(str(uuid.uuid4()), ARN, payload, None if start_by is None else Instant(start_by), trace)


def now() -> float:
    return asyncio.get_running_loop().time()


def value(ending: Ending) -> Any:
    """What the function returned."""
    assert isinstance(ending, Answer), ending
    assert ending.function_error is None, ending.payload
    return msgspec.json.decode(ending.payload)


def error(ending: Ending) -> dict[str, Any]:
    """How the function failed."""
    assert isinstance(ending, Answer), ending
    assert (ending.status, ending.function_error) == (200, "Unhandled")
    return msgspec.json.decode(ending.payload, type=dict[str, Any])


def is_alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


async def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    """Return once `condition` holds; fails after `within_s`."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it may be anything, in another process too
            await asyncio.sleep(0.01)


def other_python() -> tuple[str, str]:
    """A version of Python that is not the daemon's, with the PATH on which it is."""
    for version in ("python3.12", "python3.13", "python3.10"):
        roots = [*Path.home().glob(f".pyenv/versions/{version[6:]}.*/bin"), Path("/usr/bin"), Path("/usr/local/bin")]
        for root in roots:
            if (root / version).exists():
                return version, str(root)
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail("no second version of Python here (REQUIRE_SERVERS=1: nothing may be skipped)")
    pytest.skip("no second version of Python here")


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    heard = Heard()
    host = Host(directory=tmp_path / "host", concurrency_default=2, telemetry=heard, idle_s=60)
    try:
        yield Here(host, tmp_path, heard)
    finally:
        await host.aclose()


@pytest.fixture
async def walled(tmp_path: Path) -> AsyncIterator[Here]:
    """As `here`, in sandboxes, where this machine can have them."""
    isolation = find_isolation("auto", PATH)
    if not isolation.is_sandboxed:
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail(f"no sandbox here ({isolation.why_not}; REQUIRE_SERVERS=1: nothing may be skipped)")
        pytest.skip(f"no sandbox here: {isolation.why_not}")
    heard = Heard()
    host = Host(
        directory=tmp_path / "host", concurrency_default=2, telemetry=heard, idle_s=60, isolation=lambda: isolation
    )
    try:
        yield Here(host, tmp_path, heard)
    finally:
        await host.aclose()
