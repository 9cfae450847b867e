"""Observation: what one mapping shows of itself while it runs."""

from collections.abc import Callable

from esm.model.connection import DAEMON
from esm.model.mapping import NO_RECORDS, OK, Mapping, State
from esm.model.view import MappingView, ShardView
from esm.rules import lifecycle
from esm.rules.lifecycle import Event
from esm.rules.replicas import batches_max
from esm.telemetry import MappingTelemetry


class Observation:
    """State, last result and problem of one mapping; `view()` gathers the rest from whoever knows."""

    def __init__(self, mapping: Mapping, telemetry: MappingTelemetry, state: State | None = None) -> None:
        """`state`: of the mapping whose place this one takes; None: the mapping is new."""
        self._mapping = mapping
        self._problems: dict[str, str] = {}
        self._state = state or lifecycle.first(enabled=mapping.enabled)
        self.telemetry = telemetry
        self.last_result = NO_RECORDS
        self.identity = DAEMON.shown
        self.shards: Callable[[], tuple[ShardView, ...]] = tuple
        self.shards_without_owner: Callable[[], int] = int
        self.in_flight = 0
        self.backlog: int | None = None
        self.not_visible: int | None = None
        self._is_circuit_open = False
        self.reason: str | None = None
        self.async_backlog: Callable[[], int | None] = lambda: None
        self.runtimes: Callable[[], int | None] = lambda: None

    @property
    def state(self) -> State:
        """The state as Lambda's API shows it."""
        return self._state

    def asked(self, event: Event) -> None:
        """The configuration wants something else of the mapping."""
        self._state = lifecycle.after(self._state, event)

    def runs(self) -> None:
        """Everything is known that the mapping needs: its loops read."""
        self._state = lifecycle.after(self._state, Event.RUNS)

    def rests(self) -> None:
        """The mapping is switched off and everything begun is settled: there is nothing to show of it."""
        assert self.in_flight == 0, "a mapping that rests has no invocation in flight"
        self._state = lifecycle.after(self._state, Event.RESTS)
        self._problems.clear()
        self.shards = tuple
        self.shards_without_owner = int
        self.counted(None, None)

    def counted(self, backlog: int | None, not_visible: int | None) -> None:
        """So many messages wait in the queue, and are with somebody; None: unknown."""
        self.backlog, self.not_visible = backlog, not_visible

    def follow(self, mapping: Mapping) -> None:
        """The mapping changed: its labels follow."""
        self._mapping = mapping
        self.telemetry.follow(mapping)

    def succeeded(self) -> None:
        """A batch was taken, or its failure was settled."""
        self.last_result = OK

    def failed(self, text: str) -> None:
        """The last invocation failed."""
        self.last_result = text

    def problem(self, where: str, text: str) -> None:
        """Someone must act on `where` (source, function, destination, shard): shown until `mended(where)`."""
        if self._problems.get(where) != text:
            self.telemetry.problem(text)
        self._problems[where] = text

    def circuit(self, *, is_open: bool) -> None:
        """Whether the target counts as broken, after each invocation; a change is an event."""
        if is_open and not self._is_circuit_open:
            self.telemetry.circuit_opened()
        elif self._is_circuit_open and not is_open:
            self.telemetry.circuit_closed()
        self._is_circuit_open = is_open

    def cleared(self) -> None:
        """The mapping starts anew: what was wrong will show again if it still is."""
        self._problems.clear()

    def rested(self) -> None:
        """Nothing is offered to the target any more, so it is not broken either."""
        self._is_circuit_open = False

    def mended(self, where: str) -> None:
        """What was wrong with `where` is no more."""
        if self._problems.pop(where, None) is not None and not self._problems:
            self.telemetry.problem_ended()

    def view(self) -> MappingView:
        """The mapping as status and metrics show it."""
        problem = next(iter(self._problems.values()), None)
        return MappingView(
            uuid=self._mapping.uuid,
            function=str(self._mapping.function_arn),
            source=str(self._mapping.source_arn),
            state=self._state,
            last_result=f"PROBLEM: {problem}" if problem else self.last_result,
            has_problem=problem is not None,
            in_flight=self.in_flight,
            backlog=self.backlog,
            shards=self.shards(),
            circuit_open=self._is_circuit_open,
            identity=self.identity,
            async_backlog=self.async_backlog(),
            runtimes=self.runtimes(),
            not_visible=self.not_visible,
            batches_max=batches_max(self._mapping),
            reason=self.reason,
            shards_without_owner=self.shards_without_owner(),
        )
