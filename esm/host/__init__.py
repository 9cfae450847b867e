"""Functions that run here, each behind the Lambda Runtime API in processes of its own.

What is enforced everywhere: the timeout, the concurrency, 1,024 open files, no core dumps, Lambda's limit on answers,
and that nothing of the daemon (environment, libraries) reaches a function. Everything else depends on the machine, is
tried at the first function (`isolation`), and said: in a sandbox a function sees its code, its layers and its own /tmp;
without one it runs as the daemon's user and sees that one's files.

A handler imports the standard library, what lies in its CodeUri, its layers and on its own PYTHONPATH, and what AWS's
runtime client brings; not boto3, which has to lie beside the handler or in a layer.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry

from esm.errors import OperatorNeeded
from esm.host import leftovers
from esm.host.admission import Admission
from esm.host.blueprints import Blueprints
from esm.host.environment import Blueprint, Ledgers
from esm.host.interpreters import Interpreters, own_executable
from esm.host.isolation import Isolation
from esm.host.logs import FunctionLogs
from esm.host.metrics import HostMetrics
from esm.host.packages import Packages
from esm.host.pool import Pool
from esm.host.runtimes import Mapped
from esm.model.function import HostedFunction
from esm.ports import Target
from esm.rules.environments import Upkeep
from esm.telemetry import Telemetry

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
        runtimes: Mapping[str, Mapped] | None = None,
        isolation: Callable[[], Isolation] = Isolation,
        metrics: HostMetrics | None = None,
        log_bytes_max: int = 0,
        keeps_ready: bool = True,
    ) -> None:
        """Does no I/O.

        `directory` is the host's own: runtime clients and the register of environments. `function_environment` is
        what every function gets of AWS: credentials, an endpoint. Interpreters are looked for on `path`; None is the
        daemon's PATH; `runtimes` maps names to others. `isolation` finds out what can be enforced, once,
        when the first function is looked at; it may block. `metrics`
        None: nobody scrapes them. `log_bytes_max` is what each function may keep in files; 0: nothing.
        `keeps_ready` False: provisioned environments are not started, as where functions are only looked at.
        """
        self._directory = directory.absolute()
        self._register = self._directory / "environments"
        self._concurrency_default = concurrency_default
        self._telemetry = telemetry
        self._idle_s = idle_s
        self._age_max_s = age_max_s
        self._keeps_ready = keeps_ready
        self._admission = Admission(concurrency_total)
        self._given = dict(function_environment or {})
        self.isolation: Isolation | None = None
        """What can be enforced; None until the first function was looked at."""
        self._find_isolation = isolation
        self._packages = Packages(self._directory / "packages")
        self._interpreters = Interpreters(self._directory / "clients", path, runtimes)
        self._lock = asyncio.Lock()
        self.metrics = metrics = metrics or HostMetrics(CollectorRegistry())
        metrics.uses = lambda: [pool.use() for pool in self._pools if not pool.is_closed]
        metrics.enforced = lambda: self.isolation.enforced() if self.isolation is not None else {}
        logs = FunctionLogs(self.logs_folder, log_bytes_max, telemetry.warned) if log_bytes_max else None
        self._ledgers = Ledgers(telemetry, metrics, logs)
        self._pools: list[Pool] = []
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def logs_folder(self) -> Path:
        """Where the log files of functions are."""
        return logs_folder(self._directory)

    def target(self, function: HostedFunction) -> Target:
        """What runs `function`. Does no I/O: `facts()` says what is missing."""
        reserved = function.reserved_concurrency
        concurrency = self._concurrency_default if reserved is None else reserved
        provisioned = function.provisioned_concurrency if self._keeps_ready else 0
        upkeep = Upkeep(
            concurrency, provisioned, idle_s=self._idle_s, age_max_s=self._age_max_s,
        )  # fmt: skip
        pool = Pool(function, upkeep, self._admission, self._register, self._ledgers, self._draw)
        self._pools = [*(one for one in self._pools if not one.is_closed), pool]
        return pool

    def end_leftovers(self) -> None:
        """End what a killed daemon left behind in this directory. Call it at start: it blocks for a moment."""
        if self._register.is_dir():
            for pid in leftovers.end_all(self._register):
                self._telemetry.orphan_ended(pid)
        self._packages.clear()

    async def aclose(self) -> None:
        """End every environment, and the guard."""
        await asyncio.gather(*(pool.aclose() for pool in self._pools))
        self._pools.clear()
        self._packages.close()
        if self._ledgers.logs is not None:
            self._ledgers.logs.close()
        if self._guard is not None:
            guard, self._guard = self._guard, None
            assert guard.stdin is not None
            guard.stdin.close()
            await asyncio.to_thread(_wait, guard)
        if self.isolation is not None:
            await asyncio.to_thread(self.isolation.cgroups.close)

    async def _draw(self, function: HostedFunction) -> Blueprint:
        self._prepare()
        isolation = await self.known_isolation()
        blueprints = Blueprints(
            self._interpreters, self._packages, isolation, self._directory / "etc", self._given
        )  # fmt: skip
        blueprint = await blueprints.draw(function)
        self._start_guard()
        return blueprint

    async def known_isolation(self) -> Isolation:
        """What can be enforced on this machine, found out at the first question. Raises: OperatorNeeded."""
        async with self._lock:
            if self.isolation is None:
                self.isolation = await asyncio.to_thread(self._find_isolation)
                self._telemetry.isolation_found(self.isolation.enforced(), is_sandboxed=self.isolation.is_sandboxed)
            return self.isolation

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


def logs_folder(directory: Path) -> Path:
    """Where a host in `directory` keeps the log files of functions."""
    return directory / "logs"


def _wait(guard: subprocess.Popen[bytes]) -> None:
    try:
        guard.wait(_GUARD_S)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
