"""Which headers a configuration may add to the requests of a function behind HTTP: pure.

Law: nobody but esm sets what frames a request or names an invocation. Texts never show a value: it may be a secret.
Source: RFC 9110 5.1, 5.5 (names, values), RFC 9112 6 (framing).
"""

import re

RESERVED = frozenset({
    "connection", "content-encoding", "content-length", "expect", "host", "keep-alive", "proxy-authorization",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "x-amzn-lambda-context",
    "x-amzn-request-context", "x-amzn-trace-id",
})  # fmt: skip
"""Names, in lower case, that esm and HTTP itself set."""

RESERVED_PREFIX = "lambda-runtime-"
"""Likewise every name that begins so."""

VALUE_BYTES_MAX = 16_384
"""No server that is known takes longer ones by default."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")


def name_problem(name: str) -> str | None:
    """What is wrong with a header's name; None where nothing is."""
    if not _NAME.fullmatch(name):
        return "is not the name of a header: it has letters, digits and - without spaces or a colon"
    lower = name.lower()
    if lower in RESERVED or lower.startswith(RESERVED_PREFIX):
        return "is a header that esm sets itself: take it out"
    return None


def value_problem(value: str) -> str | None:
    """What is wrong with a header's value; None where nothing is. Never shows the value."""
    if not value:
        return "is empty"
    if not _VALUE.fullmatch(value) or value != value.strip():
        return "holds a line break, a control character, or a space at its beginning or end"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "holds a character that is none"
    return f"is longer than {VALUE_BYTES_MAX} bytes" if size > VALUE_BYTES_MAX else None
