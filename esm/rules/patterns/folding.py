"""Strings compared without regard to case, as AWS's rule engine does: character by character.

Each character of the pattern stands for its lower and its upper form, which may be longer than one character (ß, SS).
A form never begins the other one of the same character, so that an expression made of them needs no backtracking.

Source: EqualsIgnoreCaseParser of AWS's rule engine.
"""

import re


def folded(text: str) -> str:
    """A regular expression that matches the text in any case."""
    return "".join([_forms(character) for character in text])


def _forms(character: str) -> str:
    lower, upper = character.lower(), character.upper()
    if lower == upper:
        return re.escape(lower)
    return f"(?:{re.escape(lower)}|{re.escape(upper)})"
