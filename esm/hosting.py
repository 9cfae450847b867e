"""The host of functions that run here, as the settings want it."""

from esm.host import Host
from esm.host.isolation import find_isolation
from esm.host.metrics import HostMetrics
from esm.host.runtimes import mapped_runtimes
from esm.settings import Settings, state_folder
from esm.telemetry import Telemetry


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
