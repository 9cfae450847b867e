"""What several workers show of their mappings, as one answer.

Laws: the order of the workers does not matter, and one worker alone is shown as it shows itself. Only those that live
speak for a mapping, a drain included; the last words of workers that stopped or fell silent count where no other does,
and hide nothing. The newer word on a shard counts: during a handover two workers may name it. A problem at any worker
shows.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from esm.model.clocks import UnixTime
from esm.model.mapping import NO_RECORDS, OK, State
from esm.model.view import MappingView, ShardView
from esm.model.worker import Heartbeat, is_mapping

PROBLEM = "PROBLEM"
"""How a last result begins that somebody should look at."""

NAMES_MAX = 3
"""Workers, and texts, of a problem that are named one by one."""

_SHOWN_FIRST = (
    State.UPDATING, State.DISABLING, State.ENABLED, State.ENABLING, State.CREATING, State.DISABLED, State.DELETING,
)  # fmt: skip
"""Of different states: what goes on somewhere before what has ended, and what runs before what does not."""


class Life(Enum):
    """What can be said of a worker from outside."""

    LIVE = "live"
    LEAVING = "leaving"
    """It drains."""
    SILENT = "silent"
    """It says nothing any more, and did not say why."""
    STOPPED = "stopped"

    @property
    def speaks(self) -> bool:
        """Whether its words are of now."""
        return self in {Life.LIVE, Life.LEAVING}


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker showed last."""

    worker: str
    life: Life
    at: UnixTime
    views: tuple[MappingView, ...]


@dataclass(frozen=True, slots=True)
class FleetView:
    """One mapping, as all its workers show it."""

    view: MappingView
    reports: tuple[tuple[Report, MappingView], ...]
    """Of those who speak for it, each with its own word, by worker."""

    @property
    def at(self) -> UnixTime:
        """When the newest of them was written."""
        return max(report.at for report, _ in self.reports)

    @property
    def workers(self) -> tuple[str, ...]:
        """Whose words it is made of."""
        return tuple([report.worker for report, _ in self.reports])

    @property
    def is_live(self) -> bool:
        """Whether they are of now."""
        return any(report.life.speaks for report, _ in self.reports)


@dataclass(frozen=True, slots=True)
class Difference:
    """A mapping that live workers would not all run alike, as during a rollout."""

    mapping: str
    alike: tuple[tuple[str, ...], ...]
    """Workers that agree, the largest group first."""
    unaware: tuple[str, ...]
    """Those that do not know it."""


def combined(reports: Iterable[Report]) -> list[FleetView]:
    """One view a mapping, in the order of the first worker (by name) that shows it."""
    spoken: defaultdict[str, list[tuple[Report, MappingView]]] = defaultdict(list)
    for report in sorted(reports, key=lambda report: report.worker):
        for view in report.views:
            spoken[view.uuid].append((report, view))
    return [_combined(words) for words in spoken.values()]


def differences(heartbeats: Iterable[Heartbeat], shown: Mapping[str, Collection[str]]) -> list[Difference]:
    """The mappings that these workers would not all run alike, by UUID.

    `shown`: the mappings in the status of each worker that has reported. One that shows a mapping knows it, also where
    it cannot run it now; of one that has not reported yet nothing is said.
    """
    offered = {heartbeat.worker: heartbeat.mappings for heartbeat in heartbeats}
    found = []
    for uuid in sorted({uuid for mappings in offered.values() for uuid in mappings if is_mapping(uuid)}):
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for worker in sorted(offered):
            if uuid in offered[worker]:
                groups[offered[worker][uuid].digest].append(worker)
        unaware = [
            worker for worker in sorted(offered)
            if uuid not in offered[worker] and worker in shown and uuid not in shown[worker]
        ]  # fmt: skip
        if unaware or len(groups) > 1:
            alike = sorted([tuple(group) for group in groups.values()], key=lambda group: (-len(group), group))
            found.append(Difference(uuid, tuple(alike), tuple(unaware)))
    return found


