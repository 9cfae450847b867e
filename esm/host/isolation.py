"""What keeps environments apart on this machine: tried at start, reported, never assumed."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from esm.errors import OperatorNeeded
from esm.host.cgroups import Cgroups, delegated

_TRY_WITHIN_S = 10.0
USER, GROUP = 993, 990
"""As Lambda's own."""
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "gai.conf", "host.conf", "hosts",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "pki", "protocols",
    "resolv.conf", "services", "ssl", "timezone",
)  # fmt: skip
"""What a function needs of /etc to find hosts, certificates and libraries; no accounts, no secrets."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What can be enforced here."""

    bubblewrap: str | None = None
    """Path of `bwrap`, where it works."""
    why_not: str = ""
    """What keeps bubblewrap from working."""
    has_user_space: bool = False
    """Whether a sandbox has user ids of its own."""
    cgroups: Cgroups = field(default_factory=lambda: Cgroups(None))

    @property
    def is_sandboxed(self) -> bool:
        """Whether a function sees neither the daemon's files nor its processes."""
        return self.bubblewrap is not None

    @property
    def can_freeze(self) -> bool:
        """Whether the time of an environment can be stopped."""
        return self.is_sandboxed or self.cgroups.can_freeze

    def enforced(self) -> dict[str, str]:
        """For people: each thing that Lambda keeps apart or limits, and what is done about it here."""
        limits = self.cgroups.controllers
        freezer = "SIGSTOP to its process space" if self.is_sandboxed else "not enforced"
        return {
            "files": "sandbox (bubblewrap)" if self.is_sandboxed else f"not enforced: {self.why_not}",
            "processes": "own process space" if self.is_sandboxed else "own session",
            "number of processes": self._processes(),
            "tmp": "own, EphemeralStorage (tmpfs)" if self.is_sandboxed else "not enforced: shared /tmp",
            "network": "host, or none" if self.is_sandboxed else "not enforced: host",
            "memory": "MemorySize (cgroup)" if "memory" in limits else "data of each process (rlimit)",
            "cpu": "MemorySize / 1769 MB (cgroup)" if "cpu" in limits else "not enforced",
            "freezing": "cgroup freezer" if self.cgroups.can_freeze else freezer,
            "instance metadata": "out of reach where the network is none; else only AWS_EC2_METADATA_DISABLED=true",
        }

    def _processes(self) -> str:
        if "pids" in self.cgroups.controllers:
            return "1024 (cgroup)"
        if self.is_sandboxed and self.has_user_space and os.geteuid() != 0:
            return "1024 (rlimit)"
        return "not enforced: the kernel bounds no process of root" if os.geteuid() == 0 else "not enforced"


def find_isolation(wanted: str, path: str | None = None) -> Isolation:
    """Try what this machine offers; `wanted` is `auto`, `bubblewrap` or `none`. Blocks for moments.

    Raises: OperatorNeeded where `bubblewrap` is wanted and does not work.
    """
    if wanted == "none":
        return Isolation(why_not="ESM_HOST_ISOLATION is none")
    place = shutil.which("bwrap", path=path)
    cgroups = delegated(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"))
    if place is None:
        why = "bwrap is not installed (package bubblewrap)"
    else:
        for own_users in (True, False):
            why = _try([place, *_apart(own_users=own_users), *system_mounts(), "--", "/bin/true"])
            if not why:
                return Isolation(place, "", own_users, cgroups)
    if wanted == "bubblewrap":
        raise OperatorNeeded(
            f"ESM_HOST_ISOLATION is bubblewrap, which does not work here: {why}; allow user namespaces, or set auto"
        )
    return Isolation(None, why, has_user_space=False, cgroups=cgroups)


def apart(isolation: Isolation, *, has_network: bool) -> Sequence[str]:
    """The arguments of bubblewrap that give a sandbox spaces of its own."""
    return [*_apart(own_users=isolation.has_user_space), *([] if has_network else ["--unshare-net"])]


def system_mounts() -> list[str]:
    """The arguments of bubblewrap that show the machine's programs and libraries, and nothing else."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for place in _SYSTEM:
        if os.path.islink(place):  # noqa: PTH114 - beside readlink
            arguments += ["--symlink", os.readlink(place), place]  # noqa: PTH115 - what it says, not where it leads
        elif Path(place).is_dir():
            arguments += ["--ro-bind", place, place]
    for name in _ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return [*arguments, "--proc", "/proc", "--dev", "/dev"]


def _apart(*, own_users: bool) -> list[str]:
    users = ["--unshare-user", "--uid", str(USER), "--gid", str(GROUP)] if own_users else []
    return [*users, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent"]


def _try(command: Sequence[str]) -> str:
    """Why it fails; empty where it does not."""
    try:
        tried = subprocess.run(  # noqa: S603
            command, capture_output=True, timeout=_TRY_WITHIN_S, check=False, text=True, env={}, cwd="/"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)[:200]
    said = tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"]
    return said[-1][:200] if tried.returncode else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
