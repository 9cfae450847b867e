"""Control groups (v2) for environments, where this machine delegates them to the daemon.

Law: nothing is assumed. The daemon's own group is tried: whether a group can be made below it (then environments can
be frozen and killed whole) and which of `memory`, `cpu` and `pids` can be handed down to it (then they are limited).
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

MB_PER_CPU = 1769
"""MemorySize that comes with one CPU. Source: lambda.md 7.7."""
_PERIOD_US = 100_000
_PROCESSES_MAX = 1024
_WANTED = ("memory", "cpu", "pids")
_TRIES, _TRY_S = 50, 0.01


@dataclass(frozen=True, slots=True)
class Group:
    """The group of one environment."""

    folder: Path

    @property
    def prefix(self) -> Sequence[str]:
        """What a command begins with to run in the group."""
        return ("/bin/sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', str(self.folder))

    def freeze(self, *, frozen: bool) -> None:
        """Stop its time, or let it go on."""
        with suppress(OSError):
            (self.folder / "cgroup.freeze").write_text("1" if frozen else "0")

    def kill(self) -> None:
        """SIGKILL to everything in it, frozen or not."""
        with suppress(OSError):
            (self.folder / "cgroup.kill").write_text("1")

    def memory_peak_bytes(self) -> int | None:
        """The most memory that was used; None where memory is not delegated."""
        try:
            return int((self.folder / "memory.peak").read_text())
        except (OSError, ValueError):
            return None

    def remove(self) -> None:
        """Once it is empty. Blocks for moments: for a thread."""
        for _ in range(_TRIES):
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_TRY_S)
            else:
                return


class Cgroups:
    """Makes groups below one of the daemon's own. `folder` None: no group can be made here."""

    def __init__(self, folder: Path | None, controllers: frozenset[str] = frozenset()) -> None:
        self._folder = folder
        self.controllers = controllers
        self._numbers = count(1)

    @property
    def can_freeze(self) -> bool:
        """Whether there are groups at all: each can be frozen."""
        return self._folder is not None

    def group(self, memory_mb: int) -> Group | None:
        """A new group with the limits that can be set. Raises: OSError."""
        if self._folder is None:
            return None
        folder = self._folder / f"environment-{next(self._numbers)}"
        folder.mkdir()
        limits = {
            "memory": (
                ("memory.max", str(memory_mb * 1024 * 1024)),
                ("memory.swap.max", "0"),
                ("memory.oom.group", "1"),
            ),
            "cpu": (("cpu.max", f"{max(1000, memory_mb * _PERIOD_US // MB_PER_CPU)} {_PERIOD_US}"),),
            "pids": (("pids.max", str(_PROCESSES_MAX)),),
        }
        for name in self.controllers:
            for file, value in limits[name]:
                if (folder / file).exists():
                    (folder / file).write_text(value)
        return Group(folder)

    def close(self) -> None:
        """Remove the daemon's group; it must be empty."""
        if self._folder is not None:
            Group(self._folder).remove()


def delegated(mounts: str, own: str) -> Cgroups:
    """What can be used here; `mounts` is the text of /proc/self/mountinfo, `own` that of /proc/self/cgroup."""
    place = _own_group(mounts, own)
    if place is None:
        return Cgroups(None)
    folder = place / f"esm-{os.getpid()}"
    try:
        _remove_leftovers(place)
        folder.mkdir(exist_ok=True)
    except OSError:
        return Cgroups(None)
    if not (folder / "cgroup.freeze").exists():
        Group(folder).remove()
        return Cgroups(None)
    handed = frozenset(name for name in _WANTED if _hand_down(place, folder, name))
    return Cgroups(folder, handed)


def _own_group(mounts: str, own: str) -> Path | None:
    roots = [
        fields for line in mounts.splitlines() if (fields := line.split(" - ")) and fields[-1].startswith("cgroup2 ")
    ]
    paths = [line.removeprefix("0::") for line in own.splitlines() if line.startswith("0::")]
    if not roots or not paths or paths[0].startswith("/.."):
        return None
    return Path(roots[0][0].split()[4]) / paths[0].lstrip("/")


def _hand_down(place: Path, folder: Path, name: str) -> bool:
    """Whether groups below `folder` have a controller now: it has to be switched on in both above them."""
    for group in (place, folder):
        try:
            if name not in (group / "cgroup.controllers").read_text().split():
                return False
            if name not in (group / "cgroup.subtree_control").read_text().split():
                (group / "cgroup.subtree_control").write_text(f"+{name}")
        except OSError:
            return False
    return True


def _remove_leftovers(place: Path) -> None:
    """Groups of daemons that are dead; those that something still runs in stay."""
    for folder in place.glob("esm-*"):
        pid = folder.name.removeprefix("esm-")
        if pid.isdigit() and not Path("/proc", pid).exists():
            for group in [*folder.glob("environment-*"), folder]:
                with suppress(OSError):
                    group.rmdir()
