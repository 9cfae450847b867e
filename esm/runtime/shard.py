"""ShardRunner: one claimed shard. Feeds read it, lanes deliver it, and what is safe is stored."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from esm.errors import Unavailable
from esm.model.clocks import Instant
from esm.model.mapping import Mapping
from esm.model.position import Position, Shard
from esm.model.record import ChildShard, Read, StreamRecord
from esm.model.view import ShardView
from esm.model.window import OpenWindow
from esm.ports import StreamSource
from esm.rules.progress import Progress, last_before, lowest, was_taken
from esm.rules.tumbling import Tumbling
from esm.runtime.feed import Feed, Pace
from esm.runtime.gate import Gate
from esm.runtime.giving_up import Notifier
from esm.runtime.invoker import Invoker
from esm.runtime.knowing import known, pause_after
from esm.runtime.lane import Lane
from esm.runtime.leasing import ShardLease
from esm.runtime.observation import Observation
from esm.runtime.sieve import Sieve
from esm.runtime.surroundings import Signal, Stop, Surroundings

CONVERT_EVERY_S = 30.0
"""How often a shard tries to end the batches on their way, to take over a changed ParallelizationFactor."""

CONVERT_FOR_S = 5.0
"""How long the first such try may keep lanes waiting for each other; each one in vain doubles it."""

CONVERT_FOR_S_MAX = 900.0
"""No function runs for longer."""

LAYOUTS_MAX = 3
"""Earlier factors whose positions are kept: a further change waits until the lanes have passed the first of them."""

UNREAD_S = 10.0
"""A shard that could not be read for this long lags by that time, too."""

LAST_SAVE_S = 2.0
"""How long the last save may take, beyond the grace period if it must be."""


class ShardRunner:
    """Runs one shard. `run` returns True when the shard is finished, False when stopped or to be started anew."""

    def __init__(
        self, around: Surroundings, lease: ShardLease, source: StreamSource, mapping: Callable[[], Mapping],
        invoker: Invoker, gate: Gate, notifier: Notifier, observation: Observation, stop: Stop,
        retention: Callable[[], float], announce: Callable[[tuple[ChildShard, ...]], None],
    ) -> None:  # fmt: skip
        self.around = around
        self.source = source
        self.mapping = mapping
        self.invoker = invoker
        self.gate = gate
        self.notifier = notifier
        self.observation = observation
        self.stop = stop
        self.sieve = Sieve(observation.telemetry)
        self._retention = retention
        self.announce = announce
        self.id = lease.lease.shard
        self.pace = Pace(source.reads_per_s_busy, source.reads_per_s_idle)
        self.progress = Progress(lease.lease.positions)
        self.lanes = [Lane(self, index, last_before(p), lease.window) for index, p in enumerate(lease.lease.positions)]
        self.feeds: set[Feed] = set()
        self.changed = Signal()
        self.is_converting = False
        self._lease = lease
        self._takeover = lease.takeover
        self._to_save = Signal()
        self._behind_s: float | None = None
        self._read_at = around.clock.now()
        self._has_converted = False
        self._unsaved_since: Instant | None = None
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self) -> bool:
        """Read and deliver until the end of the shard or the stop; then store where it is. Raises: LeaseLost."""
        try:
            async with anyio.create_task_group() as background:
                background.start_soon(self._save_forever)
                background.start_soon(self._convert_forever)
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    self._start_feed(self.lanes[:], lowest(self.progress.positions()))
                    for lane in self.lanes:
                        tasks.start_soon(lane.run)
                background.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            await self._leave()
            raise
        finally:
            for lane in self.lanes:
                lane.clear()  # a read that ended with its lane has still brought records
        return await self._leave()

    @property
    def is_held(self) -> bool:
        """Whether the shard is this worker's without doubt: only then an invocation may start."""
        return self.around.members.holds(self._lease.term, self.around.clock.now())

    @property
    def start_by(self) -> Instant | None:
        """When an invocation must have started; None where nobody waits to take over."""
        until = self.around.members.trusted_until
        return None if math.isinf(until) else until

    @property
    def retention_s(self) -> float:
        """How long the stream keeps a record, as far as is known now."""
        return self._retention()

    def feed_again(self, lane: Lane) -> None:
        """Give a lane that left its feed one of its own, from where it is."""
        self._start_feed([lane], self.progress.frontier(lane.index))

    def has_read(self, read: Read) -> None:
        """A feed has read."""
        self._behind_s = read.behind_s
        if self._takeover is not None:
            self.around.telemetry.taken_over(self._takeover.kind, self._takeover.seconds(self.around.clock))
            self._takeover = None
        self._read_at = self.around.clock.now()

    def moved(self) -> None:
        """A position may have changed."""
        if self._unsaved_since is None and not self._is_stored(self.progress.positions(), self._window):
            self._unsaved_since = self.around.clock.now()
            self._to_save.notify()

    def has_taken(self, record: StreamRecord) -> bool:
        """Whether a lane of an earlier factor took it; costs nothing once the lanes of now have passed those."""
        done = self._lease.lease.done
        return bool(done) and was_taken(record.sequence, record.lane_hash, done)

    @property
    def _window(self) -> OpenWindow | None:
        """The tumbling window that belongs to the positions of this moment."""
        return self.lanes[0].tumbling.settled

    def _is_stored(self, positions: tuple[Position, ...], window: OpenWindow | None) -> bool:
        return positions == self._lease.lease.positions and window is self._lease.window

    def hollow_window(self, tumbling: Tumbling) -> bool:
        """Give the state of the open window back if it stands in the store, and no write is on its way."""
        if self._unsaved_since is not None or self._lease.window is not tumbling.open:
            return False
        tumbling.hollow()
        self._lease.window = tumbling.open
        return True

    async def fill_window(self, tumbling: Tumbling) -> bool:
        """Read the state of the open window again; False: the stop came first."""
        state = await known(self.around, self.stop, self.observation, "store", self._lease.state)
        if state is None:
            return False
        is_stored = self._lease.window is tumbling.open
        tumbling.filled(state)
        if is_stored:
            self._lease.window = tumbling.open
        return True

    def look_again(self) -> None:
        """The mapping has changed."""
        self.changed.notify()

    def view(self) -> ShardView:
        """What status and metrics show of the shard."""
        now, wall = self.around.clock.now(), self.around.clock.wall()
        arrivals = [arrival for lane in self.lanes if (arrival := lane.oldest_arrival) is not None]
        unread_s = now - self._read_at
        behind_s = (self._behind_s or 0.0) + (unread_s if unread_s > UNREAD_S else 0.0)
        lag_s = max(0.0, wall - min(arrivals)) if arrivals else behind_s
        failing = [now - lane.failing_since for lane in self.lanes if lane.failing_since is not None]
        return ShardView(
            id=self.id,
            lag_s=lag_s,
            blocked_s=max(failing, default=0.0),
            expires_in_s=self.retention_s - lag_s if lag_s else None,
            checkpoint_age_s=now - self._unsaved_since if self._unsaved_since is not None else 0.0,
        )

    def _start_feed(self, lanes: list[Lane], position: Position) -> None:
        assert self._tasks is not None
        feed = Feed(self, lanes, position)
        self.feeds.add(feed)
        self._tasks.start_soon(feed.run)

    async def _save_forever(self) -> None:
        while True:
            if self._unsaved_since is None:
                await self._to_save.wait()
            await self._save()
            await anyio.sleep(self.around.checkpoint_interval_s)

    async def _save(self, *, is_finished: bool = False, factor: int | None = None) -> None:
        """Store the positions, however often it takes; with `factor` as those of so many lanes that begin anew."""
        failures = 0
        while True:
            positions, window = self.progress.positions(), self._window
            before = None
            if factor is not None:
                before, positions = positions, (lowest(positions),) * factor
            began_at, done = self.around.clock.now(), self._lease.lease.done
            try:
                await self._lease.save(positions, window, is_finished=is_finished, before=before)
            except Unavailable as error:
                self.around.telemetry.store_failed("save", str(error))
                failures = await pause_after(self.around, Stop(), error, failures)
                continue
            is_current = factor is not None or self._is_stored(self.progress.positions(), self._window)
            self._unsaved_since = None if is_current else began_at
            if self._lease.lease.done != done:
                self.changed.notify()  # a factor that was to wait may have its turn
            if window is not None:
                self._wake_lanes()
            return

    async def _leave(self) -> bool:
        """The last save: it ends within the grace period, or what was taken is delivered again."""
        is_finished = all(lane.has_finished for lane in self.lanes)
        lanes = self.mapping().lanes
        factor = lanes if self._has_converted and not is_finished and lanes != len(self.lanes) else None
        with anyio.move_on_after(LAST_SAVE_S, shield=True):
            await self._save(is_finished=is_finished, factor=factor)
            if self.stop.is_set and not is_finished:
                await self._release()
        return is_finished

    async def _release(self) -> None:
        """Another worker may claim the shard at once; without this it claims it a little later."""
        try:
            await self._lease.release()
        except Unavailable as error:
            self.around.telemetry.store_failed("release", str(error))

    async def _convert_forever(self) -> None:
        """Take over a changed ParallelizationFactor at a moment between two batches of every lane.

        What waits in the lanes is forgotten and read again, from the lowest of their positions; the lease keeps those
        of the old lanes, which say what of it was taken.
        """
        for_s = CONVERT_FOR_S
        while True:
            while self.mapping().lanes == len(self.lanes) or len(self._lease.lease.done) >= LAYOUTS_MAX:
                await self.changed.wait()
            self.is_converting = True
            self._wake_lanes()
            with anyio.move_on_after(for_s) as trying:
                while not self._is_quiet() and not any(lane.failing_since is not None for lane in self.lanes):
                    await self.changed.wait_until(self.around.clock, Instant(self.around.clock.now() + 0.1))
                if self._is_quiet():
                    self._has_converted = True
                    self.end_early()
                    return
            if trying.cancelled_caught:
                for_s = min(2 * for_s, CONVERT_FOR_S_MAX)
            self.is_converting = False
            self.changed.notify()
            self._wake_lanes()
            await anyio.sleep(CONVERT_EVERY_S)

    def _wake_lanes(self) -> None:
        for lane in self.lanes:
            lane.changed.notify()

    def _is_quiet(self) -> bool:
        return all(lane.is_between_batches and lane.tumbling.open is None for lane in self.lanes)

    def end_early(self) -> None:
        """End feeds and idle lanes, so that the shard starts anew with other lanes."""
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()


def child_shards(children: tuple[ChildShard, ...]) -> list[Shard]:
    """Announced children as shards of the lineage."""
    return [Shard(child.id, child.parents) for child in children]
