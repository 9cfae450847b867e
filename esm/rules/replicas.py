"""How far the mappings are behind, and how many replicas would make sense of it.

What is waiting is measured in replicas: messages of a queue by how many one replica is meant to have before it, a
shard by how many seconds behind it one replica is meant to bear. What cannot help is left out: more replicas than
batches may be on their way at once, and any beyond the first where a target is broken or a shard is blocked.
The parts add up before they are rounded, so that many mappings with little to do do not ask for a replica each.
There is always one: nobody else would notice that something comes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from esm.model.arn import Arn
from esm.model.mapping import Mapping
from esm.model.view import MappingView, ShardView
from esm.rules.scaling import Bounds

MESSAGES_PER_REPLICA = 1_000
"""Messages of queues, visible and not, that one replica is meant to have before it, unless it is asked otherwise."""

LAG_S_PER_REPLICA = 60.0
"""Seconds that a shard may be behind before it is worth a replica, unless it is asked otherwise."""


_DIGITS = 6
"""A millionth of a replica is none: of each mapping as of their sum, so that many do not add up to more than alone."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one replica is meant to bear; both above 0."""

    messages: float = MESSAGES_PER_REPLICA
    lag_s: float = LAG_S_PER_REPLICA


@dataclass(frozen=True, slots=True)
class MappingLag:
    """One mapping, as `/lag` shows it."""

    mapping: str
    function: str
    source: str
    state: str
    lag_s: float | None
    """Of the shard that is the furthest behind; None: unknown, or nothing runs."""
    visible_messages: int | None
    """None: a stream, or unknown."""
    not_visible_messages: int | None
    shards: int | None
    """Those that are read; None for queues."""
    replicas_max: int
    """More could not work at the same time."""
    desired_replicas: int
    """Were this mapping alone; 0 where it does not run."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Every mapping, and one number for all of them."""

    desired_replicas: int
    """At least 1."""
    mappings: tuple[MappingLag, ...]


def batches_max(mapping: Mapping) -> int:
    """Batches at once that a mapping allows: of each shard, or of the queue."""
    return mapping.lanes if mapping.source_kind.is_stream else Bounds.of(mapping).most


def lag(views: Iterable[MappingView], target: Target) -> Lag:
    """What the mappings need together. Monotonic in every message and every second, and bounded by `replicas_max`."""
    needs = [_Need(view, target) for view in views]
    return Lag(max(1, _whole(sum(need.replicas for need in needs))), tuple(need.shown for need in needs))


class _Need:
    """One mapping, measured in replicas."""

    def __init__(self, view: MappingView, target: Target) -> None:
        self._view = view
        self._target = target
        self._is_stream = Arn.parse(view.source).service != "sqs"
        self._runs = bool(view.shards)

    @property
    def shown(self) -> MappingLag:
        view = self._view
        lags = [shard.lag_s for shard in view.shards if shard.lag_s is not None]
        return MappingLag(
            mapping=view.uuid, function=view.function, source=view.source, state=view.state.value,
            lag_s=round(max(lags), 3) if lags else None,
            visible_messages=view.backlog, not_visible_messages=view.not_visible,
            shards=len(view.shards) if self._is_stream else None,
            replicas_max=self._most,
            desired_replicas=max(1, _whole(self.replicas)) if self._runs else 0,
        )  # fmt: skip

    @property
    def replicas(self) -> float:
        """What the mapping could make use of, before it is rounded up."""
        view, target = self._view, self._target
        if self._is_stream:
            wanted = sum(self._shard(shard) for shard in view.shards)
        else:
            wanted = ((view.backlog or 0) + (view.not_visible or 0)) / target.messages
        return round(min(wanted, self._most, 1 if view.circuit_open else wanted), _DIGITS)

    def _shard(self, shard: ShardView) -> float:
        most = 1 if shard.blocked_s > 0 else self._view.batches_max or 1
        return min((shard.lag_s or 0.0) / self._target.lag_s, most)

    @property
    def _most(self) -> int:
        if not self._runs:
            return 0
        return (self._view.batches_max or 1) * (len(self._view.shards) if self._is_stream else 1)


def _whole(replicas: float) -> int:
    """Rounded up, but not for what binary fractions add."""
    return math.ceil(round(replicas, _DIGITS))
