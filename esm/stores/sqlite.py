"""State in one SQLite file: what an embedded daemon uses.

Law: every write is one conditional statement inside BEGIN IMMEDIATE. One counter in the file gives every version, so
that none returns, also after a delete. A commit is on the disk before it is answered (synchronous=FULL): a power cut
that took back a pinned LATEST would skip records.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from esm.errors import Conflict, EsmError, OperatorNeeded, StoreTooNew, Unavailable
from esm.model.stored import Key, Page, Stored
from esm.stores import disk
from esm.stores.database import Database
from esm.stores.file_lock import FileLock, SharedLock
from esm.stores.limits import check_value

_APPLICATION_ID = 0x65736D31
"""`esm1` in ASCII: tells our files from other programs'."""
_SCHEMA = 1
_BUSY_S = 5.0
_PAGE_BYTES_MAX = 4 * 1024 * 1024
"""A page ends early with this much in it: the largest values times the largest limit would be 350 MB."""

_TABLES = (
    """CREATE TABLE items (
        kind TEXT NOT NULL, owner TEXT NOT NULL, item TEXT NOT NULL,
        version INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, owner, item))""",
    "CREATE TABLE counter (version INTEGER NOT NULL)",
    "INSERT INTO counter VALUES (0)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA}",
)


class SqliteStore:
    """A `Store` in a file. Nothing is lost between file and caller, so a failed commit needs no looking up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(
        cls, path: Path, *, exclusive: bool, read_only: bool, lock: int | None = None
    ) -> "SqliteStore":  # fmt: skip
        """The store in the file `path` (absolute); see `open_store`.

        Raises: OperatorNeeded, StoreTooNew, Unavailable.
        """

        def connect(stack: ExitStack) -> sqlite3.Connection:
            with _refusing(path):
                return _connect(path, stack, exclusive=exclusive, read_only=read_only, lock=lock)

        def translate(error: sqlite3.Error) -> EsmError:
            return Unavailable(_text(path, error))

        database = Database(connect, translate)
        await database.start()
        return cls(database)

    async def get(self, key: Key) -> Stored | None:
        """See `ports.Store`."""
        return await self._database.run(_get(key), writes=False)

    async def scan(self, kind: str, owner: str, after: str | None = None, limit: int = 1000) -> Page:
        """See `ports.Store`."""
        return await self._database.run(_scan(kind, owner, after, limit), writes=False)

    async def put(self, key: Key, value: bytes, expected_version: int | None) -> int:
        """See `ports.Store`."""
        check_value(key, value)
        return await self._database.run(_put(key, value, expected_version), writes=True)

    async def delete(self, key: Key, expected_version: int) -> None:
        """See `ports.Store`."""
        await self._database.run(_delete(key, expected_version), writes=True)

    async def aclose(self) -> None:
        """Finish what was asked, then let go of the file and its lock."""
        await self._database.aclose()


@contextmanager
def lending(path: Path) -> Iterator[int]:
    """Hold the file `path` (absolute), checked and set up, while the body runs; yields the lock's descriptor.

    Raises: OperatorNeeded, StoreTooNew, Unavailable.
    """
    disk.prepare(path)
    lock = FileLock(_lock_path(path), holds=path)
    try:
        with _refusing(path), ExitStack() as stack:
            connection = _connect(path, stack, exclusive=False, read_only=False)
            _check_whole(path, connection)
        yield lock.descriptor
    finally:
        lock.release()


def _get(key: Key) -> Callable[[sqlite3.Connection], Stored | None]:
    def run(connection: sqlite3.Connection) -> Stored | None:
        row = connection.execute(
            "SELECT value, version FROM items WHERE kind = ? AND owner = ? AND item = ?",
            (key.kind, key.owner, key.item),
        ).fetchone()
        return None if row is None else Stored(key, row[0], row[1])

    return run


def _scan(kind: str, owner: str, after: str | None, limit: int) -> Callable[[sqlite3.Connection], Page]:
    condition, bound = ("item > ?", (after,)) if after is not None else ("TRUE", ())
    statement = (
        f"SELECT item, value, version FROM items WHERE kind = ? AND owner = ? AND {condition}"  # noqa: S608 no input in it
        " ORDER BY item LIMIT ?"
    )

    def run(connection: sqlite3.Connection) -> Page:
        found: list[Stored] = []
        size_bytes = 0
        for item, value, version in connection.execute(statement, (kind, owner, *bound, limit + 1)):
            if len(found) == limit or size_bytes >= _PAGE_BYTES_MAX:
                return Page(tuple(found), found[-1].key.item)
            found.append(Stored(Key(kind, owner, item), value, version))
            size_bytes += len(value)
        return Page(tuple(found), None)

    return run


def _put(key: Key, value: bytes, expected_version: int | None) -> Callable[[sqlite3.Connection], int]:
    def run(connection: sqlite3.Connection) -> int:
        connection.execute("UPDATE counter SET version = version + 1")
        version: int = connection.execute("SELECT version FROM counter").fetchone()[0]
        if expected_version is None:
            changed = connection.execute(
                "INSERT INTO items (kind, owner, item, version, value) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key.kind, key.owner, key.item, version, value),
            )
        else:
            changed = connection.execute(
                "UPDATE items SET version = ?, value = ? WHERE kind = ? AND owner = ? AND item = ? AND version = ?",
                (version, value, key.kind, key.owner, key.item, expected_version),
            )
        _check_changed(changed, key, expected_version)
        return version

    return run


def _delete(key: Key, expected_version: int) -> Callable[[sqlite3.Connection], None]:
    def run(connection: sqlite3.Connection) -> None:
        changed = connection.execute(
            "DELETE FROM items WHERE kind = ? AND owner = ? AND item = ? AND version = ?",
            (key.kind, key.owner, key.item, expected_version),
        )
        _check_changed(changed, key, expected_version)

    return run


def _check_changed(changed: sqlite3.Cursor, key: Key, expected_version: int | None) -> None:
    if changed.rowcount != 1:
        raise Conflict(f"{key.kind} {key.item!r} does not have version {expected_version} any more")


def _connect(
    path: Path, stack: ExitStack, *, exclusive: bool, read_only: bool, lock: int | None = None
) -> sqlite3.Connection:
    if read_only:
        disk.require(path)
    else:
        disk.prepare(path)
    if lock is not None:
        stack.callback(SharedLock(_lock_path(path), path, lock).let_go)
    elif exclusive:
        stack.callback(FileLock(_lock_path(path), holds=path).release)
    mode = "ro" if read_only else "rw"
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=_BUSY_S, isolation_level=None
    )
    stack.callback(connection.close)
    if not read_only:
        _check_ours(path, connection)
        _set_up(path, connection)
    if exclusive and lock is None:
        _check_whole(path, connection)
    _check_schema(path, connection)
    return connection


def _check_whole(path: Path, connection: sqlite3.Connection) -> None:
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise OperatorNeeded(_TEXTS[sqlite3.SQLITE_CORRUPT].format(path=path, detail=damage))


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What SQLite says while a file is opened, in our own words."""
    try:
        yield
    except sqlite3.Error as error:
        text = _text(path, error)
        raise (Unavailable(text) if _code(error) in _PASSING else OperatorNeeded(text)) from error


