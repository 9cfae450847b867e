"""Which numbers compare as numbers: those that a double holds exactly as they are written.

`300`, `300.0` and `3e2` are one number. A number with more digits than its double keeps is compared by its text alone,
and no range holds it.

Source: lambda.md 4.2; ComparableNumber of AWS's rule engine, which compares the written decimal with the shortest
decimal of its double.
"""

from decimal import Decimal
from math import isinf

EXACT_MAX = 2**53
"""Every whole number up to here is exact as a double."""


class Written(str):
    """A JSON number as it is written."""

    __slots__ = ()


def exact(number: int | Written) -> float | None:
    """The number as a double, or None where a double would be another number."""
    if isinstance(number, int) and -EXACT_MAX <= number <= EXACT_MAX:
        return float(number)
    text = str(number)
    value = float(text)
    if isinf(value):
        return None
    if value == 0.0:
        return 0.0 if is_zero(text) else None
    return value if Decimal(repr(value)) == Decimal(text) else None


def is_zero(text: str) -> bool:
    """Whether each digit before the exponent is 0."""
    mantissa = text.lower().partition("e")[0]
    return not mantissa.strip("-0.")
