"""Every log event and every metric: one method per thing that can happen.

Law: nothing else in the program writes a log line or touches a metric. No payload, key, answer or secret enters here.
Counters and histograms live in the registry; gauges are computed at the scrape from the mappings that are alive.
"""

import json
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Table

from prometheus_client import CollectorRegistry, Counter, Histogram

from esm.exposition import LABELS, LiveGauges, TagLabels
from esm.model.clocks import UnixTime
from esm.model.control import Caller, Pause, Rewind, Skip
from esm.model.invocation import Ending
from esm.model.mapping import Mapping, State
from esm.model.notice import Notice, Span
from esm.model.position import AfterSequence, AtSequence, AtTimestamp, Position, TrimHorizon

_TAKEOVER_BUCKETS = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 13, 20, 30, 60)
_DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_SIZE_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)

_logger = logging.getLogger("esm")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `event`, then the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = getattr(record, "fields", {})
        line: dict[str, object] = {"time": stamp, "level": record.levelname, "event": record.getMessage(), **fields}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """`time LEVEL event key=value ...` for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        fields = getattr(record, "fields", {})
        text = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
        line = f"{stamp} {record.levelname:<7} {record.getMessage()} {text}".rstrip()
        return line + "\n" + self.formatException(record.exc_info) if record.exc_info else line


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if " " in text or not text else text


def set_up_logging(log_format: str, level: str) -> None:
    """Send the daemon's log to standard error as `json` or `text`, from `level` up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("botocore.credentials", "aiobotocore.credentials"):
        logging.getLogger(name).setLevel(logging.ERROR)  # each failed refresh, with a traceback: the callers say it
    _logger.setLevel(level)


def _log(level: int, event: str, **fields: object) -> None:
    if _logger.isEnabledFor(level):
        _logger.log(level, event, extra={"fields": {k: v for k, v in fields.items() if v is not None}})


