"""Every log event and every metric of the supervisor of workers, beside what the workers tell themselves."""

import logging
import signal
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_logger = logging.getLogger("esm")


def _log(level: int, event: str, **fields: object) -> None:
    _logger.log(level, event, extra={"fields": {name: value for name, value in fields.items() if value is not None}})


class CrewTelemetry:
    """What can happen to workers. `collected` is what a scrape shows of it."""

    def __init__(self, workers: Sequence[str], is_up: Callable[[], dict[str, bool]]) -> None:
        """`workers` are the names of all; `is_up` says of each whether it answers."""
        self._registry = CollectorRegistry()
        self._restarts = Counter(
            "esm_worker_restarts", "Ends of a worker that nobody had asked for", ("worker",), registry=self._registry
        )
        for worker in workers:
            self._restarts.labels(worker)
        self._registry.register(_Up(is_up))

    def collected(self) -> list[Metric]:
        """Every metric, now; without the moments at which counters began, as those of the workers."""
        families = list(self._registry.collect())
        for family in families:
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        return families

    def started(self, **fields: object) -> None:
        """The supervisor answers at its address, and starts its workers."""
        _log(logging.INFO, "supervisor started", **fields)

    def api_not_served(self, problem: str) -> None:
        """Somebody else has the API's default address: no worker serves it."""
        _log(logging.WARNING, "api is not served", problem=problem)

    def worker_started(self, worker: str, pid: int) -> None:
        """A worker's process runs."""
        _log(logging.INFO, "worker started", worker=worker, pid=pid)

    def worker_ready(self, worker: str, after_s: float) -> None:
        """A worker answers that it is ready, for the first time in this run."""
        _log(logging.INFO, "worker ready", worker=worker, after_s=round(after_s, 1))

    def worker_not_started(self, worker: str, error: str) -> None:
        """The system does not start a process now."""
        _log(logging.ERROR, "worker not started", worker=worker, error=error)

    def worker_lost(self, worker: str, status: int | None, ran_s: float, restart_s: float) -> None:
        """A worker ended by itself, and is started again after `restart_s`."""
        self._restarts.labels(worker).inc()
        _log(logging.ERROR, "worker ended by itself", worker=worker, **_status(status), ran_s=round(ran_s, 1),
             restart_s=restart_s)  # fmt: skip

    def worker_refused(self, worker: str) -> None:
        """A worker cannot start, and has said why: everything ends."""
        _log(logging.ERROR, "worker refused to start", worker=worker)

    def worker_ended(self, worker: str, status: int | None) -> None:
        """A worker ended, as it was asked to."""
        _log(logging.INFO if status == 0 else logging.WARNING, "worker ended", worker=worker, **_status(status))

    def draining(self, reason: str, grace_s: float) -> None:
        """A stop was asked for: the workers drain."""
        _log(logging.INFO, "stop of all workers started", reason=reason, grace_s=grace_s)

    def cut_short(self, reason: str) -> None:
        """The workers end at once: a second signal."""
        _log(logging.WARNING, "workers told to end at once", reason=reason)

    def worker_killed(self, worker: str) -> None:
        """A worker had not ended when the grace period was over."""
        _log(logging.ERROR, "worker killed at the end of the grace period", worker=worker)

    def stopped(self, *, orderly: bool) -> None:
        """All workers have ended; `orderly`: each by itself, with status 0."""
        _log(logging.INFO if orderly else logging.WARNING, "supervisor stopped", orderly=orderly)


class _Up(Collector):
    def __init__(self, is_up: Callable[[], dict[str, bool]]) -> None:
        self._is_up = is_up

    def describe(self) -> list[Metric]:
        """Nothing: the workers may not be known yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The one gauge."""
        gauge = GaugeMetricFamily("esm_worker_up", "1 while the worker answers", labels=("worker",))
        for worker, is_up in self._is_up().items():
            gauge.add_metric((worker,), float(is_up))
        yield gauge


def _status(status: int | None) -> dict[str, object]:
    if status is None or status >= 0:
        return {"status": status}
    return {"signal": signal.Signals(-status).name}
