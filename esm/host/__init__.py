"""Functions that run here, in processes of their own, behind AWS's Runtime API."""

from collections.abc import Mapping
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host import runtime_client
from esm.host.environment import Surplus
from esm.host.pool import Pool
from esm.host.register import Register
from esm.model.function import HostedFunction
from esm.ports import Target
from esm.telemetry import Telemetry


class Host:
    """Makes targets of hosted functions, and leaves no process behind."""

    def __init__(
        self, *, directory: Path, concurrency_default: int, idle_s: float, telemetry: Telemetry,
        function_environment: Mapping[str, str],
    ) -> None:  # fmt: skip
        """`directory`: writable, the daemon's own. `function_environment`: the only variables that functions share."""
        self._directory = directory
        self._concurrency_default = concurrency_default
        self._idle_s = idle_s
        self._telemetry = telemetry
        self._register = Register(directory / "environments")
        self._variables = dict(function_environment)
        self._is_open = False

    def end_leftovers(self) -> None:
        """End what a killed daemon left behind."""
        for pid in self._register.end_leftovers():
            self._telemetry.orphan_ended(pid)

    def target(self, function: HostedFunction) -> Target:
        """The pool of a function's environments. Raises: OperatorNeeded (the directory)."""
        self._open()
        reserved = function.reserved_concurrency
        concurrency = self._concurrency_default if reserved is None else reserved
        surplus = Surplus(self._directory / "client", self._register, self._telemetry, self._variables)
        return Pool(function, concurrency, self._idle_s, surplus)

    async def aclose(self) -> None:
        """End the reaper; the targets are closed by who asked for them."""
        if self._is_open:
            self._register.close()

    def _open(self) -> None:
        if self._is_open:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._register.open()
        except OSError as error:
            raise OperatorNeeded(
                f"hosted functions need the folder {self._directory}: {error.strerror}. Set ESM_HOST_DIRECTORY."
            ) from error
        runtime_client.make(self._directory / "client")
        self._is_open = True