class Telemetry:
    """The daemon's own events; `mapping()` gives those of one mapping."""

    def __init__(
        self, registry: CollectorRegistry, *, per_shard: bool = False, tag_labels: Table[str, str] | None = None
    ) -> None:
        """Declare every metric in `registry`; `exposed` is what a scrape shows of it.

        `per_shard` adds the label `shard` to the gauges of streams; `tag_labels` names the label of each tag key that
        every metric of a mapping gets.
        """
        self.registry = registry
        self.exposed = TagLabels(registry, tag_labels or {})
        self.polled = _counter(registry, "esm_polled_events", "Records and messages read from the source")
        self.filtered_out = _counter(registry, "esm_filtered_out_events", "Records read that no filter pattern matches")
        self.invoked = _counter(registry, "esm_invoked_events", "Records sent to the function, again at each retry")
        self.failed = _counter(registry, "esm_failed_invoke_events", "Records whose invocation failed")
        self.deleted = _counter(registry, "esm_deleted_events", "Messages deleted from the queue after success")
        self.dropped = _counter(registry, "esm_dropped_events", "Records given up without a destination", "reason")
        self.delivered = _counter(registry, "esm_on_failure_delivered_events", "Records whose notice was delivered")
        self.destination_errors = _counter(registry, "esm_destination_errors", "Deliveries of a notice that failed")
        self.invocations = _counter(registry, "esm_invocations", "Invocations by how they ended", "outcome")
        self.windows_closed = _counter(registry, "esm_windows_closed", "Tumbling windows by how they ended", "outcome")
        self.poll_errors = _counter(registry, "esm_poll_errors", "Reads of the source that failed")
        self.position_lost = _counter(registry, "esm_position_lost", "Positions trimmed before they were read")
        self.restarts = _counter(registry, "esm_mapping_restarts", "Restarts after an error of the program itself")
        stopped = "Messages not invoked: their loop was stopped"
        self.recursive = _counter(registry, "esm_recursive_invocations_dropped", stopped)
        self.duration = Histogram(
            "esm_invocation_duration_seconds", "Duration of invocations", LABELS, registry=registry,
            buckets=_DURATION_BUCKETS,
        )  # fmt: skip
        self.batch_size = Histogram(
            "esm_batch_size", "Records an invocation", LABELS, registry=registry, buckets=_SIZE_BUCKETS
        )
        age = "Age of the last record of a batch when sent"
        self.iterator_age = Histogram(
            "esm_iterator_age_seconds", age, LABELS, registry=registry, buckets=_DURATION_BUCKETS
        )
        self._aws = Counter(
            "esm_aws_requests", "Calls of AWS APIs", ("service", "operation", "outcome"), registry=registry
        )
        self._store_errors = Counter("esm_store_errors", "Calls of the state store that failed", registry=registry)
        self._takeovers = _takeovers(registry)
        self._workers: list[str] = []
        self._asynchronous = _AsyncMetrics(registry)
        self.live = LiveGauges(per_shard=per_shard)
        registry.register(self.live)

    def mapping(self, mapping: Mapping) -> "MappingTelemetry":
        """The events of one mapping; `close()` takes its series away."""
        return MappingTelemetry(self, mapping)

    def asynchronous(self, function: str) -> "AsyncTelemetry":
        """The events of one function's asynchronous queue; `function` is its unqualified ARN."""
        return AsyncTelemetry(self._asynchronous, function)

    def aws_request(self, service: str, operation: str, outcome: str) -> None:
        """An AWS call ended: `ok`, an error code, or `unreachable`."""
        self._aws.labels(service, operation, outcome).inc()

    def store_failed(self, operation: str, error: str) -> None:
        """The store did not answer; the caller tries again."""
        self._store_errors.inc()
        _log(logging.WARNING, "store call failed", operation=operation, error=error)

    def unreadable(self, operation: str, error: str) -> None:
        """A stored value is none of ours, or a newer version's: the caller goes on without it, and tries again."""
        self._store_errors.inc()
        _log(logging.ERROR, "stored value not readable", operation=operation, error=error)

    def rewritten(self, number: int) -> None:
        """A worker of an older version can read everything again."""
        _log(logging.INFO, "state written again in an older format", format=number)

    def workers(self, workers: list[str]) -> None:
        """These workers share the work now."""
        if workers != self._workers:
            _log(logging.INFO, "workers changed", workers=workers, joined=sorted({*workers} - {*self._workers}),
                 left=sorted({*self._workers} - {*workers}))  # fmt: skip
        self._workers = workers
        self.live.workers = len(workers)

    def distrusted(self, since_s: float) -> None:
        """No heartbeat could be written for so long that the others may take this worker for dead: it lets go."""
        _log(logging.ERROR, "heartbeat too old: nothing new is invoked until one is written", seconds=round(since_s, 1))

    def taken_over(self, kind: str, seconds: float) -> None:
        """A shard that another worker had is read here: `planned` where that one let go of it, else `crash`."""
        self._takeovers.labels(kind).observe(seconds)

    def started(self, **fields: object) -> None:
        """The daemon runs."""
        _log(logging.INFO, "daemon started", **fields)

    def draining(self, reason: str, grace_s: float) -> None:
        """A stop was asked for."""
        _log(logging.INFO, "drain started", reason=reason, grace_s=grace_s)

    def stopped(self, *, complete: bool) -> None:
        """The daemon has ended; `complete` False: the grace period ended first."""
        _log(logging.INFO if complete else logging.WARNING, "daemon stopped", drained=complete)

    def configuration_applied(self, **fields: object) -> None:
        """A changed file was taken over."""
        _log(logging.INFO, "configuration applied", **fields)

    def configuration_refused(self, problems: Iterable[str]) -> None:
        """A changed file is wrong: the old configuration goes on."""
        for problem in problems:
            _log(logging.ERROR, "configuration refused", problem=problem)

    def api_changed(self, **fields: object) -> None:
        """The audit event of a change through the API: who, operation, what, before and after as JSON, request_id."""
        _log(logging.INFO, "changed through the api", **fields)

    def api_crashed(self, request_id: str) -> None:
        """An error of the program itself (call inside `except`): the caller gets a 500 that says nothing of it."""
        _logger.error("api call crashed", exc_info=True, extra={"fields": {"request_id": request_id}})

    def runtime_api_crashed(self, function: str) -> None:
        """An error of the program itself (call inside `except`): the runtime gets a 500 that says nothing of it."""
        _logger.error("runtime api call crashed", exc_info=True, extra={"fields": {"function": function}})

    def warned(self, text: str, **fields: object) -> None:
        """Something that the operator should know at start."""
        _log(logging.WARNING, text, **fields)

    def function_output(self, function: str, request_id: str | None, line: str) -> None:
        """A line that a hosted function wrote to stdout or stderr."""
        _log(logging.INFO, "function output", function=function, request_id=request_id, line=line)

    def environment_started(self, function: str, pid: int, init_s: float) -> None:
        """A hosted function's environment asked for its first event."""
        _log(logging.DEBUG, "environment started", function=function, pid=pid, init_s=round(init_s, 3))

    def environment_ended(self, function: str, pid: int, reason: str) -> None:
        """A hosted function's environment is gone: idle, stopped, timeout, crash."""
        _log(logging.DEBUG, "environment ended", function=function, pid=pid, reason=reason)

    def isolation_found(self, enforced: Table[str, str], *, is_sandboxed: bool) -> None:
        """What is enforced between hosted functions and this machine."""
        fields = {name.replace(" ", "_"): text for name, text in enforced.items()}
        _log(logging.INFO if is_sandboxed else logging.WARNING, "isolation found", **fields)

    def provisioning_failed(self, function: str, error: str) -> None:
        """An environment that is to be kept ready could not be started; it is tried again."""
        _log(logging.ERROR, "provisioned environment not started", function=function, error=error)

    def orphan_ended(self, pid: int) -> None:
        """A process that a killed daemon left behind was ended."""
        _log(logging.WARNING, "left-over environment ended", pid=pid)


