"""A locked file for each worker: on one machine the kernel tells at once that a worker has ended, however it did.

Law: only the very file that a heartbeat names, on the machine that it names, says anything; wherever that is in doubt
there is no verdict, and the heartbeat's silence decides.
"""

import fcntl
import hashlib
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.model.worker import HostLock

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_RUN_BYTES_MAX = 200
_TAKE_S = 1.0
"""How long a look of another worker, or the end of an earlier run, may keep the lock."""


class WorkerLock:
    """Held from construction to `release`, or to the end of the process."""

    def __init__(self, folder: Path, worker: str, run: str) -> None:
        """Lock the file of `worker` in `folder`. Raises: OperatorNeeded where another process works under that id.

        Where the folder cannot be used, there is no lock, and `lock` is None.
        """
        self.lock: HostLock | None = None
        self.ended: tuple[str, ...] = ()
        """The run before this one, which has surely ended."""
        self._descriptor = -1
        path = folder / f"{hashlib.sha256(worker.encode()).hexdigest()[:32]}.lock"
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = folder.lstat()
            if about.st_uid == os.geteuid() and stat.S_ISDIR(about.st_mode):
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if self._descriptor >= 0:
            self._take(path, worker, run)

    def release(self) -> None:
        """Let go; without a lock nothing."""
        if self._descriptor >= 0:
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1

    def _take(self, path: Path, worker: str, run: str) -> None:
        if not _locked(self._descriptor):
            os.close(self._descriptor)
            self._descriptor = -1
            raise OperatorNeeded(
                f"Another process works as {worker} on this state already: give each worker an id of its own"
                " (ESM_WORKER_ID), or stop that one first."
            )
        before = os.pread(self._descriptor, _RUN_BYTES_MAX, 0).decode(errors="replace").strip()
        self.ended = (before,) if before else ()
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, run.encode(), 0)
        about = os.fstat(self._descriptor)
        self.lock = HostLock(str(path), about.st_dev, about.st_ino, _boot())


def is_free(lock: HostLock) -> bool:
    """Whether the process that held a lock has surely ended."""
    if not lock.boot or lock.boot != _boot():
        return False
    try:
        descriptor = os.open(lock.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        about = os.fstat(descriptor)
        if (about.st_dev, about.st_ino) != (lock.device, lock.inode):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def folder_for(state: str, path: Path | None) -> Path:
    """Where the locks of the workers on one state lie: beside its file, or in the machine's temporary folder."""
    if path is not None:
        return path.with_name(path.name + ".workers")
    name = hashlib.sha256(state.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"esm-workers-{os.geteuid()}" / name


def _locked(descriptor: int) -> bool:
    until = time.monotonic() + _TAKE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_TAKE_S / 20)
        else:
            return True


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
