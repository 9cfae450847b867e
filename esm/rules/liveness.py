"""Which owners live, as one worker has watched their heartbeats on its own monotonic clock: skewed clocks cannot hurt.

Laws: an owner is gone when it said so, when its end is proved, or when its heartbeat did not change for the failover
time while somebody watched; the time in which the watcher itself did not look counts for nothing, so that one which
was frozen, or had no store, declares nobody dead. An owner that was never seen is watched from its first mention on.
Source: design section 6.
"""

from collections.abc import Iterable

from esm.model.clocks import Instant
from esm.model.worker import Heartbeat, owner_name

GAPS = 4
"""Two looks further apart than this part of the failover time were not watching."""

FORGET_AFTER_S = 3600.0
"""How long a heartbeat that does not change is kept in the store, and an owner in memory."""


class Liveness:
    """What one worker knows of the others."""

    def __init__(self, failover_s: float, now: Instant) -> None:
        self._failover_s = failover_s
        self._looked_at = now
        self._watched_s = 0.0
        self._since: dict[str, float] = {}
        """On the clock of `_watched_s`: when an owner was last seen to change, or first mentioned."""
        self._seen_at: dict[str, Instant] = {}
        self._beats: dict[str, int] = {}
        self._gone: dict[str, float] = {}
        """Since when, on the same clock."""
        self._heartbeats: dict[str, Heartbeat] = {}

    def looked(self, heartbeats: Iterable[Heartbeat], now: Instant) -> None:
        """A look at all heartbeats, which ended at `now`, has brought these.

        Its end counts: what it has brought may have been written just before.
        """
        self._watched_s = self._watched_until(now)
        self._looked_at = now
        self._heartbeats = {}
        for heartbeat in heartbeats:
            self.saw(heartbeat, now)
        named = {heartbeat.owner for heartbeat in self._heartbeats.values()}
        for known in (self._since, self._gone):
            for owner in [one for one, since in known.items() if self._watched_s - since > FORGET_AFTER_S]:
                if owner not in named:
                    self._forget(owner)

    def saw(self, heartbeat: Heartbeat, now: Instant) -> None:
        """One heartbeat, which was read at `now` at the latest; an older one than is known changes nothing."""
        owner = heartbeat.owner
        self._heartbeats[heartbeat.worker] = heartbeat
        if heartbeat.beat > self._beats.get(owner, -1):
            self._beats[owner] = heartbeat.beat
            self._since[owner] = self._watched_until(now)
            self._seen_at[owner] = now
        if heartbeat.is_released:
            self.ended(owner)
        for run in heartbeat.ended:
            self.ended(owner_name(heartbeat.worker, run))

    def ended(self, owner: str) -> None:
        """The owner's process is proved to have ended."""
        self._gone.setdefault(owner, self._watched_s)

    def is_gone(self, owner: str) -> bool:
        """Whether an owner starts nothing any more."""
        if owner in self._gone:
            return True
        return self._watched_s - self._since.setdefault(owner, self._watched_s) >= self._failover_s

    def is_silent(self, owner: str) -> bool:
        """Whether only silence says that an owner is gone: to be confirmed by a consistent read."""
        return owner not in self._gone

    def seen_at(self, owner: str) -> Instant | None:
        """When the owner was last seen to live."""
        return self._seen_at.get(owner)

    @property
    def heartbeats(self) -> list[Heartbeat]:
        """Those of the last look, of the living and the dead, by worker."""
        return [heartbeat for _, heartbeat in sorted(self._heartbeats.items())]

    @property
    def live(self) -> list[Heartbeat]:
        """Those of workers that are not gone; some may be leaving."""
        return [heartbeat for heartbeat in self.heartbeats if not self.is_gone(heartbeat.owner)]

    @property
    def gone(self) -> frozenset[str]:
        """Every owner that anybody asked about, or that was seen, and that is gone."""
        return frozenset(owner for owner in self._since if self.is_gone(owner))

    @property
    def forgettable(self) -> list[Heartbeat]:
        """Those that nobody has to keep any more."""
        return [one for one in self.heartbeats if self._watched_s - self._since[one.owner] > FORGET_AFTER_S]

    def _watched_until(self, now: Instant) -> float:
        return self._watched_s + min(max(0.0, now - self._looked_at), self._failover_s / GAPS)

    def _forget(self, owner: str) -> None:
        for known in (self._since, self._seen_at, self._beats, self._gone):
            known.pop(owner, None)
