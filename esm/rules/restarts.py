"""How long to wait before a worker process that ended by itself is started again.

The first pause is short, since most ends are accidents; it doubles with every end that follows soon, so that a worker
that cannot live does not eat a core by starting. A while of running makes the next end a first one again.
"""

FIRST_PAUSE_S = 1.0
PAUSE_MAX_S = 30.0
"""Longest pause: what was mended from outside is noticed within it."""

STEADY_S = 60.0
"""Who has run for so long has not failed to start."""


class Restarts:
    """The ends of one worker, counted while they follow each other soon."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def pause_s(self, ran_s: float) -> float:
        """Seconds until the next start, after a run of `ran_s` seconds that has just ended."""
        self._in_a_row = 1 if ran_s >= STEADY_S else self._in_a_row + 1
        return float(min(PAUSE_MAX_S, FIRST_PAUSE_S * 2 ** min(self._in_a_row - 1, 16)))
