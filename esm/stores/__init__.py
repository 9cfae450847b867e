"""Where the daemon keeps its state. Every store keeps the promises of `ports.Store`; one contract suite checks them.

Law: stores know keys, values and versions, never what the values mean.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from esm.aws.sessions import Sessions
from esm.errors import RequestRefused
from esm.ports import Blobs, Store
from esm.stores import sqlite
from esm.stores.blobs import FileBlobs, MemoryBlobs
from esm.stores.dynamodb import DynamoDBStore
from esm.stores.memory import MemoryStore
from esm.stores.s3 import S3Blobs
from esm.stores.sqlite import SqliteStore

_TABLE = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
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
    `dynamodb://TABLE` (through `sessions`, which are closed with the store, or now where it is refused).

    `exclusive`: the caller is the daemon, of which a SQLite file bears one at a time. `read_only`: beside a running
    daemon or without one; makes nothing that is not there. `lock`: what `lending` yielded in the supervisor that has
    started this worker.
    Raises: RequestRefused (the URL), StateMissing (`read_only`), OperatorNeeded (the file or table, or another daemon
    holds it), Unavailable, StoreTooNew.
    """
    scheme, separator, rest = url.partition("://")
    match scheme:
        case "memory" if separator and not rest:
            return MemoryStore()
        case "sqlite" if separator:
            return await SqliteStore.open(sqlite_path(url), exclusive=exclusive, read_only=read_only, lock=lock)
        case "dynamodb" if _TABLE.fullmatch(rest):
            assert sessions is not None, "a table is reached through sessions"
            try:
                return await DynamoDBStore.open(rest, sessions, warn=warn, read_only=read_only)
            except BaseException:
                await sessions.aclose()
                raise
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


async def open_blobs(state: str, bucket: str | None, sessions: Sessions | None = None) -> Blobs | None:
    """Where what is too large for the store that `state` names lies: memory with `memory://`, a folder beside a SQLite
    file, and with `dynamodb://` the `bucket`, `s3://BUCKET/PREFIX` (through `sessions`, which are closed with it, or
    now where it is refused); None: a table without a bucket.

    Raises: RequestRefused (the URLs), OperatorNeeded (no such bucket, permissions), Unavailable.
    """
    if not state.startswith("dynamodb://") and bucket is not None:
        raise RequestRefused(f"The bucket {bucket!r} is for a state in a table alone, and the state is {state!r}.")
    if state == "memory://":
        return MemoryBlobs()
    if state.startswith("sqlite:"):
        path = sqlite_path(state)
        return FileBlobs(path.with_name(f"{path.name}.blobs"))
    if bucket is None:
        return None
    named = _BUCKET.fullmatch(bucket)
    if named is None:
        raise RequestRefused(f"The bucket {bucket!r} is not known. Use s3://BUCKET or s3://BUCKET/PREFIX.")
    assert sessions is not None, "a bucket is reached through sessions"
    try:
        return await S3Blobs.open(named[1], (named[2] or "").strip("/"), sessions)
    except BaseException:
        await sessions.aclose()
        raise


def sqlite_path(url: str) -> Path:
    """The file that a `sqlite:` URL names, absolute. Raises: RequestRefused."""
    rest = url.removeprefix("sqlite://")
    if not rest.startswith("/") or rest.endswith("/") or "?" in rest or "\0" in rest:
        raise RequestRefused(
            f"The state {url!r} does not name a file. Use sqlite:///absolute/path or sqlite:///./relative/path,"
            " without options."
        )
    return Path(rest[1:] if rest.startswith("/./") else "/" + rest.lstrip("/")).absolute()
