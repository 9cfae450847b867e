"""`Retry-After`, as targets send it."""

SECONDS_MAX = 900.0
"""No longer than a function may run: a target that asks for more is asked again then."""


def seconds(header: str | None) -> float | None:
    """The seconds to wait; None where the header is missing or a date."""
    if header is None or not (text := header.strip()).isdecimal():
        return None
    return min(float(text), SECONDS_MAX)
