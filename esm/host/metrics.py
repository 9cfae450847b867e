"""Metrics of hosted functions, by function and version. Law: gauges are computed at the scrape from what is alive."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_LABELS = ("function", "version")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)


@dataclass(frozen=True, slots=True)
class Use:
    """What a function's environments do now."""

    function: str
    version: str
    running: int
    """Invocations that hold a slot."""
    starting: int
    free: int
    busy: int
    provisioned_wanted: int
    provisioned_ready: int
    provisioned_busy: int


@dataclass(frozen=True, slots=True)
class Runtimes:
    """The runtimes elsewhere that serve a function from here."""

    function: str
    waiting: int
    """They have asked for an invocation."""
    working: int
    """They run one."""
    resting: int
    """They have answered and not asked again yet."""


class HostMetrics(Collector):
    """See the module; one a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.uses: Callable[[], Iterable[Use]] = tuple
        self.runtimes: Callable[[], Iterable[Runtimes]] = tuple
        self.enforced: Callable[[], Mapping[str, str]] = dict
        """What keeps functions apart here: each aspect, and how."""
        self._invocations = _counter(registry, "esm_function_invocations", "Invocations that ran")
        self._errors = _counter(registry, "esm_function_errors", "Invocations that failed, time-outs and exits too")
        self._throttles = _counter(registry, "esm_function_throttles", "Invocations refused for want of a slot")
        self._provisioned = _counter(
            registry, "esm_function_provisioned_invocations", "Invocations that a provisioned environment ran"
        )
        self._spilled = _counter(
            registry,
            "esm_function_provisioned_spillover_invocations",
            "Invocations beyond the provisioned environments",
        )
        self._lost = Counter(
            "esm_function_runtimes_lost",
            "Runtimes elsewhere that ended an invocation (exit, timeout) or could not initialise (init)",
            ("function", "reason"), registry=registry,
        )  # fmt: skip
        self._duration = _histogram(registry, "esm_function_duration_seconds", "Duration of invocations that ran")
        self._init = _histogram(registry, "esm_function_init_duration_seconds", "Duration of initialisations")
        registry.register(self)

    def invoked(self, function: str, version: str, duration_s: float, *, has_failed: bool) -> None:
        """An invocation ended."""
        self._invocations.labels(function, version).inc()
        self._errors.labels(function, version).inc(has_failed)
        self._duration.labels(function, version).observe(duration_s)

    def seated(self, function: str, version: str, *, is_provisioned: bool, is_spill_over: bool) -> None:
        """A function with provisioned concurrency has an environment for an invocation."""
        if is_provisioned:
            self._provisioned.labels(function, version).inc()
        elif is_spill_over:
            self._spilled.labels(function, version).inc()

    def throttled(self, function: str, version: str) -> None:
        """An invocation was refused."""
        self._throttles.labels(function, version).inc()

    def runtime_lost(self, function: str, reason: str) -> None:
        """A runtime elsewhere is lost: `exit`, `timeout` or `init`."""
        self._lost.labels(function, reason).inc()

    def initialised(self, function: str, version: str, init_s: float) -> None:
        """An environment is ready."""
        self._init.labels(function, version).observe(init_s)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what is alive is not known yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every gauge."""
        uses = list(self.uses())
        running = GaugeMetricFamily("esm_function_concurrent_executions", "Invocations that run", labels=_LABELS)
        states = GaugeMetricFamily(
            "esm_function_environments", "Environments by what they do", labels=(*_LABELS, "phase")
        )
        ready = GaugeMetricFamily("esm_function_provisioned_ready", "Provisioned environments ready", labels=_LABELS)
        used = GaugeMetricFamily(
            "esm_function_provisioned_utilization", "Share of the provisioned environments that run", labels=_LABELS
        )
        for use in uses:
            names = (use.function, use.version)
            running.add_metric(names, use.running)
            for phase, count in (("starting", use.starting), ("free", use.free), ("busy", use.busy)):
                states.add_metric((*names, phase), count)
            if use.provisioned_wanted:
                ready.add_metric(names, use.provisioned_ready)
                used.add_metric(names, use.provisioned_busy / use.provisioned_wanted)
        walls = GaugeMetricFamily(
            "esm_host_isolation", "1 for what is done about each aspect of isolation", labels=("aspect", "enforcement")
        )
        for aspect, how in self.enforced().items():
            walls.add_metric((aspect, how), 1)
        elsewhere = GaugeMetricFamily(
            "esm_function_runtimes", "Runtimes elsewhere, by what they do", labels=("function", "phase")
        )
        for one in self.runtimes():
            for phase, count in (("waiting", one.waiting), ("working", one.working), ("resting", one.resting)):
                elsewhere.add_metric((one.function, phase), count)
        yield from (running, states, ready, used, walls, elsewhere)


def _counter(registry: CollectorRegistry, name: str, text: str) -> Counter:
    return Counter(name, text, _LABELS, registry=registry)


def _histogram(registry: CollectorRegistry, name: str, text: str) -> Histogram:
    return Histogram(name, text, _LABELS, registry=registry, buckets=_BUCKETS)
