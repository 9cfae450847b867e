"""Asking the world until it answers, and pausing after it did not: the daemon's one way to survive its surroundings."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from esm.errors import EsmError, OperatorNeeded, RequestRefused, StoreTooNew, Unavailable
from esm.model.clocks import Instant
from esm.rules.backoff import BASE_S, SLOW_BASE_S, pause_s
from esm.runtime.observation import Observation
from esm.runtime.surroundings import Stop, Surroundings

T = TypeVar("T")

LASTS_AFTER = 3
"""Failures in a row after which a server that does not answer is a problem to show, and no passing trouble."""


async def known(
    around: Surroundings, stop: Stop, observation: Observation, where: str, ask: Callable[[], Awaitable[T]]
) -> T | None:
    """The answer of `ask`, however long it takes; None when the stop came first, which cancels what is being asked.

    Survives OperatorNeeded, RequestRefused, StoreTooNew (tried slowly) and Unavailable; all are shown as the mapping's
    problem at once: an adapter has tried what is asked here for seconds already.
    """
    failures = 0
    while not stop.is_set:
        error: EsmError
        try:
            with stop.interruptible() as asking:
                answer = await ask()
            if asking.cancelled_caught:
                return None
        except (OperatorNeeded, RequestRefused, StoreTooNew, Unavailable) as caught:
            error = caught
        else:
            observation.mended(where)
            return answer
        report(observation, where, error)
        failures = await pause_after(around, stop, error, failures)
    return None


def report(observation: Observation, where: str, error: EsmError, failures: int = LASTS_AFTER) -> None:
    """Show an error where its reader looks: a problem on the mapping, or a line and a count while it may pass.

    `failures` in a row, this one included.
    """
    if isinstance(error, Unavailable):
        observation.telemetry.poll_failed(None, str(error))
    if not isinstance(error, Unavailable) or failures >= LASTS_AFTER:
        observation.problem(where, str(error))


async def pause_after(around: Surroundings, stop: Stop, error: EsmError | None, failures: int) -> int:
    """Pause after the next failure in a row (a stop ends it early); returns how many there are now."""
    if error is None:
        return 0
    failures += 1
    base_s = BASE_S if isinstance(error, Unavailable) else SLOW_BASE_S
    with stop.interruptible():
        await around.clock.sleep_until(Instant(around.clock.now() + pause_s(failures, around.jitter(), base_s)))
    return failures
