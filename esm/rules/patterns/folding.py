"""Strings compared without regard to case, as AWS's rule engine does: character by character.

Each character of the pattern stands for its lower and its upper form, which may be longer than one character (ß, SS).
Neither form of a character begins or ends the other one, so that the expressions made of them need no backtracking.

Source: EqualsIgnoreCaseParser of AWS's rule engine.
"""

import re
from collections.abc import Callable

FORM_MAX = 3
"""Characters of the longest form of one character."""


def equal(text: str) -> Callable[[str], bool]:
    """Whether a string is the text in any case."""
    matches = _expression(text, backwards=False).fullmatch
    return lambda value: matches(value) is not None


def prefix(text: str) -> Callable[[str], bool]:
    """Whether a string begins with the text in any case."""
    matches = _expression(text, backwards=False).match
    return lambda value: matches(value) is not None


def suffix(text: str) -> Callable[[str], bool]:
    """Whether a string ends with the text in any case: its last characters, read backwards, begin so."""
    matches = _expression(text, backwards=True).match
    longest = FORM_MAX * len(text)
    return lambda value: matches(value[max(0, len(value) - longest) :][::-1]) is not None


def forms(character: str) -> tuple[str, ...]:
    """The strings that a character of a pattern stands for."""
    lower, upper = character.lower(), character.upper()
    return (lower,) if lower == upper else (lower, upper)


def _expression(text: str, *, backwards: bool) -> re.Pattern[str]:
    step = -1 if backwards else 1
    choices = [[re.escape(form[::step]) for form in forms(character)] for character in text[::step]]
    return re.compile("".join([f"(?:{'|'.join(choice)})" for choice in choices]))
