"""Whether workers live, for readers that look now and then: commands, and whoever asks a daemon for its status.

A worker that owns shards watches the others all the time, and takes over by that alone. Here nothing hangs on the
answer but what is shown, and what `Proof` says. A counter that moved between two looks tells more than any clock;
before there was a second look, a worker is believed by the times that it wrote itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from esm.model.clocks import Instant, UnixTime
from esm.model.view import MappingView
from esm.model.worker import Heartbeat
from esm.rules.fleet_views import Life, Report

FRESH_S = 20.0
"""A worker whose last word is older than this, and than two failover times, is shown as silent."""

ANSWERS_WITHIN_S = 4.0
"""A daemon that runs writes its status within this time after the change counter was raised."""

MARGIN_S = 1.0
"""Beyond the failover time: a worker that lives has written by then."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a worker said last, as far as it tells whether it lives and what it runs."""

    worker: str
    heartbeat: Heartbeat | None
    """None: a worker alone, which writes none; or it has never run."""
    reported_at: UnixTime | None
    """When its status was written; None where there is none."""
    views: tuple[MappingView, ...]
    """What its status shows."""

    @property
    def at(self) -> UnixTime | None:
        """Its last sign of life by its own clock."""
        beat_at = None if self.heartbeat is None else self.heartbeat.at
        return max([at for at in (beat_at, self.reported_at) if at is not None], default=None)

    @property
    def is_released(self) -> bool:
        """Whether it said that it has ended."""
        return self.heartbeat is not None and self.heartbeat.is_released

    def names(self, mapping: str) -> bool:
        """Whether it would run a mapping, or still shows it."""
        return self.offers(mapping) or any(view.uuid == mapping for view in self.views)

    def offers(self, mapping: str) -> bool:
        """Whether its heartbeat says that it runs a mapping."""
        return self.heartbeat is not None and mapping in self.heartbeat.mappings

    @property
    def pulse(self) -> tuple[tuple[str, int] | None, UnixTime | None]:
        """What a worker changes for as long as it lives."""
        beat = None if self.heartbeat is None else (self.heartbeat.run, self.heartbeat.beat)
        return beat, self.reported_at


@dataclass(frozen=True, slots=True)
class _Sight:
    counter: tuple[str, int]
    since: Instant
    has_moved: bool
    """Since the reader first looked."""


class Sightings:
    """What one reader has seen of the workers' counters."""

    def __init__(self, failover_s: float) -> None:
        self._failover_s = failover_s
        self._fresh_s = max(FRESH_S, 2 * failover_s)
        self._seen: dict[str, _Sight] = {}

    def looked(self, words: Iterable[Word], now: Instant) -> None:
        """A look that began at `now` has brought these."""
        before, self._seen = self._seen, {}
        for word in words:
            if word.heartbeat is None:
                continue
            counter = (word.heartbeat.run, word.heartbeat.beat)
            known = before.get(word.worker)
            if known is None or known.counter != counter:
                known = _Sight(counter, now, has_moved=known is not None)
            self._seen[word.worker] = known

    def life(self, word: Word, now: Instant, wall: UnixTime) -> Life:
        """What to say of a worker; `now` and `wall` are of the same look."""
        if word.is_released:
            return Life.STOPPED
        return self._moving(word) if self._is_alive(word, now, wall) else Life.SILENT

    def report(self, word: Word, now: Instant, wall: UnixTime) -> Report:
        """What a worker showed last, and what to say of it."""
        return Report(word.worker, self.life(word, now, wall), word.reported_at or UnixTime(0.0), word.views)

    def _is_alive(self, word: Word, now: Instant, wall: UnixTime) -> bool:
        sight = self._seen.get(word.worker)
        is_watched = sight is not None and now - sight.since >= self._failover_s
        if is_watched or (sight is not None and sight.has_moved):
            return not is_watched
        return word.at is not None and wall - word.at <= self._fresh_s

    @staticmethod
    def _moving(word: Word) -> Life:
        return Life.LEAVING if word.heartbeat is not None and word.heartbeat.is_leaving else Life.LIVE


def owner_life(owner: str, word: Word, life: Life) -> Life:
    """Whether the owner of a lease lives, by the word and the life of its worker: a worker that starts again does not
    own what its earlier run owned.
    """
    return life if word.heartbeat is None or word.heartbeat.owner == owner else Life.STOPPED


class Proof:
    """Whether any worker runs a mapping, proved by words that change, or do not, while one watches.

    A worker runs it that says so, in its heartbeat or in its status, in words written since the first look. Nobody
    runs it once all who said so have fallen silent, or say it no more. The change counter is to be raised after the
    first look: it makes daemons write their status.
    """

    def __init__(self, mapping: str, failover_s: float) -> None:
        self._mapping = mapping
        self._failover_s = failover_s
        self._first: dict[str, Word] | None = None
        self._began_at = Instant(0.0)
        self._named: list[Word] = []
        self._now = Instant(0.0)

    def looked(self, words: Iterable[Word], now: Instant) -> None:
        """A look that began at `now` has brought these."""
        found = list(words)
        if self._first is None:
            self._first = {word.worker: word for word in found}
            self._began_at = now
        self._now = now
        self._named = [word for word in found if word.names(self._mapping) and not word.is_released]

    @property
    def runs_at(self) -> list[str]:
        """Workers that run it, beyond doubt."""
        return [word.worker for word in self._named if self._runs(word)]

    @property
    def doubtful(self) -> list[str]:
        """Workers that may run it: they said so, and have had no time yet to show that they live."""
        return [word.worker for word in self._named if not self._is_over(word) and not self._runs(word)]

    @property
    def patience_s(self) -> float:
        """How long to watch at most."""
        return max([self._patience_s(word) for word in self._named], default=0.0)

    def _runs(self, word: Word) -> bool:
        first = (self._first or {}).get(word.worker)
        if first is None:
            return True
        if first.pulse == word.pulse:
            return False
        return word.offers(self._mapping) or first.reported_at != word.reported_at or self._is_over(word)

    def _is_over(self, word: Word) -> bool:
        return self._now - self._began_at >= self._patience_s(word)

    def _patience_s(self, word: Word) -> float:
        return ANSWERS_WITHIN_S if word.heartbeat is None else max(self._failover_s + MARGIN_S, ANSWERS_WITHIN_S)
