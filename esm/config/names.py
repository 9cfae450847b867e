"""Names that a file uses: those that are known, and what was probably meant by those that are not."""

import difflib
from collections.abc import Collection, Iterable

from esm.config.document import Document


def only(document: Document, names: Iterable[str], known: Collection[str], path: str) -> None:
    """Note every name that is not known as a problem."""
    for name in names:
        if name not in known:
            document.problem(f"{path}.{name}" if path else name, None, f"is unknown{suggestion(name, known)}")


def suggestion(name: str, known: Collection[str]) -> str:
    """`: did you mean X?`, or what there is."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