def _set_up(path: Path, connection: sqlite3.Connection) -> None:
    journal = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if journal != "wal":
        raise OperatorNeeded(
            f"The state {path} lies where SQLite cannot keep a write-ahead log (its journal stays {journal!r}): name a"
            " file on a disk of this machine (ESM_STATE)."
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _number(connection, "user_version") == 0:
            for statement in _TABLES:
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_ours(path: Path, connection: sqlite3.Connection) -> None:
    is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not is_empty and _number(connection, "application_id") != _APPLICATION_ID:
        raise OperatorNeeded(f"The state {path} is the database of another program: name another file (ESM_STATE).")


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    schema = _number(connection, "user_version")
    if schema == 0:
        raise OperatorNeeded(f"The state {path} is empty: no daemon has finished its start with it yet.")
    _check_ours(path, connection)
    if schema > _SCHEMA:
        raise StoreTooNew(
            f"The state {path} has schema {schema}, and this version reads up to {_SCHEMA}: a newer version has written"
            " it. Run that version again, or name another file (ESM_STATE)."
        )


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    number: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return number


_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOMEM})
"""What ends by itself; at the start of a daemon everything else needs a hand."""

_TEXTS = {
    sqlite3.SQLITE_FULL: "The disk that holds the state {path} is full: free some space.",
    sqlite3.SQLITE_NOTADB: "The state {path} is not a SQLite database: name another file (ESM_STATE).",
    sqlite3.SQLITE_CORRUPT: "The state {path} is damaged ({detail}): restore a copy, or move the file away to begin"
    " with an empty state.",
    sqlite3.SQLITE_READONLY: "The state {path} cannot be written ({detail}): give this user the right to write it and"
    " its folder.",
    sqlite3.SQLITE_CANTOPEN: "The state {path} cannot be opened ({detail}): give this user the right to write it and"
    " its folder.",
    sqlite3.SQLITE_BUSY: "The state {path} is locked by another process for longer than 5 s: see who else has it open.",
    sqlite3.SQLITE_IOERR: "The disk that holds the state {path} fails ({detail}): look at the system's log.",
}
_TEXT_OTHERWISE = "The state {path} does not answer ({detail}): look at its file and disk."


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for errors of Python's own module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _text(path: Path, error: sqlite3.Error) -> str:
    return _TEXTS.get(_code(error), _TEXT_OTHERWISE).format(path=path, detail=error)
