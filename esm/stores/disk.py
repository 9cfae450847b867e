"""Where a state file may lie, and with which rights: only its owner reads it, and only a disk of this machine holds it.

SQLite's write-ahead log needs shared memory and locks that network file systems do not keep: it would corrupt.
"""

import os
from pathlib import Path

from esm.errors import OperatorNeeded, StateMissing

NETWORK_FILE_SYSTEMS = frozenset({
    "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs",
    "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs",
})  # fmt: skip

_MOUNTS = Path("/proc/self/mounts")
_MODE = 0o600
_FOLDER_MODE = 0o700


def prepare(path: Path) -> None:
    """Make the folder and the file where missing, readable by their owner alone. Raises: OperatorNeeded."""
    try:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        refuse_network(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            if os.fstat(descriptor).st_mode & 0o077:
                os.fchmod(descriptor, _MODE)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OperatorNeeded(
            f"The state {path} cannot be written ({error.strerror}): give this user the right to write it and its"
            " folder, or name another file (ESM_STATE)."
        ) from error


def require(path: Path) -> None:
    """Be sure that a state file is there and can be read. Raises: StateMissing, OperatorNeeded."""
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise StateMissing(
            f"The state {path} does not exist: no daemon has run with it. Start one, or name its file (ESM_STATE)."
        ) from error
    except OSError as error:
        raise OperatorNeeded(
            f"The state {path} cannot be read ({error.strerror}): ask as the user that runs the daemon."
        ) from error
    refuse_network(path)


def refuse_network(path: Path) -> None:
    """Refuse a folder on a network file system, where the system tells. Raises: OperatorNeeded."""
    try:
        mounts = _MOUNTS.read_text(errors="replace")
    except OSError:
        return
    kind = file_system(path.parent.resolve(), mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise OperatorNeeded(
            f"The state {path} lies on a network file system ({kind}), which does not keep the locks that SQLite"
            " needs. Name a file on a disk of this machine (ESM_STATE)."
        )


def file_system(folder: Path, mounts: str) -> str | None:
    """The type of the file system that holds `folder`, by the lines of /proc/mounts; None where none does."""
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:  # noqa: PLR2004 device, mount point, type
            continue
        mount_point = Path(fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        if folder.is_relative_to(mount_point) and (best is None or len(mount_point.parts) >= best[0]):
            best = (len(mount_point.parts), fields[2])
    return None if best is None else best[1]