class MappingTelemetry:
    """What can happen to one mapping. Its counters exist from the start, at 0."""

    def __init__(self, telemetry: Telemetry, mapping: Mapping) -> None:
        """Bind the labels of `mapping`."""
        self._telemetry = telemetry
        self.follow(mapping)
        self._labels = dict(
            zip(LABELS, (mapping.uuid, str(mapping.function_arn), str(mapping.source_arn)), strict=True)
        )
        self._where = {"mapping": mapping.uuid, "function": mapping.function}
        for metric in self._plain():
            metric.labels(**self._labels)
        for reason in ("retries", "age", "payload", "destination", "skipped"):
            telemetry.dropped.labels(**self._labels, reason=reason)
        for outcome in ("complete", "early", "given_up") if mapping.tumbling_window_s else ():
            telemetry.windows_closed.labels(**self._labels, outcome=outcome)

    def _plain(self) -> tuple[Counter | Histogram, ...]:
        t = self._telemetry
        return (
            t.polled, t.filtered_out, t.invoked, t.failed, t.deleted, t.delivered, t.destination_errors, t.poll_errors,
            t.position_lost, t.restarts, t.recursive, t.duration, t.batch_size, t.iterator_age,
        )  # fmt: skip

    def follow(self, mapping: Mapping) -> None:
        """The mapping has other tags now."""
        self._telemetry.exposed.tags[mapping.uuid] = dict(mapping.tags)

    def close(self) -> None:
        """Take the mapping's series out of the registry."""
        del self._telemetry.exposed.tags[self._where["mapping"]]
        t = self._telemetry
        for metric in (*self._plain(), t.dropped, t.invocations, t.windows_closed):
            metric.remove_by_labels(self._labels)

    def started(self, source: str, state: State) -> None:
        """The mapping's task runs."""
        _log(logging.INFO, "mapping started", **self._where, source=source, state=state.value)

    def ended(self, reason: str) -> None:
        """The mapping's task has ended: stopped, disabled, removed."""
        _log(logging.INFO, "mapping ended", **self._where, reason=reason)

    def crashed(self, restart_s: float) -> None:
        """An error of the program itself (call inside `except`): the mapping starts again after a pause."""
        self._telemetry.restarts.labels(**self._labels).inc()
        _logger.error(
            "mapping crashed", exc_info=True, extra={"fields": {**self._where, "restart_s": round(restart_s, 1)}}
        )

    def warned(self, text: str, **fields: object) -> None:
        """Something that its owner should know."""
        _log(logging.WARNING, text, **self._where, **fields)

    def problem(self, text: str) -> None:
        """Someone must act: the mapping is tried again slowly. Logged when the text changes."""
        _log(logging.ERROR, "mapping has a problem", **self._where, problem=text)

    def problem_ended(self) -> None:
        """What was wrong has been mended."""
        _log(logging.INFO, "mapping recovered", **self._where)

    def circuit_opened(self) -> None:
        """The target could not be reached several times in a row: one batch at a time is offered."""
        _log(logging.WARNING, "target circuit opened", **self._where)

    def circuit_closed(self) -> None:
        """The function ran again: the mapping goes back to its concurrency, step by step."""
        _log(logging.INFO, "target circuit closed", **self._where)

    def polled(self, count: int) -> None:
        """A read ended; 0 is an empty one."""
        self._telemetry.polled.labels(**self._labels).inc(count)

    def filtered_out(self, count: int) -> None:
        """Records of a read did not match the filter: they are passed over, or deleted from the queue."""
        self._telemetry.filtered_out.labels(**self._labels).inc(count)

    def poll_failed(self, shard: str | None, error: str) -> None:
        """A read failed and is tried again."""
        self._telemetry.poll_errors.labels(**self._labels).inc()
        _log(logging.WARNING, "poll failed", **self._where, shard=shard, error=error)

    def invocation_ended(self, ending: Ending, outcome: str, count: int, failed: int, duration_s: float) -> None:
        """An invocation of `count` records ended as `outcome` (success, partial, failure, throttle, ...)."""
        t = self._telemetry
        t.invocations.labels(**self._labels, outcome=outcome).inc()
        t.invoked.labels(**self._labels).inc(count)
        t.failed.labels(**self._labels).inc(failed)
        t.duration.labels(**self._labels).observe(duration_s)
        t.batch_size.labels(**self._labels).observe(count)
        _log(logging.DEBUG, "batch invoked", **self._where, request_id=ending.request_id, records=count,
             outcome=outcome, duration_s=round(duration_s, 4))  # fmt: skip

    def invocation_failed(
        self, request_id: str, error_type: str, attempt: int, count: int, shard: str | None = None,
        first: str | None = None, last: str | None = None,
    ) -> None:  # fmt: skip
        """The one line of every failed invocation. `first` and `last`: sequence numbers or message ids."""
        _log(logging.WARNING, "invocation failed", **self._where, shard=shard, first=first, last=last,
             records=count, attempt=attempt, request_id=request_id, error_type=error_type)  # fmt: skip

    def window_closed(self, shard: str, outcome: str) -> None:
        """A tumbling window's final call is over: `complete`, `early`, or `given_up`."""
        self._telemetry.windows_closed.labels(**self._labels, outcome=outcome).inc()
        _log(logging.DEBUG, "window closed", **self._where, shard=shard, outcome=outcome)

    def batch_aged(self, age_s: float) -> None:
        """A stream batch was sent whose last record had this age (Lambda's IteratorAge)."""
        self._telemetry.iterator_age.labels(**self._labels).observe(age_s)

    def deleted(self, count: int) -> None:
        """Messages were deleted after success."""
        self._telemetry.deleted.labels(**self._labels).inc(count)

    def delete_failed(self, count: int, error: str) -> None:
        """A deletion failed and is tried again."""
        _log(logging.WARNING, "deletion failed", **self._where, messages=count, error=error)

    def delete_given_up(self, count: int) -> None:
        """Messages that succeeded could not be deleted: the queue will deliver them again."""
        _log(logging.ERROR, "deletion given up", **self._where, messages=count)

    def released(self, count: int, reason: str) -> None:
        """Messages were handed back to the queue without invoking."""
        _log(logging.DEBUG, "messages released", **self._where, messages=count, reason=reason)

    def returned(self, count: int, delay_s: int) -> None:
        """Messages failed and come again after a pause of their own."""
        _log(logging.DEBUG, "messages returned", **self._where, messages=count, delay_s=delay_s)

    def extension_failed(self, count: int, error: str) -> None:
        """Messages could not be hidden for longer; it is tried again until their visibility ends."""
        _log(logging.WARNING, "visibility not extended", **self._where, messages=count, error=error)

    def loop_stopped(self, count: int, hops: int) -> None:
        """Messages have been through the function too often: they are left to the queue's redrive policy."""
        self._telemetry.recursive.labels(**self._labels).inc(count)
        _log(logging.ERROR, "loop stopped", **self._where, messages=count, hops=hops,
             remedy="end the loop, or set RecursiveLoop: Allow on the function")  # fmt: skip

    def let_go(self, count: int) -> None:
        """A batch could not be invoked before its visibility ended: the queue delivers it again."""
        _log(logging.WARNING, "batch let go", **self._where, messages=count)

    def given_up(self, notice: Notice) -> None:
        """Records of a shard are given up; their notice goes to the destination, if there is one."""
        _log(logging.WARNING, "batch given up", **self._where, shard=notice.shard, condition=notice.condition.value,
             first=notice.span.first_sequence, last=notice.span.last_sequence, records=notice.span.count,
             invocations=notice.invoke_count, request_id=notice.request_id)  # fmt: skip

    def dropped(self, count: int, reason: str) -> None:
        """Records left the mapping untaken, and nobody was told: retries, age, payload, skipped, destination."""
        self._telemetry.dropped.labels(**self._labels, reason=reason).inc(count)

    def notice_delivered(self, count: int) -> None:
        """The destination has the notice of `count` records."""
        self._telemetry.delivered.labels(**self._labels).inc(count)

    def destination_failed(self, destination: str, error: str) -> None:
        """The destination did not take a notice; it is tried again and its lane waits."""
        self._telemetry.destination_errors.labels(**self._labels).inc()
        _log(logging.ERROR, "destination failed", **self._where, destination=destination, error=error)

    def position_trimmed(self, shard: str, span: Span | None, stored_at: float, *, lost: bool) -> None:
        """The stored position is gone from the source; `lost`: its age says that records may be gone too."""
        if lost:
            self._telemetry.position_lost.labels(**self._labels).inc()
        _log(logging.ERROR if lost else logging.INFO, "position trimmed", **self._where, shard=shard,
             stored_position_arrived_at=stored_at, first=span and span.first_sequence)  # fmt: skip

    def paused(self, pause: Pause | None) -> None:
        """An operator paused the mapping, or resumed it (None)."""
        if pause is None:
            _log(logging.INFO, "mapping resumed by operator", **self._where)
        else:
            _log(logging.INFO, "mapping paused by operator", **self._where, **_asked(pause.at, pause.by))

    def rewound(self, shard: str, order: Rewind, before: Sequence[Position], after: Sequence[Position], *,
                window_dropped: bool) -> None:  # fmt: skip
        """An operator's rewind was carried out for a shard."""
        _log(logging.WARNING if order.is_latest else logging.INFO, "shard rewound by operator", **self._where,
             shard=shard, request_id=order.id, **_asked(order.at, order.by), before=_places(before),
             after=_places(after), window_dropped=window_dropped)  # fmt: skip

    def skipped(self, order: Skip, span: Span | None) -> None:
        """An operator's skip was carried out; `span` None: the shard has no such record to pass, nothing moved."""
        text = "records skipped by operator" if span else "skip refused: no such record after the position"
        _log(logging.WARNING, text, **self._where, shard=order.shard, request_id=order.id,
             **_asked(order.at, order.by), sequence=order.sequence, first=span and span.first_sequence,
             records=span and span.count)  # fmt: skip

    def shard_started(self, shard: str, generation: int) -> None:
        """This worker reads a shard."""
        _log(logging.INFO, "shard started", **self._where, shard=shard, generation=generation)

    def shard_finished(self, shard: str) -> None:
        """A shard has ended and everything in it is settled."""
        _log(logging.INFO, "shard finished", **self._where, shard=shard)


