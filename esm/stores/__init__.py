"""Where the daemon keeps its state. Every store keeps the promises of `ports.Store`; one contract suite checks them.

Law: stores know keys, values and versions, never what the values mean.
"""

from pathlib import Path

from esm.errors import RequestRefused
from esm.ports import Store
from esm.stores.memory import MemoryStore
from esm.stores.sqlite import SqliteStore


async def open_store(url: str, *, exclusive: bool, read_only: bool = False) -> Store:
    """The store that `url` names: `memory://`, `sqlite:///absolute/path` or `sqlite:///./relative/path`.

    `exclusive`: the caller is the daemon, of which a SQLite file bears one at a time. `read_only`: beside a running
    daemon or without one; makes nothing that is not there.
    Raises: RequestRefused (the URL), OperatorNeeded (the file, or another daemon holds it), StoreTooNew.
    """
    scheme, separator, rest = url.partition("://")
    match scheme:
        case "memory" if separator and not rest:
            return MemoryStore()
        case "sqlite" if separator:
            return await SqliteStore.open(sqlite_path(url), exclusive=exclusive, read_only=read_only)
        case "dynamodb":
            raise RequestRefused(
                f"The state {url!r} cannot be used: this version keeps no state in DynamoDB. Use"
                " sqlite:///absolute/path on a disk of this machine."
            )
        case _:
            raise RequestRefused(
                f"The state {url!r} is not known. Use sqlite:///absolute/path, sqlite:///./relative/path or memory://."
            )


def sqlite_path(url: str) -> Path:
    """The file that a `sqlite:` URL names, absolute. Raises: RequestRefused."""
    rest = url.removeprefix("sqlite://")
    if not rest.startswith("/") or rest.endswith("/") or "?" in rest or "\0" in rest:
        raise RequestRefused(
            f"The state {url!r} does not name a file. Use sqlite:///absolute/path or sqlite:///./relative/path,"
            " without options."
        )
    return Path(rest[1:] if rest.startswith("/./") else "/" + rest.lstrip("/")).absolute()
