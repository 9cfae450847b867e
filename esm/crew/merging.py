"""The metrics of many workers as those of one program.

Law: a counter never goes back while its mapping is there. What a worker had counted when it ended is kept, as far as
it was scraped: what it counted after its last scrape is lost with it. Sums are exact until they are shown: rounded in
another order they could go back by the last digit, which a metrics store takes for a restart from 0.
Counters and histograms add up; what becomes of a gauge stands in one table. The series that say when a counter began
are left out: a sum has no such moment.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

Number = float | Fraction
Rule = Callable[[Number, Number], Number]


def _sum(one: Number, other: Number) -> Number:
    return one + other


GAUGES: dict[str, Rule] = {
    "esm_buffered_bytes": _sum,
    "esm_async_backlog": _sum,
    "esm_invocations_in_flight": _sum,
    "esm_shards_owned": _sum,
    "esm_mapping_problem": max,
    "esm_target_circuit_open": max,
    "esm_queue_backlog": max,
    "esm_mapping_state": max,
    "esm_lag_seconds": max,
    "esm_blocked_seconds": max,
    "esm_checkpoint_age_seconds": max,
    "esm_seconds_until_expiry": min,
    "esm_workers": max,
    "esm_shards_without_owner": max,
    "esm_heartbeat_age_seconds": max,
    "esm_function_concurrent_executions": _sum,
    "esm_function_environments": _sum,
    "esm_function_provisioned_ready": _sum,
    "esm_function_provisioned_utilization": max,
    "esm_function_runtimes": _sum,
    "esm_host_isolation": max,
}
"""How values of two workers become one. What each worker has for itself adds up; of what all see alike (a queue's
backlog, the workers of the fleet), of ages and of alarms the worst counts. While workers differ in a mapping's state,
each of their states is 1.
"""

_ADDED = {"counter", "histogram", "summary"}
_CREATED = "_created"
_TAG = "tag_"

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and its labels without those of tags, which change while the series stays the same."""


def parsed(text: str) -> Iterator[Metric]:
    """The metrics of one scrape one after the other, without the moments at which counters began."""
    lines = [line for line in text.split("\n") if _CREATED not in line.split("{", 1)[0]]
    yield from text_string_to_metric_families("\n".join(lines))


@dataclass(slots=True)
class _Family:
    """A metric, its series in the order in which they were met."""

    name: str
    text: str
    kind: str
    values: dict[Series, Number] = field(default_factory=dict)
    labels: dict[Series, dict[str, str]] = field(default_factory=dict)
    """As the first that showed it wrote them."""

    def add(self, series: Series, labels: dict[str, str], value: Number) -> None:
        rule = _sum if self.kind in _ADDED else GAUGES.get(self.name, max)
        if series in self.values:
            value = rule(self.values[series], value)
        else:
            self.labels[series] = labels
        self.values[series] = value

    def shown(self) -> Metric:
        metric = Metric(self.name, self.text, self.kind)
        metric.samples = [Sample(series[0], self.labels[series], float(value)) for series, value in self.values.items()]
        return metric


def counted(families: Iterable[Metric]) -> list[Metric]:
    """Those that hold for the past, and so still when a worker does not answer."""
    return [family for family in families if family.type in _ADDED]


class Merger:
    """Merges scrapes, and keeps what workers that are gone had counted. Bounded by what the live ones show."""

    def __init__(self) -> None:
        self._kept: dict[str, _Family] = {}

    def retire(self, families: Iterable[Metric]) -> None:
        """A worker has ended, of which this was the last scrape: keep what it had counted."""
        _add(self._kept, counted(families))

    def merged(self, scrapes: Sequence[Sequence[Metric]], *, is_complete: bool) -> "Merged":
        """All workers as one. `is_complete`: every worker is among them, so that what none of them knows is gone."""
        merged: dict[str, _Family] = {}
        for families in scrapes:
            _add(merged, families)
        tags = dict(_tags(labels for family in merged.values() for labels in family.labels.values()))
        if is_complete:
            self._forget(tags)
        for kept in self._kept.values():
            into = merged.setdefault(kept.name, _Family(kept.name, kept.text, kept.kind))
            for series, value in kept.values.items():
                labels = kept.labels[series]
                mapping = labels.get("mapping")
                if mapping is None or mapping in tags:
                    into.add(series, {**labels, **tags.get(mapping or "", {})}, value)
        return Merged([family.shown() for family in merged.values()])

    def _forget(self, known: Iterable[str]) -> None:
        """Counters vanish with their mapping, as they do in one process."""
        there = {None, *known}
        for family in self._kept.values():
            gone = [series for series, labels in family.labels.items() if labels.get("mapping") not in there]
            for series in gone:
                del family.values[series], family.labels[series]


class Merged(Collector):
    """One merged scrape, for the exposition."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        yield from self.families


def _add(into: dict[str, _Family], families: Iterable[Metric]) -> None:
    for metric in families:
        family = into.setdefault(metric.name, _Family(metric.name, metric.documentation, metric.type))
        for sample in metric.samples:
            value = Fraction(sample.value) if metric.type in _ADDED else sample.value
            family.add(_series(sample), sample.labels, value)


def _series(sample: Sample) -> Series:
    own = ((name, value) for name, value in sample.labels.items() if not name.startswith(_TAG))
    return sample.name, tuple(sorted(own))


def _tags(labels: Iterable[dict[str, str]]) -> Iterator[tuple[str, dict[str, str]]]:
    """The labels of tags that each mapping has now."""
    for one in labels:
        if "mapping" in one:
            yield one["mapping"], {name: value for name, value in one.items() if name.startswith(_TAG)}
