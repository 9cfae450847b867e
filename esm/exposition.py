"""What a scrape shows beside counters and histograms: gauges of what is alive, and the tags of mappings as labels."""

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as Table

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from esm.model.mapping import State
from esm.model.view import MappingView, ShardView

LABELS = ("mapping", "function", "source")


class LiveGauges(Collector):
    """Gauges of what is alive, computed at the scrape: they vanish with their mapping."""

    def __init__(self, *, per_shard: bool) -> None:
        """`per_shard` adds the label `shard` to the gauges of streams."""
        self._per_shard = per_shard
        self.views: Callable[[], Iterable[MappingView]] = tuple
        self.buffered_bytes: Callable[[], int] = int
        self.async_backlogs: Callable[[], dict[str, int]] = dict
        self.workers = 1
        self.heartbeat_age_s: Callable[[], float | None] = lambda: None

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not known to clash, and views may not exist yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every gauge."""
        views = [(view, _view_labels(view)) for view in self.views()]
        yield GaugeMetricFamily("esm_buffered_bytes", "Bytes read and not yet settled", value=self.buffered_bytes())
        yield GaugeMetricFamily("esm_workers", "Live workers, as this one sees them", value=self.workers)
        heartbeat = GaugeMetricFamily("esm_heartbeat_age_seconds", "Since this worker's last heartbeat was written")
        if (age_s := self.heartbeat_age_s()) is not None:
            heartbeat.add_metric((), age_s)
        yield heartbeat
        yield _gauge("esm_shards_owned", "Shards that this worker reads",
                     ((n, len(v.shards)) for v, n in views if _is_stream(v)))  # fmt: skip
        yield _gauge("esm_shards_without_owner", "Shards that may be read and nobody owns, as this worker sees them",
                     ((n, v.shards_without_owner) for v, n in views if _is_stream(v)))  # fmt: skip
        waiting = GaugeMetricFamily("esm_async_backlog", "Asynchronous events that wait", labels=("function",))
        for function, count in self.async_backlogs().items():
            waiting.add_metric((function,), count)
        yield waiting
        yield _gauge("esm_invocations_in_flight", "Invocations", ((n, v.in_flight) for v, n in views))
        yield _gauge("esm_mapping_problem", "1 while someone must act", ((n, float(v.has_problem)) for v, n in views))
        circuits = ((n, float(v.circuit_open)) for v, n in views)
        yield _gauge("esm_target_circuit_open", "1 while one batch at a time is offered to a broken target", circuits)
        backlog = ((n, v.backlog) for v, n in views if v.backlog is not None)
        yield _gauge("esm_queue_backlog", "Messages waiting in the queue", backlog)
        states = GaugeMetricFamily("esm_mapping_state", "1 for the current state", labels=(*LABELS, "state"))
        for view, names in views:
            for state in State:
                states.add_metric((*names, state.value), float(view.state is state))
        yield states
        yield self._worst(
            views, "esm_lag_seconds", "Now minus arrival of the oldest record not taken", lambda s: s.lag_s
        )
        yield self._worst(views, "esm_blocked_seconds", "How long the worst lane has failed", lambda s: s.blocked_s)
        yield self._worst(
            views, "esm_checkpoint_age_seconds", "Since the stored position was current", lambda s: s.checkpoint_age_s
        )
        yield self._worst(
            views, "esm_seconds_until_expiry", "Until the oldest record not taken leaves the source",
            lambda s: s.expires_in_s, pick=min,
        )  # fmt: skip

    def _worst(
        self, views: list[tuple[MappingView, tuple[str, ...]]], name: str, text: str,
        value: Callable[[ShardView], float | None], pick: Callable[[list[float]], float] = max,
    ) -> GaugeMetricFamily:  # fmt: skip
        family = GaugeMetricFamily(name, text, labels=(*LABELS, "shard") if self._per_shard else LABELS)
        for view, names in views:
            values = [(shard.id, v) for shard in view.shards if (v := value(shard)) is not None]
            if self._per_shard:
                for shard_id, v in values:
                    family.add_metric((*names, shard_id), v)
            elif values:
                family.add_metric(names, pick([v for _, v in values]))
        return family


class TagLabels(Collector):
    """What a scrape shows: every sample of a mapping with the values of its tags. Counters outlive a change of tags."""

    def __init__(self, inner: Collector, labels: Table[str, str]) -> None:
        """`labels`: the label of each tag key."""
        self._inner = inner
        self._labels = labels
        self.tags: dict[str, dict[str, str]] = {}
        """Tags of the mappings that are alive, by UUID."""

    def collect(self) -> Iterator[Metric]:
        """Every metric; a mapping without one of the tags has the empty value."""
        for metric in self._inner.collect():
            if self._labels:
                metric.samples = [
                    sample._replace(labels=self._tagged(sample.labels)) if "mapping" in sample.labels else sample
                    for sample in metric.samples
                ]
            yield metric

    def _tagged(self, labels: dict[str, str]) -> dict[str, str]:
        tags = self.tags.get(labels["mapping"], {})
        return {**labels, **{label: tags.get(key, "") for key, label in self._labels.items()}}


def _is_stream(view: MappingView) -> bool:
    return ":sqs:" not in view.source


def _view_labels(view: MappingView) -> tuple[str, ...]:
    return (view.uuid, view.function, view.source)


def _gauge(name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=LABELS)
    for labels, value in values:
        family.add_metric(labels, value)
    return family
