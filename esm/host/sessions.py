"""Processes found again: by pid and start time, so that a pid used anew is never mistaken, and by their session."""

import os
import signal
from contextlib import suppress
from pathlib import Path

_AFTER_NAME_STATE, _AFTER_NAME_SESSION, _AFTER_NAME_START = 0, 3, 19
"""Places in /proc/PID/stat behind the name in brackets."""


def start_time(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where there is none (a zombie counts as none)."""
    fields = _stat(pid)
    return None if fields is None or fields[_AFTER_NAME_STATE] == "Z" else fields[_AFTER_NAME_START]


def kill_session(session: int) -> None:
    """Kill every process of a session, grandchildren that left the process group included."""
    with suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields is not None and fields[_AFTER_NAME_SESSION] == str(session):
            with suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(") ")[2].split()
