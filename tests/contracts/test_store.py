"""Every store keeps the same promises: one body, every implementation. Then what a file promises besides."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esm.aws.sessions import Sessions
from esm.errors import Conflict, OperatorNeeded, RequestRefused, StoreTooNew, Unavailable, ValueTooLarge
from esm.model.stored import VALUE_BYTES_MAX, Key
from esm.ports import Store
from esm.stores import lending, open_store
from esm.stores.disk import file_system

KEY = Key("lease", "mapping-1", "shard-1")


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        url = "memory://" if kind == "memory" else f"sqlite://{folder}/state.db"
        store = await open_store(url, exclusive=True)
        try:
            yield store
        finally:
            await store.aclose()


@asynccontextmanager
async def table(endpoint: str) -> AsyncIterator[Store]:
    sessions = Sessions("us-east-1", endpoint, {}, lambda *_: None)
    store = await open_store(f"dynamodb://esm-{uuid.uuid4().hex}", sessions, exclusive=True)
    try:
        yield store
    finally:
        await store.aclose()


class Losing(Sessions):
    """Sessions that do not hear the next answers; what was asked is done, and something may happen meanwhile."""

    answers_lost = 0
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def call(self, client: Any, operation: str, **parameters: object) -> dict[str, Any]:
        answer = await super().call(client, operation, **parameters)
        if not self.answers_lost:
            return answer
        self.answers_lost -= 1
        if self.meanwhile is not None:
            await self.meanwhile()
        raise Unavailable("the answer was lost")


TABLES = ["ministack", pytest.param("dynamodb_local", marks=pytest.mark.node), "moto_url"]


@pytest.fixture(params=["memory", "sqlite", *TABLES])
async def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    is_table = request.param not in {"memory", "sqlite"}
    async with table(request.getfixturevalue(request.param)) if is_table else opened(request.param) as it:
        yield it


@pytest.mark.parametrize("server", TABLES)
async def test_a_table_knows_its_own_write_again_when_the_answer_was_lost(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    url, name = request.getfixturevalue(server), f"dynamodb://esm-{uuid.uuid4().hex}"
    sessions = Losing("us-east-1", url, {}, lambda *_: None)
    store = await open_store(name, sessions, exclusive=True)
    other = await open_store(name, Sessions("us-east-1", url, {}, lambda *_: None), exclusive=True)
    version = None
    for value in (b"a", b"b"):
        sessions.answers_lost = 2
        version = await store.put(KEY, value, version)
        stored = await other.get(KEY)
        assert stored is not None
        assert (stored.value, stored.version) == (value, version)
    assert version is not None
    ours = version
    sessions.answers_lost, sessions.meanwhile = 1, lambda: other.put(KEY, b"theirs", ours + 1)
    with pytest.raises(Conflict, match=f"has version {ours + 2}, expected was {ours}"):
        await store.put(KEY, b"c", ours)
    sessions.answers_lost, sessions.meanwhile = 1, None
    await store.delete(KEY, ours + 2)
    assert await other.get(KEY) is None
    await store.aclose()
    await other.aclose()


async def test_a_missing_key_has_no_value(store: Store) -> None:
    assert await store.get(KEY) is None


async def test_what_was_put_is_what_comes_back_byte_for_byte(store: Store) -> None:
    value = bytes(range(256))
    version = await store.put(KEY, value, None)
    stored = await store.get(KEY)
    assert stored is not None
    assert (stored.key, stored.value, stored.version) == (KEY, value, version)


async def test_a_key_that_exists_is_not_created_again(store: Store) -> None:
    await store.put(KEY, b"a", None)
    with pytest.raises(Conflict):
        await store.put(KEY, b"b", None)


async def test_a_stale_version_changes_nothing(store: Store) -> None:
    first = await store.put(KEY, b"a", None)
    second = await store.put(KEY, b"b", first)
    with pytest.raises(Conflict):
        await store.put(KEY, b"c", first)
    with pytest.raises(Conflict):
        await store.delete(KEY, first)
    stored = await store.get(KEY)
    assert stored is not None
    assert (stored.value, stored.version) == (b"b", second)


async def test_a_key_that_is_gone_meets_every_expected_version_with_a_conflict(store: Store) -> None:
    version = await store.put(KEY, b"a", None)
    await store.delete(KEY, version)
    with pytest.raises(Conflict):
        await store.put(KEY, b"b", version)
    with pytest.raises(Conflict):
        await store.delete(KEY, version)


async def test_a_version_never_returns_after_delete(store: Store) -> None:
    seen = set()
    for _ in range(5):
        version = await store.put(KEY, b"a", None)
        assert version not in seen
        seen.add(version)
        await store.delete(KEY, version)


async def test_of_many_writers_at_once_exactly_one_wins(store: Store) -> None:
    version = await store.put(KEY, b"start", None)
    results = await asyncio.gather(*(store.put(KEY, b"%d" % n, version) for n in range(50)), return_exceptions=True)
    winners = [n for n, result in enumerate(results) if isinstance(result, int)]
    assert len(winners) == 1
    assert all(isinstance(result, Conflict) for n, result in enumerate(results) if n not in winners)
    stored = await store.get(KEY)
    assert stored is not None
    assert stored.value == b"%d" % winners[0]


async def test_the_largest_value_fits_and_a_larger_one_is_refused(store: Store) -> None:
    await store.put(KEY, b"x" * VALUE_BYTES_MAX, None)
    with pytest.raises(ValueTooLarge, match="358401 bytes, and a store takes 358400"):
        await store.put(Key("lease", "mapping-1", "shard-2"), b"x" * (VALUE_BYTES_MAX + 1), None)


async def test_a_scan_sees_its_own_partition_alone_in_text_order(store: Store) -> None:
    for item in ("b", "a", "ä", "Z", "10", "9", "\U0001f600", "\uffff"):
        await store.put(Key("lease", "one", item), item.encode(), None)
    await store.put(Key("lease", "two", "c"), b"", None)
    await store.put(Key("status", "one", "d"), b"", None)
    page = await store.scan("lease", "one")
    assert [stored.key.item for stored in page.items] == ["10", "9", "Z", "a", "b", "ä", "\uffff", "\U0001f600"]
    assert page.after is None


async def test_a_scan_in_pages_reads_everything_once(store: Store) -> None:
    names = [f"{n:03}" for n in range(25)]
    for name in names:
        await store.put(Key("lease", "one", name), b"", None)
    assert await scanned(store, limit=10) == names
    assert await scanned(store, limit=5) == names
    assert await scanned(store, limit=25) == names


async def scanned(store: Store, limit: int) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        page = await store.scan("lease", "one", after, limit)
        assert len(page.items) <= limit
        found += [stored.key.item for stored in page.items]
        after = page.after
        if after is None:
            return found


async def test_a_scan_shows_every_write_that_was_answered_before_it(store: Store) -> None:
    version = None
    for value in (b"a", b"b", b"c"):
        version = await store.put(KEY, value, version)
        assert [item.value for item in (await store.scan("lease", "mapping-1")).items] == [value]
    assert version is not None
    await store.delete(KEY, version)
    assert (await store.scan("lease", "mapping-1")).items == ()


async def test_a_scan_of_large_values_reads_everything_once(store: Store) -> None:
    names = [f"{n:02}" for n in range(8)]
    for name in names:
        await store.put(Key("lease", "one", name), name.encode() * (VALUE_BYTES_MAX // 2), None)
    assert await scanned(store, limit=1000) == names


ITEMS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), ITEMS, st.sampled_from(["none", "current", "stale"])),
        st.tuples(st.just("delete"), ITEMS, st.sampled_from(["current", "stale"])),
        st.tuples(st.just("scan"), st.sampled_from([None, "", "a", "b", "zz"]), st.integers(1, 4)),
    ),
    max_size=30,
)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_any_history_agrees_with_a_dictionary(kind: str) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(STEPS)
    def run(steps: list[tuple[str, str | None, str | int]]) -> None:
        asyncio.run(agree(kind, steps))

    run()


async def agree(kind: str, steps: list[tuple[str, str | None, str | int]]) -> None:
    model: dict[str, tuple[bytes, int]] = {}
    versions: dict[str, set[int]] = {}
    async with opened(kind) as store:
        for number, (verb, item, how) in enumerate(steps):
            if verb == "scan":
                page = await store.scan("lease", "one", item, int(how))
                expected = sorted(name for name in model if item is None or name > item)
                assert [s.key.item for s in page.items] == expected[: int(how)]
                assert page.after == (expected[int(how) - 1] if len(expected) > int(how) else None)
                continue
            assert item is not None
            current = model.get(item, (b"", -1))[1]
            expected_version = {"none": None, "current": current, "stale": current - 1}[str(how)]
            allowed = (expected_version is None) == (item not in model) and expected_version in {None, current}
            try:
                if verb == "put":
                    value = b"%d" % number
                    version = await store.put(Key("lease", "one", item), value, expected_version)
                    assert version not in versions.setdefault(item, set())
                    versions[item].add(version)
                    model[item] = (value, version)
                else:
                    assert expected_version is not None
                    await store.delete(Key("lease", "one", item), expected_version)
                    del model[item]
                assert allowed
            except Conflict:
                assert not allowed
        for item in ("a", "b", "c"):
            stored = await store.get(Key("lease", "one", item))
            assert (stored and (stored.value, stored.version)) == model.get(item)


# --- files


async def test_a_file_opened_again_holds_what_was_stored_and_no_version_returns(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/state.db"
    store = await open_store(url, exclusive=True)
    kept = await store.put(KEY, b"kept", None)
    other = Key("lease", "mapping-1", "shard-2")
    gone = await store.put(other, b"gone", None)
    await store.delete(other, gone)
    await store.aclose()
    store = await open_store(url, exclusive=True)
    stored = await store.get(KEY)
    assert stored is not None
    assert (stored.value, stored.version) == (b"kept", kept)
    assert await store.put(other, b"new", None) > gone
    await store.aclose()


async def test_a_page_ends_before_it_fills_the_memory(tmp_path: Path) -> None:
    store = await open_store(f"sqlite://{tmp_path}/state.db", exclusive=True)
    for n in range(20):
        await store.put(Key("lease", "one", f"{n:02}"), b"x" * VALUE_BYTES_MAX, None)
    page = await store.scan("lease", "one")
    assert 1 < len(page.items) < 20
    assert await scanned(store, limit=1000) == [f"{n:02}" for n in range(20)]
    await store.aclose()


async def test_after_close_the_store_is_unavailable(tmp_path: Path) -> None:
    store = await open_store(f"sqlite://{tmp_path}/state.db", exclusive=True)
    written = asyncio.ensure_future(store.put(KEY, b"a", None))
    await asyncio.sleep(0)
    await asyncio.gather(store.aclose(), store.aclose())
    assert await written == 1
    with pytest.raises(Unavailable, match="closed"):
        await store.get(KEY)
    await store.aclose()


async def test_a_cancelled_write_disturbs_no_other(tmp_path: Path) -> None:
    store = await open_store(f"sqlite://{tmp_path}/state.db", exclusive=True)
    writes = [asyncio.ensure_future(store.put(Key("lease", "one", f"{n}"), b"", None)) for n in range(100)]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(result, int) for result in results[1::2])
    await store.aclose()


async def test_a_key_that_the_file_cannot_hold_is_its_callers_mistake_alone(tmp_path: Path) -> None:
    store = await open_store(f"sqlite://{tmp_path}/state.db", exclusive=True)
    unfit = Key("lease", "one", "\ud800")
    results = await asyncio.gather(
        store.put(KEY, b"a", None), store.put(unfit, b"", None), store.delete(KEY, 2**70), return_exceptions=True
    )
    assert [type(result) for result in results] == [int, UnicodeEncodeError, OverflowError]
    assert await store.get(KEY) is not None
    await store.aclose()


async def test_a_lock_that_cannot_be_taken_says_why(tmp_path: Path) -> None:
    (tmp_path / "state.db.lock").mkdir()
    with pytest.raises(OperatorNeeded, match=r"state\.db\.lock cannot be taken \(Is a directory\)"):
        await open_store(f"sqlite://{tmp_path}/state.db", exclusive=True)


async def test_file_log_lock_and_folder_are_their_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    previous = os.umask(0)
    try:
        store = await open_store(f"sqlite://{folder}/state.db", exclusive=True)
        await store.put(KEY, b"a", None)
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    finally:
        os.umask(previous)
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600, "state.db.lock": 0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    await store.aclose()


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch(0o644)
    store = await open_store(f"sqlite://{path}", exclusive=True)
    assert path.stat().st_mode & 0o777 == 0o600
    await store.aclose()


HOLDER = """
import asyncio, sys
from esm.stores import open_store
async def main():
    store = await open_store(sys.argv[1], exclusive=True)
    print("held", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""

WRITER = """
import asyncio, sys
from esm.model.stored import Key
from esm.stores import open_store
async def write(store, lane):
    key, version, n = Key("lease", "one", f"{lane}"), None, 0
    while True:
        n += 1
        version = await store.put(key, b"%d" % n, version)
        print(lane, n, flush=True)
async def main():
    store = await open_store(sys.argv[1], exclusive=True)
    await asyncio.gather(*(write(store, lane) for lane in range(8)))
asyncio.run(main())
"""


async def test_a_second_daemon_is_refused_naming_the_first_and_welcome_once_that_is_dead(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/state.db"
    with subprocess.Popen(  # noqa: ASYNC220 waits for one line
        [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            OperatorNeeded, match=rf"in use by process {holder.pid} on {socket.gethostname()} \(.*python"
        ):
            await open_store(url, exclusive=True)
        beside = await open_store(url, exclusive=False)
        await beside.put(KEY, b"a", None)
        await beside.aclose()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    store = await open_store(url, exclusive=True)
    assert json.loads((tmp_path / "state.db.lock").read_text())["pid"] == os.getpid()
    await store.aclose()


async def test_a_writer_killed_at_any_moment_leaves_all_that_was_acknowledged(tmp_path: Path) -> None:
    for round_number, lines_before in enumerate((5, 100, 400)):
        url = f"sqlite://{tmp_path}/{round_number}.db"
        with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:  # noqa: ASYNC220
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(lines_before)]
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.readlines()
        acknowledged = dict(line.split() for line in lines if line.endswith("\n"))
        store = await open_store(url, exclusive=True)
        for lane, n in acknowledged.items():
            stored = await store.get(Key("lease", "one", lane))
            assert stored is not None
            assert int(stored.value) >= int(n)
        await store.aclose()


async def test_status_reads_beside_a_running_daemon_and_after_it(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/state.db"
    daemon = await open_store(url, exclusive=True)
    version = await daemon.put(KEY, b"a", None)
    reader = await open_store(url, exclusive=False, read_only=True)
    await daemon.put(KEY, b"b", version)
    stored = await reader.get(KEY)
    assert stored is not None
    assert stored.value == b"b"
    with pytest.raises(Unavailable, match="cannot be written"):
        await reader.put(KEY, b"c", stored.version)
    await reader.aclose()
    await daemon.aclose()
    reader = await open_store(url, exclusive=False, read_only=True)
    assert (await reader.scan("lease", "mapping-1")).items == (stored,)
    await reader.aclose()


async def test_status_of_a_file_that_is_not_there_says_so_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(OperatorNeeded, match=r"state\.db does not exist: no daemon has run with it"):
        await open_store(f"sqlite://{tmp_path}/state.db", exclusive=False, read_only=True)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    (tmp_path / "state.db").touch()
    with pytest.raises(OperatorNeeded, match="is empty: no daemon has finished its start"):
        await open_store(f"sqlite://{tmp_path}/state.db", exclusive=False, read_only=True)


def garbage(path: Path) -> None:
    path.write_bytes(b"this is a letter to my aunt" * 100)


def another_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()


def damaged(path: Path) -> None:
    asyncio.run(fill(path))
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 9] = b"\xff" * 4096 * 6
    path.write_bytes(content)


async def fill(path: Path) -> None:
    store = await open_store(f"sqlite://{path}", exclusive=True)
    for n in range(30):
        await store.put(Key("lease", "one", f"{n}"), b"x" * 3000, None)
    await store.aclose()


def from_the_future(path: Path) -> None:
    asyncio.run(fill(path))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "error", "text"),
    [
        (garbage, OperatorNeeded, "is not a SQLite database"),
        (another_program, OperatorNeeded, "is the database of another program"),
        (damaged, OperatorNeeded, "is damaged"),
        (from_the_future, StoreTooNew, "has schema 99, and this version reads up to 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_why(
    tmp_path: Path, spoil: Callable[[Path], None], error: type[Exception], text: str
) -> None:
    path = tmp_path / "state.db"
    spoil(path)
    for _ in range(2):  # the refusal lets go of the lock
        with pytest.raises(error, match=text):
            asyncio.run(open_store(f"sqlite://{path}", exclusive=True))


async def test_a_folder_that_cannot_be_made_is_refused_with_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperatorNeeded, match=r"cannot be written \(Not a directory|File exists"):
        await open_store(f"sqlite://{tmp_path}/file/state.db", exclusive=True)


async def test_a_full_disk_makes_the_store_unavailable_and_loses_nothing(tmp_path: Path) -> None:
    store = await open_store(f"sqlite://{tmp_path}/state.db", exclusive=True)
    version = await store.put(KEY, b"a", None)
    pages = store._database.run(lambda c: c.execute("PRAGMA max_page_count = 10").fetchone(), writes=False)
    await pages
    with pytest.raises(Unavailable, match="full: free some space"):
        await store.put(KEY, b"x" * VALUE_BYTES_MAX, version)
    stored = await store.get(KEY)
    assert stored is not None
    assert (stored.value, stored.version) == (b"a", version)
    assert await store.put(KEY, b"b", version) > version
    await store.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://a",
        "dynamodb://a/b",
        "postgres://x",
        "sqlite://host/path",
        "sqlite:///",
        "sqlite:///a?mode=ro",
        "memory://x",
        "",
    ],
)
async def test_a_state_that_is_not_served_is_refused_by_name(url: str) -> None:
    with pytest.raises(RequestRefused, match=r"sqlite:///"):
        await open_store(url, exclusive=True)


