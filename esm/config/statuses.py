"""`ErrorStatusCodes`: which HTTP statuses are errors of the function, as Lambda Web Adapter writes them.

Source: lambda.md 7.3b.
"""

import re

LEAST, MOST = 100, 599
_RANGE = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
FORM = "must be statuses and ranges, such as 500-599,429 or [500-599, 429]"


def statuses(value: object) -> tuple[tuple[int, int], ...] | None:
    """First and last status of each range, sorted; None where a value is something else. An empty text names none."""
    if isinstance(value, str):
        words: list[object] = [word.strip() for word in value.split(",")] if value.strip() else []
    elif isinstance(value, list):
        words = value
    else:
        words = [value]
    ranges = [_range(word) for word in words]
    return None if None in ranges else tuple(sorted(one for one in ranges if one is not None))


def _range(word: object) -> tuple[int, int] | None:
    if isinstance(word, bool) or not isinstance(word, str | int):
        return None
    match = _RANGE.fullmatch(str(word).strip()) if not isinstance(word, int) or LEAST <= word <= MOST else None
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return (first, last) if first <= last else None