def named(workers: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = len(workers) - NAMES_MAX
    return ", ".join(workers) if more <= 0 else f"{', '.join(workers[:NAMES_MAX])} and {more} more"


def _combined(words: list[tuple[Report, MappingView]]) -> FleetView:
    speaking = [word for word in words if word[0].life.speaks] or words
    if len(speaking) == 1:
        return FleetView(speaking[0][1], tuple(speaking))
    newest_first = sorted(speaking, key=lambda word: (-word[0].at, word[0].worker))
    views = [view for _, view in newest_first]
    state, reason = _state(newest_first)
    view = replace(
        views[0],
        state=state,
        reason=reason,
        last_result=_last_result(speaking, views),
        has_problem=any(view.has_problem for view in views),
        in_flight=sum(view.in_flight for view in views),
        backlog=_first([view.backlog for view in views]),
        not_visible=_first([view.not_visible for view in views]),
        shards=_shards(views),
        circuit_open=any(view.circuit_open for view in views),
        async_backlog=_sum([view.async_backlog for view in views]),
        runtimes=_sum([view.runtimes for view in views]),
        batches_max=_first([view.batches_max for view in views]),
    )
    return FleetView(view, tuple(speaking))


def _state(newest_first: Sequence[tuple[Report, MappingView]]) -> tuple[State, str | None]:
    """The state to show, and its reason: of those that stay, where there are any."""
    staying = [view for report, view in newest_first if report.life is Life.LIVE]
    views = staying or [view for _, view in newest_first]
    state = min([view.state for view in views], key=_SHOWN_FIRST.index)
    return state, next((view.reason for view in views if view.state is state and view.reason), None)


def _last_result(speaking: Sequence[tuple[Report, MappingView]], newest_first: Sequence[MappingView]) -> str:
    problems: defaultdict[str, list[str]] = defaultdict(list)
    for is_lasting in (True, False):
        for report, view in speaking:
            if view.has_problem is is_lasting and view.last_result.startswith(PROBLEM):
                problems[view.last_result].append(report.worker)
    if problems:
        texts = [f"{text} ({_where(workers, len(speaking))})" for text, workers in list(problems.items())[:NAMES_MAX]]
        more = len(problems) - NAMES_MAX
        return "; ".join([*texts, *([f"and {more} more"] if more > 0 else [])])
    results = [view.last_result for view in newest_first]
    others = [result for result in results if result not in {OK, NO_RECORDS}]
    return next(iter(others), OK if OK in results else NO_RECORDS)


def _where(workers: Sequence[str], count: int) -> str:
    if len(workers) == count:
        return f"at all {count} workers"
    return f"at {'worker' if len(workers) == 1 else 'workers'} {named(workers)}"


def _shards(newest_first: Sequence[MappingView]) -> tuple[ShardView, ...]:
    """Every shard once, by id; a queue, which all workers read, as the worst of them sees it."""
    shards: dict[str, ShardView] = {}
    for view in newest_first:
        for shard in view.shards:
            known = shards.get(shard.id)
            if known is None:
                shards[shard.id] = shard
            elif not shard.id:
                shards[shard.id] = _worst(known, shard)
    return tuple([shards[name] for name in sorted(shards)])


def _worst(one: ShardView, other: ShardView) -> ShardView:
    lags = [lag for lag in (one.lag_s, other.lag_s) if lag is not None]
    ends = [end for end in (one.expires_in_s, other.expires_in_s) if end is not None]
    return ShardView(
        one.id,
        lag_s=max(lags, default=None),
        blocked_s=max(one.blocked_s, other.blocked_s),
        expires_in_s=min(ends, default=None),
        checkpoint_age_s=max(one.checkpoint_age_s, other.checkpoint_age_s),
    )


def _first(values: Iterable[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
