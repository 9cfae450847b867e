"""A worker's lock, on real files: the kernel tells at once that its process has ended, and says nothing in doubt."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from esm.errors import OperatorNeeded
from esm.model.worker import HostLock
from esm.stores.worker_lock import WorkerLock, folder_for, is_free

HOLDER = """
import sys
from pathlib import Path
from esm.stores.worker_lock import WorkerLock
held = WorkerLock(Path(sys.argv[1]), "w", sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def hold(folder: Path, run: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDER, str(folder), run]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def named(folder: Path) -> HostLock:
    """What the heartbeat of the worker `w` says."""
    (path,) = folder.iterdir()
    about = path.stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return HostLock(str(path), about.st_dev, about.st_ino, boot)


def test_a_killed_process_lets_go_at_once_and_its_successor_can_prove_its_end(tmp_path: Path) -> None:
    with hold(tmp_path, "first") as process:
        assert not is_free(named(tmp_path))
        with pytest.raises(OperatorNeeded, match="ESM_WORKER_ID"):
            WorkerLock(tmp_path, "w", "second")
        assert not is_free(named(tmp_path))
        process.kill()
    assert is_free(named(tmp_path))
    second = WorkerLock(tmp_path, "w", "second")
    assert second.ended == ("first",)
    assert second.lock == named(tmp_path)
    assert not is_free(named(tmp_path))
    second.release()
    second.release()
    assert is_free(named(tmp_path))


def test_two_workers_have_two_locks(tmp_path: Path) -> None:
    one, other = WorkerLock(tmp_path, "a", "1"), WorkerLock(tmp_path, "b", "1")
    assert one.ended == other.ended == ()
    assert one.lock is not None
    assert other.lock is not None
    assert one.lock.path != other.lock.path
    one.release()
    assert is_free(one.lock)
    assert not is_free(other.lock)
    other.release()


def test_another_file_another_machine_or_no_file_is_no_verdict(tmp_path: Path) -> None:
    held = WorkerLock(tmp_path, "w", "1")
    lock = held.lock
    assert lock is not None
    held.release()
    assert is_free(lock)
    assert not is_free(replace(lock, inode=lock.inode + 1))
    assert not is_free(replace(lock, boot="another"))
    assert not is_free(replace(lock, boot=""))
    assert not is_free(replace(lock, path=lock.path + "x"))


def test_a_folder_that_cannot_be_used_means_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    held = WorkerLock(tmp_path / "file", "w", "1")
    assert (held.lock, held.ended) == (None, ())
    held.release()


def test_workers_on_one_state_meet_in_one_folder(tmp_path: Path) -> None:
    assert folder_for("sqlite:x", tmp_path / "x.db") == tmp_path / "x.db.workers"
    assert folder_for("dynamodb://a", None) == folder_for("dynamodb://a", None)
    assert folder_for("dynamodb://a", None) != folder_for("dynamodb://b", None)
