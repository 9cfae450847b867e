"""The host of functions that run here, and the door to those that run elsewhere, as the settings want them."""

from functools import partial

from esm.api.slow_clients import Connections
from esm.host import Host
from esm.host.doorway import Rounds
from esm.host.elsewhere import Elsewhere
from esm.host.isolation import find_isolation
from esm.host.metrics import HostMetrics
from esm.host.runtimes import mapped_runtimes
from esm.settings import Settings, state_folder
from esm.telemetry import Telemetry

RUNTIMES_MAX = 2000
"""Connections at one function's Runtime API: two for each of the most that run at once."""


def make_host(settings: Settings, telemetry: Telemetry, *, serves: bool) -> Host:
    """A host; nothing runs yet. `serves` False: functions are only looked at, and none is kept ready.

    Raises: OperatorNeeded where ESM_RUNTIMES cannot be read.
    """
    return Host(
        directory=state_folder(settings),
        concurrency_default=settings.host_concurrency,
        concurrency_total=settings.host_concurrency_total,
        telemetry=telemetry,
        idle_s=settings.host_idle_s,
        age_max_s=settings.host_age_max_s,
        function_environment=settings.function_environment,
        runtimes=mapped_runtimes(settings.runtimes),
        isolation=lambda: find_isolation(settings.host_isolation),
        metrics=HostMetrics(telemetry.registry),
        log_bytes_max=settings.host_log_bytes_max,
        keeps_ready=serves,
    )


def make_elsewhere(
    settings: Settings, telemetry: Telemetry, metrics: HostMetrics, *, serves: bool, shares_port: bool
) -> Elsewhere:
    """The door to functions elsewhere; nothing listens yet. `shares_port`: other workers of this host listen, too."""
    return Elsewhere(
        telemetry,
        metrics,
        partial(Connections, connections_max=RUNTIMES_MAX),
        serves=serves,
        shares_port=shares_port,
        rounds=Rounds() if shares_port or settings.state.startswith("dynamodb:") else None,
    )
