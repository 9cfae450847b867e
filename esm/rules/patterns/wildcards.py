r"""Wildcards: `*` is any run of characters; `\*` and `\\` are the characters themselves.

Law: no backtracking. Between the fixed first and last piece each piece is found leftmost, one after the other.

Source: lambda.md 4.2.
"""

from collections.abc import Callable


def pieces(text: str) -> list[str]:
    """The literal pieces between the stars. Raises: ValueError, saying what is wrong."""
    found = [""]
    position = 0
    while position < len(text):
        character = text[position]
        following = text[position + 1 : position + 2]
        if character == "*":
            if following == "*":
                msg = f"consecutive wildcard characters at position {position}"
                raise ValueError(msg)
            found.append("")
        elif character == "\\":
            if following not in {"*", "\\"}:
                msg = f"an invalid escape at position {position}: a backslash stands before * or \\ only"
                raise ValueError(msg)
            found[-1] += following
            position += 1
        else:
            found[-1] += character
        position += 1
    return found


def matcher(text: str) -> Callable[[str], bool]:
    """Whether a string matches. Raises: ValueError."""
    first, *rest = pieces(text)
    if not rest:
        return first.__eq__
    *middle, last = rest

    def matches(value: str) -> bool:
        end = len(value) - len(last)
        if end < len(first) or not value.startswith(first) or not value.endswith(last):
            return False
        position = len(first)
        for piece in middle:
            position = value.find(piece, position, end)
            if position < 0:
                return False
            position += len(piece)
        return True

    return matches
