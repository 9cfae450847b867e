"""Functions that run here, each behind the Lambda Runtime API in processes of its own.

What is enforced: the timeout, the concurrency, 1,024 open files, no core dumps, Lambda's limit on answers, and that
nothing of the daemon (environment, libraries) reaches a function. MemorySize is told to the function and not enforced.
A function runs as the daemon's user and sees its files.

A handler imports the standard library, what lies in its CodeUri and on its own PYTHONPATH, and what AWS's runtime
client brings; not boto3, which has to lie beside the handler.
"""

import asyncio
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host import leftovers
from esm.host.admission import Admission
from esm.host.cell import PlainCell
from esm.host.code import check_code
from esm.host.environment import Blueprint
from esm.host.extensions_api import Facts
from esm.host.interpreters import Interpreters, own_executable
from esm.host.pool import Pool
from esm.host.variables import variables
from esm.model.function import HostedFunction
from esm.ports import Target
from esm.rules.environments import Upkeep
from esm.telemetry import Telemetry

_LAUNCHER = Path(__file__).with_name("launcher.py")
_GUARD_S = 10.0


class Host:
    """Makes targets of hosted functions. Needs a running asyncio loop from the first target on."""

    def __init__(
        self,
        *,
        directory: Path,
        concurrency_default: int,
        telemetry: Telemetry,
        idle_s: float,
        age_max_s: float = 14_400,
        concurrency_total: int = 1000,
        function_environment: Mapping[str, str] | None = None,
        path: str | None = None,
    ) -> None:
        """Does no I/O.

        `directory` is the host's own: runtime clients and the register of environments. `function_environment` is
        what every function gets of AWS: credentials, an endpoint. Interpreters are looked for on `path`; None is the
        daemon's PATH.
        """
        self._directory = directory.absolute()
        self._register = self._directory / "environments"
        self._concurrency_default = concurrency_default
        self._telemetry = telemetry
        self._idle_s = idle_s
        self._age_max_s = age_max_s
        self._admission = Admission(concurrency_total)
        self._given = dict(function_environment or {})
        self._interpreters = Interpreters(self._directory / "clients", path)
        self._pools: list[Pool] = []
        self._guard: subprocess.Popen[bytes] | None = None

    def target(self, function: HostedFunction) -> Target:
        """What runs `function`. Does no I/O: `facts()` says what is missing."""
        reserved = function.reserved_concurrency
        concurrency = self._concurrency_default if reserved is None else reserved
        upkeep = Upkeep(
            concurrency, function.provisioned_concurrency, idle_s=self._idle_s, age_max_s=self._age_max_s
        )  # fmt: skip
        pool = Pool(function, upkeep, self._admission, self._register, self._telemetry, self._draw)
        self._pools = [*(one for one in self._pools if not one.is_closed), pool]
        return pool

    def end_leftovers(self) -> None:
        """End what a killed daemon left behind in this directory. Call it at start: it blocks for milliseconds."""
        if self._register.is_dir():
            for pid in leftovers.end_all(self._register):
                self._telemetry.orphan_ended(pid)

    async def aclose(self) -> None:
        """End every environment, and the guard."""
        await asyncio.gather(*(pool.aclose() for pool in self._pools))
        self._pools.clear()
        if self._guard is not None:
            guard, self._guard = self._guard, None
            assert guard.stdin is not None
            guard.stdin.close()
            await asyncio.to_thread(_wait, guard)

    async def _draw(self, function: HostedFunction) -> Blueprint:
        await asyncio.to_thread(check_code, function)
        self._prepare()
        interpreter = await self._interpreters.find(function.runtime)
        self._start_guard()
        client = interpreter.client
        return Blueprint(
            function=function.key,
            command=(interpreter.executable, "-S", "-B", str(_LAUNCHER), str(os.getpid()), function.code,
                     str(client), function.handler),
            folder=function.code,
            variables=variables(function, client, self._given),
            timeout_s=function.timeout_s,
            facts=Facts(function.key, "$LATEST", function.handler, function.arn.account),
            cell=PlainCell,
        )  # fmt: skip

    def _prepare(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self._directory.stat().st_uid
            if owner not in {os.geteuid(), 0}:
                raise OperatorNeeded(
                    f"{self._directory} belongs to user {owner}: remove it, or set ESM_HOST_DIRECTORY to a folder"
                    " of the user that runs esm"
                )
            self._register.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise OperatorNeeded(
                f"the folder for hosted functions cannot be made ({error}): set ESM_HOST_DIRECTORY to a writable one"
            ) from error

    def _start_guard(self) -> None:
        """The process that outlives this one by a moment and ends what its environments have started."""
        if self._guard is not None:
            return
        own = leftovers.stat(os.getpid())
        self._guard = subprocess.Popen(  # noqa: S603
            [own_executable(), "-I", "-S", leftovers.__file__, str(self._register), str(os.getpid()),
             str(own.started if own else 0)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}, cwd="/",
            start_new_session=True,
        )  # fmt: skip


def _wait(guard: subprocess.Popen[bytes]) -> None:
    try:
        guard.wait(_GUARD_S)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
