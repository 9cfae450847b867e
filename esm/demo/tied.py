"""Runs a command that cannot outlive its parent: `python tied.py PARENT_PID COMMAND...`. Started by its path."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h. Elsewhere than on Linux there is no such thing: the demo then ends its children only itself."""


def main(parent: int, command: list[str]) -> None:
    """Become `command`, killed when `parent` ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
    os.execv(command[0], command)  # noqa: S606 - the command is the caller's own


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
