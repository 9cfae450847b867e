"""Environment: one process with AWS's runtime client, its Runtime API, and its output. One invocation at a time.

Enforced here: the time-outs, RLIMIT_NOFILE, a session of its own that ends with the daemon. MemorySize is told to the
function, not enforced. HOME is not set; the working directory is the code folder.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from esm.host import interpreters, runtime_client, sessions
from esm.host.output import Output
from esm.host.register import Register
from esm.host.runtime_api import Event, Result, RuntimeApi
from esm.model.function import HostedFunction
from esm.telemetry import Telemetry

LAUNCHER = Path(__file__).with_name("launcher.py")
PATH = "/usr/local/bin:/usr/bin/:/bin:/opt/bin"
"""Lambda's. Source: lambda.md 7.4."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended before it answered."""

    status: int
    """Exit status; negative: the signal."""

    @property
    def text(self) -> str:
        """As Lambda words it. Source: lambda.md 6."""
        if self.status == 0:
            return "Runtime exited without providing a reason"
        kind = "exit status" if self.status > 0 else "signal:"
        name = str(self.status) if self.status > 0 else _signal_name(-self.status)
        return f"Runtime exited with error: {kind} {name}"


@dataclass(frozen=True, slots=True)
class Surplus:
    """What an environment needs of its host."""

    client_folder: Path
    register: Register
    telemetry: Telemetry
    variables: Mapping[str, str]
    """Credentials and endpoint that were configured for functions."""


class Environment:
    """States: starting, idle, busy, ended. `end` may be called in each."""

    def __init__(self, function: HostedFunction, surplus: Surplus) -> None:
        self._function = function
        self._surplus = surplus
        self._api = RuntimeApi()
        self._output = Output(self._said)
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._died: asyncio.Future[Died] = asyncio.get_running_loop().create_future()
        self._request_id: str | None = None
        self.idle_since = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and not self._died.done()

    @property
    def init_error(self) -> bytes | None:
        """What the runtime reported when init failed."""
        return self._api.init_error

    async def start(self, request_id: str) -> None:
        """Start the process; `ready` says when init has ended. Raises: OSError."""
        self._request_id = request_id
        port = await self._api.start()
        function = self._function
        executable = interpreters.interpreter(function.runtime)
        python_path = dict(function.environment).get("PYTHONPATH", "")
        client = runtime_client.path(self._surplus.client_folder, function.runtime)
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - fork and exec take a millisecond
            [executable, "-I", "-S", "-B", "-u", str(LAUNCHER), str(os.getpid()), function.code, python_path, *client],
            stdin=subprocess.DEVNULL, stdout=self._output.write_fd, stderr=self._output.write_fd,
            cwd=function.code, env=self._variables(port), start_new_session=True,
        )  # fmt: skip
        self._output.start()
        self._surplus.register.add(self._process.pid)
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    async def ready(self, timeout_s: float) -> Died | bool:
        """True when init has ended; Died when the process ended first; False after `timeout_s`."""
        waits = asyncio.ensure_future(self._api.is_ready.wait())
        began_at = time.monotonic()
        try:
            both: set[asyncio.Future[Literal[True]] | asyncio.Future[Died]] = {waits, self._died}
            await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waits.cancel()
        if self._died.done():
            return self._died.result()
        if self._api.is_ready.is_set():
            assert self._process is not None
            self._surplus.telemetry.environment_started(
                self._function.key, self._process.pid, time.monotonic() - began_at
            )
            return True
        return False

    async def run(self, event: Event, timeout_s: float) -> Result | Died | None:
        """Run one event; None after `timeout_s`."""
        self._request_id = event.request_id
        result = self._api.offer(event)
        both: set[asyncio.Future[Result] | asyncio.Future[Died]] = {result, self._died}
        await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            self._request_id = None
            self.idle_since = time.monotonic()
            return result.result()
        return self._died.result() if self._died.done() else None

    def end(self, reason: str) -> None:
        """Kill the whole session and forget it."""
        self._api.close()
        if self._process is None:
            return
        process, self._process = self._process, None
        sessions.kill_session(process.pid)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._output.close()
        self._surplus.register.remove(process.pid)
        self._surplus.telemetry.environment_ended(self._function.key, process.pid, reason)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        assert self._process is not None
        status = self._process.wait()
        if not self._died.done():
            self._died.set_result(Died(status))

    def _said(self, line: str) -> None:
        self._surplus.telemetry.function_output(self._function.key, self._request_id, line)

    def _variables(self, port: int) -> dict[str, str]:
        function = self._function
        name, region = function.arn.name, function.arn.region
        variables = {
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "PATH": PATH,
            "LD_LIBRARY_PATH": f"/lib64:/usr/lib64:{function.code}:{function.code}/lib:/opt/lib",
            "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
            **dict(function.environment),
            **self._surplus.variables,
            "_HANDLER": function.handler,
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": time.strftime("%Y/%m/%d/[$LATEST]", time.gmtime()) + os.urandom(16).hex(),
            "LAMBDA_TASK_ROOT": function.code,
            "LAMBDA_RUNTIME_DIR": str(self._surplus.client_folder),
        }
        return {key: value for key, value in variables.items() if key != "PYTHONPATH"}


def _signal_name(number: int) -> str:
    names = {6: "aborted", 9: "killed", 11: "segmentation fault", 15: "terminated"}
    return names.get(number, str(number))
