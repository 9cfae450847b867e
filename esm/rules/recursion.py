"""Loops: which trace an invocation carries on, and which messages have been through this function too often.

A function that sends to the queue that feeds it would run for ever. Every invocation's trace header therefore says in
`Lineage` how often its cause has been through which function: entries `hash:depth`, joined by `|`; AWS also writes
`counter:hash:depth`. What is not understood is handed on as it is. Source: lambda.md 2.3, 8.3.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

from esm.model.arn import Arn

HOPS_MAX = 16
"""How often a message may have been through one function. Source: lambda.md 2.3."""

ENTRIES_MAX = 32
"""Entries of a lineage; the deepest stay."""

HEADER_MAX = 1_024
"""Characters of a header that is handed on; a longer one is none of a tracer's."""

_HEADER = re.compile(r"[\x20-\x7e]+")
_ENTRY = re.compile(r"(?:[0-9]+:)?([0-9a-f]{8}):([0-9]{1,6})")
_LINEAGE = "lineage"


def fingerprint(function_arn: Arn) -> str:
    """The name of a function in a lineage: the same for all its versions."""
    return sha256(str(function_arn.unqualified).encode()).hexdigest()[:8]


def hops(header: str | None, name: str) -> int:
    """How often what carries this header has been through the function `name`."""
    return max((depth for found, depth in map(_taken_apart, _lineage(header)) if found == name), default=0)


def onward(headers: Sequence[str | None], name: str, own: str) -> str:
    """The trace of an invocation of `name` whose messages carry `headers`.

    It goes on with their header where all carry the same one, otherwise with `own`, which names no lineage; either way
    with every function that they have been through, this one once more.
    """
    different = set(headers)
    entries = [entry for header in sorted(filter(None, different)) for entry in _lineage(header)]
    first = next(iter(different)) if len(different) == 1 else None
    parts = _parts(first)
    begun = any(key.strip().lower() == "root" for key, _, _ in map(_partition, parts))
    kept = [part for part in parts if not _is_lineage(part)] if begun else [own]
    return ";".join([*kept, "Lineage=" + "|".join(_counted(entries, name))])


def _counted(entries: Iterable[str], name: str) -> list[str]:
    """The entries, each function once with its greatest depth, and `name` one deeper."""
    depths: dict[str, int] = {}
    unknown: dict[str, None] = {}
    for entry in entries:
        found, depth = _taken_apart(entry)
        if found is None:
            unknown[entry] = None
        else:
            depths[found] = max(depths.get(found, 0), depth)
    mine = depths.pop(name, 0) + 1
    deepest = sorted(depths.items(), key=lambda one: -one[1])[: ENTRIES_MAX - 1]
    room = ENTRIES_MAX - 1 - len(deepest)
    return [*list(unknown)[:room], *[f"{found}:{depth}" for found, depth in deepest], f"{name}:{mine}"]


def _taken_apart(entry: str) -> tuple[str | None, int]:
    found = _ENTRY.fullmatch(entry)
    return (None, 0) if found is None else (found[1], int(found[2]))


def _lineage(header: str | None) -> list[str]:
    return [
        entry.strip()
        for part in _parts(header)
        if _is_lineage(part)
        for entry in _partition(part)[2].split("|")
        if entry.strip()
    ]


def _is_lineage(part: str) -> bool:
    return _partition(part)[0].strip().lower() == _LINEAGE


def _partition(part: str) -> tuple[str, str, str]:
    return part.partition("=")


def _parts(header: str | None) -> list[str]:
    if header is None or len(header) > HEADER_MAX or not _HEADER.fullmatch(header):
        return []
    return [part.strip() for part in header.split(";") if part.strip()]