def test_the_file_system_of_a_folder_is_the_innermost_mount() -> None:
    mounts = (
        "/dev/sda / ext4 rw 0 0\nserver:/x /srv nfs4 rw 0 0\n/dev/sdb /srv/local\\040disk xfs rw 0 0\n"
        "u@h:/ /home/u/far fuse.sshfs rw 0 0\n"
    )
    assert file_system(Path("/var/lib"), mounts) == "ext4"
    assert file_system(Path("/srv/state"), mounts) == "nfs4"
    assert file_system(Path("/srv/local disk/state"), mounts) == "xfs"
    assert file_system(Path("/srvother"), mounts) == "ext4"
    assert file_system(Path("/home/u/far/away"), mounts) == "fuse.sshfs"


WORKER = """
import asyncio, sys
from esm.errors import EsmError
from esm.model.stored import Key
from esm.stores import open_store

async def main():
    store = await open_store(sys.argv[1], exclusive=True, lock=int(sys.argv[2]))
    await store.put(Key("lease", "one", sys.argv[3]), b"a", None)
    print("written", flush=True)
    sys.stdin.readline()
    await store.aclose()
    sys.stdin.readline()

try:
    asyncio.run(main())
except EsmError as error:
    print(error, flush=True)
"""


def worker(url: str, lock: int, name: str, *lent: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, url, str(lock), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=lent)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


