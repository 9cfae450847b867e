"""The lock that keeps a second daemon off a state file: a file of its own, so that readers need not ask for it.

Law: the kernel's lock decides and dies with its holder, however that ends; the file's content only names the holder.
The file is never removed: two processes could then hold a lock each, on two files of one name.
The lock belongs to the open file: workers that inherit its descriptor hold it together with their supervisor, until the
last of them has ended. Nobody else can come by such a descriptor.
"""

import fcntl
import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from esm.errors import OperatorNeeded

_CONTENT_BYTES_MAX = 4096


class FileLock:
    """Held from construction to `release`, or to the end of the process. Not inherited by programs started."""

    def __init__(self, path: Path, holds: Path) -> None:
        """Take the lock at `path` for the file `holds`. Raises: OperatorNeeded, naming the holder if there is one."""
        try:
            self.descriptor = _locked(path, holds)
        except OSError as error:
            raise OperatorNeeded(
                f"The lock {path} cannot be taken ({error.strerror}): give this user the right to write it and its"
                " folder, on a disk with free space."
            ) from error

    def release(self) -> None:
        """Let another process have it."""
        with suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)  # a child between fork and exec may hold a copy
        os.close(self.descriptor)


class SharedLock:
    """A lock that a supervisor holds, inherited from it by its descriptor."""

    def __init__(self, path: Path, holds: Path, descriptor: int) -> None:
        """Hold it too, and hand it to no program started here.

        Raises: OperatorNeeded when `descriptor` is not the lock at `path` or somebody else holds that.
        """
        self._descriptor = descriptor
        try:
            os.set_inheritable(descriptor, False)
            here, there = os.fstat(descriptor), path.stat()
            is_ours = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
            if is_ours:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            is_ours = False
        if not is_ours:
            raise OperatorNeeded(
                f"The state {holds} is not lent by a supervisor to this process: start workers by"
                " `esm run --workers N`."
            )

    def let_go(self) -> None:
        """Close this process's part; the others go on holding the lock."""
        os.close(self._descriptor)


def _locked(path: Path, holds: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, _own_name(), 0)
    except BlockingIOError as error:
        holder = _holder(os.pread(descriptor, _CONTENT_BYTES_MAX, 0))
        os.close(descriptor)
        raise OperatorNeeded(
            f"The state {holds} is in use by {holder}: stop that process first, or give this one a state of its own"
            " (ESM_STATE)."
        ) from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _own_name() -> bytes:
    started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    command = " ".join(sys.orig_argv)[:512]
    name = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": started_at, "command": command}
    return json.dumps(name).encode() + b"\n"


def _holder(content: bytes) -> str:
    """Who wrote `content`; the holder may be between taking the lock and writing its name."""
    try:
        name = json.loads(content)
        return f"process {name['pid']} on {name['host']} ({name['command']}, since {name['started_at']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
