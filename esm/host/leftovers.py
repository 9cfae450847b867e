"""The register of running environments, and the end of what a killed daemon left behind.

Law: standard library only, nothing of ours. Run as a script (`leftovers.py DIRECTORY PID STARTED`) it waits until its
standard input ends, which is the death of the daemon that holds the other end, and then ends that daemon's
environments with everything that they started. An environment dies with its daemon by itself (PR_SET_PDEATHSIG), but
what it has started does not, so one such process stands beside each daemon. If it was killed too, the next daemon in
the same directory does the work when it starts.

A process belongs to an environment by its session, or by the token that its environment variables inherited. Pids
return, so they count only together with the start time (and the boot) that the register holds. Several daemons may
share a register: each entry names its daemon, and those of one that lives are left alone.
"""

import os
import secrets
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_ROUNDS_MAX = 50
"""A process may fork while its kin are ended: look again until none is left, at most so many times."""
_ROUND_S = 0.01


class Stat(NamedTuple):
    """What /proc says of a process that is not a zombie."""

    session: int
    started: int
    """Clock ticks since the machine's boot."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One environment, as its daemon wrote it down."""

    token: str
    pid: int
    """Of the environment's process: the leader of its session."""
    started: int
    owner: int
    """Pid of the daemon."""
    owner_started: int
    boot: str


def new_token() -> str:
    """A name for one environment that no other process carries."""
    return secrets.token_hex(16)


def stat(pid: int) -> Stat | None:
    """None when there is no such process, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else Stat(session=int(fields[3]), started=int(fields[19]))


def write(directory: Path, token: str, pid: int) -> Entry:
    """Put an environment of this process into the register."""
    own, seen = stat(os.getpid()), stat(pid)
    entry = Entry(token, pid, seen.started if seen else 0, os.getpid(), own.started if own else 0, _boot())
    fields = (entry.pid, entry.started, entry.owner, entry.owner_started, entry.boot)
    unfinished = directory / f"{token}.{entry.owner}"
    unfinished.write_text(" ".join(map(str, fields)), encoding="ascii")
    unfinished.rename(directory / token)
    return entry


def erase(directory: Path, token: str) -> None:
    """Take an environment out of the register."""
    (directory / token).unlink(missing_ok=True)


def end_all(directory: Path, dead: tuple[int, int] | None = None) -> list[int]:
    """End what daemons that are dead left behind; returns the pids of the processes ended. Blocks for milliseconds.

    `dead` names a daemon (pid and start time) that has died just now: only its environments are ended.
    """
    ended: list[int] = []
    for path in sorted(directory.iterdir()):
        if path.suffix and stat(int(path.suffix[1:])) is not None:
            continue  # a daemon beside this one is writing it
        entry = _read(path)
        if entry is not None:
            owner = (entry.owner, entry.owner_started)
            if dead is not None and owner != dead:
                continue
            if dead is None and _is_alive(entry.owner, entry.owner_started):
                continue
            if entry.boot == _boot():
                ended += end(entry, is_fresh=dead is not None)
        path.unlink(missing_ok=True)
    return ended


def end(entry: Entry, *, is_fresh: bool) -> list[int]:
    """Kill every process of one environment; returns their pids.

    `is_fresh`: its leader lived until now, so nobody else can have its session's number. Otherwise the number counts
    only while the leader itself is there, with its start time.
    """
    ended: list[int] = []
    for _ in range(_ROUNDS_MAX):
        by_session = is_fresh or _is_alive(entry.pid, entry.started)
        found = [pid for pid in _pids() if _belongs(pid, entry, by_session) and _kill(pid, entry, by_session)]
        if not found:
            break
        ended += (pid for pid in found if pid not in ended)
        time.sleep(_ROUND_S)
    return ended


def _kill(pid: int, entry: Entry, by_session: bool) -> bool:  # noqa: FBT001
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _belongs(pid, entry, by_session):  # the number went to another process before it was held fast
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(handle)


def _belongs(pid: int, entry: Entry, by_session: bool) -> bool:  # noqa: FBT001
    seen = stat(pid)
    if seen is None or seen.started < entry.started or pid == os.getpid():
        return False
    if by_session and seen.session == entry.pid:
        return True
    with suppress(OSError):
        return entry.token.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _is_alive(pid: int, started: int) -> bool:
    seen = stat(pid)
    return seen is not None and seen.started == started


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _read(path: Path) -> Entry | None:
    """None for a file that a dying daemon did not finish, or that another has taken out meanwhile."""
    try:
        pid, started, owner, owner_started, boot = path.read_text(encoding="ascii").split()
        return Entry(path.stem, int(pid), int(started), int(owner), int(owner_started), boot)
    except (ValueError, FileNotFoundError):
        return None


def _main(directory: str, pid: str, started: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    end_all(Path(directory), (int(pid), int(started)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