async def test_a_file_that_is_lent_is_shared_by_those_who_inherit_its_lock_and_by_nobody_else(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/state.db"
    with lending(url) as lock:
        assert lock is not None
        workers = [worker(url, lock, str(n), lock) for n in range(2)]
        assert [said(one) for one in workers] == ["written\n", "written\n"]
        with pytest.raises(OperatorNeeded, match=f"in use by process {os.getpid()}"):
            await open_store(url, exclusive=True)
        stranger = os.open(tmp_path / "state.db.lock", os.O_RDWR)
        other = os.open(tmp_path / "state.db", os.O_RDWR)
        for lent in (stranger, other, 999):
            given = [lent] if lent != 999 else []
            refused = worker(url, lent, "by hand", *given)
            assert "is not lent by a supervisor to this process: start workers by `esm run" in said(refused)
            refused.communicate()
        os.close(stranger)
        os.close(other)
        for one in workers:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        with pytest.raises(OperatorNeeded, match="in use by process"):
            await open_store(url, exclusive=True)  # a worker that closes does not unlock the file for all
    for one in workers:
        one.communicate()
    store = await open_store(url, exclusive=True)
    assert len((await store.scan("lease", "one")).items) == 2
    await store.aclose()


def test_what_cannot_be_shared_or_used_is_not_lent(tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match=r"memory:// is each process's own: .* Name a file"), lending("memory://"):
        pass
    with pytest.raises(RequestRefused, match="is not known"), lending("redis://x"):
        pass
    with lending("dynamodb://some-table") as lock:
        assert lock is None
    garbage(tmp_path / "state.db")
    for _ in range(2):  # the refusal lets go of the lock
        with pytest.raises(OperatorNeeded, match="not a SQLite database"), lending(f"sqlite://{tmp_path}/state.db"):
            pass
