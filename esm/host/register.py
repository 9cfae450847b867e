"""Which environments run: a file each, so that those of a killed daemon can be ended.

A small process of its own, the reaper, holds the other end of a pipe: when the daemon dies, however, the pipe closes
and the reaper ends every registered session at once. Should the reaper die too, the next start does it. Run as a
script, this module is the reaper: `python -I -S register.py FOLDER`, standard library only.
"""

import importlib.util
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType


class Register:
    """The environments of one daemon, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reaper: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Make the folder and start the reaper."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._reaper = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-I", "-S", __file__, str(self._folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env={}, cwd="/",
        )  # fmt: skip

    def add(self, pid: int) -> None:
        """An environment was started; it leads a session of its own."""
        (self._folder / str(pid)).write_text(_sessions().start_time(pid) or "", encoding="utf-8")

    def remove(self, pid: int) -> None:
        """Its whole session has ended."""
        (self._folder / str(pid)).unlink(missing_ok=True)

    def end_leftovers(self) -> list[int]:
        """End what a killed daemon left; returns the pids that still ran."""
        return end_registered(self._folder)

    def close(self) -> None:
        """Every environment has ended: the reaper goes too."""
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            self._reaper.wait(timeout=10)
            self._reaper = None


def end_registered(folder: Path) -> list[int]:
    """Kill the session of every registered process, if it is the one that was registered; forget them all."""
    sessions = _sessions()
    ended: list[int] = []
    for entry in sorted(folder.glob("[0-9]*")) if folder.is_dir() else []:
        pid = int(entry.name)
        with suppress(OSError):
            started = entry.read_text(encoding="utf-8")
            running = sessions.start_time(pid)
            if running is not None and running == started:
                ended.append(pid)
            if running is None or running == started:
                sessions.kill_session(pid)
            entry.unlink(missing_ok=True)
    return ended


def _sessions() -> ModuleType:
    """The module beside this one, found by its file: the reaper runs without the package."""
    spec = importlib.util.spec_from_file_location("esm_host_sessions", Path(__file__).with_name("sessions.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reap(folder: Path) -> None:
    """Wait until the daemon is gone, then end what it left."""
    while os.read(0, 1024):
        pass
    end_registered(folder)


if __name__ == "__main__":
    reap(Path(sys.argv[1]))