def _asked(at: UnixTime, by: Caller) -> dict[str, object]:
    return {"asked_at": round(at, 3), "host": by.host, "user": by.user}


def _places(positions: Iterable[Position]) -> str:
    """Positions for people: the different ones, once each."""
    return " ".join(dict.fromkeys([_place(position) for position in positions]))


def _place(position: Position) -> str:
    match position:
        case TrimHorizon():
            return "trim-horizon"
        case AtTimestamp(at):
            return f"from-{at:.3f}"
        case AtSequence(sequence):
            return f"at-{sequence}"
        case AfterSequence(sequence, _):
            return f"after-{sequence}"


class _AsyncMetrics:
    """The metrics of asynchronous queues, named after Lambda's. Source: lambda.md 8.1."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Declare them."""
        labels = ("function",)
        self.received = Counter(
            "esm_async_events_received", "Events accepted (AsyncEventsReceived)", labels, registry=registry
        )
        self.age = Histogram(
            "esm_async_event_age_seconds", "Age of events when tried (AsyncEventAge)", labels, registry=registry,
            buckets=(0.01, 0.1, 1, 10, 60, 180, 600, 3600, 21600),
        )  # fmt: skip
        self.dropped = Counter(
            "esm_async_events_dropped", "Events given up, or their notices, that nobody was told of"
            " (AsyncEventsDropped)", (*labels, "reason"), registry=registry,
        )  # fmt: skip
        self.dead_letter_errors = Counter(
            "esm_async_dead_letter_errors", "Deliveries to a dead-letter queue that failed (DeadLetterErrors)", labels,
            registry=registry,
        )  # fmt: skip
        self.delivery_failures = Counter(
            "esm_async_destination_delivery_failures", "Deliveries to a destination that failed"
            " (DestinationDeliveryFailures)", labels, registry=registry,
        )  # fmt: skip
        self.restarts = Counter(
            "esm_async_restarts", "Restarts after an error of the program itself", labels, registry=registry
        )
        self.invocations = Counter(
            "esm_async_invocations", "Tries by how they ended", (*labels, "outcome"), registry=registry
        )


