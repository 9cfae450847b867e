"""Where the daemon keeps its state. Every store keeps the promises of `ports.Store`; one contract suite checks them.

Law: stores know keys, values and versions, never what the values mean.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from esm.aws.sessions import Sessions
from esm.errors import RequestRefused
from esm.ports import Store
from esm.stores import sqlite
from esm.stores.dynamodb import DynamoDBStore
from esm.stores.memory import MemoryStore
from esm.stores.sqlite import SqliteStore

_TABLE = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_FORMS = "sqlite:///absolute/path, sqlite:///./relative/path, dynamodb://TABLE or memory://"


async def open_store(
    url: str,
    sessions: Sessions | None = None,
    *,
    exclusive: bool,
    read_only: bool = False,
    lock: int | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Store:
    """The store that `url` names: `memory://`, `sqlite:///absolute/path`, `sqlite:///./relative/path`,
    `dynamodb://TABLE` (through `sessions`, which stay the caller's).

    `exclusive`: the caller is the daemon, of which a SQLite file bears one at a time. `read_only`: beside a running
    daemon or without one; makes nothing that is not there. `lock`: what `lending` yielded in the supervisor that has
    started this worker.
    Raises: RequestRefused (the URL), OperatorNeeded (the file, or another daemon holds it), StoreTooNew.
    """
    scheme, separator, rest = url.partition("://")
    match scheme:
        case "memory" if separator and not rest:
            return MemoryStore()
        case "sqlite" if separator:
            return await SqliteStore.open(sqlite_path(url), exclusive=exclusive, read_only=read_only, lock=lock)
        case "dynamodb" if _TABLE.fullmatch(rest):
            assert sessions is not None, "a table is reached through sessions"
            return await DynamoDBStore.open(rest, sessions, warn=warn, read_only=read_only)
        case _:
            raise RequestRefused(f"The state {url!r} is not known. Use {_FORMS}.")


@contextmanager
def lending(url: str) -> Iterator[int | None]:
    """Hold the state for workers while the body runs; yields a descriptor that each of them has to inherit, if any.

    Blocks for as long as a damaged file takes to be found so.
    Raises: as `open_store`; RequestRefused for a state that processes cannot share.
    """
    scheme, _, rest = url.partition("://")
    match scheme:
        case "memory":
            raise RequestRefused(
                "The state memory:// is each process's own: workers would share nothing, and each would deliver every"
                " record. Name a file (ESM_STATE=sqlite:///absolute/path), or leave out --workers."
            )
        case "sqlite":
            with sqlite.lending(sqlite_path(url)) as lock:
                yield lock
        case "dynamodb" if _TABLE.fullmatch(rest):
            yield None
        case _:
            raise RequestRefused(f"The state {url!r} is not known. Use {_FORMS}.")


def sqlite_path(url: str) -> Path:
    """The file that a `sqlite:` URL names, absolute. Raises: RequestRefused."""
    rest = url.removeprefix("sqlite://")
    if not rest.startswith("/") or rest.endswith("/") or "?" in rest or "\0" in rest:
        raise RequestRefused(
            f"The state {url!r} does not name a file. Use sqlite:///absolute/path or sqlite:///./relative/path,"
            " without options."
        )
    return Path(rest[1:] if rest.startswith("/./") else "/" + rest.lstrip("/")).absolute()
