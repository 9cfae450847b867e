"""How long to wait before a batch is tried again.

AWS does not publish its times. 8 invocations were recorded before a 60 s age limit ended a mapping that always fails;
0.3 s doubled up to 60 s gives 8. Source: lambda.md 3.4.
"""

BASE_S = 0.3
"""First pause after a function error, a throttle or an unreachable target."""

SLOW_BASE_S = 5.0
"""First pause when someone must act first."""

CAP_S = 60.0
"""Longest pause."""

SPREAD = 0.2
"""A pause is stretched or shortened by up to this share, so that shards do not fall into step."""


def pause_s(tries: int, jitter: float, base_s: float = BASE_S) -> float:
    """The pause after the `tries`-th failure in a row (1 is the first); `jitter` is uniform in [0, 1]."""
    doublings = min(max(tries, 1) - 1, 16)
    return float(min(CAP_S, base_s * 2**doublings)) * (1 + SPREAD * (2 * jitter - 1))