class AsyncTelemetry:
    """What can happen to the asynchronous events of one function."""

    def __init__(self, metrics: _AsyncMetrics, function: str) -> None:
        """Bind the label; the plain counters exist from here on, at 0."""
        self._metrics = metrics
        self._function = function
        for metric in (metrics.received, metrics.dead_letter_errors, metrics.delivery_failures, metrics.restarts):
            metric.labels(function)

    def crashed(self, restart_s: float) -> None:
        """An error of the program itself (call inside `except`): the function's queue is served again after a pause."""
        self._metrics.restarts.labels(self._function).inc()
        fields = {"function": self._function, "restart_s": round(restart_s, 1)}
        _logger.error("asynchronous queue crashed", exc_info=True, extra={"fields": fields})

    def received(self) -> None:
        """An event is stored."""
        self._metrics.received.labels(self._function).inc()

    def aged(self, age_s: float) -> None:
        """An event of this age is about to be tried."""
        self._metrics.age.labels(self._function).observe(age_s)

    def invocation_ended(self, request_id: str, outcome: str, attempt: int, duration_s: float) -> None:
        """A try ended."""
        self._metrics.invocations.labels(self._function, outcome).inc()
        level = logging.DEBUG if outcome == "success" else logging.WARNING
        _log(level, "asynchronous event tried", function=self._function, request_id=request_id, outcome=outcome,
             attempt=attempt, duration_s=round(duration_s, 4))  # fmt: skip

    def given_up(self, request_id: str, condition: str, tries: int) -> None:
        """An event is not tried any more."""
        _log(logging.WARNING, "asynchronous event given up", function=self._function, request_id=request_id,
             condition=condition, invocations=tries)  # fmt: skip

    def dropped(self, reason: str, request_id: str, why: str | None = None) -> None:
        """An event, or a notice of it, is lost: a condition without anybody to tell, destination, payload."""
        self._metrics.dropped.labels(self._function, reason).inc()
        _log(logging.ERROR, "asynchronous event dropped", function=self._function, request_id=request_id,
             reason=reason, why=why)  # fmt: skip

    def delivery_failed(self, request_id: str, error: str, *, is_dead_letter: bool) -> None:
        """A destination or dead-letter queue did not take a notice; it is tried again."""
        metrics = self._metrics
        (metrics.dead_letter_errors if is_dead_letter else metrics.delivery_failures).labels(self._function).inc()
        _log(logging.ERROR, "dead-letter queue failed" if is_dead_letter else "asynchronous destination failed",
             function=self._function, request_id=request_id, error=error)  # fmt: skip


def _counter(registry: CollectorRegistry, name: str, text: str, *extra: str) -> Counter:
    return Counter(name, text, (*LABELS, *extra), registry=registry)


def _takeovers(registry: CollectorRegistry) -> Histogram:
    text = "How long a shard was not read while it went from one worker to another"
    return Histogram("esm_takeover_seconds", text, ("kind",), registry=registry, buckets=_TAKEOVER_BUCKETS)
